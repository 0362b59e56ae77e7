"""Who asks file systems that may never answer: a process that can be left behind.

A request to FUSE that its server has taken and does not answer keeps who made it for as long as
the server pleases: not even SIGKILL ends that (request_wait_answer() in fs/fuse/dev.c). So it is
made by a process of its own, one a file system. If it is late, it is killed, or else waits on
without us, holding nothing of ours; that file system is asked nothing any more.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import re
import select
import signal
import socket
import stat
import struct
import time
from collections.abc import Callable
from typing import Final

from bpftrace_sys.common.nobodys_child import start
from bpftrace_sys.record.files.mounts import DAEMONS
from bpftrace_sys.record.files.walk import HANDLE, Place

WORD: Final = re.compile(r"[\w.+ -]{1,40}", re.ASCII)
PATIENCE: Final = 0.5
"""Seconds for an answer."""
BUDGET: Final = 5.0
"""Seconds for all answers of one file system."""
FILE_SYSTEMS: Final = 8
"""That are asked; each has a process."""
PIECE: Final = 1 << 20
"""Bytes of a file for which one answer is waited."""
OPEN: Final = 128
"""Files that a process has open."""

_STAT, _OPEN, _READ, _CLOSE = range(4)
_REQUEST: Final = struct.Struct("<BqQI")
"""What; a file's number, or the inode that it must have (-1: any); offset; bytes that follow, or
that are wanted."""
_ANSWER: Final = struct.Struct("<iI")
"""An errno, or 0; bytes that follow."""
_STATUS: Final = struct.Struct("<IQ")
"""st_mode, st_size."""
_NUMBER: Final = struct.Struct("<q")


class UnansweredError(OSError):
    """A file that was not looked at; the text says why."""

    def __str__(self) -> str:
        return str(self.args[1])


class Errands:
    """All file systems that were asked, by their devices."""

    def __init__(self) -> None:
        self._known: dict[str, Errand] = {}

    def _errand(self, place: Place) -> Errand:
        if place.kind == DAEMONS:
            raise UnansweredError(errno.EAGAIN, _unseen(place.kind, "which would mount something"))
        device = place.kind if place.mount is None else place.mount.device
        found = self._known.get(device)
        if found is None:
            if len(self._known) >= FILE_SYSTEMS:
                raise UnansweredError(errno.EAGAIN, _unseen(place.kind, "after many others"))
            found = self._known[device] = Errand(place.kind)
        return found

    def status(self, place: Place, root: int) -> tuple[int, int]:
        """st_mode and st_size of what is at a place, at the end of links; raises OSError.

        ``root``: a handle on the root that counts.
        """
        mode, size = _STATUS.unpack(self._errand(place).ask(_STAT, place, root))
        return mode, size

    def regular(self, place: Place, root: int, inode: int | None = None) -> Remote:
        """The regular file at a place, open for reading; raises OSError."""
        errand = self._errand(place)
        answer = errand.ask(_OPEN, place, root, -1 if inode is None else inode)
        return Remote(errand, *_NUMBER.unpack(answer))


class Remote:
    """A file that another process has open (stacks.elf_image.Source)."""

    def __init__(self, errand: Errand, number: int) -> None:
        self._errand = errand
        self._number = number
        self.lost: Callable[[str], None] = _forget
        """Told why no more of it comes."""

    def read(self, offset: int, size: int) -> bytes:
        """Bytes at an offset; fewer at the end, or where they do not come."""
        pieces: list[bytes] = []
        while size > 0 and 0 <= offset < 1 << 63:
            wanted = min(size, PIECE)
            try:
                piece = self._errand.read(self._number, offset, wanted)
            except UnansweredError as error:
                self.lost(str(error))
                break
            except OSError:
                break
            pieces.append(piece)
            if len(piece) < wanted:
                break
            offset += wanted
            size -= wanted
        return b"".join(pieces)

    def stamp(self) -> tuple[int, int]:
        """Nothing: it is asked in stops, and may not wait."""
        return 0, 0

    def __del__(self) -> None:
        self._errand.close(self._number)


class Errand:
    """A process that asks one file system."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._left = BUDGET
        self._line: socket.socket | None = None
        self._pidfd = -1
        self._over = ""
        """Why nothing is asked any more."""

    def ask(self, what: int, place: Place, root: int, number: int = -1) -> bytes:
        """An answer about a place; raises OSError, if UnansweredError."""
        head = _REQUEST.pack(what, number, 0, len(place.rest))
        return self._exchange(head + place.rest, (root, place.fd))

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Bytes of a file that was opened; raises OSError."""
        return self._exchange(_REQUEST.pack(_READ, number, offset, size))

    def close(self, number: int) -> None:
        """Closes a file, if somebody still has it open; waits for nothing."""
        if self._line is not None:
            with contextlib.suppress(OSError):
                head = _REQUEST.pack(_CLOSE, number, 0, 0)
                self._line.send(head, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _exchange(self, request: bytes, fds: tuple[int, ...] = ()) -> bytes:
        if self._over:
            raise UnansweredError(errno.ETIMEDOUT, self._over)
        begun = time.monotonic()
        try:
            if self._line is None:
                self._begin()
                begun = time.monotonic()
            assert self._line is not None
            socket.send_fds(self._line, [request], list(fds), socket.MSG_NOSIGNAL)
            until = begun + min(PATIENCE, self._left)
            number, size = _ANSWER.unpack(self._receive(_ANSWER.size, until))
            answer = self._receive(size, until)
        except TimeoutError:
            self._give_up("which did not answer in time")
        except OSError:
            self._give_up("and no process could ask it")
        self._left -= time.monotonic() - begun
        if number:
            raise OSError(number, os.strerror(number))
        return answer

    def _give_up(self, why: str) -> None:
        self._over = _unseen(self._kind, why)
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._pidfd >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.close(self._pidfd)
            self._pidfd = -1
        raise UnansweredError(errno.ETIMEDOUT, self._over)

    def _receive(self, size: int, until: float) -> bytes:
        assert self._line is not None
        found = b""
        while len(found) < size:
            left = until - time.monotonic()
            if left <= 0 or not _readable(self._line, left):
                raise TimeoutError
            piece = self._line.recv(size - len(found))
            if not piece:
                raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
            found += piece
        return found

    def _begin(self) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            self._pidfd = start(lambda: _serve(theirs))

    def __del__(self) -> None:
        if self._line is not None:
            self._line.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)


def _forget(why: str) -> None:
    """Whoever asks for nothing is told nothing."""


def _unseen(kind: str, why: str) -> str:
    # What stands behind fuse's dot is its server's word.
    return f"it is on {kind if WORD.fullmatch(kind) else 'fuse'}, {why}"


def _readable(line: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(line, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


# ---------------------------------------------------------------- in the other process


def _serve(line: socket.socket) -> None:
    """Answers until the other end is closed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # but SIGKILL
    gc.disable()  # what the tracer has left lying about has fds, whose numbers are others here
    line = socket.socket(fileno=_alone(line.detach()))
    handles = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    server = _Server(handles)
    while True:
        head, fds, _, _ = socket.recv_fds(line, _REQUEST.size, 2)
        if len(head) < _REQUEST.size:
            os._exit(0)
        what, number, offset, size = _REQUEST.unpack(head)
        if what == _CLOSE:
            server.close(number)
            continue
        try:
            if what == _READ:
                answer = server.read(number, offset, size)
            else:
                path = line.recv(size, socket.MSG_WAITALL) if size else b""
                answer = server.look(what, number, path, fds)
            head = _ANSWER.pack(0, len(answer))
        except OSError as error:
            head, answer = _ANSWER.pack(error.errno or errno.EIO, 0), b""
        finally:
            for fd in fds:
                os.close(fd)
        line.sendall(head + answer)


def _alone(fd: int) -> int:
    """Closes everything else: nobody's pipe is to be held by who may wait for ever."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        if number != fd:
            os.dup2(null, number)
    kept = fd if fd > 2 else os.dup(fd)
    os.closerange(3, kept)
    os.closerange(kept + 1, 1 << 20)
    return kept


class _Server:
    def __init__(self, handles: int) -> None:
        self._handles = handles
        """/proc/self/fd, which a tracee's root may not have."""
        self._top = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._files: dict[int, int] = {}
        self._next = 0

    def look(self, what: int, inode: int, path: bytes, fds: list[int]) -> bytes:
        root, begin = fds
        handle = self._found(root, begin, path) if path else os.dup(begin)
        try:
            found = os.fstat(handle)
            if what == _STAT:
                return _STATUS.pack(found.st_mode, found.st_size)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "no regular file")
            if inode not in (-1, found.st_ino):
                raise OSError(errno.ESTALE, "another file")
            if len(self._files) >= OPEN:
                self.close(next(iter(self._files)))
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            self._next += 1
            self._files[self._next] = os.open(str(handle), flags, dir_fd=self._handles)
            return _NUMBER.pack(self._next)
        finally:
            os.close(handle)

    def _found(self, root: int, begin: int, path: bytes) -> int:
        """A handle on what a path leads to, in a root of its own where we may have one."""
        try:
            with contextlib.suppress(OSError):
                os.fchdir(root)
                os.chroot(".")
            os.fchdir(begin)
            return os.open(path, HANDLE & ~os.O_NOFOLLOW)
        finally:
            # What is held so cannot be unmounted.
            os.fchdir(self._top)
            with contextlib.suppress(OSError):
                os.chroot(".")

    def read(self, number: int, offset: int, size: int) -> bytes:
        if number not in self._files:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return os.pread(self._files[number], min(size, PIECE), offset)

    def close(self, number: int) -> None:
        fd = self._files.pop(number, None)
        if fd is not None:
            os.close(fd)
