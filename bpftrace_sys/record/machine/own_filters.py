"""What a thread's seccomp filters answer to a system call, while it stands in a stop of ours.

PTRACE_SECCOMP_GET_FILTER (Linux 4.4, with CONFIG_CHECKPOINT_RESTORE, for CAP_SYS_ADMIN) gives the
filters, which are classic BPF over struct seccomp_data (include/uapi/linux/seccomp.h,
kernel/seccomp.c). They are run here on the registers of a call that was refused.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

from bpftrace_sys.record.ptrace.requests import seccomp_filter

FILTERS: Final = 32
"""Filters of a thread that are looked at."""
STEPS: Final = 1 << 14
"""Instructions of all filters that are run, as the caller stands in a stop meanwhile; each jumps
forward only."""
LONGEST: Final = 4096
"""BPF_MAXINSNS"""
ERRNO, ACTION, DATA = 0x00050000, 0xFFFF0000, 0xFFFF
MAX_ERRNO: Final = 4095
POINTER: Final = range(8, 16)
"""Where struct seccomp_data has instruction_pointer."""
_INSN: Final = struct.Struct("<HBBI")
Insn = tuple[int, int, int, int]
_MASK: Final = 0xFFFFFFFF

_ALU: Final[dict[int, Callable[[int, int], int]]] = {
    0x00: lambda a, b: a + b,
    0x10: lambda a, b: a - b,
    0x20: lambda a, b: a * b,
    0x30: lambda a, b: a // b if b else 0,
    0x40: lambda a, b: a | b,
    0x50: lambda a, b: a & b,
    0x60: lambda a, b: a << (b & 31),
    0x70: lambda a, b: a >> (b & 31),
    0xA0: lambda a, b: a ^ b,
}
_JUMPS: Final[dict[int, Callable[[int, int], bool]]] = {
    0x10: lambda a, b: a == b,
    0x20: lambda a, b: a > b,
    0x30: lambda a, b: a >= b,
    0x40: lambda a, b: a & b != 0,
}


def answered(tid: int, nr: int, arch: int, args: Sequence[int]) -> int | None:
    """The errno with which a filter of the thread answers; None: none does, or nobody may look.

    SECCOMP_RET_ERRNO wins over what other filters allow or hand to a tracer, as ours does.
    """
    left = STEPS
    data = struct.pack("<iIQ6Q", nr, arch, 0, *(arg & 0xFFFFFFFFFFFFFFFF for arg in args))
    for index in range(FILTERS):
        program = _filter(tid, index)
        if program is None:
            return None
        left -= len(program)
        if left < 0:
            return None
        action = run(program, data)
        if action is not None and action & ACTION == ERRNO:
            return min(action & DATA, MAX_ERRNO)
    return None


def _filter(tid: int, index: int) -> list[Insn] | None:
    """A filter; 0 is the one that was installed last."""
    try:
        program = seccomp_filter(tid, index)
    except OSError:
        return None
    return list(_INSN.iter_unpack(program)) if len(program) <= LONGEST * _INSN.size else None


def run(program: Sequence[Insn], data: bytes) -> int | None:
    """What a filter returns; None where it is none that seccomp would take."""
    acc = x = pc = 0
    memory = [0] * 16
    for _ in range(STEPS):
        if pc >= len(program):
            return None
        code, jt, jf, k = program[pc]
        pc += 1
        kind = code & 7
        if kind in (0, 1):  # LD, LDX
            loaded = _loaded(code, k, data, memory)
            if loaded is None:
                return None
            acc, x = (loaded, x) if kind == 0 else (acc, loaded)
        elif kind in (2, 3):  # ST, STX
            memory[k & 15] = acc if kind == 2 else x
        elif kind == 4:
            other = x if code & 8 else k
            operation = _ALU.get(code & 0xF0)
            acc = (-acc if operation is None else operation(acc, other)) & _MASK
        elif kind == 5 and not code & 0xF0:
            pc += k
        elif kind == 5:
            test = _JUMPS.get(code & 0xF0)
            if test is None:
                return None
            pc += jt if test(acc, x if code & 8 else k) else jf
        elif kind == 6:
            return acc if code & 0x18 == 0x10 else k
        else:  # TAX, TXA
            acc, x = (x, x) if code & 0x80 else (acc, acc)
    return None


def _loaded(code: int, k: int, data: bytes, memory: list[int]) -> int | None:
    mode = code & 0xE0
    if mode == 0x00:
        return k
    # Where the call was made from is not known, and who asks for it has no answer of ours.
    if mode == 0x20 and k not in POINTER and k + 4 <= len(data):
        return int.from_bytes(data[k : k + 4], "little")
    if mode == 0x60:
        return memory[k & 15]
    return len(data) if mode == 0x80 else None
