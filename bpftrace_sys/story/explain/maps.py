"""EINVAL of BPF_MAP_CREATE: what each map type asks of its numbers."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.story.explain.attr import bad_name, unknown_flags, unknown_type
from bpftrace_sys.story.explain.failure import PAGE, Failure, kind_of
from bpftrace_sys.story.explain.map_btf import btf_fields
from bpftrace_sys.story.explain.wording import (
    and_words,
    article,
    number_set,
    or_numbers,
    signed,
    word_set,
)
from decoders.records import dataclass
from decoders.uapi import const, layouts, names

MAP_CONFIG: Final[dict[str, str]] = {
    "CGROUP_ARRAY": "CGROUPS",
    "CGROUP_STORAGE": "CGROUP_BPF",
    "PERCPU_CGROUP_STORAGE": "CGROUP_BPF",
    "CGRP_STORAGE": "CGROUPS",
    "STACK_TRACE": "PERF_EVENTS",
    "INODE_STORAGE": "BPF_LSM",
    "DEVMAP": "NET",
    "DEVMAP_HASH": "NET",
    "SOCKMAP": "NET",
    "SOCKHASH": "NET",
    "XSKMAP": "XDP_SOCKETS",
    "REUSEPORT_SOCKARRAY": "INET",
    "STRUCT_OPS": "BPF_JIT",
}
"""include/linux/bpf_types.h: the option that a map type depends on."""


@dataclass(frozen=True, slots=True)
class MapRule:
    """What a map type asks of MAP_CREATE's numbers; None: nothing."""

    key: tuple[int, ...] | None = None
    """The key sizes that it takes."""
    value: tuple[int, ...] | None = None
    entries: str = "some"
    """``some``: not 0; ``none``: 0; ``one``; ``pages``: a power of 2 and of pages; ``any``."""
    must: int = 0
    """Flags that must be set."""
    may: int | None = None
    """Flags that may be."""
    key_min: int = 0
    key_max: int | None = None
    value_min: int = 0
    needs: tuple[str, ...] = ()
    """Fields that say which BTF describes it, and must not be 0."""


_ACCESS: Final = (
    const.BPF_F_RDONLY | const.BPF_F_WRONLY | const.BPF_F_RDONLY_PROG | const.BPF_F_WRONLY_PROG
)
_NUMA: Final = const.BPF_F_NUMA_NODE
_ANYWHERE: Final = const.BPF_F_TOKEN_FD
_STRUCT_OPS: Final = const.BPF_F_LINK | const.BPF_F_VTYPE_BTF_OBJ_FD
_PREALLOC: Final = const.BPF_F_NO_PREALLOC
_FD_ACCESS: Final = const.BPF_F_RDONLY | const.BPF_F_WRONLY
_ARRAY_FLAGS: Final = _NUMA | const.BPF_F_MMAPABLE | _ACCESS | const.BPF_F_INNER_MAP
_PERCPU_HASH: Final = _PREALLOC | _ACCESS | const.BPF_F_ZERO_SEED
_HASH_FLAGS: Final = _PERCPU_HASH | _NUMA
_LRU: Final = const.BPF_F_NO_COMMON_LRU
_STORAGE: Final = MapRule(
    key=(4,), entries="none", must=_PREALLOC, may=_PREALLOC | const.BPF_F_CLONE, value_min=1,
    needs=("btf_key_type_id", "btf_value_type_id"),
)  # fmt: skip
_HASH: Final = MapRule(may=_HASH_FLAGS, key_min=1, value_min=1)
_FDS: Final = MapRule(key=(4,), value=(4,), may=_NUMA | _FD_ACCESS)
_DEVICES: Final = MapRule(key=(4,), value=(4, 8), may=_NUMA | _FD_ACCESS)
_QUEUE: Final = MapRule(key=(0,), value_min=1, may=_NUMA | _ACCESS)
_CGROUP: Final = MapRule(key=(8, 16), value_min=1, entries="none", may=_NUMA | _ACCESS)

MAP_RULES: Final[dict[str, MapRule]] = {
    "HASH": _HASH,
    "PERCPU_HASH": MapRule(may=_PERCPU_HASH, key_min=1, value_min=1),
    "RHASH": MapRule(
        must=_PREALLOC, may=_HASH_FLAGS & ~const.BPF_F_ZERO_SEED, key_min=1, value_min=1
    ),
    "LRU_HASH": MapRule(may=_HASH_FLAGS | _LRU, key_min=1, value_min=1),
    "LRU_PERCPU_HASH": MapRule(may=_PERCPU_HASH | _LRU, key_min=1, value_min=1),
    "HASH_OF_MAPS": MapRule(value=(4,), may=_HASH_FLAGS, key_min=1),
    "ARRAY": MapRule(key=(4,), value_min=1, may=_ARRAY_FLAGS),
    "PERCPU_ARRAY": MapRule(key=(4,), value_min=1, may=_ACCESS),
    "PROG_ARRAY": _FDS,
    "PERF_EVENT_ARRAY": MapRule(
        key=(4,), value=(4,), may=_NUMA | _FD_ACCESS | const.BPF_F_PRESERVE_ELEMS
    ),
    "CGROUP_ARRAY": _FDS,
    "ARRAY_OF_MAPS": _FDS,
    "STACK_TRACE": MapRule(
        key=(4,), value_min=8, may=_NUMA | _FD_ACCESS | const.BPF_F_STACK_BUILD_ID
    ),
    "LPM_TRIE": MapRule(
        must=_PREALLOC, may=_PREALLOC | _NUMA | _ACCESS, key_min=5, key_max=260, value_min=1
    ),
    "QUEUE": _QUEUE,
    "STACK": _QUEUE,
    "RINGBUF": MapRule(
        key=(0,), value=(0,), entries="pages", may=_NUMA | const.BPF_F_RB_OVERWRITE
    ),
    "USER_RINGBUF": MapRule(key=(0,), value=(0,), entries="pages", may=_NUMA),
    "SK_STORAGE": _STORAGE,
    "INODE_STORAGE": _STORAGE,
    "TASK_STORAGE": _STORAGE,
    "CGRP_STORAGE": _STORAGE,
    "BLOOM_FILTER": MapRule(
        key=(0,), value_min=1, may=_NUMA | _ACCESS | const.BPF_F_ZERO_SEED
    ),
    "CGROUP_STORAGE": _CGROUP,
    "PERCPU_CGROUP_STORAGE": _CGROUP,
    "DEVMAP": _DEVICES,
    "DEVMAP_HASH": _DEVICES,
    "CPUMAP": MapRule(key=(4,), value=(4, 8), may=_NUMA),
    "XSKMAP": MapRule(key=(4,), value=(4,), may=_NUMA | _FD_ACCESS),
    "SOCKMAP": _DEVICES,
    "SOCKHASH": MapRule(value=(4, 8), key_min=1, may=_NUMA | _FD_ACCESS),
    "REUSEPORT_SOCKARRAY": MapRule(key=(4,), value=(4, 8), may=_NUMA | _ACCESS),
    "STRUCT_OPS": MapRule(
        key=(4,), entries="one", may=_STRUCT_OPS, needs=("btf_vmlinux_value_type_id",)
    ),
    "INSN_ARRAY": MapRule(key=(4,), value=(16,), may=0),
    "ARENA": MapRule(
        key=(0,),
        value=(0,),
        must=const.BPF_F_MMAPABLE,
        may=const.BPF_F_MMAPABLE | const.BPF_F_SEGV_ON_FAULT | const.BPF_F_NO_USER_CONV,
    ),
}
"""Each type's map_alloc_check()."""

NO_RULE: Final = frozenset({"UNSPEC"})
"""Types that no map has."""


LRU: Final = word_set("LRU_HASH LRU_PERCPU_HASH")
EXCLUSIVE: Final[tuple[tuple[int, int, frozenset[str]], ...]] = (
    (const.BPF_F_RDONLY, const.BPF_F_WRONLY, frozenset()),
    (const.BPF_F_RDONLY_PROG, const.BPF_F_WRONLY_PROG, frozenset()),
    (const.BPF_F_NO_COMMON_LRU, const.BPF_F_NUMA_NODE, LRU),
)
"""Two flags, and the types that they exclude each other of; none: of all."""
ANY_NODE: Final = 0xFFFFFFFF
"""NUMA_NO_NODE"""

_BTF_OF: Final = {
    ("btf_key_type_id", "btf_value_type_id"): "BTF of its key and value",
    ("btf_vmlinux_value_type_id",): "btf_vmlinux_value_type_id, the type that it fills in",
}


def _flag_names(bits: int) -> str:
    return and_words([name for bit, name in names.map_flags.items() if bits & bit] or [hex(bits)])


def _frame(flags: int) -> int:
    """The bytes that a stack_trace keeps of a frame."""
    build_ids = flags & const.BPF_F_STACK_BUILD_ID
    return layouts.SIZES["bpf_stack_build_id"] if build_ids else 8


def map_create_invalid(failure: Failure) -> list[str]:
    """What map_create() and the map type check."""
    found = unknown_type(failure, "map_type", "bpf_map_type", "BPF_MAP_TYPE_", MAP_CONFIG)
    if found:
        return found
    flags = failure.number("map_flags")
    kind = kind_of(failure, "map_type", "BPF_MAP_TYPE_")
    for one, other, kinds in EXCLUSIVE:
        if flags & one and flags & other and (not kinds or kind in kinds):
            return [f"{_flag_names(one)} and {_flag_names(other)} exclude each other"]
    rule = MAP_RULES.get(kind)
    of = article(kind.lower())
    lines = unknown_flags(failure, "map_flags")
    if rule is None:
        return lines or bad_name(failure, "map_name")
    key, value = failure.number("key_size"), failure.number("value_size")
    entries = failure.number("max_entries")
    if rule.key is not None and key not in rule.key:
        lines.append(f"key_size of {of} must be {or_numbers(rule.key)}, not {key}")
    elif key < rule.key_min:
        lines.append(f"key_size of {of} must be at least {rule.key_min}, not {key}")
    elif rule.key_max is not None and key > rule.key_max:
        lines.append(f"key_size of {of} must be at most {rule.key_max}, not {key}")
    if rule.value is not None and value not in rule.value:
        lines.append(f"value_size of {of} must be {or_numbers(rule.value)}, not {value}")
    elif value < rule.value_min:
        lines.append(f"value_size of {of} must be at least {rule.value_min}, not {value}")
    elif kind == "STACK_TRACE" and value % _frame(flags):
        lines.append(
            f"value_size of a stack_trace must be a multiple of {_frame(flags)}, not {value}"
        )
    elif kind == "STACK_TRACE":
        lines += _too_deep(failure, value // _frame(flags))
    if rule.entries == "some" and not entries:
        lines.append("max_entries is 0")
    elif rule.entries == "none" and entries:
        lines.append(f"max_entries of {of} must be 0, not {entries}")
    elif rule.entries == "one" and entries != 1:
        lines.append(f"max_entries of {of} must be 1, not {entries}")
    elif rule.entries == "pages" and (not entries or entries & (entries - 1) or entries % PAGE):
        lines.append(
            f"max_entries of {of} must be a power of 2 and a multiple of the page size, "
            f"not {entries}"
        )
    if rule.must & ~flags:
        lines.append(f"{of} must be made with {_flag_names(rule.must & ~flags)}")
    if rule.may is not None and not lines and flags & ~(rule.may | _ANYWHERE):
        wrong = flags & ~(rule.may | _ANYWHERE)
        lines.append(f"{of} cannot have {_flag_names(wrong)}")
    if not all(failure.number(field) for field in rule.needs):
        lines.append(f"{of} needs {_BTF_OF[rule.needs]}")
    lines += _no_node(failure, flags)
    return lines or _extra(failure, kind) or bad_name(failure, "map_name") or btf_fields(failure)


def _too_deep(failure: Failure, frames: int) -> list[str]:
    depth = failure.sysctl("kernel/perf_event_max_stack")
    if depth is None or frames <= depth:
        return []
    value = failure.number("value_size")
    return [f"value_size {value} is {frames} frames; kernel.perf_event_max_stack is {depth}"]


def _no_node(failure: Failure, flags: int) -> list[str]:
    if not flags & const.BPF_F_NUMA_NODE:
        return []
    node = failure.number("numa_node")
    online = failure.now("file /sys/devices/system/node/online")
    if node == ANY_NODE or online is None or node in number_set(online):
        return []
    return [f"NUMA node {signed(node)} is not online: {online} is"]


def _extra(failure: Failure, kind: str) -> list[str]:
    extra = failure.number("map_extra")
    if kind == "BLOOM_FILTER":
        return [f"map_extra {extra:#x} is more than 15 hash functions"] if extra > 15 else []
    if not extra or kind == "ARENA":
        return []
    return [f"map_extra is for bloom_filter and arena maps; here it is {extra:#x}"]


def no_lru(failure: Failure) -> list[str]:
    """ENOTSUPP: an LRU list without what it is a list of."""
    kind = kind_of(failure, "map_type", "BPF_MAP_TYPE_")
    if kind in LRU and failure.number("map_flags") & const.BPF_F_NO_PREALLOC:
        return [f"{article(kind.lower())} allocates its elements first: no BPF_F_NO_PREALLOC"]
    return []
