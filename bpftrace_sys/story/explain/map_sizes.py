"""E2BIG and ENOMEM of BPF_MAP_CREATE: what a type has no room for, and what the machine has not."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.story.explain.elements import HASHES
from bpftrace_sys.story.explain.failure import Failure, kind_of
from bpftrace_sys.story.explain.wording import article, decimal, word_set

KMALLOC_MAX: Final = 4 << 20
PER_CPU: Final = word_set("PERCPU_ARRAY PERCPU_HASH LRU_PERCPU_HASH PERCPU_CGROUP_STORAGE")
_STORAGES: Final = word_set(
    "SK_STORAGE INODE_STORAGE TASK_STORAGE CGRP_STORAGE CGROUP_STORAGE PERCPU_CGROUP_STORAGE"
)
LIMITS: Final[tuple[tuple[frozenset[str], str, int, str], ...]] = (
    (word_set("ARRAY PERCPU_ARRAY"), "value_size", 0x7FFFFFFF, "INT_MAX"),
    (PER_CPU, "value_size", 32 << 10, "the 32 KiB that the kernel allocates for each CPU"),
    (
        word_set("QUEUE STACK BLOOM_FILTER"),
        "value_size", KMALLOC_MAX, "the kernel allocates at once (4 MiB)",
    ),
    (_STORAGES, "value_size", 0xFFFF, "a storage holds (64 KiB)"),
    (word_set("SOCKHASH"), "key_size", 512, "a program's stack of 512 bytes"),
    (HASHES, "max_entries", 1 << 27, "a hash has buckets for (2^27)"),
    (word_set("STACK_TRACE"), "max_entries", 1 << 31, "a stack_trace has buckets for (2^31)"),
    (word_set("ARENA"), "max_entries", 1 << 20, "the pages of an arena (4 GiB)"),
)  # fmt: skip
"""Types, a field, the most that it may be, and what that is: from each type's map_alloc() and
map_alloc_check(); PCPU_MIN_UNIT_SIZE of include/linux/percpu.h, with pages of 4 KiB."""
POINTERS: Final = word_set(
    """PROG_ARRAY PERF_EVENT_ARRAY CGROUP_ARRAY ARRAY_OF_MAPS DEVMAP DEVMAP_HASH XSKMAP SOCKMAP
    REUSEPORT_SOCKARRAY"""
)
"""Types whose elements are pointers to something."""


def map_too_big(failure: Failure) -> list[str]:
    """Elements larger than the kernel allocates, or more of them than a type can have."""
    kind = kind_of(failure, "map_type", "BPF_MAP_TYPE_")
    key, value = failure.number("key_size"), failure.number("value_size")
    if kind in HASHES and key + value >= KMALLOC_MAX - 128:
        return [f"key_size + value_size = {key + value} is more than the kernel allocates for one"
                " element (4 MiB)"]  # fmt: skip
    for kinds, field, limit, what in LIMITS:
        number = failure.number(field)
        if kind in kinds and number > limit:
            return [f"{field} {number} is more than {what}"]
    cpus = decimal(failure.fact("config NR_CPUS")) if kind == "CPUMAP" else None
    entries = failure.number("max_entries")
    if cpus is not None and entries > cpus:
        return [f"max_entries of a cpumap is at most CONFIG_NR_CPUS, {cpus}, not {entries}"]
    return []


def at_least(kind: str, key: int, value: int, cpus: int) -> int | None:
    """The bytes that an element of a type surely takes; None where nothing certain is known."""
    key, value = -(-key // 8) * 8, -(-value // 8) * 8
    if kind in PER_CPU:
        return (key if kind in HASHES else 0) + value * max(cpus, 1)
    if kind in HASHES:
        return key + value
    if kind in ("ARRAY", "QUEUE", "STACK", "STACK_TRACE"):
        return value
    return 8 if kind in POINTERS else 1 if kind in ("RINGBUF", "USER_RINGBUF") else None


def no_memory(failure: Failure) -> list[str]:
    """ENOMEM: what its elements take is more than the machine has, or had free."""
    kind = kind_of(failure, "map_type", "BPF_MAP_TYPE_")
    key, value = failure.number("key_size"), failure.number("value_size")
    entries = failure.number("max_entries")
    each = at_least(kind, key, value, failure.facts.cpus)
    if each is None:
        return []
    size = each * entries
    needed = f"the {entries} entries of {article(kind.lower())} take at least {_told(size)}"
    if kind in PER_CPU:
        needed += f", {failure.facts.cpus} CPUs' values each"
    total = decimal(failure.fact("memory MemTotal"))
    if total is not None and size > total:
        return [f"{needed}, and the machine has {_told(total)}"]
    free = decimal(failure.now("memory MemAvailable"))
    if free is not None and size > free:
        return [f"{needed}, and {_told(free)} were free"]
    return []


def _told(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.1f} MiB"
