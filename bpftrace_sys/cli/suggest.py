"""What somebody may have meant who typed a word that we do not know."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

LONGEST: Final = 64
"""Letters of a typed word that are looked at: longer ones are no slip, and would take time."""


def nearest(typed: str, known: Iterable[str]) -> str | None:
    """The known word that is most like ``typed``; None where none is much like it."""
    if len(typed) < 2 or len(typed) > LONGEST:
        return None
    from difflib import get_close_matches

    by_word = {word.lower().lstrip("-"): word for word in known if len(word.lstrip("-")) > 1}
    found = get_close_matches(typed.lower().lstrip("-"), by_word, 1, 0.7)
    return by_word[found[0]] if found else None


def meant(typed: str, known: Iterable[str], how: str = "{}") -> str:
    """``; did you mean WORD?``, to follow a message; empty where nothing is near.

    ``how``: the word as one would type it, with ``{}`` in its place.
    """
    word = nearest(typed, known)
    return "" if word is None else f"; did you mean {how.format(word)}?"
