"""From ptrace stops to RawCalls.

In a stop this only copies: argument registers, the memory that the declaration
of the call says is worth having, and what the fds are.  Everything else waits
in a queue until no tracee waits for us.
"""

from __future__ import annotations

import errno
import time

from bpftrace_sys.common.light import deque
from bpftrace_sys.record.capture.begun import Begun, raw_of
from bpftrace_sys.record.capture.concerning import Concerning
from bpftrace_sys.record.capture.waiting import next_of
from bpftrace_sys.record.machine.hardware import Machine
from bpftrace_sys.record.proc import executed
from decoders.events import Exit, Fork, ProcessEvent, What
from decoders.raw import RawCall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from bpftrace_sys.record.capture import begun, loops
    from bpftrace_sys.record.capture.copying import Ask, CallCopier
    from bpftrace_sys.record.capture.credentials import Credentials
    from bpftrace_sys.record.capture.inject import Rule
    from bpftrace_sys.record.capture.loops import Key, Loops, Plan
    from bpftrace_sys.record.capture.strace_reads import StraceReads
    from bpftrace_sys.record.capture.watchers import Returned
    from bpftrace_sys.record.machine.fds import FdLookup
    from bpftrace_sys.record.ptrace.stop_filter import StopFilter
    from bpftrace_sys.record.ptrace.tracee import Tracee
    from bpftrace_sys.record.stacks.stacks import Stacks
    from bpftrace_sys.trace.inventory import ObjectState, Unseen
    from bpftrace_sys.trace.running import Running
    from decoders.loop_calls import Round, Rounds
    from decoders.raw import Cred

    Item = RawCall | Rounds | ProcessEvent | ObjectState | Unseen | Running
    Take = Callable[[Item], None]

REFUSED: Final = frozenset({errno.EPERM, errno.EACCES, errno.EOPNOTSUPP})
"""Errors that may be a matter of capabilities, or of the caller's user namespace."""
PLACED: Final = frozenset({"bpf", "perf_event_open"})
"""Calls whose refusal may have its reason in the caller's world (world.py)."""
WAITING: Final = 4096
"""Calls that may wait to be decoded while stops come thick."""
BIG: Final = 1 << 15
"""Bytes of a call that takes long to tell."""
NAP: Final = 0.0001
"""Seconds for which we leave the CPU before that."""
YOUNG: Final = 10_000_000
"""Nanoseconds for which a call that has begun keeps us from other work: it may return any
moment, and what it then waits for us would count as its own time."""
NEAR: Final = (
    "bpftrace_sys.record.capture.copying", "bpftrace_sys.record.machine.fds",
    "bpftrace_sys.record.capture.loops", "bpftrace_sys.record.machine.newest_ids",
)  # fmt: skip
"""Modules that the first stop of ours needs."""


def _raise(where: str, error: Exception) -> None:
    raise error


class Capture:
    """The engine's sink.

    ``explicit``: calls that are kept even where they are none of BPF's story.
    ``prepare`` takes one short step towards :meth:`begin`, and says whether there are
    more. Where there is ``event``, it is asked for none before there is a call to tell, and
    processes' events are told to ``event`` until then: without BPF few imports are needed.
    """

    def __init__(
        self,
        explicit: frozenset[str] = frozenset(),
        notes: Callable[[str], None] | None = None,
        prepare: Callable[[], bool] | None = None,
        event: Callable[[ProcessEvent], None] | None = None,
    ) -> None:
        self.machine = Machine()
        self._take: Take | None = None
        self._prepare = prepare
        self._light = event
        self._due = event is None
        self._forks: dict[int, ProcessEvent] = {}
        """Of living children: what was told to ``event`` and :meth:`begin` has to know."""
        self._asked: Ask | None = None
        self._notes = notes
        self._lookup: FdLookup
        self._loops: Loops
        self._rounds: dict[Key, Plan] | None = None
        """Loops.rounds, where nobody wants more of a call than what a round has."""
        self._queue: deque[Item | Round] = deque()
        self.begun = Begun(self._put)
        self._pending = self.begun.calls
        self._seq = 0
        self._long = False
        """What is to be done next takes long: the last call is big, or all is to be imported."""
        self._entered = 0
        """When the last of the calls that were kept began."""
        self._concerning = Concerning(explicit)
        self._credentials: Credentials | None = None
        self.stacks: Stacks | None = None
        """-k; set before the first stop."""
        self.besides: StraceReads | None = None  # set before the first stop
        self.detached: list[int] = []  # threads that were let go of before their end
        self.watchers: list[Returned] = []
        """-e kernel= and --stats; set before the first stop."""
        self.waiting = WAITING  # 0: a call is told in the stop of its end
        self._rows: dict[tuple[int, int], CallCopier] = {}
        self._before: dict[str, int] | None = None
        self._rules: list[Rule] = []
        self._skip: Callable[[Tracee, int], bool] | None = None
        self.fault: Callable[[str, Exception], None] = _raise
        """Told of faults of our own: none may cost the program its life, which hangs on us."""

    @staticmethod
    def get_ready() -> None:
        """Imports what the first call of ours needs, so that nobody waits for it in a stop."""
        for name in NEAR:
            __import__(name)

    def begin(
        self,
        take: Take,
        ask: Ask | None = None,
        learn: Callable[[ProcessEvent], None] | None = None,
    ) -> None:
        """What was captured goes to ``take`` from now on; until then it waits.

        It gets each item of the trace in order: RawCalls as they complete, and
        ProcessEvents.  ``ask``: Facts.fact.  ``learn`` gets the events that were told
        before.
        """
        self._take, self._asked = take, ask
        if learn is not None:
            for event in self._forks.values():
                learn(event)
        self._forks.clear()

    def first(self, items: Sequence[Item]) -> None:
        """What stands in the trace before its calls, if there is any of it."""
        if items:
            _ = self.before
            self._queue.extend(items)
            self._due = True

    def tell_events(self) -> bool:
        """Tells processes' events to ``event``. False: there are calls, which take more."""
        if self._due or self._pending or self._light is None:
            return False
        while self._queue:
            event = self._queue.popleft()
            assert isinstance(event, ProcessEvent)
            self._light(event)
            if isinstance(event.what, Fork):
                self._forks[event.what.child_tid] = event
            elif isinstance(event.what, Exit):
                self._forks.pop(event.tid, None)
        return True

    def _ask(self, kind: str, key: int) -> str | None:
        """A fact, even if all that can tell it has to be imported first."""
        while self._take is None and self._prepare is not None and self._prepare():
            pass
        return None if self._asked is None else self._asked(kind, key)

    @property
    def before(self) -> dict[str, int]:
        """The highest ids of BPF objects before the first call of ours (see newest_ids.py)."""
        if self._before is None:
            from bpftrace_sys.record.machine.newest_ids import highest

            self._before = highest()
        return self._before

    def _row(self, arch: int, nr: int) -> CallCopier:
        """What such calls need; made when the first is seen."""
        if not self._rows:
            _ = self.before  # now, as this very call may make an object
            from bpftrace_sys.record.capture.loops import Loops
            from bpftrace_sys.record.machine.fds import FdLookup

            self._lookup = FdLookup()
            self._loops = Loops(self._lookup)
            if not (self._rules or self.besides or self.stacks or self.watchers):
                self._rounds = None if self.begun.apart else self._loops.rounds
        from bpftrace_sys.record.capture.copying import CallCopier

        row = self._rows[(arch, nr)] = CallCopier(arch, nr)
        return row

    # ------------------------------------------------------------ calls

    def entry(
        self, tracee: Tracee, arch: int, nr: int, args: tuple[int, ...], time_ns: int
    ) -> bool:
        try:
            rounds = self._rounds
            if rounds is not None:
                plan = rounds.get((tracee.tid, arch, nr, args))
                data = None if plan is None else plan.begins(tracee)
                if data is not None:
                    assert plan is not None
                    self._seq += 1
                    self._entered = time_ns
                    self._pending[tracee.tid] = (plan, self._seq, time_ns, data)
                    return True
            return self._enter(tracee, arch, nr, args, time_ns)
        except Exception as error:
            self.fault(f"the call's entry (number {nr})", error)
            return False

    def _enter(
        self, tracee: Tracee, arch: int, nr: int, args: tuple[int, ...], time_ns: int
    ) -> bool:
        if not self._concerning.may_be(tracee, arch, nr, args):
            return False
        row = self._rows.get((arch, nr)) or self._row(arch, nr)
        raw = RawCall(0, time_ns, tracee.pid, tracee.tid, "", arch, nr, args)
        if row.loops and not self._rules and self.besides is None:
            plan = self._loops.enter(raw, tracee.memory)
            if plan is not None:
                self._seq += 1
                raw.seq = self._seq
                raw.comm = tracee.comm
                self._entered = time_ns
                if self.stacks is not None:
                    self._copy_stack(tracee, raw)
                self.begun.begins(raw, (raw, plan, None))
                return True
        env = row.env(raw, self._lookup, self.machine, self._ask, self._who)
        node = row.enter(raw, tracee.memory, env)
        name = row.name
        if not self._concerning.wanted(name, raw, node):
            return False
        if self.besides is not None:
            self.besides.enter(raw, tracee.memory, self._lookup)
        self._seq += 1
        raw.seq = self._seq
        raw.comm = tracee.comm
        if self.stacks is not None:
            self._copy_stack(tracee, raw)
        for rule in self._rules:
            if rule.hit(tracee.tid, name, node) and self._skip is not None:
                self._skip(tracee, rule.ret)
                raw.extra = raw.extra._replace(injected=True, as_value=rule.as_value)
                break
        self._entered = time_ns
        self.begun.begins(raw, (raw, None, (env, node, row)))
        return True

    def _copy_stack(self, tracee: Tracee, raw: RawCall) -> None:
        """Keeps what the stack is unwound from; bytes, that must not pile up."""
        assert self.stacks is not None
        snapshot = self.stacks.copy(tracee)
        self.waiting = min(self.waiting, self.stacks.waiting)
        if snapshot is not None:
            raw.carried += (snapshot,)

    def watches(self, watch: Callable[[Tracee, StopFilter | None], None]) -> None:
        """``watch``: Engine.watch, where there is an engine; before the first stop."""
        self._concerning.watch = watch

    def inject(self, rules: list[Rule], skip: Callable[[Tracee, int], bool]) -> None:
        """Makes calls that a rule hits return without being executed (Engine.inject)."""
        self._rules, self._skip = rules, skip

    def exit(self, tracee: Tracee, ret: int, failed: bool, time_ns: int) -> None:
        pending = self._pending.pop(tracee.tid, None)
        if pending is None:
            return
        try:
            if len(pending) == 4:
                one = pending[0].ends(pending, ret, time_ns, tracee.memory)
                if one is not None:
                    self._queue.append(one)
                    if len(self._queue) > self.waiting:
                        self._relieve()
                    return
                pending = self._by_itself(tracee, pending)
            self._leave(tracee, pending, ret, failed, time_ns)
        except Exception as error:
            # What was seen until then is told all the same.
            raw = raw_of(pending)
            self.fault(f"the call's exit (number {raw.nr})", error)
            self._done(raw)

    def _by_itself(self, tracee: Tracee, round: loops.Begun) -> begun.Copied:
        """What began as one more round of a loop and does not end as one."""
        plan, *_ = round
        raw = raw_of(round)
        if tracee.memory.gather(plan.ranges) is not None:
            return raw, plan, None
        # It may be for this that the call fails: what the kernel had no right to read, either.
        raw.chunks, raw.fds = [], []
        row = self._rows[raw.arch, raw.nr]
        env = row.env(raw, self._lookup, self.machine, self._ask, self._who)
        return raw, None, (env, row.enter(raw, tracee.memory, env), row)

    def _leave(
        self, tracee: Tracee, pending: begun.Copied, ret: int, failed: bool, time_ns: int
    ) -> None:
        raw, plan, walked = pending
        raw.ret, raw.failed = ret, failed
        raw.duration = time_ns - raw.time
        if plan is not None:
            if plan.leave(raw, tracee.memory, self._lookup):
                if failed:
                    self._note_who(tracee, raw, ret)
                else:
                    self._tell_watchers(raw)
                self._done(raw, self._loops.round(plan, raw))
                return
            row = self._rows[raw.arch, raw.nr]
            env = row.env(raw, self._lookup, self.machine, self._ask, self._who)
            walked = env, row.again(raw, env), row
        env, node, row = walked
        row.leave(node, raw, tracee.memory, env)
        if plan is not None:
            plan.learn(raw)
        if not failed:
            if row.returns_fd(node.view):
                env.made(ret)
            if self.watchers and row.name in ("bpf", "ioctl"):
                self._tell_watchers(raw)
        else:
            self._note_who(tracee, raw, ret)
        if failed and row.name in PLACED:
            from bpftrace_sys.record.capture.world import keep

            keep(raw, row.name)
        if self.besides is not None:
            self.besides.leave(raw, tracee.memory)
        if row.loops and plan is None:
            self._loops.learn(raw, env.passing)
        if raw.extra.devices and not failed:
            from bpftrace_sys.record.capture.copying import xdp_modes

            xdp_modes(raw, row.name)
        self._concerning.returned(tracee, raw, row.name, node.view)
        self._long = self._take is None or sum(len(chunk.data) for chunk in raw.chunks) > BIG
        self._done(raw)

    def _tell_watchers(self, raw: RawCall) -> None:
        for watcher in self.watchers:
            watcher.returned(raw, self._lookup)

    def _note_who(self, tracee: Tracee, raw: RawCall, ret: int) -> None:
        """Of a refused call, who was refused: the thread may drop its capabilities, or end."""
        if -ret in REFUSED and raw.extra.cred is None:
            raw.extra = raw.extra._replace(cred=self._who(tracee.tid))

    def _who(self, tid: int) -> Cred:
        """Who a thread is that stands in a stop."""
        if self._credentials is None:
            from bpftrace_sys.record.capture.credentials import Credentials

            self._credentials = Credentials()
        return self._credentials.of(tid)

    def _done(self, raw: RawCall, one: Round | None = None) -> None:
        """A call is complete and waits to be told, if as a round of another."""
        self.begun.returned(raw)
        self._put(one or raw)
        self._relieve()

    def _relieve(self) -> None:
        """More comes than can be told: better slow than without bounds."""
        while len(self._queue) > self.waiting:
            self._entered = 0
            self.work()

    def work(self) -> bool:
        queue = self._queue
        for watcher in self.watchers:
            if watcher.soon():
                return True
        if not queue and (self._take is not None or not self._due):
            return False
        if self._pending and time.time_ns() - self._entered < YOUNG:
            return False
        if self._long:
            # Its thread, just let go, may have been woken on our CPU, and would wait until
            # we have used up our time slice. A yield does not always let it go first.
            self._long = False
            time.sleep(NAP)
            return True
        if self._take is None:
            return not self.tell_events() and self._due and self._step()
        for _ in range(16):
            if not queue:
                return False
            self._tell(next_of(queue))
        return bool(queue)

    def _tell(self, item: Item) -> None:
        assert self._take is not None
        try:
            self._take(item)
        except Exception as error:
            self.fault("telling what was seen", error)

    def rest(self) -> float | None:
        """Engine.resting: whoever waits to be told is told later."""
        return YOUNG / 1e9 if self._due and self._queue and self._pending else None

    def _step(self) -> bool:
        assert self._prepare is not None
        return self._prepare() or bool(self._queue)

    def drain(self) -> None:
        """Hands over everything that waits, and the calls that never returned."""
        while self._take is None and self._prepare is not None and self._prepare():
            pass
        if self._take is None:
            return  # it could not be set up: there is nobody to tell
        while self._queue:
            self._tell(next_of(self._queue))
        for tid in sorted(self._pending):
            self._tell(raw_of(self._pending.pop(tid)))
        if self._rows:
            self._lookup.close()
        if self._credentials is not None:
            self._credentials.close()

    # ------------------------------------------------------------ processes

    def forked(self, parent: Tracee, child_tid: int, child_pid: int, how: str) -> None:
        self.happened(parent, Fork(child_pid, child_tid, how))

    def execed(self, tracee: Tracee) -> None:
        former = getattr(tracee, "former_tid", tracee.tid)
        self._unfinished(former)
        self.happened(tracee, executed(tracee.pid, former if former != tracee.tid else None))

    def exited(
        self, tracee: Tracee, code: int | None, signal: int | None, core: bool
    ) -> None:
        self._unfinished(tracee.tid, tracee.detach)
        if self._rows:
            self._lookup.forget(tracee.tid)
        if self._credentials is not None:
            self._credentials.forget(tracee.tid)
        self.begun.between()
        if tracee.detach and code is None and signal is None:
            self.detached.append(tracee.tid)
        self.happened(tracee, Exit(code, signal, core))

    def _unfinished(self, tid: int, detached: bool = False) -> None:
        pending = self._pending.pop(tid, None)
        if pending is not None:
            raw = raw_of(pending)
            if detached:
                raw.extra = raw.extra._replace(detached=True)
            self.begun.returned(raw)
            self._put(raw)

    def _put(self, item: RawCall | Round | Running) -> None:
        self._queue.append(item)
        self._due = True

    def happened(self, tracee: Tracee, what: What) -> None:
        self._queue.append(ProcessEvent(what, time.time_ns(), tracee.pid, tracee.tid))

    def note(self, tracee: Tracee | None, text: str) -> None:
        if self._notes is not None:
            self._notes(text if tracee is None else f"[{tracee.tid}] {text}")


