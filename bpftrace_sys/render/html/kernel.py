"""What the kernel made of a program, for its entry on the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bpftrace_sys.common.escape import printable
from bpftrace_sys.render.html.records import KernelSide
from bpftrace_sys.render.source_line import LINE_0, Sources
from bpftrace_sys.story import kernel_map
from bpftrace_sys.story.kernel_view import (
    MACHINES,
    NativeFunction,
    NoDisassemblerError,
    Seen,
    native,
    reasons,
    translated,
)
from decoders.formats.insn_text import Line

LINES: Final = 20_000
"""Lines of a listing."""


def kernel_side(seen: Seen) -> KernelSide:
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
            side.rows.append(
                [
                    None if fate.loaded is None else fate.loaded.pc,
                    fate.what,
                    [] if fate.what == kernel_map.UNCHANGED else list(map(_text, fate.translated)),
                    [[f"{line.offset:x}", printable(line.text)] for line in fate.native],
                ]
            )
        return side
    if view.info.xlated:
        found = translated(view, seen.known)
        side.translated = [_text(line) for line in found.lines[:LINES]]
        side.count = found.count
    room = LINES
    for function in functions:
        lines: list[list[object]] = []
        sources = Sources()
        for line in function.lines[:room]:
            header = sources.above(line.source, line.where) or None
            text = printable(line.text) + (f"   /* {LINE_0} */" if sources.stray else "")
            lines.append([f"{line.offset:x}", text, header])
        room -= len(lines)
        side.native.append([printable(function.prototype or function.symbol), lines])
    return side


def _text(line: Line) -> str:
    said = "" if line.comment is None else f"  /* {line.comment} */"
    return printable(f"{line.pc}: {line.text}{said}")
