"""What the kernel made of a program, for its entry on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bpftrace_sys.common.escape import printable
from bpftrace_sys.render.html.painting import Marks
from bpftrace_sys.render.html.records import KernelRow, KernelSide, NativeRow, NativeRows
from bpftrace_sys.render.insn_paint import InsnPainter
from bpftrace_sys.render.native_paint import NativePainter
from bpftrace_sys.render.source_line import LINE_0, Sources
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
from decoders.formats.insn_text import Line

LINES: Final = 20_000
"""Lines of a listing."""


class KernelSides:
    """Makes them; ``marks`` are those of the page's texts."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._insn = InsnPainter(marks.paint)
        self._native = NativePainter(marks.paint)

    def of(self, seen: Seen) -> KernelSide:
        """Beside the instructions where it is known which became which, else as listings."""
        side = KernelSide()
        view = seen.view
        side.said = [printable(text) for text in reasons(view)]
        if view.problem:
            return side
        side.machine = printable(MACHINES.get(view.machine, view.machine))
        functions: Sequence[NativeFunction] = ()
        if view.info.jited:
            try:
                functions = native(view, seen.known)
            except NoDisassemblerError as error:
                side.said.append(printable(str(error)))
        fates = kernel_map.fates(seen, functions)
        if fates:
            side.fates = kernel_map.counts(fates)
            for fate in fates[:LINES]:
                same = fate.what == kernel_map.UNCHANGED
                side.rows.append(
                    KernelRow(
                        None if fate.loaded is None else fate.loaded.pc,
                        fate.what,
                        [] if same else list(map(self._translated, fate.translated)),
                        [self._native_line(line) for line in fate.native],
                    )
                )
            return side
        if view.info.xlated:
            found = translated(view, seen.known)
            side.translated = [self._translated(line) for line in found.lines[:LINES]]
            side.count = found.count
        room = LINES
        for function in functions:
            lines: list[NativeRow] = []
            sources = Sources()
            for line in function.lines[:room]:
                header = sources.above(line.source, line.where) or None
                row = self._native_line(line)
                said = f"   /* {LINE_0} */" if sources.stray else ""
                lines.append(NativeRow(row.offset, row.text + said, header))
            room -= len(lines)
            side.native.append(NativeRows(printable(function.prototype or function.symbol), lines))
        return side

    def _translated(self, line: Line) -> str:
        said = "" if line.comment is None else f"  /* {printable(line.comment)} */"
        return self._marks.marked(f"{line.pc}: {self._insn(printable(line.text))}{said}")

    def _native_line(self, line: NativeLine) -> NativeRow:
        text = self._marks.marked(self._native(printable(line.text)))
        return NativeRow(f"{line.offset:x}", text)
