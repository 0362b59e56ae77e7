"""--stats where nobody is stopped: an fd of ours keeps what is counted until it was looked at.

A program is let go once nobody else holds it any more, a moment after it would have been gone.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from bpftrace_sys.record.capture.run_stats import RunStats
from bpftrace_sys.record.machine import bpf

if TYPE_CHECKING:
    from decoders.raw import RawCall

ROOM: Final = 256
"""fds that are left for all else."""


class HeldRuns(RunStats):
    """``holders``: how many hold the program of an fd of ours."""

    def __init__(self, holders: Callable[[int], int], newest: int) -> None:
        """``newest``: the highest id of a program that was there before."""
        super().__init__()
        self._holders = holders
        self._newest = newest
        self._fds: dict[int, int] = {}
        self._most = max(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - ROOM)

    def add(self, prog_id: int) -> None:
        if len(self._fds) < self._most and prog_id not in self._fds:
            with suppress(OSError):  # it is gone
                self._fds[prog_id] = bpf.fd_by_id("prog", prog_id)
        super().add(prog_id)
        if prog_id > self._newest:
            # It may have run before we came to look.
            self._before.pop(prog_id, None)

    def call(self, raw: RawCall) -> None:
        """A call that succeeded: which programs there are."""
        for fact in raw.fds:
            if fact.kind == "prog" and fact.id is not None:
                self.add(fact.id)

    def look(self, pause: float = 0) -> None:
        if self.due(pause):
            super().look()
            for prog_id, fd in list(self._fds.items()):
                if self._holders(fd) == 1:
                    # What it ran between the two looks, whoever let it go.
                    self.runs(prog_id)
                    os.close(self._fds.pop(prog_id))

    def finish(self) -> None:
        for prog_id in self._fds:
            self.runs(prog_id)
        self._let_go()

    def close(self) -> None:
        self._let_go()
        super().close()

    def _let_go(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
