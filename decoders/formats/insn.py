"""BPF instructions: the encoding, what they jump to and what they call.

An instruction array is struct bpf_insn[], 8 bytes a slot (linux/bpf.h; RFC
9669 section 3).  Numbers are those of include/uapi/linux/bpf.h and
bpf_common.h as of Linux 7.1, little endian, which is what a kernel on x86-64
and aarch64 takes.  The wording of an instruction lives in ``insn_text``.

Nothing here raises for any bytes, and nothing is larger than the bytes given.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final, Literal, TypeAlias

from decoders.records import NamedTuple

Buffer: TypeAlias = bytes | bytearray | memoryview

SLOT: Final = 8
"""Bytes in a slot; pc counts slots."""

# Classes, the low 3 bits of code.
LD, LDX, ST, STX, ALU, JMP, JMP32, ALU64 = range(8)

# The operand of ALU and JMP codes, bit 3: an immediate or a register.
K: Final = 0x00
X: Final = 0x08

# Sizes of loads and stores, bits 3 and 4.
SIZE_BYTES: Final[dict[int, int]] = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}

# Modes of loads and stores, the high 3 bits.
IMM: Final = 0x00
ABS: Final = 0x20
IND: Final = 0x40
MEM: Final = 0x60
MEMSX: Final = 0x80
ATOMIC: Final = 0xC0
NOSPEC: Final = 0xC0
"""A mode of class ST; include/linux/filter.h, not in the UAPI."""

# Operations of ALU codes, the high 4 bits.
ADD, SUB, MUL, DIV, OR, AND, LSH, RSH = range(0x00, 0x80, 0x10)
NEG, MOD, XOR, MOV, ARSH, END = range(0x80, 0xE0, 0x10)

# Operations of JMP codes, the high 4 bits.
JA, JEQ, JGT, JGE, JSET, JNE, JSGT, JSGE = range(0x00, 0x80, 0x10)
CALL, EXIT, JLT, JLE, JSLT, JSLE, JCOND = range(0x80, 0xF0, 0x10)

# Atomic operations, in imm: an ALU operation, with or without FETCH, or:
FETCH: Final = 0x01
XCHG: Final = 0xE1
CMPXCHG: Final = 0xF1
LOAD_ACQ: Final = 0x100
STORE_REL: Final = 0x110

LD_IMM64: Final = 0x18
CALL_K: Final = JMP | CALL
GOTOL: Final = JMP32 | JA
MAY_GOTO: Final = JMP | JCOND
GOTOX: Final = JMP | JA | X

# src_reg of an ld_imm64: what its imm means.
PSEUDO_MAP_FD: Final = 1
PSEUDO_MAP_VALUE: Final = 2
PSEUDO_BTF_ID: Final = 3
PSEUDO_FUNC: Final = 4
PSEUDO_MAP_IDX: Final = 5
PSEUDO_MAP_IDX_VALUE: Final = 6

# src_reg of a call.
PSEUDO_CALL: Final = 1
PSEUDO_KFUNC_CALL: Final = 2

_SLOT: Final = struct.Struct("<BBhi")


class Insn(NamedTuple):
    """One instruction, as it was passed."""

    pc: int
    """Index of its first slot."""
    code: int
    dst: int
    src: int
    off: int
    """Signed, 16 bits."""
    imm: int
    """Signed, 32 bits."""
    next_imm: int | None = None
    """imm of the second slot of an ld_imm64; None for all others, and where the array ends."""
    next_rest: int = 0
    """The low 32 bits of that slot, code, registers and off; the kernel demands 0."""

    @property
    def wide(self) -> bool:
        """Whether this is an ld_imm64, which takes two slots."""
        return self.code == LD_IMM64

    @property
    def truncated(self) -> bool:
        """Whether the array ends before the second slot."""
        return self.code == LD_IMM64 and self.next_imm is None

    @property
    def slots(self) -> int:
        """How many slots of the array this takes: 1 or 2."""
        return 1 if self.next_imm is None else 2

    @property
    def imm64(self) -> int:
        """The unsigned 64 bits of an ld_imm64."""
        return ((self.next_imm or 0) & 0xFFFFFFFF) << 32 | self.imm & 0xFFFFFFFF


def slots(data: Buffer) -> Iterator[tuple[int, int, int, int, int, int, int | None, int]]:
    """Yield the fields of each :class:`Insn` of an array: its objects take as long again."""
    view = memoryview(data)
    rows = enumerate(_SLOT.iter_unpack(view[: len(view) // SLOT * SLOT]))
    for pc, (code, regs, off, imm) in rows:
        if code != LD_IMM64:
            yield pc, code, regs & 15, regs >> 4, off, imm, None, 0
            continue
        second = next(rows, None)
        if second is None:
            yield pc, code, regs & 15, regs >> 4, off, imm, None, 0
        else:
            _, (code2, regs2, off2, imm2) = second
            rest = code2 | regs2 << 8 | (off2 & 0xFFFF) << 16
            yield pc, code, regs & 15, regs >> 4, off, imm, imm2, rest


def insns(data: Buffer) -> Iterator[Insn]:
    """Yield the instructions of an array of slots.

    The second slot of an ld_imm64 is no instruction of its own, but counts in
    pc.  Bytes after the last whole slot are passed over.
    """
    # As Insn._make, in half its time: the number of fields is right here.
    return map(partial(tuple.__new__, Insn), slots(data))


LISTED: Final = 1 << 16
"""Slots of a program that are shown: a kernel takes a million of them, which nobody would read as
text, and which would take ten seconds and gigabytes to tell everybody."""


def listed(data: Buffer) -> list[Insn]:
    """The instructions of an array that are shown: those that begin within LISTED."""
    found = list(insns(data[: (LISTED + 1) * SLOT]))
    # The slot beyond is there for an ld_imm64 to be whole.
    return found[:-1] if found and found[-1].pc >= LISTED else found


def slots_of(program: Sequence[Insn]) -> int:
    """How many slots the instructions of an array's beginning take."""
    return program[-1].pc + program[-1].slots if program else 0


TargetKind: TypeAlias = Literal["jump", "callback", "subprog"]
CallKind: TypeAlias = Literal["helper", "subprog", "kfunc"]

_JUMPS: Final = frozenset((JMP, JMP32))
_RANK: Final[dict[TargetKind, int]] = {"jump": 0, "callback": 1, "subprog": 2}


class CallSite(NamedTuple):
    """A call, and what it calls."""

    pc: int
    kind: CallKind
    id: int
    """A helper's number, a kfunc's BTF id, or the pc at which a subprogram starts."""
    off: int = 0
    """For a kfunc: 0 is vmlinux, another number is an index into fd_array."""


def jump_distance(insn: Insn) -> int | None:
    """How far beyond the next slot a jump goes; None for what is no direct jump."""
    code = insn.code
    if code & 7 not in (JMP, JMP32):
        return None
    op = code & 0xF0
    if op in (CALL, EXIT) or op > JCOND or code == GOTOX:
        return None
    return insn.imm if code == GOTOL else insn.off


def call_target(insn: Insn, *, xlated: bool = False) -> int | None:
    """The pc at which the subprogram starts that a call or an ld_imm64 names; else None.

    In what the kernel gives back (``xlated``) the distance of a call has moved
    from imm to off (jit_subprogs() in kernel/bpf/verifier.c).
    """
    if insn.code == CALL_K and insn.src == PSEUDO_CALL:
        return insn.pc + 1 + (insn.off if xlated else insn.imm)
    if insn.code == LD_IMM64 and insn.src == PSEUDO_FUNC:
        return insn.pc + 1 + insn.imm
    return None


def targets(program: Iterable[Insn], *, xlated: bool = False) -> dict[int, TargetKind]:
    """The instructions that are reached by other than falling through, by pc.

    ``program`` is gone through twice. A subprogram's start that is also jumped to counts as the
    subprogram. Targets that are no instruction of ``program`` are left out.
    """
    found: dict[int, TargetKind] = {}
    for insn in program:
        code = insn.code
        if code & 7 not in _JUMPS and code != LD_IMM64:
            continue
        kind: TargetKind
        if (distance := jump_distance(insn)) is not None:
            target, kind = insn.pc + 1 + distance, "jump"
        elif (start := call_target(insn, xlated=xlated)) is not None:
            target, kind = start, "subprog" if insn.code == CALL_K else "callback"
        else:
            continue
        if target not in found or _RANK[kind] > _RANK[found[target]]:
            found[target] = kind
    return {insn.pc: found[insn.pc] for insn in program if insn.pc in found} if found else found


def calls(program: Iterable[Insn], *, xlated: bool = False) -> Iterator[CallSite]:
    """Yield what a program calls: helpers, subprograms and kfuncs, in order of pc.

    In what the kernel gives back, a helper's number is a distance from
    __bpf_call_base instead, and a kfunc's no BTF id.
    """
    for insn in program:
        if insn.code != CALL_K:
            continue
        if insn.src == 0:
            yield CallSite(insn.pc, "helper", insn.imm)
        elif insn.src == PSEUDO_KFUNC_CALL:
            yield CallSite(insn.pc, "kfunc", insn.imm, insn.off)
        elif (start := call_target(insn, xlated=xlated)) is not None:
            yield CallSite(insn.pc, "subprog", start)


_NAMING: Final = re.compile(b"%c.?|%c" % (LD_IMM64, CALL_K), re.DOTALL)
"""In the codes of an array's slots: an ld_imm64 with its second slot, or a call."""


def naming(data: Buffer) -> Iterator[Insn]:
    """Yield the instructions of an array that name a map, a type or a function: each ld_imm64 and
    call with a src_reg."""
    whole = bytes(data)
    for found in _NAMING.finditer(whole[: len(whole) // SLOT * SLOT : SLOT]):
        start, end = found.span()
        if whole[start * SLOT + 1] >> 4:
            for insn in insns(whole[start * SLOT : end * SLOT]):
                yield insn._replace(pc=start)


def callees(data: Buffer) -> Iterator[CallSite]:
    """Yield each helper and kfunc that an array's instructions call, at its first call."""
    whole = bytes(data)
    seen = set()
    for found in _NAMING.finditer(whole[: len(whole) // SLOT * SLOT : SLOT]):
        pc = found.start()
        slot = whole[pc * SLOT : pc * SLOT + SLOT]
        if slot[0] == CALL_K and slot not in seen and slot[1] >> 4 != PSEUDO_CALL:
            seen.add(slot)
            yield from (site._replace(pc=pc) for site in calls(insns(slot)))


_CALLER_SAVED: Final = frozenset(range(6))


def written(insn: Insn) -> frozenset[int]:
    """The registers that an instruction may change.

    A call and LD_ABS/LD_IND leave r0 changed and r1 to r5 unreadable.
    """
    code, kind = insn.code, insn.code & 7
    if code & 0xF7 in (JMP | CALL, JMP32 | CALL):
        return _CALLER_SAVED
    if kind == LD and code & 0xE0 in (ABS, IND):
        return _CALLER_SAVED
    if kind in (ALU, ALU64, LD, LDX):
        return frozenset((insn.dst,))
    if kind == STX and code & 0xE0 == ATOMIC:
        if insn.imm == CMPXCHG:
            return frozenset((0,))
        if insn.imm == LOAD_ACQ:
            return frozenset((insn.dst,))
        if insn.imm & FETCH:
            return frozenset((insn.src,))
    return frozenset()
