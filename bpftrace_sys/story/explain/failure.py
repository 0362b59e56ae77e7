"""A failed call with what may explain it: what every row of the table gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bpftrace_sys.story.explain.wording import decimal
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import NotedCall, text_of
from bpftrace_sys.trace.facts import Facts
from decoders.call import inner_value
from decoders.raw import ENTRY

ENOTSUPP: Final = 524
PAGE: Final = 4096
NONE: Final = "-"
ABOUT_PATHS: Final = frozenset({"path", "file_size", "file_system"})
"""Questions whose argument is a path of the caller's."""
ANY: Final = "*"
ANY_ERRNO: Final = 0
"""Looked at when the rows of the error itself say nothing."""


class Failure:
    """A failed call with what may explain it; what a row gets."""

    def __init__(self, call: NotedCall, model: Model, facts: Facts) -> None:
        self.call = call
        self.model = model
        self.facts = facts
        self.errno = -(call.raw.ret or 0)
        self.command = call.command.removesuffix("|BPF_COMMON_ATTRS")
        self.unlooked: list[str] = []
        """Paths that nobody looked at, and why not, in lines."""

    def number(self, *path: str) -> int:
        """A field below attr, 0 where it is not there."""
        return self.call.number("attr", *path) or 0

    def text(self, *path: str) -> str:
        """A string below attr."""
        return text_of(self.call.attr("attr", *path))

    def name(self, *path: str) -> str:
        """The name of an enum's value below attr; empty where no table has it."""
        return getattr(inner_value(self.call.attr("attr", *path)), "name", None) or ""

    def fact(self, question: str, key: int = 0) -> str | None:
        """What the machine of the trace answers; ``key`` is 0 for what does not change."""
        return self.facts.fact(f"why {question}", key)

    def now(self, question: str) -> str | None:
        """The same for what may change from call to call."""
        self.call.notes.momentary = True
        answer = self.fact(question, self.call.raw.seq)
        word, _, path = question.partition(" ")
        if answer is None and word in ABOUT_PATHS:
            why = self.fact(f"unlooked {path}", self.call.raw.seq)
            if why is not None:
                self.unlooked.append(f"{path} was not looked at: {why}")
        return answer

    def sysctl(self, name: str) -> int | None:
        """A number below /proc/sys, as it was when the call had failed."""
        answer = self.now(f"sysctl {name}") or ""
        number = decimal(answer.removeprefix("-"))
        return -number if number is not None and answer.startswith("-") else number

    def lacks(self, capability: int) -> bool | None:
        """Whether the caller had a capability not; None if that was not seen."""
        cred = self.call.raw.extra.cred
        if cred is None or cred.eff is None:
            return None
        try:
            return not int(cred.eff, 16) >> capability & 1
        except ValueError:
            return None

    @property
    def foreign(self) -> bool:
        """Whether the caller was in a user namespace of its own."""
        cred = self.call.raw.extra.cred
        return cred is not None and cred.userns is not None

    @property
    def attr(self) -> bytes:
        """The bytes of the attr, as passed."""
        index = 0 if self.call.syscall.name == "perf_event_open" else 1
        addr = self.call.raw.args[index]
        pieces = [
            chunk.data
            for chunk in self.call.raw.chunks
            if chunk.stage == ENTRY and chunk.addr == addr
        ]
        return max(pieces, key=len, default=b"")


Explainer = Callable[[Failure], "list[str]"]


def kind_of(failure: Failure, field: str, prefix: str) -> str:
    """The name of a type in a field, without its prefix; empty where no table has it."""
    return failure.name(field).removeprefix(prefix)
