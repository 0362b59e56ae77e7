"""A stack as it stands in a trace's syscall line, and back."""

from __future__ import annotations

from typing import Final

from decoders.stack import Frame, Stack

FRAMES: Final = 4096
"""Frames that a reader takes; we write no more than walk.DEPTH."""


def stack_line(stack: Stack) -> dict[str, object]:
    """The fields ``stack`` and ``stack_ended`` of a line."""
    line: dict[str, object] = {"stack": [_frame_line(frame) for frame in stack.frames]}
    if stack.ended:
        line["stack_ended"] = stack.ended
    return line


def _frame_line(frame: Frame) -> dict[str, object]:
    line: dict[str, object] = {"addr": f"{frame.addr:#x}"}
    if frame.file:
        line["file"] = frame.file
    if frame.file_offset is not None:
        line["file_offset"] = f"{frame.file_offset:#x}"
    if frame.symbol:
        line["symbol"] = frame.symbol
        line["offset"] = frame.offset
    return line


def stack_of(line: dict[str, object]) -> Stack | None:
    """The stack of a line; None if it has none.  ValueError if it is not well formed."""
    frames = line.get("stack")
    if frames is None:
        return None
    if not isinstance(frames, list) or len(frames) > FRAMES:
        raise ValueError("the stack of a syscall is not a list of frames")
    ended = line.get("stack_ended", "")
    if not isinstance(ended, str):
        raise ValueError("stack_ended is not text")
    return Stack(tuple(_frame_of(frame) for frame in frames), ended)


def _frame_of(frame: object) -> Frame:
    if not isinstance(frame, dict):
        raise ValueError("a frame of a stack is no object")
    file, symbol = frame.get("file", ""), frame.get("symbol", "")
    if not isinstance(file, str) or not isinstance(symbol, str):
        raise ValueError("a name in a stack is not text")
    offset = frame.get("offset", 0)
    if isinstance(offset, bool) or not isinstance(offset, int):
        raise ValueError("an offset in a stack is not a number")
    at = frame.get("file_offset")
    return Frame(
        _hex(frame.get("addr")), file, None if at is None else _hex(at), symbol, offset
    )


def _hex(value: object) -> int:
    if not isinstance(value, str) or len(value) > 18:
        raise ValueError("an address in a stack is not in hex")
    return int(value, 16)
