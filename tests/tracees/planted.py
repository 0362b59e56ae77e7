"""Asks BPF for much, with something in each place that nobody else is to see: PLANTS.

The first argument is one of them; the second a folder to write to.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import socket
import struct
import sys
from pathlib import Path

PLANTS = {
    name: b"Zq7" + name.encode() + b"Kx9" + b"Wv3"[: 9 - len(name)]
    for name in (
        "argv", "comm", "key", "value", "found", "pin", "licence", "log", "uprobe", "open",
        "file", "data", "rawtp", "filter", "attr", "btf", "stack", "netdev", "netlink", "cgroup",
        "env", "perf",
    )
}  # fmt: skip
"""What a program has that nobody else is to see, by where it has it; 15 bytes at most."""
NAMED = {
    name: b"Zq7" + name.encode() + b"Kx9" + b"Wv3"[: 9 - len(name)]
    for name in (
        "prog", "map", "stale", "func", "struct", "member", "line", "note", "alone", "info",
    )
}  # fmt: skip
"""The same for what names hide; 15 bytes at most."""
NR = {"x86_64": (321, 298), "aarch64": (280, 241)}[platform.machine()]
CLONE_NEWNET = 0x40000000
SOURCE = b"/home/" + PLANTS["btf"] + b"/prog.c"
KEEP: list[object] = []


def ptr(data: bytes, size: int = 0) -> int:
    """The address of a copy that stays."""
    buffer = ctypes.create_string_buffer(data, max(size, len(data) + 1))
    KEEP.append(buffer)
    return ctypes.addressof(buffer)


def padded(name: str, size: int = 32) -> bytes:
    return PLANTS[name].ljust(size, b".")


class Caller:
    """Calls through a C library of a name that is planted, too: it is on the stack."""

    def __init__(self, folder: Path) -> None:
        name = f"{PLANTS['stack'].decode()}.so"
        libc = next(
            line.split()[-1]
            for line in Path("/proc/self/maps").read_text().splitlines()
            if "/libc.so" in line or "/libc-" in line
        )
        shutil.copy(libc, folder / name)
        self._syscall = ctypes.CDLL(str(folder / name)).syscall

    def bpf(self, cmd: int, attr: bytes) -> int:
        buffer = ctypes.create_string_buffer(attr, len(attr))
        return int(self._syscall(NR[0], cmd, buffer, len(attr))) & 0xFFFFFFFF

    def perf(self, attr: bytes, pid: int, cpu: int) -> int:
        return int(self._syscall(NR[1], attr, pid, cpu, -1, 8))


def programs(caller: Caller) -> int:
    """Loads one, and one that is refused."""
    insns = ptr(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
    log = ptr(PLANTS["log"], 4096)
    head = (1, 2, insns)
    refused = struct.pack(
        "<IIQQIIQII16s", *head, ptr(PLANTS["licence"]), 1, 4096, log, 0, 0, b"refused!"
    )
    caller.bpf(5, refused)
    caller.bpf(18, struct.pack("<QQIII", ptr(padded("data", 64)), log, 64, 4096, 1))
    strings = b"\0int\0" + SOURCE + b"\0"
    types = struct.pack("<IIII", 1, 1 << 24, 4, 1 << 24 | 32)
    btf = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    data = btf + types + strings
    caller.bpf(18, struct.pack("<QQIII", ptr(data), 0, len(data), 0, 0))
    return caller.bpf(
        5, struct.pack("<IIQQIIQII16s", *head, ptr(b"GPL"), 0, 0, 0, 0, 0, b"shown")
    )


def maps(caller: Caller) -> int:
    """One that is set and read; what is beside the key in memory is in the attr, too."""
    fd = caller.bpf(0, struct.pack("<7I16s", 1, 32, 32, 4, 0, 0, 0, b"table"))
    key, other = ptr(padded("key")), ptr(b"k" * 32)
    beside = padded("attr", 96).replace(b".", b"\0")
    caller.bpf(2, struct.pack("<IxxxxQQQ", fd, key, ptr(padded("value")), 0) + beside)
    caller.bpf(2, struct.pack("<IxxxxQQQ", fd, other, ptr(padded("found")), 0))
    caller.bpf(1, struct.pack("<IxxxxQQQ", fd, other, ptr(b"", 64), 0))
    caller.bpf(4, struct.pack("<IxxxxQQQ", fd, key, ptr(b"", 64), 0))
    caller.bpf(6, struct.pack("<QII", ptr(b"/sys/fs/bpf/no/" + PLANTS["pin"]), fd, 0))
    return fd


def names(caller: Caller) -> None:
    """A program with BTF, refused with a log and loaded; a map that tells its name; stale bytes
    behind a name; a name in BTF that nothing has."""
    line = b"return " + NAMED["line"] + b"(ctx); /* " + NAMED["note"] + b" */"
    parts = [b"", b"int", NAMED["func"], NAMED["struct"], NAMED["member"], line, b"x.c",
             NAMED["alone"]]  # fmt: skip
    strings = b"\0".join(parts) + b"\0"
    at = {part: strings.index(b"\0" + part + b"\0") + 1 for part in parts[1:]}
    types = struct.pack("<IIII", at[b"int"], 1 << 24, 4, 1 << 24 | 32)
    types += struct.pack("<IIIIII", at[NAMED["struct"]], 4 << 24 | 1, 4, at[NAMED["member"]], 1, 0)
    types += struct.pack("<III", 0, 13 << 24, 1)  # int (void)
    types += struct.pack("<III", at[NAMED["func"]], 12 << 24, 3)
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    data = head + types + strings
    btf = caller.bpf(18, struct.pack("<QQIII", ptr(data), 0, len(data), 0, 0))
    func, where = struct.pack("<II", 0, 4), struct.pack("<IIII", 0, at[b"x.c"], at[line], 3 << 10)
    about = struct.pack("<IIIIQIIQI", 0, 0, btf, 8, ptr(func), 1, 16, ptr(where), 1)
    name = NAMED["prog"].ljust(16, b"\0")
    log = ptr(NAMED["info"] + b" of an earlier load", 4096)
    for first in (0x79, 0xB7):  # r0 = *(u64 *)(r0 +0), or r0 = 0
        insns = ptr(struct.pack("<BBhiBBhi", first, 0, 0, 0, 0x95, 0, 0, 0))
        load = struct.pack("<IIQQIIQII", 1, 2, insns, ptr(b"GPL"), 1, 4096, log, 0, 0)
        prog = caller.bpf(5, load + name + about)
    info = ptr(b"", 256)
    caller.bpf(15, struct.pack("<IIQ", prog, 256, info))
    made = caller.bpf(0, struct.pack("<7I16s", 2, 4, 4, 4, 0, 0, 0, NAMED["map"]))
    caller.bpf(15, struct.pack("<IIQ", made, 80, info))
    caller.bpf(0, struct.pack("<7I16s", 2, 4, 4, 4, 0, 0, 0, b"a\0" + NAMED["stale"]))


def events(caller: Caller) -> None:
    attr = bytearray(120)
    struct.pack_into("<II", attr, 0, 8, 120)
    struct.pack_into("<QQ", attr, 56, ptr(b"/tmp/" + PLANTS["uprobe"]), 16)
    caller.perf(bytes(attr), -1, 0)
    struct.pack_into("<II", attr, 0, 6, 120)
    struct.pack_into("<QQ", attr, 56, ptr(PLANTS["perf"]), 0)
    caller.perf(bytes(attr), -1, 0)
    plain = bytearray(120)
    struct.pack_into("<II", plain, 0, 1, 120)
    event = caller.perf(bytes(plain), 0, -1)
    words = ctypes.c_void_p(ptr(PLANTS["filter"]))
    ctypes.CDLL(None).ioctl(event, 0x40082406, words)  # PERF_EVENT_IOC_SET_FILTER


def rename(index: int, name: bytes) -> None:
    """Gives an interface that name."""
    attr = struct.pack("<HH", 4 + len(name) + 1, 3) + name + b"\0"  # IFLA_IFNAME
    body = struct.pack("<BxHiII", 0, 0, index, 0, 0) + attr + bytes(-len(attr) % 4)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
        route.bind((0, 0))
        route.send(struct.pack("<IHHII", 16 + len(body), 19, 5, 1, 0) + body)  # RTM_SETLINK
        route.recv(4096)


def network(caller: Caller, prog: int) -> None:
    """An interface that is not there gets a name, and in a network namespace lo gets one."""
    rename(1 << 30, PLANTS["netlink"])
    if ctypes.CDLL(None).unshare(CLONE_NEWNET):
        raise OSError("no network namespace")
    rename(1, PLANTS["netdev"])
    caller.bpf(28, struct.pack("<IIIIII", prog, 1, 37, 0, 0, 0) + bytes(24))  # XDP
    caller.bpf(8, struct.pack("<IIIIII", 1, prog, 37, 0, 0, 0))


def files(caller: Caller, prog: int, folder: Path) -> None:
    """Where things are attached, by path and by fd."""
    caller.bpf(17, struct.pack("<QIIQ", ptr(PLANTS["rawtp"]), prog, 0, 0))
    caller.bpf(10, struct.pack("<IIIIQQ", prog, 0, 64, 0, ptr(padded("data", 64)), 0) + bytes(48))
    with contextlib.suppress(OSError):
        os.open(b"/sys/kernel/tracing/events/" + PLANTS["open"] + b"/id", 0)
    file = os.open(os.fsencode(folder) + b"/" + PLANTS["file"], os.O_RDWR | os.O_CREAT)
    caller.bpf(8, struct.pack("<IIIIII", file, file, 8, 0, 0, 0))  # PROG_ATTACH
    group = Path("/sys/fs/cgroup") / PLANTS["cgroup"].decode()
    unified = Path("/sys/fs/cgroup/unified")
    if unified.is_dir():
        group = unified / group.name
    group.mkdir()
    try:
        caller.bpf(8, struct.pack("<IIIIII", os.open(group, os.O_RDONLY), prog, 8, 0, 0, 0))
    finally:
        group.rmdir()


def main(folder: Path) -> None:
    """Everything once."""
    ctypes.CDLL(None).prctl(15, PLANTS["comm"])  # PR_SET_NAME
    caller = Caller(folder)
    prog = programs(caller)
    names(caller)
    maps(caller)
    events(caller)
    files(caller, prog, folder)
    network(caller, prog)


if __name__ == "__main__":
    main(Path(sys.argv[2]))
