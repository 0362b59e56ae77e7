"""The ledger: what a trace made, used and left behind, as tables.

Pure: rows of strings from the model and from what was counted on the way.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, TypeVar

from bpftrace_sys.story.fates import fate, seen_at_the_end
from bpftrace_sys.story.lasting import still_attached
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Link, Map, Object, Prog
from bpftrace_sys.story.targets import printable
from decoders.call import Call
from decoders.records import dataclass, field

Kind = TypeVar("Kind", bound=Object)


@dataclass(slots=True)
class Count:
    """How often a call was made, how often it failed, and how long it took."""

    calls: int = 0
    errors: int = 0
    nanoseconds: int = 0


@dataclass(slots=True)
class Table:
    """A titled table; ``right`` are the columns of numbers."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    right: frozenset[str] = frozenset()


class Counts:
    """Counts calls by syscall and command, as they go by."""

    def __init__(self) -> None:
        self.by_name: OrderedDict[tuple[str, str], Count] = OrderedDict()

    def of(self, call: Call) -> Count:
        """Where calls like this one are counted."""
        command = call.command
        key = (call.syscall.name, "" if command == call.syscall.name else command)
        return self.by_name.setdefault(key, Count())

    def call(self, call: Call) -> None:
        """Counts one."""
        count = self.of(call)
        count.calls += 1
        if call.raw.failed:
            count.errors += 1
        count.nanoseconds += call.raw.duration or 0


def micros(nanoseconds: int | None) -> str:
    """Microseconds, to be read as a column."""
    return "" if nanoseconds is None else f"{nanoseconds / 1000:.0f}"


def _made(model: Model, kind: type[Kind]) -> list[Kind]:
    found = [known for known in model.objects.values() if isinstance(known, kind)]
    return [known for known in found if not (known.call and known.call.notes.is_probe)]


def runs_of(prog: Object, model: Model) -> tuple[int, int] | None:
    """How often a program ran, and nanoseconds of all runs; None: not counted (--stats)."""
    words = (model.facts.fact("runs", prog.id) or "").split() if prog.id else []
    if len(words) < 2 or not (words[0].isdecimal() and words[1].isdecimal()):
        return None
    return int(words[0][:20]), int(words[1][:20])


def counted(model: Model) -> bool:
    """Whether runs of any program were counted (--stats)."""
    return any(runs_of(prog, model) is not None for prog in _made(model, Prog))


def _runs(prog: Object, model: Model) -> tuple[str, str]:
    """The cells: runs, and nanoseconds a run."""
    found = runs_of(prog, model)
    if found is None:
        return "", ""
    count, nanoseconds = found
    return str(count), str(round(nanoseconds / count)) if count else ""


RUNS: Final = ("runs", "ns a run")
"""Columns that are there with --stats."""


def programs(model: Model) -> Table:
    """name, type, tag, id, instructions, verifier time, runs if they were counted, attached to."""
    shown = _made(model, Prog)
    runs = [_runs(prog, model) for prog in shown]
    told = any(cells != ("", "") for cells in runs)
    table = Table(
        "programs" + (" (runs of all programs of the machine were counted)" if told else ""),
        ("name", "type", "id", "tag", "insns", "load us", *(RUNS if told else ()),
         "attached to"),
        right=frozenset({"id", "insns", "load us", *RUNS}),
    )  # fmt: skip
    for prog, cells in zip(shown, runs, strict=True):
        table.rows.append(
            (
                printable(prog.name) or "(anonymous)",
                prog.type_name,
                str(prog.id or ""),
                prog.tag,
                str(prog.insns or ""),
                micros(prog.verify_ns),
                *(cells if told else ()),
                fate(prog, model),
            )
        )
    return table


def maps(model: Model) -> Table:
    """name, type, id, key/value size, entries, operations."""
    table = Table(
        "maps",
        ("name", "type", "id", "key", "value", "entries", "operations"),
        right=frozenset({"id", "key", "value", "entries", "operations"}),
    )
    for found in _made(model, Map):
        sizes = (found.key_size, found.value_size, found.max_entries)
        table.rows.append(
            (
                printable(found.name) or "(anonymous)",
                found.type_name,
                str(found.id or ""),
                *("" if size is None else str(size) for size in sizes),
                str(found.operations),
            )
        )
    return table


def links(model: Model) -> Table:
    """id, type, program, target."""
    table = Table("links", ("id", "type", "program", "target"), right=frozenset({"id"}))
    for link in _made(model, Link):
        prog = link.prog
        table.rows.append(
            (
                str(link.id or ""),
                printable(link.type),
                "" if prog is None else printable(prog.name) or "(anonymous)",
                printable(link.target),
            )
        )
    return table


def reasons_of(found: Object, model: Model, users_of: dict[int, list[Prog]]) -> list[str]:
    """Why an object is still there, as far as that can be seen."""
    facts, number = model.facts, found.id or 0
    reasons = []
    for pin in found.pins:
        there = facts.fact(f"pinned {found.kind} {pin}", number)
        reasons.append(f"{'pinned' if there else 'was pinned'} at {printable(pin)}")
    holders = facts.fact(f"holders {found.kind}", number)
    if holders:
        reasons.append(f"open in {printable(holders)}")
    by_link = {link.target: link for link in _made(model, Link) if link.prog is found}
    for target in found.attached if found.kind in ("prog", "map") else ():
        link = by_link.get(target)
        if target in model.passing or (
            link is not None and facts.fact("alive_link", link.id or 0) is None
        ):
            continue  # ended with its fds
        stays = link is not None or still_attached(found, target, facts)
        reasons.append(f"{'attached' if stays else 'was attached'} to {printable(target)}")
    if isinstance(found, Prog):
        reasons += [f"attached to {target}" for target in seen_at_the_end(found, model)]
    if isinstance(found, Map) and not reasons:
        users = [
            prog.label
            for prog in users_of.get(number, ())
            if facts.fact("alive_prog", prog.id or 0) is not None
        ]
        more = f" and {len(users) - 3} more" if len(users) > 3 else ""
        if users:
            reasons.append(f"used by {', '.join(map(printable, users[:3]))}{more}")
    return reasons


def _users(model: Model) -> dict[int, list[Prog]]:
    """The programs of the trace by the maps that they were loaded with."""
    found: dict[int, list[Prog]] = {}
    for prog in _made(model, Prog):
        for fact in prog.call.raw.fds if prog.call is not None else ():
            if fact.kind == "map" and fact.id is not None:
                users = found.setdefault(fact.id, [])
                if prog not in users[-1:]:
                    users.append(prog)
    return found


def remains(model: Model) -> Table:
    """What is still in the kernel when the last tracee is gone, and why as far as was seen."""
    table = Table("left behind", ("what", "id", "name", "why"), right=frozenset({"id"}))
    users_of = _users(model)
    for (kind, number), found in model.objects.items():
        if kind not in ("prog", "map", "link") or found.call is None:
            continue
        if model.facts.fact(f"alive_{kind}", number) is None:
            continue
        reasons = reasons_of(found, model, users_of)
        table.rows.append(
            (
                kind,
                str(number),
                printable(found.name),
                "; ".join(reasons) or "nothing was seen that holds it: it may be about to go",
            )
        )
    return table


def calls(counts: Counts) -> Table:
    """Per syscall and command: calls, errors, time in the kernel."""
    table = Table(
        "calls",
        ("syscall", "command", "calls", "errors", "us"),
        right=frozenset({"calls", "errors", "us"}),
    )
    rows = sorted(counts.by_name.items(), key=lambda item: -item[1].nanoseconds)
    for (syscall, command), count in rows:
        table.rows.append(
            (
                syscall,
                command,
                str(count.calls),
                str(count.errors or ""),
                micros(count.nanoseconds),
            )
        )
    return table


def tables(model: Model, counts: Counts, refused: Table | None = None) -> list[Table]:
    """All that have rows; ``refused``: programs that the kernel refused (refusals.py)."""
    made = (
        programs(model), *([refused] if refused is not None else ()),
        maps(model), links(model), remains(model), calls(counts),
    )  # fmt: skip
    return [table for table in made if table.rows]
