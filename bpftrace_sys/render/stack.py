"""A call's stack as text: a line a frame, as ``strace -k`` prints it (strace's unwind.c)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bpftrace_sys.common.escape import printable
from decoders.stack import Frame, Stack

NAME_LIMIT: Final = 4096
"""Characters of a file's or a function's name."""
NO_FILE: Final = "[anon]"


def stack_lines(stack: Stack) -> Iterator[str]:
    """`` > /usr/lib/libbpf.so.1.1.0(bpf_prog_load+0x1b) [0x2f0c3]``, and why it ends early.

    The number in brackets is the place in the file, or the address where there is no
    file.  Nothing in the lines steers a terminal.
    """
    for frame in stack.frames:
        yield f" > {frame_text(frame)}"
    if stack.ended:
        yield f" > ... {printable(stack.ended[:NAME_LIMIT])}"


def frame_text(frame: Frame) -> str:
    """``file(symbol+0x1b) [0x2f0c3]``."""
    file = printable(frame.file[:NAME_LIMIT]) or NO_FILE
    symbol = f"{printable(frame.symbol[:NAME_LIMIT])}+{frame.offset:#x}" if frame.symbol else ""
    place = frame.addr if frame.file_offset is None else frame.file_offset
    return f"{file}({symbol}) [{place:#x}]"
