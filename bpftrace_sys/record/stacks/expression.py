"""DWARF expressions, as far as call frame information uses them (DWARF 5, section 2.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from bpftrace_sys.record.stacks.reading import CfiError, Cursor

STEPS: Final = 128
"""Operations of an expression; those of signal frames and of the PLT have ten."""
DEPTH: Final = 64

Read = Callable[[int, int], int]
"""The number at an address, of so many bytes; raises LookupError where it was not copied."""

_BINARY: Final[dict[int, Callable[[int, int], int]]] = {
    0x1A: lambda a, b: a & b,
    0x1C: lambda a, b: a - b,
    0x1E: lambda a, b: a * b,
    0x21: lambda a, b: a | b,
    0x22: lambda a, b: a + b,
    0x24: lambda a, b: a << b if b < 64 else 0,
    0x25: lambda a, b: a >> b if b < 64 else 0,
    0x27: lambda a, b: a ^ b,
}
_COMPARED: Final[dict[int, Callable[[int, int], bool]]] = {
    0x29: lambda a, b: a == b,
    0x2A: lambda a, b: a >= b,
    0x2B: lambda a, b: a > b,
    0x2C: lambda a, b: a <= b,
    0x2D: lambda a, b: a < b,
    0x2E: lambda a, b: a != b,
}
_CONSTANTS: Final = {
    0x08: (1, False),
    0x09: (1, True),
    0x0A: (2, False),
    0x0B: (2, True),
    0x0C: (4, False),
    0x0D: (4, True),
    0x0E: (8, False),
    0x0F: (8, True),
}
DW_OP_ADDR: Final = 0x03
DW_OP_DEREF: Final = 0x06
DW_OP_CONSTU: Final = 0x10
DW_OP_CONSTS: Final = 0x11
DW_OP_DUP: Final = 0x12
DW_OP_DROP: Final = 0x13
DW_OP_OVER: Final = 0x14
DW_OP_SWAP: Final = 0x16
DW_OP_NEG: Final = 0x1F
DW_OP_PLUS_UCONST: Final = 0x23
DW_OP_BRA: Final = 0x28
DW_OP_SKIP: Final = 0x2F
DW_OP_LIT0: Final = 0x30
DW_OP_BREG0: Final = 0x70
DW_OP_BREGX: Final = 0x92
DW_OP_DEREF_SIZE: Final = 0x94
DW_OP_NOP: Final = 0x96


def evaluate(
    code: bytes, registers: Mapping[int, int], read: Read, word: int, begin: int | None = None
) -> int:
    """What an expression comes to; ``begin`` is on the stack at first.

    Raises CfiError for what it does not know or what never ends, LookupError for
    memory or registers that nobody knows.
    """
    mask = (1 << 8 * word) - 1
    stack = [] if begin is None else [begin]
    at = Cursor(code)
    for _ in range(STEPS):
        if at.pos >= len(code):
            break
        if len(stack) > DEPTH:
            raise CfiError("an expression that stacks too much")
        op = at.u(1)
        try:
            if DW_OP_LIT0 <= op < DW_OP_LIT0 + 32:
                stack.append(op - DW_OP_LIT0)
            elif DW_OP_BREG0 <= op < DW_OP_BREG0 + 32:
                stack.append(registers[op - DW_OP_BREG0] + at.sleb() & mask)
            elif op in _BINARY:
                second, first = stack.pop(), stack.pop()
                stack.append(_BINARY[op](first, second) & mask)
            elif op in _COMPARED:
                second, first = _signed(stack.pop(), word), _signed(stack.pop(), word)
                stack.append(int(_COMPARED[op](first, second)))
            elif op in _CONSTANTS:
                size, signed = _CONSTANTS[op]
                stack.append((at.s(size) if signed else at.u(size)) & mask)
            elif op == DW_OP_DEREF:
                stack.append(read(stack.pop(), word))
            elif op == DW_OP_DEREF_SIZE:
                stack.append(read(stack.pop(), min(at.u(1), word)))
            elif op == DW_OP_PLUS_UCONST:
                stack.append(stack.pop() + at.uleb() & mask)
            elif op == DW_OP_BREGX:
                register = at.uleb()
                stack.append(registers[register] + at.sleb() & mask)
            elif op == DW_OP_CONSTU:
                stack.append(at.uleb() & mask)
            elif op == DW_OP_CONSTS:
                stack.append(at.sleb() & mask)
            elif op == DW_OP_ADDR:
                stack.append(at.u(word))
            elif op == DW_OP_DUP:
                stack.append(stack[-1])
            elif op == DW_OP_OVER:
                stack.append(stack[-2])
            elif op == DW_OP_DROP:
                stack.pop()
            elif op == DW_OP_SWAP:
                stack[-1], stack[-2] = stack[-2], stack[-1]
            elif op == DW_OP_NEG:
                stack.append(-stack.pop() & mask)
            elif op in (DW_OP_BRA, DW_OP_SKIP):
                distance = at.s(2)
                if op == DW_OP_SKIP or stack.pop():
                    at.pos += distance
                    if at.pos < 0:
                        raise CfiError("an expression that leaves its code")
            elif op != DW_OP_NOP:
                raise CfiError(f"operation {op:#x} in an expression")
        except IndexError:
            raise CfiError("an expression that takes more than it has") from None
    else:
        raise CfiError("an expression without an end")
    if not stack:
        raise CfiError("an expression without a result")
    return stack[-1]


def _signed(value: int, word: int) -> int:
    half = 1 << 8 * word - 1
    return (value & 2 * half - 1 ^ half) - half
