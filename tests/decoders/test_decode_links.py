"""Links and what the kernel tells of them: what this machine's kernel does not have, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from decoders.raw import FdFact
from decoders.uapi import const, names
from decoders.values import (
    Fd,
    Int,
)
from tests.support.by_hand import Room, bpf, built, plain, u32s, u64s
from tests.support.made_up import FDS

ENOSPC = 28


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


@pytest.mark.parametrize(
    "kind", ["TRACE_FENTRY_MULTI", "TRACE_FEXIT_MULTI", "TRACE_FSESSION_MULTI"]
)
def test_tracing_multi(kind: str) -> None:
    prefix = "link_create__tracing_multi__"
    shown = attach(
        kind,
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
    assert FDS[14][1]["prog_type"] == const.BPF_PROG_TYPE_EXT
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
