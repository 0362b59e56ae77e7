"""What OBJ_GET_INFO_BY_FD fills in: programs, maps, BTF, links and tokens.

From include/uapi/linux/bpf.h and bpf_obj_get_info_by_fd() and the
fill_link_info functions of kernel/bpf/syscall.c and others.  The caller passes
buffers and their room inside the struct; the kernel writes how much there was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from decoders.constructs import cs
from decoders.declare.bpf_fields import (
    ATTACH_TYPE,
    FUNC_INFO,
    IFINDEX,
    LINE_INFO,
    OUT_U32,
    TOO_SMALL,
)
from decoders.declare.fields import (
    S32,
    U32,
    U64,
    X64,
    Bits,
    Chars,
    FactField,
    FlagSet,
    Named,
    NotedField,
    Num,
    Padding,
    Raw,
    this,
)
from decoders.declare.structs import Blob, CStr, InsnArray, Many, Out, Pick, kernel
from decoders.uapi import names, perf, system
from decoders.values import Int, Value
from decoders.walk.measures import (
    link_iter_target,
    link_type,
    perf_link_type,
    xlated_count,
)
from decoders.walk.scope import Scope

VMLINUX: Final = 1
"""The id of the kernel's own BTF, which is the first to be made."""
BTF_ID = FactField(cs.Int32ul, "btf_vmlinux")


class Mask(FlagSet):
    """Bit N stands for the value N of an enum; all of them for "any"."""

    def __init__(self, table: Mapping[int, str]) -> None:
        super().__init__(
            cs.Int64ul, {1 << bit: name for bit, name in table.items() if 0 <= bit < 64}
        )

    def value(self, raw: Any, scope: Scope) -> Value:
        return Int(raw, 16, "any") if raw == (1 << 64) - 1 else super().value(raw, scope)

def loaded_at(value: int, scope: Scope) -> str | None:
    """When it was, in UTC: load_time counts nanoseconds since the machine booted."""
    boot = scope.env.fact("boot", 0) if value else None
    if boot is None or not boot.isascii() or not boot.isdigit() or len(boot) > 20:
        return None
    from datetime import UTC, datetime

    try:
        at = datetime.fromtimestamp((int(boot) + value) // 1_000_000_000, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


PROG_INFO = cs.Struct(
    "type" / Named(cs.Int32ul, names.bpf_prog_type, "bpf_prog_type"),
    "id" / U32,
    "tag" / Raw(8),
    "jited_prog_len" / OUT_U32,
    "xlated_prog_len" / OUT_U32,
    "jited_prog_insns" / Out(Blob(this.jited_prog_len)),
    # Rewritten by the verifier: its maps are ids or addresses, not fds.
    "xlated_prog_insns"
    / Out(InsnArray(xlated_count, maps=False)),
    "load_time" / NotedField(cs.Int64ul, loaded_at),
    "created_by_uid" / U32,
    "nr_map_ids" / OUT_U32,
    "map_ids" / Out(Many(U32, this.nr_map_ids)),
    "name" / Chars(16),
    "ifindex" / IFINDEX,
    "_" / Bits(cs.Int32ul, ("gpl_compatible", 0, 1, None)),
    "netns_dev" / U64,
    "netns_ino" / U64,
    "nr_jited_ksyms" / OUT_U32,
    "nr_jited_func_lens" / OUT_U32,
    "jited_ksyms" / Out(Many(X64, this.nr_jited_ksyms)),
    "jited_func_lens" / Out(Many(U32, this.nr_jited_func_lens)),
    "btf_id" / U32,
    "func_info_rec_size" / OUT_U32,
    "func_info"
    / Out(
        Many(
            FUNC_INFO,
            this.nr_func_info,
            stride=this.func_info_rec_size,
        )
    ),
    "nr_func_info" / OUT_U32,
    "nr_line_info" / OUT_U32,
    "line_info"
    / Out(
        Many(
            LINE_INFO,
            this.nr_line_info,
            stride=this.line_info_rec_size,
        )
    ),
    "jited_line_info"
    / Out(Many(X64, this.nr_jited_line_info, stride=this.jited_line_info_rec_size)),
    "nr_jited_line_info" / OUT_U32,
    "line_info_rec_size" / OUT_U32,
    "jited_line_info_rec_size" / OUT_U32,
    "nr_prog_tags" / OUT_U32,
    "prog_tags" / Out(Many(cs.Struct("tag" / Raw(8)), this.nr_prog_tags)),
    "run_time_ns" / U64,
    "run_cnt" / U64,
    "recursion_misses" / U64,
    "verified_insns" / U32,
    "attach_btf_obj_id" / U32,
    # Of the kernel's own BTF, or of a module's or program's.
    "attach_btf_id"
    / FactField(
        cs.Int32ul, "btf_vmlinux", when=lambda scope: scope["attach_btf_obj_id"] == VMLINUX
    ),
    "_pad" / Padding(4),
)

MAP_INFO = cs.Struct(
    "type" / Named(cs.Int32ul, names.bpf_map_type, "bpf_map_type"),
    "id" / U32,
    "key_size" / U32,
    "value_size" / U32,
    "max_entries" / U32,
    "map_flags" / FlagSet(cs.Int32ul, names.map_flags, "BPF_F"),
    "name" / Chars(16),
    "ifindex" / IFINDEX,
    "btf_vmlinux_value_type_id" / BTF_ID,
    "netns_dev" / U64,
    "netns_ino" / U64,
    "btf_id" / U32,
    "btf_key_type_id" / U32,
    "btf_value_type_id" / U32,
    "btf_vmlinux_id" / U32,
    "map_extra" / X64,
    "hash" / Out(Blob(this.hash_size)),
    "hash_size" / U32,
    "_pad" / Padding(4),
)

BTF_INFO = cs.Struct(
    "btf" / Out(Blob(this.btf_size)),
    "btf_size" / OUT_U32,
    "id" / U32,
    "name" / Out(CStr(this.name_len), always=TOO_SMALL),
    "name_len" / OUT_U32,
    "kernel_btf" / U32,
)

TOKEN_INFO = cs.Struct(
    "allowed_cmds" / Mask(names.bpf_cmd),
    "allowed_maps" / Mask(names.bpf_map_type),
    "allowed_progs" / Mask(names.bpf_prog_type),
    "allowed_attachs" / Mask(names.bpf_attach_type),
)


def _named(name: str, *fields: Any) -> Any:
    return cs.Struct(name / cs.Struct(*fields))


def _probe(name: str, pointer: str, *fields: Any) -> Any:
    return _named(
        name,
        pointer / Out(CStr(this.name_len), always=TOO_SMALL),
        "name_len" / OUT_U32,
        *fields,
    )


UPROBE = _probe("uprobe", "file_name", "offset" / Num(cs.Int32ul, 16), "cookie" / X64,
                "ref_ctr_offset" / X64)
KPROBE = _probe("kprobe", "func_name", "offset" / Num(cs.Int32ul, 16), "addr" / X64,
                "missed" / U64, "cookie" / X64)
TRACEPOINT = _probe("tracepoint", "tp_name", "_" / Padding(4), "cookie" / X64)
EVENT = _named(
    "event",
    "config" / X64,
    "type" / Named(cs.Int32ul, perf.perf_type_id, "perf_type_id"),
    "_" / Padding(4),
    "cookie" / X64,
)


ITER_MAP = _named("map", "map_id" / U32)
ITER_TASK = _named("task", "tid" / U32, "pid" / U32)

LINK_DETAILS: Final[dict[str, Any]] = {
    "RAW_TRACEPOINT": _named(
        "raw_tracepoint",
        "tp_name" / Out(CStr(this.tp_name_len), always=TOO_SMALL),
        "tp_name_len" / OUT_U32,
        "_" / Padding(4),
        "cookie" / X64,
    ),
    "TRACING": _named(
        "tracing",
        "attach_type" / ATTACH_TYPE,
        "target_obj_id" / U32,
        "target_btf_id"
        / FactField(
            cs.Int32ul, "btf_vmlinux", when=lambda scope: scope["target_obj_id"] == VMLINUX
        ),
        "_" / Padding(4),
        "cookie" / X64,
    ),
    "CGROUP": _named("cgroup", "cgroup_id" / U64, "attach_type" / ATTACH_TYPE),
    "ITER": _named(
        "iter",
        "target_name" / Out(CStr(this.target_name_len), always=TOO_SMALL),
        "target_name_len" / OUT_U32,
        "first"
        / Pick(
            link_iter_target,
            dict.fromkeys((None, "bpf_map_elem", "bpf_sk_storage_map", "sockmap"), ITER_MAP),
            size=4,
        ),
        "second"
        / Pick(
            link_iter_target,
            {
                "cgroup": _named(
                    "cgroup",
                    "cgroup_id" / U64,
                    "order"
                    / Named(cs.Int32ul, names.bpf_cgroup_iter_order, "bpf_cgroup_iter_order"),
                ),
                "task": ITER_TASK,
                "task_file": ITER_TASK,
                "task_vma": ITER_TASK,
            },
            size=16,
        ),
    ),
    "NETNS": _named("netns", "netns_ino" / U32, "attach_type" / ATTACH_TYPE),
    "XDP": _named("xdp", "ifindex" / IFINDEX),
    "STRUCT_OPS": _named("struct_ops", "map_id" / U32),
    "NETFILTER": _named(
        "netfilter",
        "pf" / Named(cs.Int32ul, system.nfproto, "NFPROTO"),
        "hooknum" / Named(cs.Int32ul, system.nf_inet_hooks, "nf_inet_hooks"),
        "priority" / S32,
        "flags" / FlagSet(cs.Int32ul, names.netfilter_flags, "BPF_F_NETFILTER"),
    ),
    "KPROBE_MULTI": _named(
        "kprobe_multi",
        "addrs" / Out(Many(FactField(cs.Int64ul, "ksym", 16), this.count)),
        "count" / OUT_U32,
        "flags" / FlagSet(cs.Int32ul, names.kprobe_multi_flags, "BPF_F_KPROBE_MULTI"),
        "missed" / U64,
        "cookies" / Out(Many(X64, this.count)),
    ),
    "UPROBE_MULTI": _named(
        "uprobe_multi",
        "path" / Out(CStr(this.path_size)),
        "offsets" / Out(Many(X64, this.count)),
        "ref_ctr_offsets" / Out(Many(X64, this.count)),
        "cookies" / Out(Many(X64, this.count)),
        "path_size" / OUT_U32,
        "count" / OUT_U32,
        "flags" / FlagSet(cs.Int32ul, names.uprobe_multi_flags, "BPF_F_UPROBE_MULTI"),
        "pid" / U32,
    ),
    "TRACING_MULTI": _named(
        "tracing_multi",
        "attach_type" / ATTACH_TYPE,
        "count" / OUT_U32,
        "btf_obj_id" / U32,
        "_" / Padding(4),
        "ids" / Out(Many(BTF_ID, this.count)),
        "addrs" / Out(Many(X64, this.count)),
        "cookies" / Out(Many(X64, this.count)),
    ),
    "PERF_EVENT": _named(
        "perf_event",
        "type" / Named(cs.Int32ul, names.bpf_perf_event_type, "bpf_perf_event_type"),
        "_" / Padding(4),
        "probe"
        / Pick(
            perf_link_type,
            {
                "UPROBE": UPROBE,
                "URETPROBE": UPROBE,
                "KPROBE": KPROBE,
                "KRETPROBE": KPROBE,
                "TRACEPOINT": TRACEPOINT,
                "EVENT": EVENT,
            },
        ),
    ),
    "TCX": _named("tcx", "ifindex" / IFINDEX, "attach_type" / ATTACH_TYPE),
    "NETKIT": _named("netkit", "ifindex" / IFINDEX, "attach_type" / ATTACH_TYPE),
    "SOCKMAP": _named("sockmap", "map_id" / U32, "attach_type" / ATTACH_TYPE),
}
"""By the name of the link's type, without BPF_LINK_TYPE_."""

LINK_INFO = cs.Struct(
    "type" / Named(cs.Int32ul, names.bpf_link_type, "bpf_link_type"),
    "id" / U32,
    "prog_id" / U32,
    "_" / Padding(4),
    "details"
    / Pick(link_type, LINK_DETAILS),
)

for _name, _struct in (
    ("bpf_prog_info", PROG_INFO),
    ("bpf_map_info", MAP_INFO),
    ("bpf_btf_info", BTF_INFO),
    ("bpf_link_info", LINK_INFO),
    ("bpf_token_info", TOKEN_INFO),
):
    kernel(_name, _struct)

INFO: Final[dict[str, Any]] = {
    "prog": PROG_INFO,
    "map": MAP_INFO,
    "btf": BTF_INFO,
    "link": LINK_INFO,
    "token": TOKEN_INFO,
}
"""By what the fd is."""
