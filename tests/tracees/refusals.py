"""A program for the tests of explanations: each case is refused by the kernel once.

    python3 tests/tracees/refusals.py GROUP

prints one JSON list of [case, errno or 0, ...], in the order of the calls.  What
a case needs is made before by calls that succeed.  Numbers and layouts are the
loaders' own (tests/tracees/loaders/_common.py), not ``decoders``'.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import json
import mmap
import os
import signal
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "loaders"))

from _common import (
    ATTACH,
    CMD,
    MAP,
    PROG,
    asm,
    buffer,
    call,
    perf_event,
    pmu,
    returning,
    syscall,
    tracefs,
    u32s,
    u64s,
)

TRIVIAL = {"insns": returning(0), "insn_cnt": 2, "license": b"GPL\0", "prog_name": b"mine"}
FILTER = {"prog_type": PROG["SOCKET_FILTER"], **TRIVIAL}
NO_PREALLOC, MMAPABLE, RDONLY, WRONLY = 1, 1 << 10, 1 << 3, 1 << 4
CAPS = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}

results: list[list[Any]] = []


def attempt(case: str, work: Callable[[], Any], *more: Any) -> None:
    """Runs a case; the last of its calls is the one that is refused."""
    number = 0
    made = None
    try:
        made = work()
    except OSError as error:
        number = error.errno or -1
    fd = getattr(made, "ret", made)
    if isinstance(fd, int) and fd > 2:
        os.close(fd)
    results.append([case, number, *more])


def load(**fields: Any) -> Any:
    return call("PROG_LOAD", **{**FILTER, **fields})


def make(kind: str, key: int, value: int, entries: int, **fields: Any) -> int:
    fields = {"map_name": b"mine", **fields}
    made = call(
        "MAP_CREATE", map_type=MAP[kind], key_size=key, value_size=value, max_entries=entries,
        **fields,
    )  # fmt: skip
    return int(made.ret)


# ---------------------------------------------------------------- capabilities


def set_caps(names: tuple[str, ...]) -> None:
    """The effective capabilities of this thread, of those that it is permitted."""
    bits = sum(1 << CAPS[name] for name in names)
    header = struct.pack("<Ii", 0x20080522, 0)
    permitted = sum(1 << number for number in CAPS.values())
    low, high = bits & 0xFFFFFFFF, bits >> 32
    data = struct.pack(
        "<6I", low, permitted & 0xFFFFFFFF, 0, high, permitted >> 32, 0
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, data) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def subsets() -> Iterator[tuple[str, ...]]:
    three = ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN")
    for count in range(4):
        yield from itertools.combinations(three, count)


def capabilities() -> None:
    """Every program and map type with every set of the three capabilities."""
    for caps in subsets():
        set_caps(caps)
        for kind, number in PROG.items():
            if kind != "UNSPEC":
                attempt(f"prog {kind}", lambda n=number: load(prog_type=n), list(caps))
        for kind, number in MAP.items():
            if kind != "UNSPEC":
                attempt(
                    f"map {kind}",
                    lambda n=number: call("MAP_CREATE", map_type=n, key_size=4, max_entries=1),
                    list(caps),
                )
        for command in ("PROG_GET_NEXT_ID", "BTF_GET_NEXT_ID"):
            attempt(f"command {command}", lambda c=command: call(c), list(caps))


# ---------------------------------------------------------------- maps

GOOD: dict[str, tuple[int, int, int, int]] = {
    "HASH": (4, 8, 2, 0),
    "LRU_HASH": (4, 8, 2, 0),
    "PERCPU_HASH": (4, 8, 2, 0),
    "ARRAY": (4, 8, 2, 0),
    "PERCPU_ARRAY": (4, 8, 2, 0),
    "PROG_ARRAY": (4, 4, 2, 0),
    "PERF_EVENT_ARRAY": (4, 4, 2, 0),
    "CGROUP_ARRAY": (4, 4, 2, 0),
    "STACK_TRACE": (4, 8, 2, 0),
    "LPM_TRIE": (8, 8, 2, NO_PREALLOC),
    "QUEUE": (0, 8, 2, 0),
    "STACK": (0, 8, 2, 0),
    "RINGBUF": (0, 0, 4096, 0),
    "USER_RINGBUF": (0, 0, 4096, 0),
    "BLOOM_FILTER": (0, 8, 2, 0),
    "CGROUP_STORAGE": (16, 8, 0, 0),
    "DEVMAP": (4, 4, 2, 0),
    "DEVMAP_HASH": (4, 4, 2, 0),
    "CPUMAP": (4, 4, 2, 0),
    "XSKMAP": (4, 4, 2, 0),
    "SOCKMAP": (4, 4, 2, 0),
    "SOCKHASH": (4, 4, 2, 0),
    "REUSEPORT_SOCKARRAY": (4, 8, 2, 0),
    "ARENA": (0, 0, 1, MMAPABLE),
}
"""Key size, value size, entries and flags with which the kernel makes a map of a type."""


def maps() -> None:
    """Every map type with one of its numbers wrong, or what may be wrong."""
    for kind, good in GOOD.items():
        key, value, entries, flags = good

        def create(
            kind: str = kind, key_size: int = key, value_size: int = value,
            max_entries: int = entries, map_flags: int = flags, **more: Any,
        ) -> int:  # fmt: skip
            return make(kind, key_size, value_size, max_entries, map_flags=map_flags, **more)

        attempt(f"{kind} good", create)
        changes: list[tuple[str, int]] = [
            ("key_size", 0), ("key_size", 3), ("key_size", 4), ("value_size", 0),
            ("value_size", 3), ("max_entries", 0), ("max_entries", 1), ("max_entries", 5000),
            ("map_flags", 0), ("map_flags", NO_PREALLOC), ("map_flags", MMAPABLE),
            ("map_flags", 1 << 30), ("map_flags", RDONLY | WRONLY),
        ]  # fmt: skip
        for field, number in changes:
            attempt(f"{kind} {field} {number}", lambda f=field, n=number: create(**{f: n}))


# ---------------------------------------------------------------- one by one


def attr_with(size: int, **at: int) -> bytes:
    """An attr of zeros but for bytes by offset (``b12=1``)."""
    data = bytearray(size)
    for name, number in at.items():
        data[int(name[1:])] = number
    return bytes(data)


def single() -> None:
    """All other reasons, a case each."""
    array = make("ARRAY", 4, 8, 2, map_name=b"array")
    table = make("HASH", 4, 8, 1, map_name=b"table")
    frozen = make("ARRAY", 4, 8, 2, map_name=b"frozen")
    call("MAP_FREEZE", map_fd=frozen)
    reader = make("ARRAY", 4, 8, 2, map_name=b"reader", map_flags=RDONLY)
    queue = make("QUEUE", 0, 8, 1, map_name=b"queue")
    call("MAP_UPDATE_ELEM", map_fd=table, key=u32s(1), value=u64s(1))
    prog = load(prog_name=b"filter").ret
    four = load(prog_type=PROG["CGROUP_SOCK_ADDR"], prog_name=b"connect",
                expected_attach_type=ATTACH["CGROUP_INET4_CONNECT"],
                insns=returning(1)).ret  # fmt: skip
    probe = call("PROG_LOAD", **{**TRIVIAL, "prog_type": PROG["KPROBE"], "prog_name": b"kp"}).ret
    tp = call("PROG_LOAD", **{**TRIVIAL, "prog_type": PROG["TRACEPOINT"], "prog_name": b"tp"}).ret
    null = os.open(os.devnull, os.O_RDONLY)
    key, value = u32s(0), buffer(8)

    def update(fd: int, index: int, flags: int = 0) -> Any:
        return call("MAP_UPDATE_ELEM", map_fd=fd, key=u32s(index), value=u64s(0), flags=flags)

    def lookup(fd: int, index: int = 0, **fields: Any) -> Any:
        return call("MAP_LOOKUP_ELEM", map_fd=fd, key=u32s(index), value=value, **fields)

    attempt("beyond the attr", lambda: asm.bpf(CMD["PROG_LOAD"], attr_with(200, b0=1, b170=1)))
    attempt("more than a page", lambda: asm.bpf(CMD["MAP_CREATE"], bytes(5000)))
    attempt("no instructions", lambda: load(insn_cnt=0))
    attempt("index past the end", lambda: update(array, 7))
    attempt("full map", lambda: update(table, 2))
    attempt("full queue", lambda: [
        call("MAP_UPDATE_ELEM", map_fd=queue, value=u64s(0)) for _ in range(2)])  # fmt: skip
    attempt("huge element", lambda: make("HASH", 4, 5 << 20, 1))
    attempt("command", lambda: asm.bpf(200, bytes(8)))
    attempt("after the last field", lambda: asm.bpf(CMD["MAP_FREEZE"],
            struct.pack("<I", table) + attr_with(28, b8=1)))  # fmt: skip
    attempt("program type", lambda: load(prog_type=250))
    attempt("map type", lambda: call("MAP_CREATE", map_type=250, key_size=4))
    attempt("program flags", lambda: load(prog_flags=1 << 30))
    attempt("name with a space", lambda: load(prog_name=b"not a name"))
    attempt("name without an end", lambda: load(prog_name=b"sixteen_letters_"))
    attempt("map name", lambda: make("ARRAY", 4, 8, 2, map_name=b"a/b"))
    attempt("attach type for loading", lambda: load(
        prog_type=PROG["CGROUP_SOCK_ADDR"], expected_attach_type=250))  # fmt: skip
    attempt("flags are right, the name is not", lambda: load(prog_name=b"a b", prog_flags=0x8F))
    attempt("attach type missing", lambda: load(prog_type=PROG["CGROUP_SOCKOPT"]))
    attempt("attach type not wanted", lambda: load(
        prog_type=PROG["SYSCALL"], prog_flags=16, expected_attach_type=3))  # fmt: skip
    attempt("attach_btf_id not wanted", lambda: load(attach_btf_id=1))
    attempt("log_level", lambda: load(log_level=64, log_size=128, log_buf=buffer(128)))
    attempt("log_buf without size", lambda: load(log_level=1, log_buf=buffer(128)))
    attempt("log_size without buffer", lambda: load(log_level=1, log_size=128))
    attempt("fd not open", lambda: lookup(999))
    attempt("fd of a file", lambda: lookup(null))
    attempt("fd of a program", lambda: lookup(prog))
    attempt("map fd in the program", lambda: load(
        insns=asm.ld_imm64(asm.R1, 999, asm.MAP_FD) + returning(0), insn_cnt=4))  # fmt: skip
    attempt("insns unreadable", lambda: load(insns=1))
    attempt("license unreadable", lambda: load(license=1))
    attempt("key unreadable", lambda: call("MAP_UPDATE_ELEM", map_fd=array, key=1, value=value))
    attempt("attr unreadable", lambda: syscall("bpf", CMD["MAP_CREATE"], 1, 32))
    attempt("key exists", lambda: update(table, 1, flags=1))
    attempt("array element exists", lambda: update(array, 1, flags=1))
    attempt("key must exist", lambda: update(table, 5, flags=2))
    attempt("key not there", lambda: lookup(table, 5))
    attempt("index not there", lambda: lookup(array, 7))
    attempt("last key", lambda: call("MAP_GET_NEXT_KEY", map_fd=table, key=u32s(1), value=value))
    attempt("lookup flags", lambda: lookup(array, flags=1))
    attempt("delete from array", lambda: call("MAP_DELETE_ELEM", map_fd=array, key=key))
    attempt("frozen", lambda: update(frozen, 0))
    attempt("frozen already", lambda: call("MAP_FREEZE", map_fd=frozen))
    mapped = make("ARRAY", 4, 8, 2, map_name=b"mapped", map_flags=MMAPABLE)
    area = mmap.mmap(mapped, mmap.PAGESIZE)  # shared, to be written
    attempt("frozen while it is mapped", lambda: call("MAP_FREEZE", map_fd=mapped))
    area.close()
    attempt("read-only fd", lambda: update(reader, 0))
    attempt("pin not on bpffs", lambda: call("OBJ_PIN", bpf_fd=array, pathname=b"/tmp/a_pin\0"))
    attempt("pin in no directory", lambda: call(
        "OBJ_PIN", bpf_fd=array, pathname=b"/sys/fs/bpf/no/such\0"))  # fmt: skip
    taken = Path(f"/sys/fs/bpf/refusals_{os.getpid()}")
    call("OBJ_PIN", bpf_fd=array, pathname=b"%s\0" % bytes(taken))
    attempt("pin taken", lambda: call(
        "OBJ_PIN", bpf_fd=array, pathname=b"%s\0" % bytes(taken)), str(taken))  # fmt: skip
    attempt("no pin", lambda: call("OBJ_GET", pathname=b"/sys/fs/bpf/no_such_pin\0"))
    attempt("directory for a pin", lambda: call("OBJ_GET", pathname=b"/sys/fs/bpf\0"))
    attempt("file for a pin", lambda: call("OBJ_GET", pathname=b"/proc/version\0"))
    attempt("raw tracepoint", lambda: call(
        "RAW_TRACEPOINT_OPEN", name=b"no_such_tracepoint\0",
        prog_fd=load(prog_type=PROG["RAW_TRACEPOINT"]).ret))  # fmt: skip
    attempt("wrong program for link", lambda: call(
        "LINK_CREATE", prog_fd=prog, attach_type=ATTACH["XDP"], target_fd=1))  # fmt: skip
    attempt("loaded for another hook", lambda: call(
        "PROG_ATTACH", target_fd=os.open(cgroup(), os.O_RDONLY), attach_bpf_fd=four,
        attach_type=ATTACH["CGROUP_INET6_CONNECT"]))  # fmt: skip
    attempt("unknown attach type", lambda: call("LINK_CREATE", prog_fd=prog, attach_type=250))
    xdp = call("PROG_LOAD", **{**TRIVIAL, "prog_type": PROG["XDP"], "prog_name": b"xdp"}).ret
    attempt("no device", lambda: call(
        "LINK_CREATE", prog_fd=xdp, attach_type=ATTACH["XDP"], target_fd=99999))  # fmt: skip
    attempt("no device to query", lambda: call(
        "PROG_QUERY", target_fd=99999, attach_type=ATTACH["TCX_INGRESS"]))  # fmt: skip
    attempt("no file to probe", lambda: uprobes(path=b"/no/such/file\0"))
    attempt("no task to probe", lambda: uprobes(
        path=os.fsencode(sys.executable) + b"\0", pid=0x3FFFFF))  # fmt: skip
    bloom = make("BLOOM_FILTER", 0, 8, 2)
    attempt("delete from bloom filter", lambda: call("MAP_DELETE_ELEM", map_fd=bloom))
    attempt("short packet", lambda: call(
        "PROG_TEST_RUN", prog_fd=xdp, data_in=bytes(4), data_size_in=4))  # fmt: skip
    attempt("not to be test run", lambda: call("PROG_TEST_RUN", prog_fd=probe))
    attempt("unknown id", lambda: call("PROG_GET_FD_BY_ID", start_id=0x7FFFFFF0))
    attempt("no batches", lambda: call(
        "MAP_LOOKUP_BATCH", map_fd=queue, keys=buffer(8), values=value, count=1))  # fmt: skip
    attempt("not BTF", lambda: call("BTF_LOAD", btf=bytes(64), btf_size=64))
    attempt("perf size", lambda: perf_attr(200, 1, b199=1))
    attempt("perf no task and no cpu", lambda: perf_event(1, pid=-1, cpu=-1))
    attempt("perf no such cpu", lambda: perf_event(1, pid=-1, cpu=4000))
    attempt("perf no such task", lambda: perf_event(1, pid=0x3FFFFF, cpu=-1))
    attempt("perf no such type", lambda: perf_event(0x7FFFFFF, pid=0, cpu=-1))
    attempt("perf no such tracepoint", lambda: perf_event(2, 0x7FFFFFFF, pid=-1, cpu=0))
    attempt("perf no such file", lambda: perf_event(
        pmu("uprobe"), text=b"/no/such/file", config2=64))  # fmt: skip
    event = perf_event(1, 0, pid=0, cpu=-1)
    attempt("program for another event", lambda: fcntl.ioctl(event, 0x40042408, tp))
    attempt("no program for an event", lambda: fcntl.ioctl(event, 0x40042408, null))
    number = int((tracefs() / "events/syscalls/sys_enter_getpgid/id").read_text())
    traced = perf_event(2, number, pid=-1, cpu=0)
    fcntl.ioctl(traced, 0x40042408, tp)
    second = call("PROG_LOAD", **{**TRIVIAL, "prog_type": PROG["TRACEPOINT"]}).ret
    attempt("event with a program", lambda: fcntl.ioctl(traced, 0x40042408, second), prog_id(tp))
    attempt("signal", interrupted)
    taken.unlink()


def uprobes(**fields: Any) -> Any:
    """A link of one uprobe."""
    kind = ATTACH["TRACE_UPROBE_MULTI"]
    prog = load(prog_type=PROG["KPROBE"], expected_attach_type=kind).ret
    return call(
        "LINK_CREATE", "uprobe_multi", prog_fd=prog, attach_type=kind, offsets=u64s(64), cnt=1,
        **fields,
    )  # fmt: skip


def prog_id(fd: int) -> int:
    """The id of a program, as /proc tells it."""
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("prog_id:"))


def interrupted() -> Any:
    """A program that takes the verifier long, and signals all the while."""
    turns = 200_000
    insns = (
        asm.mov(asm.R6, 0) + asm.alu("add", asm.R6, 1) + asm.jmp("jlt", asm.R6, turns, -2)
        + returning(0)
    )
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        return load(insns=insns, insn_cnt=len(insns) // 8, prog_name=b"long")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def perf_attr(size: int, kind: int, **at: int) -> Any:
    data = bytearray(attr_with(size, **at))
    data[0], data[4:8] = kind, struct.pack("<I", size)
    return syscall("perf_event_open", bytes(data), 0, -1, -1, 8)


def cgroup() -> str:
    for path in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        if os.path.exists(f"{path}/cgroup.controllers"):
            return path
    return "/sys/fs/cgroup"


def lacking() -> None:
    """What is refused to those who may load programs, but not do this."""
    number = int((tracefs() / "events/sched/sched_switch/id").read_text())
    arena = make("ARENA", 0, 0, 1, map_flags=MMAPABLE)
    where = os.open(cgroup(), os.O_RDONLY)
    set_caps(("CAP_BPF",))
    attempt("query", lambda: call("PROG_QUERY", target_fd=where))
    attempt("arena", lambda: load(
        insns=asm.ld_imm64(asm.R1, arena, asm.MAP_FD) + returning(0), insn_cnt=4, log_level=1,
        log_size=4096, log_buf=buffer(4096)))  # fmt: skip
    raw, exclude_kernel = 1 << 2, 1 << 5  # sample_type is at 24, its bit 10; the bits are at 40
    attempt("tracepoint", lambda: perf_attr(
        112, 2, b8=number & 0xFF, b9=number >> 8, b25=raw, b40=exclude_kernel))  # fmt: skip


def newer() -> None:
    """A flag that came after Linux 6.18: BPF_F_RB_OVERWRITE."""
    attempt("flag", lambda: make("RINGBUF", 0, 0, 4096, map_flags=1 << 19))


GROUPS: dict[str, Callable[[], None]] = {
    "capabilities": capabilities,
    "maps": maps,
    "single": single,
    "lacking": lacking,
    "newer": newer,
}


if __name__ == "__main__":
    GROUPS[sys.argv[1]]()
    print(json.dumps(results))
