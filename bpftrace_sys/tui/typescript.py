"""What a program writes on its terminal, as lines: a terminal that knows lines, and obeys nothing.

Carriage return, backspace and tabs do what they do; escape sequences go.  A program that draws on
the whole screen is seen as the letters that it draws with.
"""

from __future__ import annotations

import codecs
from typing import Final

LINES: Final = 5_000
"""Lines that are kept, the last ones."""
LENGTH: Final = 4_096
"""Characters of a line."""
TAB: Final = 8


class Typescript:
    """Lines of printable text."""

    def __init__(self) -> None:
        self.lines: list[str] = [""]
        self.columns = 80
        """Where a line goes on in the next one."""
        self.dropped = 0
        """Lines that were there before these."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line: list[str] = []
        self._column = 0
        self._escape = ""
        """The kind of escape sequence that we are in: ``\\x1b``, ``[``, ``]``; empty: in none."""

    def feed(self, data: bytes) -> None:
        """What was written."""
        for char in self._decoder.decode(data):
            if self._escape:
                self._skip(char)
            else:
                self._put(char)
        self.lines[-1] = "".join(self._line)
        if len(self.lines) > LINES:
            self.dropped += len(self.lines) - LINES
            del self.lines[:-LINES]

    def _skip(self, char: str) -> None:
        kind = self._escape
        if kind == "\x1b":
            # ECMA-48: [ begins a control sequence, ] P X ^ _ a string, others are one character.
            self._escape = {"[": "[", "]": "]", "P": "]", "X": "]", "^": "]", "_": "]"}.get(
                char, "(" if " " <= char <= "/" else ""
            )
        elif kind == "[":
            if "@" <= char <= "~":
                if char == "K":
                    del self._line[self._column :]
                self._escape = ""
        elif kind == "(":
            self._escape = "(" if " " <= char <= "/" else ""
        elif char == "\x07":
            self._escape = ""
        elif char == "\x1b":
            self._escape = "\x1b"  # ST, which ends the string, or another sequence

    def _put(self, char: str) -> None:
        if char == "\x1b":
            self._escape = char
        elif char == "\n":
            self._next()
        elif char == "\r":
            self._column = 0
        elif char == "\b":
            self._column = max(self._column - 1, 0)
        elif char == "\t":
            self._column = min(self._column + TAB - self._column % TAB, LENGTH)
        elif char.isprintable():
            if self._column >= min(self.columns, LENGTH):
                self._next()
            if len(self._line) < self._column:
                self._line += " " * (self._column - len(self._line))
            self._line[self._column : self._column + 1] = [char]
            self._column += 1

    def _next(self) -> None:
        self.lines[-1] = "".join(self._line)
        self.lines.append("")
        self._line, self._column = [], 0
