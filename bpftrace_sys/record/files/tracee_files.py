"""Files by the paths that tracees give to them."""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from bpftrace_sys.record.files.in_file import InFile
from bpftrace_sys.record.files.mounts import MAKES
from bpftrace_sys.record.files.walk import Place, walk
from decoders.records import NamedTuple

if TYPE_CHECKING:
    from bpftrace_sys.record.files.errands import Errands, Remote

REMEMBERED: Final = 256
"""Paths of which it is known why nobody looked at them."""
T = TypeVar("T")


class Base(NamedTuple):
    """Where a process's paths begin: links of /proc to its root and its working directory."""

    pid: int
    root: str
    cwd: str

    @classmethod
    def of(cls, pid: int) -> Base:
        """Of a process that is there."""
        return cls(pid, f"/proc/{pid}/root", f"/proc/{pid}/cwd")


class Status(NamedTuple):
    """What kind of file it is, and its bytes."""

    mode: int
    size: int


class TraceeFiles:
    """Looks for files, and remembers which of them it does not look at."""

    def __init__(self) -> None:
        self._errands: Errands | None = None
        self._unlooked: OrderedDict[str, str] = OrderedDict()

    def unlooked(self, path: str) -> str | None:
        """Why a file of this path was not looked at, when it was last asked about: ``it is on
        fuse.sshfs, which did not answer in time``; None where it was."""
        return self._unlooked.get(path)

    def place(self, base: Base, path: str) -> Place:
        """How far the kernel finds the way to a path by itself; raises OSError, ValueError."""
        return walk(base.pid, base.root, base.cwd, path)

    def status(self, base: Base, path: str) -> Status:
        """What stands at a path, at the end of symbolic links.

        Raises OSError (if UnansweredError), ValueError.
        """
        with self.place(base, path) as place:
            if place.answers:
                found = os.fstat(place.fd)
                return Status(found.st_mode, found.st_size)
            return Status(
                *self._asked(place, base, path, lambda errands, root: errands.status(place, root))
            )

    def regular(self, base: Base, path: str) -> InFile | Remote:
        """The regular file of a path, open for reading.

        Raises OSError (if UnansweredError), ValueError.
        """
        with self.place(base, path) as place:
            return self.opened(place, base, path)

    def opened(
        self, place: Place, base: Base, path: str, inode: int | None = None
    ) -> InFile | Remote:
        """The regular file at a place, of a certain inode if given; raises the same."""
        if place.answers:
            return InFile(opened(place, inode))
        found = self._asked(
            place, base, path, lambda errands, root: errands.regular(place, root, inode)
        )
        found.lost = lambda why: self._note(path, why)
        return found

    def _asked(
        self, place: Place, base: Base, path: str, ask: Callable[[Errands, int], T]
    ) -> T:
        from bpftrace_sys.record.files.errands import Errands, UnansweredError

        if self._errands is None:
            self._errands = Errands()
        self._unlooked.pop(path, None)
        # What is left of a path may be, or lead through, a link that begins at the root.
        root = os.open(base.root, os.O_PATH | os.O_CLOEXEC) if place.rest else os.dup(place.fd)
        try:
            return ask(self._errands, root)
        except UnansweredError as error:
            self._note(path, str(error))
            raise
        finally:
            os.close(root)

    def _note(self, path: str, why: str) -> None:
        self._unlooked[path] = why
        if len(self._unlooked) > REMEMBERED:
            self._unlooked.popitem(last=False)


def opened(place: Place, inode: int | None = None) -> int:
    """An fd for reading a regular file that the kernel itself answers for; raises OSError."""
    # Opening a device does things, and a fifo waits; looking first does not. Where the file's owner
    # holds a lease on it, open() waits for fs.lease-break-time, 45 s: we do without instead. What
    # proc, tracefs and their like call regular files may wait, too, and holds no code.
    found = os.fstat(place.fd)
    if not stat.S_ISREG(found.st_mode) or place.kind in MAKES:
        raise OSError(errno.EINVAL, "no regular file")
    # The device's number is another one on overlayfs and btrfs.
    if inode is not None and found.st_ino != inode:
        raise OSError(errno.ESTALE, "another file")
    return os.open(place.link, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
