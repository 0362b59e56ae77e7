"""Loops of bpf(2) calls, captured without walking their declarations again.

Where a thread makes a call with the very same registers and attr as before, on
the same map, the walk would read the same ranges of memory: a Plan remembers
which.  The first calls of a loop are walked, and the plan is what they read.
"""

from __future__ import annotations

from decoders.loop_calls import COMMANDS, NUMBERS, alike
from decoders.raw import ENTRY, EXIT, Chunk, FdFact, RawCall
from decoders.walk.map_fds import MEANT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NamedTuple

    from bpftrace_sys.record.machine.fds import FdLookup
    from bpftrace_sys.record.ptrace.memory import LiveMemory
else:
    from decoders.records import NamedTuple


ATTR_SIZES: Final = range(24, 513)
"""Sizes of the attr; plain callers pass that of the whole union, 168 bytes and growing."""
PLANS: Final = 256
"""Plans that are remembered; then all are forgotten."""

if TYPE_CHECKING:
    Key = tuple[int, tuple[int, ...], bytes]


class Plan(NamedTuple):
    """What to read at entry and at exit, besides the attr, and of which map."""

    entry: tuple[tuple[int, int], ...]
    exit: tuple[tuple[int, int], ...]
    fact: FdFact


class Loops:
    """The plans of a trace's loops."""

    def __init__(self, lookup: FdLookup) -> None:
        self._lookup = lookup
        self._plans: dict[Key, Plan | None] = {}

    def enter(self, raw: RawCall, memory: LiveMemory) -> Plan | None:
        """Copies a call for which there is a plan; None: it has to be walked."""
        args = raw.args
        if args[0] not in COMMANDS or args[2] not in ATTR_SIZES or not self._plans:
            return None
        attr = memory.read(args[1], args[2])
        plan = self._plans.get((raw.tid, args, attr))
        if plan is None:
            return None
        # Mostly the same object as then: the lookup has just seen that nothing changed.
        fact = self._lookup.fact(raw.tid, plan.fact.fd, ENTRY)
        if fact is None or not (fact is plan.fact or alike(fact, plan.fact)):
            return None
        raw.fds.append(fact)
        chunks = raw.chunks
        chunks.append(Chunk(ENTRY, args[1], attr, args[2]))
        for (addr, size), data in zip(plan.entry, memory.read_many(plan.entry), strict=True):
            chunks.append(Chunk(ENTRY, addr, data, size))
        return plan

    def leave(self, plan: Plan, raw: RawCall, memory: LiveMemory) -> None:
        """Copies what the call has written."""
        if not raw.failed:
            for addr, size in plan.exit:
                raw.chunks.append(Chunk(EXIT, addr, memory.read(addr, size), size))

    def learn(self, raw: RawCall) -> None:
        """Takes a walked call for a model, when it comes for the second time."""
        if (
            raw.args[0] not in COMMANDS
            or (raw.arch, raw.nr) not in NUMBERS
            or raw.failed
            or len(raw.fds) != 1
            or raw.fds[0].info.get("map_type") in MEANT  # its values may name fds
            or not raw.chunks
        ):
            return
        attr, *rest = raw.chunks
        if attr.addr != raw.args[1] or len(attr.data) != raw.args[2]:
            return
        key = (raw.tid, raw.args, attr.data)
        if key not in self._plans:
            if len(self._plans) >= PLANS:
                self._plans.clear()
            self._plans[key] = None
            return
        self._plans[key] = Plan(
            tuple((chunk.addr, chunk.wanted) for chunk in rest if chunk.stage == ENTRY),
            tuple((chunk.addr, chunk.wanted) for chunk in rest if chunk.stage == EXIT),
            raw.fds[0],
        )
