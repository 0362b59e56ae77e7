"""What processes hold when they are attached to: the first lines of a trace with -p."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bpftrace_sys.record import proc
from bpftrace_sys.record.machine.processes import Pass, scan

if TYPE_CHECKING:
    from bpftrace_sys.trace.inventory import ObjectState, Unseen


class Opening:
    """Made before the attach, which may take its time; :meth:`held` after it, while they stand."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = sorted({process_of(pid) for pid in pids})
        self._look: Any = None
        first = self._scan()
        if first.opens:
            self._prepared().places(first)

    def _scan(self) -> Pass:
        return scan(which=self._pids, but=os.getpid(), where=False)

    def _prepared(self) -> Any:
        """What looks, imported where there is something to look at."""
        if self._look is None:
            from bpftrace_sys.record.machine.inventory import Look

            self._look = Look()
        return self._look

    def held(self) -> list[ObjectState | Unseen]:
        """What they have open, and what that leads to; empty where it is nothing of BPF's."""
        seen = self._scan()
        if not seen.opens and not seen.denied:
            return []
        found = self._prepared().held(seen)
        return [*found.objects, *found.unseen]


def process_of(tid: int) -> int:
    """The process of a thread; the number itself where it is gone."""
    try:
        return proc.process_of(tid)
    except (OSError, LookupError, ValueError):
        return tid
