"""A trace read bit by bit, so that what is there can be looked at meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import IO, Final

from bpftrace_sys.story.pipeline import Pipeline
from bpftrace_sys.story.whole_trace import fed
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.header import Header
from bpftrace_sys.trace.items import Item, TraceError
from bpftrace_sys.tui.book import Book

CLOCK: Final = 16
"""Items between two looks at the clock."""


class Reading:
    """Feeds a trace to a :class:`Book`, as much of it at a time as is asked for."""

    def __init__(self, header: Header, items: Iterable[Item], position: IO[bytes] | None) -> None:
        facts = RecordedFacts.of(header)
        self.pipeline = Pipeline(facts)
        self.book = Book(self.pipeline.model)
        self.faults: list[str] = []
        """What went wrong in us, in words."""
        self.pipeline.faults.report = self.faults.append
        self.pipeline.renderers = [self.book]
        self.pipeline.header(header)
        self.damage = ""
        """Why it could not be read to its end."""
        self.done = False
        """There is no more to read."""
        self._facts = facts
        self._position = position
        self._steps = self._fed(items)

    def _fed(self, items: Iterable[Item]) -> Iterator[None]:
        return fed(items, self.pipeline, self._facts)

    def read(self, seconds: float) -> bool:
        """Reads for so long at most; whether anything was read."""
        if self.done:
            return False
        until = time.monotonic() + seconds
        count = 0
        try:
            for _ in self._steps:
                count += 1
                if count % CLOCK == 0 and time.monotonic() >= until:
                    return True
        except TraceError as error:
            self.damage = str(error)
            self.pipeline.cut()
        self.done = True
        return True

    @property
    def part(self) -> float | None:
        """How much of the file was read, from 0 to 1; None: that is not known."""
        if self._position is None:
            return None
        try:
            size = os.fstat(self._position.fileno()).st_size
            return min(self._position.tell() / size, 1.0) if size else None
        except (OSError, ValueError):
            return None
