"""Tells what waits to be told when nothing has come for a while.

A run of feature probes, a walk, what is attached to the events of several CPUs are told when
something else follows them; a tracee that then sleeps would keep their line back.  An alarm
ends the wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from bpftrace_sys.common.light import signal

if TYPE_CHECKING:
    from bpftrace_sys.story.pipeline import Pipeline
    from bpftrace_sys.trace.items import Take, Taken

PAUSE: Final = 0.5
"""Seconds without a call after which what waits is told: after these, before twice as many."""


class LullAlarm:
    """Stands before a live Pipeline; hand it the items instead."""

    def __init__(self, pipeline: Pipeline, take: Take | None = None) -> None:
        """``take``: what hands items to the pipeline, if it does not take them itself."""
        self._pipeline = pipeline
        self._take = take or pipeline.take
        self._busy = False
        self._set = False
        self._taken = 0
        self._armed_at: int | None = None
        """How much was taken when the alarm was set; None: it is not set."""
        pipeline.waiting = self._wait

    def take(self, item: Taken) -> None:
        """Hands an item on to the pipeline."""
        self._busy = True
        self._taken += 1
        try:
            self._take(item)
        finally:
            self._busy = False

    def _wait(self) -> None:
        if not self._set:
            signal.signal(signal.SIGALRM, self._ring)
            self._set = True
        # Not again for each call: the alarm looks itself whether others have come.
        if self._armed_at is None:
            self._arm()

    def _arm(self) -> None:
        self._armed_at = self._taken
        signal.setitimer(signal.ITIMER_REAL, PAUSE)

    def _ring(self, *_: Any) -> None:
        # The handler runs between two steps of whatever the main thread is at.
        if self._busy or self._armed_at != self._taken:
            self._arm()
            return
        self._armed_at = None
        if self._pipeline.waits():
            self._pipeline.lull()
