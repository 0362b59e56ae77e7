"""An inventory of a machine: as tables, and as lines of JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, Any

from bpftrace_sys.render.json_lines import object_json
from bpftrace_sys.render.style import wants_colour
from bpftrace_sys.render.tables import draw, uncoloured
from bpftrace_sys.story.inventory import Machine
from bpftrace_sys.story.objects import Object
from bpftrace_sys.story.summary import Table
from bpftrace_sys.trace.inventory import ObjectState, state_line, unseen_line


def object_line(state: ObjectState, known: Object) -> dict[str, Any]:
    """An object as a line: what was recorded, and how a trace names it."""
    line = state_line(state)
    named = object_json(known)
    named.pop("origin", None)
    line["object"] = {**line["object"], **named}
    return line


def machine_lines(machine: Machine) -> Iterator[dict[str, Any]]:
    """All objects of an inventory, and what was not seen."""
    for state, known in machine.objects:
        yield object_line(state, known)
    for unseen in machine.inventory.unseen:
        yield unseen_line(unseen)


def write_tables(tables: Iterable[Table], out: IO[str]) -> None:
    """Tables with a blank line between them."""
    colours = wants_colour(out)
    first = True
    for table in tables:
        if not first:
            out.write("\n")
        first = False
        if colours:
            out.flush()
            draw(table, out)
        else:
            out.write("\n".join(uncoloured(table, out)) + "\n")
