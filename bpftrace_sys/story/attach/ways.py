"""What an attachment is: its steps, and the ways in which programs are attached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import NotedCall, Object
from decoders.call import Call

if TYPE_CHECKING:
    from bpftrace_sys.story.context import Given


@dataclass(slots=True)
class Step:
    """A call on the way to an attachment; ``role`` is load, type, event, attach or enable."""

    role: str
    call: NotedCall


@dataclass(slots=True)
class Attachment:
    """A program attached to a target, or detached from one."""

    verb: str
    """attached, enabled, disabled, detached or replaced."""
    prog: Object | None
    target: str
    steps: list[Step] = field(default_factory=list)
    via: str = ""
    event: Object | None = None
    """The perf event, where there is one: an ENABLE may follow."""
    pid: int = 0
    tid: int = 0
    link: Object | None = None
    given: Given | None = None
    """What the program is given there, where that is known."""

    @property
    def seqs(self) -> list[int]:
        """The calls' numbers in the trace."""
        return [step.call.raw.seq for step in self.steps]


@dataclass(slots=True)
class Way:
    """What a row says: program, target, and how."""

    prog: Object | None
    target: str
    via: str = ""
    verb: str = "attached"
    event: Object | None = None
    alone: bool = False
    """The target holds one program: it takes the place of what was there."""
    before: Object | None = None
    """The program whose place it takes, where the call names it."""
    link: Object | None = None


TARGETS: Final = 4_096
"""Targets of a program that are remembered; a loop may put it into a map for ever."""
Row = Callable[[Call, Model], Way | None]
