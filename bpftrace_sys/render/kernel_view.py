"""What the kernel made of a program, as text: its translated instructions, its native code, and
which became which, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Final

from bpftrace_sys.common.escape import printable
from bpftrace_sys.render.insn_paint import InsnPainter
from bpftrace_sys.render.native_paint import NativePainter
from bpftrace_sys.render.source_line import LINE_0, Sources
from bpftrace_sys.render.style import Painter
from bpftrace_sys.story import kernel_map
from bpftrace_sys.story.kernel_view import (
    MACHINES,
    NativeFunction,
    NativeLine,
    NoDisassemblerError,
    Seen,
    native,
    reasons,
    translated,
)
from bpftrace_sys.story.notes import Listing
from decoders.formats.insn_text import Line
from decoders.records import dataclass

INDENT: Final = "          "
MARKS: Final = {
    kernel_map.UNCHANGED: " ",
    kernel_map.CHANGED: "~",
    kernel_map.GROWN: "+",
    kernel_map.REMOVED: "-",
    kernel_map.ADDED: "+",
}
STYLES: Final = {"-": "gone", "+": "new", "~": "name"}
CELL: Final = 36
"""Columns that a cell of the side-by-side listing has at least."""


@dataclass(frozen=True)
class Options:
    """What the person asked for."""

    parts: tuple[str, ...]
    """Of xlated, jited, map."""
    syntax: str
    width: int
    verbose: bool
    tokens: bool
    """The parts of instructions have colours."""


Listed = Callable[[Listing, str], Iterator[str]]
"""ListingText.lines"""


class ViewText:
    """The lines of one program's view."""

    def __init__(self, seen: Seen, options: Options, paint: Painter, listed: Listed) -> None:
        self.seen = seen
        self.options = options
        self.paint = paint
        self._listed = listed
        self._missing = ""
        self._insn: Callable[[str], str] = InsnPainter(paint) if options.tokens else str
        self._native: Callable[[str], str] = NativePainter(paint) if options.tokens else str

    def lines(self) -> Iterator[str]:
        """All that was asked for, after what is to be said of it."""
        for reason in reasons(self.seen.view):
            yield self._remark(reason)
        parts, functions = self.options.parts, self._functions()
        if "map" in parts:
            yield from self._map(functions if "jited" in parts else ())
        if "xlated" in parts and not ("map" in parts and self._mapped()):
            yield from self._xlated()
        if "jited" in parts and not ("map" in parts and self._mapped()):
            yield from self._jited(functions)
        if self._missing:
            yield self._remark(self._missing)

    def _remark(self, text: str) -> str:
        return self.paint("comment", f"  kernel: {printable(text)}")

    def _mapped(self) -> bool:
        mapping = self.seen.view.mapping
        return mapping is not None and not mapping.problem and self.seen.loaded is not None

    def _functions(self) -> list[NativeFunction]:
        if "jited" not in self.options.parts:
            return []
        try:
            return native(self.seen.view, self.seen.known, self.options.syntax)
        except NoDisassemblerError as error:
            self._missing = str(error)
            return []

    @property
    def _name(self) -> str:
        info = self.seen.view.info
        name = info.name if self.seen.prog is None else self.seen.prog.name
        return f"{printable(name) or '(anonymous)'} id={info.id}"

    def _head(self, verb: str, rest: str) -> str:
        return f"{self.paint('attached', verb)}  {self._name}, {rest}"

    # ------------------------------------------------------------ listings

    def _xlated(self) -> Iterator[str]:
        if not self.seen.view.info.xlated:
            return
        found = translated(self.seen.view, self.seen.known)
        loaded = self.seen.loaded
        was = "" if loaded is None else f" ({loaded.count} were loaded)"
        yield self._head("translated", f"{found.count} instructions{was}")
        yield from self._listed(found, INDENT)

    def _jited(self, functions: Sequence[NativeFunction]) -> Iterator[str]:
        if not functions:
            return
        view = self.seen.view
        machine = MACHINES.get(view.machine, view.machine)
        yield self._head("native code", f"{machine}, {len(view.info.jited)} bytes")
        for function in functions:
            yield from self._function(function)

    def _function(self, function: NativeFunction) -> Iterator[str]:
        if function.prototype:
            yield INDENT + self.paint("function", printable(function.prototype) + ":")
        yield INDENT + self.paint("function", printable(function.symbol) + ":")
        width = max(3, len(f"{function.size:x}"))
        sources = Sources()
        for line in function.lines:
            if header := sources.above(line.source, line.where):
                yield INDENT + self._source(header, line.where)
            octets = f"{line.code.hex(' '):<30} " if self.options.verbose else ""
            shown = f"{INDENT}{line.offset:{width}x}: {octets}{self._native(printable(line.text))}"
            if sources.stray:
                shown += self._line_0
            yield shown
        if function.unlisted:
            yield INDENT + self.paint("comment", f"{function.unlisted} more bytes not listed")

    @property
    def _line_0(self) -> str:
        return self.paint("comment", f"   /* {LINE_0} */")

    def _source(self, header: str, where: str | None) -> str:
        shown = self.paint("source", header)
        if self.options.verbose and where:
            shown += self.paint("comment", f"   ({printable(where)})")
        return shown

    # ------------------------------------------------------------ side by side

    def _map(self, functions: Sequence[NativeFunction]) -> Iterator[str]:
        mapping, loaded = self.seen.view.mapping, self.seen.loaded
        if self.seen.view.problem:
            return  # that was said
        if mapping is None:
            yield self._remark(
                "which instruction became which was not recorded: that takes -e kernel=map"
            )
            return
        if mapping.problem or loaded is None:
            why = mapping.problem or "its load was not seen"
            yield self._remark(f"which instruction became which is not known: {why}")
            return
        found = kernel_map.fates(self.seen, functions)
        counts = kernel_map.counts(found)
        told = ", ".join(f"{count} {what}" for what, count in counts.items())
        took = f"a copy was loaded to learn this, {mapping.nanoseconds / 1e6:.1f} ms"
        yield self._head("became", told) + self.paint(
            "comment", f"   /* {took} */"
        )
        if functions and not mapping.native:
            yield self._remark("native code of the copy differs: which became which is not known")
        widths = self._widths(found, bool(functions and mapping.native))
        sources = Sources()
        for fate in found:
            row = fate.loaded
            if row is not None and row.function is not None:
                yield INDENT + self.paint("function", printable(row.function) + ":")
            if row is not None and (header := sources.above(row.source, row.where)):
                yield INDENT + self._source(header, row.where)
            rows = self._fate(fate, widths)
            if sources.stray and row is not None:
                yield next(rows) + self._line_0
            yield from rows

    def _widths(self, found: Sequence[kernel_map.Fate], with_native: bool) -> tuple[int, ...]:
        """Columns of the cells: as wide as their text, as far as there is room."""
        left = max((len(_cell(fate.loaded)) for fate in found), default=0)
        middle = max((len(_cell(row)) for fate in found for row in fate.translated), default=0)
        room = max(CELL, (self.options.width - len(INDENT) - 2) // 2)
        return (min(left, room), *([min(middle, room)] if with_native else ()))

    def _fate(self, fate: kernel_map.Fate, widths: tuple[int, ...]) -> Iterator[str]:
        mark = MARKS[fate.what]
        loaded: tuple[Line | None, ...] = (fate.loaded,)
        code = fate.native if len(widths) > 1 else ()
        for one, two, three in zip_longest(loaded, fate.translated, code):
            cells = [(_cell(row), self._insn) for row in (one, two)]
            if len(widths) > 1:
                cells.append((_native_cell(three), self._native))
            while cells and not cells[-1][0]:
                cells.pop()
            text = " | ".join(
                _painted(cell, paint) + " " * (width - len(cell))
                for (cell, paint), width in zip(cells, (*widths, 0), strict=False)
            )
            shown = self.paint(STYLES[mark], mark) if mark in STYLES else mark
            yield f"{INDENT[:-2]}{shown} {text}".rstrip()
            mark = mark if mark in "+-" else " "


def _cell(row: Line | None) -> str:
    return "" if row is None else f"{row.pc:4}: {printable(row.text)}"


def _native_cell(line: NativeLine | None) -> str:
    return "" if line is None else f"{line.offset:4x}: {printable(line.text)}"


def _painted(cell: str, paint: Callable[[str], str]) -> str:
    """A cell whose instruction is painted, and not where it stands."""
    place, colon, text = cell.partition(": ")
    return f"{place}{colon}{paint(text)}"
