"""What happens to processes between their calls, and how a trace ends."""

from __future__ import annotations

from decoders.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias


class Fork(NamedTuple):
    """A process or thread began."""

    child: int
    """The new process; of a thread the one it belongs to."""
    child_tid: int
    how: str = ""
    """fork, vfork, clone or thread; empty where the trace does not say."""


class Exec(NamedTuple):
    """A process runs another program from here on."""

    former_tid: int | None = None
    """The thread that asked for it, where that was not the first: it has the first's id now."""
    path: str = ""
    """The program's file; of a script its interpreter's. Empty: not known."""
    argv: tuple[str, ...] | None = None
    """Its arguments, the first 512 bytes of them."""
    uid: int | None = None
    cgroup: str | None = None
    cgroup_id: int | None = None
    """The inode of its cgroup in cgroup2; the eBPF engine sees it."""


class Exit(NamedTuple):
    """A thread ended: with a code, or by a signal."""

    code: int | None = None
    signal: int | None = None
    core: bool = False
    """A core was dumped."""


class Signal(NamedTuple):
    """A signal is on its way to a thread, or stops it; seen where that is asked for."""

    signal: int
    info: str = ""
    """The first 48 bytes of its siginfo_t, in hex; empty where it stops."""
    stopped: bool = False
    """The thread stands still because of it: a group-stop."""


class Who(NamedTuple):
    """Who a process is that asks something of BPF for the first time (bpfstrace -a)."""

    comm: str | None = None
    argv: tuple[str, ...] | None = None
    uid: int | None = None
    parent: int | None = None
    cgroup_id: int | None = None
    """The inode of its cgroup in cgroup2."""
    exe: str | None = None
    cgroup: str | None = None
    container: str | None = None


class Lost(NamedTuple):
    """What never arrived, because the ring was full."""

    calls: int = 0
    pieces: int = 0
    """Of memory, of calls that did arrive."""
    events: int = 0

    def __bool__(self) -> bool:
        """Whether something was lost."""
        return self != (0, 0, 0)

    def since(self, before: Lost) -> Lost:
        """What was lost more than before."""
        return Lost(*(now - then for now, then in zip(self, before, strict=True)))

    def plus(self, more: Lost) -> Lost:
        """Both together."""
        return Lost(*(one + other for one, other in zip(self, more, strict=True)))


class LeftAlone(NamedTuple):
    """What traced programs have started that was not traced, without -f."""

    processes: int = 0
    """Those that traced ones have started, not what these started in turn."""
    threads: int = 0
    calls: int | None = None
    """Of bpf(2), which all of them made; None: nobody looked."""

    def __bool__(self) -> bool:
        """Whether there is something to say."""
        return bool(self.processes or self.threads)

    def plus(self, more: LeftAlone) -> LeftAlone:
        """Both together, where nobody looks."""
        return LeftAlone(self.processes + more.processes, self.threads + more.threads)


class Ending(NamedTuple):
    """How a trace ended that is whole."""

    code: int | None = None
    """The program's exit code."""
    signal: int | None = None
    """That which killed the program."""
    error: str = ""
    """Why it could not be traced, or not to its end."""
    lost: Lost | None = None
    """In all, of a watch."""
    rotated: bool = False
    """The trace goes on in the next file."""
    left_alone: LeftAlone | None = None


class Other(NamedTuple):
    """What a trace of a newer bpfstrace tells of, as it stands there."""

    name: str
    fields: Mapping[str, object]


What: TypeAlias = Fork | Exec | Exit | Signal | Who | Lost | Other


class ProcessEvent(NamedTuple):
    """Something that happened to a process, or to the trace of all of them."""

    what: What
    time: int
    """Nanoseconds since the epoch."""
    pid: int
    tid: int

    @property
    def ends_process(self) -> bool:
        """Whether the process is no more, and not only a thread of it."""
        return self.tid == self.pid and isinstance(self.what, Exit)


NAMES: dict[type[What], str] = {
    Fork: "fork", Exec: "exec", Exit: "exit", Signal: "signal", Who: "who", Lost: "lost",
}  # fmt: skip


def event_name(what: What) -> str:
    """The word of a trace's line: fork, exec, exit, signal, who, lost, or what stood there."""
    return what.name if isinstance(what, Other) else NAMES[type(what)]
