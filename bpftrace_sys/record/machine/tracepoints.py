"""The tracepoints of this kernel, as tracefs lists them. Imported when one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from glob import glob

from bpftrace_sys.record.proc import read_text


def tracepoints(roots: Sequence[str]) -> dict[int, str]:
    """``category:name`` by id. ``roots``: where tracefs may be; the first that has any counts."""
    found: dict[int, str] = {}
    for root in roots:
        for path in glob(f"{root}/events/*/*/id"):
            text = read_text(path, 32)
            if text is not None and text.strip().isdigit():
                category, name = path.split("/")[-3:-1]
                found[int(text)] = f"{category}:{name}"
        if found:
            break
    return found


def tracepoint_named(roots: Sequence[str], name: str) -> str | None:
    """A tracepoint with its category, where there is but one of that name."""
    if not name.replace("_", "").isalnum():
        return None
    for root in roots:
        found = glob(f"{root}/events/*/{name}/id")
        if found:
            return f"{found[0].split('/')[-3]}:{name}" if len(found) == 1 else None
    return None
