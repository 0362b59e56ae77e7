"""The text renderer's colours as marks in a string, and back into elements.

The text renderer paints with escape sequences, so that it can tell how wide a line is.
Here they become one character each from Unicode's private use area.  Text of a trace
holds neither: ``printable`` escapes both before it gets here, so a name cannot paint.
"""

from __future__ import annotations

import re
from typing import Final

from bpftrace_sys.render.call_text import CallText
from bpftrace_sys.render.text import TextRenderer
from bpftrace_sys.render.text_options import Options
from bpftrace_sys.story.model import Model
from decoders.records import NamedTuple
from decoders.values import Insns

FIRST: Final = 0xE000
END: Final = "\ue0ff"
"""Ends what a mark began."""
_MARK: Final = re.compile("[\ue000-\ue0ff]")
_MARKS: Final = re.compile("([\ue000-\ue0ff])")
_ESCAPE: Final = re.compile("\x1b\\[(\\d{1,3})m")


class Piece(NamedTuple):
    """Text of one style; "": of none."""

    style: str
    text: str


class Marks:
    """Numbers styles as they turn up."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._escapes: dict[str, str] = {}
        self._marks: dict[str, str] = {"0": END}

    def paint(self, style: str, text: str) -> str:
        """As a Painter's (render/style.py)."""
        begin = self._escapes.get(style)
        if begin is None:
            number = len(self.names) + 1
            self.names.append(style)
            begin = self._escapes[style] = f"\x1b[{number}m"
            self._marks[str(number)] = chr(FIRST + min(number, 0xFE))
        return f"{begin}{text}\x1b[0m"

    def marked(self, text: str) -> str:
        """Painted text with marks for escape sequences."""
        marks = self._marks
        return _ESCAPE.sub(lambda found: marks.get(found[1], ""), text)

    def pieces(self, text: str) -> list[Piece]:
        """Marked text piece by piece."""
        found: list[Piece] = []
        style = ""
        for part in _MARKS.split(text):
            if len(part) == 1 and _MARK.match(part):
                number = ord(part) - FIRST
                style = "" if part == END else self.names[number - 1]
            elif part:
                found.append(Piece(style, part))
        return found


class Lines:
    """A stream that keeps what is written until it is taken."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def write(self, text: str) -> int:
        """As a stream's."""
        self.parts.append(text)
        return len(text)

    def flush(self) -> None:
        """Nothing to do."""

    def take(self) -> str:
        """What was written since."""
        text = "".join(self.parts)
        self.parts.clear()
        return text


class PageCallText(CallText):
    """The text of calls, without listings where no instructions are shown."""

    def _insn_block(self, name: str, insns: Insns, indent: str, comma: str) -> list[str] | None:
        return super()._insn_block(name, insns, indent, comma) if self.options.insns else None


class PageText(TextRenderer):
    """Calls as the text renderer tells them, in strings."""

    def __init__(self, model: Model, marks: Marks) -> None:
        self.lines = Lines()
        options = Options(width=96, walks=False, once=False)
        super().__init__(
            self.lines, model, options, marks.paint, PageCallText(model, options, marks.paint)
        )
        self.marks = marks

    def painted(self, text: str, limit: int) -> str:
        """With marks, and cut where it is too long."""
        return cut(self.marks.marked(text), limit)



def cut(text: str, limit: int) -> str:
    """A marked text, with less of it where it is too long."""
    return text if len(text) <= limit else f"{text[:limit]}{END} ..."


def unmarked(text: str) -> str:
    """Without marks."""
    return _MARK.sub("", text)
