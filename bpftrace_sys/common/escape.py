"""Text of the tracee's made harmless."""

from __future__ import annotations


def printable(text: str) -> str:
    """Text of the tracee's with nothing in it that a terminal obeys."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
