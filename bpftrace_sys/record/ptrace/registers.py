"""What the engine needs of python-ptrace: registers, words of memory, its errors.

Importing it takes longer than a short program runs, nearly all of that python-ptrace's,
so it is imported where a call's result is changed, or memory can be read in no other
way. The requests of every stop are in requests.py.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Any, Final

from ptrace import PtraceError
from ptrace.binding.func import (
    NT_PRSTATUS,
    PTRACE_GETREGSET,
    PTRACE_PEEKDATA,
    PTRACE_POKEDATA,
    PTRACE_SETREGSET,
    ptrace,
    ptrace_getregs,
    ptrace_setregs,
)
from ptrace.ctypes_libc import libc

from decoders.arch import AUDIT_ARCH_I386

__all__ = [
    "PtraceError",
    "peek",
    "poke",
    "ptrace_getregs",
    "ptrace_setregs",
    "set_first_argument",
    "set_return",
    "skip_syscall",
]

_SKIPPED: Final = 0xFFFFFFFFFFFFFFFF
_NT_ARM_SYSTEM_CALL: Final = 0x404


def skip_syscall(tid: int) -> bool:
    """In a stop before a call is executed: make it not be executed. False: refused."""
    try:
        if os.uname().machine == "aarch64":
            number = ctypes.c_int(-1)
            vector = (ctypes.c_ulong * 2)(ctypes.addressof(number), 4)
            ptrace(PTRACE_SETREGSET, tid, _NT_ARM_SYSTEM_CALL, ctypes.addressof(vector))
        else:
            registers = ptrace_getregs(tid)
            registers.orig_rax = _SKIPPED
            ptrace_setregs(tid, registers)
    except PtraceError:
        return False
    return True


def set_return(tid: int, ret: int) -> bool:
    """In a stop after a call: make it return ``ret`` (signed). False: refused."""
    return _set(tid, "rax", ret)


def set_first_argument(tid: int, arch: int, value: int) -> bool:
    """In a stop before a call, its first argument; after it, the register that had it, which
    on aarch64 is the result's. False: refused."""
    return _set(tid, "rbx" if arch == AUDIT_ARCH_I386 else "rdi", value)


def _set(tid: int, name: str, value: int) -> bool:
    """A register; where there is no such name, x0."""
    value &= 0xFFFFFFFFFFFFFFFF
    try:
        if os.uname().machine == "aarch64":
            # struct user_pt_regs: regs[31], sp, pc, pstate
            registers = (ctypes.c_uint64 * 34)()
            vector = (ctypes.c_ulong * 2)(ctypes.addressof(registers), ctypes.sizeof(registers))
            ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, ctypes.addressof(vector))
            if vector[1] < ctypes.sizeof(registers):  # a 32-bit process: r0 is half as wide
                value = registers[0] & ~0xFFFFFFFF | value & 0xFFFFFFFF
            registers[0] = value
            ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, ctypes.addressof(vector))
        else:
            saved = ptrace_getregs(tid)
            setattr(saved, name, value)
            ptrace_setregs(tid, saved)
    except PtraceError:
        return False
    return True


def poke(tid: int, addr: int, word: bytes) -> bool:
    """PTRACE_POKEDATA: eight bytes at any address, into memory that is read-only, too.
    False: refused."""
    try:
        ptrace(PTRACE_POKEDATA, tid, addr, struct.unpack("=Q", word)[0])
    except PtraceError:
        return False
    return True


def peek(tid: int, addr: int) -> bytes | None:
    """PTRACE_PEEKDATA: the word at an aligned address, None where unreadable."""
    word = ctypes.c_ulong()
    # The kernel's own request stores through data; glibc's wrapper returns the
    # word instead, so -1 has to be told from an error by errno.
    function: Any = libc["ptrace"]
    function.restype = ctypes.c_long
    ctypes.set_errno(0)
    value = function(PTRACE_PEEKDATA, tid, ctypes.c_ulong(addr), ctypes.byref(word))
    if value == -1 and ctypes.get_errno() != 0:
        return None
    return struct.pack("=q", value)
