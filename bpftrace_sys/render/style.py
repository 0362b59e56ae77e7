"""Colours: names of what is painted, and the escape sequences that rich makes of them.

Without colours painting returns the text itself.  rich is imported only for a
terminal that shows colours.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from typing import IO, Any, Final

STYLES: Final = {
    "syscall": "bold",
    "name": "cyan",
    "field": "",
    "number": "",
    "string": "green",
    "comment": "bright_black",
    "object": "magenta",
    "error": "bold red",
    "why": "bold red",
    "complaint": "red",
    "insn": "",
    "source": "yellow",
    "function": "bold yellow",
    "attached": "bold green",
    "detached": "bold yellow",
    "pid": "bright_black",
    "note": "italic",
    "new": "green",
    "gone": "red",
}

Painter = Callable[[str, str], str]


@functools.cache
def _escape() -> re.Pattern[str]:
    import re

    return re.compile(r"\x1b\[[0-9;]*m")


def plain_painter(style: str, text: str) -> str:
    """No colours."""
    return text


def visible(text: str) -> int:
    """How many columns a painted text takes (our own text is ASCII but for names)."""
    return len(_escape().sub("", text)) if "\x1b" in text else len(text)


def wants_colour(stream: IO[Any]) -> bool:
    """A terminal, no NO_COLOR (https://no-color.org) and not TERM=dumb."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except ValueError:
        return False


def columns_of(stream: IO[Any]) -> int:
    """A terminal's columns: COLUMNS, else what it says, else 80; 0 where there is no terminal."""
    try:
        if not stream.isatty():
            return 0
        word = os.environ.get("COLUMNS", "")
        if word.isdecimal() and int(word[:9]) > 0:
            return int(word[:9])
        # A pseudo-terminal that nobody has given a size says 0.
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):
        return 0


def painter(stream: IO[Any]) -> Painter:
    """How to paint on a stream."""
    if not wants_colour(stream):
        return plain_painter
    from rich.color import ColorSystem
    from rich.style import Style

    styles = {name: Style.parse(words) for name, words in STYLES.items() if words}
    memo: dict[tuple[str, str], str] = {}

    def paint(style: str, text: str) -> str:
        found = styles.get(style)
        if found is None or not text:
            return text
        key = (style, text)
        painted = memo.get(key)
        if painted is None:
            painted = found.render(text, color_system=ColorSystem.EIGHT_BIT)
            if len(memo) < 10_000:
                memo[key] = painted
        return painted

    return paint
