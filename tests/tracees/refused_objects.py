"""Calls that are refused for what they put where; prints [case, errno] lines, and ends at once."""

import ctypes
import errno
import json
import os
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support import bpf_asm as asm

KEEP = []
PERF = {"x86_64": 298, "aarch64": 241}[os.uname().machine]
SET_BPF = 0x40042408


def pointer(data: bytes) -> int:
    """The address of a copy that stays."""
    KEEP.append(ctypes.create_string_buffer(data, max(1, len(data))))
    return ctypes.addressof(KEEP[-1])


def attr(*fields: tuple[int, str, int]) -> bytes:
    """A bpf_attr of (offset, format, value)."""
    made = bytearray(168)
    for offset, form, value in fields:
        struct.pack_into("<" + form, made, offset, value)
    return bytes(made)


def case(name: str, command: int, data: bytes) -> int:
    """Makes the call and says how it ended; the fd, or -1."""
    try:
        made, failed = asm.bpf(command, data), 0
    except OSError as error:
        made, failed = -1, error.errno or 0
    if failed:
        print(json.dumps([name, errno.errorcode.get(failed, str(failed))]), flush=True)
    return made


def new_map(name: str, kind: int, key: int, value: int, entries: int, inner: int = 0) -> int:
    """MAP_CREATE."""
    fields = [(0, "I", kind), (4, "I", key), (8, "I", value), (12, "I", entries), (20, "I", inner)]
    data = bytearray(attr(*fields))
    data[28 : 28 + len(name)] = name.encode()
    return case(name, 0, bytes(data))


def load(name: str, kind: int, insns: bytes, attach: int = 0) -> int:
    """PROG_LOAD."""
    data = bytearray(
        attr((0, "I", kind), (4, "I", len(insns) // 8), (8, "Q", pointer(insns)),
             (16, "Q", pointer(b"GPL\0")), (68, "I", attach))
    )  # fmt: skip
    data[48 : 48 + len(name)] = name.encode()
    return case(name, 5, bytes(data))


def update(name: str, table: int, value: int) -> None:
    """MAP_UPDATE_ELEM of key 0."""
    key, data = pointer(struct.pack("<I", 0)), pointer(struct.pack("<I", value))
    case(name, 2, attr((0, "I", table), (8, "Q", key), (16, "Q", data)))


def tail_call(table: int) -> bytes:
    """A program that jumps through a prog array."""
    return (
        asm.ld_imm64(2, table, 1) + asm.mov(3, 0) + asm.call(12) + asm.mov(0, 0) + asm.exit_()
    )


jumps = new_map("jumps", 3, 4, 4, 4)
load("tc_entry", 3, tail_call(jumps))
xdp = load("xdp_tail", 6, asm.mov(0, 2) + asm.exit_())
update("other type", jumps, xdp)
load("late", 6, tail_call(jumps))
update("a map", jumps, jumps)
template = new_map("template", 2, 4, 8, 1)
outer = new_map("outer", 12, 4, 4, 4, template)
update("more entries", outer, new_map("larger", 2, 4, 8, 2))
update("another kind", outer, new_map("hashed", 1, 4, 8, 1))
new_map("nested", 13, 4, 4, 4, outer)
new_map("of programs", 12, 4, 4, 4, jumps)
reader, _ = os.pipe()
update("a pipe", new_map("sockets", 15, 4, 4, 4), reader)
case("two modes", 28, attr((0, "I", xdp), (4, "I", 1), (8, "I", 37), (12, "I", 6)))
raw = load("args", 17, asm.load("u64", 2, 1, 88) + asm.mov(0, 0) + asm.exit_())
case("too many arguments", 17, attr((0, "Q", pointer(b"sys_enter\0")), (8, "I", raw)))
case("a category", 17, attr((0, "Q", pointer(b"sched:sched_switch\0")), (8, "I", raw)))
small = new_map("small", 1, 4, 4, 4)
keys, values = pointer(struct.pack("<6I", *range(6))), pointer(bytes(24))
case("a batch", 26, attr((16, "Q", keys), (24, "Q", values), (32, "I", 6), (36, "I", small)))
case("a dot", 6, attr((0, "Q", pointer(b"/sys/fs/bpf/a.b\0")), (8, "I", small)))
case("nothing there", 7, attr((0, "Q", pointer(b"/sys/fs/bpf/no_such_pin\0"))))
events = Path("/sys/kernel/tracing/events/syscalls/sys_enter_close/id")
far = load("far", 5, asm.load("u64", 2, 1, 120) + asm.mov(0, 0) + asm.exit_())
libc = ctypes.CDLL(None, use_errno=True)
event_attr = struct.pack("<IIQ", 2, 64, int(events.read_text())) + bytes(48)
event = libc.syscall(PERF, ctypes.c_void_p(pointer(event_attr)), -1, 0, -1, 8)
if libc.ioctl(event, ctypes.c_ulong(SET_BPF), far) < 0:
    print(json.dumps(["past the record", errno.errorcode[ctypes.get_errno()]]), flush=True)
os._exit(0)
