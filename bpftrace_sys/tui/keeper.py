"""The terminal of the program that is traced, kept by a process of its own.

Three processes: the browser; the keeper, who has the other end of the program's terminal; the
tracer, the keeper's child, with the program below it.  ptrace(2) belongs to the tracer's one
thread, so nothing of the browser is slow in a stop.  Should the browser die, the keeper goes on to
read what the program writes: a terminal whose other end is gone would end the program (SIGHUP).

The keeper and the browser exchange messages, each a letter and what belongs to it: to the browser
``o`` what was written, ``x`` the tracer's wait status; to the keeper ``i`` what was typed, ``w``
lines and columns, ``s`` a signal for the tracer, ``e`` and ``k`` the end of all of them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios
from collections.abc import Callable
from typing import Final, NoReturn

PIECE: Final = 16_384
"""Bytes of a message at most."""
TYPED: Final = 65_536
"""Bytes that wait for a program which does not read; what is typed beyond is lost."""


class Kept:
    """The browser's side."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        """The keeper's."""
        self.connection = connection
        self.status: int | None = None
        """The tracer's wait status, once it has ended."""

    def receive(self) -> bytes | None:
        """What the program wrote, empty where that was another message; None: nothing comes
        any more."""
        try:
            message = self.connection.recv(PIECE + 1)
        except BlockingIOError:
            return b""
        except OSError:
            message = b""
        if not message:
            if self.status is None:
                self.status = signal.SIGKILL  # with the keeper, all of them
            return None
        if message[:1] == b"x":
            self.status = int(message[1:])
            return b""
        return message[1:]

    def _send(self, message: bytes) -> None:
        with contextlib.suppress(OSError):  # who is not there needs nothing
            self.connection.send(message)

    def type(self, data: bytes) -> None:
        """Keys for the program."""
        for at in range(0, len(data), PIECE):
            self._send(b"i" + data[at : at + PIECE])

    def size(self, lines: int, columns: int) -> None:
        """How large the program's terminal is."""
        self._send(b"w" + struct.pack("HH", max(lines, 1), max(columns, 1)))

    def signal(self, number: int) -> None:
        """A signal for the tracer."""
        self._send(b"s%d" % number)

    def end(self) -> None:
        """SIGTERM for the tracer, which passes it on, and for all that run on the terminal."""
        self._send(b"e")

    def kill(self) -> None:
        """The end of tracer and program, at once."""
        self._send(b"k")


def keep(work: Callable[[], int], lines: int, columns: int) -> Kept:
    """Starts the keeper, and in its child ``work``, which traces and gives an exit code.

    To be called before there are threads.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        try:
            _Keeper(theirs, work, lines, columns).run()
        finally:
            os._exit(125)
    theirs.close()
    ours.setblocking(False)
    return Kept(pid, ours)


class _Keeper:
    """Between the program's terminal and the browser."""

    def __init__(
        self, connection: socket.socket, work: Callable[[], int], lines: int, columns: int
    ) -> None:
        os.setsid()
        self._terminal, slave = os.openpty()
        self._resize(lines, columns)
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        self._tracer = os.fork()
        if self._tracer == 0:
            connection.close()
            os.close(self._terminal)
            _trace(work, slave)
        os.close(slave)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        # What the program's terminal sends to all that run on it is not meant for us.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP,
                       signal.SIGTERM, signal.SIGPIPE):  # fmt: skip
            signal.signal(number, signal.SIG_IGN)
        os.set_blocking(self._terminal, False)
        connection.setblocking(False)
        self._connection: socket.socket | None = connection
        self._ended = os.pidfd_open(self._tracer)
        self._told: list[bytes] = []
        """Messages for the browser."""
        self._typed = b""
        self._reads = self._traces = True

    def _resize(self, lines: int, columns: int) -> None:
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    def run(self) -> None:
        """Until the tracer has ended and nobody has the terminal open."""
        while self._reads or self._traces or self._told:
            poll = select.poll()
            # Who writes faster than the browser reads waits, as on any terminal.
            busy = bool(self._told)
            if self._reads and not busy:
                wanted = select.POLLIN | (select.POLLOUT if self._typed else 0)
                poll.register(self._terminal, wanted)
            if self._traces:
                poll.register(self._ended, select.POLLIN)
            if self._connection is not None:
                wanted = select.POLLIN | (select.POLLOUT if busy else 0)
                poll.register(self._connection, wanted)
            for fd, _ in poll.poll():
                if fd == self._ended:
                    self._traces = False
                    self._tell(b"x%d" % os.waitpid(self._tracer, 0)[1])
                elif fd == self._terminal:
                    self._read()
                    self._write()
                else:
                    self._listen()
            self._flush()
        os._exit(0)

    def _read(self) -> None:
        try:
            data = os.read(self._terminal, PIECE)
        except BlockingIOError:
            return
        except OSError:  # EIO: nobody has it open any more
            data = b""
        if data:
            self._tell(b"o" + data)
        else:
            self._reads = False

    def _write(self) -> None:
        with contextlib.suppress(OSError):
            self._typed = self._typed[os.write(self._terminal, self._typed) :]

    def _tell(self, message: bytes) -> None:
        if self._connection is not None:
            self._told.append(message)

    def _flush(self) -> None:
        while self._told and self._connection is not None:
            try:
                self._connection.send(self._told[0])
            except BlockingIOError:
                return
            except OSError:
                self._alone()
                return
            del self._told[0]

    def _alone(self) -> None:
        """The browser has gone; the program need not notice."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._told.clear()

    def _listen(self) -> None:
        assert self._connection is not None
        try:
            message = self._connection.recv(PIECE + 1)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        kind, rest = message[:1], message[1:]
        if not message:
            self._alone()
        elif kind == b"i" and len(self._typed) < TYPED:
            self._typed += rest
            self._write()
        elif kind == b"w":
            self._resize(*struct.unpack("HH", rest))
        elif kind == b"s" and self._traces:
            os.kill(self._tracer, int(rest))
        elif kind == b"e":
            os.killpg(0, signal.SIGTERM)  # which we ignore
        elif kind == b"k":
            os.killpg(0, signal.SIGKILL)


def _trace(work: Callable[[], int], slave: int) -> NoReturn:
    """In the tracer: what it says and what the program writes goes to the program's terminal."""
    code = 125
    try:
        for fd in range(3):
            os.dup2(slave, fd)
        if slave > 2:
            os.close(slave)
        # It shows lines as they come, and obeys nothing.
        os.environ["TERM"] = "dumb"
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)
