"""Which kernel addresses native code may name: found in its bytes, without a disassembler.

Names of these are recorded with a program, so that a listing made later, on another machine,
has them.  What is found is a superset: on x86-64 any byte may look like the opcode of a call.
An address that means nothing has no name and does no harm.

Encodings: Intel 64 SDM volume 2 (CALL, JMP, MOV); Arm DDI 0487 C6.2 (B, BL, MOVN, MOVZ, MOVK).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

KERNEL: Final = 1 << 63
"""Addresses from here on are the kernel's, on x86-64 and aarch64."""
_MASK: Final = (1 << 64) - 1

_CALL, _JMP = 0xE8, 0xE9
_MOVABS: Final = {0xB8 + register for register in range(8)}
_REX_W: Final = {0x48, 0x49}


def x86_64(code: bytes, addr: int) -> Iterator[int]:
    """Where ``call``, ``jmp`` and ``jcc`` lead out of it, and what ``movabs`` loads."""
    end = addr + len(code)
    for at, byte in enumerate(code[:-4]):
        if byte in (_CALL, _JMP) or (0x80 <= byte <= 0x8F and at and code[at - 1] == 0x0F):
            (distance,) = struct.unpack_from("<i", code, at + 1)
            target = (addr + at + 5 + distance) & _MASK
            if not addr <= target < end:
                yield target
        elif byte in _REX_W and code[at + 1] in _MOVABS and at + 10 <= len(code):
            (value,) = struct.unpack_from("<Q", code, at + 2)
            if value >= KERNEL:
                yield value


def aarch64(code: bytes, addr: int) -> Iterator[int]:
    """Where ``b`` and ``bl`` lead out of it, and what is moved into registers."""
    end = addr + len(code)
    for at, target in branches(code):
        where = (addr + at + target) & _MASK
        if not addr <= where < end:
            yield where
    yield from (value for _, _, value in constants(code) if value >= KERNEL)


def branches(code: bytes) -> Iterator[tuple[int, int]]:
    """(offset, distance in bytes) of each ``b`` and ``bl`` of aarch64."""
    for index, (word,) in enumerate(struct.iter_unpack("<I", code[: len(code) // 4 * 4])):
        if word & 0x7C000000 == 0x14000000:
            distance = (word & 0x3FFFFFF) - ((word & 0x2000000) << 1)
            yield index * 4, distance * 4


def constants(code: bytes) -> Iterator[tuple[int, int, int]]:
    """(offset, register, value) after each 64-bit ``movz``, ``movn`` and ``movk`` of aarch64.

    A ``movk`` whose register was not set by such an instruction right before it, or by others of
    its sequence, is left out.
    """
    known: dict[int, int] = {}
    for index, (word,) in enumerate(struct.iter_unpack("<I", code[: len(code) // 4 * 4])):
        kind = word & 0xFF800000
        register, shift = word & 31, (word >> 21 & 3) * 16
        part = (word >> 5 & 0xFFFF) << shift
        if kind == 0xD2800000:  # movz
            known = {register: part}
        elif kind == 0x92800000:  # movn
            known = {register: ~part & _MASK}
        elif kind == 0xF2800000 and register in known:  # movk
            known[register] = known[register] & ~(0xFFFF << shift) & _MASK | part
        else:
            known = {}
            continue
        yield index * 4, register, known[register]


ARCHITECTURES: Final = {"x86_64": x86_64, "aarch64": aarch64}
"""By the machine's name, as uname has it."""
