"""A thread's user ids, capabilities and namespaces, as a fact about a refused call."""

from __future__ import annotations

import os

from decoders.raw import Cred

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

INIT_USER_NS: Final = 0xEFFFFFFD
"""The inode of the first user namespace (include/linux/proc_ns.h)."""
KEPT: Final = 64
"""Files of threads that are kept open."""
_ROOM: Final = 1 << 14


class Credentials:
    """Asks who threads are, with /proc/TID/status kept open: refused calls come in loops."""

    def __init__(self) -> None:
        self._files: dict[int, int] = {}
        self._last: dict[int, Cred] = {}

    def of(self, tid: int) -> Cred:
        """What counts for permission; the same object as long as it does not change."""
        found = Cred()
        text = self._status(tid)
        # Real, effective, saved and the file system's (task_state() in fs/proc/array.c).
        users = _field(text, b"\nUid:\t").split()
        capabilities = _field(text, b"\nCapEff:\t")
        if len(users) < 2 or not users[1].isdigit():
            return found
        found = Cred(int(users[1]), capabilities.decode("ascii", "replace"))
        try:
            inode = os.stat(f"/proc/{tid}/ns/user").st_ino
        except OSError:
            return found
        if inode != INIT_USER_NS:
            found = found._replace(userns=inode)
        if self._last.get(tid) != found:
            self._last[tid] = found
        return self._last[tid]

    def _status(self, tid: int) -> bytes:
        file = self._files.get(tid)
        try:
            if file is None:
                if len(self._files) >= KEPT:
                    self.close()
                file = os.open(f"/proc/{tid}/status", os.O_RDONLY | os.O_CLOEXEC)
                self._files[tid] = file
            return os.pread(file, _ROOM, 0)
        except OSError:
            self.forget(tid)
            return b""

    def forget(self, tid: int) -> None:
        """The thread has ended, or its number may be another's."""
        file = self._files.pop(tid, None)
        if file is not None:
            os.close(file)
        self._last.pop(tid, None)

    def close(self) -> None:
        """Gives back what is open."""
        for tid in list(self._files):
            self.forget(tid)


def _field(text: bytes, name: bytes) -> bytes:
    """What follows a name up to the line's end; newlines of a thread's name are escaped there."""
    _, found, rest = text.partition(name)
    return rest[: rest.find(b"\n")] if found else b""
