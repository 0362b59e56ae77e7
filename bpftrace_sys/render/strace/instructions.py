"""BPF instructions as strace writes them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import Final

from bpftrace_sys.render.strace.constants import Constants
from bpftrace_sys.render.strace.quoting import hexa
from decoders.formats import insn


def _codes(text: str) -> dict[int, str]:
    """The constants of ``insn`` that go by these names, by number."""
    return {getattr(insn, name): f"BPF_{name}" for name in text.split()}


_CLASS: Final = _codes("LD LDX ST STX ALU JMP JMP32 ALU64")
_SIZE: Final = {0x00: "BPF_W", 0x08: "BPF_H", 0x10: "BPF_B", 0x18: "BPF_DW"}
_MODE: Final = _codes("IMM ABS IND MEM MEMSX ATOMIC")
_ALU: Final = _codes("ADD SUB MUL DIV OR AND LSH RSH NEG MOD XOR MOV ARSH END")
_JMP: Final = _codes("JA JEQ JGT JGE JSET JNE JSGT JSGE CALL EXIT JLT JLE JSLT JSLE JCOND")


_SOURCE: Final = {0x00: "BPF_K", 0x08: "BPF_X"}
_REGISTERS: Final = {number: f"BPF_REG_{number}" for number in range(11)}


def _code(code: int, names: Constants) -> str:
    kind = code & 7
    text = names.xval(kind, _CLASS, None)
    if kind < insn.ALU:
        size = names.xval(code & 0x18, _SIZE, None)
        return f"{text}|{size}|{names.xval(code & 0xE0, _MODE, 'BPF_???')}"
    if names.exact and kind == insn.JMP32:
        rest = code & ~7  # 7.2 knows the class only
        unknown = " /* BPF_??? */"
        return f"{text}|{hexa(rest)}{unknown}" if rest else text
    table = _ALU if kind in (insn.ALU, insn.ALU64) else _JMP
    source = names.xval(code & 8, _SOURCE, None)
    return f"{text}|{source}|{names.xval(code & 0xF0, table, 'BPF_???')}"


@cache
def _heads(names: Constants) -> tuple[list[str], list[str]]:
    """The text of each code, and of each byte of registers (dst low, src high)."""
    one = [names.xval(number, _REGISTERS, "BPF_REG_???") for number in range(16)]
    registers = [f", dst_reg={one[byte & 15]}, src_reg={one[byte >> 4]}" for byte in range(256)]
    return [f"{{code={_code(code, names)}" for code in range(256)], registers


def instructions(data: bytes, names: Constants) -> Iterator[str]:
    """The text of each slot."""
    codes, registers = _heads(names)
    for code, regs, off, imm in struct.Struct("<BBhI").iter_unpack(data):
        yield f"{codes[code]}{registers[regs]}, off={off}, imm={hexa(imm)}}}"
