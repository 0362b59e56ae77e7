"""Names that only the machine of the trace knows: what a fact is, and those that a trace holds."""

from __future__ import annotations

from collections import deque
from typing import Final

from bpftrace_sys.trace.header import Header

PASSING: Final = 4_096
"""Facts about single calls that are remembered."""


class Facts:
    """What the machine of a trace knew: asked now (LiveFacts), or as the trace recorded it."""

    def __init__(self, pmus: dict[int, str], cpus: int) -> None:
        self.pmus = pmus
        """The kinds of perf events that the machine has, by their numbers."""
        self.cpus = cpus
        """How many CPUs it may have: a value of a per-CPU map has a part for each."""

    def fact(self, kind: str, key: int) -> str | None:
        """The answer to a question; None where there is none.  live_facts.py lists the kinds."""
        return None

    def newer(self, enum: str, value: int) -> str | None:
        """The name of an enum's value in that kernel's BTF, where our tables lack it."""
        return None

    def concerning(self, pid: int) -> None:
        """What is asked from now on is asked of this process: names count in its namespaces."""

    def have_patience(self, seconds: float) -> None:
        """Objects that nothing seems to hold may take so long, in all, to go."""


class RecordedFacts(Facts):
    """What a trace file says.  Also records again, for a trace written from it."""

    def __init__(self, pmus: dict[int, str], cpus: int) -> None:
        super().__init__(pmus, cpus)
        self.known: dict[tuple[str, int], str] = {}
        """By kind and key."""
        self._passing: deque[tuple[str, int]] = deque()

    @classmethod
    def of(cls, header: Header) -> RecordedFacts:
        """With what a trace's header says of its machine."""
        return cls({number: name for name, number in header.pmu_types.items()}, header.cpus)

    def learn(self, kind: str, key: int, name: str) -> None:
        """Takes a fact from the trace."""
        self.known[(kind, key)] = name
        if key and kind.startswith("why "):
            # About one call only: no later one asks for it.
            self._passing.append((kind, key))
            if len(self._passing) > PASSING:
                self.known.pop(self._passing.popleft(), None)

    def fact(self, kind: str, key: int) -> str | None:
        return self.pmus.get(key) if kind == "pmu" else self.known.get((kind, key))

    def newer(self, enum: str, value: int) -> str | None:
        return self.known.get((f"enum {enum}", value))
