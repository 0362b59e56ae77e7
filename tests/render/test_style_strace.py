"""``--style strace``: rows by hand."""

from __future__ import annotations

import errno
import io
import re
import struct
from typing import Any

import pytest
from uapi_gen.declared import STRUCTS

from bpftrace_sys.render import strace
from bpftrace_sys.render.strace import calls, rows
from bpftrace_sys.render.strace.calls import call_words
from bpftrace_sys.render.strace.grammar import row_of
from bpftrace_sys.story.objects import NotedCall
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.items import Fact
from bpftrace_sys.trace.reader import Reader
from bpftrace_sys.trace.running import Running
from decoders.declare import bpf_attr, bpf_link, perf_ioctl, syscalls
from decoders.declare.structs import layout_of
from decoders.decode import Call, decode
from decoders.events import Ending, Exit, Fork, ProcessEvent
from decoders.raw import AUDIT_ARCH_X86_64, ENTRY, EXIT, Chunk, FdFact, RawCall
from decoders.uapi import names, perf
from tests.support.running import FIXTURES

BPF, PERF, IOCTL, OPENAT = 321, 298, 16, 257
ATTR, BUFFER = 0x1000, 0x2000


class NoFacts:
    """A machine that knows one network device, and one name newer than our tables."""

    cpus = 2

    def fact(self, kind: str, key: int) -> str | None:
        return "lo" if (kind, key) == ("ifindex", 1) else None

    def newer(self, enum: str, value: int) -> str | None:
        return "BPF_MAP_TYPE_NEW" if (enum, value) == ("bpf_map_type", 200) else None


def made(
    nr: int,
    *args: int,
    ret: int | None = 0,
    memory: dict[int, bytes] | None = None,
    later: dict[int, bytes] | None = None,
    fds: list[FdFact] | None = None,
) -> NotedCall:
    """A call with this memory at entry, and at exit where that differs."""
    chunks = [
        Chunk(stage, addr, data, max(len(data), 1))
        for stage, pieces in ((ENTRY, memory or {}), (EXIT, {**(memory or {}), **(later or {})}))
        for addr, data in pieces.items()
    ]
    raw = RawCall(
        1, 0, 7, 7, "t", AUDIT_ARCH_X86_64, nr, (*args, *[0] * (6 - len(args))), ret,
        ret is not None and ret < 0, 1, chunks, fds or [],
    )  # fmt: skip
    return decode(raw, NoFacts(), NotedCall)


def bpf(cmd: int, attr: bytes, **kwargs: Any) -> NotedCall:
    """bpf(2) with an attr of these bytes."""
    memory = {ATTR: attr, **kwargs.pop("memory", {})}
    return made(BPF, cmd, ATTR, kwargs.pop("size", len(attr)), memory=memory, **kwargs)


def line_of(call: Call, prefix: str = "", **options: Any) -> str:
    """A call's line; with -v, unless it is said otherwise."""
    return strace.call_line(call, strace.Manner(**{"verbose": True, **options}), prefix)


def args(call: Call, **options: Any) -> str:
    """What stands between the parentheses."""
    line = line_of(call, **options)
    match = re.fullmatch(r"\w+\((.*)\) += .*", line)
    assert match is not None, line
    return match[1]


MAP = struct.pack("<7I16s", 2, 4, 8, 3, 0, 0, 0, b"a\\b")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            bpf(0, MAP, ret=5),
            r"BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_ARRAY, key_size=4, value_size=8, "
            r'max_entries=3, map_flags=0, inner_map_fd=0, map_name="a\\b"}, 44',
        ),
        # A struct that ends within a field, and within an older version.
        (bpf(0, MAP[:1]), "BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_ARRAY, key_size=0, "
         "value_size=0, max_entries=0}, 1"),
        (bpf(0, struct.pack("<4I", 200, 1, 2, 3)), "BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_NEW, "
         "key_size=1, value_size=2, max_entries=3}, 16"),
        (bpf(0, struct.pack("<5I", 201, 1, 2, 3, 1 << 30)), "BPF_MAP_CREATE, {map_type=0xc9 /* "
         "BPF_MAP_TYPE_??? */, key_size=1, value_size=2, max_entries=3, "
         "map_flags=0x40000000 /* BPF_F_??? */}, 20"),
        (bpf(0, MAP + struct.pack("<I", 1)), r"BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_ARRAY, "
         r"key_size=4, value_size=8, max_entries=3, map_flags=0, inner_map_fd=0, "
         r'map_name="a\\b", map_ifindex=if_nametoindex("lo")}, 48'),
        (bpf(22, struct.pack("<IQ", 3, 258)), r"BPF_MAP_FREEZE, {map_fd=3, "
         r'extra_data="\x02\x01\x00\x00\x00\x00\x00\x00" /* bytes 4..11 */}, 12'),
        (bpf(22, struct.pack("<IQ", 3, 0)), "BPF_MAP_FREEZE, {map_fd=3}, 12"),
        # Attrs that cannot be read, or are none at all.
        (made(BPF, 22, ATTR, 4, memory={ATTR: b""}), "BPF_MAP_FREEZE, 0x1000, 4"),
        (made(BPF, 22, ATTR, 4, memory={ATTR: b"ab"}), "BPF_MAP_FREEZE, 0x1000, 4"),
        (made(BPF, 22, 0, 4), "BPF_MAP_FREEZE, NULL, 4"),
        (made(BPF, 22, ATTR, 0), "BPF_MAP_FREEZE, 0x1000, 0"),
        (bpf(22, bytes(4096), size=5000), "BPF_MAP_FREEZE, 0x1000, 5000"),
        (bpf(77, bytes(4)), "0x4d /* BPF_??? */, 0x1000, 4"),
        # A flag that strace has no name for does not hide the others.
        (bpf(2, struct.pack("<I4x3Q", 3, 1, 0, 0x1D)), "BPF_MAP_UPDATE_ELEM, {map_fd=3, key=0x1, "
         "value=NULL, flags=BPF_F_ALL_CPUS|BPF_F_CPU|BPF_F_LOCK|BPF_NOEXIST}, 32"),
        (bpf(1, struct.pack("<I4x3Q", 3, 1, 2, 3)), "BPF_MAP_LOOKUP_ELEM, {map_fd=3, key=0x1, "
         "value=0x2, flags=0x3 /* BPF_??? */}, 32"),
        # What changes, and what the kernel wrote.
        (
            bpf(24, struct.pack("<4Q2I2Q", 0, 0, 0, 0, 8, 3, 0, 0),
                later={ATTR: struct.pack("<4Q2I2Q", 0, 0, 0, 0, 2, 3, 0, 0)}),
            "BPF_MAP_LOOKUP_BATCH, {batch={in_batch=NULL, out_batch=NULL, keys=NULL, values=NULL, "
            "count=8, map_fd=3, elem_flags=BPF_ANY, flags=0}} => {batch={count=2}}, 56",
        ),
        (
            bpf(11, struct.pack("<2I", 1, 0), later={ATTR: struct.pack("<2I", 1, 9)}),
            "BPF_PROG_GET_NEXT_ID, {start_id=1, next_id=9}, 8",
        ),
        (
            bpf(15, struct.pack("<2IQ", 3, 80, BUFFER), memory={BUFFER: bytes(80)},
                later={ATTR: struct.pack("<2IQ", 3, 40, BUFFER)}),
            "BPF_OBJ_GET_INFO_BY_FD, {info={bpf_fd=3, info_len=80 => 40, info=0x2000}}, 16",
        ),
        (
            bpf(15, struct.pack("<2IQ", 3, 28, BUFFER), memory={BUFFER: bytes(28)},
                later={BUFFER: struct.pack("<6I4s", 1, 5, 4, 8, 10, 1, b"hash")},
                fds=[FdFact(3, ENTRY, "map", {"map_id": 5})]),
            "BPF_OBJ_GET_INFO_BY_FD, {info={bpf_fd=3, info_len=28, "
            "info={type=BPF_MAP_TYPE_HASH, id=5, key_size=4, value_size=8, max_entries=10, "
            'map_flags=BPF_F_NO_PREALLOC, name="hash"}}}, 16',
        ),
        # A link's variants, and what the attach type makes of its union.
        (bpf(28, struct.pack("<5I", 3, 1, 37, 0, 7)), "BPF_LINK_CREATE, {link_create={prog_fd=3, "
         'target_ifindex=if_nametoindex("lo"), attach_type=BPF_XDP, flags=0}, '
         r'extra_data="\x07\x00\x00\x00" /* bytes 16..19 */}, 20'),
        (bpf(28, struct.pack("<4I2Q", 3, 4, 46, 0x28, 7, 8)), "BPF_LINK_CREATE, "
         "{link_create={prog_fd=3, target_ifindex=4, attach_type=BPF_TCX_INGRESS, "
         "flags=BPF_F_BEFORE|BPF_F_ID, tcx={relative_id=7, expected_revision=0x8}}}, 32"),
        (
            bpf(28, struct.pack("<4I2I3Q", 3, 0, 42, 0, 1, 3, BUFFER, 0, 0x9000),
                memory={BUFFER: struct.pack("<3Q", 0x3000, 0, 0x4000), 0x3000: b"vfs_read\0",
                        0x4000: b"", 0x9000: struct.pack("<2Q", 1, 0)}),
            "BPF_LINK_CREATE, {link_create={prog_fd=3, target_fd=0, "
            "attach_type=BPF_TRACE_KPROBE_MULTI, flags=0, "
            "kprobe_multi={flags=BPF_F_KPROBE_MULTI_RETURN, cnt=3, "
            'syms=["vfs_read", NULL, 0x4000], '
            "addrs=NULL, cookies=[0x1, 0, ... /* 0x9010 */]}}}, 48",
        ),
        # With common attributes, which strace does not know.
        (
            made(BPF, 22 | 1 << 16, ATTR, 4, BUFFER, 24,
                 memory={ATTR: b"\3\0\0\0", BUFFER: struct.pack("<Q4I", 0x5000, 8, 1, 0, 0)},
                 later={BUFFER: struct.pack("<Q4I", 0x5000, 8, 1, 6, 0), 0x5000: b"a log\0"}),
            "BPF_MAP_FREEZE|BPF_COMMON_ATTRS, {map_fd=3}, 4, "
            '{log_buf="a log", log_size=8, log_level=1, log_true_size=6}, 24',
        ),
        # The others.
        (
            made(OPENAT, -100 & (1 << 64) - 1, BUFFER, 0o2000101, 0o644,
                 memory={BUFFER: b"/tmp/\xe4\0"}),
            r'AT_FDCWD, "/tmp/\344", O_WRONLY|O_CREAT|O_CLOEXEC, 0644',
        ),
        (made(OPENAT, 5, 0, 0), "5, NULL, O_RDONLY"),
        (made(IOCTL, 3, 0x2400, 3), "3, PERF_EVENT_IOC_ENABLE, PERF_IOC_FLAG_GROUP|0x2"),
        (made(IOCTL, 3, 0x2402, 0xFFFFFFFF), "3, PERF_EVENT_IOC_REFRESH, -1"),
        (made(IOCTL, 3, 0x40042408, 4), "3, PERF_EVENT_IOC_SET_BPF, 4"),
        (made(IOCTL, 3, 0x2499, 4), "3, _IOC(_IOC_NONE, 0x24, 0x99, 0), 0x4"),
        (made(IOCTL, 3, 0x80082407, BUFFER, later={BUFFER: bytes(7) + b"\1"}),
         f"3, PERF_EVENT_IOC_ID, [{1 << 56}]"),
        (made(IOCTL, 3, 0x80082407, BUFFER, ret=-9, later={BUFFER: bytes(8)}),
         "3, PERF_EVENT_IOC_ID, 0x2000"),
        (made(IOCTL, 3, 0xC008240A, BUFFER, memory={BUFFER: struct.pack("<2I", 4, 0)},
              later={BUFFER: struct.pack("<6I", 4, 2, 7, 8, 0, 0)}),
         "3, PERF_EVENT_IOC_QUERY_BPF, {ids_len=4, prog_cnt=2, ids=[7, 8]}"),
    ],
)  # fmt: skip
def test_by_hand(call: Call, expected: str) -> None:
    """A line of each kind."""
    assert call.problem is None
    assert args(call) == expected


def prog_load(insns: bytes, count: int, **kwargs: Any) -> NotedCall:
    attr = struct.pack("<2I2Q2IQI", 1, count, BUFFER, 0x3000, 1, 64, 0x4000, 0x0601C0)
    memory = {BUFFER: insns, 0x3000: b"GPL\0"}
    return bpf(5, attr, memory=memory, **kwargs)


def test_instructions() -> None:
    """Every slot, with the names of its code; JMP32's too, which strace has none for."""
    slots = [(0xB7, 1, 0, 0x21), (0x6B, 0x1A, -4, 0), (0x16, 0, 2, -1), (0x0F, 0xC, 0, 0)]
    data = b"".join(struct.pack("<BBhi", *slot) for slot in slots)
    text = args(prog_load(data, 5, later={0x4000: b"processed\n\0"}))
    assert (
        "insns=[{code=BPF_ALU64|BPF_K|BPF_MOV, dst_reg=BPF_REG_1, src_reg=BPF_REG_0, off=0, "
        "imm=0x21}, {code=BPF_STX|BPF_H|BPF_MEM, dst_reg=BPF_REG_10, src_reg=BPF_REG_1, off=-4, "
        "imm=0}, {code=BPF_JMP32|BPF_K|BPF_JEQ, dst_reg=BPF_REG_0, src_reg=BPF_REG_0, off=2, "
        "imm=0xffffffff}, {code=BPF_ALU64|BPF_X|BPF_ADD, dst_reg=0xc /* BPF_REG_??? */, "
        'src_reg=BPF_REG_0, off=0, imm=0}, ... /* 0x2020 */], license="GPL"' in text
    )
    assert r'log_buf="processed\n", kern_version=KERNEL_VERSION(6, 1, 192)' in text
    assert args(prog_load(data, 4), verbose=False).count("insns=0x2000") == 1
    many = args(prog_load(data * 2000, 8000))
    assert many.count("code=") == 8000


def test_unfinished() -> None:
    """A call that never returned: what strace prints at the entry, and a question mark."""
    attr = struct.pack("<2I", 1, 0)
    assert line_of(bpf(11, attr, ret=None)) == (
        "bpf(BPF_PROG_GET_NEXT_ID, {start_id=1 <unfinished ...>) = ?"
    )
    whole = "bpf(BPF_MAP_FREEZE, {map_fd=3}, 4)"
    assert line_of(bpf(22, b"\3\0\0\0", ret=None)) == f"{whole:<40}= ?"
    perf_open = made(PERF, ATTR, 0, 0, 0, ret=None, memory={ATTR: bytes(64)})
    assert line_of(perf_open, column=0) == "perf_event_open( <unfinished ...>) = ?"
    assert "log_buf=0x4000" in line_of(prog_load(bytes(8), 1, ret=None))


def told(*steps: tuple[str, NotedCall | ProcessEvent]) -> list[str]:
    """The lines of a file in which calls run and end, and threads end."""
    out = io.StringIO()
    out.name = "out"
    renderer = strace.StraceRenderer(out, strace.Manner(column=0))
    for what, item in steps:
        getattr(renderer, what)(item)
    renderer.end(Ending())
    return out.getvalue().splitlines()


def test_cut() -> None:
    """A call in two parts that make its whole line; what was printed as it was, and changed, is
    told in the second."""
    seven, other = bpf(22, b"\3\0\0\0"), bpf(22, b"\4\0\0\0")
    other.raw.tid, other.raw.seq = 8, 2
    begun = bpf(22, b"\3\0\0\0", ret=None)
    head = "bpf(BPF_MAP_FREEZE, {map_fd=3}, 4"
    assert told(("running", begun), ("call", other), ("call", seven)) == [
        f"{head} <unfinished ...>",
        "8     bpf(BPF_MAP_FREEZE, {map_fd=4}, 4) = 0",
        "7     <... bpf resumed>) = 0",
    ]
    # Nothing comes between.
    assert told(("running", begun), ("call", seven)) == [f"{head}) = 0"]
    # Neither has an end.
    assert told(("running", begun)) == [f"{head} <unfinished ...>"]
    assert told(("running", begun), ("process", ProcessEvent(Exit(1), 0, 8, 8))) == [
        f"{head} <unfinished ...>", "8     +++ exited with 1 +++",
    ]  # fmt: skip
    assert told(("running", begun), ("call", other), ("call", begun))[2] == (
        "7     <... bpf resumed>) = ?"
    )
    asks = struct.pack("<2I", 1, 0)
    begun, ends = bpf(11, asks, ret=None), bpf(11, asks, later={ATTR: struct.pack("<2I", 1, 9)})
    assert told(("running", begun), ("call", other), ("call", ends))[::2] == [
        "bpf(BPF_PROG_GET_NEXT_ID, {start_id=1 <unfinished ...>",
        "7     <... bpf resumed>, next_id=9}, 8) = 0",
    ]
    assert told(("running", begun), ("call", other), ("call", begun))[2] == (
        "7     <... bpf resumed> <unfinished ...>) = ?"
    )
    log = {0x4000: b"processed\n\0"}
    begun, ends = prog_load(bytes(8), 1, ret=None), prog_load(bytes(8), 1, later=log)
    first, _, last = told(("running", begun), ("call", other), ("call", ends))
    assert "log_buf=0x4000, " in first
    assert last == r'7     <... bpf resumed> => {log_buf="processed\n"}) = 0'


def test_the_beginning_is_known_at_the_entry() -> None:
    """Of each recorded call: what is told before its end is how its whole text begins."""
    count = 0
    for path in sorted(FIXTURES.glob("*/trace.jsonl.gz")):
        reader = Reader(str(path))
        facts = RecordedFacts.of(reader.header)
        for item in reader:
            if isinstance(item, Fact):
                facts.learn(item.kind, item.key, item.name)
            if not isinstance(item, RawCall):
                continue
            chunks = [chunk for chunk in item.chunks if chunk.stage == ENTRY]
            fds = [fact for fact in item.fds if fact.stage == ENTRY]
            begun = decode(Running(item, chunks, fds, item.extra).as_begun(), facts)
            call = decode(item, facts)
            for manner in (strace.Manner(), strace.Manner(verbose=True, arguments=True)):
                beginning, _ = call_words(begun, manner, apart=True)
                text, whole = call_words(call, manner, apart=True)
                assert text.startswith(beginning), path
                assert whole or item.ret is None
            count += 1
    assert count > 900


@pytest.mark.parametrize(
    ("ret", "text"),
    [
        (5, "5"),
        (-errno.EPERM, "-1 EPERM (Operation not permitted)"),
        (-errno.EOPNOTSUPP, "-1 EOPNOTSUPP (Operation not supported)"),
        (-524, "-1 ENOTSUPP (Unknown error 524)"),
        (-4000, "-1 (errno 4000)"),
        (-512, "? ERESTARTSYS (To be restarted if SA_RESTART is set)"),
    ],
)
def test_result(ret: int, text: str) -> None:
    """Results and errors, and the column that they stand in."""
    call = bpf(22, b"\3\0\0\0", ret=ret)
    head = "bpf(BPF_MAP_FREEZE, {map_fd=3}, 4)"
    assert line_of(call) == f"{head:<40}= {text}"
    assert line_of(call, column=0) == f"{head} = {text}"
    head = f"[pid 9] {head}"
    assert line_of(call, column=60, prefix="[pid 9] ") == f"{head:<60}= {text}"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain", '"plain"'),
        (b'"\\', r'"\"\\"'),
        (b"\t\n\v\f\r", r'"\t\n\v\f\r"'),
        (b"\x01\x018\x017\xff", r'"\1\18\0017\377"'),
        (b"\x7f\0", r'"\177\0"'),
    ],
)
def test_quoted(data: bytes, text: str) -> None:
    """Escapes: octal, no longer than they must be."""
    assert strace.quoted(data) == text


def test_string_limit() -> None:
    """Strings are cut, and say so; paths are not."""
    attr = struct.pack("<2Q", BUFFER, 3)
    for limit, text in ((32, '"sched_switch"'), (5, '"sched"...'), (12, '"sched_switch"')):
        call = bpf(17, attr, memory={BUFFER: b"sched_switch\0"})
        assert f"name={text}," in args(call, string_limit=limit)
    path = b"p" * 300
    pinned = bpf(6, attr, memory={BUFFER: path + b"\0"})
    assert f'pathname="{path.decode()}"' in args(pinned, string_limit=5)


@pytest.mark.parametrize(
    ("ended", "text"),
    [
        (Exit(3), "+++ exited with 3 +++"),
        (Exit(signal=9), "+++ killed by SIGKILL +++"),
        (Exit(signal=11, core=True), "+++ killed by SIGSEGV (core dumped) +++"),
        (Exit(), None),
    ],
)
def test_ends(ended: Exit, text: str | None) -> None:
    """How processes end."""
    assert strace.event_line(ProcessEvent(ended, 0, 1, 1)) == text
    assert strace.event_line(ProcessEvent(Fork(2, 2), 0, 1, 1)) is None


def test_whose_line() -> None:
    """Lines say whose they are while there are several threads, in a file for good."""
    for name, expected in (
        ("<stderr>", ["bpf(", "[pid     7] bpf(", "[pid     8] +++ exited", "bpf("]),
        ("out", ["bpf(", "7     bpf(", "8     +++ exited", "7     bpf("]),
    ):
        out = io.StringIO()
        out.name = name
        renderer = strace.StraceRenderer(out, strace.Manner(column=0))
        call = bpf(22, b"\3\0\0\0")
        renderer.call(call)
        renderer.process(ProcessEvent(Fork(8, 8), 0, 7, 7))
        renderer.call(call)
        renderer.process(ProcessEvent(Exit(0), 0, 8, 8))
        renderer.call(call)
        lines = out.getvalue().splitlines()
        assert [line.startswith(head) for line, head in zip(lines, expected, strict=True)] == (
            [True] * 4
        ), lines


def test_every_command_has_a_row() -> None:
    """Rows name only fields that are declared, and no command is without one."""
    for number in bpf_attr.COMMANDS:
        assert names.bpf_cmd[number].removeprefix("BPF_") in strace.ROWS
    for name in strace.ROWS:
        assert row_of(name).end > 0
    for name in strace.LINK_ROWS:
        assert row_of("LINK_CREATE", name, "link_create.").end >= 20


def words_of(name: str) -> set[str]:
    """The fields that a row prints, those of a link's variants with them."""
    words = list(row_of(name).words)
    if name == "LINK_CREATE":
        for variant in strace.LINK_ROWS:
            words += row_of(name, variant, "link_create.").words
    return {word.name for word in words if word.kind == "field"}


@pytest.mark.parametrize("name", strace.ROWS)
def test_every_field_is_in_its_row(name: str) -> None:
    """Or among those that strace does not print."""
    of = strace.ROWS[name].removeprefix("=") if strace.ROWS[name].startswith("=") else name
    exempt = set(rows.NOT_SHOWN.get(of, "").split())
    fields = {path for path in row_of(name).places if path.rpartition(".")[2] not in ("_", "_pad")}
    assert fields - words_of(name) == exempt


def test_every_struct_has_a_row_or_a_reason() -> None:
    """Those that pointers lead to; bpf_attr's are by command."""
    behind = {ctype for ctype in STRUCTS if not ctype.startswith("bpf_attr")}
    of_rows = {layout_of(struct_).ctype for struct_ in rows.STRUCTS.values()}
    assert behind - of_rows == set(rows.NO_ROW)
    assert {"bpf_prog_info", "perf_event_attr"} <= of_rows


def test_every_kind_of_link_has_a_row() -> None:
    """By the first field of its part of the union."""
    first = {layout_of(part).slots[0].name for part in bpf_link.VARIANTS.values()}
    first.add(layout_of(bpf_link.CGROUP).slots[0].name)
    assert first | {"cgroup_plain"} == set(strace.LINK_ROWS)


def test_every_ioctl_has_a_format() -> None:
    assert set(rows.IOCTLS) == set(perf_ioctl.REQUESTS)


def test_every_call_has_a_row_or_is_shown_in_numbers() -> None:
    assert set(calls.CALLS) | calls.AS_NUMBERS == set(syscalls.SYSCALLS)
    assert not set(calls.CALLS) & calls.AS_NUMBERS


@pytest.mark.parametrize("name", calls.CALLS)
def test_every_argument_is_printed(name: str) -> None:
    """As numbers, too, where nothing can be read; but what bpf has with BPF_COMMON_ATTRS only."""
    slots = [slot.name for slot in layout_of(syscalls.SYSCALLS[name].args).slots]
    assert calls.ARGUMENTS[name] == len([slot for slot in slots if slot not in ("_", "common")])


@pytest.mark.parametrize("seed", range(20))
def test_hostile(seed: int) -> None:
    """No bytes make the renderer raise, at any size, with any part unreadable."""
    import random

    rand = random.Random(seed)
    for _ in range(300):
        nr = rand.choice((BPF, BPF, BPF, PERF, IOCTL, OPENAT))
        pieces = {
            addr: rand.randbytes(rand.choice((0, 1, 8, 30, 64, 200)))
            for addr in (ATTR, BUFFER, 0x3000)
        }
        data = bytearray(pieces[ATTR])
        for at in range(0, len(data) - 8, 8):
            if rand.random() < 0.6:
                struct.pack_into("<Q", data, at, rand.choice((0, 1, 5, BUFFER, 0x3000, 40)))
        pieces[ATTR] = bytes(data)
        request = rand.choice((*perf.perf_event_ioc, 0x2499))
        first = {BPF: rand.randrange(42), PERF: ATTR, IOCTL: 3, OPENAT: 3}[nr]
        second = {BPF: ATTR, IOCTL: request}.get(nr, BUFFER)
        third = rand.choice((len(data), 3, 4096)) if nr == BPF else rand.choice((0, ATTR, BUFFER))
        fds = [FdFact(number, ENTRY, rand.choice(("map", "prog")), {}) for number in (0, 1, 5)]
        call = made(
            nr, first, second, third, rand.randrange(8), ret=rand.choice((0, 3, -7, -22, None)),
            memory=pieces, later={ATTR: rand.randbytes(200)}, fds=fds,
        )  # fmt: skip
        line = line_of(call, verbose=rand.random() < 0.8)
        assert "\n" not in line
        assert line.isascii()
