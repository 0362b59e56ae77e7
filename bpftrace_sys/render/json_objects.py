"""Kernel objects and listings as JSON: wherever they stand, they look the same."""

from __future__ import annotations

from itertools import islice
from typing import Final

from bpftrace_sys.common.strict_json import dumps
from bpftrace_sys.story.notes import Listing
from bpftrace_sys.story.objects import IDENTIFIED, MADE, Link, Map, Object, Prog
from decoders.formats.insn_text import Line

BATCH: Final = 4_096
"""Lines of a long listing of which objects are made at a time."""


def object_json(found: Object) -> dict[str, object]:
    """An object as it stands in ``fd`` and ``fds``."""
    line: dict[str, object] = {"kind": found.kind}
    if found.name:
        line["name"] = found.name
    if found.id is not None:
        line["id"] = found.id
    if isinstance(found, Prog) and found.tag:
        line["tag"] = found.tag
    if isinstance(found, Prog | Map | Link) and found.type:
        line["type"] = found.type
    if isinstance(found, Link) and found.target:
        line["target"] = found.target
    if found.kind in (*IDENTIFIED, "perf_event") and found.origin != MADE:
        line["origin"] = found.origin
    if isinstance(found, Map) and found.key_size is not None:
        numbers = {
            "map_type": found.map_type,
            "key_size": found.key_size,
            "value_size": found.value_size,
            "max_entries": found.max_entries,
        }
        line.update({name: number for name, number in numbers.items() if number is not None})
    return line


def insns_json(found: Listing) -> list[dict[str, object]]:
    """A listing's lines; ``src`` and ``fn`` where a source line or function begins."""
    return [_row(line) for line in found.lines]


def insns_text(found: Listing) -> str:
    """The same as JSON's text: of a long listing, objects are made for a few lines at a time."""
    lines = iter(found.lines)
    pieces = []
    while batch := [_row(line) for line in islice(lines, BATCH)]:
        pieces.append(dumps(batch)[1:-1])
    return f"[{','.join(pieces)}]"


def _row(row: Line) -> dict[str, object]:
    line: dict[str, object] = {"pc": row.pc, "text": row.text}
    if row.source is not None:
        line["src"] = row.source
    if row.function is not None:
        line["fn"] = row.function
    if row.comment is not None:
        line["comment"] = row.comment
    return line
