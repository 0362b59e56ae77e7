"""JSON lines for runs that last: one file after the other, each a whole trace.

Each file begins with a header, and with the facts and names that were learned before, so that it
is replayed without the others; it ends with an end line that says ``rotated``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Final

from bpftrace_sys.render.json_lines import JsonLines
from bpftrace_sys.render.json_templates import JsonTemplate
from bpftrace_sys.render.output import Output
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import IDENTIFIED, NotedCall
from bpftrace_sys.story.renderer import TOGETHER
from bpftrace_sys.trace.header import Header
from bpftrace_sys.trace.pieces import Pieces
from decoders.events import Ending
from decoders.records import replace

if TYPE_CHECKING:
    from bpftrace_sys.story.walks import Key
    from decoders.loop_calls import Strand

REMEMBERED: Final = 4_096
"""Facts that each file begins with, at most: those that were learned last."""
OFTEN: Final = 32
"""Lines between two looks at the file's size."""


def numbered(path: str, number: int) -> str:
    """Where a file goes: ``trace.jsonl.gz`` to ``trace.1.jsonl.gz``."""
    folder, name = os.path.split(path)
    stem, dot, suffix = name[1:].partition(".")
    return os.path.join(folder, f"{name[:1]}{stem}.{number}{dot}{suffix}")


def shift(path: str, keep: int) -> None:
    """Makes room at ``path``: it becomes number 1, 1 becomes 2, and what is above ``keep`` goes."""
    with contextlib.suppress(OSError):
        os.unlink(numbered(path, keep))
    for number in range(keep - 1, 0, -1):
        with contextlib.suppress(OSError):
            os.rename(numbered(path, number), numbered(path, number + 1))
    with contextlib.suppress(OSError):
        os.rename(path, numbered(path, 1))


class RotatedTemplate(JsonTemplate):
    """A template of one file's: pieces have other numbers in the next."""

    __slots__ = ("_lines",)

    def __init__(self, lines: RotatedLines, parts: list[str], walk: Key | None) -> None:
        super().__init__(lines.pieces, parts, walk)
        self._lines = lines

    @property
    def room(self) -> int:
        return self._lines.left

    def fits(self, strand: Strand) -> int:
        return strand.size if self._lines.pieces is self._pieces else 0

    def told(self, strand: Strand) -> None:
        self._lines.written(strand.size)


class RotatedLines(JsonLines):
    """``size``: bytes after which a file is full, None: never by itself; ``keep``: old files
    that stay; ``opener`` opens the path anew."""

    def __init__(
        self,
        out: Output,
        model: Model,
        opener: Callable[[str], IO[str]],
        size: int | None = None,
        keep: int = 1,
    ) -> None:
        super().__init__(out, model)
        self.output = out
        self._opener = opener
        self._size = size
        self._keep = keep
        self._header: Header | None = None
        self._facts: OrderedDict[tuple[str, int], str] = OrderedDict()
        self._lines = 0

    def header(self, header: Header) -> None:
        self._header = header
        super().header(header)

    def fact(self, kind: str, key: int, name: str) -> None:
        if not kind.startswith("why "):  # about one call only
            self._facts[kind, key] = name
            if len(self._facts) > REMEMBERED:
                self._facts.popitem(last=False)
        super().fact(kind, key, name)

    def call(self, call: NotedCall) -> None:
        super().call(call)
        self.written()

    @property
    def left(self) -> int:
        """Calls that are written before it is looked whether the file is full."""
        return TOGETHER if self._size is None else max(OFTEN - self._lines, 1)

    def written(self, calls: int = 1) -> None:
        """Calls were written: now and then the file may be full."""
        self._lines += calls
        if self._lines >= OFTEN:
            self.look()

    def _template(self, parts: list[str]) -> JsonTemplate:
        return RotatedTemplate(self, parts, self._walk)

    def look(self) -> None:
        """Begins another file where this one is full."""
        self._lines = 0
        if self._size is None or self.output.lost is not None:
            return
        try:
            full = os.stat(self.output.name).st_size >= self._size
        except OSError:
            return  # somebody has moved it: SIGHUP will come
        if full:
            self._end()
            shift(self.output.name, self._keep)
            self._begin()

    def reopen(self) -> bool:
        """Begins another file where somebody has moved this one. False: nobody has."""
        if not self.output.elsewhere:
            return False
        self._end()
        self._begin()
        return True

    def _end(self) -> None:
        super().end(Ending(rotated=True))
        with contextlib.suppress(OSError, ValueError):
            self.output.stream.close()

    def _begin(self) -> None:
        try:
            self.output.stream = self._opener(self.output.name)
        except OSError as error:
            self.output.lost = error.strerror or str(error)
            return
        self.pieces = Pieces()
        if self._header is not None:
            super().header(replace(self._header, start=time.time_ns()))
        facts: dict[tuple[str, int], str] = dict(self._facts)
        for (kind, number), known in self.model.objects.items():
            if kind in IDENTIFIED and known.name:
                facts.setdefault((kind, number), known.name)
        for (kind, key), name in facts.items():
            super().fact(kind, key, name)
