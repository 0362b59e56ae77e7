"""A program whose maps are refused: sizes, nodes, BTF. Like refusals.py, and with its frame.

    python3 tests/tracees/refused_maps.py GROUP
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from refusals import GOOD, MMAPABLE, NO_PREALLOC, attempt, load, make, results

sys.path.insert(0, str(Path(__file__).resolve().parent / "loaders"))

from _common import Btf, buffer, call

NO_COMMON_LRU, NUMA_NODE, BUILD_ID = 1 << 1, 1 << 2, 1 << 5
RDONLY_PROG, WRONLY_PROG = 1 << 7, 1 << 8
FRAMES = int(Path("/proc/sys/kernel/perf_event_max_stack").read_text())


def sizes() -> None:
    """What a type has no room for, or the machine."""
    attempt("no list without elements", lambda: make("LRU_HASH", 4, 8, 2, map_flags=NO_PREALLOC))
    attempt("a list per CPU on a node", lambda: make(
        "LRU_HASH", 4, 8, 2, map_flags=NO_COMMON_LRU | NUMA_NODE))  # fmt: skip
    attempt("no such node", lambda: make("HASH", 4, 8, 2, map_flags=NUMA_NODE, numa_node=999))
    attempt("neither way", lambda: make("ARRAY", 4, 8, 2, map_flags=RDONLY_PROG | WRONLY_PROG))
    attempt("too deep", lambda: make("STACK_TRACE", 4, 8 * (FRAMES + 1), 2))
    attempt("too deep by build id", lambda: make(
        "STACK_TRACE", 4, 32 * (FRAMES + 1), 2, map_flags=BUILD_ID))  # fmt: skip
    attempt("too much for a CPU", lambda: make("PERCPU_ARRAY", 4, 40000, 2))
    attempt("too much in a hash for a CPU", lambda: make("PERCPU_HASH", 4, 32769, 2))
    attempt("too much in a queue", lambda: make("QUEUE", 0, 5 << 20, 2))
    attempt("too long a key", lambda: make("SOCKHASH", 513, 4, 2))
    attempt("too many buckets", lambda: make("HASH", 4, 8, (1 << 27) + 1))
    attempt("too many traces", lambda: make("STACK_TRACE", 4, 8, (1 << 31) + 1))
    attempt("too many CPUs", lambda: make("CPUMAP", 4, 4, 1 << 20))
    attempt("too large an arena", lambda: make("ARENA", 0, 0, (1 << 20) + 1, map_flags=MMAPABLE))
    attempt("too much in a storage", lambda: make("CGROUP_STORAGE", 16, 1 << 20, 0))
    # A size that the kernel compares with all memory at once: nothing is allocated on the way.
    attempt("more than there is", lambda: make("ARRAY", 4, 1 << 20, 1 << 30))
    attempt("extra", lambda: make("HASH", 4, 8, 2, map_extra=3))
    attempt("extra functions", lambda: make("BLOOM_FILTER", 0, 8, 2, map_extra=16))


def btf() -> None:
    """BTF that does not say what the map holds."""
    made = Btf()
    eight = made.struct("eight", 8, first=(made.int, 0))
    func = made.func("function")
    blob = made.blob()
    fd = call("BTF_LOAD", btf=blob, btf_size=len(blob)).ret

    def typed(kind: str, key: int, value: int, **more: Any) -> Callable[[], int]:
        key_size, value_size, entries, flags = {**GOOD, **more}[kind]
        return lambda: make(
            kind, key_size, value_size, entries, map_flags=flags, btf_fd=fd, btf_key_type_id=key,
            btf_value_type_id=value,
        )  # fmt: skip

    attempt("a key alone", typed("HASH", 1, 0))
    attempt("a value alone", typed("HASH", 0, eight))
    attempt("an array's value alone", typed("ARRAY", 0, eight))
    attempt("no section", typed("ARRAY", 0, eight, ARRAY=(4, 8, 1, 0)))
    attempt("a small value", typed("ARRAY", 1, 1))
    attempt("a large key", typed("HASH", eight, eight))
    attempt("a function as a value", typed("HASH", 1, func))
    attempt("no such type", typed("HASH", 1, 99))
    attempt("the kernel's", lambda: make("HASH", 4, 8, 2, btf_vmlinux_value_type_id=1))
    number = {4: made.int, 8: eight}
    for kind, (key, value, *_) in sorted(GOOD.items()):
        if key in number and value in number:
            attempt(f"both of {kind}", typed(kind, number[key], number[value]))
    # The key of a stack_trace is an index; its value has BTF of 8 bytes.
    array = make("ARRAY", 4, 8, 2)
    for kind in ("ARRAY_OF_MAPS", "HASH_OF_MAPS"):
        attempt(f"both of {kind}", lambda kind=kind: make(
            kind, 4, 4, 2, inner_map_fd=array, btf_fd=fd, btf_key_type_id=1,
            btf_value_type_id=1))  # fmt: skip


def inside() -> None:
    """Maps of maps: what may be inside, and what must be the same."""
    null = os.open(os.devnull, os.O_RDONLY)
    for kind in ("ARRAY_OF_MAPS", "HASH_OF_MAPS"):
        attempt(f"no map in {kind}", lambda kind=kind: make(kind, 4, 4, 2, inner_map_fd=null))
        attempt(f"no fd in {kind}", lambda kind=kind: make(kind, 4, 4, 2, inner_map_fd=999))
    for kind, (key, value, entries, flags) in GOOD.items():
        inner = make(kind, key, value, entries, map_flags=flags, map_name=b"template")
        outer: list[int] = []

        def nest(inner: int = inner, outer: list[int] = outer) -> None:
            outer.append(make("ARRAY_OF_MAPS", 4, 4, 4, inner_map_fd=inner, map_name=b"outer"))

        attempt(f"template {kind}", nest)
        if not outer or not entries:
            continue
        longer = make(kind, key, value, entries * 2, map_flags=flags, map_name=b"longer")
        attempt(f"longer {kind}", lambda outer=outer, longer=longer: call(
            "MAP_UPDATE_ELEM", map_fd=outer[0], key=bytes(4),
            value=longer.to_bytes(4, "little")))  # fmt: skip


def values() -> None:
    """Values that a map of fds, of devices or of CPUs does not hold."""
    array = make("ARRAY", 4, 8, 2)
    prog = load().ret
    null = os.open(os.devnull, os.O_RDONLY)

    def update(table: int, value: int, **more: Any) -> Any:
        return call("MAP_UPDATE_ELEM", map_fd=table, key=bytes(4),
                    value=value.to_bytes(4, "little"), **more)  # fmt: skip

    for kind in ("PROG_ARRAY", "ARRAY_OF_MAPS", "HASH_OF_MAPS", "PERF_EVENT_ARRAY", "CGROUP_ARRAY"):
        inner = array if kind.endswith("_OF_MAPS") else 0
        table = make(kind, 4, 4, 2, inner_map_fd=inner, map_name=b"table")
        wrong = array if kind == "PROG_ARRAY" else prog
        attempt(f"a file in {kind}", lambda table=table: update(table, null))
        attempt(f"no fd in {kind}", lambda table=table: update(table, 999))
        attempt(f"another in {kind}", lambda table=table, wrong=wrong: update(table, wrong))
        if not kind.startswith("HASH"):
            attempt(f"flags in {kind}", lambda table=table, wrong=wrong: update(
                table, wrong, flags=1))  # fmt: skip
        if inner:
            update(table, array)
            attempt(f"the end of {kind}", lambda table=table: call(
                "MAP_LOOKUP_BATCH", map_fd=table, keys=buffer(8), values=buffer(8), count=2,
                out_batch=buffer(8)))  # fmt: skip
    old = "/sys/fs/cgroup/memory"
    if os.path.exists(f"{old}/cgroup.procs"):
        table = make("CGROUP_ARRAY", 4, 4, 2)
        attempt("version 1", lambda: update(table, os.open(old, os.O_RDONLY)))
    cpus = make("CPUMAP", 4, 4, 2)
    attempt("a long queue", lambda: update(cpus, 20000))


GROUPS: dict[str, Callable[[], None]] = {
    "sizes": sizes,
    "btf": btf,
    "inside": inside,
    "values": values,
}


if __name__ == "__main__":
    GROUPS[sys.argv[1]]()
    print(json.dumps(results))
