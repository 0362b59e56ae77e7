"""A tracee: calls that loaders do not make; what it passed and got, as one JSON object.

perf_event_open with attrs of every size and type, each ioctl of a perf event,
queries with too little room, bytes beyond what anybody knows.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "loaders"))

from _common import (
    ATTACH,
    Kit,
    Refused,
    buffer,
    call,
    libc_function,
    own_cgroup,
    perf_event,
    pmu,
    returning,
    syscall,
    tracefs,
)

ENABLE, DISABLE, REFRESH, RESET = 0x2400, 0x2401, 0x2402, 0x2403
PERIOD, SET_OUTPUT, SET_FILTER, ID = 0x40082404, 0x2405, 0x40082406, 0x80082407
SET_BPF, PAUSE_OUTPUT, QUERY_BPF, MODIFY = 0x40042408, 0x40042409, 0xC008240A, 0x4008240B
SOFTWARE, TRACEPOINT, BREAKPOINT = 1, 2, 5
DUMMY = 9


def open_attr(step: str, said: dict[str, Any], attr: bytes) -> int | None:
    """perf_event_open of these bytes on this process; says what came of it."""
    room = ctypes.create_string_buffer(attr, max(len(attr), 1))
    try:
        fd = syscall("perf_event_open", room, 0, -1, -1, 8)
    except Refused as error:
        said[step] = -(error.errno or 0)
        fd = None
    else:
        said[step] = fd
    said[f"{step}: size after"] = struct.unpack_from("<I", room.raw.ljust(8, b"\0"), 4)[0]
    return fd


def attrs() -> dict[str, Any]:
    """Every published size, sizes between and beyond, and what the types make of the fields."""
    said: dict[str, Any] = {}

    def attr(size: int, length: int | None = None, **at: int) -> bytes:
        data = bytearray(length or max(size, 64))
        struct.pack_into("<IIQ", data, 0, SOFTWARE, size, DUMMY)
        for place, value in at.items():
            struct.pack_into("<Q", data, int(place[1:]), value)
        return bytes(data)

    for size in (64, 72, 80, 96, 104, 112, 120, 128, 136, 144):
        open_attr(f"size {size}", said, attr(size))
    open_attr("size 0", said, attr(0))
    open_attr("size 63", said, attr(63))
    open_attr("size 5", said, attr(5))
    open_attr("size 76", said, attr(76, 80))
    open_attr("size 200, zeros", said, attr(200))
    open_attr("size 200, a byte", said, attr(200, x192=7))
    open_attr("size 5000", said, attr(5000, 8192))

    # Registers of user space at each sample: AX, IP; of a 64-bit x86.
    data = bytearray(attr(128))
    struct.pack_into("<QQ", data, 16, 1000, 1 << 12 | 1 << 0)  # period; REGS_USER, IP
    struct.pack_into("<Q", data, 80, 1 << 0 | 1 << 8)
    open_attr("registers", said, bytes(data))
    # A breakpoint on the write of 4 bytes.
    variable = ctypes.c_int(0)
    data = bytearray(attr(112))
    struct.pack_into("<IIQ", data, 0, BREAKPOINT, 112, 0)
    struct.pack_into("<I", data, 52, 2)
    struct.pack_into("<QQ", data, 56, ctypes.addressof(variable), 4)
    said["variable"] = ctypes.addressof(variable)
    open_attr("breakpoint", said, bytes(data))
    # A cache triple and a hardware event of a PMU by number; there may be no hardware.
    data = bytearray(attr(112))
    struct.pack_into("<IIQ", data, 0, 3, 112, 1 << 16 | 1 << 8 | 3)
    open_attr("cache", said, bytes(data))
    struct.pack_into("<IIQ", data, 0, 0, 112, 4 << 32 | 1)
    open_attr("hardware of a PMU", said, bytes(data))
    # sigtrap wants remove_on_exec; sig_data is handed to the signal's receiver.
    data = bytearray(attr(128))
    struct.pack_into("<Q", data, 40, 1 << 0 | 1 << 36 | 1 << 37)
    struct.pack_into("<Q", data, 120, 0xDEADBEEF)
    open_attr("sigtrap", said, bytes(data))
    return said


def ioctls(kit: Kit) -> dict[str, Any]:
    """Each request once, on a software event, a tracepoint and a uprobe."""
    said: dict[str, Any] = {}
    event, other = perf_event(SOFTWARE, DUMMY), perf_event(SOFTWARE, DUMMY)
    for request in (DISABLE, RESET, ENABLE):
        fcntl.ioctl(event, request, 0)
    fcntl.ioctl(event, ENABLE, 1)
    said["refresh"] = attempt(event, REFRESH, 3)
    number = bytearray(8)
    fcntl.ioctl(event, ID, number)
    said["id"] = int.from_bytes(number, "little")
    said["period"] = attempt(event, PERIOD, struct.pack("<Q", 12345))
    said["output"] = [other, attempt(event, SET_OUTPUT, other), attempt(event, SET_OUTPUT, -1)]
    said["pause"] = attempt(event, PAUSE_OUTPUT, 1)
    attr = struct.pack("<IIQ", SOFTWARE, 64, DUMMY).ljust(64, b"\0")
    said["modify"] = attempt(event, MODIFY, attr)

    number_of = int((tracefs() / "events/sched/sched_switch/id").read_text())
    switch = perf_event(TRACEPOINT, number_of)
    fcntl.ioctl(switch, SET_FILTER, b"prev_pid == 1\0")
    fcntl.ioctl(switch, SET_BPF, kit.prog("TRACEPOINT", returning(0), "on_switch"))
    for room in (4, 0, 65):
        query = bytearray(struct.pack("<II", room, 0) + b"\xff" * 16)
        ret = attempt(switch, QUERY_BPF, query)
        said[f"query {room}"] = [ret, *struct.unpack("<II4I", query)]
    said["tracepoint"] = number_of
    return said


def attempt(fd: int, request: int, arg: Any) -> int:
    """The result of an ioctl, -errno if it fails."""
    try:
        return fcntl.ioctl(fd, request, arg) if isinstance(arg, int) else _pointed(fd, request, arg)
    except OSError as error:
        return -(error.errno or 0)


def _pointed(fd: int, request: int, arg: bytes | bytearray) -> int:
    if isinstance(arg, bytearray):
        return int(fcntl.ioctl(fd, request, arg, True))
    fcntl.ioctl(fd, request, arg)
    return 0


def queries(kit: Kit) -> dict[str, Any]:
    """PROG_QUERY and TASK_FD_QUERY with too little room, or none."""
    said: dict[str, Any] = {}
    cgroup, _ = own_cgroup(kit, "odd")
    where = {"target_fd": cgroup, "attach_type": ATTACH["CGROUP_INET_EGRESS"]}
    progs = [
        kit.prog("CGROUP_SKB", returning(1), name, "CGROUP_INET_EGRESS")
        for name in ("egress_1", "egress_2")
    ]
    for prog in progs:
        call("PROG_ATTACH", attach_bpf_fd=prog, attach_flags=2, **where)
    ids = buffer(16)
    ids.raw = b"\xff" * 16
    with kit.may_be_refused("query of two with room for one"):
        call("PROG_QUERY", prog_ids=ids, count=1, **where)
    said["ids"] = list(struct.unpack("<4I", ids.raw))
    for prog in progs:
        call("PROG_DETACH", attach_bpf_fd=prog, **where)

    path, offset = libc_function("getppid")
    probe = perf_event(pmu("uprobe"), text=path.encode(), config2=offset)
    kit.link("PERF_EVENT", kit.prog("KPROBE", returning(0), "on_getppid"), probe, "perf_event")
    name = buffer(8)
    with kit.may_be_refused("task_fd_query with a small buffer"):
        call("TASK_FD_QUERY", pid=os.getpid(), fd=probe, buf=name, buf_len=8)
    said["short name"] = name.value.decode()
    call("TASK_FD_QUERY", pid=os.getpid(), fd=probe, buf=name, buf_len=0)
    said["path"] = path
    return said


def beyond(kit: Kit) -> None:
    """An attr that is longer than the kernel's, with something in what nobody knows."""
    with kit.may_be_refused("a byte beyond"):
        call("MAP_CREATE", size=256, map_type=2, key_size=4, value_size=4, max_entries=1)
        tail = ctypes.create_string_buffer(256)
        struct.pack_into("<4I", tail, 0, 2, 4, 4, 1)
        tail[200] = 9
        syscall("bpf", 0, tail, 256)
    with kit.may_be_refused("an fd where none belongs"):
        array = kit.map("ARRAY", 4, 4, 1, "array")
        call("MAP_FREEZE", map_fd=array, flags=5)
    with kit.may_be_refused("a CPU's value"):
        percpu = kit.map("PERCPU_ARRAY", 4, 4, 1, "percpu")
        call("MAP_LOOKUP_ELEM", map_fd=percpu, key=bytes(4), value=buffer(16), flags=1 << 32 | 8)


def programs(kit: Kit) -> dict[str, Any]:
    """What loaders have no use for: a map bound to a program, arrays of fds, a signature."""
    said: dict[str, Any] = {}
    array = kit.map("ARRAY", 4, 4, 1, "bound")
    prog = kit.prog("SOCKET_FILTER", returning(0), "binds")
    call("PROG_BIND_MAP", prog_fd=prog, map_fd=array)
    said["bound"] = [prog, array]
    with kit.may_be_refused("PROG_ASSOC_STRUCT_OPS"):
        call("PROG_ASSOC_STRUCT_OPS", map_fd=array, prog_fd=prog, flags=1)
    insns = returning(7)
    attr = ctypes.create_string_buffer(168)
    texts = [ctypes.create_string_buffer(text) for text in (insns, b"GPL", b"not a signature")]
    fds = (ctypes.c_int * 2)(array, array)
    struct.pack_into("<IIQQ", attr, 0, 1, 2, *(ctypes.addressof(text) for text in texts[:2]))
    attr[48:54] = b"signed"
    struct.pack_into("<Q", attr, 120, ctypes.addressof(fds))
    struct.pack_into("<IQIi", attr, 148, 2, ctypes.addressof(texts[2]), 15, -3)
    with kit.may_be_refused("a signature that is none"):
        syscall("bpf", 5, attr, len(attr))
    return said


def main() -> None:
    """Everything, then what came of it."""
    kit = Kit()
    with kit.at_end:
        said = {"attrs": attrs(), "ioctls": ioctls(kit), "queries": queries(kit)}
        said["programs"] = programs(kit)
        beyond(kit)
        said |= {"refused": kit.refused, "pid": os.getpid(), **kit.facts}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
