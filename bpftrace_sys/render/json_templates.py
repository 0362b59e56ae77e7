"""How JSON has calls that are like one before but for time and data (story/repeats.py)."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

from bpftrace_sys.common.strict_json import dumps
from bpftrace_sys.story.renderer import Template
from bpftrace_sys.trace.lines import fds_line
from bpftrace_sys.trace.pieces import NUMBERED, Pieces, dumps_packed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bpftrace_sys.render.output import TextOut
    from decoders.loop_calls import Round
    from decoders.raw import FdFact


class JsonTemplate(Template):
    """The line of calls that are alike but for time and data, cut at what differs.

    That is, in order: seq, time, duration; the data in ``args``; all chunks in ``raw``; and
    what fdinfo said.
    """

    __slots__ = ("_attr", "_fact", "_fds", "_form", "_out", "_pieces")

    def __init__(self, out: TextOut, pieces: Pieces, parts: list[str]) -> None:
        self._out = out
        self._pieces = pieces
        self._form = "%s".join(part.replace("%", "%%") for part in parts) + "\n"
        self._attr: int | None = None
        """The piece that the attr is, which is the same in all calls."""
        self._fact: FdFact | None = None
        self._fds = ""

    def write(self, rounds: Sequence[Round]) -> None:
        _, seqs, times, durations, data = zip(*rounds, strict=True)
        like = rounds[0][0]
        if like.fds[0] is not self._fact:
            self._fact = like.fds[0]
            self._fds = dumps(fds_line(like))
        attr, pieces = like.chunks[0].data, self._pieces
        if any(len(part) >= NUMBERED for part in data[0]):
            # Pieces get their numbers in the order of the calls.
            packed = [
                (self._packed_attr(attr), *[dumps_packed(part, pieces) for part in parts])
                for parts in data
            ]
        else:
            word = self._packed_attr(attr)
            packed = [(word, *[dumps_packed(part, pieces) for part in parts]) for parts in data]
        columns = zip(
            seqs,
            times,
            ["null" if duration is None else duration for duration in durations],
            *[[f'"{part.hex()}"' for part in parts] for parts in zip(*data, strict=True)],
            *zip(*packed, strict=True),
            repeat(self._fds),
        )
        self._out.write("".join(map(self._form.__mod__, columns)))

    def _packed_attr(self, data: bytes) -> str:
        if self._attr is None or not self._pieces.holds(self._attr):
            word = dumps_packed(data, self._pieces)
            self._attr = int(word) if word.isdecimal() else None
            return word
        return str(self._attr)
