"""What strace reads of a call and we would not: for --style strace=RELEASE, and for -y.

strace reads a buffer whether or not the kernel has written to it, as many elements as the caller
claims, and tells of fd 0 where a field that is 0 names no fd at all.
"""

from __future__ import annotations

import os

from decoders import arch as arches
from decoders.raw import ENTRY, EXIT, Chunk, FdFact, RawCall
from decoders.records import NamedTuple
from decoders.uapi import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from bpftrace_sys.record.capture.cpu_times import CpuTimes
    from bpftrace_sys.record.machine.fd_details import FdDetails
    from bpftrace_sys.record.machine.fds import FdLookup
    from bpftrace_sys.record.ptrace.memory import LiveMemory

LIMIT: Final = 1 << 20
"""Bytes of a buffer that are read at most."""
PERF_EVENT_IOC_QUERY_BPF: Final = 0xC008240A


class Buffer(NamedTuple):
    """Where a struct says that a buffer is, and how long."""

    stage: int
    pointer: int
    """Offset of the u64 with its address."""
    length: int
    """Offset of the u32 that counts its elements, as of that stage."""
    size: int
    """Bytes of an element."""


BUFFERS: Final[dict[int, tuple[Buffer, ...]]] = {
    const.BPF_LINK_CREATE: (Buffer(ENTRY, 16, 24, 4),),
    const.BPF_PROG_LOAD: (Buffer(ENTRY, 32, 28, 1),),
    const.BPF_TASK_FD_QUERY: (Buffer(EXIT, 16, 12, 1),),
    const.BPF_PROG_STREAM_READ_BY_FD: (Buffer(EXIT, 0, 8, 1),),
    const.BPF_PROG_QUERY: tuple(Buffer(EXIT, at, 24, 4) for at in (16, 32, 40, 48)),
}
"""By command: union bpf_attr of include/uapi/linux/bpf.h. Of LINK_CREATE it is iter_info, of
PROG_LOAD log_buf, of which else only the first bytes are kept as they were."""
UNASKED: Final[dict[int, tuple[int, ...]]] = {
    const.BPF_OBJ_PIN: (16,),
    const.BPF_OBJ_GET: (8, 16),
    const.BPF_TASK_FD_QUERY: (4,),
}
"""By command: offsets of fds (bpf_fd, path_fd) that the walk asks for where a flag
wants them, or never. That of TASK_FD_QUERY is another process's, but strace takes it for one of
the caller's."""


class StraceReads:
    """Reads what strace would have read, in the same stops."""

    def __init__(self, string_limit: int, buffers: bool, fds: frozenset[str]) -> None:
        """``buffers``: of strings the first ``string_limit`` bytes and one, else all elements;
        ``fds``: fd 0 and the working directory, and these details of them (fd_details.py)."""
        self.string_limit = string_limit
        self.buffers = buffers
        self.fds = bool(fds)
        self._details: FdDetails | None = None
        if fds - {"path"}:
            from bpftrace_sys.record.machine.fd_details import FdDetails

            # As strace remembers sockets; else only what cannot change.
            self._details = FdDetails(fds, stale=buffers)
        self.cpu: CpuTimes | None = None
        """-c, -C: what calls cost."""

    def enter(self, raw: RawCall, memory: LiveMemory, lookup: FdLookup) -> None:
        """In the stop of the entry."""
        if self.cpu is not None:
            self.cpu.begins(raw.tid)
        name = arches.name(raw.arch, raw.nr)
        if self.buffers and name == "bpf":
            self._bpf(raw, memory, ENTRY)
        if self.fds and name in ("bpf", "openat"):
            _others(raw, memory, lookup, UNASKED if self.buffers and name == "bpf" else {})
            _folder(raw)
        self._more(raw)

    def _more(self, raw: RawCall) -> None:
        """Details of fds that are no BPF objects. Facts may be shared, and are replaced."""
        if self._details is not None:
            raw.fds[:] = [self._details.of(raw.tid, fact) for fact in raw.fds]

    def leave(self, raw: RawCall, memory: LiveMemory) -> None:
        """In the stop of the exit."""
        if self.cpu is not None:
            self.cpu.ended(raw)
        self._more(raw)
        if not self.buffers:
            return
        name = arches.name(raw.arch, raw.nr)
        if name == "bpf":
            self._bpf(raw, memory, EXIT)
        elif name == "ioctl" and raw.args[1] & 0xFFFFFFFF == PERF_EVENT_IOC_QUERY_BPF:
            count = int.from_bytes(memory.read(raw.args[2] + 4, 4), "little")
            _keep(raw, memory, EXIT, raw.args[2], 8 + 4 * count)

    def _bpf(self, raw: RawCall, memory: LiveMemory, stage: int) -> None:
        size = min(raw.args[2] & 0xFFFFFFFF, 64)
        rows = BUFFERS.get(raw.args[0] & 0xFFFFFFFF, ())
        if not size or not any(row.stage == stage for row in rows):
            return
        attr = memory.read(raw.args[1], size).ljust(64, b"\0")
        for row in rows:
            addr = int.from_bytes(attr[row.pointer : row.pointer + 8], "little")
            count = int.from_bytes(attr[row.length : row.length + 4], "little")
            if row.stage == stage and addr and count:
                most = self.string_limit + 1 if row.size == 1 else LIMIT
                _keep(raw, memory, stage, addr, min(row.size * count, most))


def _keep(raw: RawCall, memory: LiveMemory, stage: int, addr: int, wanted: int) -> None:
    wanted = min(wanted, LIMIT)
    raw.chunks.append(Chunk(stage, addr, memory.read(addr, wanted), wanted))


def _others(
    raw: RawCall, memory: LiveMemory, lookup: FdLookup, more: Mapping[int, tuple[int, ...]]
) -> None:
    """fd 0, and the fds of fields that do not count."""
    numbers = {0}
    for at in more.get(raw.args[0] & 0xFFFFFFFF, ()):
        if at + 4 <= raw.args[2] & 0xFFFFFFFF:
            numbers.add(int.from_bytes(memory.read(raw.args[1] + at, 4), "little"))
    for number in numbers - {fact.fd for fact in raw.fds}:
        fact = lookup.fact(raw.tid, number, ENTRY)
        if fact is not None:
            raw.fds.append(fact)


def _folder(raw: RawCall) -> None:
    try:
        path = os.readlink(f"/proc/{raw.tid}/cwd")
    except OSError:
        return
    raw.fds.append(FdFact(const.AT_FDCWD, ENTRY, "file", {"path": path}))
