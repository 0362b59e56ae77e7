"""The timeline's axis: time as it passed, but for gaps in which nothing happened."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Final

GAP: Final = 0.04
"""A gap is compressed that is longer than this part of all that is not gap."""
SHOWN: Final = 0.02
"""What a compressed gap takes of it."""
GAPS: Final = 48
"""So many are compressed at most: the longest."""


def axis(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int, float]]:
    """Segments (begin, end, width): the last ones of the widths' sum are one picture.

    ``spans`` are what happened, begin and end in nanoseconds; a segment in which something
    happened is as wide as it is long.  Where there is nothing, the list is empty.
    """
    ordered = sorted(spans)
    if not ordered:
        return []
    busy: list[list[int]] = []
    for begin, end in ordered:
        if busy and begin <= busy[-1][1]:
            busy[-1][1] = max(busy[-1][1], end)
        else:
            busy.append([begin, max(begin, end)])
    total = sum(end - begin for begin, end in busy) or 1
    gaps = sorted(
        (after[0] - before[1] for before, after in pairwise(busy)), reverse=True
    )
    # Gaps that stay are part of what the others are measured by.
    for gap in reversed(gaps):
        if gap > GAP * total:
            break
        total += gap
    least = max(GAP * total, gaps[GAPS] if len(gaps) > GAPS else 0)
    segments: list[tuple[int, int, float]] = []
    begin = busy[0][0]
    for before, after in pairwise(busy):
        gap = after[0] - before[1]
        if gap > least:
            segments.append((begin, before[1], float(before[1] - begin)))
            segments.append((before[1], after[0], SHOWN * total))
            begin = after[0]
    segments.append((begin, busy[-1][1], float(max(busy[-1][1] - begin, 1))))
    return segments
