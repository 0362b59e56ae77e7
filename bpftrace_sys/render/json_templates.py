"""How the JSON has calls that are like one before but for their data (story/repeats.py)."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING

from bpftrace_sys.common.strict_json import dumps
from bpftrace_sys.render.filling import fill
from bpftrace_sys.story.renderer import Template
from bpftrace_sys.trace.lines import fds_line
from bpftrace_sys.trace.pieces import NUMBERED, Pieces, dumps_packed

if TYPE_CHECKING:
    from bpftrace_sys.story.walks import Key
    from decoders.loop_calls import Strand
    from decoders.raw import FdFact

TIMES = 3
"""Words of a line that stand before its data: seq, time, duration."""


class JsonTemplate(Template):
    """The line of calls that are alike but for time and data, cut at what differs.

    That is, in order: seq, time, duration; the data in ``args``; all chunks in ``raw``; and
    what fdinfo said.
    """

    __slots__ = ("_attr", "_fact", "_fds", "_parts", "_pieces", "_short_parts", "walk")

    def __init__(self, pieces: Pieces, parts: list[str], walk: Key | None) -> None:
        self._pieces = pieces
        self.walk = walk
        """The walk that such calls are a part of."""
        count = (len(parts) - TIMES - 3) // 2
        data = range(TIMES, TIMES + count)
        self._parts = _quoting([*parts[:-1], parts[-1] + "\n"], data)
        packed = range(TIMES + count + 1, TIMES + 2 * count + 1)
        self._short_parts = _quoting(self._parts, packed)
        """Where no piece has a number, and all are strings."""
        self._attr: int | None = None
        """The piece that the attr is, which is the same in all calls."""
        self._fact: FdFact | None = None
        self._fds = ""

    def alone(self, strand: Strand) -> bool:
        attr = len(strand.like.chunks[0].data) < NUMBERED or self._known
        return not (attr and _short(strand))

    @property
    def _known(self) -> bool:
        return self._attr is not None and self._pieces.holds(self._attr)

    def texts(self, strand: Strand) -> Sequence[str]:
        like, seqs, times, durations, data = strand
        if like.fds[0] is not self._fact:
            self._fact = like.fds[0]
            self._fds = dumps(fds_line(like))
        attr = like.chunks[0].data
        columns: list[Iterable[str]] = [map(str, seqs), map(str, times), map(_null, durations)]
        columns += [[part.hex() for part in column] for column in data]
        if _short(strand):
            first = self._packed_attr(attr)
            columns.append([first, *[self._packed_attr(attr)] * (strand.size - 1)])
            columns += [
                [b2a_base64(part, newline=False).decode() for part in column] for column in data
            ]
            return fill(self._short_parts, [*columns, repeat(self._fds)])
        # Here each piece may take the place of another one.
        rows = [
            (self._packed_attr(attr), *[dumps_packed(part, self._pieces) for part in parts])
            for parts in zip(*data, strict=True)
        ]
        return fill(self._parts, [*columns, *zip(*rows, strict=True), repeat(self._fds)])

    def _packed_attr(self, data: bytes) -> str:
        if not self._known:
            word = dumps_packed(data, self._pieces)
            self._attr = int(word) if word.isdecimal() else None
            return word
        return str(self._attr)


def _short(strand: Strand) -> bool:
    """Whether none of the data is a piece with a number."""
    return all(len(column[0]) < NUMBERED for column in strand.data)


def _null(number: int | None) -> str:
    return "null" if number is None else str(number)


def _quoting(parts: Sequence[str], words: Iterable[int]) -> list[str]:
    """The same with quotation marks around some words."""
    found = list(parts)
    for word in words:
        found[word] += '"'
        found[word + 1] = '"' + found[word + 1]
    return found
