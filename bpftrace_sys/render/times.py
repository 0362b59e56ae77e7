"""When a call was made and how long it took: -t, -tt, -ttt, -r and -T, as strace prints them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

Stamp = Callable[[int], str]
"""Nanoseconds since the epoch -> the text before a call, with a space after it."""

DIGITS: Final = {"s": 0, "ms": 3, "us": 6, "ns": 9}
"""Of a second, by the precision's unit."""


def seconds(nanoseconds: int, unit: str, width: int = 0) -> str:
    """Seconds to a precision, cut and not rounded; ``width``: of the whole seconds."""
    whole, rest = divmod(nanoseconds, 1_000_000_000)
    digits = DIGITS[unit]
    return f"{whole:{width}d}" + (f".{rest:09d}"[: digits + 1] if digits else "")


def _clock(unit: str) -> Stamp:
    def clock(at: int) -> str:
        text = time.strftime("%H:%M:%S", time.localtime(at // 1_000_000_000))
        return f"{text}{seconds(at % 1_000_000_000, unit)[1:]} "

    return clock


def _relative(unit: str) -> Stamp:
    last: list[int] = []

    def relative(at: int) -> str:
        since = at - last[0] if last else 0
        last[:] = [at]
        # Calls come in the order of their exits: one may have begun earlier.
        sign = "-" if since < 0 else " "
        return f"{sign}{seconds(abs(since), unit, 5)} "

    return relative


def _both(clock: Stamp, relative: Stamp) -> Stamp:
    return lambda at: f"{clock(at)}(+{relative(at)[:-1]}) "


def stamps(mode: str, since: str = "") -> Stamp | None:
    """The stamp of a mode, FORMAT.UNIT with the formats ``time`` and ``unix`` and the units of
    DIGITS; empty for none. ``since``: the unit of the time since the call before, which stands
    behind it, in parentheses; empty for none. None where there is neither."""
    form, _, unit = mode.partition(".")
    clock: Stamp | None = None
    if form == "time":
        clock = _clock(unit)
    elif form == "unix":
        clock = lambda at: f"{seconds(at, unit)} "  # noqa: E731
    if not since:
        return clock
    relative = _relative(since)
    if clock is None:
        return relative
    return _both(clock, relative)


def spent(duration: int | None, unit: str) -> str:
    """`` <0.000012>``, for a duration in nanoseconds; nothing if it is not known or wanted."""
    return f" <{seconds(duration, unit)}>" if unit and duration is not None else ""
