"""PROG_LOADs that are copied by plan are copied as the walk would copy them."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from bpftrace_sys.record.capture import families
from bpftrace_sys.record.capture.loops import Loops
from bpftrace_sys.record.capture.sink import Capture
from bpftrace_sys.record.machine import fds
from bpftrace_sys.record.ptrace.memory import Ranges
from decoders.raw import AUDIT_ARCH_X86_64, FdFact, RawCall
from decoders.uapi.layouts import LAYOUTS
from decoders.walk.measures import LOG_LIMIT
from decoders.walk.table import WALKS
from tests.support.made_up import FDS, Lookup, Memory

pytestmark = pytest.mark.offline

PROG_LOAD = 5
AT_ATTR, AT_CODE, AT_LICENSE, AT_LOG, AT_MORE = 0x1000, 0x20000, 0x3000, 0x400000, 0x9000
TID = 1 << 29
"""No thread: who it is, nobody knows."""
HELPER, EXIT = 0x85, 0x95


def insn(code: int, source: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, source << 4, 0, imm)


class Live(Memory):
    """Memory that can be read in one go, as LiveMemory."""

    def gather(self, ranges: Ranges) -> bytes | None:
        words = list(ranges.array)
        found = [self.read(addr, size) for addr, size in zip(words[::2], words[1::2], strict=True)]
        return b"".join(found) if sum(map(len, found)) == ranges.size else None


class Fds(Lookup):
    """fdinfo, always looked at anew."""

    def seen(self, fact: FdFact, tid: int) -> None:
        """As FdLookup.seen."""


class Load:
    """A PROG_LOAD, and what the kernel makes of it."""

    def __init__(self, code: bytes, log: bytes = b"no\n\0", ret: int = -22, **fields: Any) -> None:
        self.code, self.log, self.ret = code, log, ret
        self.license: bytes = fields.pop("license", b"GPL\0")
        self.size: int = fields.pop("size", 128)
        self.rest: bytes = fields.pop("rest", b"")
        self.true_size: int = fields.pop("true_size", 0)
        self.room: int = fields.pop("room", 4096)
        self.fields = fields

    def run(self, sink: Capture, memory: dict[int, bytes]) -> None:
        """The two stops of the call; ``memory``: what stands where in the process."""
        values = {
            "kind": 1, "count": len(self.code) // 8, "at_code": AT_CODE,
            "at_license": AT_LICENSE, "level": 1, "room": self.room, "at_log": AT_LOG,
            **self.fields,
        }  # fmt: skip
        attr = struct.pack("<IIQQIIQ", *values.values()).ljust(self.size, b"\0")
        attr = (attr[:48] + self.rest + attr[48 + len(self.rest) :])[: self.size]
        tracee: Any = type("Tracee", (), {"tid": TID, "pid": TID, "comm": "a.out"})()
        memory |= {AT_ATTR: attr, AT_CODE: self.code, AT_LICENSE: self.license}
        tracee.memory = Live({at: data for at, data in memory.items() if data})
        args = (PROG_LOAD, AT_ATTR, self.size, 7, 7, 7)
        assert sink.entry(tracee, AUDIT_ARCH_X86_64, 321, args, 1)
        if self.size >= 144:
            memory[AT_ATTR] = attr[:140] + struct.pack("<I", self.true_size) + attr[144:]
        if self.log:
            memory[AT_LOG] = self.log + memory[AT_LOG][len(self.log) :]
        tracee.memory = Live({at: data for at, data in memory.items() if data})
        sink.exit(tracee, self.ret, self.ret < 0, 2)


def captured(
    monkeypatch: pytest.MonkeyPatch, loads: list[Load], plans: bool, known: Any = FDS
) -> tuple[list[RawCall], int]:
    """What capture keeps of calls, and how many of them took a family's plan to their end."""
    took = 0
    leave = families.Family.leave

    def counted(self: families.Family, raw: RawCall, memory: Any, lookup: Any) -> bool:
        nonlocal took
        found = leave(self, raw, memory, lookup)
        took += found
        return found

    with monkeypatch.context() as patch:
        patch.setattr(fds, "FdLookup", lambda: Fds(known))
        patch.setattr(families.Family, "leave", counted)
        if not plans:
            patch.setattr(Loops, "enter", lambda self, raw, memory: None)
        sink = Capture()
        sink._before = {}
        memory = {AT_MORE: bytes(range(1, 256)), AT_LOG: bytes(max(4096, len(loads[0].log)))}
        for load in loads:
            load.run(sink, memory)
    kept = [item for item in sink._queue if isinstance(item, RawCall)]
    assert len(kept) == len(loads)
    return kept, took


def both(monkeypatch: pytest.MonkeyPatch, loads: list[Load], known: Any = FDS) -> int:
    """Asserts that both ways keep the same; returns how many took a plan."""
    usual, none = captured(monkeypatch, loads, False, known)
    short, took = captured(monkeypatch, loads, True, known)
    assert none == 0
    for one, other in zip(usual, short, strict=True):
        assert one == other
    return took


def probe(helper: int, **fields: Any) -> Load:
    """What asks for a helper."""
    return Load(insn(HELPER, imm=helper) + insn(EXIT), **fields)


def test_where_the_attr_has_what_the_plan_looks_at() -> None:
    """By the generated layouts, and by the walk's own table."""
    wanted = ("insn_cnt", "insns", "license", "log_size", "log_buf")
    offsets = {name: offset for name, offset, *_ in LAYOUTS["bpf_attr.PROG_LOAD"]}
    data = bytearray(families.ATTR.size)
    for number, name in enumerate(wanted, 1):
        data[offsets[name]] = number
    assert families.ATTR.unpack(bytes(data)) == (1, 2, 3, 4, 5)
    assert offsets["prog_type"] == 0
    assert offsets["insn_cnt"] == families.FREE
    attr = WALKS["bpf"][0].followed[0].visit.target.inner.rows[PROG_LOAD]
    assert {slot.index: slot.offset for slot in attr.followed}[2] == offsets["insns"]


def test_helpers_and_program_types(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = [
        probe(helper, kind=kind, log=b"unknown func %d\n\0" % helper)
        for kind in range(1, 6)
        for helper in range(20)
    ]
    assert both(monkeypatch, loads) == 98


def test_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that succeeds returns an fd, which is looked at."""
    loads = [probe(1, ret=ret) for ret in (-22, -13, 5, 3, -22, 400, -1, 5, -524)]
    assert both(monkeypatch, loads) == 7


LOGS = {
    "none": b"", "empty": b"\0", "short": b"x\0", "as long as is read": b"x" * 511 + b"\0",
    "longer": b"x" * 512 + b"\0", "much longer": b"x" * 3000 + b"\0", "full": b"x" * 4096,
    "a NUL within": b"one\0two\0",
}  # fmt: skip


@pytest.mark.parametrize("log", LOGS)
def test_logs(log: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = [probe(helper, log=LOGS[log]) for helper in range(5)]
    assert both(monkeypatch, loads) == 3


@pytest.mark.parametrize("room", [0, 1, 63, 64, 511, 512, 513, 4096, 5000])
def test_buffers(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is longer than the memory there, by which it is read as far as it goes."""
    loads = [probe(helper, room=room, log=bytes([65 + helper]) * 70) for helper in range(5)]
    assert both(monkeypatch, loads) == 3


def test_a_log_of_which_the_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of a longer one is looked for, by the walk."""
    for room, took in ((LOG_LIMIT, 1), (LOG_LIMIT + 1, 0)):
        text = b"x" * (room - 4) + b"end\0"
        assert both(monkeypatch, [probe(1, room=room, log=text) for _ in range(3)]) == took


OTHERS: dict[str, Any] = {
    "the log's address": {"at_log": AT_MORE},
    "no log": {"at_log": 0},
    "the instructions' address": {"at_code": AT_LICENSE},
    "no instructions": {"at_code": 0},
    "nothing readable": {"at_code": 0xDEAD_0000},
    "fewer instructions": {"count": 1},
    "more instructions": {"count": 3},
    "no license": {"license": b""},
    "another license": {"license": b"MIT\0"},
    "a longer license": {"license": b"x" * 300},
    "the level": {"level": 2},
    "a name": {"rest": b"name"},
    "a device": {"rest": struct.pack("<16xI", 1 << 20)},
    "BTF": {"rest": struct.pack("<24xI", 6)},
    "BTF that is none": {"rest": struct.pack("<24xI", 77)},
    "fd_array": {"rest": struct.pack("<72xQ", AT_MORE)},
    "another size": {"size": 152, "true_size": 3},
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_load_in_between(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = [probe(helper) for helper in range(4)]
    loads += [probe(helper, **OTHERS[what]) for helper in range(4)]
    loads += [probe(helper) for helper in range(3)]
    assert both(monkeypatch, loads) >= 5


@pytest.mark.parametrize("source", range(7))
def test_instructions_that_name_something(source: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps by fd, by their place in fd_array; and what names nothing, as 64-bit numbers."""
    for rest in (b"", struct.pack("<72xQ", AT_MORE)):
        loads = [
            Load(insn(0x18, named, 3 if named < 5 else 1) + insn(0) + insn(EXIT), rest=rest)
            for named in (0, 0, 0, source, source, source, 0, 0)
        ]
        took = both(monkeypatch, loads)
        assert took >= 3 if source in (0, 3, 4) or not rest else took >= 0


def test_an_fd_that_comes_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was no fd may be one at the next call, byte for byte the same."""
    known: dict[int, Any] = {}

    class Later(Load):
        def run(self, sink: Capture, memory: dict[int, bytes]) -> None:
            known.update(FDS)
            super().run(sink, memory)
            known.clear()

    loads: list[Load] = []
    for code in (insn(0x18, 1, 3) + insn(0), insn(HELPER)):
        for kind in (Load, Load, Load, Later):
            loads.append(kind(code + insn(EXIT), rest=struct.pack("<24xI", 6)))
    assert both(monkeypatch, loads, known) == 0


def test_who_calls_decides_how_much_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than BPF_MAXINSNS it does, and who that is may change from call to call."""
    loads = [Load(insn(HELPER, imm=helper) + insn(EXIT) * 4096) for helper in range(4)]
    assert both(monkeypatch, loads) == 0
    loads = [Load(insn(HELPER, imm=helper) + insn(EXIT) * 4095) for helper in range(4)]
    assert both(monkeypatch, loads) == 2


@pytest.mark.parametrize("seed", range(30))
def test_anything(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = random.Random(seed)
    loads: list[Load] = []
    for _ in range(12):
        fields = dict(choose.choice(list(OTHERS.values()))) if choose.random() < 0.5 else {}
        if choose.random() < 0.3:
            fields.setdefault("room", choose.choice([0, 1, 64, 512, 600, 4096, 1 << 21]))
        for _ in range(choose.randrange(1, 7)):
            code = b"".join(
                insn(choose.choice([HELPER, EXIT, 0x18, 0]), choose.choice([0, 0, 1, 5]), 3)
                for _ in range(choose.choice([1, 2, 2, 2, 3]))
            )
            more = dict(fields)
            more.setdefault("kind", choose.randrange(3))
            loads.append(
                Load(code, choose.choice(list(LOGS.values())), choose.choice([-22, -1, 3]), **more)
            )
    both(monkeypatch, loads)
