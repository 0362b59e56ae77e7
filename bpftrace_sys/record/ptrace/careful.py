"""Memory whose pages may not come: read by a thread that can be left behind.

A page under userfaultfd(2) comes when whoever holds that fd says so, which may be never, and
a read of it from outside waits like any other: no signal but SIGKILL ends it (handle_userfault()
in fs/userfaultfd.c). So a thread of ours reads, and who waits for it does so for a while. Left
behind, it ends when the page comes, or with us.
"""

from __future__ import annotations

import _thread
import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    Readv = Callable[[int, int, int, int, int, int], int]

_FIRST: Final = 0.5
_LATER: Final = 0.05
"""Seconds that a page may take: where none was late yet, and where one was."""
_LEFT: Final = 8
"""Threads that may be left behind; then nothing is read any more until one has ended."""


class CarefulReader:
    """Reads pages of tracees, one at a time. ``readv``: process_vm_readv, which releases the
    GIL while it waits."""

    def __init__(self, readv: Readv) -> None:
        self._readv = readv
        self._left: set[Any] = set()  # locks of threads that have not come back

    def page(self, tid: int, addr: int, size: int) -> bytes:
        """All leading bytes of a range within one page; none where the page does not come."""
        if len(self._left) >= _LEFT:
            return b""
        done = _thread.allocate_lock()
        done.acquire()
        buffer = ctypes.create_string_buffer(size)
        got = [0]
        patience = _LATER if self._left else _FIRST
        self._left.add(done)
        try:
            _thread.start_new_thread(self._read, (tid, addr, buffer, got, done))
        except RuntimeError:
            self._left.discard(done)
            return b""
        if not done.acquire(timeout=patience):
            return b""
        return buffer.raw[: got[0]]

    def _read(self, tid: int, addr: int, buffer: Any, got: list[int], done: Any) -> None:
        size = len(buffer)
        local = (ctypes.c_ulong * 2)(ctypes.addressof(buffer), size)
        remote = (ctypes.c_ulong * 2)(addr, size)
        where = ctypes.addressof(local), ctypes.addressof(remote)
        got[0] = max(self._readv(tid, where[0], 1, where[1], 1, 0), 0)
        self._left.discard(done)
        done.release()


def holds_userfaultfd(pid: int) -> bool:
    """Whether a process has such an fd, of whatever memory."""
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                if os.readlink(f"/proc/{pid}/fd/{name}") == "anon_inode:[userfaultfd]":
                    return True
            except OSError:
                continue  # closed since
    except OSError:
        pass
    return False
