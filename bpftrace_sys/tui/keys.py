"""The keys in words: made of the bindings, so that none is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from textual.binding import Binding
from textual.dom import DOMNode

WORDS: Final = {
    "question_mark": "?", "slash": "/", "pagedown": "PgDn", "pageup": "PgUp", "escape": "Esc",
    "shift+tab": "S-Tab", "tab": "Tab", "enter": "Enter", "backspace": "Backspace",
    "space": "Space", "down": "Down", "up": "Up", "home": "Home", "end": "End",
}  # fmt: skip
"""Keys as they are written on keyboards; others as textual calls them."""
ABOUT: Final = {
    "keys": "these keys",
    "search": "search in the pane",
    "filter": "filter: words, cmd: pid: tid: comm: obj: ret: seq: is:",
    "making": "to the call that made the object",
    "object": "to the object in its list",
    "uses": "all calls that have to do with the object",
    "back": "back to before the last jump",
    "type": "type to the program; Ctrl-] ends that",
    "export": "write the calls of the pane as a trace of their own",
    "zoom": "the pane alone, or all of them",
}
"""What takes more words than the line at the bottom has."""


def key_rows(*classes: type[DOMNode]) -> Iterator[tuple[str, str]]:
    """Keys and what they do."""
    for of in classes:
        for binding in of.BINDINGS:
            assert isinstance(binding, Binding)
            yield spelled(binding.key), ABOUT.get(binding.description, binding.description)


def spelled(keys: str) -> str:
    """``PgDn Ctrl-F Space``."""
    return " ".join(
        WORDS.get(key) or (f"Ctrl-{key[5:].upper()}" if key.startswith("ctrl+") else key)
        for key in keys.split(",")
    )


def key_lines(paint: Callable[[str, str], str], classes: tuple[type[DOMNode], ...]) -> list[str]:
    """Lines for the screen, painted."""
    return [f"{paint('name', f'{keys:<17}')} {about}" for keys, about in key_rows(*classes)]
