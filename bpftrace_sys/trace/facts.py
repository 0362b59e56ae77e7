"""Names that only the machine of the trace knows: what a fact is, and those that a trace holds."""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

PASSING: Final = 4_096
"""Facts about single calls that are remembered."""


class Facts(Protocol):
    """See :class:`decoders.decode.Facts`."""

    cpus: int

    def fact(self, kind: str, key: int) -> str | None: ...
    def newer(self, enum: str, value: int) -> str | None: ...


class RecordedFacts:
    """What a trace file says.  Also records again, for a trace written from it."""

    def __init__(self, pmus: dict[int, str], cpus: int) -> None:
        self.pmus = pmus
        self.cpus = cpus
        self.known: dict[tuple[str, int], str] = {}
        self._passing: deque[tuple[str, int]] = deque()

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
