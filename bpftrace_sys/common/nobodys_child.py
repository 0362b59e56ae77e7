"""Processes of ours that are nobody's children.

The tracer takes all its children for tracees, or for programs that it has started, and with -D it
is the program that was first in this process. So what else is to run is started by a child that
ends at once, and its end is known by a pidfd.
"""

from __future__ import annotations

import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, NoReturn

PID: Final = 8
"""Bytes in which the helper tells the pid."""


def start(run: Callable[[], None]) -> int:
    """Runs ``run`` in a process that is nobody's child, which is to execute a program; returns its
    pidfd. Raises OSError."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        helper = os.fork()
        if not helper:
            try:
                ours.close()  # else it would never be heard that the other end is closed
                _help(run, theirs)
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


def _help(run: Callable[[], None], theirs: socket.socket) -> NoReturn:
    """In a child: makes the process, tells its pid, and ends when it was heard."""
    pid = os.fork()
    if not pid:
        try:
            run()
        finally:
            os._exit(127)
    theirs.send(pid.to_bytes(PID, "little"))
    theirs.recv(1)
    os._exit(0)
