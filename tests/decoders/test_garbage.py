"""Anything at all as arguments, memory and traces: it is recorded, decoded and printed.

The calls go through the recorder that live tracing uses, over memory that ends
where it likes; so what is found here is also what a hostile tracee would find.
"""

from __future__ import annotations

import io
import json
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from bpftrace_sys.render.json_lines import JsonLines
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import NotedCall
from bpftrace_sys.trace.lines import raw_call
from bpftrace_sys.trace.pieces import Pieces
from decoders import arch as arches
from decoders.declare import bpf_attr, bpf_map_attr, perf_ioctl
from decoders.declare.structs import READ_LIMIT, Ptr, layout_of
from decoders.decode import Call, decode
from decoders.newer import NewerField, packed
from decoders.raw import (
    AUDIT_ARCH_AARCH64,
    AUDIT_ARCH_I386,
    AUDIT_ARCH_X86_64,
    ENTRY,
    EXIT,
    Chunk,
    FdFact,
    RawCall,
)
from decoders.values import (
    BEYOND_SIZE,
    NOT_CAPTURED,
    NOT_WRITTEN,
    UNREADABLE,
    Absent,
    Array,
    Bytes,
    Pointer,
    Struct,
)
from tests.support.examples import examples
from tests.support.made_up import BASES, FDS, Facts, Memory, parts, record

QUICK = examples(300, suppress_health_check=list(HealthCheck))
MORE = examples(600, suppress_health_check=list(HealthCheck))
ARCHES = (AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64)
CALLS = ("bpf", "perf_event_open", "ioctl", "setsockopt", "openat")
ENOENT, EFAULT, E2BIG, ENOSPC = 2, 14, 7, 28

# ---------------------------------------------------------------- a tracee


def not_captured(call: Call) -> list[str]:
    """Paths of what capture did not copy and decode looked for."""
    return [
        path
        for path, value in parts(call.args)
        if isinstance(value, Absent) and value.reason == NOT_CAPTURED
    ]


# ---------------------------------------------------------------- strategies

SMALL = st.sampled_from((0, 1, 2, 4, 7, 8, 16, 64, 128, 144, 168, 4095, 4096, 4097))
HUGE = st.sampled_from((0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFF0001, (1 << 64) - 1, 1 << 63))
ADDRESS = st.builds(
    lambda base, at: base + at,
    st.sampled_from(BASES),
    st.sampled_from((0, 1, 8, 64, 200, 1000, 4090, 4095)),
)
FD = st.sampled_from((0, *FDS, 999, 0xFFFFFFFF))
WORD = st.one_of(SMALL, HUGE, ADDRESS, FD, st.integers(0, (1 << 64) - 1))
HALF = st.one_of(SMALL, HUGE, FD, st.integers(0, (1 << 32) - 1)).map(lambda word: word & 0xFFFFFFFF)
HALVES = st.lists(HALF, max_size=24).map(lambda words: struct.pack(f"<{len(words)}I", *words))
WORDS = st.lists(WORD, max_size=24).map(lambda words: struct.pack(f"<{len(words)}Q", *words))
MIXED = st.lists(
    st.one_of(
        HALF.map(lambda word: struct.pack("<I", word)),
        WORD.map(lambda word: struct.pack("<Q", word)),
    ),
    max_size=24,
).map(b"".join)
BYTES = st.one_of(WORDS, HALVES, MIXED, st.binary(max_size=300))
REGION = st.one_of(
    st.builds(lambda data, times: (data * times)[:4096], BYTES, st.integers(1, 200)), BYTES
)
MEMORY = st.builds(
    lambda datas: dict(zip(BASES, datas, strict=False)), st.lists(REGION, min_size=1, max_size=4)
)
RET = st.sampled_from((0, 1, 3, 5, 8, 100, -ENOENT, -EFAULT, -E2BIG, -ENOSPC, -22, 1 << 40))
COMMAND = st.builds(
    lambda cmd, common: cmd | common, st.integers(0, 42), st.sampled_from((0, 0, 0, 1 << 16))
)
REQUEST = st.sampled_from((*perf_ioctl.NAMES, 0x2499, 0xFFFFFFFF))


@st.composite
def calls(draw: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Arguments of :func:`record`."""
    arch = draw(st.sampled_from(ARCHES))
    name = draw(st.sampled_from(CALLS))
    nr = arches.number(arch, name)
    args = [draw(WORD) for _ in range(6)]
    if name == "bpf":
        args[:3] = [draw(COMMAND), draw(ADDRESS), draw(st.one_of(SMALL, HUGE))]
        args[3:5] = [draw(ADDRESS), draw(st.one_of(SMALL, HUGE))]
    elif name == "perf_event_open":
        args[0] = draw(ADDRESS)
    elif name == "ioctl":
        args[:3] = [draw(FD), draw(REQUEST), draw(WORD)]
    before = Memory(draw(MEMORY))
    after = Memory(draw(st.one_of(st.just(before.regions), MEMORY)))
    return arch, nr, tuple(args), before, draw(st.sampled_from((after, after, None))), draw(RET)


# ---------------------------------------------------------------- capture and decode


@given(calls())
@MORE
def test_recorded_garbage(made: tuple[Any, ...]) -> None:
    """Recording never fails, decoding finds all that it looks for, and nothing is in vain."""
    raw = record(*made)
    call = decode(raw, Facts())
    assert call.problem is None
    if raw.ret is not None:
        missing = not_captured(call)
        assert not missing or unknown_map(call), missing


def unknown_map(call: Call) -> bool:
    """Whether the call is about a map that nobody knows: then no length is known either."""
    fact = call.fact("attr", "map_fd") or call.fact("attr", "batch", "map_fd")
    return fact is None or fact.kind != "map"


@given(calls())
@QUICK
def test_line_and_back(made: tuple[Any, ...]) -> None:
    """A recorded call is the same after it was a line of JSON, and so is what it decodes to."""
    raw = record(*made)
    facts = Facts()
    call = decode(raw, facts, NotedCall)
    out = io.StringIO()
    model = Model(facts)
    model.observe(call)
    JsonLines(out, model).call(call)
    back = raw_call(json.loads(out.getvalue()), Pieces())
    assert back == raw
    assert decode(back, facts).args == decode(raw, facts).args


FACT_INFO = st.dictionaries(
    st.sampled_from(
        (
            *("map_id", "prog_id", "link_id", "btf_id", "map_type", "key_size", "value_size"),
            *("prog_type", "link_type", "path"),
        )
    ),
    st.one_of(
        st.integers(-(1 << 70), 1 << 70),
        st.text(max_size=8),
        st.none(),
        st.floats(allow_nan=False),
        st.lists(st.integers(), max_size=2),
    ),
)
FIELDS = st.builds(
    NewerField,
    st.one_of(st.text(max_size=12), st.sampled_from(("query.new", "map_fd", "new", "a.b.c.d"))),
    st.integers(-5, 300),
    st.integers(-5, 300),
    st.one_of(st.none(), st.integers(-5, 80)),
    st.one_of(st.none(), st.integers(-5, 80)),
    st.sampled_from(("__u32", "__u64", "char[16]", "__s32", "struct x")),
    st.one_of(st.just(""), st.sampled_from(("map_type", "prog_type", "map_fd", "target_fd"))),
)


@given(
    st.sampled_from((*ARCHES, 0, 1 << 40)),
    st.sampled_from((321, 357, 280, 298, 16, 29, 0, -1, 1 << 40)),
    st.tuples(COMMAND, *[WORD] * 5) | st.tuples(WORD, REQUEST, *[WORD] * 4) | st.tuples(),
    st.one_of(st.none(), RET, st.integers(-(1 << 70), 1 << 70)),
    st.booleans(),
    st.lists(
        st.builds(
            Chunk,
            st.sampled_from((ENTRY, EXIT, 2)),
            st.one_of(ADDRESS, WORD, st.integers(-10, 10)),
            BYTES,
            st.one_of(st.integers(-5, 500), HUGE),
        ),
        max_size=8,
    ),
    st.lists(
        st.builds(
            FdFact,
            FD,
            st.sampled_from((ENTRY, EXIT, 2)),
            st.sampled_from(("map", "prog", "link", "btf", "token", "file", "", "x")),
            FACT_INFO,
        ),
        max_size=4,
    ),
    st.one_of(st.text(max_size=40), st.lists(FIELDS, max_size=6).map(packed)),
)
@MORE
def test_traces_of_garbage(
    arch: int,
    nr: int,
    args: tuple[int, ...],
    ret: int | None,
    failed: bool,
    chunks: list[Chunk],
    fds: list[FdFact],
    fields: str,
) -> None:
    """A trace that no tracer wrote: nothing fits together, and still it decodes."""
    raw = RawCall(
        1, 0, 1, 1, "", arch, nr, args, ret=ret, failed=failed, chunks=chunks, fds=fds
    )
    facts = Facts()
    for struct_ in ("bpf_attr", "bpf_prog_info", "perf_event_attr"):
        facts.learn(f"fields {struct_}", 0, fields)
    for number in range(39, 43):
        facts.learn("enum bpf_cmd", number, "BPF_QUERY_A_NEW_ONE")
    call = decode(raw, facts)
    assert call.problem is None


@given(
    st.binary(max_size=200),
    st.integers(1, 200),
    st.sampled_from((bpf_map_attr.MAP_CREATE, bpf_attr.PROG_LOAD, bpf_attr.BTF_LOAD)),
)
@QUICK
def test_truncated(data: bytes, size: int, declaration: Any) -> None:
    """An attr that memory or its size cuts off: fields end where it does, none is made up."""
    nr = arches.number(AUDIT_ARCH_X86_64, "bpf")
    cmd = next(cmd for cmd, row in bpf_attr.COMMANDS.items() if row.attr is declaration)
    memory = Memory({0x10000: data})
    raw = record(AUDIT_ARCH_X86_64, nr, (cmd, 0x10000, size, 0, 0, 0), memory, memory, 0)
    call = decode(raw, Facts())
    assert call.problem is None
    attr = call.attr("attr")
    assert isinstance(attr, Pointer)
    if not data:
        assert attr.value == Absent(UNREADABLE)
        return
    assert isinstance(attr.value, Struct)
    there = min(size, len(data))
    slots = [slot for slot in layout_of(declaration).slots if slot.kind != "pad"]
    wanted = [{slot.name, slot.called.other if slot.called else ""} for slot in slots]
    shown = [
        name
        for name, value in attr.value.fields
        if value not in (Absent(BEYOND_SIZE), Absent(UNREADABLE))
        and name not in ("extra_data", "_", "pad")
    ]
    whole = [slot for slot in slots if slot.offset < there]
    assert len(shown) == len(whole)
    assert all(name in names_ for name, names_ in zip(shown, wanted, strict=False))
    if there < layout_of(declaration).size:
        cut = next(s for s in layout_of(declaration).slots if s.offset >= there)
        reason = BEYOND_SIZE if size <= cut.offset else UNREADABLE
        assert attr.value.fields[-1][1] == Absent(reason)


# ---------------------------------------------------------------- bounds


def pointers(declaration: Any) -> list[str]:
    """Names of a struct's pointers."""
    found = []
    for slot in layout_of(declaration).slots:
        if isinstance(slot.field, Ptr):
            found.append(slot.name)
        elif slot.layout is not None:
            found += pointers(slot.field)
    return found


@pytest.mark.parametrize(
    ("cmd", "attach_type"),
    [*((cmd, 0) for cmd in bpf_attr.COMMANDS), *((28, kind) for kind in (28, 41, 42, 45, 48, 59))],
)
def test_claims_cost_nothing(cmd: int, attach_type: int) -> None:
    """Counts of 2^32-1 everywhere, over 256 KiB that are really there."""
    region = struct.pack("<Q", 0x30000 + 8) * (1 << 15)
    attr = bytearray(b"\xff" * 168)
    for slot, data in places_of(cmd):
        attr[slot : slot + len(data)] = data
    if cmd == 28:
        struct.pack_into("<I", attr, 8, attach_type)
        for at in (16, 24, 32, 40) if attach_type in (42, 48, 59) else ():
            struct.pack_into("<Q", attr, at, 0x30000)
        if attach_type == 42:
            struct.pack_into("<II", attr, 16, 0, 0xFFFFFFFF)
        if attach_type == 59:
            struct.pack_into("<I", attr, 32, 0xFFFFFFFF)
    memory = Memory({0x10000: bytes(attr), 0x30000: region})
    args = (cmd, 0x10000, 168, 0, 0, 0)
    nr = arches.number(AUDIT_ARCH_X86_64, "bpf")
    before = time.process_time()
    tracemalloc.start()
    try:
        raw = record(AUDIT_ARCH_X86_64, nr, args, memory, memory, 0)
        call = decode(raw, Facts())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert call.problem is None
    assert memory.asked <= READ_LIMIT
    copied = sum(len(chunk.data) for chunk in raw.chunks)
    # Each pointer's target once or twice, and an array of strings once more for each.
    assert copied <= 12 * len(region) + (1 << 16) * 257
    assert peak < 160 << 20
    assert time.process_time() - before < 10


def places_of(cmd: int) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) that make a command's pointers and map fds good."""

    def walk(declaration: Any, base: int) -> Iterator[tuple[int, bytes]]:
        for slot in layout_of(declaration).slots:
            at = base + slot.offset
            if slot.layout is not None:
                yield from walk(slot.field, at)
            elif slot.kind == "ptr":
                yield at, struct.pack("<Q", 0x30000)
            elif slot.name in ("map_fd", "bpf_fd"):
                yield at, struct.pack("<I", 5 if slot.name == "bpf_fd" else 3)

    return walk(bpf_attr.COMMANDS[cmd].attr, 0)


@pytest.mark.parametrize("ret", [0, 3, -ENOENT, -ENOSPC, -EFAULT])
@pytest.mark.parametrize("fill", [0, 1, 3, 64])
def test_every_command_is_whole(ret: int, fill: int) -> None:
    """Whatever the counts and the result, decoding misses nothing that recording left out."""
    nr = arches.number(AUDIT_ARCH_X86_64, "bpf")
    region = struct.pack("<Q", 0x30000 + 8) * 512
    for cmd in bpf_attr.COMMANDS:
        for attach_type in (0, 28, 41, 42, 45, 46, 48, 59) if cmd == 28 else (0,):
            attr = bytearray(struct.pack("<I", fill) * 42)
            for at, data in places_of(cmd):
                attr[at : at + len(data)] = data
            if cmd == 28:
                struct.pack_into("<III", attr, 0, 5, 11, attach_type)
                struct.pack_into("<QIIQQ", attr, 16, 0x30000, fill, fill, 0x30000, 0x30000)
            memory = Memory({0x10000: bytes(attr), 0x30000: region})
            raw = record(AUDIT_ARCH_X86_64, nr, (cmd, 0x10000, 168, 0, 0, 0), memory, memory, ret)
            call = decode(raw, Facts())
            assert call.problem is None
            assert not not_captured(call), (cmd, attach_type)


def test_many_chunks() -> None:
    """Chunks that cover nothing do not make each look-up a search of all of them."""
    chunks = [Chunk(ENTRY, 0x100000 + 16 * at, b"12345678", 8) for at in range(1 << 16)]
    table = struct.pack(f"<{1 << 16}Q", *(0x100008 + 16 * at for at in range(1 << 16)))
    attr = struct.pack("<IIIIIIQQQQ", 5, 0, 42, 0, 0, 1 << 16, 0x10000, 0, 0, 0)
    chunks += [Chunk(ENTRY, 0x10000, table, len(table)), Chunk(ENTRY, 0x8000, attr, len(attr))]
    nr = arches.number(AUDIT_ARCH_X86_64, "bpf")
    raw = RawCall(
        1, 0, 1, 1, "", AUDIT_ARCH_X86_64, nr, (28, 0x8000, len(attr), 0, 0, 0),
        ret=0, chunks=chunks,
    )  # fmt: skip
    before = time.process_time()
    call = decode(raw, Facts())
    assert time.process_time() - before < 5
    assert call.problem is None
    syms = call.attr("attr", "link_create", "kprobe_multi", "syms")
    assert isinstance(syms, Pointer)
    assert isinstance(syms.value, Array)
    assert len(syms.value.items) == 1 << 16


# ---------------------------------------------------------------- what is documented


def test_unknown_map_has_no_length() -> None:
    """Of a map that nobody knows neither key nor value can be copied; that is said."""
    nr = arches.number(AUDIT_ARCH_X86_64, "bpf")
    attr = struct.pack("<IIQQQ", 77, 0, 0x30000, 0x30008, 0)
    memory = Memory({0x10000: attr, 0x30000: bytes(64)})
    raw = record(AUDIT_ARCH_X86_64, nr, (1, 0x10000, 32, 0, 0, 0), memory, memory, 0)
    call = decode(raw, Facts())
    assert call.attr("attr", "key") == Pointer(0x30000, Absent(NOT_CAPTURED))
    assert call.attr("attr", "value") == Pointer(0x30008, Absent(NOT_CAPTURED))


def test_failed_call_wrote_nothing() -> None:
    """What a failed call was to fill in is not shown as if it had."""
    nr = arches.number(AUDIT_ARCH_X86_64, "bpf")
    attr = struct.pack("<IIQQQ", 3, 0, 0x30000, 0x30008, 0)
    memory = Memory({0x10000: attr, 0x30000: bytes(range(64))})
    raw = record(AUDIT_ARCH_X86_64, nr, (1, 0x10000, 32, 0, 0, 0), memory, memory, -ENOENT)
    call = decode(raw, Facts())
    assert call.attr("attr", "key") == Pointer(0x30000, Bytes(bytes(range(4)), 4))
    assert call.attr("attr", "value") == Pointer(0x30008, Absent(NOT_WRITTEN))
