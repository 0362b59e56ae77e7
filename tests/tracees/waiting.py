"""Threads that wait in openat until a signal ends that, or the process; FIFO is the first argument.

Between two lines that open ``begin`` and ``end``, which are not there: a call of another thread
while one waits; two that wait at once, and end in the order of their beginnings.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import threading
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
OPENAT = {"x86_64": 257, "aarch64": 56}[platform.machine()]


CALL = b"%d 0x%x " % (OPENAT, AT_FDCWD & (1 << 64) - 1)
"""How /proc begins to tell of it."""


def openat(path: str) -> None:
    """The call itself: neither libc nor Python begins it again."""
    LIBC.syscall(OPENAT, AT_FDCWD, path.encode(), os.O_RDONLY, 0)


class Waits(threading.Thread):
    """Is in its call once it is made."""

    def __init__(self, fifo: str) -> None:
        super().__init__(daemon=True)
        self._fifo = fifo
        self._go = threading.Event()
        self.start()
        task = Path(f"/proc/self/task/{self.native_id}")
        with (task / "syscall").open("rb", 0) as call, (task / "stat").open("rb", 0) as stat:
            self._go.set()
            # In the call it sleeps; in a tracer's stop before it, it does not.
            while not (
                os.pread(call.fileno(), 40, 0).startswith(CALL)
                and os.pread(stat.fileno(), 400, 0).rpartition(b")")[2].split()[0] == b"S"
            ):
                os.sched_yield()

    def run(self) -> None:
        """Calls, when the other thread looks."""
        self._go.wait()
        openat(self._fifo)

    def end(self) -> None:
        """Its call ends with EINTR, and it with it; until its tracer knows that, too."""
        assert self.ident is not None
        signal.pthread_kill(self.ident, signal.SIGUSR1)
        self.join()
        while os.path.exists(f"/proc/self/task/{self.native_id}"):
            os.sched_yield()


def main(fifo: str) -> None:
    """See the top."""
    signal.signal(signal.SIGUSR1, lambda *_: None)
    openat("begin")
    one = Waits(fifo)
    openat("between")
    one.end()
    openat("alone")
    one, two = Waits(fifo), Waits(fifo)
    one.end()
    two.end()
    Waits(fifo)
    openat("end")
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
