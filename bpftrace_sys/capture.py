"""From ptrace stops to RawCalls.

In a stop this only copies: argument registers, the memory that the declaration
of the call says is worth having, and what the fds are.  Everything else waits
in a queue until no tracee waits for us.
"""

from __future__ import annotations

import errno
import re
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from bpftrace_sys.engine import StopFilter, Tracee
from bpftrace_sys.evidence import credentials
from bpftrace_sys.fd_facts import FdLookup
from bpftrace_sys.live_memory import LiveMemory
from decoders.events import ProcessEvent
from decoders.raw import ENTRY, EXIT, Chunk, FdFact, RawCall
from decoders.uapi import const
from decoders.uapi.system import so_filter

SOL_SOCKET: Final = 1
INTERESTING: Final = re.compile(
    rb"/sys/(?:bus/event_source/|devices/[^/]+/type$|kernel/(?:tracing|debug/|btf)"
    rb"|fs/(?:bpf|cgroup))"
    rb"|/proc/(?:kallsyms|sys/(?:kernel/(?:perf_|unprivileged_bpf|kptr_)|net/core/bpf_))"
    rb"|/boot/vmlinux|/usr/lib/debug/.*vmlinux|/lib/modules/[^/]+/(?:build/)?vmlinux"
)
"""Paths that belong to BPF's story."""
REFUSED: Final = frozenset({errno.EPERM, errno.EACCES})
"""Errors that may be a matter of capabilities."""
DEFINING: Final = re.compile(
    rb"/sys/kernel/(?:debug/)?tracing/(?:kprobe|uprobe|dynamic|synthetic)_events(?:\0|$)"
)
"""Files of tracefs that define probes by what is written to them."""
WATCHED: Final = StopFilter({"write": None, "close": None})


class Recorder:
    """Live memory that remembers what was read, as Chunks."""

    __slots__ = ("_memory", "_stage", "chunks")

    def __init__(self, memory: LiveMemory, stage: int, chunks: list[Chunk]) -> None:
        self._memory = memory
        self._stage = stage
        self.chunks = chunks

    def read(self, addr: int, size: int) -> bytes:
        data = self._memory.read(addr, size)
        self.chunks.append(Chunk(self._stage, addr, data, size))
        return data

    def cstr(self, addr: int, limit: int) -> tuple[bytes, bool]:
        data = self._memory.cstr(addr, limit)
        # Our copy ends with the NUL where there is one, so that replay knows it.
        ended = len(data) < limit and self._memory.read(addr + len(data), 1) == b"\0"
        kept = data + b"\0" if ended else data
        wanted = len(kept) if ended else limit
        self.chunks.append(Chunk(self._stage, addr, kept, wanted))
        return data, ended


class _Env:
    """The world around a live call: records what it answers."""

    __slots__ = ("_lookup", "_pmus", "_raw", "arch", "cpus", "ret", "stage")

    def __init__(self, raw: RawCall, lookup: FdLookup, pmus: dict[int, str], cpus: int) -> None:
        self._raw = raw
        self._lookup = lookup
        self._pmus = pmus
        self.cpus = cpus
        self.arch = raw.arch
        self.ret: int | None = None
        self.stage = ENTRY

    def fd(self, fd: int) -> FdFact | None:
        for fact in self._raw.fds:
            if fact.fd == fd and fact.stage == self.stage:
                return fact
        found = self._lookup.fact(self._raw.tid, fd, self.stage)
        if found is not None:
            self._raw.fds.append(found)
        return found

    def fact(self, kind: str, key: int) -> str | None:
        return self._pmus.get(key) if kind == "pmu" else None

    def newer(self, enum: str, value: int) -> str | None:
        return None


class Capture:
    """The engine's sink.

    ``take`` gets each item of the trace in order: RawCalls as they complete,
    and ProcessEvents.  ``explicit``: calls that are kept even where they are
    none of BPF's story.
    """

    def __init__(
        self,
        take: Callable[[RawCall | ProcessEvent], None],
        *,
        pmus: dict[int, str],
        cpus: int,
        explicit: frozenset[str] = frozenset(),
        notes: Callable[[str], None] | None = None,
    ) -> None:
        self._take = take
        self._pmus = pmus
        self._cpus = cpus
        self._explicit = explicit
        self.watch: Callable[[Tracee, StopFilter | None], None] | None = None
        """Engine.watch, where there is an engine."""
        self._defining: dict[int, int] = {}
        """Thread -> the fd through which it defines probes in tracefs."""
        self._notes = notes
        self._lookup = FdLookup()
        self._pending: dict[int, tuple[RawCall, Any, Any, Any]] = {}
        self._queue: deque[RawCall | ProcessEvent] = deque()
        self._seq = 0
        self.main_pid = 0

    # ------------------------------------------------------------ calls

    def entry(
        self, tracee: Tracee, arch: int, nr: int, args: tuple[int, ...], time_ns: int
    ) -> bool:
        from decoders import follow as walk
        from decoders.declare import layout_of
        from decoders.syscalls import ARGS_SIZE, pack_args, syscall_of

        syscall = syscall_of(arch, nr)
        raw = RawCall(0, time_ns, tracee.pid, tracee.tid, "", arch, nr, tuple(args))
        env = _Env(raw, self._lookup, self._pmus, self._cpus)
        view = walk.View(layout_of(syscall.args), pack_args(raw.args), ARGS_SIZE, None, env)
        memory = Recorder(tracee.memory, ENTRY, raw.chunks)
        node = walk.follow(syscall.args, view, memory, ENTRY)
        if syscall.name not in self._explicit and not self._wanted(syscall.name, raw, view):
            return False
        self._seq += 1
        raw.seq = self._seq
        raw.comm = tracee.comm
        self._pending[tracee.tid] = (raw, env, node, syscall)
        return True

    def _wanted(self, name: str, raw: RawCall, view: Any) -> bool:
        """Whether a call belongs to BPF's story."""
        if name == "openat":
            return any(INTERESTING.match(chunk.data) for chunk in raw.chunks)
        if name == "setsockopt":
            return bool(view["level"] == SOL_SOCKET and view["optname"] in so_filter)
        if name in ("write", "close"):
            return bool(self._defining.get(raw.tid) == view["fd"])
        return True

    def _watch(self, tracee: Tracee, raw: RawCall, name: str, view: Any) -> None:
        """From the open of a file that defines probes to its close, see what is written."""
        if self.watch is None:
            return
        if name == "openat" and not raw.failed and view["flags"] & const.O_ACCMODE:
            if any(DEFINING.match(chunk.data) for chunk in raw.chunks) and raw.ret is not None:
                self._defining[raw.tid] = raw.ret
                self.watch(tracee, WATCHED)
        elif name == "close" and self._defining.get(raw.tid) == view["fd"]:
            del self._defining[raw.tid]
            self.watch(tracee, None)

    def exit(self, tracee: Tracee, ret: int, failed: bool, time_ns: int) -> None:
        from decoders import follow as walk

        pending = self._pending.pop(tracee.tid, None)
        if pending is None:
            return
        raw, env, node, syscall = pending
        raw.ret, raw.failed = ret, failed
        raw.duration = time_ns - raw.time
        env.stage, env.ret = EXIT, ret
        memory = Recorder(tracee.memory, EXIT, raw.chunks)
        walk.follow(syscall.args, node.view, memory, EXIT, failed, node)
        if not failed and syscall.returns_fd(node.view):
            env.fd(ret)
        elif failed and -ret in REFUSED:
            # Asked now, for the thread may drop its capabilities, or end.
            raw.extra["cred"] = credentials(tracee.tid)
        self._watch(tracee, raw, syscall.name, node.view)
        self._queue.append(raw)

    def idle(self) -> bool:
        queue = self._queue
        for _ in range(16):
            if not queue:
                return False
            self._take(queue.popleft())
        return bool(queue)

    def drain(self) -> None:
        """Hands over everything that waits, and the calls that never returned."""
        while self._queue:
            self._take(self._queue.popleft())
        for tid in sorted(self._pending):
            raw, *_ = self._pending.pop(tid)
            self._take(raw)
        self._lookup.close()

    # ------------------------------------------------------------ processes

    def forked(self, parent: Tracee, child_tid: int, child_pid: int, how: str) -> None:
        self._event(parent, "fork", {"child": child_pid, "child_tid": child_tid, "how": how})

    def execed(self, tracee: Tracee) -> None:
        former = getattr(tracee, "former_tid", tracee.tid)
        self._unfinished(former)
        self._event(tracee, "exec", {"former_tid": former} if former != tracee.tid else {})

    def exited(
        self, tracee: Tracee, code: int | None, signal: int | None, core: bool
    ) -> None:
        self._unfinished(tracee.tid)
        self._lookup.forget(tracee.tid)
        details: dict[str, Any] = {}
        if code is not None:
            details["code"] = code
        if signal is not None:
            details["signal"] = signal
            if core:
                details["core"] = True
        self._event(tracee, "exit", details)

    def _unfinished(self, tid: int) -> None:
        pending = self._pending.pop(tid, None)
        if pending is not None:
            self._queue.append(pending[0])

    def _event(self, tracee: Tracee, what: str, details: dict[str, Any]) -> None:
        import time

        self._queue.append(
            ProcessEvent(what, time.time_ns(), tracee.pid, tracee.tid, details)
        )

    def note(self, tracee: Tracee | None, text: str) -> None:
        if self._notes is not None:
            self._notes(text if tracee is None else f"[{tracee.tid}] {text}")


