"""Calls put together by hand: what this machine's kernel, CPU or devices do not have.

An attr is built from the kernel's layouts by the names of its fields; what the
declarations make of it is compared with what the kernel's headers and sources
say that it means.
"""

from __future__ import annotations

import struct
from typing import Any

import pytest

from decoders import arch as arches
from decoders.declare import perf_ioctl
from decoders.decode import Call, decode
from decoders.raw import AUDIT_ARCH_AARCH64, AUDIT_ARCH_I386, AUDIT_ARCH_X86_64, FdFact
from decoders.uapi import const, names, perf
from decoders.uapi.layouts import LAYOUTS, SIZES
from decoders.values import (
    EMPTY,
    NOT_WRITTEN,
    NULL,
    Absent,
    Array,
    Bytes,
    Changed,
    Fd,
    Flags,
    Int,
    Name,
    Pointer,
    Struct,
    Text,
    Value,
)
from tests.support.made_up import FDS, Facts, Memory, record

ENOSPC = 28


class Room:
    """Memory of the tracee, filled piece by piece."""

    def __init__(self) -> None:
        self.regions: dict[int, bytes] = {}
        self._next = 0x7F0000000000

    def put(self, data: bytes) -> int:
        """The address of a copy of these bytes; nothing that is mapped follows."""
        addr = self._next
        self._next += (len(data) + 0x1FFF) & ~0xFFF
        self.regions[addr] = data
        return addr

    def memory(self) -> Memory:
        """As it is now."""
        return Memory(dict(self.regions))


def built(layout: str, room: Room | None = None, **fields: Any) -> bytes:
    """A struct from its fields (``link_create__flags``); bytes are put behind pointers."""
    members = {member.path.replace(".", "__"): member for member in LAYOUTS[layout]}
    data = bytearray(SIZES[layout])
    for name, value in fields.items():
        member = members[name]
        if member.bit_size is not None:
            shift = member.bit_offset or 0
            old = int.from_bytes(data[member.offset : member.offset + member.size], "little")
            value = old | value << shift
        if isinstance(value, bytes) and not member.ctype.startswith("char["):
            assert room is not None
            value = room.put(value)
        if isinstance(value, int):
            value = (value & (1 << 8 * member.size) - 1).to_bytes(member.size, "little")
        data[member.offset : member.offset + len(value)] = value
    return bytes(data)


def bpf(
    cmd: str,
    *,
    ret: int | None = 0,
    room: Room | None = None,
    after: dict[str, Any] | None = None,
    size: int | None = None,
    arch: int = AUDIT_ARCH_X86_64,
    extra: tuple[int, int] = (0, 0),
    flags: int = 0,
    **fields: Any,
) -> Call:
    """A decoded bpf(); ``after``: the fields that the kernel changed in the attr."""
    room = room or Room()
    attr = built("bpf_attr", room, **fields)
    number = getattr(const, f"BPF_{cmd}") | flags
    addr = room.put(attr)
    before = room.memory()
    changed = dict(fields)
    changed.update(after or {})
    raws = {
        name: value
        for name, value in changed.items()
        if not isinstance(value, bytes) or name.endswith("name")
    }
    fresh = bytearray(attr)
    for member in LAYOUTS["bpf_attr"]:
        name = member.path.replace(".", "__")
        if name in (after or {}):
            fresh[member.offset : member.offset + member.size] = (
                raws[name] & (1 << 8 * member.size) - 1
            ).to_bytes(member.size, "little")
    room.regions[addr] = bytes(fresh)
    args = (number, addr, size or len(attr), *extra, 0)
    nr = arches.number(arch, "bpf")
    raw = record(arch, nr, args, before, None if ret is None else room.memory(), ret or 0)
    call = decode(raw, Facts())
    assert call.problem is None
    return call


def plain(value: Value | None) -> Any:
    """A value as Python's own: struct as dict, array as list, names as str."""
    if isinstance(value, Pointer):
        return plain(value.value)
    if isinstance(value, Changed):
        return plain(value.after)
    if isinstance(value, Struct):
        return {name: plain(member) for name, member in value.fields}
    if isinstance(value, Array):
        return [plain(item) for item in value.items]
    if isinstance(value, Name):
        return value.name if value.name is not None else value.value
    if isinstance(value, Flags):
        return [*value.names, *([value.rest] if value.rest else [])]
    if isinstance(value, Int | Fd):
        return value.value
    if isinstance(value, Text | Bytes):
        return value.data
    if isinstance(value, Absent):
        return None if value.reason == NULL else value.reason
    return value


def u32s(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def u64s(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


# ---------------------------------------------------------------- links


def attach(kind: str, room: Room | None = None, **fields: Any) -> dict[str, Any]:
    """What a LINK_CREATE shows, without its first four fields."""
    fields.setdefault("link_create__prog_fd", 5)
    number = getattr(const, f"BPF_{kind}")
    call = bpf("LINK_CREATE", room=room, link_create__attach_type=number, **fields)
    shown = plain(call.attr("attr", "link_create"))
    assert shown.pop("attach_type") == f"BPF_{kind}"
    for name in ("prog_fd", "target_fd", "target_ifindex", "flags"):
        shown.pop(name, None)
    return dict(shown)


@pytest.mark.parametrize("kind", ["TRACE_KPROBE_MULTI", "TRACE_KPROBE_SESSION"])
def test_kprobe_multi(kind: str) -> None:
    """Names behind an array of pointers, then addresses; cookies beside either."""
    room = Room()
    symbols = u64s(room.put(b"vfs_read\0"), room.put(b"vfs_write\0"), 0)
    prefix = "link_create__kprobe_multi__"
    shown = attach(
        kind, room,
        **{f"{prefix}syms": symbols, f"{prefix}cnt": 3, f"{prefix}cookies": u64s(1, 2, 3),
           f"{prefix}flags": 1},
    )  # fmt: skip
    assert shown == {
        "kprobe_multi": {
            "flags": ["BPF_F_KPROBE_MULTI_RETURN"],
            "cnt": 3,
            "syms": [b"vfs_read", b"vfs_write", None],
            "addrs": None,
            "cookies": [1, 2, 3],
        }
    }
    shown = attach(kind, **{f"{prefix}addrs": u64s(0xFFFF0000), f"{prefix}cnt": 1})
    assert shown["kprobe_multi"]["addrs"] == [0xFFFF0000]


@pytest.mark.parametrize("kind", ["TRACE_UPROBE_MULTI", "TRACE_UPROBE_SESSION"])
def test_uprobe_multi(kind: str) -> None:
    prefix = "link_create__uprobe_multi__"
    shown = attach(
        kind,
        **{f"{prefix}path": b"/lib/libc.so\0", f"{prefix}offsets": u64s(16, 32),
           f"{prefix}ref_ctr_offsets": u64s(1, 2), f"{prefix}cookies": u64s(3, 4),
           f"{prefix}cnt": 2, f"{prefix}flags": 1, f"{prefix}pid": 77},
    )  # fmt: skip
    assert shown["uprobe_multi"] == {
        "path": b"/lib/libc.so", "offsets": [16, 32], "ref_ctr_offsets": [1, 2],
        "cookies": [3, 4], "cnt": 2, "flags": ["BPF_F_UPROBE_MULTI_RETURN"], "pid": 77,
        "path_fd": 0,
    }  # fmt: skip
    call = bpf(
        "LINK_CREATE", link_create__attach_type=getattr(const, f"BPF_{kind}"),
        **{f"{prefix}flags": 2, f"{prefix}path_fd": 11},
    )  # fmt: skip
    found = call.attr("attr", "link_create", "uprobe_multi", "path_fd")
    assert isinstance(found, Fd)
    assert found.fact == FdFact(11, 0, *FDS[11])


@pytest.mark.parametrize("which", ["FENTRY", "FEXIT", "FSESSION"])
def test_tracing_multi(which: str) -> None:
    prefix = "link_create__tracing_multi__"
    shown = attach(
        f"TRACE_{which}_MULTI",
        **{f"{prefix}ids": u32s(5, 6), f"{prefix}cookies": u64s(7, 8), f"{prefix}cnt": 2},
    )  # fmt: skip
    assert shown == {"tracing_multi": {"ids": [5, 6], "cookies": [7, 8], "cnt": 2}}


@pytest.mark.parametrize(
    "kind", ["TRACE_FENTRY", "TRACE_FEXIT", "MODIFY_RETURN", "LSM_MAC", "TRACE_RAW_TP",
             "TRACE_FSESSION"],
)  # fmt: skip
def test_tracing(kind: str) -> None:
    shown = attach(
        kind, link_create__tracing__target_btf_id=9, link_create__tracing__cookie=0xC0
    )
    assert shown == {"tracing": {"target_btf_id": 9, "cookie": 0xC0}}


def test_extension() -> None:
    """An extension's attach type is 0, which is a cgroup's: the program tells."""
    fields = {"link_create__tracing__target_btf_id": 9, "link_create__tracing__cookie": 1}
    call = bpf("LINK_CREATE", link_create__prog_fd=14, link_create__target_fd=5, **fields)
    assert plain(call.attr("attr", "link_create", "tracing")) == {"target_btf_id": 9, "cookie": 1}
    call = bpf("LINK_CREATE", link_create__prog_fd=5, link_create__target_fd=11, **fields)
    assert call.attr("attr", "link_create", "tracing") is None
    assert call.attr("attr", "link_create", "cgroup") is not None


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("TCX_INGRESS", "tcx"), ("TCX_EGRESS", "tcx"), ("NETKIT_PRIMARY", "netkit"),
        ("NETKIT_PEER", "netkit"), ("CGROUP_INET_EGRESS", "cgroup"), ("LSM_CGROUP", "cgroup"),
    ],
)  # fmt: skip
def test_links_in_an_order(kind: str, name: str) -> None:
    """BPF_F_ID says whether the neighbour is an fd or an id."""
    flags = const.BPF_F_BEFORE | const.BPF_F_ID
    fields = {f"link_create__{name}__relative_id": 42, f"link_create__{name}__expected_revision": 3}
    assert attach(kind, link_create__flags=flags, **fields) == {
        name: {"relative_id": 42, "expected_revision": 3}
    }
    fields = {f"link_create__{name}__relative_fd": 5}
    assert attach(kind, link_create__flags=const.BPF_F_BEFORE, **fields) == {
        name: {"relative_fd": 5, "expected_revision": 0}
    }


@pytest.mark.parametrize(
    "kind", ["XDP", "SK_LOOKUP", "FLOW_DISSECTOR", "SK_MSG_VERDICT", "STRUCT_OPS"]
)
def test_links_without_more(kind: str) -> None:
    assert attach(kind) == ({} if kind != "STRUCT_OPS" else {"map_fd": 5})


@pytest.mark.parametrize(
    ("prog", "data", "shown"),
    [
        (5, u32s(77, 0, 0), {"task": {"tid": 77, "pid": 0, "pid_fd": 0}}),
        (16, u32s(2, 11, 0, 0), {"cgroup": {"order": "BPF_CGROUP_ITER_DESCENDANTS_PRE",
                                           "cgroup_fd": 11, "cgroup_id": 0}}),
        (0, u32s(3), {"map": {"map_fd": 3}}),
    ],
)  # fmt: skip
def test_iterators(prog: int, data: bytes, shown: dict[str, Any]) -> None:
    """By the target of the program; a map's fd is the guess where that is unknown."""
    found = attach(
        "TRACE_ITER", link_create__prog_fd=prog, link_create__iter_info=data,
        link_create__iter_info_len=len(data),
    )  # fmt: skip
    assert found == {"iter_info": shown, "iter_info_len": len(data)}


def test_update_of_struct_ops() -> None:
    call = bpf(
        "LINK_UPDATE", link_update__link_fd=15, link_update__new_map_fd=3,
        link_update__old_map_fd=4, link_update__flags=4,
    )  # fmt: skip
    assert plain(call.attr("attr", "link_update")) == {
        "link_fd": 15, "new_map_fd": 3, "flags": ["BPF_F_REPLACE"], "old_map_fd": 4,
    }  # fmt: skip


# ---------------------------------------------------------------- infos


def link_info(kind: str, link: int = 7, **fields: Any) -> dict[str, Any]:
    """The part of a bpf_link_info that belongs to its type."""
    room = Room()
    number = next(n for n, name in names.bpf_link_type.items() if name == f"BPF_LINK_TYPE_{kind}")
    info = built("bpf_link_info", room, type=number, id=1, prog_id=2, **fields)
    call = bpf(
        "OBJ_GET_INFO_BY_FD", room=room, info__bpf_fd=link, info__info_len=len(info),
        info__info=info,
    )  # fmt: skip
    shown = plain(call.attr("attr", "info", "info"))
    assert (shown.pop("type"), shown.pop("id"), shown.pop("prog_id")) == (
        f"BPF_LINK_TYPE_{kind}", 1, 2,
    )  # fmt: skip
    return dict(shown)


@pytest.mark.parametrize(
    ("kind", "fields", "shown"),
    [
        ("RAW_TRACEPOINT", {"tp_name": b"sched_switch\0", "tp_name_len": 13, "cookie": 4},
         {"tp_name": b"sched_switch", "tp_name_len": 13, "cookie": 4}),
        ("TRACING", {"attach_type": 24, "target_obj_id": 1, "target_btf_id": 9, "cookie": 5},
         {"attach_type": "BPF_TRACE_FENTRY", "target_obj_id": 1, "target_btf_id": 9,
          "cookie": 5}),
        ("CGROUP", {"cgroup_id": 99, "attach_type": 1},
         {"cgroup_id": 99, "attach_type": "BPF_CGROUP_INET_EGRESS"}),
        ("NETNS", {"netns_ino": 7, "attach_type": 36},
         {"netns_ino": 7, "attach_type": "BPF_SK_LOOKUP"}),
        ("XDP", {"ifindex": 3}, {"ifindex": 3}),
        ("STRUCT_OPS", {"map_id": 3}, {"map_id": 3}),
        ("NETFILTER", {"pf": 2, "hooknum": 1, "priority": -5, "flags": 1},
         {"pf": "NFPROTO_IPV4", "hooknum": "NF_INET_LOCAL_IN", "priority": -5,
          "flags": ["BPF_F_NETFILTER_IP_DEFRAG"]}),
        ("KPROBE_MULTI", {"addrs": u64s(1, 2), "cookies": u64s(3, 4), "count": 2, "missed": 9},
         {"addrs": [1, 2], "count": 2, "flags": [], "missed": 9, "cookies": [3, 4]}),
        ("UPROBE_MULTI",
         {"path": b"/bin/x\0", "path_size": 7, "offsets": u64s(1), "cookies": u64s(3), "count": 1,
          "pid": 8},
         {"path": b"/bin/x", "offsets": [1], "ref_ctr_offsets": None, "cookies": [3],
          "path_size": 7, "count": 1, "flags": [], "pid": 8}),
        ("TRACING_MULTI",
         {"attach_type": 59, "count": 2, "btf_obj_id": 1, "ids": u32s(5, 6), "addrs": u64s(7, 8)},
         {"attach_type": "BPF_TRACE_FENTRY_MULTI", "count": 2, "btf_obj_id": 1, "ids": [5, 6],
          "addrs": [7, 8], "cookies": None}),
        ("TCX", {"ifindex": 2, "attach_type": 46},
         {"ifindex": 2, "attach_type": "BPF_TCX_INGRESS"}),
        ("NETKIT", {"ifindex": 2, "attach_type": 54},
         {"ifindex": 2, "attach_type": "BPF_NETKIT_PRIMARY"}),
        ("SOCKMAP", {"map_id": 2, "attach_type": 7},
         {"map_id": 2, "attach_type": "BPF_SK_MSG_VERDICT"}),
        ("ITER", {"target_name": b"cgroup\0", "target_name_len": 7, "cgroup__cgroup_id": 5,
                  "cgroup__order": 1},
         {"target_name": b"cgroup", "target_name_len": 7,
          "cgroup": {"cgroup_id": 5, "order": "BPF_CGROUP_ITER_SELF_ONLY"}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_link_infos(kind: str, fields: dict[str, Any], shown: dict[str, Any]) -> None:
    name = kind.lower()
    found = link_info(kind, **{f"{name}__{field}": value for field, value in fields.items()})
    found[name].pop("map", None) if kind == "ITER" else None
    assert found == {name: shown}


@pytest.mark.parametrize(
    ("number", "name", "fields", "shown"),
    [
        (1, "uprobe", {"file_name": b"/bin/x\0", "name_len": 7, "offset": 16, "cookie": 3,
                       "ref_ctr_offset": 8},
         {"file_name": b"/bin/x", "name_len": 7, "offset": 16, "cookie": 3, "ref_ctr_offset": 8}),
        (4, "kprobe", {"func_name": b"vfs_read\0", "name_len": 9, "addr": 0xFF, "missed": 2},
         {"func_name": b"vfs_read", "name_len": 9, "offset": 0, "addr": 0xFF, "missed": 2,
          "cookie": 0}),
        (5, "tracepoint", {"tp_name": b"sched:x\0", "name_len": 8, "cookie": 6},
         {"tp_name": b"sched:x", "name_len": 8, "cookie": 6}),
        (6, "event", {"config": 9, "type": 1, "cookie": 6},
         {"config": 9, "type": "PERF_TYPE_SOFTWARE", "cookie": 6}),
    ],
)  # fmt: skip
def test_perf_link_infos(
    number: int, name: str, fields: dict[str, Any], shown: dict[str, Any]
) -> None:
    given = {f"perf_event__{name}__{field}": value for field, value in fields.items()}
    found = link_info("PERF_EVENT", perf_event__type=number, **given)
    assert found == {"perf_event": {"type": names.bpf_perf_event_type[number], name: shown}}


def test_link_that_does_not_say_its_type() -> None:
    """A caller that passes a buffer leaves the type to the kernel; its fd tells before that."""
    room = Room()
    info = built("bpf_link_info", room, iter__target_name=bytes(16), iter__target_name_len=16)
    call = bpf(
        "OBJ_GET_INFO_BY_FD", room=room, ret=-ENOSPC, info__bpf_fd=8, info__info_len=len(info),
        info__info=info,
    )  # fmt: skip
    assert plain(call.attr("attr", "info", "info", "iter", "target_name")) == b""


def test_token_info() -> None:
    room = Room()
    info = built(
        "bpf_token_info", room, allowed_cmds=1 << 5 | 1 << 0, allowed_maps=(1 << 64) - 1,
        allowed_progs=1 << 6, allowed_attachs=1 << 37,
    )  # fmt: skip
    call = bpf(
        "OBJ_GET_INFO_BY_FD", room=room, info__bpf_fd=9, info__info_len=len(info), info__info=info
    )
    found = call.attr("attr", "info", "info")
    assert plain(found) == {
        "allowed_cmds": ["BPF_MAP_CREATE", "BPF_PROG_LOAD"],
        "allowed_maps": (1 << 64) - 1,
        "allowed_progs": ["BPF_PROG_TYPE_XDP"],
        "allowed_attachs": ["BPF_XDP"],
    }
    assert call.attr("attr", "info", "info", "allowed_maps") == Int((1 << 64) - 1, 16, "any")


# ---------------------------------------------------------------- other commands


def test_values_of_one_cpu() -> None:
    """With BPF_F_CPU or BPF_F_ALL_CPUS a value is one, of its own size."""
    for flags, shown in (
        (3 << 32 | const.BPF_F_CPU, ["BPF_F_CPU", "3<<32"]),
        (const.BPF_F_ALL_CPUS, ["BPF_F_ALL_CPUS"]),
    ):
        call = bpf_elem("MAP_UPDATE_ELEM", flags)
        assert plain(call.attr("attr", "value")) == b"abc"
        assert plain(call.attr("attr", "flags")) == shown
    # Of a CPU array's 3 bytes each of 4 CPUs has 8.
    found = bpf_elem("MAP_UPDATE_ELEM", 0).attr("attr", "value")
    assert isinstance(found, Pointer)
    assert isinstance(found.value, Bytes)
    assert found.value.wanted == 32


def bpf_elem(cmd: str, flags: int) -> Call:
    """An operation on an element of the per-CPU map."""
    room = Room()
    attr = built("bpf_attr.MAP_*_ELEM", room, map_fd=4, key=u32s(0), value=b"abcdefgh", flags=flags)
    args = (getattr(const, f"BPF_{cmd}"), room.put(attr), len(attr), 0, 0, 0)
    nr = arches.number(AUDIT_ARCH_X86_64, "bpf")
    return decode(record(AUDIT_ARCH_X86_64, nr, args, room.memory(), room.memory(), 0), Facts())


def test_bloom_filter() -> None:
    """A lookup in a bloom filter passes the value and asks whether it is there."""
    for ret in (0, -2):
        call = bpf("MAP_LOOKUP_ELEM", ret=ret, map_fd=13, value=b"word")
        assert plain(call.attr("attr", "value")) == b"word"


def test_data_out_without_a_size() -> None:
    """bpf_test_finish(): a room of 0 is no limit, and what there was is in the size after."""
    call = bpf(
        "PROG_TEST_RUN", test__prog_fd=5, test__data_out=b"packet...", test__data_size_out=0,
        after={"test__data_size_out": 6},
    )  # fmt: skip
    assert plain(call.attr("attr", "test", "data_out")) == b"packet"
    call = bpf(
        "PROG_TEST_RUN", ret=-22, test__prog_fd=5, test__data_out=b"packet...",
        test__data_size_out=9,
    )  # fmt: skip
    assert plain(call.attr("attr", "test", "data_out")) == NOT_WRITTEN


def test_stream() -> None:
    """As much as the result says."""
    fields = {"prog_stream_read__stream_buf": b"hello, stream", "prog_stream_read__stream_id": 1,
              "prog_stream_read__stream_buf_len": 64}  # fmt: skip
    for ret, shown in ((5, b"hello"), (0, EMPTY)):
        call = bpf("PROG_STREAM_READ_BY_FD", ret=ret, **fields)
        assert plain(call.attr("attr", "prog_stream_read", "stream_buf")) == shown
        assert plain(call.attr("attr", "prog_stream_read", "stream_id")) == "BPF_STREAM_STDOUT"


def test_log_of_common_attrs() -> None:
    """The two further arguments, and the log that the kernel left behind them."""
    room = Room()
    log = room.put(b"array: key_size must be 4\0".ljust(64, b"\0"))
    common = room.put(built("bpf_common_attr", log_buf=log, log_size=64, log_level=1,
                            log_true_size=26))  # fmt: skip
    call = bpf("MAP_CREATE", room=room, ret=-22, map_type=2, flags=1 << 16, extra=(common, 24))
    assert call.command == "BPF_MAP_CREATE|BPF_COMMON_ATTRS"
    assert plain(call.attr("attr_common")) == {
        "log_buf": b"array: key_size must be 4", "log_size": 64, "log_level": 1,
        "log_true_size": 26,
    }  # fmt: skip
    assert plain(call.attr("size_common")) == 24
    assert bpf("MAP_CREATE", map_type=2).attr("attr_common") is None


def test_module_btf() -> None:
    """What is attached to is in the BTF of the kernel, of a module, or of a program."""
    for fd, name in ((0, "attach_prog_fd"), (5, "attach_prog_fd"), (6, "attach_btf_obj_fd")):
        call = bpf("PROG_LOAD", attach_btf_id=77, attach_prog_fd=fd)
        assert call.number("attr", name) == fd


def test_query_of_an_order() -> None:
    call = bpf(
        "PROG_QUERY", query__attach_type=const.BPF_NETKIT_PEER, query__target_ifindex=2,
        query__prog_ids=u32s(4, 5, 6), query__link_ids=u32s(7, 0, 0), query__count=3,
        after={"query__count": 1},
    )  # fmt: skip
    shown = plain(call.attr("attr", "query"))
    assert (shown["count"], shown["prog_ids"], shown["link_ids"]) == (1, [4], [7])
    assert "prog_cnt" not in shown


def test_assoc_struct_ops() -> None:
    call = bpf(
        "PROG_ASSOC_STRUCT_OPS", prog_assoc_struct_ops__map_fd=3, prog_assoc_struct_ops__prog_fd=5
    )
    assert plain(call.attr("attr", "prog_assoc_struct_ops")) == {
        "map_fd": 3, "prog_fd": 5, "flags": 0,
    }  # fmt: skip


def test_exclusive_map() -> None:
    call = bpf("MAP_CREATE", map_type=2, excl_prog_hash=bytes(range(32)), excl_prog_hash_size=32)
    assert plain(call.attr("attr", "excl_prog_hash")) == bytes(range(32))


@pytest.mark.parametrize("arch", [AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64])
def test_architectures(arch: int) -> None:
    """One attr for all: an i386 caller's pointers are 64 bits wide in it, too."""
    call = bpf("PROG_LOAD", arch=arch, prog_type=6, license=b"GPL\0", prog_name=b"same")
    assert call.command == "BPF_PROG_LOAD"
    assert plain(call.attr("attr", "license")) == b"GPL"
    assert plain(call.attr("attr", "prog_name")) == b"same"


# ---------------------------------------------------------------- perf


def event(
    arch: int = AUDIT_ARCH_X86_64,
    size: int | None = None,
    ret: int = 3,
    args: tuple[int, ...] = (0, 0, 0, 0),
    **fields: Any,
) -> Call:
    """A decoded perf_event_open."""
    room = Room()
    attr = built("perf_event_attr", room, size=144 if size is None else size, **fields)
    addr = room.put(attr)
    nr = arches.number(arch, "perf_event_open")
    raw = record(arch, nr, (addr, *args, 0), room.memory(), room.memory(), ret)
    call = decode(raw, Facts())
    assert call.problem is None
    return call


def test_probes() -> None:
    """The kprobe and uprobe PMUs, whose types are 6 and 7 here."""
    call = event(type=6, kprobe_func=b"vfs_read\0", probe_offset=16, config=1)
    assert call.attr("attr", "type") == Int(6, 10, "kprobe")
    assert plain(call.attr("attr", "kprobe_func")) == b"vfs_read"
    assert call.attr("attr", "probe_offset") == Int(16, 16)
    assert call.attr("attr", "config") == Int(1, 16, "retprobe")
    call = event(type=6, kprobe_addr=0xFFFFFFFF81000000)
    assert call.number("attr", "kprobe_addr") == 0xFFFFFFFF81000000
    assert call.attr("attr", "probe_offset") is None
    call = event(type=7, uprobe_path=b"/bin/sh\0", probe_offset=0x1234, config=0x20 << 32 | 1)
    assert plain(call.attr("attr", "uprobe_path")) == b"/bin/sh"
    assert call.attr("attr", "config") == Int(0x2000000001, 16, "retprobe, ref_ctr_offset=0x20")


@pytest.mark.parametrize(
    ("config", "name"), [(n, name) for n, name in perf.perf_hw_id.items()]
)
def test_hardware(config: int, name: str) -> None:
    """Of the only PMU, and of one among several (PERF_PMU_TYPE_SHIFT)."""
    assert plain(event(type=0, config=config).attr("attr", "config")) == name
    assert event(type=0, config=8 << 32 | config).attr("attr", "config") == Int(
        8 << 32 | config, 16, f"cpu_core<<32|{name}"
    )


def test_cache() -> None:
    triple = "PERF_COUNT_HW_CACHE_RESULT_MISS<<16|PERF_COUNT_HW_CACHE_OP_READ<<8|{}"
    level = "PERF_COUNT_HW_CACHE_LL"
    found = event(type=3, config=1 << 16 | 2).attr("attr", "config")
    assert found == Int(0x10002, 16, triple.format(level))
    found = event(type=3, config=8 << 32 | 1 << 16 | 2).attr("attr", "config")
    assert found == Int(8 << 32 | 0x10002, 16, "cpu_core<<32|" + triple.format(level))
    assert event(type=3, config=0xFF).attr("attr", "config") == Int(0xFF, 16)


@pytest.mark.parametrize(("number", "name"), list(perf.hw_breakpoint_type.items()))
def test_breakpoints(number: int, name: str) -> None:
    call = event(type=5, bp_type=number, bp_addr=0x1000, bp_len=8)
    assert plain(call.attr("attr", "bp_type")) == name
    assert plain(call.attr("attr", "bp_len")) == "HW_BREAKPOINT_LEN_8"
    assert call.number("attr", "bp_addr") == 0x1000


@pytest.mark.parametrize(
    ("arch", "mask", "shown"),
    [
        (AUDIT_ARCH_X86_64, 0b11 << 32 | 1 << 8, ["PERF_REG_X86_XMM0", "PERF_REG_X86_IP"]),
        (AUDIT_ARCH_X86_64, 1 << 63, [1 << 63]),
        (AUDIT_ARCH_I386, 1 << 7, ["PERF_REG_X86_SP"]),
        (AUDIT_ARCH_AARCH64, 1 << 32 | 1, ["PERF_REG_ARM64_X0", "PERF_REG_ARM64_PC"]),
    ],
)
def test_registers(arch: int, mask: int, shown: list[Any]) -> None:
    call = event(arch, sample_regs_user=mask, sample_regs_intr=mask)
    for name in ("sample_regs_user", "sample_regs_intr"):
        assert sorted(map(str, plain(call.attr("attr", name)))) == sorted(map(str, shown))


def test_newest_fields() -> None:
    call = event(
        type=1, config=9, aux_watermark=4096, aux_sample_size=64, aux_pause=1, sig_data=5,
        config3=6, config4=7, use_clockid=1, clockid=1, sample_max_stack=9, defer_callchain=1,
        precise_ip=2,
    )  # fmt: skip
    shown = plain(call.attr("attr"))
    wanted = {
        "aux_watermark": 4096, "aux_sample_size": 64, "aux_pause": 1, "aux_resume": 0,
        "sig_data": 5, "config3": 6, "config4": 7, "clockid": "CLOCK_MONOTONIC",
        "sample_max_stack": 9, "defer_callchain": 1, "defer_output": 0, "precise_ip": 2,
    }  # fmt: skip
    assert {name: shown[name] for name in wanted} == wanted


def test_frequency_and_watermark() -> None:
    shown = plain(event(freq=1, sample_freq=99, watermark=1, wakeup_watermark=5).attr("attr"))
    assert (shown["sample_freq"], shown["wakeup_watermark"]) == (99, 5)
    assert "sample_period" not in shown
    assert "wakeup_events" not in shown


def test_cgroup_event() -> None:
    """With PERF_FLAG_PID_CGROUP the process is a cgroup's fd."""
    call = event(args=(11, 0, 0xFFFFFFFF, const.PERF_FLAG_PID_CGROUP))
    assert isinstance(call.attr("pid"), Fd)
    assert call.fact("pid") == FdFact(11, 0, *FDS[11])
    call = event(args=(0xFFFFFFFF, 0, 0xFFFFFFFF, 0))
    assert (call.attr("pid"), call.number("group_fd")) == (Int(-1), -1)


def ioctl(request: str, arch: int, arg: int | bytes, fd: int = 10) -> Call:
    """A decoded ioctl; the number is the one of that architecture's pointers."""
    room = Room()
    table = perf.perf_event_ioc_compat32 if arch == AUDIT_ARCH_I386 else perf_ioctl.NAMES
    number = next(n for n, name in table.items() if name == request)
    if isinstance(arg, bytes):
        room._next = 0xF7000000
        arg = room.put(arg)
    nr = arches.number(arch, "ioctl")
    raw = record(arch, nr, (fd, number, arg, 0, 0, 0), room.memory(), room.memory(), 0)
    call = decode(raw, Facts())
    assert call.problem is None
    assert call.command == request
    return call


@pytest.mark.parametrize("arch", [AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64])
def test_ioctls(arch: int) -> None:
    """Of both sizes of pointers: the requests that carry one have numbers of their own."""
    found = {
        name: plain(ioctl(f"PERF_EVENT_IOC_{name}", arch, arg).attr("arg"))
        for name, arg in {
            "SET_FILTER": b"pid == 1\0",
            "ID": u64s(77),
            "PERIOD": u64s(1000),
            "QUERY_BPF": u32s(3, 2, 8, 9, 10),
            "MODIFY_ATTRIBUTES": built("perf_event_attr", size=64, type=1, config=9),
            "SET_OUTPUT": 0xFFFFFFFF,
            "SET_BPF": 5,
            "PAUSE_OUTPUT": 1,
            "REFRESH": 0xFFFFFFFF,
            "ENABLE": 1,
        }.items()
    }
    attr = found.pop("MODIFY_ATTRIBUTES")
    assert (attr["type"], attr["config"]) == ("PERF_TYPE_SOFTWARE", "PERF_COUNT_SW_DUMMY")
    assert found == {
        "SET_FILTER": b"pid == 1", "ID": {"id": 77}, "PERIOD": {"period": 1000},
        "QUERY_BPF": {"ids_len": 3, "prog_cnt": 2, "ids": [8, 9]}, "SET_OUTPUT": -1,
        "SET_BPF": 5, "PAUSE_OUTPUT": 1, "REFRESH": -1, "ENABLE": ["PERF_IOC_FLAG_GROUP"],
    }  # fmt: skip


def test_kcm() -> None:
    assert plain(ioctl("SIOCKCMATTACH", AUDIT_ARCH_X86_64, u32s(11, 5)).attr("arg")) == {
        "fd": 11, "bpf_fd": 5,
    }  # fmt: skip
    assert plain(ioctl("SIOCKCMUNATTACH", AUDIT_ARCH_X86_64, u32s(11)).attr("arg")) == {"fd": 11}
    assert plain(ioctl("SIOCKCMCLONE", AUDIT_ARCH_X86_64, u32s(11)).attr("arg")) == {"fd": 11}


def test_tun() -> None:
    for request in ("TUNSETSTEERINGEBPF", "TUNSETFILTEREBPF"):
        call = ioctl(request, AUDIT_ARCH_X86_64, struct.pack("<i", -1))
        assert plain(call.attr("arg")) == {"fd": -1}
