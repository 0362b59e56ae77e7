"""Refusals that no other workload here has. Like refusals.py, with its frame.

    python3 tests/tracees/refused_rest.py GROUP
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from refusals import attempt, attr_with, load, make, perf_attr, results, set_caps

sys.path.insert(0, str(Path(__file__).resolve().parent / "loaders"))

from _common import (
    ATTACH,
    CMD,
    LO,
    PROG,
    Kit,
    asm,
    buffer,
    call,
    own_cgroup,
    own_net,
    perf_event,
    pmu,
    returning,
    syscall,
    u32s,
    u64s,
)

RDONLY, WRONLY, MMAPABLE = 1 << 3, 1 << 4, 1 << 10
NOEXIST, EXIST, LOCK = 1, 2, 4


def elements() -> None:
    """Keys, flags and batches of elements."""
    table = make("HASH", 4, 8, 4, map_name=b"table")
    array = make("ARRAY", 4, 8, 2, map_name=b"array")
    progs = make("PROG_ARRAY", 4, 4, 2, map_name=b"progs")
    queue = make("QUEUE", 0, 8, 2, map_name=b"queue")
    trie = make("LPM_TRIE", 8, 8, 2, map_name=b"trie", map_flags=1)
    writer = make("ARRAY", 4, 8, 2, map_name=b"writer", map_flags=WRONLY)
    value = buffer(8)

    def update(fd: int, index: int, flags: int = 0) -> Any:
        return call("MAP_UPDATE_ELEM", map_fd=fd, key=u32s(index), value=u64s(0), flags=flags)

    def lookup(fd: int, key: Any) -> Any:
        return call("MAP_LOOKUP_ELEM", map_fd=fd, key=key, value=value)

    def batch(command: str, fd: int, *keys: int, flags: int = 0) -> Any:
        return call(command, map_fd=fd, keys=u32s(*keys), values=buffer(8 * len(keys)),
                    count=len(keys), elem_flags=flags)  # fmt: skip

    attempt("a map to write to", lambda: lookup(writer, u32s(0)))
    attempt("both flags", lambda: update(table, 1, NOEXIST | EXIST))
    attempt("unknown flags", lambda: update(array, 1, 1 << 30))
    attempt("no lock", lambda: update(array, 1, LOCK))
    attempt("no program at the index", lambda: call("MAP_DELETE_ELEM", map_fd=progs, key=u32s(1)))
    attempt("an empty queue", lambda: call("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=queue, value=value))
    attempt("no first key", lambda: call("MAP_GET_NEXT_KEY", map_fd=table, value=buffer(4)))
    attempt("no such prefix", lambda: lookup(trie, u32s(32, 1)))
    update(table, 1)
    attempt("a batch of new ones", lambda: batch(
        "MAP_UPDATE_BATCH", table, 2, 1, 3, flags=NOEXIST))  # fmt: skip
    attempt("a batch of one that is not", lambda: batch("MAP_DELETE_BATCH", table, 1, 9))
    attempt("a batch for a full map", lambda: batch(
        "MAP_UPDATE_BATCH", table, 3, 4, 5, 6, 7))  # fmt: skip
    attempt("a bucket of several", lambda: crowded(make("HASH", 4, 8, 64, map_name=b"crowded")))


def crowded(table: int) -> Any:
    """64 keys in as many buckets, of which some have several, read one by one."""
    for key in range(64):
        call("MAP_UPDATE_ELEM", map_fd=table, key=u32s(key), value=u64s(0))
    place: dict[str, Any] = {}
    out = buffer(8)
    while True:
        call("MAP_LOOKUP_BATCH", map_fd=table, keys=buffer(4), values=buffer(8), count=1,
             out_batch=out, **place)  # fmt: skip
        place = {"in_batch": ctypes.create_string_buffer(out.raw, 8)}


def loads() -> None:
    """Programs, BTF and maps whose numbers are wrong."""
    null = os.open(os.devnull, os.O_RDONLY)
    attempt("a file for a map", lambda: load(
        insns=asm.ld_imm64(asm.R1, null, asm.MAP_FD) + returning(0), insn_cnt=4))  # fmt: skip
    attempt("a million and one", lambda: load(insn_cnt=1_000_001))
    attempt("a log of gigabytes", lambda: load(
        log_level=1, log_size=0xFFFFFFFF, log_buf=buffer(16)))  # fmt: skip
    attempt("bytes all over", lambda: asm.bpf(
        CMD["PROG_LOAD"], attr_with(200, b0=1, **{f"b{at}": 1 for at in range(176, 192, 2)})
    ))  # fmt: skip
    attempt("short BTF", lambda: call("BTF_LOAD", btf=b"\x9f\xeb\1\0", btf_size=4))
    # struct btf_header, a pointer to type 9 (struct btf_type), and an empty string.
    bad = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 12, 12, 1)
    bad += struct.pack("<III", 0, 2 << 24, 9) + b"\0"
    attempt("bad BTF", lambda: call(
        "BTF_LOAD", btf=bad, btf_size=len(bad), btf_log_buf=buffer(4096), btf_log_size=4096,
        btf_log_level=1))  # fmt: skip
    attempt("a long prefix", lambda: make("LPM_TRIE", 300, 8, 2, map_flags=1))
    attempt("an odd stack", lambda: make("STACK_TRACE", 4, 12, 2))
    attempt("two struct_ops", lambda: make("STRUCT_OPS", 4, 8, 2, btf_vmlinux_value_type_id=1))
    attempt("a storage without BTF", lambda: make("SK_STORAGE", 4, 8, 0, map_flags=1))
    attempt("struct_ops of nothing", lambda: make("STRUCT_OPS", 4, 8, 1))
    ring = make("RINGBUF", 0, 0, 4096, map_name=b"ring")
    kept = (
        asm.ld_imm64(asm.R1, ring, asm.MAP_FD) + asm.mov(asm.R2, 8) + asm.mov(asm.R3, 0)
        + asm.call(131) + returning(0)
    )  # bpf_ringbuf_reserve()
    attempt("a record that is kept", lambda: load(
        insns=kept, insn_cnt=len(kept) // 8, log_level=1, log_size=4096,
        log_buf=buffer(4096)))  # fmt: skip
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(map(int, os.listdir("/proc/self/fd"))) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    for _ in range(most):
        try:
            os.dup(null)
        except OSError:
            break
    attempt("no more fds", load)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def events() -> None:
    """Perf events whose attr or arguments are wrong."""
    limit = int(Path("/proc/sys/kernel/perf_event_max_sample_rate").read_text())
    cgroup = 1 << 2  # PERF_FLAG_PID_CGROUP

    def sampled(rate: int) -> Any:
        data = bytearray(112)
        data[:8] = struct.pack("<II", 1, 112)
        data[16:24] = struct.pack("<Q", rate)
        data[40:48] = struct.pack("<Q", 1 << 10)  # freq
        return syscall("perf_event_open", bytes(data), 0, -1, -1, 8)

    attempt("a frequency above the limit", lambda: sampled(limit + 1))
    plain = bytes(attr_with(64, b0=1, b4=64))
    attempt("a cgroup without a CPU", lambda: syscall("perf_event_open", plain, 0, -1, -1, cgroup))
    attempt("unknown flags", lambda: syscall("perf_event_open", plain, 0, -1, -1, 1 << 40))
    short, long = attr_with(64, b0=1, b4=8), attr_with(64, b0=1, b5=0x20)
    attempt("a short attr", lambda: syscall("perf_event_open", short, 0, -1, -1, 8))
    attempt("a long attr", lambda: syscall("perf_event_open", long, 0, -1, -1, 8))
    attempt("unknown samples", lambda: perf_attr(112, 1, b31=1))
    event = perf_event(1, 0, pid=0, cpu=-1)
    probe = load(prog_type=PROG["KPROBE"], prog_name=b"kp").ret
    attempt("a kprobe for a clock", lambda: fcntl.ioctl(event, 0x40042408, probe))


def hooks() -> None:
    """Cgroups that let others in, netfilter's numbers, a link that holds what is to be replaced."""
    kit = Kit()
    with kit.at_end:
        up, folder = own_cgroup(kit, "rest")
        (folder / "below").mkdir()
        hook = ATTACH["CGROUP_INET_EGRESS"]
        first, second = (
            load(prog_type=PROG["CGROUP_SKB"], prog_name=name, insns=returning(1),
                 expected_attach_type=hook).ret
            for name in (b"first", b"second")
        )  # fmt: skip

        def attach(prog: int, flags: int) -> Any:
            return call("PROG_ATTACH", target_fd=up, attach_bpf_fd=prog, attach_type=hook,
                        attach_flags=flags)  # fmt: skip

        attach(first, 1)
        attempt("several beside one that may be overridden", lambda: attach(second, 2))
        (folder / "below").rmdir()
        call("PROG_DETACH", target_fd=up, attach_bpf_fd=first, attach_type=hook)
    own_net()
    accept = load(prog_type=PROG["NETFILTER"], prog_name=b"accept", insns=returning(1),
                  expected_attach_type=ATTACH["NETFILTER"]).ret  # fmt: skip

    def filtered(**fields: int) -> Any:
        fields = {"pf": 2, "hooknum": 1, "priority": -10, **fields}
        return call("LINK_CREATE", "netfilter", prog_fd=accept, attach_type=ATTACH["NETFILTER"],
                    **fields)  # fmt: skip

    attempt("no family of netfilter's", lambda: filtered(pf=7))
    attempt("a hook too many", lambda: filtered(hooknum=9))
    attempt("the first priority", lambda: filtered(priority=-(1 << 31)))
    attempt("before defragmentation", lambda: filtered(priority=-400, netfilter_flags=1))
    ingress = ATTACH["TCX_INGRESS"]
    one, two = (
        load(prog_type=PROG["SCHED_CLS"], prog_name=name).ret for name in (b"one", b"two")
    )
    kept = call("LINK_CREATE", "relative", prog_fd=one, target_fd=LO, attach_type=ingress).ret
    attempt("what a link holds", lambda: call(
        "PROG_ATTACH", target_fd=LO, attach_bpf_fd=two, attach_type=ingress,
        attach_flags=1 << 2, replace_bpf_fd=one))  # fmt: skip
    os.close(kept)


def powerless() -> None:
    """Events and programs without any capability."""
    exclude_kernel = 1 << 5
    set_caps(())
    attempt("a uprobe", lambda: perf_event(pmu("uprobe"), text=b"/bin/true", config2=64, pid=0))
    cpu = attr_with(64, b0=1, b4=64, b40=exclude_kernel)
    attempt("a whole CPU", lambda: syscall("perf_event_open", cpu, -1, 0, -1, 8))
    attempt("a long program", lambda: load(insn_cnt=5000))


GROUPS: dict[str, Callable[[], None]] = {
    "elements": elements,
    "loads": loads,
    "events": events,
    "hooks": hooks,
    "powerless": powerless,
}


if __name__ == "__main__":
    GROUPS[sys.argv[1]]()
    print(json.dumps(results))
