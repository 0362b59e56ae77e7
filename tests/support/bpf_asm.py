"""A tiny BPF assembler and a raw bpf(2) caller, for tests.

The numbers are written here again on purpose, from linux/bpf.h (Linux 7.1)
and not from ``decoders``: a test must be able to find the decoder wrong.

Assemble with the one-line functions below; each returns ``bytes``, and
programs are their sum::

    prog = mov(R0, 0) + exit_()
    loaded = prog_load(prog, log_level=2)

The kernel side is bpf(2) through ctypes, with no library between.  Every fd
that is made here is closed by ``close()`` or by using the value in ``with``.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)

LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)
K, X = 0x00, 0x08
W, H, B, DW = 0x00, 0x08, 0x10, 0x18
IMM, ABS, IND, MEM, MEMSX, ATOMIC = 0x00, 0x20, 0x40, 0x60, 0x80, 0xC0

ALU_OPS: Final[dict[str, int]] = {
    "add": 0x00, "sub": 0x10, "mul": 0x20, "div": 0x30, "or": 0x40, "and": 0x50,
    "lsh": 0x60, "rsh": 0x70, "neg": 0x80, "mod": 0x90, "xor": 0xA0, "mov": 0xB0,
    "arsh": 0xC0, "end": 0xD0,
}  # fmt: skip
JMP_OPS: Final[dict[str, int]] = {
    "ja": 0x00, "jeq": 0x10, "jgt": 0x20, "jge": 0x30, "jset": 0x40, "jne": 0x50,
    "jsgt": 0x60, "jsge": 0x70, "call": 0x80, "exit": 0x90, "jlt": 0xA0, "jle": 0xB0,
    "jslt": 0xC0, "jsle": 0xD0, "jcond": 0xE0,
}  # fmt: skip
SIZES: Final[dict[str, int]] = {"u8": B, "u16": H, "u32": W, "u64": DW}
ATOMIC_OPS: Final[dict[str, int]] = {
    "add": 0x00, "or": 0x40, "and": 0x50, "xor": 0xA0,
    "fetch_add": 0x01, "fetch_or": 0x41, "fetch_and": 0x51, "fetch_xor": 0xA1,
    "xchg": 0xE1, "cmpxchg": 0xF1, "load_acquire": 0x100, "store_release": 0x110,
}  # fmt: skip

# src_reg of an ld_imm64, and of a call.
MAP_FD, MAP_VALUE, BTF_ID, FUNC, MAP_IDX, MAP_IDX_VALUE = 1, 2, 3, 4, 5, 6
CALL_SUBPROG, CALL_KFUNC = 1, 2


def raw(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """One slot of 8 bytes; ``imm`` may be given signed or unsigned."""
    return struct.pack("<BBhI", code, src << 4 | dst, off, imm & 0xFFFFFFFF)


def alu(op: str, dst: int, imm: int, *, wide: bool = True, off: int = 0) -> bytes:
    """``dst op= imm``; 32 bits with ``wide=False``."""
    return raw((ALU64 if wide else ALU) | ALU_OPS[op] | K, dst, 0, off, imm)


def alu_reg(op: str, dst: int, src: int, *, wide: bool = True, off: int = 0, imm: int = 0) -> bytes:
    """``dst op= src``; 32 bits with ``wide=False``."""
    return raw((ALU64 if wide else ALU) | ALU_OPS[op] | X, dst, src, off, imm)


def mov(dst: int, imm: int) -> bytes:
    """``dst = imm``, 64 bits."""
    return alu("mov", dst, imm)


def mov_reg(dst: int, src: int) -> bytes:
    """``dst = src``, 64 bits."""
    return alu_reg("mov", dst, src)


def neg(dst: int, *, wide: bool = True) -> bytes:
    """``dst = -dst``."""
    return alu("neg", dst, 0, wide=wide)


def endian(dst: int, kind: str, bits: int) -> bytes:
    """``dst = le16 dst`` and the like; ``kind`` is le, be or bswap."""
    return raw({"le": ALU | K, "be": ALU | X, "bswap": ALU64 | K}[kind] | 0xD0, dst, imm=bits)


def jmp(op: str, dst: int, imm: int, off: int, *, wide: bool = True) -> bytes:
    """``if dst op imm goto pc+off``."""
    return raw((JMP if wide else JMP32) | JMP_OPS[op] | K, dst, 0, off, imm)


def jmp_reg(op: str, dst: int, src: int, off: int, *, wide: bool = True) -> bytes:
    """``if dst op src goto pc+off``."""
    return raw((JMP if wide else JMP32) | JMP_OPS[op] | X, dst, src, off)


def goto(off: int) -> bytes:
    """``goto pc+off``."""
    return raw(JMP, off=off)


def gotol(off: int) -> bytes:
    """``gotol pc+off``: the offset is in imm."""
    return raw(JMP32, imm=off)


def may_goto(off: int) -> bytes:
    """``may_goto pc+off``."""
    return raw(JMP | 0xE0, off=off)


def load(size: str, dst: int, src: int, off: int) -> bytes:
    """``dst = *(size *)(src +off)``; s8, s16 and s32 extend the sign."""
    if size.startswith("s"):
        return raw(LDX | MEMSX | SIZES["u" + size[1:]], dst, src, off)
    return raw(LDX | MEM | SIZES[size], dst, src, off)


def store(size: str, dst: int, off: int, src: int) -> bytes:
    """``*(size *)(dst +off) = src``."""
    return raw(STX | MEM | SIZES[size], dst, src, off)


def store_imm(size: str, dst: int, off: int, imm: int) -> bytes:
    """``*(size *)(dst +off) = imm``."""
    return raw(ST | MEM | SIZES[size], dst, 0, off, imm)


def atomic(op: str, size: str, dst: int, off: int, src: int) -> bytes:
    """An atomic on ``*(size *)(dst +off)``; load_acquire reads from ``src`` into ``dst``."""
    return raw(STX | ATOMIC | SIZES[size], dst, src, off, ATOMIC_OPS[op])


def ld_imm64(dst: int, value: int, src: int = 0, high: int | None = None) -> bytes:
    """Two slots: ``value`` split over both, or ``value`` and ``high`` as they are."""
    if high is None:
        high = value >> 32
    return raw(LD | DW | IMM, dst, src, 0, value) + raw(0, imm=high)


def ld_abs(size: str, imm: int) -> bytes:
    """``r0 = *(size *)skb[imm]``."""
    return raw(LD | ABS | SIZES[size], imm=imm)


def ld_ind(size: str, src: int, imm: int) -> bytes:
    """``r0 = *(size *)skb[src + imm]``."""
    return raw(LD | IND | SIZES[size], 0, src, 0, imm)


def call(imm: int, src: int = 0, off: int = 0) -> bytes:
    """A helper by number, a subprogram by distance (CALL_SUBPROG), a kfunc by BTF id."""
    return raw(JMP | 0x80, 0, src, off, imm)


def exit_() -> bytes:
    """``exit``."""
    return raw(JMP | 0x90)


# ---------------------------------------------------------------------------
# bpf(2)

_SYSCALL_NR: Final = {"x86_64": 321, "aarch64": 280}
_libc = ctypes.CDLL(None, use_errno=True)

MAP_CREATE, PROG_LOAD, OBJ_GET_INFO_BY_FD, BTF_LOAD = 0, 5, 15, 18

PROG_TYPES: Final[dict[str, int]] = {
    "socket_filter": 1, "kprobe": 2, "sched_cls": 3, "tracepoint": 5, "xdp": 6,
    "perf_event": 7, "cgroup_skb": 8, "raw_tracepoint": 17, "tracing": 26, "syscall": 31,
}  # fmt: skip
MAP_TYPES: Final[dict[str, int]] = {
    "hash": 1, "array": 2, "prog_array": 3, "perf_event_array": 4, "ringbuf": 27, "arena": 33,
    "insn_array": 34,
}  # fmt: skip


def syscall_number() -> int:
    """The number of bpf(2) on this machine."""
    return _SYSCALL_NR[platform.machine()]


def bpf(cmd: int, attr: bytes | bytearray | ctypes.Array[ctypes.c_char]) -> int:
    """bpf(2); returns its result, raises OSError.  ``attr`` may be written to if mutable."""
    if isinstance(attr, ctypes.Array):
        buf = attr
    else:
        buf = ctypes.create_string_buffer(bytes(attr), len(attr))
    result = int(_libc.syscall(syscall_number(), cmd, buf, ctypes.sizeof(buf)))
    if result < 0:
        err = ctypes.get_errno()
        raise OSError(err, os.strerror(err))
    return result


def why_not() -> str | None:
    """Why programs cannot be loaded here, for a test's skip; None where they can."""
    if platform.machine() not in _SYSCALL_NR:
        return f"no bpf(2) number for {platform.machine()} in bpf_asm.py"
    with prog_load(mov(R0, 0) + exit_()) as loaded:
        if loaded.fd >= 0:
            return None
        return f"bpf(BPF_PROG_LOAD) fails here: {os.strerror(loaded.errno)}"


@dataclass
class Owned:
    """An fd that is closed at the end of a ``with``; -1 where the call failed."""

    fd: int
    errno: int = 0

    def close(self) -> None:
        """Close the fd; a second time does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self):  # type: ignore[no-untyped-def]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass
class Loaded(Owned):
    """What BPF_PROG_LOAD gave: an fd or an errno, and the verifier's log."""

    log: str = ""
    insns: bytes = field(default=b"", repr=False)


def prog_load(
    insns: bytes,
    prog_type: str = "socket_filter",
    *,
    log_level: int = 0,
    log_size: int = 1 << 22,
    license: bytes = b"GPL",
    name: bytes = b"",
    flags: int = 0,
    attach_type: int = 0,
    attach_btf_id: int = 0,
    btf_fd: int = 0,
    func_info: bytes = b"",
    fd_array: Sequence[int] = (),
    insn_cnt: int | None = None,
) -> Loaded:
    """BPF_PROG_LOAD.  Never raises for the kernel's refusal: see ``Loaded.errno``.

    ``func_info`` holds records of 8 bytes (insn_off, type_id).
    """
    code = ctypes.create_string_buffer(insns, max(len(insns), 1))
    gpl = ctypes.create_string_buffer(license)
    log = ctypes.create_string_buffer(log_size if log_level else 1)
    funcs = ctypes.create_string_buffer(func_info, max(len(func_info), 1))
    fds = (ctypes.c_int * max(len(fd_array), 1))(*fd_array)
    count = len(insns) // 8 if insn_cnt is None else insn_cnt
    attr = struct.pack(
        "<IIQQIIQII16sIIIIQIIQIIIIQ",
        PROG_TYPES[prog_type], count, ctypes.addressof(code), ctypes.addressof(gpl),
        log_level, log_size if log_level else 0, ctypes.addressof(log) if log_level else 0,
        0, flags, name, 0, attach_type,
        btf_fd, 8 if func_info else 0, ctypes.addressof(funcs) if func_info else 0,
        len(func_info) // 8, 0, 0, 0, attach_btf_id, 0, 0,
        ctypes.addressof(fds) if fd_array else 0,
    )  # fmt: skip
    try:
        fd, errno = bpf(PROG_LOAD, attr), 0
    except OSError as err:
        fd, errno = -1, err.errno or 0
    return Loaded(fd, errno, log.value.decode("utf-8", "replace") if log_level else "", insns)


def map_create(
    map_type: str = "array",
    key_size: int = 4,
    value_size: int = 8,
    max_entries: int = 1,
    *,
    flags: int = 0,
    name: bytes = b"",
    map_extra: int = 0,
) -> Owned:
    """BPF_MAP_CREATE; raises OSError."""
    attr = struct.pack(
        "<IIIIIII16sIIIIIQ",
        MAP_TYPES[map_type], key_size, value_size, max_entries, flags, 0, 0, name,
        0, 0, 0, 0, 0, map_extra,
    )  # fmt: skip
    return Owned(bpf(MAP_CREATE, attr))


class ProgInfo(NamedTuple):
    """Part of struct bpf_prog_info."""

    id: int
    type: int
    tag: str
    name: str
    xlated: bytes


def prog_info(fd: int) -> ProgInfo:
    """BPF_OBJ_GET_INFO_BY_FD of a program, its translated instructions included."""

    def ask(size: int) -> tuple[bytes, bytes]:
        xlated = ctypes.create_string_buffer(max(size, 1))
        info = ctypes.create_string_buffer(128)
        struct.pack_into("<IQQ", info, 20, size, 0, ctypes.addressof(xlated) if size else 0)
        bpf(OBJ_GET_INFO_BY_FD, struct.pack("<IIQ", fd, len(info), ctypes.addressof(info)))
        return info.raw, xlated.raw[:size]

    size = struct.unpack_from("<I", ask(0)[0], 20)[0]
    info, xlated = ask(size)
    prog_type, prog_id, tag = struct.unpack_from("<II8s", info)
    name = info[64:80].rstrip(b"\0").decode("ascii", "replace")
    return ProgInfo(prog_id, prog_type, tag.hex(), name, xlated)


def btf_load(blob: bytes) -> Owned:
    """BPF_BTF_LOAD; raises OSError."""
    buf = ctypes.create_string_buffer(blob, len(blob))
    attr = struct.pack("<QQIIIIII", ctypes.addressof(buf), 0, len(blob), 0, 0, 0, 0, 0)
    return Owned(bpf(BTF_LOAD, attr))


def functions_btf(functions: Mapping[str, tuple[str, ...]]) -> tuple[bytes, dict[str, int]]:
    """BTF with static ``int name(...)`` functions, and the type id of each.

    A parameter is ``u32``, ``u64`` or ``ptr`` (void pointer).
    """
    strings = bytearray(b"\0")

    def string(text: str) -> int:
        strings.extend(text.encode() + b"\0")
        return len(strings) - len(text) - 1

    types = struct.pack("<IIII", string("int"), 1 << 24, 4, 1 << 24 | 32)
    types += struct.pack("<IIII", string("u64"), 1 << 24, 8, 64)
    types += struct.pack("<III", 0, 2 << 24, 0)
    types += struct.pack("<IIII", string("u32"), 1 << 24, 4, 32)
    of = {"int": 1, "u64": 2, "ptr": 3, "u32": 4}
    ids: dict[str, int] = {}
    count = 4
    for name, params in functions.items():
        types += struct.pack("<III", 0, 13 << 24 | len(params), of["int"])
        for index, param in enumerate(params):
            types += struct.pack("<II", string(f"p{index}"), of[param])
        types += struct.pack("<III", string(name), 12 << 24, count + 1)
        count += 2
        ids[name] = count
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + bytes(strings), ids


# What follows the 12 bytes of a struct btf_type: bytes, and bytes for each of vlen.
_BTF_EXTRA: Final[dict[int, tuple[int, int]]] = {
    1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0),
    15: (0, 12), 17: (4, 0), 19: (0, 12),
}  # fmt: skip
BTF_KINDS: Final[dict[str, int]] = {"struct": 4, "func": 12, "var": 14}


def _btf_named(blob: bytes, kind: int) -> Iterator[tuple[int, int]]:
    """(type id, offset of the name) of each type of ``kind``."""
    hdr_len, type_off, type_len = struct.unpack_from("<III", blob, 4)
    at = hdr_len + type_off
    end, number = at + type_len, 1
    while at < end:
        name, info = struct.unpack_from("<II", blob, at)
        this, vlen = info >> 24 & 0x1F, info & 0xFFFF
        if this == kind:
            yield number, name
        fixed, each = _BTF_EXTRA.get(this, (0, 0))
        at += 12 + fixed + each * vlen
        number += 1


@cache
def vmlinux_ids(kind: str) -> dict[str, int]:
    """The running kernel's BTF: name to type id for all types of ``kind``."""
    blob = Path("/sys/kernel/btf/vmlinux").read_bytes()
    hdr_len, _, _, str_off = struct.unpack_from("<IIII", blob, 4)
    base = hdr_len + str_off
    found: dict[str, int] = {}
    for number, name in _btf_named(blob, BTF_KINDS[kind]):
        end = blob.index(b"\0", base + name)
        found.setdefault(blob[base + name : end].decode(), number)
    return found
