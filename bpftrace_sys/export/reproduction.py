"""A reproduction: the calls of a trace as they can be issued again, in no language yet.

What numbers mean only on the machine of the trace (an fd, an interface's index, the id of
a tracepoint) stands here by what it meant; reproducer_python.py and reproducer_c.py write it.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from decoders.records import dataclass, field

FD: Final = "fd"
"""What is expected of a call that returned an fd: another number does as well."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number that means the same everywhere."""

    value: int


@dataclass(frozen=True, slots=True)
class Chars:
    """Bytes that stand in a struct itself, as its names do."""

    data: bytes


@dataclass(eq=False, slots=True)
class Handle:
    """The fd that an earlier call returned."""

    name: str
    """What the variable is called that holds it."""
    seq: int
    """The call that returned it."""
    thing: str
    """What it is an fd of: ``map 5``; another fd of the same has another Handle."""
    number: int = -1
    """Which fd it was."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What is looked up, or made, where the reproducer runs.

    ``how`` names a function of the runtime: ``device`` (name, kind), ``pmu`` (name),
    ``tracepoint`` (category:name), ``vmlinux_type`` (name, recorded id), ``symbol`` (name,
    recorded address), ``ident`` (a Handle: its object's id), ``mapped`` (the Handle of a perf
    event: with a buffer), ``cgroup`` and ``opened`` (path), ``appended`` (path, to write at
    its end), ``netns``, ``tun`` (name), ``udp_socket``, ``own_pid``.
    """

    how: str
    args: tuple[str | int | Handle, ...] = ()


@dataclass(frozen=True, slots=True)
class Nowhere:
    """An address that led nowhere: the tracee's memory could not be read there."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a buffer: ``size`` bytes at ``offset``."""

    offset: int
    size: int
    value: Value
    note: str = ""
    """What it is, in the words of the trace."""


@dataclass(eq=False, slots=True)
class Buffer:
    """Memory that an argument leads to."""

    name: str
    size: int
    data: bytes = b""
    """What stands there; zeros follow up to ``size``."""
    parts: list[Part] = field(default_factory=list)
    """What is written over ``data``."""
    torn: bool = False
    """Behind ``data`` nothing can be read: the kernel fails there as it did."""
    listing: list[tuple[str, str]] | None = None
    """Of instructions: the bytes of each in hex, and how it reads."""
    path: bool = False
    """A path in bpffs: ``data`` is NUL-terminated, and lies in a bpffs of our own."""
    parents: bool = True
    """The folders on the way to ``path`` were there."""
    mounted: bool = False
    """``path`` was in a bpffs, wherever that is."""
    filled: bool = False
    """The kernel writes here."""


Value: TypeAlias = Number | Chars | Handle | Looked | Nowhere | Buffer


@dataclass(slots=True)
class Issue:
    """A call to be issued."""

    seq: int
    what: str
    """What is issued, in a few words."""
    syscall: str
    arguments: list[Value]
    expected: str | int
    """FD, an errno's name, or the result."""
    about: str = ""
    """Who made it, and what is to be said of it."""
    loose: str = ""
    """Why the result may differ without anything being wrong; empty where it may not."""
    made: Handle | None = None
    returns_fd: bool = False
    """Whether the result is an fd where it succeeds."""
    credentials: tuple[int, int] | None = None
    """(user id, effective capabilities) of who made it; None where the trace notes none."""
    names: list[str] = field(default_factory=list)
    """The notes of ``arguments``."""
    handles: set[Handle] = field(default_factory=set)
    """What it needs."""
    uses: set[str] = field(default_factory=set)
    """Things that it names: objects, pins, files, devices."""
    changes: set[str] = field(default_factory=set)
    """Those of them that are not the same afterwards."""


@dataclass(slots=True)
class Close:
    """An fd was closed by here: its number was given again, or its last process ended."""

    handle: Handle
    why: str


@dataclass(slots=True)
class LeftOut:
    """A call that is not issued, and why."""

    seq: int
    what: str
    why: str


Step: TypeAlias = Issue | Close | LeftOut


@dataclass(slots=True)
class Reproduction:
    """All that a reproducer says and does."""

    title: str
    """What the trace is of: its command line."""
    kernel: str
    machine: str
    steps: list[Step] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """What a reader has to know: threads, 32-bit calls, a trace that is not whole."""

    @property
    def issues(self) -> list[Issue]:
        """The calls that are issued."""
        return [step for step in self.steps if isinstance(step, Issue)]

    @property
    def left_out(self) -> list[LeftOut]:
        """The calls that are not."""
        return [step for step in self.steps if isinstance(step, LeftOut)]
