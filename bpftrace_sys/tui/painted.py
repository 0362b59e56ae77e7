"""Text with marks (render/html/painting.py) as segments of a terminal's line, and wrapped.

Nothing here reads markup: a segment has a text and a style.  What comes from a tracee has passed
``printable`` before; what is not printable all the same becomes visible here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

from bpftrace_sys.common.escape import printable
from bpftrace_sys.render.html.painting import END, FIRST
from bpftrace_sys.render.style import STYLES, theme

_PART: Final = re.compile("([\ue000-\ue0ff])")
DEFAULTS: Final = {
    "comment": "grey62", "opcode": "grey50", "pid": "grey62", "object": "#c792ea",
    "helper": "#c792ea",
}  # fmt: skip
"""Where the text's colours would not be seen, or told apart, on a background of our own."""
LONGEST: Final = 4_096
"""Lines that one long line may be wrapped into."""


class Palette:
    """Styles by the marks of a text."""

    def __init__(self, names: Sequence[str]) -> None:
        """``names``: the styles' names by number, which may still grow (Marks.names)."""
        chosen = {**STYLES, **DEFAULTS, **theme()[0]}
        self._names = names
        self._styles = {name: Style.parse(words) for name, words in chosen.items() if words}
        self.none = Style.null()

    def style(self, name: str) -> Style:
        """The style of that name."""
        return self._styles.get(name, self.none)

    def segments(self, text: str) -> list[Segment]:
        """A line as segments."""
        found = []
        style = self.none
        for part in _PART.split(text):
            if not part:
                continue
            if len(part) == 1 and FIRST <= ord(part) <= ord(END):
                number = ord(part) - FIRST
                known = part != END and 0 < number <= len(self._names)
                style = self.style(self._names[number - 1]) if known else self.none
            else:
                shown = part if part.isprintable() else printable(part)
                found.append(Segment(shown, style))
        return found


def wrapped(text: str, width: int, indent: int = 0) -> Iterator[str]:
    """A line as lines of at most ``width`` cells, with marks again where they go on."""
    width = max(width, 8)
    if len(text) <= width and text.isascii():
        yield text
        return
    mark, line, used, count = "", "", 0, 0
    for part in _PART.split(text):
        if len(part) == 1 and FIRST <= ord(part) <= ord(END):
            mark = "" if part == END else part
            line += part
            continue
        while part:
            room = width - used
            if cell_len(part) <= room:
                line += part
                used += cell_len(part)
                break
            head = _fitting(part, room)
            space = head.rfind(" ") + 1
            if space > len(head) // 2:
                head = head[:space]
            elif not head and used <= indent:
                head = part[:1]  # wider than the line
            yield line + head + (END if mark else "")
            count += 1
            if count >= LONGEST:
                return
            part = part[len(head) :]
            line, used = " " * min(indent, width // 2) + mark, min(indent, width // 2)
    yield line


def _fitting(text: str, room: int) -> str:
    """As much of the beginning of a text as fits into so many cells."""
    head = text[: max(room, 0)]
    while cell_len(head) > room:
        head = head[:-1]
    return head
