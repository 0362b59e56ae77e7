"""Redacting while tracing: what was captured has stand-ins before anything is told of it.

A Redaction stands between the recorder and the pipeline. It decodes each call as it was, asking
this machine; the pipeline gets what is left, and may ask only what tells nothing: so no output
holds more than the trace that ``bpfstrace redact`` makes of a recorded one.
"""

from __future__ import annotations

from collections.abc import Callable

from bpftrace_sys.export.redaction import Redaction
from bpftrace_sys.trace.facts import Facts, RecordedFacts
from bpftrace_sys.trace.header import Header
from bpftrace_sys.trace.items import Fact, Take, Taken
from decoders.loop_calls import Rounds


class LiveRedaction:
    """``live`` answers for this machine; ``hidden``: of CLASSES, what has stand-ins."""

    def __init__(self, live: Facts, hidden: frozenset[str]) -> None:
        self._redaction = Redaction(live, hidden)
        self.facts = AllowedFacts(live, self._redaction)
        """For the pipeline."""

    def header(self, header: Header) -> Header:
        """What the outputs get for a header."""
        return self._redaction.header(header)

    def before(self, take: Take) -> Take:
        """What takes items as they were captured, and hands on what is left of them."""

        def taking(item: Taken) -> None:
            # Rounds of a loop are calls like any other here: each has values of its own.
            for each in item.calls() if isinstance(item, Rounds) else (item,):
                left = self._redaction.live(each)
                if left is not None:
                    take(left)

        return taking

    def recording(self, record: Callable[[str, int, str], None]) -> Callable[[str, int, str], None]:
        """What is told of each answer of the machine's, and records what may stay."""

        def recorded(kind: str, key: int, name: str) -> None:
            left = self._redaction.fact(Fact(kind, key, name))
            if left is not None:
                self.facts.learn(left.kind, left.key, left.name)
                record(left.kind, left.key, left.name)

        return recorded


class AllowedFacts(RecordedFacts):
    """The machine, for whom sees stand-ins: what would name anything is not asked."""

    def __init__(self, live: Facts, redaction: Redaction) -> None:
        super().__init__(live.pmus, live.cpus)
        self._live = live
        self._redaction = redaction

    def fact(self, kind: str, key: int) -> str | None:
        if kind == "pmu" or self._redaction.tells_nothing(kind):
            found = self._live.fact(kind, key)
            return None if found is None else self._redaction.answer(kind, found)
        return super().fact(kind, key)

    def newer(self, enum: str, value: int) -> str | None:
        return self._live.newer(enum, value)

    def concerning(self, pid: int) -> None:
        self._live.concerning(pid)

    def have_patience(self, seconds: float) -> None:
        self._live.have_patience(seconds)
