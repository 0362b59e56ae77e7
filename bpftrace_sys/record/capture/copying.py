"""What is copied in the two stops of a call: what a walk over its arguments leads to."""

from __future__ import annotations

from bpftrace_sys.record.machine.hardware import Machine
from decoders import arch as arches
from decoders.raw import ENTRY, EXIT, Chunk, RawCall
from decoders.uapi import const
from decoders.walk.follow import Node, args_view, follow
from decoders.walk.measures import command
from decoders.walk.table import WALKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from bpftrace_sys.record.machine.fds import FdLookup
    from bpftrace_sys.record.ptrace.memory import LiveMemory
    from decoders.raw import Cred, FdFact
    from decoders.walk.follow import View

    Ask = Callable[[str, int], str | None]
    """Facts.fact: what the machine calls a number."""
    Who = Callable[[int], Cred]
    """Credentials.of: who a thread is."""

IN_STOP: Final = frozenset({"iter_target", "ops_members"})
"""Facts that decide what is copied, or that are gone with an object that may not last."""
MISTAKES: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a declaration might raise over bytes that nobody thought of."""


SCANNED: Final = 4 << 20
"""Bytes that are looked through at a time for the end of a long log."""


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

    def late(self, addr: int, size: int, limit: int) -> int:
        """The kernel has just written all that is looked through here: a log of some megabytes.

        What begins as it did before the call was not written; a gigabyte of the caller's own
        making must not keep it in its stop.
        """
        if size <= limit:
            return addr
        heads = (chunk.data for chunk in self.chunks if (chunk.stage, chunk.addr) == (ENTRY, addr))
        for head in heads:
            if head[:1].strip(b"\0") and self._memory.read(addr, len(head)) == head:
                return addr
        at = 0
        while at < size:
            wanted = min(SCANNED, size - at)
            data = self._memory.read(addr + at, wanted)
            end = data.find(b"\0")
            at += len(data) if end < 0 else end
            if end >= 0 or len(data) < wanted:
                break
        return addr + max(0, at - limit + 1)


class CallEnv:
    """The world around a live call: records what it answers."""

    __slots__ = ("_ask", "_lookup", "_machine", "_raw", "_who", "arch", "passing", "ret", "stage")

    def __init__(
        self, raw: RawCall, lookup: FdLookup, machine: Machine, ask: Ask, who: Who
    ) -> None:
        self._ask = ask
        self._who = who
        self._raw = raw
        self._lookup = lookup
        self._machine = machine
        self.arch = raw.arch
        self.ret: int | None = None
        self.stage = ENTRY
        self.passing = False
        """Something was asked that may be answered otherwise the next time, and of which the call
        keeps no trace: an fd that is none, an interface that is not there."""

    @property
    def cpus(self) -> int:
        return self._machine.cpus

    def fd(self, fd: int) -> FdFact | None:
        """What an argument is: as it was when the call began, whatever became of it."""
        for fact in self._raw.fds:
            if fact.fd == fd:
                return fact
        return self.made(fd)

    def made(self, fd: int) -> FdFact | None:
        """What an fd is now: one that the call returned."""
        found = self._lookup.fact(self._raw.tid, fd, self.stage)
        if found is not None:
            self._raw.fds.append(found)
        else:
            self.passing = True
        return found

    def fact(self, kind: str, key: int) -> str | None:
        if kind == "pmu":
            return self._machine.pmus.get(key)
        self.passing = True
        if kind == "ifindex":
            return device_name(self._raw, key)
        if kind == "xdp_mode":
            extra = self._raw.extra
            self._raw.extra = extra._replace(xdp_modes={**extra.xdp_modes, key: ""})
            return None
        # Of all else only this decides what is copied; it is asked once a program.
        return self._ask(kind, key) if kind in IN_STOP else None

    def cred(self) -> Cred:
        """Who calls, kept with the call: replay has to come to the same."""
        self.passing = True
        extra = self._raw.extra
        if extra.cred is None:
            extra = self._raw.extra = extra._replace(cred=self._who(self._raw.tid))
        assert extra.cred is not None
        return extra.cred

    def newer(self, enum: str, value: int) -> str | None:
        return None

    def trouble(self, error: Exception) -> None:
        """A mistake of ours must not cost the tracee anything; the call says it."""
        problem = f"{type(error).__name__}: {error}"
        self._raw.extra = self._raw.extra._replace(problem=problem)


def device_name(raw: RawCall, ifindex: int) -> str | None:
    """The name of an interface in the tracee's network namespace, kept with the call."""
    from bpftrace_sys.record.machine.netdev import ifname, in_netns

    devices = raw.extra.devices
    name = devices.get(ifindex)
    if name is None:
        name = in_netns(raw.tid, lambda: ifname(ifindex))
        if name is not None:
            raw.extra = raw.extra._replace(devices={**devices, ifindex: name})
    return name


def xdp_modes(raw: RawCall, name: str) -> None:
    """How XDP runs on the interfaces where a call may have changed that, kept with the call."""
    from bpftrace_sys.record.machine.netdev import in_netns, xdp_mode

    asked = raw.extra.xdp_modes
    if name == "bpf" and raw.args[0] & 0xFFFF == const.BPF_LINK_CREATE:
        asked = raw.extra.devices
    found = {}
    for ifindex in asked:
        found[ifindex] = in_netns(raw.tid, lambda: xdp_mode(ifindex)) or ""  # noqa: B023 - at once
    raw.extra = raw.extra._replace(xdp_modes=found)


class CallCopier:
    """What capture needs of a traced call; made when such a call is first seen."""

    __slots__ = ("_layout", "loops", "name", "returns")

    def __init__(self, arch: int, nr: int) -> None:
        self.name = arches.name(arch, nr) or ""
        self.returns: frozenset[int] | bool
        walk = WALKS.get(self.name)
        if walk is None:
            # One that has to be asked for by name: its declaration as it is decoded by.
            from decoders.declare.structs import layout_of
            from decoders.declare.syscalls import syscall_of

            row = syscall_of(arch, nr)
            walk = (layout_of(row.args), row.returns)
        self._layout, self.returns = walk
        self.loops = self.name == "bpf"

    @staticmethod
    def env(
        raw: RawCall, lookup: FdLookup, machine: Machine, ask: Ask, who: Who
    ) -> CallEnv:
        """The world around a call; ``ask``: Facts.fact, ``who``: Credentials.of."""
        return CallEnv(raw, lookup, machine, ask, who)

    def enter(self, raw: RawCall, memory: LiveMemory, env: CallEnv) -> Node:
        """Copies what the kernel is going to read."""
        view = args_view(self._layout, raw.args, env)
        try:
            return follow(view, Recorder(memory, ENTRY, raw.chunks), ENTRY)
        except MISTAKES as error:
            env.trouble(error)
            return Node(view)

    def again(self, raw: RawCall, env: CallEnv) -> Node:
        """The walk over what was copied at the entry without it: for an exit that needs it."""
        from decoders.walk.memory import Snapshot

        view = args_view(self._layout, raw.args, env)
        try:
            return follow(view, Snapshot(raw.chunks), ENTRY)
        except MISTAKES as error:
            env.trouble(error)
            return Node(view)

    def leave(self, node: Node, raw: RawCall, memory: LiveMemory, env: CallEnv) -> None:
        """Copies what the kernel has written."""
        env.stage, env.ret = EXIT, raw.ret
        try:
            follow(node.view, Recorder(memory, EXIT, raw.chunks), EXIT, raw.failed, node)
        except MISTAKES as error:
            env.trouble(error)

    def returns_fd(self, args: View) -> bool:
        """Whether the result of a call with these arguments is an fd."""
        return self.returns if isinstance(self.returns, bool) else command(args) in self.returns
