"""Names that only the machine of the trace knows: what a fact is, and those that a trace holds."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from bpftrace_sys.trace.header import Header

PASSING: Final = 4_096
"""Facts about single calls that are remembered."""


NAME_LIMIT: Final = 4_096
"""Letters of a name, which may stand in any number of calls."""
TEXT_LIMIT: Final = 64 << 10
"""Letters of another answer (a declaration, a format), which is told once."""
LONG: Final = {"standing": 2 << 20}
"""Letters of answers that list much: all places of a program."""
NAMES: Final = frozenset(
    {
        *("tracepoint", "device", "btf_vmlinux", "ksym", "bpf_call", "prog", "map", "link", "btf"),
        *("iter_target", "usym", "named", "func_of", "module_type", "enum"),
    }
)
"""Kinds, or their first words, whose answers are names."""
KEPT: Final = 32 << 20
"""Bytes of answers that are remembered, live and in replay; the oldest go first."""
OVERHEAD: Final = 256
"""What an answer counts for besides its letters: so much a dict takes for it."""


def too_long(kind: str, answer: str) -> bool:
    """Whether an answer is longer than any that we record."""
    word = kind.partition(" ")[0]
    limit = NAME_LIMIT if word in NAMES else LONG.get(word, TEXT_LIMIT)
    return len(answer) > limit


class Answers(OrderedDict[tuple[str, int], "str | None"]):
    """Answers by question (kind and key), as many as KEPT allows.

    Who makes calls decides what is asked: a program of a million instructions may name as many
    types. What was forgotten is asked again, and recorded again: so replay, which hears of fewer
    questions, forgets no sooner.
    """

    def __init__(self) -> None:
        super().__init__()
        self._size = 0

    def learn(self, question: tuple[str, int], answer: str | None) -> None:
        """Takes an answer, and forgets the oldest where there are too many."""
        self.forget(question)
        self[question] = answer
        self._size += _room(question, answer)
        while self._size > KEPT:
            self.forget(next(iter(self)))

    def forget(self, question: tuple[str, int]) -> None:
        """An answer that nobody asks for any more, if it is there."""
        if question in self:
            self._size -= _room(question, self.pop(question))


def _room(question: tuple[str, int], answer: str | None) -> int:
    return OVERHEAD + len(question[0]) + len(answer or "")


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
        self.known = Answers()
        self._passing: deque[tuple[str, int]] = deque()

    @classmethod
    def of(cls, header: Header) -> RecordedFacts:
        """With what a trace's header says of its machine."""
        return cls({number: name for name, number in header.pmu_types.items()}, header.cpus)

    def learn(self, kind: str, key: int, name: str) -> None:
        """Takes a fact from the trace."""
        self.known.learn((kind, key), name)
        if key and kind.startswith("why "):
            # About one call only: no later one asks for it.
            self._passing.append((kind, key))
            if len(self._passing) > PASSING:
                self.known.forget(self._passing.popleft())

    def fact(self, kind: str, key: int) -> str | None:
        return self.pmus.get(key) if kind == "pmu" else self.known.get((kind, key))

    def newer(self, enum: str, value: int) -> str | None:
        return self.known.get((f"enum {enum}", value))
