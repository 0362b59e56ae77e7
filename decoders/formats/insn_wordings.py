"""The dialect of the kernel's disassembler as data: a wording for each code, and its variants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from decoders.formats import insn as isa
from decoders.records import NamedTuple

NULL: Final = "(null)"
"""printf's word for a missing string: what the kernel prints for an operator without a name."""

_ALU_OPS: Final[dict[int, str]] = {
    isa.ADD: "+=",
    isa.SUB: "-=",
    isa.MUL: "*=",
    isa.DIV: "/=",
    isa.OR: "|=",
    isa.AND: "&=",
    isa.LSH: "<<=",
    isa.RSH: ">>=",
    isa.MOD: "%=",
    isa.XOR: "^=",
    isa.MOV: "=",
    isa.ARSH: "s>>=",
}
_SIGNED_OPS: Final[dict[int, str]] = {isa.DIV: "s/=", isa.MOD: "s%="}
_JMP_OPS: Final[dict[int, str]] = {
    isa.JA: "jmp",
    isa.JEQ: "==",
    isa.JGT: ">",
    isa.JGE: ">=",
    isa.JSET: "&",
    isa.JNE: "!=",
    isa.JSGT: "s>",
    isa.JSGE: "s>=",
    isa.EXIT: "exit",
    isa.JLT: "<",
    isa.JLE: "<=",
    isa.JSLT: "s<",
    isa.JSLE: "s<=",
}
_UNSIGNED: Final[dict[int, str]] = {0x00: "u32", 0x08: "u16", 0x10: "u8", 0x18: "u64"}
_SIGNED: Final[dict[int, str]] = {0x00: "s32", 0x08: "s16", 0x10: "s8"}
_ATOMIC_OPS: Final[dict[int, str]] = {isa.ADD: "add", isa.OR: "or", isa.AND: "and", isa.XOR: "xor"}


class Variants(NamedTuple):
    """The wordings of one code that a further field selects, by that field's value."""

    by: str
    """off, imm or src"""
    wordings: Mapping[int, str]


def _alu() -> Iterator[tuple[int, str]]:
    for kind, reg in ((isa.ALU, "w"), (isa.ALU64, "r")):
        for op in range(0, 0x100, 0x10):
            word = _ALU_OPS.get(op, NULL)
            yield kind | op | isa.K, f"{reg}{{dst}} {word} {{imm}}"
            yield kind | op | isa.X, f"{reg}{{dst}} {word} {reg}{{src}}"
        for operand in (isa.K, isa.X):
            yield kind | isa.NEG | operand, f"{reg}{{dst}} = -{reg}{{dst}}"
    for code, word in (
        (isa.ALU | isa.END | isa.K, "le"),
        (isa.ALU | isa.END | isa.X, "be"),
        (isa.ALU64 | isa.END | isa.K, "bswap"),
        (isa.ALU64 | isa.END | isa.X, "bswap"),
    ):
        yield code, f"r{{dst}} = {word}{{imm}} r{{dst}}"


def _memory() -> Iterator[tuple[int, str]]:
    for size, unsigned in _UNSIGNED.items():
        signed = _SIGNED.get(size, NULL)
        yield isa.LDX | isa.MEM | size, f"r{{dst}} = *({unsigned} *)(r{{src}} {{off:+d}})"
        yield isa.LDX | isa.MEMSX | size, f"r{{dst}} = *({signed} *)(r{{src}} {{off:+d}})"
        yield isa.ST | isa.MEM | size, f"*({unsigned} *)(r{{dst}} {{off:+d}}) = {{imm}}"
        yield isa.STX | isa.MEM | size, f"*({unsigned} *)(r{{dst}} {{off:+d}}) = r{{src}}"
        yield isa.ST | isa.NOSPEC | size, "nospec"
        yield isa.LD | isa.ABS | size, f"r0 = *({unsigned} *)skb[{{imm}}]"
        yield isa.LD | isa.IND | size, f"r0 = *({unsigned} *)skb[r{{src}} + {{imm}}]"
    yield isa.LD_IMM64, "r{dst} = {imm64:#x}"


def _jumps() -> Iterator[tuple[int, str]]:
    for kind, reg in ((isa.JMP, "r"), (isa.JMP32, "w")):
        for op in range(0, 0x100, 0x10):
            word = _JMP_OPS.get(op, NULL)
            yield kind | op | isa.K, f"if {reg}{{dst}} {word} {{uimm:#x}} goto pc{{off:+d}}"
            yield kind | op | isa.X, f"if {reg}{{dst}} {word} {reg}{{src}} goto pc{{off:+d}}"
        for operand in (isa.K, isa.X):
            yield kind | isa.CALL | operand, "call unknown#{imm}"
    yield isa.JMP | isa.JA, "goto pc{off:+d}"
    yield isa.GOTOL, "gotol pc{imm:+d}"
    yield isa.GOTOX, "gotox r{dst}"
    yield isa.JMP | isa.EXIT, "exit"


# What is printed, alone and without the code in brackets, where a load's or
# store's mode has no meaning.
_MEANINGLESS: Final[dict[int, str]] = {
    isa.LD: "BUG_ld_{:02x}",
    isa.LDX: "BUG_ldx_{:02x}",
    isa.ST: "BUG_st_{:02x}",
    isa.STX: "BUG_{:02x}",
}


def _wordings() -> tuple[str, ...]:
    known = {
        code: f"({code:02x}) {wording}"
        for rows in (_alu(), _memory(), _jumps())
        for code, wording in rows
    }
    return tuple(
        known[code] if code in known else _MEANINGLESS[code & 7].format(code)
        for code in range(0x100)
    )


def _atomics(size: int) -> Iterator[tuple[int, str]]:
    unsigned, bits = _UNSIGNED[size], "64" if isa.SIZE_BYTES[size] == 8 else ""
    at = f"({unsigned} *)(r{{dst}} {{off:+d}})"
    for op, word in _ATOMIC_OPS.items():
        yield op, f"lock *{at} {_ALU_OPS[op]} r{{src}}"
        yield op | isa.FETCH, f"r{{src}} = atomic{bits}_fetch_{word}({at}, r{{src}})"
    yield isa.XCHG, f"r{{src}} = atomic{bits}_xchg({at}, r{{src}})"
    yield isa.CMPXCHG, f"r0 = atomic{bits}_cmpxchg({at}, r0, r{{src}})"
    yield isa.LOAD_ACQ, f"r{{dst}} = load_acquire(({unsigned} *)(r{{src}} {{off:+d}}))"
    yield isa.STORE_REL, f"store_release({at}, r{{src}})"


# off of a mov between registers: BPF_ADDR_SPACE_CAST, and BPF_ADDR_PERCPU of
# include/linux/filter.h, which the verifier makes and user space cannot pass.
_ADDRESS_MOVES: Final = (
    (1, "r{dst} = addr_space_cast(r{src}, {to}, {origin})"),
    (-1, "r{dst} = &(void __percpu *)(r{src})"),
)


def _variants() -> Iterator[tuple[int, str, Iterable[tuple[int, str]]]]:
    """(code, field, (value, wording) ...)"""
    for kind, reg in ((isa.ALU, "w"), (isa.ALU64, "r")):
        for op, word in _SIGNED_OPS.items():
            yield kind | op | isa.K, "off", [(1, f"{reg}{{dst}} {word} {{imm}}")]
            yield kind | op | isa.X, "off", [(1, f"{reg}{{dst}} {word} {reg}{{src}}")]
        yield (
            kind | isa.MOV | isa.X,
            "off",
            [(bits, f"{reg}{{dst}} = (s{bits}){reg}{{src}}") for bits in (8, 16, 32)],
        )
    yield isa.ALU64 | isa.MOV | isa.X, "off", _ADDRESS_MOVES
    for size in _UNSIGNED:
        yield isa.STX | isa.ATOMIC | size, "imm", _atomics(size)
    yield isa.MAY_GOTO, "src", [(0, "may_goto pc{off:+d}")]
    for kind in (isa.JMP, isa.JMP32):
        for operand in (isa.K, isa.X):
            yield (
                kind | isa.CALL | operand,
                "src",
                [
                    (0, "call {name}#{imm}"),
                    (isa.PSEUDO_CALL, "call pc{imm:+d}"),
                    (isa.PSEUDO_KFUNC_CALL, "call kernel-function#{imm}"),
                ],
            )


def _by_code() -> dict[int, Variants]:
    found: dict[int, tuple[str, dict[int, str]]] = {}
    for code, by, rows in _variants():
        _, wordings = found.setdefault(code, (by, {}))
        wordings.update((value, f"({code:02x}) {wording}") for value, wording in rows)
    return {code: Variants(by, MappingProxyType(rows)) for code, (by, rows) in found.items()}


WORDINGS: Final[tuple[str, ...]] = _wordings()
"""For each code, how it is printed; between braces stand fields of the instruction."""

VARIANTS: Final[Mapping[int, Variants]] = MappingProxyType(_by_code())
"""For some codes, the wordings that a further field selects; all others are in WORDINGS."""
