"""A regular file, open for reading."""

from __future__ import annotations

import os


class InFile:
    """A file that stays open.  It is read, not mapped: it may shrink at any moment."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, offset) if 0 <= offset < 1 << 63 else b""
        except OSError:
            return b""

    def stamp(self) -> tuple[int, int]:
        """Changes when the file is written to."""
        found = os.fstat(self._fd)
        return found.st_mtime_ns, found.st_size

    def __del__(self) -> None:
        os.close(self._fd)
