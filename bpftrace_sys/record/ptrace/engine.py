"""The ptrace loop: starts or attaches tracees, and hands their system calls to a sink.

It knows nothing of BPF. What stops, the StopFilter says; what is copied in a stop
and what becomes of it is the Sink's. How the loop treats stops, signals, threads
and time is written down in docs/engine.md.
"""

from __future__ import annotations

import os
import time
from itertools import repeat

from bpftrace_sys.record.ptrace import requests as px
from bpftrace_sys.record.ptrace import stop_filter
from bpftrace_sys.record.ptrace.calls import Calls
from bpftrace_sys.record.ptrace.errors import AttachError, EngineError
from bpftrace_sys.record.ptrace.family import Family
from bpftrace_sys.record.ptrace.interrupts import Interrupts
from bpftrace_sys.record.ptrace.other_stops import OtherStops
from bpftrace_sys.record.ptrace.own_calls import WATCHED, OwnCalls
from bpftrace_sys.record.ptrace.pace import TRACEES, Pace
from bpftrace_sys.record.ptrace.programs import Programs
from bpftrace_sys.record.ptrace.spawn import SpawnError, start
from bpftrace_sys.record.ptrace.stop_filter import ArgRule, StopFilter
from bpftrace_sys.record.ptrace.teller import Teller
from bpftrace_sys.record.ptrace.tracee import Tracee
from decoders import arch as arches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final

    from bpftrace_sys.record.ptrace.interrupts import What
    from bpftrace_sys.record.ptrace.spawn import Starting
    from bpftrace_sys.record.ptrace.tracee import Sink
    from bpftrace_sys.record.ptrace.usage import Usage
    from decoders.events import LeftAlone

__all__ = [
    "ArgRule",
    "AttachError",
    "Engine",
    "EngineError",
    "SpawnError",
    "StopFilter",
    "Tracee",
]

_BATCH: Final = 64  # stops that are collected before any is handled
_SIGNAL_ROUNDS: Final = 256  # stops after which we look at our own signals, even if busy


class Engine:
    """Traces threads until none is left.

    ``follow``: trace children and new threads too. Without it the children of a
    spawned tracee are left alone entirely, which a seccomp filter does not allow
    (they would inherit it, and without a tracer its calls fail with ENOSYS), so
    then no filter is used and every call of the one thread stops it; unless
    ``quiet_children``: children are traced, but silently, and the filter is used.
    ``exit_kill``: spawned tracees die with the tracer.

    ``on_interrupt`` says what SIGINT, SIGTERM, SIGQUIT and SIGHUP do while tracing.
    "wait": attached processes are detached from; for spawned ones we wait, since
    a terminal's Ctrl-C reaches them by itself, and what was sent to us alone is
    passed on. "end": attached ones are detached, spawned ones get the signal, and
    SIGKILL the second time. "ignore": nothing. "ignore-stop": SIGTSTP does nothing
    to the tracer, either.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        follow: bool,
        stops: StopFilter,
        use_seccomp: bool = True,
        quiet_children: bool = False,
        exit_kill: bool = True,
        on_interrupt: What = "wait",
    ) -> None:
        self.stops = stops
        self.follow = follow
        self.children = follow or quiet_children
        """Whether children of spawned tracees are traced."""
        self.use_seccomp = use_seccomp and self.children
        self.exit_kill = exit_kill
        self.resting: Callable[[], float | None] | None = None
        """Told when no stop is waiting and the sink has nothing to do. How long to sleep at
        most, in seconds, before the sink is asked again; None: until something happens."""
        self._usage: Usage | None = None
        quiet = quiet_children and not follow
        self._teller = Teller(sink)
        self._programs = Programs()
        self._family = Family(self._teller, follow=follow, quiet=quiet)
        self.tracees = self._family.tracees
        self._own_calls = OwnCalls(
            self._teller, self._family, children=self.children, quiet=quiet, follow=follow
        )
        self._calls = Calls(self._teller, stops, self._own_calls)
        self._interrupts = Interrupts(self._teller, self._family, self._programs, on_interrupt)
        self._signals = self._interrupts.signals
        self._others = OtherStops(self._teller, self._family, self._programs, self._interrupts)

    def note_usage(self) -> Usage:
        """From now on each stop tells what has been used of the CPU until then. To be asked before
        anything is traced: it makes stops dearer."""
        from bpftrace_sys.record.ptrace.usage import Usage

        self._usage = Usage()
        return self._usage

    def tell_leaving(self, leaving: Callable[[Tracee], None]) -> None:
        """From now on ``leaving`` is told of each thread that is about to end, while its files
        are still open. To be asked before anything is traced: it costs each thread a stop."""
        self._teller.leaving = leaving

    def tell_signals(self, signalled: Callable[[Tracee, int, bool], None]) -> None:
        """From now on ``signalled`` is told of each signal that a thread is about to get, in its
        stop, and (True) of each that stops it."""
        self._teller.signalled = signalled

    @property
    def sink(self) -> Sink:
        """Who is told; may be replaced between two run()."""
        return self._teller.sink

    @sink.setter
    def sink(self, sink: Sink) -> None:
        self._teller.sink = sink

    @property
    def interrupted(self) -> int | None:
        """The last signal that asked us to end."""
        return self._interrupts.last

    @property
    def left_alone(self) -> LeftAlone:
        """What was started and is not followed."""
        return self._own_calls.left_alone

    # -- starting ---------------------------------------------------------

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        argv0: str | None = None,
        user: str | None = None,
        background: int = 0,
        meanwhile: Callable[[], None] | None = None,
    ) -> int:
        """Start a program; returns its pid when its execve has succeeded and it runs.

        ``meanwhile`` is called while it sets itself up, before it runs.

        ``background``: this very process becomes the program, and the tracer, in
        which alone this returns, goes to the background: 1 as a grandchild in the
        same process group, 2 in a group, 3 in a session of its own (strace's -D,
        -DD, -DDD). Its parent then gets the program's status from the kernel.

        Raises SpawnError if the program cannot be executed, EngineError if it
        cannot be traced.
        """
        _check_machine()
        self._signals.block()
        assert self._signals.mask is not None
        program = self._filter()
        self._own_calls.filtered = program is not None
        starting = start(
            argv,
            bpf_filter=program,
            mask=self._signals.mask,
            ignored=self._signals.ignored,
            env=env,
            argv0=argv0,
            user=user,
            background=background,
        )
        pid = starting.pid
        self._family.attached = False
        options = px.PTRACE_O_TRACESYSGOOD | px.PTRACE_O_TRACEEXEC
        if self.exit_kill:
            options |= px.PTRACE_O_EXITKILL
        if program is not None:
            options |= px.PTRACE_O_TRACESECCOMP
        if self.children:
            options |= px.PTRACE_O_TRACEFORK | px.PTRACE_O_TRACEVFORK | px.PTRACE_O_TRACECLONE
        options |= self._exit_stops
        try:
            px.seize(pid, options)
        except OSError as error:
            from bpftrace_sys.record.ptrace.refusals import forbidden

            why = forbidden(pid, error.errno or 0)
            starting.close()
            if not background:
                os.waitpid(pid, 0)
            raise EngineError(why) from None
        tracee = Tracee(pid, pid)
        tracee.silent = True
        tracee.every_call = program is None
        self.tracees[pid] = tracee
        self._programs.started(pid)
        starting.go()
        if meanwhile is not None:
            meanwhile()
        try:
            self._await_exec(tracee, starting)
        except SpawnError as error:
            if error.stage != "seccomp":
                raise
        else:
            return pid
        finally:
            starting.close()
        if background:
            raise EngineError("no seccomp filter can be installed here: try --no-seccomp")
        # A kernel, or a sandbox around us, without seccomp filters.
        self.use_seccomp = False
        self.sink.note(
            None,
            "no seccomp filter can be installed here: every system call stops the program",
        )
        return self.spawn(argv, env=env, argv0=argv0, user=user)

    def _filter(self) -> bytes | None:
        """The filter for a spawned tracee, if there is to be one."""
        if not self.use_seccomp:
            return None
        try:
            return self.stops.merged(WATCHED).compile()
        except stop_filter.FilterTooLongError:
            self.use_seccomp = False
            return None

    def _await_exec(self, tracee: Tracee, starting: Starting) -> None:
        """Until the new program is there: nothing before is the sink's business."""
        pid = tracee.tid
        while True:
            _, status = os.waitpid(pid, px.WALL)
            if not os.WIFSTOPPED(status):
                del self.tracees[pid]
                failure = starting.error()
                if failure is None:
                    # Killed from outside before its execve: that is its status.
                    self._programs.reaped(pid, status)
                    return
                self._programs.failed(pid)
                raise failure
            if status >> 16 == px.PTRACE_EVENT_EXEC:
                tracee.silent = False
                self._others.handle(tracee, status)
                return
            self._others.let_go(tracee, status)

    def attach(self, pid: int) -> None:
        """Trace all threads of a running process. Raises AttachError."""
        _check_machine()
        self._signals.block()
        from bpftrace_sys.record.ptrace.attaching import attach

        attach(pid, self.tracees, self.follow, self._exit_stops)
        self._family.attached = not self._programs.pids

    @property
    def _exit_stops(self) -> int:
        return 0 if self._teller.leaving is None else px.PTRACE_O_TRACEEXIT

    # -- what a sink may ask for ----------------------------------------------

    def watch(self, tracee: Tracee, calls: StopFilter | None) -> None:
        """From within a sink: stop this thread for ``calls`` too; None: no longer.

        Until then every call of the thread stops it, so this is for moments.
        """
        self._calls.watch(tracee, calls)

    def inject(self, tracee: Tracee, ret: int) -> bool:
        """From within Sink.entry: the call is not to be executed but to return
        ``ret`` (signed, a negative errno to fail), which Sink.exit is then told.

        Entry must answer True. False: the kernel refused (the tracee is gone).
        """
        return self._calls.inject(tracee, ret)

    def let_go(self) -> None:
        """From within Sink.work: everybody, spawned or attached, runs on untraced, as soon as
        they have stopped once more; then run() ends.

        Not where spawned tracees have a filter (``use_seccomp``), without whose tracer calls fail.
        """
        self._interrupts.detach_all(spawned=True)
        self._programs.forget()

    # -- the loop -----------------------------------------------------------

    def run(self) -> int:
        """Until no tracee is left. Returns the wait status of the first spawned
        process (see os.waitstatus_to_exitcode), 0 if there was none."""
        self._signals.block()
        try:
            self._loop()
            while self.sink.work():
                pass
        finally:
            self._signals.unblock()
        return self._programs.status or 0

    def free(self, patience: float) -> None:
        """After an exception out of spawn() or run() that was none of the sink's: lets go of
        whoever may stand in a stop that was lost with it. Who runs, or listens, is left so.

        The next run() detaches from attached processes, and ends when no spawned one is left;
        who cannot be detached from within ``patience`` seconds is left to the kernel.
        """
        end = time.monotonic() + patience

        def waits() -> float | None:
            left = end - time.monotonic()
            if left <= 0:
                self._interrupts.abandon()
                return None if self.tracees else 0
            return left

        self.resting = waits
        self._interrupts.detach_all()
        for tracee in self.tracees.values():
            px.resume(px.PTRACE_SYSCALL if tracee.every_call else px.PTRACE_CONT, tracee.tid)

    def _loop(self) -> None:
        fetch, size, address, unpack_entry, unpack_exit, buffer, resume, nothing = px.bind_hot()
        get_info = px.PTRACE_GET_SYSCALL_INFO
        waitpid = os.waitpid if self._usage is None else self._usage.waitpid
        time_ns = time.time_ns
        flags = os.WNOHANG | px.WALL
        syscall_stop, seccomp_stop = px.SYSCALL_STOP, px.SECCOMP_STOP
        cont, step = px.PTRACE_CONT, px.PTRACE_SYSCALL
        # Numbers that the hot path leaves to Calls.
        watched = {
            arch: WATCHED.numbers(arch) | {nr for nr in numbers if arches.is_x32(arch, nr)}
            for arch in arches.NAMES
            for numbers in (self.stops.numbers(arch),)
        }
        none: frozenset[int] = frozenset()
        ours = stop_filter.RET_DATA
        teller = self._teller
        programs = self._programs.pids
        tracees = self.tracees
        early = self._family.early
        batch = self._family.stops
        pace = Pace()
        rounds = _SIGNAL_ROUNDS
        current: Tracee | None = None
        try:
            while True:
                # The next stop: collected, or waiting, or to be waited for.
                if batch:
                    tid, status = batch.popleft()
                else:
                    try:
                        tid, status = waitpid(-1, flags)
                        if not tid:
                            tid, status = self._next(pace)
                    except ChildProcessError:
                        self._others.vanished()
                        tid = 0
                    if not tid:
                        if early:
                            self._family.adopt()
                        elif not tracees and not programs:
                            return
                        continue
                    if len(tracees) > 2:
                        # The kernel offers the oldest first: who stops often must
                        # not starve the others.
                        self._collect(flags)
                current = tracee = tracees.get(tid)
                if tracee is None:
                    self._others.stranger(tid, status)
                    continue
                rounds -= 1
                if not rounds:
                    rounds = _SIGNAL_ROUNDS
                    self._signals.poll()

                # The two hot stops; everything else is OtherStops'.
                if status == seccomp_stop:
                    if fetch(get_info, tid, size, address) <= 0:
                        continue
                    info = unpack_entry(buffer)
                    _, arch, tracee.ip, tracee.sp, nr, a0, a1, a2, a3, a4, a5, data = info
                    if (
                        data != ours
                        or nr in watched.get(arch, none)
                        or tracee.every_call
                        or tracee.silent
                    ):
                        self._calls.seccomp_stop(tracee, info)
                        continue
                    tracee.arch = arch
                    teller.working = True
                    if teller.sink.entry(tracee, arch, nr, (a0, a1, a2, a3, a4, a5), time_ns()):
                        tracee.entered = True
                        resume(step, tid, nothing, nothing)
                    else:
                        if tracee.injected is not None:
                            tracee.injected = None
                        # The sink may have asked to watch() more of this thread.
                        resume(step if tracee.every_call else cont, tid, nothing, nothing)
                elif status == syscall_stop and not tracee.detach:
                    if fetch(get_info, tid, size, address) <= 0:
                        continue
                    info = unpack_exit(buffer)
                    if info[0] == 2:
                        if tracee.watched or tracee.injected is not None:
                            self._calls.returns(tracee, info[4], info[5] != 0)
                        elif tracee.entered:
                            tracee.entered = False
                            teller.working = True
                            teller.sink.exit(tracee, info[4], info[5] != 0, time_ns())
                        resume(step if tracee.every_call else cont, tid, nothing, nothing)
                    else:
                        if info[0] == 1:
                            self._calls.begins(tracee, unpack_entry(buffer))
                        resume(step, tid, nothing, nothing)
                else:
                    self._others.handle(tracee, status)
                current = None
        except BaseException:
            # Out of the sink, most likely; whoever it stopped must not be left so.
            if current is not None and current.tid in tracees:
                more = current.every_call or current.entered
                resume(step if more else cont, current.tid, nothing, nothing)
            raise
        finally:
            pace.close()

    def _next(self, pace: Pace) -> tuple[int, int]:
        """The next stop where none is waiting: what is queued is worked on meanwhile, then looked
        again and again, then slept. As _sleep()."""
        teller, flags = self._teller, os.WNOHANG | px.WALL
        waitpid = os.waitpid if self._usage is None else self._usage.waitpid
        while teller.working:
            teller.working = teller.sink.work()
            tid, status = waitpid(-1, flags)
            if tid:
                return tid, status
        if pace.polls and len(self.tracees) <= TRACEES:
            for _ in repeat(None, pace.polls):
                tid, status = waitpid(-1, flags)
                if tid:
                    pace.polls = pace.most
                    return tid, status
            pace.polls >>= 1
        if self.tracees or self._programs.pids:
            return self._sleep(pace)
        return 0, 0

    def _sleep(self, pace: Pace) -> tuple[int, int]:
        """Until a stop comes, which it returns, or a signal of our own, or the sink wants to
        go on: (0, 0). Raises ChildProcessError where there is nobody to wait for."""
        wait = None if self.resting is None else self.resting()
        patience = self._family.patience()
        began = time.monotonic_ns()
        if wait is None and patience is None and self._usage is None:
            found = self._signals.wait_child()
        else:
            if wait is not None:
                self._teller.working = True
            self._signals.wait(min((w for w in (wait, patience) if w is not None), default=None))
            found = 0, 0
        pace.slept(time.monotonic_ns() - began)
        return found

    def _collect(self, flags: int) -> None:
        waitpid = os.waitpid if self._usage is None else self._usage.waitpid
        try:
            for _ in range(_BATCH):
                tid, status = waitpid(-1, flags)
                if not tid:
                    return
                self._family.stops.append((tid, status))
        except ChildProcessError:
            pass  # all that there was is in the batch


def _check_machine() -> None:
    if not arches.of_machine():
        raise EngineError(f"bpfstrace does not know the system calls of {os.uname().machine}")
