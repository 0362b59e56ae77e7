"""Entries: a call, or an attachment, by its meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bpftrace_sys.compare.canonical.objects import Known
from bpftrace_sys.compare.canonical.processes import Process
from bpftrace_sys.story.objects import Notes
from decoders.commands import COLLECTS, WALKS
from decoders.records import NamedTuple, dataclass, field

LOADS: Final = {
    "BPF_PROG_LOAD": "prog",
    "BPF_MAP_CREATE": "map",
    "BPF_BTF_LOAD": "btf",
}
"""Commands that make what a trace is about, and the kind of it."""


class Line(NamedTuple):
    """An instruction: its text without fds and ids; where it jumps to, by index."""

    pc: int
    text: str
    jump: int | None
    """The pc that a jump or call of a subprogram leads to; its text has none then."""
    source: str | None
    function: str | None


class Block(NamedTuple):
    """A field of several lines: a log, a BTF's declarations."""

    name: str
    lines: tuple[str, ...]


@dataclass(slots=True)
class Entry:
    """A call by its meaning."""

    process: Process
    syscall: str
    command: str
    result: str
    failed: bool
    fields: list[tuple[str, str]] = field(default_factory=list)
    """Paths below the arguments, without ``attr.``; values on one line."""
    blocks: list[Block] = field(default_factory=list)
    insns: tuple[Line, ...] | None = None
    """Those that are shown; if there are more, the last line stands for the rest."""
    rest: int = 0
    """How many instructions that last line stands for, or slots."""
    missing: int = 0
    """Instructions that could not be read."""
    unread: int = 0
    """Those that the kernel would not have read either."""
    tag: str = ""
    subject: int | None = None
    """The object that the call is about."""
    made: int | None = None
    seq: int = 0
    probe: str = ""
    """The feature that it probes for, if it is a probe."""
    reason: str = ""
    """Why it failed, as far as that is known."""
    after: int = 0
    """The number of the attempt before, where this is another one at the same load."""
    tries: str = ""
    """What that attempt had otherwise: ``log_level 0 -> 1``."""
    notes: Notes | None = None
    """Of a call that may turn out to be a probe."""

    @property
    def head(self) -> str:
        """``bpf PROG_LOAD``, ``ioctl PERF_EVENT_IOC_SET_BPF``"""
        command = self.command.removeprefix("BPF_")
        return self.syscall if command == self.syscall else f"{self.syscall} {command}"

    @property
    def count(self) -> int:
        """How many instructions there are."""
        return len(self.insns or ()) + (self.rest - 1 if self.rest else 0)

    @property
    def collects(self) -> bool:
        """Whether it collects what programs wrote."""
        return self.command in COLLECTS


def walks(entry: Entry, objects: Sequence[Known]) -> str:
    """What a call looks at, if that is what the machine has and not what was made here."""
    if entry.command not in WALKS:
        return ""
    if "NEXT_ID" in entry.command:
        return f"ids of {entry.command.split('_')[1].lower()}s"
    number = entry.made if entry.subject is None else entry.subject
    if number is None or objects[number].found:
        return "objects that it did not make"
    return ""


class Tied(NamedTuple):
    """An attachment by its meaning."""

    process: Process
    verb: str
    prog: str
    target: str
    via: str
    roles: tuple[str, ...]


def jump_text(line: Line, index_of: dict[int, int], at: int) -> str:
    """An instruction's text with its target as so many instructions on (+) or back (-)."""
    if line.jump is None:
        return line.text
    to = index_of.get(line.jump)
    if to is None:
        return f"{line.text} nowhere"
    return f"{line.text} {to - at:+d}"


def indexes(lines: Sequence[Line]) -> dict[int, int]:
    """Index of each instruction by its pc."""
    return {line.pc: index for index, line in enumerate(lines)}
