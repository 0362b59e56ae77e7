"""Words and numbers as explanations put them."""

from __future__ import annotations

from collections.abc import Sequence


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def decimal(text: str | None) -> int | None:
    """A number in a fact; a trace file may hold anything."""
    return int(text) if text is not None and len(text) < 20 and text.isdecimal() else None


def and_words(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} and {words[-1]}"


def signed(number: int) -> int:
    """An unsigned 32-bit number as the int that was meant."""
    return number - (1 << 32) if number >= 1 << 31 else number


def or_numbers(numbers: Sequence[int]) -> str:
    """``4 or 8``."""
    return " or ".join(str(number) for number in numbers)


def article(name: str) -> str:
    """A name with ``a`` or ``an`` before it."""
    return f"{'an' if name[:1] in 'aeiox' else 'a'} {name}"


def number_set(text: str) -> set[int]:
    """The numbers of ``0-3,8``, as the kernel lists CPUs and nodes; a trace may hold anything."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        start = decimal(first)
        end = decimal(last) if dash else start
        if start is not None and end is not None:
            found.update(range(start, min(end, start + 65535) + 1))
    return found
