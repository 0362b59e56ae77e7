"""Kernel objects and listings as JSON: wherever they stand, they look the same."""

from __future__ import annotations

from typing import Any

from bpftrace_sys.story.notes import Listing
from bpftrace_sys.story.objects import IDENTIFIED, MADE, Object


def object_json(found: Object) -> dict[str, Any]:
    """An object as it stands in ``fd`` and ``fds``."""
    line: dict[str, Any] = {"kind": found.kind}
    if found.name:
        line["name"] = found.name
    if found.id is not None:
        line["id"] = found.id
    for name in ("tag", "type", "target"):
        if found.info.get(name):
            line[name] = found.info[name]
    if found.kind in (*IDENTIFIED, "perf_event") and found.origin != MADE:
        line["origin"] = found.origin
    if found.kind == "map" and "key_size" in found.info:
        for name in ("map_type", "key_size", "value_size", "max_entries"):
            if name in found.info:
                line[name] = found.info[name]
    return line


def insns_json(found: Listing) -> list[dict[str, Any]]:
    """A listing's lines; ``src`` and ``fn`` where a source line or function begins."""
    lines = []
    for row in found.lines:
        line: dict[str, Any] = {"pc": row.pc, "text": row.text}
        if row.source is not None:
            line["src"] = row.source
        if row.function is not None:
            line["fn"] = row.function
        if row.comment is not None:
            line["comment"] = row.comment
        lines.append(line)
    return lines
