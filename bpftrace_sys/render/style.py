"""Colours: when there are any, names of what is painted, and the escape sequences of them.

Without colours painting returns the text itself.  rich is imported only where there
are colours.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any, Final, TypeAlias

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
    "opcode": "bright_black",
    "register": "cyan",
    "constant": "green",
    "target": "bold blue",
    "helper": "magenta",
    "source": "yellow",
    "function": "bold yellow",
    "attached": "bold green",
    "detached": "bold yellow",
    "pid": "bright_black",
    "note": "italic",
    "new": "green",
    "gone": "red",
}

THEME: Final = "BPFSTRACE_THEME"
"""Environment: styles of one's own, as ``register=bold red:comment=dim``; in rich's words."""

configured: Final[dict[str, tuple[str, str]]] = {}
"""What the configuration file says of styles: by name, and where it says so. A process has but
one."""

Painter: TypeAlias = "Callable[[str, str], str]"


def plain_painter(style: str, text: str) -> str:
    """No colours."""
    return text


def visible(text: str) -> int:
    """How many columns a painted text takes (our own text is ASCII but for names)."""
    if "\x1b" not in text:
        return len(text)
    import re

    return len(re.sub(r"\x1b\[[0-9;]*m", "", text))


def wants_colour(stream: IO[Any], when: str = "auto") -> bool:
    """Whether text on a stream is coloured; ``when`` is what --color said.

    ``auto``: what the first of these says: NO_COLOR (https://no-color.org); CLICOLOR_FORCE
    (https://bixense.com/clicolors) and FORCE_COLOR (https://force-color.org), which mean what
    the shell opened and no file of -o; a terminal whose TERM is not dumb.
    """
    if when != "auto":
        return when == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if stream in (sys.stdout, sys.stderr) and any(
        os.environ.get(name, "") not in ("", "0") for name in ("CLICOLOR_FORCE", "FORCE_COLOR")
    ):
        return True
    if os.environ.get("TERM") == "dumb":
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


def theme() -> tuple[dict[str, str], list[str]]:
    """The styles that the file and the environment set, and what is wrong: that counts for nothing.

    A link would be an address on the terminal, which is no colour.
    """
    from rich.errors import StyleSyntaxError
    from rich.style import Style

    found: dict[str, str] = {}
    wrong = []
    given = [(name, words, place) for name, (words, place) in configured.items()]
    for word in filter(None, os.environ.get(THEME, "").split(":")):
        name, _, words = word.partition("=")
        given.append((name, words, THEME))
    for name, words, place in given:
        if name not in STYLES:
            wrong.append(f"{place}: nothing is called {name!r}; there are {', '.join(STYLES)}")
            continue
        try:
            if Style.parse(words).link is not None:
                raise StyleSyntaxError
        except StyleSyntaxError:
            said = f"{name}={words!r} is no style, as 'bold red' or 'not bold #ff8700'"
            wrong.append(f"{place}: {said}")
        else:
            found[name] = words
    return found, wrong


def painter(stream: IO[Any], when: str = "auto") -> Painter:
    """How to paint on a stream."""
    if not wants_colour(stream, when):
        return plain_painter
    from rich.color import ColorSystem
    from rich.style import Style

    words, wrong = theme()
    if wrong:
        from bpftrace_sys.render.output import complain

        for text in wrong:
            complain(text)
    chosen = {**STYLES, **words}
    styles = {name: Style.parse(style) for name, style in chosen.items() if style}
    memo: dict[tuple[str, str], str] = {}

    def paint(style: str, text: str) -> str:
        found = styles.get(style)
        if found is None or not text:
            return text
        key = (style, text)
        painted = memo.get(key)
        if painted is None:
            # Each line by itself: less -R forgets colours at a line's end.
            painted = "\n".join(
                found.render(line, color_system=ColorSystem.EIGHT_BIT) if line else line
                for line in text.split("\n")
            )
            if len(memo) < 10_000:
                memo[key] = painted
        return painted

    return paint
