"""How the page gathers calls that are like one before but for their data (story/repeats.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from operator import add
from typing import TYPE_CHECKING, Final, Protocol

from bpftrace_sys.render.html import records
from bpftrace_sys.render.html.maps import WHAT, element_text, happened, name_of, number_in
from bpftrace_sys.render.html.painting import cut
from bpftrace_sys.render.html.records import CallRow, Map, MapEvent
from bpftrace_sys.render.text_quoting import any_string, many_octets, octets
from bpftrace_sys.render.text_templates import TextTemplate
from bpftrace_sys.story.objects import NotedCall
from bpftrace_sys.story.renderer import Template
from decoders.records import NamedTuple

if TYPE_CHECKING:
    from bpftrace_sys.render.html.maps import Maps
    from bpftrace_sys.story.model import Model
    from bpftrace_sys.story.summary import Counts
    from decoders.loop_calls import Strand
    from decoders.raw import RawCall

OCTETS: Final = 64
"""Bytes of a key or value that are told."""


class Gathering(Protocol):
    """What gathers a page, as far as a loop's rows need it."""

    model: Model
    counts: Counts
    maps: Maps

    def waits(self) -> bool:
        """Whether calls wait that are told before any other."""

    def shape(self, parts: list[str]) -> list[str]:
        """Parts of calls' text as rows have it."""

    def recent(self, seq: int) -> CallRow | None:
        """The row of a call that was listed a moment ago."""

    def row(self, call: NotedCall) -> CallRow:
        """The row of a call."""

    def more(self, like: RawCall, number: int) -> None:
        """So many more calls like one."""

    def seen(self, begin: int, end: int) -> None:
        """Something happened then."""


class LoopRow(NamedTuple):
    """A call's row, and what it says of a map."""

    row: CallRow
    used: Map | None
    event: MapEvent | None
    """None: it is counted only."""


class PageTemplate(Template):
    """Rows of a loop's calls."""

    __slots__ = ("_count", "_failed", "_form", "_gather", "_text", "_used", "_what")

    def __init__(self, gather: Gathering, call: NotedCall, text: TextTemplate) -> None:
        self._gather = gather
        self._text = text
        text.reshape(gather.shape)
        self._form = gather.recent(call.raw.seq) or gather.row(call)
        self._failed = call.raw.failed
        self._used = gather.model.by_fd(call, "attr", "map_fd")
        self._what = WHAT.get(call.command.partition("|")[0], "")
        self._count = gather.counts.of(call)

    def fits(self, strand: Strand) -> int:
        return 0 if self._gather.waits() else self._text.fits(strand)

    def rows(self, strand: Strand) -> list[LoopRow]:
        """Rows of calls that are told, and counted."""
        counted, size = self._count, strand.size
        counted.calls += size
        if self._failed:
            counted.errors += size
        spent = [duration or 0 for duration in strand.durations]
        counted.nanoseconds += sum(spent)
        self._gather.more(strand.like, size)
        self._gather.seen(min(strand.times), max(map(add, strand.times, spent)))
        return list(self._rows(strand))

    def _rows(self, strand: Strand) -> Iterator[LoopRow]:
        _, _, _, thread, command, flags, result, subject, things, _, why, *_ = self._form
        texts = [cut(text, records.CALL) for text in self._text.texts(strand)]
        operations = self._operations(strand)
        whole = zip(strand.seqs, strand.times, strand.durations, texts, operations, strict=True)
        for seq, time, duration, text, (told, used, event) in whole:
            row = CallRow(seq, time, duration, thread, command, flags, result, told or subject,
                          things, text, why)  # fmt: skip
            yield LoopRow(row, used, event)

    def _operations(self, strand: Strand) -> Iterable[tuple[str, Map | None, MapEvent | None]]:
        """What the calls do to a map, in short, and what that is for its entry."""
        used, what, maps = self._used, self._what, self._gather.maps
        if used is None or not what:
            return repeat(("", None, None), strand.size)
        name, happens = name_of(used), happened(what, self._failed)
        found = maps.of(used) if happens else None
        keys, *rest = [_octets(column) for column in strand.data]
        values = rest[0] if rest else [""] * strand.size
        told = [element_text(name, what, key, value)[: records.SUBJECT]
                for key, value in zip(keys, values, strict=True)]  # fmt: skip
        if found is None or not maps.has_room(found):
            return zip(told, repeat(found), repeat(None), strict=False)
        numbers = map(number_in, strand.data[-1]) if rest else repeat(None)
        events = (
            MapEvent(seq, happens, key, value, number)
            for seq, key, value, number in zip(strand.seqs, keys, values, numbers, strict=False)
        )
        return zip(told, repeat(found), events, strict=False)


def _octets(column: Sequence[bytes]) -> list[str]:
    if any_string(column):
        return [octets(part, OCTETS) for part in column]
    return many_octets(column, OCTETS)
