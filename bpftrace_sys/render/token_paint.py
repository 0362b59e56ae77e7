"""What painters of instructions have in common: texts come again, and parts have styles."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bpftrace_sys.render.style import Painter

MEMO: Final = 4096
"""Texts that are remembered: most come again."""


class TokenPainter(ABC):
    """Paints the parts of printable texts."""

    def __init__(self, paint: Painter) -> None:
        self._paint = paint
        self._memo: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        """``text`` with colours; what is not understood stays as it is."""
        found = self._memo.get(text)
        if found is None:
            found = self._painted(text)
            if len(self._memo) < MEMO:
                self._memo[text] = found
        return found

    @abstractmethod
    def _painted(self, text: str) -> str:
        """A text that is not remembered."""

    def _parts(self, pattern: str | re.Pattern[str], text: str) -> str:
        """Each match in the style that its group is called by."""

        def part(match: re.Match[str]) -> str:
            return self._paint(match.lastgroup or "", match[0])

        return re.sub(pattern, part, text)
