"""What a ptrace stop yields and a trace file stores.

Live tracing fills these in; replay reads them back; everything after this
module cannot tell the two apart.
"""

from __future__ import annotations

from decoders.arch import AUDIT_ARCH_AARCH64 as AUDIT_ARCH_AARCH64
from decoders.arch import AUDIT_ARCH_I386 as AUDIT_ARCH_I386
from decoders.arch import AUDIT_ARCH_X86_64 as AUDIT_ARCH_X86_64
from decoders.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from decoders.stack import Stack

ENTRY: Final = 0
EXIT: Final = 1


class Chunk(NamedTuple):
    """A piece of the tracee's memory, copied in one stop.

    ``data`` is shorter than ``wanted`` where the rest could not be read
    (unmapped, or the process was gone).
    """

    stage: int  # ENTRY or EXIT
    addr: int
    data: bytes
    wanted: int


class FdFact(NamedTuple):
    """What an fd of the tracee was, when it was looked at.

    ``kind`` is one of prog, map, btf, link, perf_event, token, or for all
    other files ``file``; ``info`` holds what /proc/PID/fdinfo and the link in
    /proc/PID/fd say: ids and sizes as int, the rest as str.
    """

    fd: int
    stage: int  # ENTRY or EXIT
    kind: str
    info: dict[str, int | str]

    @property
    def id(self) -> int | None:
        """The kernel's id of a BPF object."""
        return self.number(f"{self.kind}_id")

    def number(self, name: str) -> int | None:
        """What fdinfo says under a name, if that is a number."""
        value = self.info.get(name)
        return value if isinstance(value, int) else None


class Cred(NamedTuple):
    """What counted for permission; None: not seen."""

    uid: int | None = None
    """The effective user id."""
    eff: str | None = None
    """The effective capabilities, in hex (CapEff)."""
    userns: int | None = None
    """The inode of the user namespace, if it was not the first one."""


class Extra(NamedTuple):
    """What was seen of a call besides registers, memory and fds: of most calls nothing."""

    devices: Mapping[int, str] = {}
    """Names of network interfaces, by their numbers in the caller's namespace."""
    xdp_modes: Mapping[int, str] = {}
    """How XDP runs on interfaces after the call: drv, skb, hw or multi; empty where it does not."""
    injected: bool = False
    """The result was injected: the kernel was not asked."""
    as_value: bool = False
    """What was injected is meant as a value, though it may look like an error (retval=-1)."""
    detached: bool = False
    """Its thread was let go of in it: it may return, unseen."""
    cred: Cred | None = None
    """Who called: of a call that was refused for it, or of which it decides what is copied."""
    problem: str | None = None
    """A mistake of ours in copying."""
    lost: int = 0
    """Pieces of memory for which a ring had no room."""
    late: tuple[str, ...] = ()
    """Addresses of pieces that were read at the exit only, and not when the call began."""
    cpu: int | None = None
    """Nanoseconds of CPU time that its process spent in the kernel meanwhile; None: not asked."""
    other: Mapping[str, object] = {}
    """What another version of bpfstrace noted, by its name in the trace."""


NOTHING: Final = Extra()


class RawCall:
    """One system call, as it was seen, with nothing interpreted."""

    __slots__ = (
        "arch", "args", "carried", "chunks", "comm", "duration", "extra", "failed", "fds", "nr",
        "pid", "ret", "seq", "stack", "tid", "time", "watched_exit",
    )  # fmt: skip

    def __init__(
        self,
        seq: int,
        time: int,
        pid: int,
        tid: int,
        comm: str,
        arch: int,
        nr: int,
        args: tuple[int, ...],
        ret: int | None = None,
        failed: bool = False,
        duration: int | None = None,
        chunks: list[Chunk] | None = None,
        fds: list[FdFact] | None = None,
        watched_exit: bool = True,
        extra: Extra = NOTHING,
        stack: Stack | None = None,
        carried: tuple[object, ...] = (),
    ) -> None:
        self.seq = seq
        """Counts the calls of a trace from 1, in the order of their entries."""
        self.time = time
        """Nanoseconds since the epoch at the entry."""
        self.pid = pid
        self.tid = tid
        self.comm = comm
        self.arch = arch
        """AUDIT_ARCH_* of this very call (an x86-64 process may make i386 calls)."""
        self.nr = nr
        self.args = args
        """The six argument registers, unsigned, as wide as the architecture's."""
        self.ret = ret
        """Signed return value (-errno on failure); None: never returned, or its
        exit was not watched."""
        self.failed = failed
        self.duration = duration
        """Nanoseconds between the stops at entry and exit."""
        self.chunks: list[Chunk] = [] if chunks is None else chunks
        self.fds: list[FdFact] = [] if fds is None else fds
        self.watched_exit = watched_exit
        """False where the tracer let the call go without waiting for its result."""
        self.extra = extra
        """Never changed, but put in another's place: most calls share NOTHING."""
        self.stack = stack
        """None: not asked for."""
        self.carried = carried
        """What the recorder makes other parts of the trace of before the call is told: the copy
        of a stack, what became of a program."""

    def replace(self, **changes: Any) -> RawCall:
        """A copy with other values in some fields; lists are shared, not copied."""
        return RawCall(**{name: getattr(self, name) for name in self.__slots__} | changes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RawCall):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RawCall({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"
