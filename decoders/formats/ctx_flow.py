"""Where a program reads and writes its context: followed through register moves only.

The context's address is in r1 when the main function begins.  A register counts as holding it at
an instruction only if it does on every way there (a forward analysis over the jumps, whose sets can
only shrink).  What is spilled to the stack, passed to a subprogram or moved by an offset is not
followed: an access that is told is certain, not every access is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from decoders.formats import insn as isa
from decoders.formats.insn import Insn

_CTX: Final = 1
"""r1, the first argument."""
_ALL: Final = 0x7FF
_MOV: Final = isa.ALU64 | isa.MOV | isa.X
_ENDS: Final = frozenset({isa.JMP | isa.EXIT})
_ALWAYS: Final = frozenset({isa.JMP | isa.JA, isa.GOTOL})
_LOADS: Final = frozenset({isa.MEM, isa.MEMSX})


class Access(NamedTuple):
    """A load from the context, or a store to it."""

    pc: int
    offset: int
    size: int
    store: bool


def accesses(program: Sequence[Insn]) -> list[Access]:
    """The accesses that are certain, in the order of the program."""
    holding = _holding(program)
    found = []
    for insn in program:
        registers = holding.get(insn.pc, 0)
        kind, mode = insn.code & 7, insn.code & 0xE0
        size = isa.SIZE_BYTES[insn.code & 0x18]
        if kind == isa.LDX and mode in _LOADS and registers >> insn.src & 1:
            found.append(Access(insn.pc, insn.off, size, False))
        elif kind in (isa.ST, isa.STX) and mode == isa.MEM and registers >> insn.dst & 1:
            found.append(Access(insn.pc, insn.off, size, True))
    return found


def _holding(program: Sequence[Insn]) -> dict[int, int]:
    """By pc the registers, as bits, that hold the context's address before it; only where the
    main function comes by."""
    by_pc = {insn.pc: insn for insn in program}
    if 0 not in by_pc or any(insn.code == isa.GOTOX for insn in program):
        return {}  # where an indirect jump leads is not known
    before: dict[int, int] = {0: 1 << _CTX}
    todo = [0]
    while todo:
        pc = todo.pop()
        insn = by_pc[pc]
        after = _after(insn, before[pc])
        for target in _next(insn):
            if target not in by_pc:
                continue
            new = before.get(target, _ALL) & after
            if target not in before or new != before[target]:
                before[target] = new
                todo.append(target)
    return before


def _after(insn: Insn, registers: int) -> int:
    if insn.code == _MOV and insn.off == 0 and insn.imm == 0:
        moved = registers >> insn.src & 1
        return registers & ~(1 << insn.dst) | moved << insn.dst
    for register in isa.written(insn):
        registers &= ~(1 << register)
    return registers


def _next(insn: Insn) -> list[int]:
    following = insn.pc + insn.slots
    if insn.code in _ENDS:
        return []
    distance = isa.jump_distance(insn)
    if distance is None:
        return [following]
    target = insn.pc + 1 + distance
    return [target] if insn.code in _ALWAYS else [following, target]
