"""Native code as llvm-mc and objdump read it, to hold our disassembly against."""

from __future__ import annotations

import re
import subprocess
import tempfile
from typing import NamedTuple

TRIPLES = {"x86_64": "x86_64", "aarch64": "aarch64"}


class Theirs(NamedTuple):
    """An instruction in another's words."""

    mnemonic: str
    operands: str


def llvm_mc(code: bytes, machine: str) -> list[Theirs]:
    """The instructions in llvm-mc's words: AT&T's syntax with suffixes, relative jumps."""
    done = subprocess.run(
        ["llvm-mc", "--disassemble", f"--triple={TRIPLES[machine]}", "-mattr=+v8.5a"]
        if machine == "aarch64"
        else ["llvm-mc", "--disassemble", f"--triple={TRIPLES[machine]}"],
        input=" ".join(f"{byte:#04x}" for byte in code),
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[Theirs] = []
    for line in done.stdout.splitlines():
        text = re.split(r"\s+[#/]{1,2} ", line.strip())[0]
        if not text or text == ".text":
            continue
        mnemonic, _, operands = text.replace("\t", " ").partition(" ")
        if found and found[-1].mnemonic == "lock" and not found[-1].operands:
            found[-1] = Theirs(f"lock {mnemonic}", operands)
        else:
            found.append(Theirs(mnemonic, operands))
    return found


def objdump(code: bytes, addr: int, syntax: str = "att") -> list[tuple[int, int, Theirs]]:
    """(offset, size, instruction) of x86-64 code in objdump's words."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(code)
        file.flush()
        done = subprocess.run(
            ["objdump", "-D", "-b", "binary", "-m", "i386:x86-64", "-w", "-M", syntax,
             f"--adjust-vma={addr:#x}", file.name],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    found = []
    for line in done.stdout.splitlines():
        row = re.match(r"\s*([0-9a-f]+):\t([0-9a-f ]+?)\s*\t(.*)$", line)
        if row is None:
            continue
        text = row[3].split(" #")[0].strip()
        lock = text.startswith("lock ")
        mnemonic, _, operands = text.removeprefix("lock ").partition(" ")
        said = Theirs(f"lock {mnemonic}" if lock else mnemonic, operands.strip())
        found.append((int(row[1], 16) - addr, len(bytes.fromhex(row[2])), said))
    return found


_NUMBER = re.compile(r"(?<![%\w])-?(?:0x[0-9a-f]+|\d+)(?!\w)")


def canonical(operands: str, bits: int = 64) -> str:
    """Operands in one spelling: numbers in hex and unsigned, no blanks, no zero distances.

    ``bits``: $-1 and $0xffffffff are the same number in 32 bits.
    """
    text = re.sub(r"\s+", "", re.sub(r"<.*>", "", operands))
    text = _NUMBER.sub(lambda found: f"{int(found[0], 0) & (1 << bits) - 1:x}", text)
    text = text.replace(",1)", ")").replace(",)", ")")
    return re.sub(r"(?<![\w)])0\(", "(", text)


def same_operands(ours: str, theirs: str) -> bool:
    """Whether both mean the same, however they spell numbers."""
    return any(canonical(ours, bits) == canonical(theirs, bits) for bits in (64, 32, 16, 8))
