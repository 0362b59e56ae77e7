"""``--style strace=7.2`` and the options that shape lines: as strace 7.2 printed the same calls.

Each expected text is strace 7.2's own, of a call of tests/tracees/strace_workload.py with these
bytes; tools/strace_suite.py compares whole runs, for which that release has to be built.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from typing import Any

import pytest

from bpftrace_sys.render import strace
from bpftrace_sys.render.strace import constants
from decoders.call import Call
from decoders.raw import ENTRY, EXIT, FdFact
from decoders.uapi import names
from tests.render.test_style_strace import ATTR, BUFFER, IOCTL, OPENAT, PERF, bpf, made


def text(call: Call, **options: Any) -> str:
    """The call's line, without padding."""
    return strace.call_line(call, strace.Manner(column=0, **options))


EXACT: dict[str, Any] = {"release": "7.2", "verbose": True}
INSN = struct.pack("<BBhi", 0x16, 0, 2, 7) + struct.pack("<BBhi", 0x1E, 0x21, 1, 0)
TRACING = struct.pack("<4I4I", 99, 98, 23, 0x38, 5, 6, 7, 8)
LSM_CGROUP = struct.pack("<4I4I", 99, 98, 43, 0x38, 5, 6, 7, 8)
ITER = struct.pack("<4IQI", 0, 0, 28, 0, BUFFER, 5)
DEFERRED = struct.pack("<2I4QQ2I2Q", 1, 64, 9, 0, 0, 0, 1 << 40 | 1 << 38, 0, 0, 0, 0)
QUERY = struct.pack("<4IQ2I", 3, 4, 6, 7, BUFFER, 8, 9) + bytes(16)
WORDS = "".join(f"\\x0{number}\\x00\\x00\\x00" for number in (5, 6, 7, 8))
LINK_TAIL = f'extra_data="{WORDS}"'


@pytest.mark.parametrize(
    ("call", "part", "plain"),
    [
        (bpf(0, struct.pack("<5I", 2, 4, 8, 1, 0xC0DEC000)),
         "map_flags=0xc0dec000 /* BPF_F_??? */}", "map_flags=BPF_F_VTYPE_BTF_OBJ_FD|"),
        (bpf(5, struct.pack("<2I2Q", 1, 2, BUFFER, 0), memory={BUFFER: INSN}),
         "{code=BPF_JMP32|0x10 /* BPF_??? */, dst_reg=BPF_REG_0, src_reg=BPF_REG_0, off=2, "
         "imm=0x7}, {code=BPF_JMP32|0x18 /* BPF_??? */, dst_reg=BPF_REG_1", "BPF_JMP32|BPF_K"),
        (bpf(5, struct.pack("<2I2Q2IQ", 1, 0, 0, 0, 1, 64, BUFFER), memory={BUFFER: b"old\0"},
             later={BUFFER: b"processed 2 insns\0"}), 'log_buf="old"}', 'log_buf="processed'),
        (bpf(28, TRACING, ret=-9),
         "flags=BPF_F_BEFORE|BPF_F_AFTER|BPF_F_ID}, " + LINK_TAIL + " /* bytes 16..31 */}, 32)"
         " = -1 EBADF (Bad file descriptor)", "tracing={target_btf_id=5, cookie=0x800000007}"),
        (bpf(28, LSM_CGROUP, ret=-9), "attach_type=BPF_LSM_CGROUP, flags="
         "BPF_F_BEFORE|BPF_F_AFTER|BPF_F_ID}, " + LINK_TAIL, "cgroup={relative_id=5"),
        (bpf(28, ITER, ret=-22, memory={BUFFER: struct.pack("<5i", 0, 42, 314159265, -2, -1)}),
         "iter_info=[{map={map_fd=0}}, {map={map_fd=42}}, {map={map_fd=314159265}}, "
         "{map={map_fd=-2}}, {map={map_fd=-1}}], iter_info_len=5}}, 28)",
         "iter_info=[{map={map_fd=0}}], iter_info_len=5"),
        (made(PERF, ATTR, 0, 0xFFFFFFFF, 0xFFFFFFFF, 8, memory={ATTR: DEFERRED}, ret=-22),
         "sigtrap=0, __reserved_1=0x5 /* Bits 63..38 */, wakeup_events=0",
         "sigtrap=0, defer_callchain=1, __reserved_1=0x1 /* Bits 63..40 */"),
        (bpf(10, struct.pack("<4I2Q2I", 3, 0, 14, 0, BUFFER, 0, 1, 0),
             later={ATTR: struct.pack("<4I2Q2I", 3, 7, 14, 14, BUFFER, 0, 1, 44)}),
         "retval=0, data_size_in=14, data_size_out=0, data_in=0x2000, data_out=NULL, repeat=1, "
         "duration=0}}", "retval=0 => 7, "),
        (bpf(20, QUERY, ret=-22, later={BUFFER: b"buffer\0"}),
         'buf_len=7, buf="buffer", prog_id=8', "buf_len=7, buf="),
        (bpf(22 | 1 << 16, b"\3\0\0\0"), "bpf(0x10016 /* BPF_??? */, 0x1000, 4)",
         "bpf(BPF_MAP_FREEZE|BPF_COMMON_ATTRS, {map_fd=3}, 4"),
    ],
)  # fmt: skip
def test_to_the_byte(call: Call, part: str, plain: str) -> None:
    """Where plain ``--style strace`` knows more, the release has its own."""
    assert part in text(call, **EXACT)
    assert plain in text(call, verbose=True)


def test_without_v() -> None:
    """Abbreviated: instructions, arrays, flags that are not set, what follows the known fields."""
    load = bpf(5, struct.pack("<2I2Q", 1, 2, BUFFER, 0), memory={BUFFER: INSN})
    assert text(load) == (
        "bpf(BPF_PROG_LOAD, {prog_type=BPF_PROG_TYPE_SOCKET_FILTER, insn_cnt=2, insns=0x2000, "
        "license=NULL}, 24) = 0"
    )
    event = made(PERF, ATTR, 0, 0xFFFFFFFF, 0xFFFFFFFF, 8, memory={ATTR: DEFERRED}, ret=-22)
    assert text(event, release="7.2") == (
        "perf_event_open({type=PERF_TYPE_SOFTWARE, size=PERF_ATTR_SIZE_VER0, "
        "config=PERF_COUNT_SW_DUMMY, sample_period=0, sample_type=0, read_format=0, "
        "precise_ip=0 /* arbitrary skid */, __reserved_1=0x5 /* Bits 63..38 */, ...}, 0, -1, -1, "
        "PERF_FLAG_FD_CLOEXEC) = -1 EINVAL (Invalid argument)"
    )
    assert "{map_fd=3, ...}, 20)" in text(bpf(22, struct.pack("<5I", 3, 0, 0, 0, 1)))
    ids = {ATTR: struct.pack("<2I", 40, 40) + bytes(160)}
    query = made(IOCTL, 3, 0xC008240A, ATTR, memory=ids, later=ids)
    assert text(query).endswith(f"ids=[{'0, ' * 32}...]}}) = 0")
    assert text(query, verbose=True).endswith(f"ids=[{'0, ' * 39}0]}}) = 0")
    short = made(IOCTL, 3, 0xC008240A, ATTR, memory=ids, later={ATTR: struct.pack("<2I", 40, 40)})
    assert text(short).endswith("prog_cnt=40, ids=0x1008}) = 0")


MAP = bpf(0, struct.pack("<4I3I", 1, 4, 8, 1, 4, 0, 0xFFFFFFFF), ret=5)
OPENED = made(OPENAT, -100 & (1 << 64) - 1, BUFFER, 0o2000000, memory={BUFFER: b"/x\0"}, ret=3)


@pytest.mark.parametrize(
    ("call", "options", "line"),
    [
        (MAP, {"constants": "raw"}, "bpf(0, {map_type=0x1, key_size=4, value_size=8, max_entries=1,"
         " map_flags=0x4, inner_map_fd=0, numa_node=4294967295}, 28) = 5"),
        (MAP, {"constants": "verbose"}, "bpf(0 /* BPF_MAP_CREATE */, {map_type=0x1 "
         "/* BPF_MAP_TYPE_HASH */, key_size=4, value_size=8, max_entries=1, map_flags=0x4 /* "
         "BPF_F_NUMA_NODE */, inner_map_fd=0, numa_node=4294967295 /* NUMA_NO_NODE */}, 28) = 5"),
        (MAP, {"raw": frozenset({"bpf"})}, "bpf(0, 0x1000, 0x1c) = 0x5"),
        (MAP, {"undecoded": frozenset({"bpf"})}, "bpf(BPF_MAP_CREATE, 0x1000, 28) = 5"),
        (bpf(22, b"\3\0\0\0"), {"arguments": True},
         "bpf(cmd=BPF_MAP_FREEZE, attr={map_fd=3}, size=4) = 0"),
        (OPENED, {}, 'openat(AT_FDCWD, "/x", O_RDONLY|O_CLOEXEC) = 3'),
        (OPENED, {"constants": "raw"}, 'openat(-100, "/x", 0x80000) = 3'),
        (OPENED, {"constants": "verbose", "arguments": True},
         'openat(dirfd=-100 /* AT_FDCWD */, pathname="/x", flags=0x80000 /* O_RDONLY|O_CLOEXEC */)'
         " = 3"),
        (made(IOCTL, 3, 0x2499, 5, ret=-25), {"constants": "verbose", "arguments": True},
         "ioctl(fd=3, op=0x2499 /* _IOC(_IOC_NONE, 0x24, 0x99, 0) */, argp=0x5)"
         " = -1 ENOTTY (Inappropriate ioctl for device)"),
    ],
)  # fmt: skip
def test_options(call: Call, options: Mapping[str, Any], line: str) -> None:
    assert text(call, **options) == line


def test_what_fds_are() -> None:
    """-y has the path that /proc gives, escaped; -yy the device, too."""
    facts = [
        FdFact(3, ENTRY, "map", {"map_id": 7}),
        FdFact(1, ENTRY, "file", {"path": "/dev/null", "device": "char 1:3"}),
        FdFact(-100, ENTRY, "file", {"path": "/tmp/\x1b[2J<\">"}),
        FdFact(5, EXIT, "file", {"path": "socket:[4242]"}),
    ]
    path = frozenset({"path"})
    made_ = bpf(0, struct.pack("<4I2I", 1, 4, 8, 1, 0, 1), ret=5, fds=facts)
    assert text(made_, fds=path) == (
        "bpf(BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_HASH, key_size=4, value_size=8, max_entries=1,"
        " map_flags=0, inner_map_fd=1</dev/null>}, 24) = 5<socket:[4242]>"
    )
    assert "inner_map_fd=1</dev/null<char 1:3>>" in text(made_, fds=path | {"dev"})
    freeze = bpf(22, b"\3\0\0\0", fds=facts)
    assert text(freeze, fds=path) == "bpf(BPF_MAP_FREEZE, {map_fd=3<anon_inode:bpf-map>}, 4) = 0"
    name = {BUFFER: b"x\0"}
    opened = made(OPENAT, -100 & (1 << 64) - 1, BUFFER, 0, memory=name, fds=facts, ret=5)
    folder = r"AT_FDCWD</tmp/\33[2J\74\"\76>"
    assert text(opened, fds=path).startswith(f'openat({folder}, "x", O_RDONLY)')


def test_injected() -> None:
    call = bpf(22, b"\3\0\0\0", ret=42)
    call.raw.extra = call.raw.extra._replace(injected=True)
    assert text(call) == "bpf(BPF_MAP_FREEZE, {map_fd=3}, 4) = 42 (INJECTED)"
    call = bpf(22, b"\3\0\0\0", ret=-errno.EPERM)
    call.raw.extra = call.raw.extra._replace(injected=True)
    assert text(call).endswith(" = -1 EPERM (Operation not permitted) (INJECTED)")
    # retval=-1: no error, but a number; of a command that makes an fd a signed one.
    call.raw.extra = call.raw.extra._replace(as_value=True)
    assert text(call).endswith("{map_fd=3}, 4) = 18446744073709551615 (INJECTED)")
    made_ = bpf(0, struct.pack("<5I", 1, 4, 8, 1, 0), ret=-1)
    made_.raw.extra = call.raw.extra
    assert text(made_).endswith("map_flags=0}, 20) = -1 (INJECTED)")


def test_results_that_strace_takes_for_fds() -> None:
    """OBJ_PIN's, which is none, with strace=7.2 only; none of an fd that the call itself made."""
    facts = [FdFact(0, ENTRY, "file", {"path": "/dev/null"}), FdFact(5, EXIT, "map", {"map_id": 1})]
    path = frozenset({"path"})
    pin = bpf(6, struct.pack("<Q2I", 0, 99, 0), ret=0, fds=facts)
    assert text(pin, fds=path, release="7.2").endswith("= 0</dev/null>")
    assert text(pin, fds=path).endswith(" = 0")
    inner = bpf(0, struct.pack("<6I", 12, 4, 4, 1, 0, 5), ret=5, fds=facts)
    assert text(inner, fds=path).endswith("inner_map_fd=5}, 24) = 5<anon_inode:bpf-map>")


def test_the_names_that_a_release_lacks_are_names_of_ours() -> None:
    for table, lacking in constants.LACKING.items():
        assert set(lacking.split()) <= set(vars(names)[table].values())
