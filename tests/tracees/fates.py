"""Programs that fare differently: attached, disabled, detached, run, refused, left alone.

Prints the programs' ids by name, and its own pid, as JSON; then waits for stdin to end.
"""

import contextlib
import ctypes
import json
import os
import struct
import sys
from fcntl import ioctl
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "loaders"))

from _common import (
    ATTACH,
    PERF_EVENT_IOC_DISABLE,
    PERF_EVENT_IOC_ENABLE,
    PERF_EVENT_IOC_SET_BPF,
    Kit,
    Refused,
    call,
    own_cgroup,
    perf_event,
    pmu,
    returning,
    syscall,
)

SOFTWARE, BREAKPOINT = 1, 5
CPU_CLOCK, PAGE_FAULTS = 0, 2
CPUS = sorted(os.sched_getaffinity(0))
WORD = ctypes.create_string_buffer(64)


def clock(cpu: int, rate: int, freq: bool) -> int:
    """A cpu-clock event of a CPU."""
    attr = bytearray(112)
    struct.pack_into("<IIQQ", attr, 0, SOFTWARE, len(attr), CPU_CLOCK, rate)
    struct.pack_into("<Q", attr, 40, 1 | (freq << 10))  # disabled, freq
    return syscall("perf_event_open", bytes(attr), -1, cpu, -1, 8)


def attach(event: int, prog: int) -> None:
    """By ioctl, and enables."""
    ioctl(event, PERF_EVENT_IOC_SET_BPF, prog)
    ioctl(event, PERF_EVENT_IOC_ENABLE, 0)


def main(kit: Kit) -> None:
    """Each program has its fate for its name."""
    sampled = kit.prog("PERF_EVENT", returning(0), "sampled")
    for cpu in CPUS:
        attach(clock(cpu, 99, True), sampled)
    stopped = kit.prog("PERF_EVENT", returning(0), "stopped")
    events = [clock(cpu, 500_000_000, False) for cpu in CPUS]
    for event in events:
        attach(event, stopped)
    for event in events:
        ioctl(event, PERF_EVENT_IOC_DISABLE, 0)
    faults = kit.prog("PERF_EVENT", returning(0), "faults")
    attach(perf_event(SOFTWARE, PAGE_FAULTS, pid=0), faults)
    watched = kit.prog("PERF_EVENT", returning(0), "watched")
    attr = bytearray(112)
    struct.pack_into("<IIQQ", attr, 0, BREAKPOINT, len(attr), 0, 1)
    struct.pack_into("<QIIQQ", attr, 40, 0, 0, 2, ctypes.addressof(WORD), 8)  # HW_BREAKPOINT_W
    with contextlib.suppress(Refused):  # an emulated processor may have none
        attach(syscall("perf_event_open", bytes(attr), os.getpid(), -1, -1, 8), watched)
        kit.say(watched=ctypes.addressof(WORD))
    group, path = own_cgroup(kit, "fates")
    left = kit.prog("CGROUP_SKB", returning(1), "left")
    egress = ATTACH["CGROUP_INET_EGRESS"]
    call("PROG_ATTACH", target_fd=group, attach_bpf_fd=left, attach_type=egress)
    call("PROG_DETACH", target_fd=group, attach_bpf_fd=left, attach_type=egress)
    kit.say(cgroup=str(path))
    ran = kit.prog("SOCKET_FILTER", returning(0), "ran")
    for _ in range(2):
        call("PROG_TEST_RUN", prog_fd=ran, data_in=bytes(64), data_size_in=64, repeat=3)
    refused = kit.prog("TRACEPOINT", returning(0), "refused")
    with contextlib.suppress(OSError):
        ioctl(perf_event(SOFTWARE, PAGE_FAULTS), PERF_EVENT_IOC_SET_BPF, refused)
    kit.prog("KPROBE", returning(0), "probing")
    with contextlib.suppress(Refused):
        pmu("kprobe")
    kit.prog("RAW_TRACEPOINT", returning(0), "alone")
    ids = {each["name"]: each["id"] for each in kit.facts["progs"]}
    print(json.dumps({"pid": os.getpid(), "cpus": CPUS, "ids": ids, **kit.facts}), flush=True)
    sys.stdin.read()


kit = Kit()
with kit.at_end:
    main(kit)
