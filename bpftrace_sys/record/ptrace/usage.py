"""CPU time of tracees, as the kernel tells it with each stop: for -c of --style strace."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


class Usage:
    """Waits for stops, and notes what has been used until each."""

    __slots__ = ("system",)

    def __init__(self) -> None:
        self.system: Final[dict[int, int]] = {}
        """By thread: nanoseconds that its process had spent in the kernel at its last stop, its
        dead children among it (wait4(2): of a traced thread the kernel tells its process's)."""

    def waitpid(self, pid: int, options: int) -> tuple[int, int]:
        """As os.waitpid()."""
        tid, status, used = os.wait4(pid, options)
        if tid:
            if os.WIFSTOPPED(status):
                self.system[tid] = round(used.ru_stime * 1e6) * 1000
            else:
                self.system.pop(tid, None)
        return tid, status
