"""A tracee: objects by odd ways.  ``identity.py CASE`` prints what is true as one JSON object.

Perf events under other numbers, in children, in strangers, in the place of
closed ones; memory that changes while the kernel is about to read it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from fcntl import ioctl
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "loaders"))

from _common import (
    PERF_EVENT_IOC_DISABLE,
    PERF_EVENT_IOC_ENABLE,
    Kit,
    buffer,
    call,
    info,
    libc_function,
    map_facts,
    perf_event,
    pmu,
    prog_facts,
    returning,
    start_child,
    syscall,
    u32s,
)

FUNCTIONS = ("getppid", "getpgrp", "getegid")


def probe(function: str) -> int:
    """A uprobe's perf event."""
    path, offset = libc_function(function)
    return perf_event(pmu("uprobe"), text=path.encode(), config2=offset)


def enable(fd: int) -> None:
    """The call by which the test sees what an fd is taken for."""
    ioctl(fd, PERF_EVENT_IOC_ENABLE, 0)


def numbers(kit: Kit) -> dict[str, Any]:
    """dup, and another event in the place of a closed one: [[function, fd], ...] as enabled."""
    first, second = probe("getppid"), probe("getpgrp")
    copy = os.dup(first)
    used: list[Any] = [["getppid", copy], ["getppid", first], ["getpgrp", second]]
    for _, fd in used:
        enable(fd)
    os.dup2(second, first)  # the number of getppid's event is now getpgrp's
    enable(first)
    used.append(["getpgrp", first])
    enable(copy)
    used.append(["getppid", copy])
    os.close(first)
    third = probe("getegid")  # takes the lowest number: that one
    assert third == first
    enable(third)
    used.append(["getegid", third])
    return {"used": used}


def forked(kit: Kit) -> dict[str, Any]:
    """A child keeps what its parent had; the parent's number is in use anew meanwhile."""
    first = probe("getppid")
    ready, go = os.pipe()

    def child() -> dict[str, Any]:
        os.read(ready, 1)
        enable(first)
        second = probe("getegid")
        enable(second)
        return {"used": [["getppid", first], ["getegid", second]]}

    answer = start_child(child)
    os.close(first)
    other = probe("getpgrp")
    assert other == first
    enable(other)
    os.write(go, b"x")
    said = answer()
    return {"used": [["getpgrp", other], *said["used"]]}


def passed(kit: Kit) -> dict[str, Any]:
    """An event passed over a socket, received where the child had another before."""
    ours, theirs = socket.socketpair()
    os.set_inheritable(theirs.fileno(), True)

    def child() -> dict[str, Any]:
        mine = probe("getpgrp")
        enable(mine)
        os.close(mine)
        theirs.send(b"ready")
        _, fds, _, _ = socket.recv_fds(theirs, 16, 1)
        assert fds[0] == mine
        enable(fds[0])
        return {"used": [["getpgrp", mine], ["getppid", fds[0]]]}

    answer = start_child(child)
    ours.recv(16)
    first = probe("getppid")
    enable(first)
    socket.send_fds(ours, [b"x"], [first])
    said = answer()
    return {"used": [["getppid", first], *said["used"]]}


def taken(kit: Kit) -> dict[str, Any]:
    """An event taken out of another process, and one that a thread uses."""
    stay, go = os.pipe()
    told, tell = os.pipe()

    def child() -> dict[str, Any]:
        os.close(go)
        fd = probe("getegid")
        os.write(tell, struct.pack("<ii", os.getpid(), fd))
        os.read(stay, 1)
        return {}

    answer = start_child(child)
    pid, theirs = struct.unpack("<ii", os.read(told, 8))
    ours = syscall("pidfd_getfd", syscall("pidfd_open", pid, 0), theirs, 0)
    enable(ours)
    os.close(go)
    answer()
    mine = probe("getppid")
    worker = threading.Thread(target=enable, args=(mine,))
    worker.start()
    worker.join()
    return {"used": [["getegid", ours], ["getppid", mine]]}


def inherited(kit: Kit) -> dict[str, Any]:
    """fds of the tracer's parent, by number in argv: event, bare event, map, prog; and a pin."""
    event, bare, table, prog = map(int, sys.argv[2:6])
    enable(event)
    enable(bare)
    ioctl(event, PERF_EVENT_IOC_DISABLE, 0)
    info(table, 88)
    info(prog, 232)
    got = call("OBJ_GET", pathname=os.fsencode(sys.argv[6]) + b"\0", size=16).ret
    young = kit.map("ARRAY", 4, 8, 1, "young")
    return {"pinned": map_facts(got), "young": map_facts(young)}


# ---------------------------------------------------------------- lies


class Shared:
    """Memory that another process changes all the time."""

    def __init__(self, size: int) -> None:
        self.memory = mmap.mmap(-1, size)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    @contextlib.contextmanager
    def changing(self, at: int, one: bytes, two: bytes) -> Any:
        """Writes the one and the other at a place, as fast as can be, in another process."""
        pid = os.fork()
        if pid == 0:
            try:
                end = at + len(one)
                while True:
                    for _ in range(1000):
                        self.memory[at:end] = one
                        self.memory[at:end] = two
            finally:
                os._exit(0)
        try:
            yield
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def until_seen(make: Callable[[], Any], kinds: int, rounds: int = 300) -> list[Any]:
    """What ``make`` gives, so often that the memory has changed in the middle of some calls.

    The tracer, the tracee and the one who changes it share few CPUs: mostly it has not.
    """
    found: list[Any] = []
    start = time.monotonic()
    while len(found) < rounds and time.monotonic() - start < 8:
        found.append(make())
        if len({json.dumps(each[1]) for each in found}) < kinds:
            rounds = min(rounds + 1, 800)
    return found


def lying_map(kit: Kit) -> dict[str, Any]:
    """MAP_CREATE whose value_size changes: [[id, value_size], ...] as the kernel took it."""
    shared = Shared(4096)
    struct.pack_into("<4I", shared.memory, 0, 2, 4, 8, 1)
    shared.memory[28:32] = b"lies"

    def make() -> tuple[int, int]:
        fd = syscall("bpf", 0, ctypes.c_void_p(shared.address), 72)
        facts = map_facts(fd)
        os.close(fd)
        return facts["id"], facts["value_size"]

    with shared.changing(8, struct.pack("<I", 8), struct.pack("<I", 64)):
        return {"made": until_seen(make, 2)}


def lying_name(kit: Kit) -> dict[str, Any]:
    """MAP_CREATE whose name changes."""
    shared = Shared(4096)
    struct.pack_into("<4I", shared.memory, 0, 2, 4, 8, 1)

    def make() -> tuple[int, str]:
        fd = syscall("bpf", 0, ctypes.c_void_p(shared.address), 72)
        facts = map_facts(fd)
        held.append(fd)
        return facts["id"], facts["name"]

    held: list[int] = []
    with shared.changing(28, b"honest\0", b"sneaky\0"):
        found = until_seen(make, 2)
    time.sleep(0.3)  # let the tracer look before they are gone
    return {"made": found}


def lying_prog(kit: Kit) -> dict[str, Any]:
    """PROG_LOAD whose instructions change: [[id, tag], ...]."""
    shared = Shared(4096)
    shared.memory[256:272] = returning(1)
    shared.memory[512:516] = b"GPL\0"
    insns, license_ = shared.address + 256, shared.address + 512
    struct.pack_into("<IIQQ", shared.memory, 0, 1, 2, insns, license_)
    shared.memory[48:52] = b"lies"

    def make() -> tuple[int, str]:
        fd = syscall("bpf", 5, ctypes.c_void_p(shared.address), 72)
        facts = prog_facts(fd)
        os.close(fd)
        return facts["id"], facts["tag"]

    with shared.changing(260, struct.pack("<i", 1), struct.pack("<i", 0)):
        return {"made": until_seen(make, 2)}


def two(kit: Kit) -> dict[str, Any]:
    """Two programs with maps of their own, and calls that succeed and fail: for filters."""
    maps = [kit.map("ARRAY", 4, 8, 1, name) for name in ("map_one", "map_two")]
    progs = [kit.prog("SOCKET_FILTER", returning(1), name) for name in ("prog_one", "prog_two")]
    ours, _ = socket.socketpair()
    for prog in progs:
        ours.setsockopt(socket.SOL_SOCKET, 50, prog)
    with kit.may_be_refused("lookup"):
        call("MAP_LOOKUP_ELEM", map_fd=maps[0], key=u32s(7), value=buffer(8))
    call("MAP_FREEZE", map_fd=maps[1])
    # A name that the filter hides is asked of the kernel, as long as the object is there.
    time.sleep(1)
    return {}


def many(kit: Kit) -> dict[str, Any]:
    """Lookups in a loop; how long one takes, in microseconds."""
    table = kit.map("ARRAY", 4, 8, 1, "looked_at")
    kit.prog("SOCKET_FILTER", returning(1), "loaded")
    attr = ctypes.create_string_buffer(32)
    key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(8)
    struct.pack_into("<IxxxxQQ", attr, 0, table, ctypes.addressof(key), ctypes.addressof(value))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(1000):
            syscall("bpf", 1, attr, 32)
        times.append(time.perf_counter() - start)
    return {"us": min(times) * 1000}


CASES = {
    case.__name__: case
    for case in (
        numbers, forked, passed, taken, inherited, lying_map, lying_name, lying_prog, two, many,
    )
}  # fmt: skip

if __name__ == "__main__":
    kit = Kit()
    said = CASES[sys.argv[1]](kit)
    print(json.dumps({"pid": os.getpid(), **kit.facts, **said}))
