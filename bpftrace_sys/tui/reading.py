"""A trace read bit by bit, so that what is there can be looked at meanwhile."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Final

from bpftrace_sys.story.pipeline import Pipeline
from bpftrace_sys.story.whole_trace import fed
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.growing import Growing, begun
from bpftrace_sys.trace.items import Item, TraceError
from bpftrace_sys.trace.reader import Reader
from bpftrace_sys.tui.book import Book

CLOCK: Final = 16
"""Items between two looks at the clock."""


class Reading(ABC):
    """Feeds a trace to a :class:`Book`, as much of it at a time as is asked for."""

    def __init__(self, facts: RecordedFacts) -> None:
        self.pipeline = Pipeline(facts)
        self.book = Book(self.pipeline.model)
        self.faults: list[str] = []
        """What went wrong in us, in words."""
        self.pipeline.faults.report = self.faults.append
        self.pipeline.renderers = [self.book]
        self.damage = ""
        """Why it could not be read to its end."""
        self.done = False
        """There is no more to read."""
        self._facts = facts

    def _fed(self, items: Iterable[Item]) -> Iterator[int]:
        return fed(items, self.pipeline, self._facts)

    @abstractmethod
    def read(self, seconds: float) -> bool:
        """Reads for so long at most; whether anything was read."""

    @property
    def part(self) -> float | None:
        """How much of it was read, from 0 to 1; None: that is not known."""
        return None

    def _some(self, steps: Iterator[int], seconds: float) -> tuple[int, bool]:
        """How many items were read, and whether time was up before they were at an end."""
        until = time.monotonic() + seconds
        count = 0
        try:
            for _ in steps:
                count += 1
                if count % CLOCK == 0 and time.monotonic() >= until:
                    return count, True
        except TraceError as error:
            self._break(error)
        return count, False

    def _break(self, error: TraceError) -> None:
        """It cannot be read on."""
        self.damage = str(error)
        self.done = True
        self.pipeline.cut()


class FileReading(Reading):
    """Of a saved trace."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(RecordedFacts.of(reader.header))
        self.pipeline.header(reader.header)
        self._position = reader.position
        self._steps = self._fed(reader)

    def read(self, seconds: float) -> bool:
        if self.done:
            return False
        _, more = self._some(self._steps, seconds)
        self.done = self.done or not more
        return True

    @property
    def part(self) -> float | None:
        if self._position is None:
            return None
        try:
            size = os.fstat(self._position.fileno()).st_size
            return min(self._position.tell() / size, 1.0) if size else None
        except (OSError, ValueError):
            return None


class LiveReading(Reading):
    """Of a trace that is being written: there may be more each time."""

    def __init__(self, path: str) -> None:
        super().__init__(RecordedFacts({}, os.cpu_count() or 1))
        self._path = path
        self._file: Growing | None = None
        """Once its first line is there: until a call comes that is told, there is nothing."""
        self.over = False
        """Nobody writes any more."""

    def read(self, seconds: float) -> bool:
        if self.done:
            return False
        over = self.over  # looked at before the file: what was written last is read, too
        if self._file is None and begun(self._path):
            try:
                self._begin(Growing(self._path))
            except TraceError as error:
                self._break(error)
                return True
        count, more = 0, False
        if self._file is not None:
            count, more = self._some(self._fed(self._file.ready()), seconds)
        if over and not more and not self.done:
            self._finish()
            return True
        return bool(count)

    def _begin(self, file: Growing) -> None:
        """The header is there, and what it says of the machine."""
        self._file = file
        self._facts.pmus.update(RecordedFacts.of(file.header).pmus)
        self._facts.cpus = file.header.cpus
        self.pipeline.header(file.header)

    def _finish(self) -> None:
        self.done = True
        if self._file is None:
            self.damage = "nothing was traced"
            return
        try:
            self._file.finish()
        except TraceError as error:
            self._break(error)
