"""What code behind a call does before it returns, for code that nobody describes.

Trampolines that JITs make, Python's with -X perf among them, give back their stack
and return right behind the call.  Only that is understood: any other instruction,
and nothing is said.  Encodings: Intel SDM volume 2 (add, pop, ret).
"""

from __future__ import annotations

import struct
from typing import Final

from bpftrace_sys.record.stacks.machine import I386, X86_64, Machine

INSTRUCTIONS: Final = 16
_POPPED: Final = {"x86-64": (0, 2, 1, 3, 7, 6, 4, 5), "i386": (0, 1, 2, 3, 4, 5, 6, 7)}
"""DWARF numbers of the registers as pop counts them: ax cx dx bx sp bp si di."""


def epilogue(code: bytes, machine: Machine) -> tuple[list[tuple[int, int]], int] | None:
    """Registers that are popped and where, and how far away the return address is.

    Distances in bytes from the stack pointer.  None: this is no epilogue.
    """
    if machine not in (X86_64, I386):
        return None
    wide = b"\x48" if machine is X86_64 else b""
    popped: list[tuple[int, int]] = []
    at = size = 0
    for _ in range(INSTRUCTIONS):
        rest = code[at : at + 8]
        if rest[:1] in (b"\xc3", b"\xc2"):
            return popped, size
        if rest.startswith(wide + b"\x83\xc4") and len(rest) > len(wide) + 2:
            distance = struct.unpack_from("<b", rest, len(wide) + 2)[0]
            at += len(wide) + 3
        elif rest.startswith(wide + b"\x81\xc4") and len(rest) >= len(wide) + 6:
            distance = struct.unpack_from("<i", rest, len(wide) + 2)[0]
            at += len(wide) + 6
        else:
            high = machine is X86_64 and rest[:1] == b"\x41"
            op = rest[high] if len(rest) > high else 0
            if not 0x58 <= op < 0x60:
                return None
            register = op - 0x58 + 8 if high else _POPPED[machine.name][op - 0x58]
            if register == machine.sp:
                return None
            popped.append((register, size))
            distance = machine.word
            at += 1 + high
        if distance < 0:
            return None
        size += distance
    return None
