"""Calls of bpf(2) that come again, copied without walking their declarations again.

Where a thread makes a call with the very same registers and attr as before, on the same map, the
walk would read the same ranges of memory: a Plan remembers which.  The first calls of a loop are
walked, and the plan is what they read.  Failing loads come again, too, byte for byte: loaders try
once more.  What such a call points at may decide what is read, so it takes the plan of its
predecessor only where all of that is as it was.  Loads that probe for features differ in their
instructions: families.py.
"""

from __future__ import annotations

from bpftrace_sys.record.capture.families import FREE, Family, may_found
from bpftrace_sys.record.ptrace.memory import Ranges
from decoders.loop_calls import (
    COMMANDS,
    NUMBERS,
    TRIED_AGAIN,
    alike,
    may_repeat,
    round_of,
)
from decoders.raw import ENTRY, EXIT, NOTHING, Chunk, RawCall
from decoders.uapi import const
from decoders.walk.map_fds import MEANT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from bpftrace_sys.record.machine.fds import FdLookup, Seen
    from bpftrace_sys.record.ptrace.memory import LiveMemory
    from bpftrace_sys.record.ptrace.tracee import Tracee
    from decoders.loop_calls import Round
    from decoders.raw import FdFact

    Key = tuple[int, int, int, tuple[int, ...]]
    """Thread, architecture, number and arguments of a call."""
    Begun = tuple["Plan", int, int, bytes]
    """What may be one more round of a loop: its plan, number, time, and what was read."""

PROG_LOAD: Final = const.BPF_PROG_LOAD
ATTR_SIZES: Final = range(24, 513)
"""Sizes of the attr; plain callers pass that of the whole union, 168 bytes and growing."""
PLANS: Final = 256
"""Plans that are remembered; then all are forgotten."""


class Plan:
    """How calls are copied that are like one that was walked."""

    __slots__ = (
        "_attr", "_attr_at", "_cuts", "_looks", "bytewise", "chunks", "data", "exit", "facts",
        "failed", "like", "ranges",
    )  # fmt: skip

    def __init__(self, raw: RawCall, bytewise: bool) -> None:
        self.bytewise = bytewise
        """It holds only where everything that the call points at is as it was."""
        self.chunks = [chunk for chunk in raw.chunks if chunk.stage == ENTRY]
        self.ranges = Ranges([(chunk.addr, chunk.wanted) for chunk in self.chunks])
        self.data = b"".join(chunk.data for chunk in self.chunks)
        """What was read at the entry."""
        self._attr = self.chunks[0].data
        attr, *self._cuts = self.ranges.places
        self._attr_at = attr.start
        self.facts = list(raw.fds)
        self._looks: list[tuple[Seen, bytes]] | None = None
        """Where the facts were read, and what it said then."""
        self.like: RawCall | None = None
        """The call that took the plan last and was not told as a round."""
        self.exit: Sequence[Chunk] | None = None
        """What was read at the exit of one that succeeded; None: not known yet."""
        self.failed: tuple[int, list[Chunk], Ranges | None] | None = None
        """The result and chunks of one that failed, and where those of the exit stand."""

    def learn(self, raw: RawCall) -> None:
        """What a call that took the plan read at its exit."""
        after = [chunk for chunk in raw.chunks if chunk.stage == EXIT]
        if not self.bytewise:
            self.exit = self.exit if raw.failed else after
        elif raw.failed:
            assert raw.ret is not None
            where = [(chunk.addr, chunk.wanted) for chunk in after]
            whole = not after or (Ranges.possible(where) and _whole(after))
            ranges = Ranges(where) if after and whole else None
            self.failed = (raw.ret, raw.chunks, ranges) if whole else None

    # -- a call by itself --------------------------------------------------------

    def enter(self, raw: RawCall, memory: LiveMemory, lookup: FdLookup) -> bool:
        """Copies a call; False: it has to be walked."""
        data = memory.gather(self.ranges)
        if data is None:
            return False
        if not (data == self.data if self.bytewise else data.startswith(self._attr)):
            return False
        looks = self._looks
        same = looks is not None and all(seen.says(text) for seen, text in looks)
        if not same and not self._look_again(raw, lookup):
            return False
        raw.fds = self.facts[:]
        if self.bytewise:
            raw.chunks = self.chunks[:]
        else:
            raw.chunks = chunks = self.chunks[:1]
            at = len(self._attr)
            for chunk in self.chunks[1:]:
                end = at + chunk.wanted
                chunks.append(Chunk(ENTRY, chunk.addr, data[at:end], chunk.wanted))
                at = end
        return True

    def _look_again(self, raw: RawCall, lookup: FdLookup) -> bool:
        """Whether the fds are what they were; mostly they were just looked at."""
        self._looks = None
        for index, known in enumerate(self.facts):
            fact = lookup.fact(raw.tid, known.fd, ENTRY)
            if fact is None or not (fact is known or alike(fact, known)):
                return False
            self.facts[index] = fact
        where = [lookup.seen(fact, raw.tid) for fact in self.facts]
        looks = [(seen, seen.raw) for seen in where if seen is not None]
        if len(looks) == len(where):
            self._looks = looks
        return True

    def round(self, raw: RawCall) -> Round | None:
        """A call that has taken the plan as a round of one before; None: by itself."""
        like = self.like
        if (
            like is not None
            and raw.fds[0] is like.fds[0]
            and raw.ret == like.ret
            and raw.comm == like.comm
            and raw.pid == like.pid
            and len(raw.chunks) == len(like.chunks)
            and raw.extra is NOTHING
            and not raw.carried
            and _whole(raw.chunks)
        ):
            return (like, *round_of(raw)[1:])
        may = not self.bytewise and may_repeat(raw) and _whole(raw.chunks)
        self.like = raw if may else None
        return None

    def leave(self, raw: RawCall, memory: LiveMemory, lookup: FdLookup) -> bool:
        """Copies what the call has written; False: for that the walk is needed."""
        if not raw.failed:
            if self.exit is None:
                return False
            for chunk in self.exit:
                data = memory.read(chunk.addr, chunk.wanted)
                raw.chunks.append(Chunk(EXIT, chunk.addr, data, chunk.wanted))
            return True
        if not self.bytewise:
            return True  # of such commands one that fails writes nothing
        if self.failed is None:
            return False
        ret, chunks, ranges = self.failed
        if raw.ret != ret:
            return False
        if ranges is not None:
            after = b"".join(chunk.data for chunk in chunks if chunk.stage == EXIT)
            if memory.gather(ranges) != after:
                return False
        # The very list: who tells it sees at once that nothing differs.
        raw.chunks = chunks
        return True

    # -- a round, of which nothing is made but what is its own ------------------------

    def begins(self, tracee: Tracee) -> bytes | None:
        """What a call reads at its entry, if it may be one more round; None: it is none."""
        like, ranges, memory = self.like, self.ranges, tracee.memory
        if like is None or self._looks is None:
            return None
        span = ranges.span
        data = memory.span(ranges.start, span) if span else memory.gather(ranges)
        if data is None or not data.startswith(self._attr, self._attr_at):
            return None
        ((seen, text),) = self._looks
        if not seen.says(text) or self.facts[0] is not like.fds[0]:
            return None
        return data if tracee.comm == like.comm and tracee.pid == like.pid else None

    def ends(self, begun: Begun, ret: int, time: int, memory: LiveMemory) -> Round | None:
        """What began so, when it has returned, at this time; None: it is no round after all."""
        like = self.like
        if like is None or ret != like.ret:
            return None
        _, seq, began, data = begun
        parts = [data[cut] for cut in self._cuts]
        if not like.failed:
            for chunk in self.exit or ():
                part = memory.span(chunk.addr, chunk.wanted)
                if part is None:
                    return None
                parts.append(part)
        return like, seq, began, time - began, tuple(parts)

    def call(self, seq: int, time: int, data: bytes) -> RawCall:
        """What began as a round, as a call by itself that has not returned."""
        assert self.like is not None
        chunks = self.chunks[:1]
        for chunk, cut in zip(self.chunks[1:], self._cuts, strict=True):
            chunks.append(chunk._replace(data=data[cut]))
        return self.like.replace(
            seq=seq, time=time, ret=None, failed=False, duration=None, chunks=chunks,
            fds=self.facts[:],
        )  # fmt: skip


class Loops:
    """The plans of a trace's calls."""

    def __init__(self, lookup: FdLookup) -> None:
        self._lookup = lookup
        self._once: dict[tuple[Key, bytes], list[Chunk]] = {}
        """Calls that were seen once, by the attr, too; and what another must have like them."""
        self._plans: dict[tuple[Key, bytes], Plan | Family] = {}
        self._last: dict[Key, Plan | Family] = {}
        """What calls with these registers took last."""
        self.rounds: dict[Key, Plan] = {}
        """That, where calls may be rounds of one before."""

    def enter(self, raw: RawCall, memory: LiveMemory) -> Plan | Family | None:
        """Copies a call for which there is a plan; None: it has to be walked."""
        if not self._plans:
            return None
        args = raw.args
        key = (raw.tid, raw.arch, raw.nr, args)
        last = self._last.get(key)
        if last is not None and last.enter(raw, memory, self._lookup):
            return last
        if args[2] not in ATTR_SIZES or not (args[0] in COMMANDS or args[0] in TRIED_AGAIN):
            return None
        attr = memory.read(args[1], args[2])
        for known in (attr, attr[FREE:]) if args[0] == PROG_LOAD else (attr,):
            plan = self._plans.get((key, known))
            if plan is None or plan is last or not plan.enter(raw, memory, self._lookup):
                continue
            self._last[key] = plan
            return plan
        return None

    def round(self, plan: Plan | Family, raw: RawCall) -> Round | None:
        """A call that has taken a plan as a round of one before; None: by itself."""
        if not isinstance(plan, Plan):
            return None  # a load is no round of another
        found = plan.round(raw)
        if plan.like is not None:
            self.rounds[raw.tid, raw.arch, raw.nr, raw.args] = plan
        return found

    def learn(self, raw: RawCall, passing: bool) -> None:
        """Takes a walked call for a model, when it comes for the second time.

        ``passing``: as in CallEnv, so that a second one might be copied in another way.
        """
        command = raw.args[0]
        if passing:
            return
        if command == PROG_LOAD and self._join(raw):
            return
        bytewise = command in TRIED_AGAIN
        if bytewise:
            if not raw.failed or raw.extra._replace(cred=None) != NOTHING or raw.carried:
                return
            if any(fact.stage != ENTRY for fact in raw.fds):
                return
        elif command not in COMMANDS or len(raw.fds) != 1 or _means(raw.fds[0]):
            return
        if (raw.arch, raw.nr) not in NUMBERS or not raw.chunks:
            return
        attr = raw.chunks[0]
        before = [chunk for chunk in raw.chunks if chunk.stage == ENTRY]
        if attr.addr != raw.args[1] or len(attr.data) != raw.args[2] or not _whole(before):
            return
        if not bytewise and raw.failed and len(before) < len(raw.chunks):
            return
        if not Ranges.possible([(chunk.addr, chunk.wanted) for chunk in before]):
            return
        key = ((raw.tid, raw.arch, raw.nr, raw.args), attr.data)
        # What a load points at may differ, which only a plan that fits all bytes may not.
        known = before if bytewise else before[:1]
        if self._first(key, known):
            return
        plan = Plan(raw, bytewise)
        self._plans[key] = plan
        plan.learn(raw)

    def _first(self, key: tuple[Key, bytes], known: list[Chunk]) -> bool:
        """Whether no call like this one was seen before; now one was."""
        if self._once.get(key) == known:
            return False
        if len(self._once) >= PLANS:
            self._once.clear()
            self._plans.clear()
            self._last.clear()
            self.rounds.clear()
        self._once[key] = known
        return True

    def _join(self, raw: RawCall) -> bool:
        """Whether a load is one of a family; the second founds it."""
        if (raw.arch, raw.nr) not in NUMBERS or not may_found(raw):
            return False
        key = ((raw.tid, raw.arch, raw.nr, raw.args), raw.chunks[0].data[FREE:])
        if not self._first(key, []):
            self._plans[key] = Family(raw)
        return True


def _means(fact: FdFact) -> bool:
    """Whether the values of a map may name fds."""
    return fact.info.get("map_type") in MEANT


def _whole(chunks: Sequence[Chunk]) -> bool:
    """Whether all of it could be read."""
    return all(len(chunk.data) == chunk.wanted for chunk in chunks)
