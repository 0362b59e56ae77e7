"""Which instruction became which: what was loaded, beside what the kernel made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bpftrace_sys.story.kernel_view import NativeFunction, NativeLine, Seen, translated
from decoders.formats.insn_text import Line
from decoders.records import NamedTuple

UNCHANGED: Final = "unchanged"
CHANGED: Final = "changed"
GROWN: Final = "grown"
REMOVED: Final = "removed"
ADDED: Final = "added"
FATES: Final = (UNCHANGED, CHANGED, GROWN, REMOVED, ADDED)


class Fate(NamedTuple):
    """What became of one instruction."""

    what: str
    """UNCHANGED; CHANGED into one other; GROWN into several; REMOVED as dead; ADDED: the kernel's
    own, before the first that was loaded."""
    loaded: Line | None
    translated: tuple[Line, ...]
    native: tuple[NativeLine, ...] = ()


def fates(seen: Seen, functions: Sequence[NativeFunction] = ()) -> list[Fate]:
    """Of each instruction in order; empty where no mapping was learned.

    ``functions``: the native code, which then stands beside what it was made of.
    """
    mapping, loaded = seen.view.mapping, seen.loaded
    if mapping is None or mapping.problem or loaded is None:
        return []
    became_of = translated(seen.view, seen.known)
    after = became_of.lines
    end = after[-1].pc if became_of.unlisted and after else None
    starts = sorted(set(mapping.images.values()))
    pieces = _between(after, starts)
    native = _native(seen, functions)
    found = []
    if starts and starts[0] and after and after[0].pc < starts[0]:
        own = tuple(row for row in after if row.pc < starts[0])
        found.append(Fate(ADDED, None, own))
    for row in loaded.lines:
        image = mapping.images.get(row.pc)
        if image is not None and end is not None and image > end:
            break  # what became of it is not listed
        if image is None:
            found.append(Fate(REMOVED, row, ()))
            continue
        became = pieces.get(image, ())
        found.append(Fate(_fate(row, became), row, became, native.get(row.pc, ())))
    return found


def counts(found: Sequence[Fate]) -> dict[str, int]:
    """How many of each fate, in the order of FATES, without those that none had."""
    number = {what: sum(1 for fate in found if fate.what == what) for what in FATES}
    return {what: count for what, count in number.items() if count}


def _between(rows: Sequence[Line], starts: Sequence[int]) -> dict[int, tuple[Line, ...]]:
    """The lines from each start to the next."""
    pieces: dict[int, list[Line]] = {start: [] for start in starts}
    current: list[Line] | None = None
    for row in rows:
        current = pieces.get(row.pc, current)
        if current is not None:
            current.append(row)
    return {start: tuple(piece) for start, piece in pieces.items()}


def _fate(before: Line, after: Sequence[Line]) -> str:
    if len(after) != 1:
        return GROWN if after else REMOVED
    return UNCHANGED if _same(before.text, after[0].text) else CHANGED


def _same(before: str, after: str) -> bool:
    """Whether an instruction is the same but for how it is written down.

    A jump's distance grows with what lies between; a helper's number becomes a distance; a map's
    fd becomes its id.
    """
    if before == after:
        return True
    for mark in ("goto pc", "gotol pc", "call pc"):
        head, found, _ = before.partition(mark)
        if found:
            return after.partition(mark)[:2] == (head, found)
    if before.startswith("(85) call "):
        return before.partition("#")[0] == after.partition("#")[0]
    if before.startswith("(18) ") and ("= map[" in after or "= subprog[" in after):
        return before.partition(" = ")[0] == after.partition(" = ")[0]
    return False


def _native(
    seen: Seen, functions: Sequence[NativeFunction]
) -> dict[int, tuple[NativeLine, ...]]:
    """Lines of native code by the slot, as it was loaded, that they were made of."""
    mapping = seen.view.mapping
    assert mapping is not None
    at = {place: pc for pc, place in sorted(mapping.native.items(), reverse=True)}
    found: dict[int, list[NativeLine]] = {}
    for index, function in enumerate(functions):
        current: int | None = None
        for line in function.lines:
            current = at.get((index, line.offset), current)
            if current is not None:
                found.setdefault(current, []).append(line)
    return {pc: tuple(lines) for pc, lines in found.items()}
