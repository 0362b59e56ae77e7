"""When a call was made: -t, -tt, -ttt and -r, as strace prints them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

Stamp = Callable[[int], str]
"""Nanoseconds since the epoch -> the text before a call, with a space after it."""


def _clock(nanoseconds: int, digits: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    text = time.strftime("%H:%M:%S", time.localtime(seconds))
    return f"{text}.{rest // 1000:06d} " if digits else f"{text} "


def stamps(mode: str) -> Stamp | None:
    """The stamp of a mode: ``t``, ``tt``, ``ttt`` or ``r``; None for no stamp."""
    if mode == "t":
        return lambda at: _clock(at, 0)
    if mode == "tt":
        return lambda at: _clock(at, 6)
    if mode == "ttt":
        return lambda at: f"{at // 1_000_000_000}.{at // 1000 % 1_000_000:06d} "
    if mode == "r":
        last: list[int] = []

        def relative(at: int) -> str:
            since = at - last[0] if last else 0
            last[:] = [at]
            # Calls come in the order of their exits: one may have begun earlier.
            sign = "-" if since < 0 else " "
            since = abs(since)
            return f"{sign}{since // 1_000_000_000:4d}.{since // 1000 % 1_000_000:06d} "

        return relative
    return None


MODES: Final = ("", "t", "tt", "ttt")
