"""From a path of a tracee's to a file, past no file system that may not answer.

A path is looked up component by component, as path_lookup() of fs/namei.c does, each in a folder
that is held open and whose file system is known to answer by itself. To step onto a mount point
asks nobody; to look anything up below it would. So a walk ends at the first mount that has to ask,
and says what is left of the path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Final

from bpftrace_sys.record.files.mounts import Mount, Mounts

STEPS: Final = 1024
"""Components of a path, those of its symbolic links counted in (PATH_MAX, and a little)."""
LINKS: Final = 40
"""MAXSYMLINKS"""
HANDLE: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Place:
    """A file, or how far a walk came: a handle (O_PATH), its mount, and what is left of the path.

    To be closed; what is held by it cannot be unmounted meanwhile.
    """

    __slots__ = ("answers", "fd", "mount", "rest")

    def __init__(self, fd: int, mount: Mount | None, answers: bool, rest: bytes = b"") -> None:
        self.fd = fd
        self.mount = mount
        """None: of no mount that we could find."""
        self.answers = answers
        """Whether the kernel answers for it by itself; then ``rest`` is empty."""
        self.rest = rest

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Lets go."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    @property
    def link(self) -> str:
        """A path of ours by which the kernel finds the file, looking nothing up."""
        return f"/proc/self/fd/{self.fd}"

    @property
    def kind(self) -> str:
        """The kind of its file system."""
        return "a file system of no known mount" if self.mount is None else self.mount.kind


def place_of(pid: int, fd: int, mounts: Mounts | None = None) -> Place:
    """Where a handle of ours leads to, which is the place's from now on; raises OSError.

    ``mounts``: read since it was opened. An id is given again once its mount is gone.
    """
    try:
        number = _mount_id(fd)
        mounts = mounts or Mounts(pid)
    except BaseException:
        os.close(fd)
        raise
    mount = mounts.of(number)
    return Place(fd, mount, mount is not None and mounts.answers(mount))


def walk(pid: int, root: str, start: str, path: str) -> Place:
    """Looks up a path of process ``pid``; ``root`` and ``start`` are links of /proc to its root and
    to the folder that the path begins in. Raises OSError as open(), also where a component is
    missing that was looked for in a file system that answers.
    """
    with contextlib.ExitStack() as held:
        top = place_of(pid, os.open(root, os.O_PATH | os.O_CLOEXEC))
        held.callback(top.close)
        begin = root if path.startswith("/") else start
        return _Walk(pid, top).go(os.open(begin, os.O_PATH | os.O_CLOEXEC), os.fsencode(path))


def beside(folder: Place, name: bytes) -> Place:
    """What has a name in a folder of a file system that answers, and is on that mount itself; no
    link is followed. Raises OSError."""
    fd = os.open(name, HANDLE, dir_fd=folder.fd)
    try:
        if folder.mount is None or _mount_id(fd) != folder.mount.id:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    except BaseException:
        os.close(fd)
        raise
    return Place(fd, folder.mount, folder.answers)


class _Walk:
    def __init__(self, pid: int, top: Place) -> None:
        self._pid = pid
        self._top = top
        self._links = 0
        self._todo: list[bytes] = []

    def go(self, fd: int, path: bytes) -> Place:
        here = place_of(self._pid, fd)
        self._push(path)
        try:
            for _ in range(STEPS):
                if not here.answers:
                    here.rest = b"/".join(reversed(self._todo))
                    return here
                if not self._todo:
                    return here
                name = self._todo.pop()
                if name == b".." and self._is_top(here):
                    continue
                here = self._step(here, name)
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        except BaseException:
            here.close()
            raise

    def _push(self, path: bytes) -> None:
        if not path:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        parts = [part for part in path.split(b"/") if part]
        if path.endswith(b"/") and parts:
            parts.append(b".")  # it is to be a folder
        if len(self._todo) + len(parts) > STEPS:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        self._todo.extend(reversed(parts))

    def _is_top(self, here: Place) -> bool:
        return here.mount == self._top.mount and os.path.sameopenfile(here.fd, self._top.fd)

    def _step(self, here: Place, name: bytes) -> Place:
        """From a folder to what has a name in it, or to where that leads as a symbolic link."""
        there = self._below(here, os.open(name, HANDLE, dir_fd=here.fd))
        if not there.answers or not stat.S_ISLNK(os.fstat(there.fd).st_mode):
            here.close()
            return there
        self._links += 1
        if self._links > LINKS:
            there.close()
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        with here, there:
            if there.kind == "proc":
                return self._jump(here, name)
            text = os.readlink(b"", dir_fd=there.fd)
            self._push(text)
            if text.startswith(b"/"):
                return self._below(self._top, os.dup(self._top.fd))
            return self._below(here, os.dup(here.fd))

    def _below(self, here: Place, fd: int) -> Place:
        """The place of a handle that was reached from another."""
        try:
            # As long as that one is held, its mount's number is nobody else's.
            same = here.mount is not None and _mount_id(fd) == here.mount.id
        except BaseException:
            os.close(fd)
            raise
        if same:
            return Place(fd, here.mount, here.answers)
        return place_of(self._pid, fd)

    def _jump(self, here: Place, name: bytes) -> Place:
        """A link of proc: most lead to a file itself, not to a name, and nothing is looked up. Of
        ``self`` the caller is meant, who is not us."""
        if name in (b"self", b"thread-self"):
            thread = f"/task/{self._pid}" if name == b"thread-self" else ""
            return place_of(self._pid, os.open(f"/proc/{self._pid}{thread}", HANDLE))
        flags = os.O_PATH | os.O_CLOEXEC
        return self._below(here, os.open(name, flags, dir_fd=here.fd))


def _mount_id(fd: int) -> int:
    """The id of the mount that a handle of ours is on (proc(5), fdinfo); raises OSError."""
    with open(f"/proc/self/fdinfo/{fd}", "rb", buffering=0) as file:
        _, _, after = file.read(4096).partition(b"mnt_id:")
    number = after.split(None, 1)[:1]
    if not number or not number[0].isdigit():
        raise OSError(errno.ENODATA, "no mount is told", f"/proc/self/fdinfo/{fd}")
    return int(number[0])
