"""The tracee's user-space stack at a call (-k), as it is recorded and printed."""

from __future__ import annotations

from decoders.records import NamedTuple


class Frame(NamedTuple):
    """A function that was on its way when the call was made."""

    addr: int
    """Where it goes on: the return address; of the innermost the instruction after the call."""
    file: str = ""
    """What is mapped there, as /proc/PID/maps names it; empty for memory of no file."""
    file_offset: int | None = None
    """The place of ``addr`` in that file."""
    symbol: str = ""
    offset: int = 0
    """Bytes from the symbol to ``addr``."""


class Stack(NamedTuple):
    """The frames, innermost first."""

    frames: tuple[Frame, ...]
    ended: str = ""
    """Why the frames end before the thread's outermost; empty where they do not."""
