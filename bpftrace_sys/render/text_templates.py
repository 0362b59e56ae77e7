"""How the text writes calls that are like one before but for their data (story/repeats.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bpftrace_sys.render.filling import fill
from bpftrace_sys.render.text_options import HOLE, Options
from bpftrace_sys.render.text_quoting import any_string, many_octets, octets
from bpftrace_sys.render.times import spent
from bpftrace_sys.story.renderer import Template
from decoders.records import NamedTuple

if TYPE_CHECKING:
    from bpftrace_sys.story.walks import Key
    from decoders.loop_calls import Strand


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

    __slots__ = ("_octets", "_options", "_parts", "_slices", "_waits", "_widths")

    def __init__(
        self,
        options: Options,
        waits: Callable[[], bool],
        parts: list[str],
        holes: list[Hole],
    ) -> None:
        """``waits``: whether something is to be told before any other call."""
        self._options = options
        self._waits = waits
        self._parts = parts
        self._widths = [hole.width for hole in holes]
        self._octets = [hole.octets for hole in holes]
        slices = [(at, part) for at, hole in enumerate(holes) for part in hole.slices]
        self._slices = slices if len(slices) > len(holes) else None
        """Where lines end in the data."""

    def reshape(self, change: Callable[[list[str]], list[str]]) -> None:
        """Changes what stands around the data."""
        self._parts = change(self._parts)

    def fits(self, strand: Strand) -> int:
        if self._waits():
            return 0
        limit, timed = self._options.string_limit, self._options.spent
        fitting = strand.size
        for column, width, broken in zip(strand.data, self._widths, self._octets, strict=False):
            if broken and not any_string(column):
                continue  # data of one size
            for at, part in enumerate(column[:fitting]):
                word = octets(part, limit)
                if len(word) != width or word.startswith("[") != broken:
                    fitting = at
                    break
        if timed:
            for at, duration in enumerate(strand.durations[:fitting]):
                if len(spent(duration, timed)) != self._widths[-1]:
                    return at
        return fitting

    def texts(self, strand: Strand) -> Sequence[str]:
        limit, timed = self._options.string_limit, self._options.spent
        words = [
            many_octets(column, limit) if broken else [octets(part, limit) for part in column]
            for column, broken in zip(strand.data, self._octets, strict=False)
        ]
        if timed:
            words.append([spent(duration, timed) for duration in strand.durations])
        if self._slices is not None:
            words = [[word[part] for word in words[at]] for at, part in self._slices]
        return fill(self._parts, words)


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
    """Calls of a walk, which may be told in a line; ``text``: as they are told one by one."""

    __slots__ = ("command", "key", "text")

    def __init__(self, command: str, key: Key, text: TextTemplate | None) -> None:
        self.command = command
        self.key = key
        self.text = text

    def fits(self, strand: Strand) -> int:
        return 0 if self.text is None else self.text.fits(strand)

    def texts(self, strand: Strand) -> Sequence[str]:
        assert self.text is not None
        return self.text.texts(strand)
