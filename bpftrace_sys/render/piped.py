"""-o '|COMMAND': text to a command's stdin.

The command is no child of ours: the tracer takes all its children for tracees, or for programs
that it has started, and with -D it is the program that was first in this process. So the command
is started by a child that ends at once, and its end is known by a pidfd.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket

from bpftrace_sys.render.output import Output, OutputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

SHELL: Final = "/bin/sh"
PID: Final = 8
"""Bytes in which the helper tells the command's pid."""


class Piped(Output):
    """The stdin of a command. ``close`` waits for the command's end, as strace does."""

    def __init__(self, command: str) -> None:
        """OutputError where the command cannot be started."""
        try:
            read, write = os.pipe()
        except OSError as error:
            raise OutputError(f"cannot run {command}: {error.strerror}") from None
        try:
            self._pidfd = _started(command, read)
        except OSError as error:
            os.close(write)
            raise OutputError(f"cannot run {command}: {error.strerror}") from None
        finally:
            os.close(read)
        stream = os.fdopen(write, "w", encoding="utf-8", errors="backslashreplace")
        super().__init__(stream, f"|{command}")
        self._packed = False  # what the command makes of it, it makes itself

    @property
    def is_file(self) -> bool:
        return False

    def close(self) -> None:
        """Closes the pipe, and waits until the command has ended."""
        super().close()
        waiting = select.poll()
        waiting.register(self._pidfd, select.POLLIN)
        with contextlib.suppress(KeyboardInterrupt):  # which the command gets, too
            waiting.poll()
        os.close(self._pidfd)


def _started(command: str, stdin: int) -> int:
    """Starts it as nobody's child; returns its pidfd. Raises OSError."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        helper = os.fork()
        if not helper:
            try:
                ours.close()  # else it would never be heard that the other end is closed
                _help(command, stdin, theirs)
            finally:
                os._exit(127)
        theirs.close()
        try:
            # The helper lives, so that the number cannot be another's yet.
            told = ours.recv(PID)
            if len(told) == PID:
                return os.pidfd_open(int.from_bytes(told, "little"))
        finally:
            ours.close()
            os.waitpid(helper, 0)
    raise OSError(0, "no process could be made")


def _help(command: str, stdin: int, theirs: socket.socket) -> NoReturn:
    """In a child: makes the command's process, tells its pid, and ends when it was heard."""
    pid = os.fork()
    if not pid:
        os.dup2(stdin, 0)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
            signal.signal(number, signal.SIG_DFL)
        os.execv(SHELL, ["sh", "-c", command])
    theirs.send(pid.to_bytes(PID, "little"))
    theirs.recv(1)
    os._exit(0)
