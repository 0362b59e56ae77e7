"""Maps that loaders create to see whether they can."""

from __future__ import annotations

import errno
from typing import Final

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.probes.verdicts import (
    ANY_FD,
    ENOTSUPP,
    Found,
    fails_with,
    name_of,
    string_of,
)
from decoders.call import Call
from decoders.uapi import const

LIBBPF_MAPS: Final[dict[str, str]] = {
    "libbpf_global": "global data",
    "libbpf_mmap": "arrays that can be mapped",
    "libbpf_det_bind": "binding maps to programs",
}
CILIUM_MAPS: Final[dict[str, str]] = {
    "feature_test": "object names",
    ".test": "dots in object names",
}
_PROBE_SIZES: Final[dict[str, tuple[int, int, int]]] = {
    "STACK_TRACE": (4, 8, 1),
    "LPM_TRIE": (8, 8, 1),
    "CGROUP_STORAGE": (16, 8, 0),
    "PERCPU_CGROUP_STORAGE": (16, 8, 0),
    "QUEUE": (0, 4, 1),
    "STACK": (0, 4, 1),
    "RINGBUF": (0, 0, 4096),
    "USER_RINGBUF": (0, 0, 4096),
    "BLOOM_FILTER": (0, 4, 1),
    "ARENA": (0, 0, 1),
    "SK_STORAGE": (4, 8, 0),
    "INODE_STORAGE": (4, 8, 0),
    "TASK_STORAGE": (4, 8, 0),
    "CGRP_STORAGE": (4, 8, 0),
}
"""Key size, value size and entries of a test of a map type; (4, 4, 1) for all others."""
_CILIUM_FLAGS: Final = {
    const.BPF_F_RDONLY_PROG: "maps that programs can only read",
    const.BPF_F_MMAPABLE: "arrays that can be mapped",
    const.BPF_F_INNER_MAP: "arrays as inner maps of any size",
}


def map_create(call: Call, model: Model) -> Found | None:
    """A MAP_CREATE, by its name or its sizes."""
    name = string_of(call.attr("attr", "map_name"))
    kind = name_of(call.attr("attr", "map_type")).removeprefix("BPF_MAP_TYPE_")
    sizes = (
        call.number("attr", "key_size") or 0,
        call.number("attr", "value_size") or 0,
        call.number("attr", "max_entries") or 0,
    )
    if name:
        if kind != "ARRAY" or sizes[2] != 1:
            return None
        if name in LIBBPF_MAPS:
            return Found(LIBBPF_MAPS[name], "libbpf")
        if name in CILIUM_MAPS and sizes == (4, 4, 1):
            return Found(CILIUM_MAPS[name], "cilium/ebpf")
        if name == "arr" and sizes == (4, 1, 1):
            return Found("full range of ld_imm64 offsets", "libbpf", weak=True)
        return None
    label = f"map type {kind.lower()}"
    if kind in ("ARRAY_OF_MAPS", "HASH_OF_MAPS"):
        if call.number("attr", "inner_map_fd") == ANY_FD:
            return Found(label, "cilium/ebpf", fails_with(errno.EBADF))
        return Found(label, "libbpf", weak=True) if sizes == (4, 4, 1) else None
    if kind == "STRUCT_OPS" and call.number("attr", "btf_vmlinux_value_type_id") == 1:
        return Found(label, "libbpf, cilium/ebpf", fails_with(ENOTSUPP))
    if kind.endswith("_STORAGE") and call.number("attr", "btf_fd") == ANY_FD:
        return Found(label, "cilium/ebpf", fails_with(errno.EBADF))
    if kind == "HASH" and sizes == (4, 4, 10):
        return Found("map operations in batches", "bpftrace", weak=True)
    if kind == "HASH" and sizes == (4, 4, 2):
        return Found("map operations in batches", "cilium/ebpf", weak=True)
    if sizes == _PROBE_SIZES.get(kind, (4, 4, 1)) or (
        kind.endswith("CGROUP_STORAGE") and sizes == (16, 4, 0)
    ):
        flags = call.number("attr", "map_flags") or 0
        if kind == "ARRAY" and flags in _CILIUM_FLAGS:
            return Found(_CILIUM_FLAGS[flags], "cilium/ebpf", weak=True)
        if kind == "HASH" and flags == const.BPF_F_NO_PREALLOC:
            return Found("maps without preallocation", "cilium/ebpf", weak=True)
        return Found(label, "libbpf, bpftool, bpftrace, cilium/ebpf", weak=True)
    return None
