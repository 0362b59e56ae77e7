"""A BPF_MAP_TYPE_RINGBUF's records, read from its mapping (kernel/bpf/ringbuf.c)."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from typing import Final

BUSY: Final = 1 << 31
DISCARDED: Final = 1 << 30
LENGTH: Final = DISCARDED - 1
HEAD: Final = 8
GIVEN_BACK: Final = 64
"""Records after which their room is given back."""


class Ring:
    """``fd``: of the map; ``size``: its max_entries, a power of two."""

    def __init__(self, fd: int, size: int) -> None:
        page = mmap.PAGESIZE
        self.fd = fd
        self._mask = size - 1
        ours = mmap.mmap(fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        # The kernel would show the data twice in a row, so that no record is cut in two; but each
        # page would count twice for our memory.
        theirs = mmap.mmap(fd, page + size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        view = memoryview(theirs)
        # Whole words: what struct unpacks byte by byte may be torn.
        self._consumed = memoryview(ours).cast("Q")
        self._produced = view[:page].cast("Q")
        self._data = view[page:]
        self._words = view[page:].cast("I")
        self._next = 0
        """Where what follows the record begins that is being handed over."""

    def drain(self, take: Callable[[memoryview, int, int, int], int], most: int) -> int:
        """Hands some ``most`` records over: buffer, offset, size, and how many bytes from the
        offset on may hold others behind it, without a gap. Returns how many there were.

        ``take`` returns how many it has taken, the one and others of its size. What it gets is
        given back to the kernel soon after: it copies what it keeps.
        """
        consumed, words, mask = self._consumed, self._words, self._mask
        at = end = consumed[0]
        count = 0
        given = GIVEN_BACK
        looked = -1
        while count < most:
            place = at & mask
            head = words[place >> 2] if at < end else BUSY
            if head & BUSY:
                # Who writes next wakes us only if it finds that we have come so far: say it,
                # and look once more whether it was faster.
                if looked == at:
                    break
                consumed[0] = looked = at
                end = self._produced[0]
                continue
            size = head & LENGTH
            step = (size + HEAD + 7) & ~7
            self._next = at + step
            taken = 1
            if not head & DISCARDED:
                buffer, start, _ = self._record(place, size)
                whole = buffer is self._data
                room = min(end - at - HEAD, len(buffer) - start) if whole else size
                taken = take(buffer, start, size, room)
                count += taken
            at += step * taken
            if count >= given:
                given = count + GIVEN_BACK
                consumed[0] = at
        consumed[0] = at
        return count

    def _record(self, place: int, size: int) -> tuple[memoryview, int, int]:
        start, data = place + HEAD, self._data
        if start + size <= len(data):
            return data, start, size
        cut = bytes(data[start:]) + bytes(data[: start + size - len(data)])
        return memoryview(cut), 0, size

    def behind(self) -> Iterator[tuple[memoryview, int, int] | None]:
        """The records that have come since the one that is being handed over; they stay to be
        read. None: one that is still being written."""
        at = self._next
        while at < self._produced[0]:
            place = at & self._mask
            head = self._words[place >> 2]
            if head & BUSY:
                yield None
                return
            if not head & DISCARDED:
                yield self._record(place, head & LENGTH)
            at += ((head & LENGTH) + HEAD + 7) & ~7

    @property
    def filled(self) -> int:
        """Bytes that wait to be read."""
        return int(self._produced[0] - self._consumed[0])
