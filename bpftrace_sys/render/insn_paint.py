"""Colours within an instruction: opcode, registers, constants, targets of jumps, helpers.

The text is our own (decoders/formats/insn_text.py); all that comes from a tracee in it are names
of functions, behind ``call``, and these are taken whole.
"""

from __future__ import annotations

import re
from typing import Final

from bpftrace_sys.render.token_paint import TokenPainter

_OPCODE: Final = r"\([0-9a-f]{2}\)"
_CALL: Final = r"(?s)( call )(pc[+-]\d+)?(#?)(.*)"
_PART: Final = (
    r"(?<!\w)(?:(?P<register>[rw]\d{1,2})|(?P<target>pc[+-]\d+)"
    r"|(?P<constant>[+-]?(?:0x[0-9a-f]+|\d+)))(?!\w)"
)


class InsnPainter(TokenPainter):
    """Paints texts of instructions that begin with the opcode in brackets."""

    def _painted(self, text: str) -> str:
        opcode = re.match(_OPCODE, text)
        if opcode is None:
            return text
        paint = self._paint
        head, rest = paint("opcode", opcode[0]), text[opcode.end() :]
        call = re.fullmatch(_CALL, rest)
        if call is not None:
            word, target, between, name = call.groups("")
            return f"{head}{word}{paint('target', target)}{between}{paint('helper', name)}"
        return head + self._parts(_PART, rest)
