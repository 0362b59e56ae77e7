"""Numbers out of bytes that may be damaged."""

from __future__ import annotations

LEB_LIMIT = 16
"""Bytes of a LEB128 number that are looked at; 64 bits take ten."""


class CfiError(ValueError):
    """Call frame information that makes no sense, or that we do not know."""


class Cursor:
    """Reads little endian numbers one after the other; CfiError behind the end."""

    __slots__ = ("data", "end", "pos")

    def __init__(self, data: bytes, pos: int = 0, end: int | None = None) -> None:
        self.data = data
        self.pos = pos
        self.end = len(data) if end is None else min(end, len(data))

    def take(self, size: int) -> bytes:
        """The next bytes."""
        begin = self.pos
        if size < 0 or begin < 0 or begin + size > self.end:
            raise CfiError("it ends too early")
        self.pos = begin + size
        return self.data[begin : self.pos]

    def u(self, size: int) -> int:
        """An unsigned number of so many bytes."""
        return int.from_bytes(self.take(size), "little")

    def s(self, size: int) -> int:
        """A signed one."""
        return int.from_bytes(self.take(size), "little", signed=True)

    def uleb(self) -> int:
        """An unsigned LEB128 number."""
        return self._leb()[0]

    def sleb(self) -> int:
        """A signed LEB128 number."""
        value, bits, last = self._leb()
        return value - (1 << bits) if last & 0x40 else value

    def _leb(self) -> tuple[int, int, int]:
        value = bits = 0
        for _ in range(LEB_LIMIT):
            byte = self.u(1)
            value |= (byte & 0x7F) << bits
            bits += 7
            if not byte & 0x80:
                return value, bits, byte
        raise CfiError("a number without an end")

    def string(self, limit: int = 64) -> bytes:
        """A C string."""
        end = self.data.find(b"\0", self.pos, min(self.pos + limit, self.end))
        if end < 0:
            raise CfiError("a string without an end")
        found = self.data[self.pos : end]
        self.pos = end + 1
        return found
