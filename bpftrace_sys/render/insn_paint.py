"""Colours within an instruction: opcode, registers, constants, targets of jumps, helpers.

The text is our own (decoders/formats/insn_text.py); all that comes from a tracee in it are names
of functions, behind ``call``, and these are taken whole.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bpftrace_sys.render.style import Painter

_OPCODE: Final = r"\([0-9a-f]{2}\)"
_CALL: Final = r"(?s)( call )(pc[+-]\d+)?(#?)(.*)"
_PART: Final = (
    r"(?<!\w)(?:(?P<register>[rw]\d{1,2})|(?P<target>pc[+-]\d+)"
    r"|(?P<constant>[+-]?(?:0x[0-9a-f]+|\d+)))(?!\w)"
)
MEMO: Final = 4096
"""Texts that are remembered: most come again."""


class InsnPainter:
    """Paints texts of instructions."""

    def __init__(self, paint: Painter) -> None:
        self._paint = paint
        self._memo: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """``text`` is printable, and begins with the opcode in brackets; else it stays as it is."""
        found = self._memo.get(text)
        if found is None:
            found = self._painted(text)
            if len(self._memo) < MEMO:
                self._memo[text] = found
        return found

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

        def part(match: re.Match[str]) -> str:
            return paint(match.lastgroup or "", match[0])

        return head + re.sub(_PART, part, rest)
