"""What stands in the lists: objects by kind, and attachments, alike ones as one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bpftrace_sys.render.html.records import ATTACHING, BEFORE, Program, Report, Tie
from decoders.records import NamedTuple

ORDER: Final = ("prog", "map", "link", "btf", "perf_event")
"""Kinds of objects as they are listed."""
WORDS: Final = {"perf_event": "event"}
"""Kinds that a list calls otherwise."""


class Entry(NamedTuple):
    """An object of the list; a program that was refused is none of the kernel's: no thing."""

    kind: str
    thing: int | None
    """A number of ``Report.page_objects``."""
    program: Program | None = None
    """What its load says, of a program."""

    @property
    def key(self) -> str:
        """What it is known by when the list is made anew."""
        return f"{self.kind} {self.thing}" if self.program is None else self.program.anchor


def entries(report: Report) -> list[Entry]:
    """Programs, those that were refused among them, maps, links, BTF, perf events."""
    by_thing: dict[int, Program] = {}
    for program in report.programs:
        if program.thing is not None:
            by_thing[program.thing] = program
    found: list[Entry] = []
    listed: set[int] = set()
    for program in report.programs:
        if program.thing is None or by_thing[program.thing] is program:
            found.append(Entry("prog", program.thing, program))
        if program.thing is not None:
            listed.add(program.thing)
    for kind in ORDER:
        found += [
            Entry(kind, number)
            for number, thing in enumerate(report.page_objects)
            if thing.kind == kind and number not in listed
        ]
    return found


def targets(report: Report) -> dict[int, list[str]]:
    """Where programs and maps are or were attached, by thing."""
    found: dict[int, list[str]] = {}
    for tie in report.ties:
        if tie.prog is not None and (tie.verb in ATTACHING or tie.verb == BEFORE):
            known = found.setdefault(tie.prog, [])
            if tie.target not in known:
                known.append(tie.target)
    return found


class TieGroup(NamedTuple):
    """Attachments that are the same but for their CPU; the first stands for all."""

    tie: Tie
    often: int


def tie_groups(report: Report) -> list[TieGroup]:
    """The attachments in order, those alike as one, as on the report page."""
    alike: dict[tuple[object, ...], list[Tie]] = {}
    for tie in report.ties:
        link = tie.link if tie.verb != "disabled" else None
        key = (tie.verb, tie.prog, tie.who, tie.target, tie.via, link)
        alike.setdefault(key, []).append(tie)
    return [TieGroup(ties[0], len(ties)) for ties in alike.values()]


def users(report: Report, number: int) -> Iterator[Program]:
    """The programs that use a map or BTF."""
    for program in report.programs:
        if number in program.maps or number == program.btf:
            yield program
