"""The bpf(2) commands of which loops consist, and what may differ between rounds."""

from __future__ import annotations

import errno

from decoders import arch as arches
from decoders.raw import NOTHING, FdFact, RawCall
from decoders.records import NamedTuple
from decoders.uapi import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Final, TypeAlias, TypeVar

    Thing = TypeVar("Thing")

    Round: TypeAlias = tuple[RawCall, int, int, int | None, tuple[bytes, ...]]
    """A call that is like another one but for its number, its time, its duration and the data of
    all chunks but the first: the other one, and these."""


COMMANDS: Final = frozenset(
    {
        const.BPF_MAP_LOOKUP_ELEM,
        const.BPF_MAP_UPDATE_ELEM,
        const.BPF_MAP_DELETE_ELEM,
        const.BPF_MAP_GET_NEXT_KEY,
        const.BPF_MAP_LOOKUP_AND_DELETE_ELEM,
    }
)
"""Commands of which loops consist, and which change nothing that the model knows."""
TRIED_AGAIN: Final = frozenset(
    {const.BPF_MAP_CREATE, const.BPF_PROG_LOAD, const.BPF_BTF_LOAD}
)
"""Commands that loaders try again when they were refused, or to see whether they are."""
NUMBERS: Final = frozenset(
    (arch, number) for arch in arches.NAMES if (number := arches.number(arch, "bpf")) is not None
)
ANSWERS: Final = frozenset({-errno.ENOENT, -errno.EEXIST, -errno.E2BIG})
"""Failures that loops are made of: the key is not there, or is, or there is no room for it."""
TOGETHER: Final = 64
"""Rounds that are told at once, at most."""
GROWING: Final = frozenset({"memlock"})
"""What fdinfo says of a map that changes with each element; nothing is decoded by it."""


def alike(one: FdFact, other: FdFact) -> bool:
    """Whether two looks at a map differ in nothing that decoding asks for."""
    if one is other or one.info == other.info:
        return True
    names = one.info.keys() | other.info.keys()
    return all(one.info.get(name) == other.info.get(name) for name in names - GROWING)


def may_repeat(raw: RawCall) -> bool:
    """Whether a call may be one of a loop: one of these commands, and nothing odd about it."""
    return (
        bool(raw.args)
        and raw.args[0] in COMMANDS
        and (raw.arch, raw.nr) in NUMBERS
        and (raw.ret in ANSWERS if raw.failed else raw.ret == 0)
        and raw.watched_exit
        and 2 <= len(raw.chunks) <= 3
        and len(raw.fds) == 1
        and raw.extra == NOTHING
        and raw.stack is None
    )


def round_of(raw: RawCall) -> Round:
    """A call as a round of its own."""
    return (raw, raw.seq, raw.time, raw.duration, tuple([part.data for part in raw.chunks[1:]]))


def call_of(one: Round) -> RawCall:
    """The call that a round stands for."""
    like, seq, time, duration, data = one
    chunks = [part._replace(data=new) for part, new in zip(like.chunks[1:], data, strict=True)]
    return RawCall(
        seq, time, like.pid, like.tid, like.comm, like.arch, like.nr, like.args, like.ret,
        like.failed, duration, [like.chunks[0], *chunks], like.fds[:], like.watched_exit,
        like.extra, like.stack, like.carried,
    )  # fmt: skip


class Strand(NamedTuple):
    """Calls that are rounds of one other, ``like``: of each thing that they have of their own the
    column, all of one length."""

    like: RawCall
    seqs: Sequence[int]
    times: Sequence[int]
    durations: Sequence[int | None]
    data: tuple[Sequence[bytes], ...]
    """A column a chunk, but for the first."""

    @property
    def size(self) -> int:
        """How many calls these are."""
        return len(self.seqs)

    def part(self, start: int, end: int) -> Strand:
        """Some of them."""
        like, seqs, times, durations, data = self
        some = slice(start, end)
        return Strand(
            like, seqs[some], times[some], durations[some], tuple([column[some] for column in data])
        )

    def rounds(self) -> Iterator[Round]:
        """One by one."""
        like, seqs, times, durations, data = self
        return zip([like] * len(seqs), seqs, times, durations, zip(*data, strict=True), strict=True)


class Rounds:
    """Calls of loops, one after the other, which nobody has made RawCalls of yet.

    ``order``: of each call which of the strands has it; None where there is but one.
    """

    __slots__ = ("order", "strands")

    def __init__(self, strands: Sequence[Strand], order: Sequence[int] | None = None) -> None:
        self.strands = strands
        self.order = order

    def __len__(self) -> int:
        return self.strands[0].size if self.order is None else len(self.order)

    def calls(self) -> Iterator[RawCall]:
        """The same as calls like any other."""
        if self.order is None:
            return map(call_of, self.strands[0].rounds())
        return map(call_of, self.in_order([list(strand.rounds()) for strand in self.strands]))

    def cut(self, at: int) -> tuple[Rounds, Rounds | None]:
        """The first ``at`` of them, at least one; and the others, None where there are none."""
        if at >= len(self):
            return self, None
        if self.order is None:
            (strand,) = self.strands
            end = strand.size
            return Rounds((strand.part(0, at),)), Rounds((strand.part(at, end),))
        return _some(self, 0, at), _some(self, at, len(self.order))

    def in_order(self, columns: Sequence[Sequence[Thing]]) -> Iterable[Thing]:
        """What there is of each call, of a column a strand."""
        if self.order is None:
            return columns[0]
        left = [iter(column) for column in columns]
        return map(next, map(left.__getitem__, self.order))

    def where(self, strand: int, number: int) -> int:
        """At which place the call of that number of a strand stands; how many there are, where
        the strand has no such."""
        if self.order is None:
            return min(number, len(self))
        found = -1
        for _ in range(number + 1):
            try:
                found = self.order.index(strand, found + 1)
            except ValueError:
                return len(self.order)
        return found


def _some(rounds: Rounds, start: int, end: int) -> Rounds:
    order = rounds.order or ()
    part = order[start:end]
    strands: list[Strand] = []
    numbers = {}
    for number, strand in enumerate(rounds.strands):
        count = part.count(number)
        if count:
            numbers[number] = len(strands)
            first = order[:start].count(number)
            strands.append(strand.part(first, first + count))
    return Rounds(strands, [numbers[number] for number in part] if len(strands) > 1 else None)


def in_strands(rounds: Iterable[Round]) -> Rounds:
    """Rounds, of which there is at least one, by what they are like."""
    columns: dict[int, tuple[int, list[Round]]] = {}
    order = []
    for one in rounds:
        found = columns.get(id(one[0]))
        if found is None:
            found = columns[id(one[0])] = (len(columns), [])
        order.append(found[0])
        found[1].append(one)
    strands = []
    for _, same in columns.values():
        likes, seqs, times, durations, data = zip(*same, strict=True)
        strands.append(Strand(likes[0], seqs, times, durations, tuple(zip(*data, strict=True))))
    return Rounds(strands, order if len(strands) > 1 else None)
