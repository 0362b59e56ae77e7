"""A program's tag, computed from the instructions that user space passed.

bpf_prog_calc_tag() in kernel/bpf/core.c, as of Linux 7.1: the first 8 bytes of
a hash over the instruction array, in which two things are zero that differ
from load to load: imm of each ld_imm64 whose src_reg is BPF_PSEUDO_MAP_FD or
BPF_PSEUDO_MAP_VALUE, and imm of the slot after it if that is otherwise empty.
Indexes into fd_array, BTF ids, distances of functions and calls count as they
are.  The hash was SHA-1 up to Linux 6.17 and is SHA-256 from 6.18 on.

The kernel takes the tag after it applied the CO-RE relocations that were
passed along with the program (bpf_attr.core_relos, as light skeletons do), so
with those the tag here is not the program's.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from decoders.digests import sha1_of, sha256_of
from decoders.formats.insn import LD_IMM64, PSEUDO_MAP_FD, PSEUDO_MAP_VALUE, SLOT, Buffer
from decoders.records import NamedTuple

Algorithm: TypeAlias = Literal["sha1", "sha256"]

_NO_IMM: Final = bytes(4)


class Tags(NamedTuple):
    """The tag of one program under both hashes, 16 hexadecimal digits each."""

    sha1: str
    sha256: str


def tagged(insns: Buffer) -> bytes:
    """What is hashed: the array with those imm zeroed; a last partial slot is left out."""
    out = bytearray(insns[: len(insns) // SLOT * SLOT])
    codes = bytes(out[::SLOT])
    slot = codes.find(LD_IMM64)
    while slot >= 0:
        at = slot * SLOT
        if out[at + 1] >> 4 not in (PSEUDO_MAP_FD, PSEUDO_MAP_VALUE):
            slot = codes.find(LD_IMM64, slot + 1)
            continue
        out[at + 4 : at + 8] = _NO_IMM
        second = at + SLOT
        if second < len(out) and out[second : second + 4] == _NO_IMM:
            out[second + 4 : second + 8] = _NO_IMM
        # Whatever that slot is, the kernel does not look at it for a map again.
        slot = codes.find(LD_IMM64, slot + 2)
    return bytes(out)


def tag(insns: Buffer, algorithm: Algorithm) -> str:
    """The tag, as the 16 hexadecimal digits that the kernel shows."""
    return _digest(tagged(insns), algorithm)


def tags(insns: Buffer) -> Tags:
    """The tag under both hashes; which of them a kernel shows depends on its version."""
    data = tagged(insns)
    return Tags(_digest(data, "sha1"), _digest(data, "sha256"))


def _digest(data: bytes, algorithm: Algorithm) -> str:
    return (sha1_of if algorithm == "sha1" else sha256_of)(data)[:8].hex()
