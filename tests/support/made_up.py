"""Calls of a tracee that is not there, recorded as live tracing records them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bpftrace_sys.record.capture.copying import CallCopier, CallEnv
from bpftrace_sys.trace.facts import RecordedFacts
from decoders.raw import Cred, FdFact, RawCall
from decoders.values import Array, Changed, Pointer, Struct, Value


class Memory:
    """Memory of a tracee that is not there: regions, and nothing between them."""

    def __init__(self, regions: dict[int, bytes]) -> None:
        self.regions = regions
        self.asked = 0
        self.reads = 0

    def read(self, addr: int, size: int) -> bytes:
        """As LiveMemory.read: what is there, up to the region's end."""
        assert size >= 0
        self.asked = max(self.asked, size)
        self.reads += 1
        for start, data in self.regions.items():
            if start <= addr < start + len(data):
                return data[addr - start : addr - start + size]
        return b""

    def cstr(self, addr: int, limit: int) -> bytes:
        """As LiveMemory.cstr: without its NUL."""
        return self.read(addr, limit).partition(b"\0")[0]


class Lookup:
    """fdinfo of a tracee that is not there."""

    def __init__(self, fds: dict[int, tuple[str, dict[str, Any]]]) -> None:
        self.fds = fds

    def fact(self, tid: int, fd: int, stage: int) -> FdFact | None:
        """As FdLookup.fact."""
        found = self.fds.get(fd)
        return None if found is None else FdFact(fd, stage, *found)


FDS: dict[int, tuple[str, dict[str, Any]]] = {
    3: ("map", {"map_id": 1, "map_type": 1, "key_size": 4, "value_size": 8, "max_entries": 4}),
    4: ("map", {"map_id": 2, "map_type": 6, "key_size": 4, "value_size": 3, "max_entries": 4}),
    5: ("prog", {"prog_id": 7, "prog_type": 26, "prog_tag": "00" * 8}),
    6: ("btf", {"btf_id": 9}),
    7: ("link", {"link_id": 5, "link_type": "perf", "prog_id": 7}),
    8: ("link", {"link_id": 6, "link_type": "iter", "prog_id": 7}),
    9: ("token", {"allowed_cmds": "any"}),
    10: ("perf_event", {"path": "anon_inode:[perf_event]"}),
    11: ("file", {"path": "/sys/fs/cgroup"}),
    12: ("map", {"map_id": 3, "map_type": 3, "key_size": 4, "value_size": 4, "max_entries": 4}),
    13: ("map", {"map_id": 4, "map_type": 30, "key_size": 0, "value_size": 4, "max_entries": 4}),
    14: ("prog", {"prog_id": 8, "prog_type": 28, "prog_tag": "00" * 8}),
    15: ("link", {"link_id": 8, "link_type": "struct_ops"}),
    16: ("prog", {"prog_id": 10, "prog_type": 26, "prog_tag": "00" * 8}),
}
FACTS = {("iter_target", 7): "task", ("iter_target", 10): "cgroup"}
BASES = (0x10000, 0x30000, 0x7F00_0000_0000, 0xFFFF_F000)


class Facts(RecordedFacts):
    """What the machine of the tracee knew."""

    def __init__(self) -> None:
        super().__init__({6: "kprobe", 7: "uprobe", 8: "cpu_core"}, 4)
        for (kind, key), name in FACTS.items():
            self.learn(kind, key, name)


class Env(CallEnv):
    """The world around the call, without the network namespace that there is not."""

    def fact(self, kind: str, key: int) -> str | None:
        """As Facts.fact."""
        return None if kind == "ifindex" else super().fact(kind, key)


def record(
    arch: int,
    nr: int,
    args: tuple[int, ...],
    before: Memory,
    after: Memory | None,
    ret: int,
    fds: dict[int, tuple[str, dict[str, Any]]] | None = None,
) -> RawCall:
    """A call as live tracing would record it; without ``after`` it never returns."""
    raw = RawCall(1, 1_700_000_000_000_000_000, 100, 100, "a.out", arch, nr, args)
    facts: Any = Facts()
    lookup: Any = Lookup(FDS if fds is None else fds)
    env = Env(raw, lookup, facts, facts.fact, lambda tid: Cred())
    row = CallCopier(arch, nr)
    live: Any = before
    node = row.enter(raw, live, env)
    if after is not None:
        raw.ret, raw.failed, raw.duration = ret, ret < 0, 1000
        live = after
        row.leave(node, raw, live, env)
        if ret >= 0 and row.returns_fd(node.view):
            env.made(ret)
    assert raw.extra.problem is None
    return raw


def parts(value: Value, path: str = "") -> Iterator[tuple[str, Value]]:
    """Every value within a value, with its path."""
    yield path, value
    if isinstance(value, Struct):
        for name, member in value.fields:
            yield from parts(member, f"{path}.{name}")
    elif isinstance(value, Array):
        for index, member in enumerate(value.items):
            yield from parts(member, f"{path}[{index}]")
    elif isinstance(value, Pointer):
        yield from parts(value.value, path)
    elif isinstance(value, Changed):
        yield from parts(value.before, path)
        yield from parts(value.after, path)
