"""Kernel objects and listings as JSON: wherever they stand, they look the same."""

from __future__ import annotations

from bpftrace_sys.story.notes import Listing
from bpftrace_sys.story.objects import IDENTIFIED, MADE, Link, Map, Object, Prog
from decoders.formats.insn_text import Line


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


def _row(row: Line) -> dict[str, object]:
    line: dict[str, object] = {"pc": row.pc, "text": row.text}
    if row.source is not None:
        line["src"] = row.source
    if row.function is not None:
        line["fn"] = row.function
    if row.comment is not None:
        line["comment"] = row.comment
    return line
