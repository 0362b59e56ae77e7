"""Registers by their DWARF numbers, for each kind of tracee.

What PTRACE_GETREGSET NT_PRSTATUS gives: struct user_regs_struct of x86-64,
struct user_regs_struct32 (arch/x86/include/asm/user_32.h), struct user_pt_regs of
aarch64.  DWARF numbers: System V ABI, AMD64 supplement, figure 3.36; i386
supplement, table 2.14; DWARF for the Arm 64-bit Architecture, section 4.1.
Signal frames: struct sigcontext of arch/x86/include/uapi/asm/sigcontext.h and
arch/arm64/include/uapi/asm/sigcontext.h, struct rt_sigframe of
arch/arm64/kernel/signal.c (Linux 6.18).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final

from decoders.records import dataclass

SIGNALS_SOUGHT: Final = 8
"""Signal frames that are looked for in a copy of a stack."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What unwinding has to know of an architecture."""

    name: str
    elf: int
    """e_machine of its files."""
    word: int
    """Bytes of an address."""
    ip: int
    """The DWARF number of the instruction pointer (aarch64: our own, it has none in CFI)."""
    sp: int
    fp: int
    link: int | None
    """The register that a call leaves the return address in; None: it is on the stack."""
    layout: struct.Struct
    order: tuple[int | None, ...]
    """The DWARF number of each word of the register set; None: of no interest."""
    red_zone: int
    """Bytes below the stack pointer that a leaf function may use."""
    code_bits: int
    """What of an address counts: the rest is a pointer's signature (aarch64)."""
    mark: bytes
    """Bytes that every signal frame of the kernel's holds."""
    interrupted: int
    """Where in a signal frame, from the mark, the interrupted stack pointer is."""
    sigreturn: bytes = b""
    """The code that a handler returns to, where no CFI says how to go on from there."""
    context: int = 0
    """Where in a signal frame, from the stack pointer of that code, the registers are, in
    the order of a stop's."""

    def registers(self, data: bytes) -> dict[int, int]:
        """The registers of a stop, by DWARF number."""
        values = self.layout.unpack_from(data)
        return {
            number: value
            for number, value in zip(self.order, values, strict=True)
            if number is not None
        }

    def interrupted_stacks(self, copy: bytes) -> Iterator[int]:
        """Stack pointers that signal frames in a piece of stack go back to."""
        at = -1
        for _ in range(SIGNALS_SOUGHT):
            at = copy.find(self.mark, at + 1)
            if at < 0:
                return
            place = at + self.interrupted
            if 0 <= place <= len(copy) - self.word:
                yield int.from_bytes(copy[place : place + self.word], "little")


X86_64: Final = Machine(
    name="x86-64",
    elf=62,
    word=8,
    ip=16,
    sp=7,
    fp=6,
    link=None,
    layout=struct.Struct("<20Q"),
    # r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp
    order=(15, 14, 13, 12, 6, 3, 11, 10, 9, 8, 0, 2, 1, 4, 5, None, 16, None, None, 7),
    red_zone=128,
    code_bits=(1 << 64) - 1,
    mark=struct.pack("<4H", 0x33, 0, 0, 0x2B),  # cs, gs, fs, ss
    interrupted=-3 * 8,  # sp, ip, flags before it
)
I386: Final = Machine(
    name="i386",
    elf=3,
    word=4,
    ip=8,
    sp=4,
    fp=5,
    link=None,
    layout=struct.Struct("<17I"),
    # ebx ecx edx esi edi ebp eax ds es fs gs orig_eax eip cs eflags esp ss
    order=(3, 1, 2, 6, 7, 5, 0, None, None, None, None, None, 8, None, None, 4, None),
    red_zone=0,
    code_bits=(1 << 32) - 1,
    mark=struct.pack("<I", 0x23),  # cs; flags, sp and ss follow
    interrupted=2 * 4,
)
AARCH64: Final = Machine(
    name="aarch64",
    elf=183,
    word=8,
    ip=32,
    sp=31,
    fp=29,
    link=30,
    layout=struct.Struct("<33Q"),
    order=tuple(range(33)),
    red_zone=0,
    code_bits=(1 << 48) - 1,
    mark=struct.pack("<II", 0x46508001, 528),  # FPSIMD_MAGIC, size of fpsimd_context
    interrupted=-32,  # sp, pc, pstate, and padding to 16 before it
    sigreturn=struct.pack("<II", 0xD2801168, 0xD4000001),  # mov x8, #139; svc #0
    context=128 + 176 + 8,  # siginfo, the ucontext before its sigcontext, fault_address
)

_BY_SIZE: Final = {
    ("x86_64", 27 * 8): X86_64,
    ("x86_64", 17 * 4): I386,
    ("i686", 17 * 4): I386,
    ("aarch64", 34 * 8): AARCH64,
}


def machine_of(size: int) -> Machine | None:
    """Whose registers a register set of this many bytes holds, on this machine."""
    return _BY_SIZE.get((os.uname().machine, size))
