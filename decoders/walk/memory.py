"""Reading the tracee's memory: live, or from what was recorded."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import Protocol

from decoders.raw import Chunk


class Memory(Protocol):
    """A tracee's memory at one stage of a call."""

    def read(self, addr: int, size: int) -> bytes | None:
        """The readable leading part of ``size`` bytes at ``addr``.

        Shorter than asked where memory ends, empty where ``addr`` itself is
        unreadable, None where nobody tried to read (so nothing is known).
        """

    def cstr(self, addr: int, limit: int) -> tuple[bytes, bool] | None:
        """A C string without its NUL, at most ``limit`` bytes; and whether it ended.

        (b"", False): ``addr`` is unreadable; (data, False): no NUL within the
        limit or before unreadable memory; None: nobody tried to read.
        """

    def late(self, addr: int, size: int, limit: int) -> int:
        """Where the last ``limit`` bytes of a string in a buffer of ``size`` bytes begin; ``addr``
        where it is no longer than that."""


class Snapshot:
    """Memory made of the chunks that a stop recorded.

    Chunks may overlap; where they do, the longest answer wins.
    """

    __slots__ = ("_addrs", "_by_start", "_chunks", "_ends")

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        by_start: dict[int, Chunk] = {}
        for chunk in chunks:
            known = by_start.get(chunk.addr)
            if known is None or chunk.wanted > known.wanted:
                by_start[chunk.addr] = chunk
        self._by_start = by_start
        self._chunks: list[Chunk] | None = None
        self._addrs: list[int] = []
        self._ends: list[int] = []

    def _covering(self, addr: int) -> Chunk | None:
        exact = self._by_start.get(addr)
        if exact is not None:
            return exact
        if self._chunks is None:
            self._chunks = sorted(self._by_start.values(), key=lambda chunk: chunk.addr)
            self._addrs = [chunk.addr for chunk in self._chunks]
            ends = (chunk.addr + chunk.wanted for chunk in self._chunks)
            self._ends = list(accumulate(ends, max))
        # Chunks that start earlier may be longer than the nearest one.
        for index in range(bisect_right(self._addrs, addr) - 1, -1, -1):
            if self._ends[index] <= addr:
                break
            chunk = self._chunks[index]
            if chunk.addr + chunk.wanted > addr:
                return chunk
        return None

    def read(self, addr: int, size: int) -> bytes | None:
        chunk = self._covering(addr)
        if chunk is None:
            return None
        offset = addr - chunk.addr
        return chunk.data[offset : offset + size]

    def cstr(self, addr: int, limit: int) -> tuple[bytes, bool] | None:
        data = self.read(addr, limit)
        if data is None:
            return None
        end = data.find(b"\0")
        return (data[:end], True) if end >= 0 else (data, False)

    def late(self, addr: int, size: int, limit: int) -> int:
        inside = (start for start in self._by_start if addr <= start < addr + size)
        return max(inside, default=addr) if size > limit else addr
