"""How the text writes calls that are like one before but for their data (story/repeats.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from bpftrace_sys.render.text_options import HOLE, Options
from bpftrace_sys.render.text_quoting import octets
from bpftrace_sys.render.times import spent
from bpftrace_sys.story.renderer import Template
from decoders.records import NamedTuple

if TYPE_CHECKING:
    from bpftrace_sys.render.output import TextOut
    from bpftrace_sys.story.walks import Key, Walks
    from decoders.loop_calls import Round


class Hole(NamedTuple):
    """What stands for a piece of data in a template."""

    width: int
    octets: bool
    """``[00 01]``, which a line's end may break; else a string."""
    slices: list[slice]
    """Its parts: one, or one a line."""


class TextTemplate(Template):
    """The text of calls that are alike but for data, as wide as that of the first of them.

    Wider or narrower text might have to be laid out in another way.
    """

    __slots__ = ("_form", "_holes", "_lines", "_options", "_out", "_slices", "_waits")

    def __init__(
        self,
        out: TextOut,
        options: Options,
        waits: Callable[[], bool],
        parts: list[str],
        holes: list[Hole],
    ) -> None:
        """``waits``: whether something is to be told before any other call."""
        self._out = out
        self._options = options
        self._waits = waits
        self._form = "%s".join(part.replace("%", "%%") for part in parts)
        self._holes = [(hole.width, hole.octets) for hole in holes]
        slices = [(at, part) for at, hole in enumerate(holes) for part in hole.slices]
        self._slices = slices if len(slices) > len(holes) else None
        """Where lines end in the data."""
        self._lines: list[str] = []

    def fits(self, rounds: Sequence[Round]) -> int:
        self._lines = []
        if self._waits():
            return 0
        limit, timed = self._options.string_limit, self._options.spent
        count = len(rounds)
        columns = [
            [octets(part, limit) for part in parts]
            for parts in zip(*[one[4] for one in rounds], strict=True)
        ]
        if timed:
            columns.append([spent(one[3], timed) for one in rounds])
        for words, (width, hexadecimal) in zip(columns, self._holes, strict=True):
            for at, word in enumerate(words):
                if len(word) != width or (word[0] == "[") is not hexadecimal:
                    count = min(count, at)
                    break
        if self._slices is not None:
            columns = [[word[part] for word in columns[at]] for at, part in self._slices]
        self._lines = list(map(self._form.__mod__, islice(zip(*columns, strict=True), count)))
        return count

    def write(self, rounds: Sequence[Round]) -> None:
        self._out.write("".join(self._lines[: len(rounds)]))


def cut(text: str, holes: list[tuple[str, bool]]) -> tuple[list[str], list[Hole]] | None:
    """A text at its holes: what stands between them, and the holes; None where one is missing."""
    parts = []
    found = []
    for hole, broken in holes:
        slices = []
        start = end = 0
        first = True
        for piece in hole.split(" "):
            if not first and text.startswith(f" {piece}"):
                text = text[1 + len(piece) :]
                end += 1 + len(piece)
                continue
            if not first:
                slices.append(slice(start, end))
                start = end + 1
            before, there, text = text.partition(piece)
            if not there:
                return None
            parts.append(before)
            end = start + len(piece)
            first = False
        slices.append(slice(start, end))
        found.append(Hole(len(hole), broken, slices))
    parts.append(text)
    return None if any(HOLE in part for part in parts) else (parts, found)


class WalkTemplate(Template):
    """One more call of a walk that is told in a line."""

    __slots__ = ("_command", "_key", "_walks")

    def __init__(self, walks: Walks, command: str, key: Key) -> None:
        self._walks = walks
        self._command = command
        self._key = key

    def fits(self, rounds: Sequence[Round]) -> int:
        return len(rounds) if self._walks.goes_on(self._key) else 0

    def write(self, rounds: Sequence[Round]) -> None:
        for like, *_ in rounds:
            self._walks.more(self._command, like.failed)
