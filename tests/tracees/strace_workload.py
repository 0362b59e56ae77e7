"""A program whose bpf, perf and ioctl calls are the same in every run.

Run it under a tracer: ``python3 strace_workload.py [GROUP ...]``.  All memory
that its calls name lies at fixed addresses, all fds are what they are by being
opened in order, and nothing depends on time; so the lines that two tracers
print may be compared as they are, but for ids of the kernel's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import struct
import sys
from collections.abc import Callable

ARENA = 0x7_0000_0000
SIZE = 1 << 20
BAD = 0x6_0000_0000
"""An address where nothing is."""
NUMBERS = {
    "x86_64": {"bpf": 321, "perf_event_open": 298, "ioctl": 16, "openat": 257},
    "aarch64": {"bpf": 280, "perf_event_open": 241, "ioctl": 29, "openat": 56},
}
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
LIBC.syscall.restype = ctypes.c_long
FIXED_PRIVATE_ANONYMOUS = 0x10 | 0x2 | 0x20

RETURN_0 = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)
MIXED = b"".join(
    struct.pack("<BBhI", *slot)
    for slot in (
        (0xB7, 0x01, 0, 0x21),
        (0x6B, 0x1A, -4, 0),
        (0x18, 0x11, 0, 5),
        (0x00, 0x00, 0, 0),
        (0x85, 0x00, 0, 6),
        (0x15, 0x00, 3, 0xFFFFFFFF),
        (0xDB, 0x12, -8, 1),
        (0xDC, 0x03, 0, 16),
        (0xE5, 0x00, 0, 0),
        (0xF7, 0xCB, 0, 0),
        (0x30, 0x00, 0, 7),
        (0xA3, 0x00, 0, 7),
        (0xF5, 0x00, 0, 7),
        (0x16, 0x00, 2, 7),
        (0x1E, 0x21, 1, 0),
        (0x91, 0x10, 0, 0),
        (0xC3, 0x10, 0, 0xE1),
        (0x95, 0x00, 0, 0),
    )
)


class Arena:
    """Memory at a fixed address, handed out from its start."""

    def __init__(self) -> None:
        got = LIBC.mmap(ARENA, SIZE, 3, FIXED_PRIVATE_ANONYMOUS, -1, 0)
        assert got == ARENA, hex(got or 0)
        self.used = 0

    def reset(self) -> None:
        ctypes.memset(ARENA, 0, self.used)
        self.used = 0

    def put(self, data: bytes, align: int = 8) -> int:
        """Copies data in; its address."""
        self.used += -self.used % align
        addr = ARENA + self.used
        ctypes.memmove(addr, data, len(data))
        self.used += len(data)
        return addr

    def end(self, data: bytes) -> int:
        """Copies data to the very end, behind which nothing is mapped; its address."""
        ctypes.memmove(ARENA + SIZE - len(data), data, len(data))
        return ARENA + SIZE - len(data)


ARENA_ = Arena()
put = ARENA_.put


def put_at(addr: int, data: bytes) -> None:
    ctypes.memmove(addr, data, len(data))


def call(name: str, *args: int) -> int:
    """Makes a system call; its result, or minus errno."""
    number = NUMBERS[os.uname().machine][name]
    ret: int = LIBC.syscall(ctypes.c_long(number), *[ctypes.c_ulong(arg) for arg in args])
    return -ctypes.get_errno() if ret == -1 else ret


def bpf(cmd: int, fmt: str, *values: int | bytes, size: int | None = None) -> int:
    """bpf(2) with an attr of these fields; cut or padded with zeros to a size."""
    try:
        attr = struct.pack("<" + fmt, *values)
    except struct.error:  # an fd of -1, where calls are made to fail
        unsigned = [v & 0xFFFFFFFF if isinstance(v, int) and v < 0 else v for v in values]
        attr = struct.pack("<" + fmt, *unsigned)
    if size is not None:
        attr = attr[:size].ljust(size, b"\0")
    return call("bpf", cmd, put(attr), len(attr))


def close(fd: int) -> None:
    """Of a result that was made up there is nothing to close; stdin and its like stay open."""
    if 2 < fd < 1 << 31:
        with contextlib.suppress(OSError):
            os.close(fd)


def map_create(kind: int = 2, key: int = 4, value: int = 8, size: int = 72, **more: int) -> int:
    attr = bytearray(96)
    struct.pack_into("<4I", attr, 0, kind, key, value, more.pop("max_entries", 4))
    places = {
        "map_flags": 16, "inner_map_fd": 20, "numa_node": 24, "map_ifindex": 44, "btf_fd": 48,
        "btf_key_type_id": 52, "btf_value_type_id": 56, "btf_vmlinux_value_type_id": 60,
        "value_type_btf_obj_fd": 72, "map_token_fd": 76, "excl_prog_hash_size": 88,
    }  # fmt: skip
    attr[28:44] = b"a_map".ljust(16, b"\0")
    if "map_extra" in more:
        struct.pack_into("<Q", attr, 64, more.pop("map_extra"))
    for name, number in more.items():
        struct.pack_into("<I", attr, places[name], number & 0xFFFFFFFF)
    return call("bpf", 0, put(bytes(attr[:size])), size)


PROG = {
    "prog_type": (0, "I"), "insn_cnt": (4, "I"), "insns": (8, "Q"), "license": (16, "Q"),
    "log_level": (24, "I"), "log_size": (28, "I"), "log_buf": (32, "Q"),
    "kern_version": (40, "I"), "prog_flags": (44, "I"), "prog_name": (48, "16s"),
    "prog_ifindex": (64, "I"), "expected_attach_type": (68, "I"), "prog_btf_fd": (72, "I"),
    "func_info_rec_size": (76, "I"), "func_info": (80, "Q"), "func_info_cnt": (88, "I"),
    "line_info_rec_size": (92, "I"), "line_info": (96, "Q"), "line_info_cnt": (104, "I"),
    "attach_btf_id": (108, "I"), "attach_prog_fd": (112, "I"), "core_relo_cnt": (116, "I"),
    "fd_array": (120, "Q"), "core_relos": (128, "Q"), "core_relo_rec_size": (136, "I"),
    "log_true_size": (140, "I"), "prog_token_fd": (144, "I"), "fd_array_cnt": (148, "I"),
    "signature": (152, "Q"), "signature_size": (160, "I"), "keyring_id": (164, "i"),
}  # fmt: skip


def prog_load(program: bytes = RETURN_0, size: int = 144, **fields: int | bytes) -> int:
    attr = bytearray(max(size, 168))
    fields = {
        "prog_type": 1,
        "insn_cnt": len(program) // 8,
        "insns": put(program),
        "license": put(b"GPL\0"),
        **fields,
    }
    for name, value in fields.items():
        at, fmt = PROG[name]
        struct.pack_into("<" + fmt, attr, at, value)
    return call("bpf", 5, put(bytes(attr[:size])), size)


def maps() -> None:
    """MAP_CREATE at every size, elements, batches, info, queries for ids."""
    for size in (0, 4, 16, 20, 24, 28, 29, 40, 44, 48, 52, 60, 64, 72, 4096, 4097):
        close(map_create(size=size) if size <= 96 else bpf(0, "4I", 2, 4, 8, 4, size=size))
    for kind in (0, 1, 27, 30, 0xFF, 0xFFFFFFFF):
        close(map_create(kind, map_flags=0x80000001))
    close(map_create(map_flags=4, numa_node=-1))
    close(map_create(map_flags=4, numa_node=3, inner_map_fd=-1))
    close(map_create(map_flags=0x3FFF))
    close(map_create(map_extra=5, map_ifindex=1, btf_fd=7, btf_key_type_id=8))
    close(map_create(map_extra=(1 << 64) - 1))
    for name in (b"0123456789abcdef", b"quote\"\\\n\x01\x011", b"\xff\x80end", b"", b"\0x"):
        close(bpf(0, "7I16s", 2, 4, 8, 4, 0, 0, 0, name))
        close(bpf(0, "7I16s", 2, 4, 8, 4, 0, 0, 0, name, size=35))
    fd = map_create(2, max_entries=2)
    key, value = put(struct.pack("<I", 1)), put(b"abcdefgh")
    for flag in (0, 1, 2, 4, 0x20, 1 << 40):
        bpf(2, "I4x3Q", fd, key, value, flag)
        bpf(1, "I4x3Q", fd, key, value, flag)
    for cmd in (1, 2, 3, 4, 21):
        for size in (4, 8, 16, 24, 32, 40):
            bpf(cmd, "I4x3QQ", fd, key, value, 0, 0x1234, size=size)
    bpf(4, "I4x3Q", fd, 0, value, 0)
    bpf(3, "I4x3Q", fd, BAD, 0, 0)
    out = put(bytes(8))
    many = put(bytes(64))
    for cmd in (24, 25, 26, 27):
        bpf(cmd, "4Q2I2Q", 0, out, many, many, 8, fd, 0, 0)
        bpf(cmd, "4Q2I2Q", 0, out, many, many, 2, fd, 4, 0)
        bpf(cmd, "4Q2I2QQ", 0, out, many, many, 2, 99, 4, 3, 5)
        bpf(cmd, "4Q2I2QQ", 0, out, many, many, 2, 99, 4, 3, 5, size=20)
    for size in (0, 24, 40, 44, 48, 64, 76, 88, 100, 104, 200, 5000):
        bpf(15, "2IQ", fd, size, put(bytes(max(size, 1))))
    bpf(15, "2IQ", fd, 80, BAD)
    bpf(15, "2IQ", fd, 80, 0)
    bpf(15, "2IQ", 0, 80, put(bytes(80)))
    bpf(15, "2IQ", 99, 80, put(b"x" * 80))
    bpf(15, "2IQ", fd, 120, put(b"x" * 120))
    bpf(22, "I", fd, size=4)
    bpf(22, "IQ", fd, 3)
    for cmd in (11, 12, 23, 31):
        bpf(cmd, "3I", 0xFFFFFFFE, 0, 0)
        bpf(cmd, "3I", 0xFFFFFFFE, 0, 7, size=4)
    for cmd in (13, 14, 19, 30):
        for size in (4, 8, 12, 16, 24):
            bpf(cmd, "4I", 0x7FFFFFF0, 0, 0x18, 5, size=size)
    close(fd)


def progs() -> None:
    """PROG_LOAD at every size, its pointers good and bad, info, test run."""
    for size in (0, 8, 16, 24, 32, 40, 44, 48, 49, 64, 68, 72, 76, 80, 112, 116, 118, 120,
                 124, 128, 136, 140, 144, 148, 152, 168, 176, 200):  # fmt: skip
        close(prog_load(size=size))
    close(prog_load(MIXED, license=put(b"a license that is longer than 32 bytes by far\0")))
    close(prog_load(MIXED, license=ARENA_.end(b"no end")))
    close(prog_load(MIXED, license=0, kern_version=0x060F05, prog_flags=0x1FF))
    close(prog_load(MIXED, license=BAD, kern_version=0xFFFFFFFF, prog_flags=0x100))
    close(prog_load(b""))
    close(prog_load(insn_cnt=3, insns=BAD))
    close(prog_load(insn_cnt=9, insns=ARENA_.end(RETURN_0)))
    close(prog_load(insn_cnt=0xFFFFFFFF))
    close(prog_load(insn_cnt=0x20000000))
    close(prog_load(prog_type=0x99, expected_attach_type=0x99, prog_name=b"long" * 4))
    close(prog_load(prog_name=b"x\0y\0z", prog_ifindex=77, prog_btf_fd=88, attach_prog_fd=99))
    close(prog_load(log_level=1, log_size=4096, log_buf=put(b"old\0" + bytes(4096))))
    close(prog_load(log_level=1, log_size=4096, log_buf=BAD))
    close(prog_load(func_info_rec_size=8, func_info=BAD, func_info_cnt=1, line_info=BAD,
                    line_info_rec_size=16, line_info_cnt=2, attach_btf_id=3, core_relo_cnt=4,
                    fd_array=BAD, core_relos=BAD, core_relo_rec_size=16))  # fmt: skip
    close(prog_load(size=168, prog_token_fd=0xFFFFFFFF, fd_array_cnt=2, signature_size=4,
                    signature=put(b"\1\2\3\xff"), keyring_id=-1))  # fmt: skip
    close(prog_load(size=168, signature=put(b"s" * 40), signature_size=40))
    fd = prog_load(prog_name=b"p")
    for size in (0, 40, 56, 64, 80, 104, 120, 128, 160, 192, 208, 216, 220, 228, 232, 300):
        bpf(15, "2IQ", fd, size, put(bytes(max(size, 1))))
    info = bytearray(232)
    struct.pack_into("<2I2Q", info, 16, 64, 64, put(bytes(64)), put(bytes(64)))
    struct.pack_into("<IQ", info, 52, 4, put(bytes(16)))
    struct.pack_into("<2I2Q", info, 104, 4, 4, put(bytes(32)), put(bytes(16)))
    bpf(15, "2IQ", fd, 232, put(bytes(info)))
    for size in (16, 40, 48, 64, 72, 76, 80, 88):
        bpf(10, "4I2Q2I2I2Q3II8s", fd, 0, 14, 0, put(bytes(14)), 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            b"extra\0\0\0", size=size)  # fmt: skip
    bpf(10, "4I2Q2I2I2Q3I", fd, 7, 0, 0, 0, 0, 1, 9, 0, 0, BAD, BAD, 0xF, 3, 4, size=76)
    bpf(35, "3I", fd, 99, 5)
    bpf(32, "I", 77)
    bpf(33, "2I", 99, 0x30)
    bpf(34, "I", 99)
    bpf(36, "2I", 3, 99)
    bpf(37, "Q3I", put(bytes(64)), 64, 1, 99, size=20)
    bpf(38, "3I", 99, 98, 1)
    for size in (8, 16, 24, 32):
        bpf(17, "QIIQQ", put(b"no_such_tracepoint\0"), fd, 0, 0x1122, 0, size=size)
    bpf(17, "QIIQQ", put(b"n" * 200), fd, 0, 0x1122, 3)
    close(fd)


def files() -> None:
    """Pins, attachments, queries, BTF, links."""
    for cmd in (6, 7):
        for size in (8, 12, 16, 20, 24):
            bpf(cmd, "QIII", put(b"/no/such\xffpath\0"), 99, 0x18, 0xFFFFFF9C, size=size)
        bpf(cmd, "QIII", put(b"p" * 5000), 99, 0x14000, 5, size=20)
        bpf(cmd, "QII", 0, 99, 0x20)
        bpf(cmd, "QII", BAD, 99, 0)
        bpf(cmd, "QII", ARENA_.end(b"unterminated"), 99, 0)
    for cmd in (8, 9):
        for kind in (0, 37, 46, 99):
            for size in (12, 16, 20, 24, 32, 40):
                bpf(cmd, "6IQQ", 99, 98, kind, 0x27, 97, 96, 95, 94, size=size)
            bpf(cmd, "6IQ", 99, 98, kind, 0x80, 97, 96, 95)
    for kind in (0, 37, 54, 99):
        for size in (16, 28, 32, 40, 48, 64, 72):
            bpf(16, "4IQ2I4QQ", 99, kind, 3, 4, put(bytes(16)), 2, 0, BAD, 0, BAD, 7, 8, size=size)
    for size in (20, 28, 32, 40, 48):
        blob = put(b"\x9f\xeb\x01\0" + b'"B\n' * 20)
        bpf(18, "2Q5IiQ", blob, 0, 64, 0, 0, 0, 0x10008, -1, 5, size=size)
    bpf(18, "2Q4I", BAD, BAD, 64, 9, 1, 4)
    bpf(18, "2Q4I", put(b"12"), BAD, 2, 9, 1, 4)
    bpf(18, "2Q4I", put(b"12"), BAD, 0, 9, 1, 4)
    for size in (16, 40, 48, 56):
        bpf(20, "4IQ2I2QQ", 0x7FFFFFF0, 5, 6, 7, put(b"buffer\0\0"), 8, 9, 10, 11, 12, size=size)
    bpf(20, "4IQ2I2Q", 0x7FFFFFF0, 5, 6, 7, put(b"buffer\0\0"), 8, 5, 0, 0x11)
    bpf(29, "4II", 99, 98, 4, 97, 5)
    bpf(29, "4II", 99, 98, 0, 97, 0)
    links()
    for cmd in (39, 40, 77, 0xFFFFFFFF):
        bpf(cmd, "4I", 1, 2, 3, 4)
    for cmd in range(39):
        call("bpf", cmd, BAD, 24)
        call("bpf", cmd, 0, 24)
        call("bpf", cmd, ARENA_.end(b"short"), 24)


def links() -> None:
    """LINK_CREATE, by attach type and size."""
    strings = put(struct.pack("<3Q", put(b"one\0"), 0, BAD))
    quads = put(struct.pack("<3Q", 1, 0, 0xFFFF << 48))
    iter_info = put(struct.pack("<4I", 77, 77, 77, 77))
    head = (99, 98)
    for kind in (*range(62), 99):
        for size in (12, 16, 20, 32, 40, 64, 72):
            bpf(28, "4I6Q", *head, kind, 0, 0, 0, 0, 0, 0, 0, size=size)
        bpf(28, "4I4I", *head, kind, 0x38, 5, 6, 7, 8)
        bpf(28, "4I4I", *head, kind, 0x18, 5, 6, 7, 8)
    for kind in (24, 25, 26, 27, 41):
        bpf(28, "4IQQ", *head, kind, 0, 5, 0x66)
    for kind in (42,):
        bpf(28, "4I2I3Q", *head, kind, 0, 1, 3, strings, quads, quads)
        bpf(28, "4I2I3Q", *head, kind, 0, 2, 0, strings, quads, quads)
        bpf(28, "4I2I3Q", *head, kind, 0, 1, 9, BAD, ARENA_.end(bytes(16)), 0)
        bpf(28, "4I2I3Q", *head, kind, 0, 1, 0xFFFFFFFF, 0, 0, 0)
    for size in (60, 64, 72):
        bpf(28, "4I4Q4IQ", *head, 48, 0, put(b"/bin/true\0"), quads, quads, quads, 3, 3, 7, 5, 6,
            size=size)  # fmt: skip
    for kind in (59, 60, 61):
        bpf(28, "4I2QI", *head, kind, 0, quads, quads, 3)
    bpf(28, "4I2Ii2I", *head, 45, 0, 2, 3, -100, 1, 0)
    bpf(28, "4IQI", *head, 28, 0, iter_info, 1)


def events() -> None:
    """perf_event_open with every kind of attr, and the ioctls."""

    def attr(size: int | None = None, length: int = 144, **fields: int) -> int:
        data = bytearray(max(length, 144))
        places = {
            "type": (0, "I"), "config": (8, "Q"), "sample_period": (16, "Q"),
            "sample_type": (24, "Q"), "read_format": (32, "Q"), "bits": (40, "Q"),
            "wakeup": (48, "I"), "bp_type": (52, "I"), "config1": (56, "Q"), "config2": (64, "Q"),
            "branch": (72, "Q"), "regs_user": (80, "Q"), "stack_user": (88, "I"),
            "clockid": (92, "i"), "regs_intr": (96, "Q"), "aux_watermark": (104, "I"),
            "max_stack": (108, "H"), "reserved_2": (110, "H"), "aux_sample": (112, "I"),
            "aux_action": (116, "I"), "sig_data": (120, "Q"), "config3": (128, "Q"),
            "config4": (136, "Q"),
        }  # fmt: skip
        struct.pack_into("<I", data, 4, length if size is None else size)
        for name, value in fields.items():
            at, fmt = places[name]
            struct.pack_into("<" + fmt, data, at, value)
        return put(bytes(data[:length]))

    def perf(addr: int, pid: int = 0, cpu: int = -1, group: int = -1, bits: int = 8) -> int:
        return call("perf_event_open", addr, *(v & (1 << 64) - 1 for v in (pid, cpu, group)), bits)

    for length in (64, 72, 80, 96, 104, 112, 120, 128, 136, 144):
        close(perf(attr(length=length, type=1, config=1)))
        close(perf(attr(length=length, type=1, config=9, regs_intr=1, bits=1 << 40)))
    for size in (0, 1, 63, 65, 100, 4096, 0xFFFFFFFF):
        close(perf(attr(size=size, length=144, type=1)))
    close(perf(put(struct.pack("<2I", 1, 200) + bytes(136) + b"\1" * 60)))
    close(perf(0))
    close(perf(BAD))
    close(perf(ARENA_.end(bytes(8))))
    close(perf(ARENA_.end(struct.pack("<2I", 1, 64))))
    for kind in (0, 1, 2, 3, 4, 5, 6, 77):
        for config in (0, 9, 0x10203, 0xFF0000FF, 0x1_0000_0002, 1 << 63):
            close(perf(attr(type=kind, config=config, bp_type=3, config1=0x1000, config2=4)))
    for kind in (4, 5, 7, 8):
        close(perf(attr(type=5, bp_type=kind, config1=0, config2=1)))
    for bit in range(64):
        close(perf(attr(type=1, config=9, bits=1 << bit, sample_period=3, clockid=7, wakeup=2)))
        close(perf(attr(type=1, config=9, sample_type=1 << bit, branch=1 << bit, stack_user=8)))
        close(perf(attr(type=1, config=9, read_format=1 << bit)))
        close(perf(attr(type=1, config=9, sample_type=0x800, branch=1 << bit)))
    close(perf(attr(type=1, config=9, sample_type=0x2000, stack_user=0x100, regs_user=5)))
    close(perf(attr(type=1, config=9, bits=1 << 25, clockid=-5, max_stack=4, reserved_2=5)))
    close(perf(attr(type=1, config=9, aux_watermark=4, aux_sample=5, aux_action=0x15,
                    sig_data=6, config3=7)))  # fmt: skip
    for bits in (0, 1, 2, 4, 0x10, 1 << 40):
        close(perf(attr(type=1, config=9), -1, 0, -1, bits))
    close(perf(attr(type=1, config=9), -7, -9, 99, 0))
    fd = perf(attr(type=1, config=9, bits=1))
    for arg in (0, 1, 3, 1 << 32, (1 << 64) - 1):
        for request in (0x2400, 0x2401, 0x2402, 0x2403, 0x2405, 0x40042408, 0x40042409):
            call("ioctl", fd, request, arg)
    number = put(struct.pack("<Q", 1234))
    for request in (0x40082404, 0x80082407, 0x40082406):
        for arg in (number, 0, BAD, ARENA_.end(b"abc")):
            put_at(number, struct.pack("<Q", 1234))
            call("ioctl", fd, request, arg)
    call("ioctl", fd, 0x40082406, put(b"common_pid != 0 && a_field == \"much longer\"\0"))
    call("ioctl", 99, 0x80082407, number)
    for arg in (put(struct.pack("<6I", 4, 0, 1, 2, 3, 4)), 0, BAD, ARENA_.end(b"\4\0\0\0")):
        call("ioctl", fd, 0xC008240A, arg)
    for arg in (attr(type=5, bits=1), 0, BAD, attr(size=63)):
        call("ioctl", fd, 0x4008240B, arg)
    call("ioctl", fd, 0x2499, 5)
    call("ioctl", 99, 0x2400, 0)
    close(fd)


def noise(seed: int = 1) -> None:
    """bpf attrs of random bytes and of small numbers, at all sizes."""
    rand = random.Random(seed)
    for cmd in range(40):
        for size in (*range(4, 200, 12), *range(8, 176, 8)):
            data = bytearray(rand.randbytes(size))
            if cmd == 36 or cmd == 32:
                data[0:4] = b"\x7f\0\0\0"
            call("bpf", cmd, put(bytes(data)), size)
            small = [rand.choice((0, 0, 1, 2, 3, 5, 20, 40, 60, 99)) for _ in range(size // 4 + 1)]
            if cmd in (0, 5, 18, 32):
                small[0] = 99
            if cmd in (6, 7):
                small[0:2] = [0, 0]
            if cmd in (11, 12, 13, 14, 19, 23, 30, 31):  # no object of anybody's
                small[0] = 0x7FFFFF00
            ARENA_.used += -ARENA_.used % 8
            call("bpf", cmd, put(struct.pack(f"<{len(small)}I", *small)[:size]), size)
            if ARENA_.used > SIZE - 8192:
                ARENA_.reset()


GROUPS: dict[str, Callable[[], None]] = {
    "maps": maps,
    "progs": progs,
    "files": files,
    "events": events,
    "noise": noise,
}


def main(groups: list[str]) -> None:
    """Runs these groups, or all."""
    for name in groups or GROUPS:
        ARENA_.reset()
        GROUPS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
