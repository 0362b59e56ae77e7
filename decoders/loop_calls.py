"""The bpf(2) commands of which loops consist, and what may differ between rounds."""

from __future__ import annotations

import errno

from decoders import arch as arches
from decoders.raw import NOTHING, FdFact, RawCall
from decoders.uapi import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Final, TypeAlias

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


class Rounds:
    """Calls of loops, one after the other, which nobody has made RawCalls of yet."""

    __slots__ = ("rounds",)

    def __init__(self, rounds: Sequence[Round]) -> None:
        self.rounds = rounds

    def calls(self) -> Iterator[RawCall]:
        """The same as calls like any other."""
        return map(call_of, self.rounds)
