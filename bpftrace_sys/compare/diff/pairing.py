"""Partners: which program, map, BTF or process of one trace is which of the other's."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from bpftrace_sys.common.edits import edits
from bpftrace_sys.compare.canonical.entries import Entry
from bpftrace_sys.compare.canonical.processes import Process
from bpftrace_sys.compare.diff.side import Loaded, Side

COMPARED: Final = 64
"""Objects without a partner that are compared with each other for their likeness."""
LIKENED: Final = 1 << 20
"""Lines, of all that are compared with each other; what is left then has no partner."""
ALIKE: Final = 0.5
"""Part of the instructions that two programs share, if they are to be partners."""

Pair: TypeAlias = tuple[Loaded | None, Loaded | None]
"""What is the same thing in the first trace and in the second; None where that has none."""


def pair_things(a: Side, b: Side) -> list[Pair]:
    """Partners among programs, maps and BTF: those of the first trace in order, then the others."""
    for side in (a, b):
        for thing in side.loaded:
            thing.base = _base(thing, side)
    partner: dict[int, Loaded] = {}
    """By position among a's things."""
    taken: set[int] = set()
    left: dict[int, Loaded] = dict(enumerate(a.loaded))
    right: dict[int, Loaded] = dict(enumerate(b.loaded))

    def pair(key: Callable[[Loaded], object]) -> None:
        waiting: dict[object, list[int]] = {}
        for at, thing in right.items():
            if (made := key(thing)) is not None:
                waiting.setdefault(made, []).append(at)
        for queue in waiting.values():
            queue.reverse()
        for at, thing in list(left.items()):
            made = key(thing)
            ready = waiting.get(made) if made is not None else None
            if ready:
                to = ready.pop()
                partner[at] = right.pop(to)
                taken.add(to)
                del left[at]

    pair(lambda thing: (thing.kind, thing.base, thing.digest, thing.entry.failed))
    pair(lambda thing: (thing.kind, thing.base) if _is_named(thing) else None)
    pair(lambda thing: (thing.kind, thing.digest))
    _pair_alike(left, right, partner, taken)
    pairs: list[Pair] = [(thing, partner.get(at)) for at, thing in enumerate(a.loaded)]
    pairs += ((None, thing) for at, thing in enumerate(b.loaded) if at not in taken)
    return pairs


def _pair_alike(
    left: dict[int, Loaded],
    right: dict[int, Loaded],
    partner: dict[int, Loaded],
    taken: set[int],
) -> None:
    """Pairs what is left by likeness, the most alike first."""
    if not left or not right or max(len(left), len(right)) > COMPARED:
        return
    mine = {at: Traits(thing) for at, thing in left.items()}
    others = {at: Traits(thing) for at, thing in right.items()}
    scores: list[tuple[float, int, int]] = []
    budget = LIKENED
    for x, one in mine.items():
        for y, other in others.items():
            if left[x].kind == right[y].kind and budget > 0:
                budget -= min(len(one.lines), len(other.lines))
                scores.append((one.likeness(other), -x, -y))
    scores.sort(reverse=True)
    for score, x, y in scores:
        if score >= ALIKE and -x in left and -y in right:
            del left[-x]
            partner[-x] = right.pop(-y)
            taken.add(-y)


def _is_named(thing: Loaded) -> bool:
    return "(" not in thing.base and thing.base != thing.kind


def _base(thing: Loaded, side: Side) -> str:
    """The name of what was loaded, or would have been."""
    entry = thing.entry
    if entry.made is not None:
        return side.objects[entry.made].base
    fields = dict(entry.fields)
    name = fields.get("prog_name") or fields.get("map_name") or ""
    return f"{thing.kind} {name.strip(chr(34))}".rstrip() if name else f"{thing.kind} (refused)"


class Traits:
    """What of a thing is compared with others, counted once."""

    def __init__(self, thing: Loaded) -> None:
        fields = dict(thing.entry.fields)
        self.prog_type: str | None = None
        if thing.entry.insns is not None:
            self.prog_type = fields.get("prog_type", "")
            self.lines = Counter(line.text.split("\0")[0] for line in thing.entry.insns)
        else:
            named = (f"{name} {text}" for name, text in thing.entry.fields)
            self.lines = Counter([*named, *_lines(thing.entry)])
        self.total = self.lines.total()

    def likeness(self, other: Traits) -> float:
        """How much two things have in common, from 0 to 1."""
        if self.prog_type != other.prog_type:
            return 0.0
        small, large = sorted((self.lines, other.lines), key=len)
        common = sum(min(count, large[line]) for line, count in small.items() if line in large)
        return 2 * common / max(self.total + other.total, 1)


def _lines(entry: Entry) -> Iterable[str]:
    return (line for block in entry.blocks for line in block.lines)


def _comm(process: Process) -> object:
    return process.comm


def _path(process: Process) -> object:
    return process.path


def pair_processes(a: list[Process], b: list[Process]) -> dict[tuple[int, ...], tuple[int, ...]]:
    """Partners among processes: what they are called, in the order of the tree."""
    first = sorted(a, key=lambda process: process.path)
    second = sorted(b, key=lambda process: process.path)
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    left: list[Process] = []
    right: list[Process] = []
    for edit in edits([process.comm for process in first], [process.comm for process in second]):
        if edit.a is not None and edit.b is not None:
            found[first[edit.a].path] = second[edit.b].path
        elif edit.a is not None:
            left.append(first[edit.a])
        elif edit.b is not None:
            right.append(second[edit.b])
    # The same tool in another order, or by another name.
    for key in (_comm, _path):
        waiting: dict[object, deque[Process]] = {}
        for process in right:
            waiting.setdefault(key(process), deque()).append(process)
        unpaired = []
        for process in left:
            ready = waiting.get(key(process))
            if ready:
                found[process.path] = ready.popleft().path
            else:
                unpaired.append(process)
        taken = set(found.values())
        left, right = unpaired, [process for process in right if process.path not in taken]
    if len(left) == len(right) == 1:
        found[left[0].path] = right[0].path
    return found
