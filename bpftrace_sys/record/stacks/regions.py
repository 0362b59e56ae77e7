"""/proc/PID/maps: what stands where in a tracee's memory (proc_pid_maps(5))."""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cached_property
from typing import Final

from decoders.records import NamedTuple
from decoders.stack import Frame

_LINE: Final = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) ([0-9a-f]+:[0-9a-f]+) (\d+)[ \t]*(.*)$", re.M
)


class Region(NamedTuple):
    """An executable piece of memory."""

    start: int
    end: int
    offset: int
    """Of its beginning in the file."""
    device: bytes
    inode: int
    """0: of no file."""
    path: bytes
    """As the kernel tells it: a line feed is \\012, `` (deleted)`` may follow; or ``[vdso]``."""

    @property
    def is_file(self) -> bool:
        return self.inode != 0 and self.path.startswith(b"/")


class MemoryMap:
    """The executable regions of a process at a moment; parsed when first needed."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.frames: dict[tuple[int, bool], Frame] = {}
        """What the walks found there: by address, and whether that is an instruction's own."""

    @cached_property
    def regions(self) -> list[Region]:
        """In the order of their addresses."""
        return [
            Region(int(start, 16), int(end, 16), int(offset, 16), device, int(inode), path)
            for start, end, offset, device, inode, path in _LINE.findall(self.text)
        ]

    @cached_property
    def has_own_code(self) -> bool:
        """Whether there is code of no file: what a JIT made, say."""
        return any(not region.path for region in self.regions)

    @cached_property
    def _starts(self) -> list[int]:
        return [region.start for region in self.regions]

    def at(self, addr: int) -> Region | None:
        """The executable region of an address."""
        index = bisect_right(self._starts, addr) - 1
        if index < 0:
            return None
        region = self.regions[index]
        return region if addr < region.end else None
