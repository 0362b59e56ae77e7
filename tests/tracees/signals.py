"""A program that gets a signal of each kind, and whose children end by some."""

from __future__ import annotations

import ctypes
import os
import signal

LIBC = ctypes.CDLL(None, use_errno=True)
QUEUED = 40


def child(how: str) -> None:
    """Ends, or stops."""
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "fault":
        ctypes.string_at(16)
    elif how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif how == "abort":
        os.abort()
    os._exit(7)


def main() -> None:
    """One after the other."""
    for number in (signal.SIGUSR1, signal.SIGALRM, QUEUED):
        signal.signal(number, lambda *_: None)
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR1)
    for value in (0x1234567890, 0):
        LIBC.sigqueue(os.getpid(), QUEUED, ctypes.c_void_p(value))
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    signal.pause()
    for how in ("exit", "kill", "fault", "stop", "abort"):
        pid = os.fork()
        if not pid:
            child(how)
        if how == "stop":
            os.waitpid(pid, os.WUNTRACED)
            os.kill(pid, signal.SIGCONT)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
