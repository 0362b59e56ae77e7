"""What a ptrace stop yields and a trace file stores.

Live tracing fills these in; replay reads them back; everything after this
module cannot tell the two apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

ENTRY: Final = 0
EXIT: Final = 1

AUDIT_ARCH_X86_64: Final = 0xC000003E  # include/uapi/linux/audit.h
AUDIT_ARCH_I386: Final = 0x40000003
AUDIT_ARCH_AARCH64: Final = 0xC00000B7


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
        value = self.info.get(f"{self.kind}_id")
        return value if isinstance(value, int) else None


@dataclass(slots=True)
class RawCall:
    """One system call, as it was seen, with nothing interpreted."""

    seq: int
    """Counts the calls of a trace from 1, in the order of their entries."""
    time: int
    """Nanoseconds since the epoch at the entry."""
    pid: int
    tid: int
    comm: str
    arch: int
    """AUDIT_ARCH_* of this very call (an x86-64 process may make i386 calls)."""
    nr: int
    args: tuple[int, ...]
    """The six argument registers, unsigned, as wide as the architecture's."""
    ret: int | None = None
    """Signed return value (-errno on failure); None: never returned, or its
    exit was not watched."""
    failed: bool = False
    duration: int | None = None
    """Nanoseconds between the stops at entry and exit."""
    chunks: list[Chunk] = field(default_factory=list)
    fds: list[FdFact] = field(default_factory=list)
    watched_exit: bool = True
    """False where the tracer let the call go without waiting for its result."""
    extra: dict[str, object] = field(default_factory=dict)
    """Further recorded facts of this call (an openat's file content read ...)."""
