"""What `bpfstrace check` finds, as records: per trace what it does and what of it is outside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from bpftrace_sys.compare.policy.deeds import (
    KINDS,
    Deed,
    Deeds,
    JudgementError,
    Where,
    deeds_of,
    describe,
)
from bpftrace_sys.compare.policy.lock_file import Lock
from decoders.records import dataclass, field

WITHIN: Final = "within"
OUTSIDE: Final = "outside"
TROUBLE: Final = "trouble"
COUNTED: Final = {
    "program": "program",
    "helper": "helper call",
    "kfunc": "kfunc call",
    "attach": "attach point",
    "map": "map",
    "pin": "pin",
    "open": "opened pin",
}


@dataclass(slots=True)
class Outside:
    """A deed that the lock file does not allow."""

    deed: Deed
    where: Where

    @property
    def text(self) -> str:
        """The deed as a phrase."""
        return describe(self.deed)


@dataclass(slots=True)
class Verdict:
    """A trace held against a lock file."""

    trace: str
    lock: str
    found: dict[Deed, Where] = field(default_factory=dict)
    outside: list[Outside] = field(default_factory=list)
    trouble: str = ""
    """Why the trace proves nothing; empty where it does."""

    @property
    def verdict(self) -> Literal["within", "outside", "trouble"]:
        """WITHIN, OUTSIDE or TROUBLE."""
        return "trouble" if self.trouble else "outside" if self.outside else "within"


def judge(trace: str, lock: Lock, path: str, places: bool = False) -> Verdict:
    """Holds a trace file against a lock; ``path`` is what the lock file is called."""
    made = Verdict(trace, path)
    try:
        made.found = deeds_of(trace, places)
    except JudgementError as error:
        made.trouble = str(error)
        return made
    return _hold(made, lock)


def judge_deeds(deeds: Deeds, lock: Lock, trace: str, path: str) -> Verdict:
    """The same of deeds that were collected already."""
    made = Verdict(trace, path)
    if deeds.trouble:
        made.trouble = deeds.trouble[0]
        return made
    made.found = deeds.found
    return _hold(made, lock)


def _hold(made: Verdict, lock: Lock) -> Verdict:
    wrong = in_order(deed for deed in made.found if not lock.allows(deed))
    made.outside = [Outside(deed, made.found[deed]) for deed in wrong]
    return made


def in_order(deeds: Iterable[Deed]) -> list[Deed]:
    """As they are listed: by kind, program and value."""
    order = list(KINDS)
    return sorted(deeds, key=lambda deed: (order.index(deed.kind), deed.prog, deed.value))


def counted(deeds: Iterable[Deed]) -> str:
    """``2 programs, 1 helper call``."""
    kinds = [deed.kind for deed in deeds]
    told = []
    for kind, word in COUNTED.items():
        count = kinds.count(kind)
        if count:
            told.append(f"{count} {word}{'s' if count > 1 else ''}")
    return ", ".join(told) or "it does nothing with BPF"
