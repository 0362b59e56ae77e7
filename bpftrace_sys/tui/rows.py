"""The rows of all calls, in a temporary file without a name; in memory is where each stands."""

from __future__ import annotations

import marshal
import os
import tempfile
from array import array
from collections.abc import Iterator
from typing import Final

from bpftrace_sys.common import BpfstraceError
from bpftrace_sys.render.html.records import CallRow

LIMIT: Final = 1 << 30
"""Bytes of all rows; later calls are counted only."""
TAIL: Final = 1 << 18
"""Bytes that wait to be written together."""
READ: Final = 4096
"""Bytes of a row that are read at once; most are shorter."""


class Rows:
    """Rows by their place, from 0."""

    def __init__(self) -> None:
        try:
            self._file = tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise BpfstraceError(
                f"tui: no temporary file for the calls: {error.strerror}; TMPDIR says where to "
                "make it"
            ) from None
        self._at = array("Q")
        """Where each row stands."""
        self._written = 0
        self._tail = bytearray()

    def __len__(self) -> int:
        return len(self._at)

    @property
    def full(self) -> bool:
        """No more is to be added."""
        return self._written >= LIMIT

    def append(self, row: CallRow) -> None:
        """One more row."""
        self._at.append(self._put(row))

    def replace(self, at: int, row: CallRow) -> None:
        """Another row in the place of one."""
        self._at[at] = self._put(row)

    def _put(self, row: CallRow) -> int:
        if len(self._tail) >= TAIL:
            self._flush()
        place = self._written + len(self._tail)
        packed = marshal.dumps(tuple(row))
        self._tail += len(packed).to_bytes(4, "little") + packed
        return place

    def _flush(self) -> None:
        tail = memoryview(self._tail)
        try:
            done = 0
            while done < len(tail):
                done += os.pwrite(self._file.fileno(), tail[done:], self._written + done)
        except OSError as error:
            raise BpfstraceError(
                f"tui: the calls cannot be kept in {tempfile.gettempdir()}: {error.strerror}; "
                "TMPDIR says where to"
            ) from None
        self._written += len(tail)
        self._tail = bytearray()

    def __getitem__(self, at: int) -> CallRow:
        place = self._at[at]
        if place >= self._written:
            start = place - self._written + 4
            return CallRow(*marshal.loads(memoryview(self._tail)[start:]))
        fd = self._file.fileno()
        data = os.pread(fd, READ, place)
        size = int.from_bytes(data[:4], "little")
        if size > len(data) - 4:
            data += os.pread(fd, size + 4 - len(data), place + len(data))
        return CallRow(*marshal.loads(memoryview(data)[4:]))

    def __iter__(self) -> Iterator[CallRow]:
        for at in range(len(self._at)):
            yield self[at]
