"""BPF instructions as strace writes them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import Final

from bpftrace_sys.render.strace.quoting import hexa, xval
from decoders.formats import insn


def _codes(text: str) -> dict[int, str]:
    """The constants of ``insn`` that go by these names, by number."""
    return {getattr(insn, name): f"BPF_{name}" for name in text.split()}


_CLASS: Final = _codes("LD LDX ST STX ALU JMP JMP32 ALU64")
_SIZE: Final = {0x00: "BPF_W", 0x08: "BPF_H", 0x10: "BPF_B", 0x18: "BPF_DW"}
_MODE: Final = _codes("IMM ABS IND MEM MEMSX ATOMIC")
_ALU: Final = _codes("ADD SUB MUL DIV OR AND LSH RSH NEG MOD XOR MOV ARSH END")
_JMP: Final = _codes("JA JEQ JGT JGE JSET JNE JSGT JSGE CALL EXIT JLT JLE JSLT JSLE JCOND")


def _code(code: int) -> str:
    kind = code & 7
    if kind < insn.ALU:
        size, mode = _SIZE[code & 0x18], xval(code & 0xE0, _MODE, "BPF_???")
        return f"{_CLASS[kind]}|{size}|{mode}"
    table = _ALU if kind in (insn.ALU, insn.ALU64) else _JMP
    source = "BPF_X" if code & 8 else "BPF_K"
    return f"{_CLASS[kind]}|{source}|{xval(code & 0xF0, table, 'BPF_???')}"


_REGISTERS: Final = [
    f"BPF_REG_{number}" if number <= 10 else f"{number:#x} /* BPF_REG_??? */"
    for number in range(16)
]


@cache
def _heads() -> tuple[list[str], list[str]]:
    """The text of each code, and of each byte of registers (dst low, src high)."""
    registers = [
        f", dst_reg={_REGISTERS[byte & 15]}, src_reg={_REGISTERS[byte >> 4]}"
        for byte in range(256)
    ]
    return [f"{{code={_code(code)}" for code in range(256)], registers


def instructions(data: bytes) -> Iterator[str]:
    """The text of each slot."""
    codes, registers = _heads()
    for code, regs, off, imm in struct.Struct("<BBhI").iter_unpack(data):
        yield f"{codes[code]}{registers[regs]}, off={off}, imm={hexa(imm)}}}"
