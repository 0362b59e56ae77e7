"""Numbers and times in words."""

from __future__ import annotations


def times(number: int, one: str, many: str = "") -> str:
    """``program`` or ``programs``; for what does not take an s the same."""
    if number == 1 or one == "left behind":
        return one
    if one.startswith("program "):
        return one.replace("program", "programs", 1)
    return many or f"{one}s"


def count(number: int, one: str, many: str = "") -> str:
    """``1 program``, ``1,234 programs``."""
    return f"{number:,} {times(number, one, many)}"


def span(nanoseconds: int | None) -> str:
    """``12 µs``, ``3.4 ms``, ``1.25 s``; empty for None."""
    if nanoseconds is None:
        return ""
    for unit, factor in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if nanoseconds >= factor:
            value = nanoseconds / factor
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{nanoseconds} ns"


def grouped(digits: str) -> str:
    """``12,345`` of ``12345``; what is no number stays as it is."""
    return f"{int(digits):,}" if digits.isdecimal() else digits
