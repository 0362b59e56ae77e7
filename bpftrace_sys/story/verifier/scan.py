"""Where a fault lies that the verifier named without an instruction.

Each row is a form of words and what has to be true of the instruction that they are about. Where
more than one instruction fits, or none, nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from decoders.formats import insn as isa
from decoders.formats.insn import Insn

Fits = Callable[[Insn, "re.Match[str]", int], bool]


def _opcode(insn: Insn, said: re.Match[str], total: int) -> bool:
    return insn.code == int(said[1], 16)


def _map_fd(insn: Insn, said: re.Match[str], total: int) -> bool:
    kinds = (isa.PSEUDO_MAP_FD, isa.PSEUDO_MAP_VALUE)
    return insn.wide and insn.src in kinds and insn.imm == int(said[1])


def _ld_imm64(insn: Insn, said: re.Match[str], total: int) -> bool:
    return insn.wide and (insn.truncated or bool(insn.next_rest) or insn.off != 0)


def _pseudo(insn: Insn, said: re.Match[str], total: int) -> bool:
    return insn.wide and insn.src > isa.PSEUDO_MAP_IDX_VALUE


def _out_of_range(insn: Insn, said: re.Match[str], total: int) -> bool:
    target = insn.pc + insn.imm + 1
    call = insn.code == isa.CALL_K and insn.src == isa.PSEUDO_CALL
    return call and not 0 <= target < total


def _helper(insn: Insn, said: re.Match[str], total: int) -> bool:
    return insn.code == isa.CALL_K and insn.src == 0 and insn.imm == int(said[1])


ROWS: Final[tuple[tuple[re.Pattern[str], Fits], ...]] = (
    (re.compile(r"unknown opcode ([0-9a-f]{2})$"), _opcode),
    (re.compile(r"fd (-?\d+) is not pointing to valid bpf_map"), _map_fd),
    (re.compile(r"invalid bpf_ld_imm64 insn"), _ld_imm64),
    (re.compile(r"unrecognized bpf_ld_imm64 insn"), _pseudo),
    (re.compile(r"call to invalid destination|invalid insn idx -?\d+"), _out_of_range),
    (re.compile(r"invalid func [\w.]+#(\d+)$"), _helper),
)


def place(words: tuple[str, ...], insns: bytes) -> int | None:
    """The index of the only instruction that the words can be about, or None."""
    for line in words:
        for form, fits in ROWS:
            said = form.search(line)
            if said is None:
                continue
            total = len(insns) // isa.SLOT
            found = [insn.pc for insn in isa.insns(insns) if fits(insn, said, total)]
            if len(found) == 1:
                return found[0]
    return None
