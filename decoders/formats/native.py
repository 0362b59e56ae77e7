"""Native code as text, by capstone.

The wording is that of objdump, which is bpftool's where it was built with a disassembler: AT&T's
syntax without a suffix where a register tells the size (``mov    $0x21,%edi``), or Intel's.
Immediates are in hex.  Jumps within a function lead to distances from its beginning, as its
lines count; others to addresses, with a name where one is known.

capstone is an extra (``jit``), imported when the first function is disassembled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Final

from decoders import BpfstraceError
from decoders.formats import native_targets
from decoders.records import NamedTuple

SYNTAXES: Final = ("att", "intel")
_MNEMONIC: Final = 6
"""Columns that objdump gives to a mnemonic."""


class NoDisassemblerError(BpfstraceError):
    """Native code cannot be shown; says why and what to do."""


class NativeInsn(NamedTuple):
    """An instruction of native code."""

    offset: int
    """Bytes from the beginning of its function."""
    size: int
    text: str
    target: int | None = None
    """The address, outside of the function, that it calls, jumps to or loads."""


def _nothing(address: int) -> str | None:
    return None


@lru_cache(maxsize=8)
def _engine(machine: str, syntax: str) -> Any:
    try:
        import capstone
    except ImportError:
        raise NoDisassemblerError(
            "native code is disassembled by capstone, which is not installed: "
            "pip install 'bpfstrace[jit]'"
        ) from None
    if machine == "x86_64":
        engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        if syntax == "att":
            engine.syntax = capstone.CS_OPT_SYNTAX_ATT
    elif machine == "aarch64":
        engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_LITTLE_ENDIAN)
    else:
        raise NoDisassemblerError(f"native code of {machine} is not disassembled, but kept in JSON")
    engine.skipdata = True
    return engine


def disassemble(
    code: bytes,
    addr: int,
    machine: str,
    syntax: str = "att",
    name: Callable[[int], str | None] = _nothing,
) -> Iterator[NativeInsn]:
    """The instructions of one function.

    ``addr``: where it begins; ``machine``: as uname has it; ``name``: what an address outside
    of it is called.  Bytes that are no instruction are shown as such.  Raises NoDisassemblerError.
    """
    engine = _engine(machine, syntax)
    word = _aarch64 if machine == "aarch64" else _att if syntax == "att" else _intel
    find = _targets_aarch64(code) if machine == "aarch64" else _target_x86_64
    end = addr + len(code)
    for at, size, mnemonic, operands in engine.disasm_lite(code, addr):
        mnemonic, operands = word(mnemonic, operands)
        target = find(at - addr, mnemonic, operands)
        jump = _BRANCH.search(operands) if target is not None else None
        if target is not None and addr <= target < end:
            if jump is not None:
                operands = operands[: jump.start(1)] + f"{target - addr:#x}"
            target = None
        elif mnemonic in _DATA:
            target = None  # the literals behind the code have no names
        said = None if target is None else name(target)
        text = f"{mnemonic:<{_MNEMONIC}} {operands}".rstrip()
        yield NativeInsn(at - addr, size, f"{text} <{said}>" if said else text, target)


# ---------------------------------------------------------------- where it leads

_BRANCH: Final = re.compile(r"(?:^|#|, ?)(0x[0-9a-f]+)$")
_LOADED: Final = re.compile(r"\b(0x[0-9a-f]+)")
_DATA: Final = frozenset({"ldr", "ldrsw", "adr"})
_RELATIVE: Final = frozenset({"b", "bl", *_DATA})
"""Of aarch64: those whose last operand may be an address, told as a distance in the code."""
_X86_64_JUMPS: Final = ("call", "j", "loop", "xbegin")


def _target_x86_64(offset: int, mnemonic: str, operands: str) -> int | None:
    """The address that an instruction names."""
    if mnemonic.startswith(_X86_64_JUMPS):
        found = _BRANCH.search(operands)
        return None if found is None else int(found[1], 16)
    if mnemonic.startswith("movabs") and (found := _LOADED.search(operands)) is not None:
        value = int(found[1], 16)
        return value if value >= native_targets.KERNEL else None
    return None


def _targets_aarch64(code: bytes) -> Callable[[int, str, str], int | None]:
    """The same, where an address is made of three instructions before it is used."""
    made = {at: (register, value) for at, register, value in native_targets.constants(code)}
    pending: dict[str, int] = {}

    def target(offset: int, mnemonic: str, operands: str) -> int | None:
        nonlocal pending
        if offset in made:
            register, value = made[offset]
            pending = {f"x{register}": value}
            after = made.get(offset + 4)
            whole = after is None or after[0] != register
            return value if whole and value >= native_targets.KERNEL else None
        known, pending = pending, {}
        if mnemonic in ("blr", "br"):
            return known.get(operands)
        if mnemonic in _RELATIVE or mnemonic.startswith(("b.", "cb", "tb")):
            found = _BRANCH.search(operands)
            return None if found is None else int(found[1], 16)
        return None

    return target


# ---------------------------------------------------------------- wording

_SUFFIXED: Final = frozenset({
    "adc", "add", "and", "bswap", "bt", "btc", "btr", "bts", "cmp", "cmpxchg", "dec",
    "div", "idiv", "imul", "inc", "lea", "mov", "movbe", "mul", "neg", "not", "or", "pop",
    "push", "rcl", "rcr", "rol", "ror", "sar", "sarx", "sbb", "shl", "shld", "shlx",
    "shr", "shrd", "shrx", "sub", "test", "xadd", "xchg", "xor",
})  # fmt: skip
"""Instructions whose suffix says no more than a register among their operands does."""
_ALWAYS: Final = frozenset({"call", "jmp", "ret", "leave", "push", "pop", "movabs"})
"""Those that have one size only."""
_REGISTER: Final = re.compile(r"(?:^|,)%\w+(?:,|$)")
_DECIMAL: Final = re.compile(r"(?<![\w%.])(\d{1,20})(?!\w)")
_MEMORY: Final = re.compile(r"\([^()]*\)")


def _hex(operands: str) -> str:
    return _DECIMAL.sub(lambda found: f"{int(found[1]):#x}", operands)


def _att(mnemonic: str, operands: str) -> tuple[str, str]:
    operands = operands.replace(", ", ",")
    prefix, _, last = mnemonic.rpartition(" ")
    base = last[:-1]
    if last[-1:] in "bwlq" and (
        base in _ALWAYS
        or last.startswith("cmov")
        or (base in _SUFFIXED and _REGISTER.search(_MEMORY.sub("", operands)) is not None)
    ):
        mnemonic = f"{prefix} {base}" if prefix else base
    scaled = _MEMORY.search(operands)
    if scaled is None:
        return mnemonic, _hex(operands)
    # A scale is no immediate.
    start, stop = scaled.span()
    return mnemonic, _hex(operands[:start]) + operands[start:stop] + _hex(operands[stop:])


def _intel(mnemonic: str, operands: str) -> tuple[str, str]:
    return mnemonic, _hex(operands)


def _aarch64(mnemonic: str, operands: str) -> tuple[str, str]:
    return mnemonic, operands
