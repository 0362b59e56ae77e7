"""Colours within an instruction of native code: mnemonic, registers, constants, jumps, names.

The text is capstone's, in three dialects: AT&T's and Intel's of x86-64, and aarch64's; behind it
may stand a name of the kernel's in angle brackets, which is taken whole.
"""

from __future__ import annotations

import re
from typing import Final

from bpftrace_sys.render.token_paint import TokenPainter

_TEXT: Final = re.compile(r"((?:lock |rep |repne |notrack |bnd )*\S+)(.*?)( <.*>)?", re.DOTALL)
_X86: Final = (
    r"[re]?(?:ax|bx|cx|dx|si|di|bp|sp)|[abcd][lh]|(?:si|di|bp|sp)l|r(?:8|9|1[0-5])[dwb]?|[re]ip"
    r"|[c-gs]s|[xyz]mm\d{1,2}|k[0-7]"
)
_AARCH64: Final = r"[xwvbhsdq]\d{1,2}|[xw]zr|w?sp|lr"
_PART: Final = re.compile(
    rf"(?<![\w.])(?:(?P<register>%\w+(?:\(\d\))?|{_X86}|{_AARCH64})"
    r"|(?P<constant>[$#]?-?(?:0x[0-9a-f]+|\d+)))(?!\w)"
)
_LAST: Final = re.compile(r"(?<![\w$#-])(0x[0-9a-f]+)$")
"""Where a jump leads: its last operand."""
_JUMP: Final = re.compile(r"j\w+|call\w?|loop\w*|bl?|b\.\w+|cbn?z|tbn?z")


class NativePainter(TokenPainter):
    """Paints texts of native instructions."""

    def _painted(self, text: str) -> str:
        match = _TEXT.fullmatch(text)
        if match is None:
            return text
        mnemonic, operands, name = match.groups("")
        paint = self._paint
        target = ""
        if _JUMP.fullmatch(mnemonic) and (leads := _LAST.search(operands)) is not None:
            operands, target = operands[: leads.start()], paint("target", leads[1])
        said = f" {paint('helper', name[1:])}" if name else ""
        return f"{paint('insn', mnemonic)}{self._parts(_PART, operands)}{target}{said}"
