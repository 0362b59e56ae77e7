"""Tells what waits to be told when nothing has come for a while.

A run of feature probes is told when something else follows it; a tracee that
probes and then sleeps would keep its line back.  An alarm ends the wait.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Final

from decoders.events import ProcessEvent
from decoders.raw import RawCall

if TYPE_CHECKING:
    from bpftrace_sys.story.pipeline import Pipeline
    from bpftrace_sys.trace.inventory import ObjectState, Unseen
    from bpftrace_sys.trace.kernel_view import KernelView

PAUSE: Final = 0.5
"""Seconds without a call after which what waits is told."""


class LullAlarm:
    """Stands before a live Pipeline; hand it the items instead."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._busy = False
        self._set = False
        pipeline.waiting = self._wait

    def take(self, item: RawCall | ProcessEvent | KernelView | ObjectState | Unseen) -> None:
        """Hands an item on to the pipeline."""
        self._busy = True
        try:
            self._pipeline.take(item)
        finally:
            self._busy = False

    def _wait(self) -> None:
        if not self._set:
            signal.signal(signal.SIGALRM, self._ring)
            self._set = True
        signal.setitimer(signal.ITIMER_REAL, PAUSE)

    def _ring(self, *_: Any) -> None:
        # The handler runs between two steps of whatever the main thread is at.
        if self._busy:
            signal.setitimer(signal.ITIMER_REAL, PAUSE)
        elif self._pipeline.probes is not None and self._pipeline.probes.recent:
            self._pipeline.lull()
