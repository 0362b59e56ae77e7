"""LINK_CREATE's union: one row per way that it is used, chosen by the attach type.

From link_create() and the bpf_*_link_attach() functions that it calls, in
kernel/bpf/syscall.c and their own files.
"""

from __future__ import annotations

from typing import Any, Final

from decoders.constructs import cs
from decoders.declare.bpf_fields import FD, OPT_FD, relative
from decoders.declare.fields import (
    S32,
    U32,
    U64,
    X64,
    FactField,
    FlagSet,
    MustBeZero,
    Named,
    Padding,
    this,
)
from decoders.declare.structs import CStr, In, Many, One, Pick
from decoders.uapi import names, system
from decoders.walk.measures import EXT, is_id, is_path_fd, iter_target

BTF_ID = FactField(cs.Int32ul, "btf_vmlinux")

# union bpf_iter_link_info: which member counts depends on the iterator's target,
# which only the program's attach_btf_id names.  Callers pass the whole union
# (16 bytes) or just struct map.
ITER_MAP = cs.Struct("map" / cs.Struct("map_fd" / OPT_FD))
ITER_CGROUP = cs.Struct(
    "cgroup"
    / cs.Struct(
        "order" / Named(cs.Int32ul, names.bpf_cgroup_iter_order, "bpf_cgroup_iter_order"),
        "cgroup_fd" / OPT_FD,
        "cgroup_id" / U64,
    )
)
ITER_TASK = cs.Struct("task" / cs.Struct("tid" / U32, "pid" / U32, "pid_fd" / OPT_FD))


ITER_TARGETS: Final[dict[str, Any]] = {
    "bpf_map_elem": ITER_MAP,
    "bpf_sk_storage_map": ITER_MAP,
    "sockmap": ITER_MAP,
    "cgroup": ITER_CGROUP,
    "task": ITER_TASK,
    "task_file": ITER_TASK,
    "task_vma": ITER_TASK,
}
"""By the iterator's target: those that have an attach_target of their own."""


# Of an unknown target, a map's fd is what it may be: the others came later.
ITER_INFO = Pick(iter_target, {**ITER_TARGETS, None: ITER_MAP})

ITER = cs.Struct(
    "iter_info" / In(One(ITER_INFO, size=this.iter_info_len)),
    "iter_info_len" / U32,
)
PERF_EVENT = cs.Struct("perf_event" / cs.Struct("bpf_cookie" / X64))
KPROBE_MULTI = cs.Struct(
    "kprobe_multi"
    / cs.Struct(
        "flags" / FlagSet(cs.Int32ul, names.kprobe_multi_flags, "BPF_F_KPROBE_MULTI"),
        "cnt" / U32,
        "syms" / In(Many(In(CStr(256)), this.cnt)),
        "addrs" / In(Many(FactField(cs.Int64ul, "ksym", 16), this.cnt)),
        "cookies" / In(Many(X64, this.cnt)),
    )
)
UPROBE_MULTI = cs.Struct(
    "uprobe_multi"
    / cs.Struct(
        "path" / In(CStr(4096)),
        "offsets" / In(Many(X64, this.cnt)),
        "ref_ctr_offsets" / In(Many(X64, this.cnt)),
        "cookies" / In(Many(X64, this.cnt)),
        "cnt" / U32,
        "flags" / FlagSet(cs.Int32ul, names.uprobe_multi_flags, "BPF_F_UPROBE_MULTI"),
        "pid" / U32,
        "path_fd"
        / Pick(
            is_path_fd,
            {True: cs.Struct("path_fd" / FD), False: cs.Struct("path_fd" / U32)},
        ),
    )
)
# The id is one of the BTF of the program in target_fd.
TRACING = cs.Struct(
    "tracing" / cs.Struct("target_btf_id" / U32, "_" / Padding(4), "cookie" / X64)
)
TRACING_MULTI = cs.Struct(
    "tracing_multi"
    / cs.Struct(
        "ids" / In(Many(BTF_ID, this.cnt)),
        "cookies" / In(Many(X64, this.cnt)),
        "cnt" / U32,
        "_" / Padding(4),
    )
)
NETFILTER = cs.Struct(
    "netfilter"
    / cs.Struct(
        "pf" / Named(cs.Int32ul, system.nfproto, "NFPROTO"),
        "hooknum" / Named(cs.Int32ul, system.nf_inet_hooks, "nf_inet_hooks"),
        "priority" / S32,
        "flags" / FlagSet(cs.Int32ul, names.netfilter_flags, "BPF_F_NETFILTER"),
    )
)


def _ordered(name: str) -> Any:
    """Links that stand in an order among others: tcx, netkit, cgroup."""
    return cs.Struct(
        name
        / cs.Struct("relative" / relative(is_id), "_" / Padding(4), "expected_revision" / U64)
    )


CGROUP = _ordered("cgroup")
TARGET_BTF_ID = cs.Struct("target_btf_id" / MustBeZero(U32))

VARIANTS: Final[dict[str, Any]] = {
    "BPF_TRACE_FENTRY": TRACING,
    "BPF_TRACE_FEXIT": TRACING,
    "BPF_MODIFY_RETURN": TRACING,
    "BPF_LSM_MAC": TRACING,
    "BPF_TRACE_RAW_TP": TRACING,
    "BPF_TRACE_FSESSION": TRACING,
    "BPF_TRACE_FENTRY_MULTI": TRACING_MULTI,
    "BPF_TRACE_FEXIT_MULTI": TRACING_MULTI,
    "BPF_TRACE_FSESSION_MULTI": TRACING_MULTI,
    "BPF_TRACE_ITER": ITER,
    "BPF_PERF_EVENT": PERF_EVENT,
    "BPF_TRACE_KPROBE_MULTI": KPROBE_MULTI,
    "BPF_TRACE_KPROBE_SESSION": KPROBE_MULTI,
    "BPF_TRACE_UPROBE_MULTI": UPROBE_MULTI,
    "BPF_TRACE_UPROBE_SESSION": UPROBE_MULTI,
    "BPF_NETFILTER": NETFILTER,
    "BPF_TCX_INGRESS": _ordered("tcx"),
    "BPF_TCX_EGRESS": _ordered("tcx"),
    "BPF_NETKIT_PRIMARY": _ordered("netkit"),
    "BPF_NETKIT_PEER": _ordered("netkit"),
}
"""Attach type -> what its union holds.  Cgroup types are found by their names."""
NO_VARIANT: Final = (
    "BPF_SK_SKB_STREAM_PARSER", "BPF_SK_SKB_STREAM_VERDICT", "BPF_SK_SKB_VERDICT",
    "BPF_SK_MSG_VERDICT", "BPF_LIRC_MODE2", "BPF_FLOW_DISSECTOR", "BPF_XDP", "BPF_XDP_DEVMAP",
    "BPF_XDP_CPUMAP", "BPF_SK_LOOKUP", "BPF_SK_REUSEPORT_SELECT",
    "BPF_SK_REUSEPORT_SELECT_OR_MIGRATE", "BPF_STRUCT_OPS",
)  # fmt: skip
"""Attach types whose union is not looked at. Of one that is nowhere, nobody knows what it holds."""
ROWS: Final[dict[str, Any]] = {
    **VARIANTS,
    **dict.fromkeys(NO_VARIANT, TARGET_BTF_ID),
    "cgroup": CGROUP,
    EXT: TRACING,
}
"""What LINK_CREATE's union holds, by what measures.variant() says."""
