"""Instructions that libbpf makes invalid on purpose, where something it should fill in is missing.

The program loads all the same if the verifier finds that they are never reached (libbpf's
src/relo_core.c and src/libbpf.c, since v0.4 and v0.8).
"""

from __future__ import annotations

from typing import Final

from decoders.formats import insn as isa
from decoders.formats.insn import Insn

CORE: Final = 195896080  # 0xbad2310, "bad relo"
MAPS: Final = 2_001_000_000
KFUNCS: Final = 2_002_000_000
MOST: Final = 1_000_000
"""Above a base stands an index: of a map in the object, or of an extern."""


def poison(insn: Insn) -> str | None:
    """What libbpf did not find, if this instruction is its poison."""
    if insn.code != isa.CALL_K or insn.src:
        return None
    if insn.imm == CORE:
        return "libbpf's mark of a CO-RE relocation that failed: type, field or enum is not there"
    if MAPS <= insn.imm < MAPS + MOST:
        return f"libbpf's mark of a map that was not created: the object's map {insn.imm - MAPS}"
    if KFUNCS <= insn.imm < KFUNCS + MOST:
        return f"libbpf's mark of a kfunc that was not found: extern {insn.imm - KFUNCS}"
    return None
