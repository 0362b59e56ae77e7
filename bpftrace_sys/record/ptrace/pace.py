"""Whether to look for the next stop again and again, or to sleep until it comes.

To be woken on another CPU is the dear part of a stop, so after a resume it pays to look
for the next one some 200 times (0.1 ms) before going to sleep. It does not where stops are
rare, nor where the tracee waits for the CPU on which we look.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

POLLS: Final = 200
TRACEES: Final = 32
"""With more of them each look costs too much."""
_SHORT: Final = 100_000  # nanoseconds: a sleep that looking would have spared
_RETRY: Final = 64  # short sleeps after which looking is tried again
_SAMPLE: Final = 16  # sleeps between two looks at how busy the machine is
_CROWDED: Final = 2  # of the last samples, up to _MOST
_MOST: Final = 3


class Pace:
    """``polls``: how often to look before the next sleep. The loop sets it back to ``most``
    when looking has found a stop, and halves it when it has not."""

    __slots__ = ("_cpus", "_crowd", "_file", "_short", "_slept", "most", "polls")

    def __init__(self) -> None:
        try:
            self._cpus = len(os.sched_getaffinity(0))
        except OSError:
            self._cpus = 1
        self.most = POLLS if self._cpus > 1 else 0
        self.polls = self.most
        self._short = 0
        self._slept = 0
        self._crowd = 0
        self._file = -1

    def slept(self, nanoseconds: int) -> None:
        """After a sleep of that length."""
        if self._cpus == 1:
            return
        self._slept += 1
        if self._slept % _SAMPLE == 0:
            self._sample()
        if nanoseconds < _SHORT:
            # They may have come thick since looking did not find any: tried now and then.
            self._short += 1
            if self._short == _RETRY:
                self._short = 0
                self.polls = self.most

    def _sample(self) -> None:
        """Who else wants the CPUs? If there are more than there are CPUs, to look is to be in
        the way: of the tracee, too, which may be one of those that wait."""
        try:
            if self._file < 0:
                self._file = os.open("/proc/loadavg", os.O_RDONLY | os.O_CLOEXEC)
            # proc_loadavg(5): three averages, then runnable/existing threads, us among them.
            running = int(os.pread(self._file, 64, 0).split()[3].partition(b"/")[0])
        except (OSError, ValueError, IndexError):
            return
        # The tracee, which has just stopped, is not among them, and will want one as well.
        crowded = running >= self._cpus
        self._crowd = min(self._crowd + 1, _MOST) if crowded else max(self._crowd - 1, 0)
        most = 0 if self._crowd >= _CROWDED else POLLS
        if most != self.most:
            self.most = self.polls = most

    def close(self) -> None:
        """Gives back what sampling holds."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
