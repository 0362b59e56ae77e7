"""Where a program reads and writes its context: followed through register moves only.

The context's address is in r1 when the main function begins.  A register counts as holding it at
an instruction only if it does on every way there.  What is spilled to the stack, passed to a
subprogram or moved by an offset is not followed: an access that is told is certain, not every
access is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from decoders.formats import insn as isa
from decoders.formats.insn import Insn
from decoders.records import NamedTuple

_START: Final = 1 << 1
"""Registers, as bits, that hold the context's address at the beginning: r1."""
_ALL: Final = 0x7FF
_CALLER_SAVED: Final = 0x3F
_MOV: Final = isa.ALU64 | isa.MOV | isa.X
_CALLS: Final = frozenset(
    kind | isa.CALL | operand for kind in (isa.JMP, isa.JMP32) for operand in (isa.K, isa.X)
)
_EXIT: Final = isa.JMP | isa.EXIT
_ALWAYS: Final = frozenset({isa.JMP | isa.JA, isa.GOTOL})
_LOADS: Final = frozenset(
    isa.LDX | mode | size for mode in (isa.MEM, isa.MEMSX) for size in isa.SIZE_BYTES
)
_STORES: Final = frozenset(
    kind | isa.MEM | size for kind in (isa.ST, isa.STX) for size in isa.SIZE_BYTES
)
_PLAIN_WRITES: Final = frozenset({isa.LD, isa.LDX, isa.ALU, isa.ALU64})
_PASSES: Final = 64
"""Times that the program is gone through until nothing changes any more; two is usual."""
_WORK: Final = 1 << 21
"""Instructions that are gone through in all: of long programs not that often."""


class Access(NamedTuple):
    """A load from the context, or a store to it."""

    pc: int
    offset: int
    size: int
    store: bool


def accesses(program: Iterable[Insn]) -> list[Access]:
    """The accesses that are certain, in the order of the program; none if that takes too long.

    ``program`` is gone through several times.
    """
    count = 0
    for count, insn in enumerate(program, 1):  # noqa: B007 - the last one's number counts
        if insn[1] == isa.GOTOX:
            return []  # where an indirect jump leads is not known
    arriving: dict[int, int] = {}
    for _ in range(min(_PASSES, max(2, _WORK // max(count, 1)))):
        found, stable = _pass(program, arriving)
        if stable:
            return found
    return []


def _pass(program: Iterable[Insn], arriving: dict[int, int]) -> tuple[list[Access], bool]:
    """Goes through the program once, forwards.

    ``arriving``: by pc, the registers that hold it on every jump there that was seen; jumps
    take away from it.  The accesses, and whether no jump backwards changed anything.
    """
    found: list[Access] = []
    stable = True
    holding = _START
    reached = True
    for insn in program:
        pc, code, dst, src, off, imm, _, _ = insn
        if pc in arriving:
            holding = holding & arriving[pc] if reached else arriving[pc]
            reached = True
        if not reached:
            continue
        if code in _LOADS:
            if holding >> src & 1:
                found.append(Access(pc, off, isa.SIZE_BYTES[code & 0x18], False))
            holding &= ~(1 << dst)
        elif code in _STORES:
            if holding >> dst & 1:
                found.append(Access(pc, off, isa.SIZE_BYTES[code & 0x18], True))
        elif code in _CALLS:
            holding &= ~_CALLER_SAVED
        elif code == _EXIT:
            reached = False
        elif code & 7 in (isa.JMP, isa.JMP32):
            distance = isa.jump_distance(insn)
            if distance is not None:
                target = pc + 1 + distance
                before = arriving.get(target)
                after = (_ALL if before is None else before) & holding
                if after != before:
                    arriving[target] = after
                    stable = stable and target > pc
                reached = code not in _ALWAYS
        elif code == _MOV and not off and not imm:
            holding = holding & ~(1 << dst) | (holding >> src & 1) << dst
        elif code & 7 in _PLAIN_WRITES and code & 0xE7 not in (isa.LD | isa.ABS, isa.LD | isa.IND):
            holding &= ~(1 << dst)
        else:
            for register in isa.written(insn):
                holding &= ~(1 << register)
    return found, stable
