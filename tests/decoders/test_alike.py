"""Loads whose attr was decoded before are decoded as if none had been."""

from __future__ import annotations

import copy
import random
import struct
from collections.abc import Iterable

import pytest

from bpftrace_sys.trace.reader import Reader
from decoders import alike
from decoders.alike import Decoder
from decoders.call import Call
from decoders.decode import decode
from decoders.raw import AUDIT_ARCH_X86_64, ENTRY, EXIT, Chunk, Cred, FdFact, RawCall
from tests.support.made_up import Facts, Memory, record
from tests.support.running import ROOT

pytestmark = pytest.mark.offline

AT_ATTR, AT_CODE, AT_LICENSE, AT_LOG, AT_MORE = 0x1000, 0x20000, 0x3000, 0x4000, 0x6000
LOG = b"0: (85) call unknown#300\ninvalid func unknown#300\nprocessed 0 insns\n\0"


def load(
    helper: int = 1,
    *,
    kind: int = 1,
    ret: int = -22,
    log: bytes = LOG,
    head: bytes = b"",
    at_log: int = AT_LOG,
    license_: bytes = b"GPL\0",
    rest: bytes = b"",
    size: int = 128,
    code: bytes | None = None,
    fds: dict[int, tuple[str, dict[str, int | str]]] | None = None,
) -> RawCall:
    """A PROG_LOAD as it is recorded; ``rest``: the attr from its name on."""
    if code is None:
        code = struct.pack("<BBhiBBhi", 0x85, 0, 0, helper, 0x95, 0, 0, 0)
    attr = struct.pack(
        "<IIQQIIQII", kind, len(code) // 8, AT_CODE, AT_LICENSE, 1, 256 if at_log else 0, at_log,
        0, 0,
    ) + rest  # fmt: skip
    attr = attr.ljust(size, b"\0")[:size]
    before = {AT_ATTR: attr, AT_CODE: code, AT_LICENSE: license_, AT_MORE: bytes(range(256))}
    before[AT_LOG] = head.ljust(256, b"\0")
    after = {**before, AT_LOG: log.ljust(256, b"\0") if log else before[AT_LOG]}
    args = (5, AT_ATTR, size, 0, 0, 0)
    return record(AUDIT_ARCH_X86_64, 321, args, Memory(before), Memory(after), ret, fds)


def both(monkeypatch: pytest.MonkeyPatch, calls: Iterable[RawCall]) -> int:
    """Asserts that both ways decode the same; returns how many were decoded by a family."""
    took = 0
    take = alike.Family.take

    def counted(self: alike.Family, raw: RawCall, *more: object) -> object:
        nonlocal took
        found = take(self, raw, *more)  # type: ignore[arg-type,type-var]
        took += found is not None
        return found

    monkeypatch.setattr(alike.Family, "take", counted)
    decoder, facts = Decoder(), Facts()
    for raw in calls:
        before = copy.deepcopy(raw)
        usual = decode(raw, facts)
        short = decoder.decode(raw, facts, Call)
        assert short.raw is raw
        assert raw == before
        for name in ("syscall", "args", "ret", "problem", "command"):
            assert getattr(short, name) == getattr(usual, name), name
        assert repr(short.args) == repr(usual.args)
    monkeypatch.setattr(alike.Family, "take", take)
    return took


def test_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of each type is decoded whole."""
    calls = [load(helper, kind=kind) for kind in range(1, 4) for helper in range(20)]
    assert both(monkeypatch, calls) == 57


def test_results(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [load(1, ret=ret) for ret in (-22, -13, 5, 3, 300, -22)]
    assert both(monkeypatch, calls) == 5


LOGS = {
    "untouched": b"", "empty": b"\0", "short": b"x\0", "full": b"x" * 256, "one less": b"x" * 255,
    "a NUL within": b"one\0two\0", "as it was": b"stood there\0", "not UTF-8": b"\xff\x1b[m\0",
}  # fmt: skip


@pytest.mark.parametrize("head", [b"", b"stood there\0", b"x" * 256])
@pytest.mark.parametrize("log", LOGS)
def test_logs(log: str, head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that was not written, which shows in what stood there before."""
    calls = [load(1, head=head), load(2, head=head, log=LOGS[log]), load(3, log=LOGS[log])]
    both(monkeypatch, calls)
    both(monkeypatch, calls[::-1])


OTHERS = {
    "no log": {"at_log": 0},
    "another license": {"license_": b"MIT\0"},
    "no license": {"license_": b""},
    "a name": {"rest": b"name"},
    "a type without a name": {"kind": 4000},
    "a device": {"rest": struct.pack("<16xI", 3)},
    "BTF": {"rest": struct.pack("<24xI", 6)},
    "BTF that is none": {"rest": struct.pack("<24xI", 77)},
    "BTF in the fd that is returned": {"rest": struct.pack("<24xI", 5), "ret": 5, "fds": {}},
    "an id in the kernel's BTF": {"rest": struct.pack("<60xI", 12)},
    "fd_array": {"rest": struct.pack("<72xQ", AT_MORE)},
    "func_info": {"rest": struct.pack("<28xIQI", 8, AT_MORE, 2)},
    "bytes that no field has": {"rest": bytes(110) + b"\1", "size": 184},
    "a short attr": {"size": 48},
    "no instructions": {"code": b""},
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_another_load_in_between(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [load(helper) for helper in range(3)]
    calls += [load(helper, **OTHERS[what]) for helper in range(4)]  # type: ignore[arg-type]
    calls += [load(helper) for helper in range(3)]
    assert both(monkeypatch, calls) >= 3


@pytest.mark.parametrize("source", range(7))
def test_instructions_that_name_something(source: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def naming(register: int) -> bytes:
        return struct.pack("<BBhi8xBBhi", 0x18, register << 4, 0, 3, 0x95, 0, 0, 0)

    for rest in (b"", struct.pack("<72xQ", AT_MORE)):
        calls = [load(code=naming(named), rest=rest) for named in (0, 0, source, source, 0)]
        both(monkeypatch, calls)


def changed(raw: RawCall, stage: int, addr: int, *, wanted: int = 0, data: bytes = b"") -> RawCall:
    """A call with another chunk in the place of one; without ``data`` with none there."""
    raw = copy.deepcopy(raw)
    (at,) = (at for at, one in enumerate(raw.chunks) if (one.stage, one.addr) == (stage, addr))
    raw.chunks[at : at + 1] = [Chunk(stage, addr, data, wanted or len(data))] if data else []
    return raw


CODE, OTHER = (struct.pack("<BBhiBBhi", 0x85, 0, 0, number, 0x95, 0, 0, 0) for number in (1, 2))
NAMING = struct.pack("<BBhi8x", 0x18, 0x50, 0, 3)
ARRAY = struct.pack("<72xQ", AT_MORE)
MEGABYTES = 17 << 20
LONG = load()
LONG.chunks = [
    chunk._replace(
        data=chunk.data[:28] + struct.pack("<I", MEGABYTES) + chunk.data[32:]
        + bytes(12) + struct.pack("<I", MEGABYTES),
        wanted=144,
    )
    if chunk.addr == AT_ATTR
    else chunk
    for chunk in LONG.chunks
]  # fmt: skip
LONG.args = (5, AT_ATTR, 144, 0, 0, 0)
LONG.chunks.append(Chunk(EXIT, AT_LOG + MEGABYTES - (16 << 20), b"the end\0", 8))

FROM_ELSEWHERE = {
    "fd_array that was not copied": (
        load(code=CODE, rest=ARRAY),
        changed(load(code=NAMING, rest=ARRAY), ENTRY, AT_MORE),
    ),
    "two copies": tuple(
        changed(
            changed(load(), ENTRY, AT_CODE, data=code), ENTRY, AT_LICENSE, data=b"GPL\0"
        ).replace(chunks=[*load(code=code).chunks, Chunk(ENTRY, AT_CODE, CODE + OTHER, 32)])
        for code in (CODE, OTHER)
    ),
    "more of what stood there": (
        changed(load(log=b""), ENTRY, AT_LOG, data=b"x" * 100 + bytes(156)),
        changed(load(log=b"x" * 70), ENTRY, AT_LOG, data=b"x" * 100 + bytes(156)),
    ),
    "more instructions": tuple(
        changed(load(), ENTRY, AT_CODE, data=code + CODE) for code in (CODE, OTHER)
    ),
    "fewer instructions": (load(), changed(load(), ENTRY, AT_CODE, data=OTHER[:8])),
    "a longer log": (
        load(log=b"said\0"),
        changed(load(), EXIT, AT_LOG, data=b"x" * 300 + b"\0"),
    ),
    "the attr cut at its exit": tuple(
        changed(load(ret=ret), EXIT, AT_ATTR, data=bytes(20)) for ret in (-22, 3)
    ),
    "no attr": tuple(
        load().replace(chunks=[one._replace(data=data) for one in load().chunks])
        for data in (b"", b"\1")
    ),
    "the end of a log": (
        LONG,
        LONG.replace(chunks=[*LONG.chunks[:-1], LONG.chunks[-1]._replace(data=b"another\0")]),
    ),
}  # fmt: skip
"""Pairs of calls as no recorder of ours would have them."""


@pytest.mark.parametrize("what", FROM_ELSEWHERE)
def test_what_another_recorder_may_keep(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = FROM_ELSEWHERE[what]
    both(monkeypatch, [one, one, other, one])
    both(monkeypatch, [other, other, one, other])


def test_a_name_that_is_learned_later() -> None:
    """What was asked for and not known may be known at the next call."""
    raw = load(**OTHERS["an id in the kernel's BTF"])  # type: ignore[arg-type]
    facts, decoder = Facts(), Decoder()
    for name in ("", "", "bpf_lsm_file_open"):
        if name:
            facts.learn("btf_vmlinux", 12, name)
        call = decoder.decode(copy.deepcopy(raw), facts, Call)
        assert call.args == decode(raw, facts).args
        assert (name in repr(call.args)) or not name


def test_who_called_decides_how_much_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than BPF_MAXINSNS, a program without CAP_BPF had none read."""
    calls = [load(code=CODE + bytes([helper]) * 8 * 4095) for helper in range(4)]
    for raw in calls[2:]:
        raw.extra = raw.extra._replace(cred=Cred(1000, "0"))
    assert both(monkeypatch, calls) == 0
    assert both(monkeypatch, [load(code=CODE + bytes([each]) * 8 * 4094) for each in range(4)]) == 3


def damaged(raw: RawCall, choose: random.Random) -> RawCall:
    """A call as no recorder of ours would have it."""
    raw = copy.deepcopy(raw)
    chunks = raw.chunks
    for _ in range(choose.randrange(1, 3)):
        at = choose.randrange(len(chunks)) if chunks else 0
        what = choose.randrange(10)
        if what < 6 and chunks:
            chunk = chunks[at]
            data = chunk.data
            chunks[at] = [
                chunk._replace(data=data[: choose.randrange(len(data) + 1)]),
                chunk._replace(wanted=chunk.wanted + choose.choice([-1, 1, 4096])),
                chunk._replace(stage=EXIT - chunk.stage),
                chunk._replace(addr=choose.choice([AT_ATTR, AT_CODE, AT_LOG, AT_LICENSE, 5])),
                chunk._replace(data=data + b"more"),
                chunk._replace(data=bytes(byte ^ (choose.random() < 0.02) for byte in data)),
            ][what]
        elif what == 6 and chunks:
            del chunks[at]
        elif what == 7:
            stage = choose.choice([ENTRY, EXIT])
            addr = choose.choice([AT_ATTR, AT_CODE, AT_CODE - 8, AT_LOG, AT_LICENSE])
            chunks.insert(at, Chunk(stage, addr, bytes(range(40)), 40))
        elif what == 8:
            raw.ret, raw.failed = choose.choice([(None, False), (3, True), (-22, False)])
        else:
            stage = choose.choice([ENTRY, EXIT])
            raw.fds.append(FdFact(choose.choice([3, 5, 6]), stage, "btf", {"btf_id": 1}))
    return raw


@pytest.mark.parametrize("seed", range(40))
def test_anything(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = random.Random(seed)
    calls: list[RawCall] = []
    for _ in range(15):
        fields = choose.choice(list(OTHERS.values())) if choose.random() < 0.4 else {}
        log, head = choose.choice([LOG, LOG, *LOGS.values()]), choose.choice([b"", b"", b"head"])
        like = load(choose.randrange(9), **{"log": log, "head": head, **fields})  # type: ignore[arg-type]
        spoilt = damaged(like, choose) if choose.random() < 0.3 else like
        for _ in range(choose.randrange(1, 6)):
            each = damaged(spoilt, choose) if choose.random() < 0.3 else copy.deepcopy(spoilt)
            for at, chunk in enumerate(each.chunks):
                if chunk.addr == AT_CODE and chunk.data and choose.random() < 0.7:
                    flipped = chunk.data[:4] + bytes([choose.randrange(256)]) + chunk.data[5:]
                    each.chunks[at] = chunk._replace(data=flipped)
            calls.append(each)
    both(monkeypatch, calls)


def test_what_was_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of every fixture."""
    seen = 0
    for path in sorted((ROOT / "fixtures").glob("*/trace.jsonl*")):
        calls = [item for item in Reader(str(path)) if isinstance(item, RawCall)]
        both(monkeypatch, calls)
        seen += len(calls)
    assert seen > 500
