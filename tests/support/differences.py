"""Traces compared, as tests look at the outcome."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bpftrace_sys.compare.diff.compare import compare
from bpftrace_sys.compare.diff.options import Options
from bpftrace_sys.compare.diff.whole import whole
from bpftrace_sys.render.diff import as_json, text

MAP_CREATE, UPDATE, PROG_LOAD, OBJ_PIN = 0, 2, 5, 6


def different(a: Path, b: Path, **options: Any) -> dict[str, Any]:
    """What differs, as JSON."""
    chosen = Options(**options)
    found = compare(whole(str(a), chosen.strict), whole(str(b), chosen.strict), chosen)
    assert bool(found) == bool(list(text(found, ("a", "b"), (None, None))))
    return as_json(found, (str(a), str(b)))


def same(a: Path, b: Path, **options: Any) -> bool:
    """Whether nothing differs."""
    return bool(different(a, b, **options)["same"])
