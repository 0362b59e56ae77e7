"""An inventory of a machine: as tables, and as lines of JSON."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from bpftrace_sys.common.escape import printable
from bpftrace_sys.render.json_objects import object_json
from bpftrace_sys.render.output import Output
from bpftrace_sys.render.style import Painter, wants_colour
from bpftrace_sys.render.tables import draw, uncoloured
from bpftrace_sys.story.inventory import Machine
from bpftrace_sys.story.objects import MADE, Link, Object, PerfEvent
from bpftrace_sys.story.standing import via
from bpftrace_sys.story.summary import Table
from bpftrace_sys.trace.inventory import (
    Holder,
    ObjectState,
    Unseen,
    kind_line,
    place_line,
    state_line,
    unseen_line,
)
from decoders.records import replace


def object_line(state: ObjectState, known: Object) -> dict[str, object]:
    """An object as a line: what was recorded, and how a trace names it."""
    line = state_line(state)
    line["object"] = {**kind_line(state), **object_json(known)}
    line["attached"] = [{**place_line(place), "via": via(place)} for place in state.places]
    return line


def held_line(state: ObjectState, known: Object, holder: Holder, paint: Painter) -> str:
    """``holds 5<prog first id=41 tag=...>, attached to tcx ingress on lo``."""
    shown = replace(known, origin=MADE)
    fds = ", ".join(str(fd) for fd in holder.fds)
    words = [f"holds {fds}<{paint('object', printable(shown.long_label))}>"]
    prog = known.prog if isinstance(known, Link | PerfEvent) else None
    if prog is not None:
        words.append(f"of {printable(replace(prog, origin=MADE).label)}")
    elif state.info.get("program"):
        words.append("with a program that the kernel does not name")
    words += [f"pinned at {printable(pin)}" for pin in state.pins]
    if state.kind in ("prog", "map"):
        words += [f"attached to {printable(target)}" for target in known.attached]
    return ", ".join(words)


def program_lines(
    machine: Machine, state: ObjectState, known: Object, paint: Painter
) -> Iterator[str]:
    """A program's name, and below it what is known of it."""
    yield paint("object", printable(known.long_label))
    for role, text in machine.facts_of(state, known):
        yield f"  {role:<9} {printable(text)}"


def unseen_text(unseen: Unseen) -> str:
    """``not seen: what 3 processes have open: another user's: it takes root``."""
    return printable(f"not seen: {unseen.what} ({unseen.why})")


def machine_lines(machine: Machine) -> Iterator[dict[str, object]]:
    """All objects of an inventory, and what was not seen."""
    for state, known in machine.objects:
        yield object_line(state, known)
    for unseen in machine.inventory.unseen:
        yield unseen_line(unseen)


def write_tables(tables: Iterable[Table], out: Output, colour: str = "auto") -> None:
    """Tables with a blank line between them; drawn where there are colours."""
    colours = wants_colour(out.stream, colour)
    first = True
    for table in tables:
        if not first:
            out.write("\n")
        first = False
        if colours:
            out.flush()
            draw(table, out.stream)
        else:
            out.write("\n".join(uncoloured(table, out.stream)) + "\n")


def screenful(tables: Iterable[Table], out: Output, taken: int) -> None:
    """Tables on a terminal that is drawn anew each time: as much as fits below ``taken`` lines."""
    lines: list[str] = []
    for table in tables:
        lines += [*([""] if lines else []), *uncoloured(table, out.stream)]
    try:
        rows = os.get_terminal_size(out.stream.fileno()).lines - taken - 1
    except (OSError, ValueError):
        rows = len(lines)
    if len(lines) > rows:
        kept = max(rows - 1, 1)
        lines[kept:] = [f"... {len(lines) - kept} more lines do not fit"]
    out.write("\n".join(lines) + "\n")
