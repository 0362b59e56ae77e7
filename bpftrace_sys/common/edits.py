"""Edit scripts between two sequences, with a bound on the work they take."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterator, Sequence
from typing import Final

from decoders.records import NamedTuple

EDITS: Final = 1500
"""Edits up to which the shortest script is found; time and memory grow with its square."""
LONG: Final = 50_000
"""Items beyond which two sequences that differ much are not compared any closer."""


class Edit(NamedTuple):
    """``a`` alone: taken away; ``b`` alone: put in; both: the same.  Indexes."""

    a: int | None
    b: int | None


def edits(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[Edit]:
    """A script that makes ``b`` of ``a``, in order; the shortest, where that is small.

    Myers, An O(ND) Difference Algorithm (1986); what takes more than EDITS edits
    is left to difflib, which guesses well.
    """
    start = 0
    limit = min(len(a), len(b))
    while start < limit and a[start] == b[start]:
        start += 1
    end = 0
    while end < limit - start and a[-1 - end] == b[-1 - end]:
        end += 1
    script = [Edit(at, at) for at in range(start)]
    inner_a = a[start : len(a) - end]
    inner_b = b[start : len(b) - end]
    script += (
        Edit(
            None if edit.a is None else edit.a + start,
            None if edit.b is None else edit.b + start,
        )
        for edit in _inner(inner_a, inner_b)
    )
    script += (Edit(len(a) - at, len(b) - at) for at in range(end, 0, -1))
    return script


def _inner(a: Sequence[Hashable], b: Sequence[Hashable]) -> Iterator[Edit]:
    if not a or not b:
        yield from (Edit(at, None) for at in range(len(a)))
        yield from (Edit(None, at) for at in range(len(b)))
        return
    found = _myers(a, b)
    if found is not None:
        yield from found
        return
    if max(len(a), len(b)) > LONG:
        yield from (Edit(at, None) for at in range(len(a)))
        yield from (Edit(None, at) for at in range(len(b)))
        return
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=True)
    for what, a1, a2, b1, b2 in matcher.get_opcodes():
        if what == "equal":
            yield from (Edit(x, y) for x, y in zip(range(a1, a2), range(b1, b2), strict=True))
        else:
            yield from (Edit(at, None) for at in range(a1, a2))
            yield from (Edit(None, at) for at in range(b1, b2))


def _myers(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[Edit] | None:
    """The shortest script, or None if it is longer than EDITS."""
    n, m = len(a), len(b)
    furthest = {1: 0}
    history: list[dict[int, int]] = []
    for depth in range(min(n + m, EDITS) + 1):
        history.append(furthest)
        row: dict[int, int] = {}
        for k in range(-depth, depth + 1, 2):
            down = furthest.get(k + 1, -1)
            right = furthest.get(k - 1, -1) + 1
            x = down if k == -depth or (k != depth and right <= down) else right
            y = x - k
            while x < n and y < m and a[x] == b[y]:
                x += 1
                y += 1
            row[k] = x
            if x >= n and y >= m:
                history.append(row)
                return _backwards(history, n, m)
        furthest = row
    return None


def _backwards(history: list[dict[int, int]], n: int, m: int) -> list[Edit]:
    script: list[Edit] = []
    x, y = n, m
    for depth in range(len(history) - 2, -1, -1):
        furthest = history[depth]
        k = x - y
        if depth == 0:
            before_x, before_y = 0, 0
        else:
            down = furthest.get(k + 1, -1)
            right = furthest.get(k - 1, -1) + 1
            went_down = k == -depth or (k != depth and right <= down)
            before_k = k + 1 if went_down else k - 1
            before_x = furthest[before_k]
            before_y = before_x - before_k
        while x > before_x and y > before_y:
            x -= 1
            y -= 1
            script.append(Edit(x, y))
        if depth:
            if x == before_x:
                y -= 1
                script.append(Edit(None, y))
            else:
                x -= 1
                script.append(Edit(x, None))
    script.reverse()
    return script


def hunks(script: Sequence[Edit], context: int) -> Iterator[Sequence[Edit]]:
    """The parts of a script where something changes, with what is around them."""
    start: int | None = None
    last = 0
    for at, edit in enumerate(script):
        if edit.a is not None and edit.b is not None:
            continue
        if start is not None and at - last > 2 * context:
            yield script[start : last + 1 + context]
            start = None
        if start is None:
            start = max(0, at - context)
        last = at
    if start is not None:
        yield script[start : last + 1 + context]
