"""The ptrace loop: starts or attaches tracees, and hands their system calls to a sink.

It knows nothing of BPF. What stops, the StopFilter says; what is copied in a stop
and what becomes of it is the Sink's. How the loop treats stops, signals, threads
and time is written down in docs/engine.md.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import deque
from itertools import repeat

from bpftrace_sys.record.ptrace import requests as px
from bpftrace_sys.record.ptrace import stop_filter
from bpftrace_sys.record.ptrace.errors import AttachError, EngineError
from bpftrace_sys.record.ptrace.forwarding import barrier, comes_by_itself
from bpftrace_sys.record.ptrace.memory import LiveMemory
from bpftrace_sys.record.ptrace.own_calls import _PR_SET_NAME, _PTRACE_TRACEME, _WATCH
from bpftrace_sys.record.ptrace.own_signals import OURS, OwnSignals, stop_ourselves
from bpftrace_sys.record.ptrace.pace import TRACEES, Pace
from bpftrace_sys.record.ptrace.spawn import SpawnError, start
from bpftrace_sys.record.ptrace.stop_filter import ArgRule, StopFilter
from bpftrace_sys.record.ptrace.tracee import Tracee
from decoders import arch as arches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final, Literal

    from bpftrace_sys.record.ptrace.spawn import Starting
    from bpftrace_sys.record.ptrace.tracee import Sink

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
_STOP_SIGNALS: Final = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_SI_KERNEL: Final = 0x80
_FORKS: Final = {1: "fork", 2: "vfork", 3: "clone"}  # PTRACE_EVENT_*
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
        on_interrupt: Literal["wait", "end", "ignore", "ignore-stop"] = "wait",
    ) -> None:
        self.sink = sink
        self.stops = stops
        self.follow = follow
        self.quiet_children = quiet_children and not follow
        self.use_seccomp = use_seccomp and (follow or quiet_children)
        self.exit_kill = exit_kill
        self.on_interrupt = on_interrupt
        self.tracees: dict[int, Tracee] = {}
        self.strangers: dict[int, int] = {}
        """Wait statuses of ended children of this process that were no tracees."""
        self.resting: Callable[[], float | None] | None = None
        """Told when no stop is waiting and the sink has nothing to do. How long to sleep at
        most, in seconds, before the sink is asked again; None: until something happens."""
        self.interrupted: int | None = None
        """The last signal that asked us to end."""
        self._early: dict[int, int] = {}  # stopped children that nobody announced yet
        self._adopted: set[int] = set()  # those that we could not wait any longer for
        self._batch: deque[tuple[int, int]] = deque()
        self._first = 0
        self._status: int | None = None
        self._spawned: set[int] = set()
        self._working = True  # the sink may have work queued
        self._signals = OwnSignals(self._signalled)
        self._x32: set[int] = set()  # processes that were told of
        self._first_stopped = False  # in a group-stop, as far as we know
        self._stop_with = False  # we are to stop as soon as the first tracee has

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
        program = self._program()
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
        options = px.PTRACE_O_TRACESYSGOOD | px.PTRACE_O_TRACEEXEC
        if self.exit_kill:
            options |= px.PTRACE_O_EXITKILL
        if program is not None:
            options |= px.PTRACE_O_TRACESECCOMP
        if self.follow or self.quiet_children:
            options |= px.PTRACE_O_TRACEFORK | px.PTRACE_O_TRACEVFORK | px.PTRACE_O_TRACECLONE
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
        self._spawned.add(pid)
        self._first = self._first or pid
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

    def _program(self) -> bytes | None:
        """The filter for a spawned tracee, if there is to be one."""
        if not self.use_seccomp:
            return None
        try:
            return self.stops.merged(_WATCH).compile()
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
                    self._reaped(pid, status)
                    return
                self._spawned.discard(pid)
                if self._first == pid:
                    self._first = 0
                raise failure
            if status >> 16 == px.PTRACE_EVENT_EXEC:
                tracee.silent = False
                self._handle(tracee, status)
                return
            self._resume_from(tracee, status)

    def attach(self, pid: int) -> None:
        """Trace all threads of a running process. Raises AttachError."""
        _check_machine()
        self._signals.block()
        from bpftrace_sys.record.ptrace.refusals import status_number, why_not

        tgid = status_number(pid, "Tgid") or pid
        if tgid == os.getpid():
            raise AttachError(pid, errno.EPERM, f"process {pid} is bpfstrace itself")
        options = px.PTRACE_O_TRACESYSGOOD | px.PTRACE_O_TRACEEXEC | px.PTRACE_O_TRACECLONE
        if self.follow:
            options |= px.PTRACE_O_TRACEFORK | px.PTRACE_O_TRACEVFORK
        seen: set[int] = set()
        seized = 0
        while True:
            # Threads may be born while we look: until a look finds no new one.
            try:
                tids = {int(name) for name in os.listdir(f"/proc/{tgid}/task")} - seen
            except OSError:
                tids = set()
            if not tids:
                break
            seen |= tids
            for tid in sorted(tids - self.tracees.keys()):
                try:
                    px.seize(tid, options)
                except OSError as error:
                    if tid == tgid and status_number(tid, "TracerPid") == os.getpid():
                        continue  # a child of one of our tracees
                    if not seized and error.errno != errno.ESRCH:
                        why = why_not(pid, tid, error.errno or 0)
                        raise AttachError(pid, error.errno or 0, why) from None
                    continue
                seized += 1
                tracee = Tracee(tid, tgid)
                tracee.every_call = True
                tracee.attached = True
                self.tracees[tid] = tracee
                try:
                    px.interrupt(tid)
                except OSError:
                    pass
        if not seen:
            raise AttachError(pid, errno.ESRCH, f"no process {pid}")

    # -- the loop -----------------------------------------------------------

    def run(self) -> int:
        """Until no tracee is left. Returns the wait status of the first spawned
        process (see os.waitstatus_to_exitcode), 0 if there was none."""
        self._signals.block()
        try:
            self._loop()
            while self.sink.idle():
                pass
        finally:
            self._signals.unblock()
        return self._status or 0

    def _loop(self) -> None:
        fetch, size, address, unpack_entry, unpack_exit, buffer, resume, nothing = px.bind_hot()
        get_info = px.PTRACE_GET_SYSCALL_INFO
        waitpid = os.waitpid
        time_ns = time.time_ns
        flags = os.WNOHANG | px.WALL
        syscall_stop, seccomp_stop = px.SYSCALL_STOP, px.SECCOMP_STOP
        cont, step = px.PTRACE_CONT, px.PTRACE_SYSCALL
        # Numbers that the hot path leaves to _seccomp.
        watched = {
            arch: _WATCH.numbers(arch) | {nr for nr in numbers if arches.is_x32(arch, nr)}
            for arch in arches.NAMES
            for numbers in (self.stops.numbers(arch),)
        }
        none: frozenset[int] = frozenset()
        ours = stop_filter.RET_DATA
        tracees = self.tracees
        batch = self._batch
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
                        while not tid and self._working:
                            self._working = self.sink.idle()
                            tid, status = waitpid(-1, flags)
                        if not tid and pace.polls and len(tracees) <= TRACEES:
                            for _ in repeat(None, pace.polls):
                                tid, status = waitpid(-1, flags)
                                if tid:
                                    pace.polls = pace.most
                                    break
                            else:
                                pace.polls >>= 1
                        if not tid and (tracees or self._spawned) and not self._early:
                            tid, status = self._sleep(pace)
                            if not tid:
                                continue
                    except ChildProcessError:
                        self._vanished()
                        tid = 0
                    if not tid:
                        if self._early:
                            self._adopt()
                            continue
                        if not tracees and not self._spawned:
                            return
                        continue
                    if len(tracees) > 2:
                        # The kernel offers the oldest first: who stops often must
                        # not starve the others.
                        self._collect(flags)
                current = tracee = tracees.get(tid)
                if tracee is None:
                    self._stranger(tid, status)
                    continue
                rounds -= 1
                if not rounds:
                    rounds = _SIGNAL_ROUNDS
                    self._signals.poll()

                # The two hot stops; everything else is _handle's.
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
                        self._seccomp(tracee, info)
                        continue
                    tracee.arch = arch
                    self._working = True
                    if self.sink.entry(tracee, arch, nr, (a0, a1, a2, a3, a4, a5), time_ns()):
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
                            self._leaving(tracee, info[4], info[5] != 0)
                        elif tracee.entered:
                            tracee.entered = False
                            self._working = True
                            self.sink.exit(tracee, info[4], info[5] != 0, time_ns())
                        resume(step if tracee.every_call else cont, tid, nothing, nothing)
                    else:
                        if info[0] == 1:
                            self._entering(tracee, unpack_entry(buffer))
                        resume(step, tid, nothing, nothing)
                else:
                    self._handle(tracee, status)
                current = None
        except BaseException:
            # Out of the sink, most likely; whoever it stopped must not be left so.
            if current is not None and current.tid in tracees:
                more = current.every_call or current.entered
                resume(step if more else cont, current.tid, nothing, nothing)
            raise
        finally:
            pace.close()

    def _sleep(self, pace: Pace) -> tuple[int, int]:
        """Until a stop comes, which it returns, or a signal of our own, or the sink wants to
        go on: (0, 0). Raises ChildProcessError where there is nobody to wait for."""
        wait = None if self.resting is None else self.resting()
        began = time.monotonic_ns()
        if wait is None:
            found = self._signals.wait_child()
        else:
            self._working = True
            self._signals.wait(wait)
            found = 0, 0
        pace.slept(time.monotonic_ns() - began)
        return found

    # -- calls, off the hot path --------------------------------------------

    def _entering(self, tracee: Tracee, info: tuple[int, ...]) -> None:
        """A call begins: tell the sink if it is one of its calls."""
        _, arch, tracee.ip, tracee.sp, nr, *rest = info
        tracee.arch = arch
        args = tuple(rest[:6])
        if _WATCH.wants(arch, nr, args):
            self._watched(tracee, arch, nr, args)
        if not tracee.silent and (
            self.stops.wants(arch, nr, args)
            or (tracee.also is not None and tracee.also.wants(arch, nr, args))
        ):
            if arches.is_x32(arch, nr):
                tracee.entered = False
                self._told_x32(tracee)
                return
            self._working = True
            tracee.entered = self.sink.entry(tracee, arch, nr, args, time.time_ns())
        else:
            tracee.entered = False

    def _watched(self, tracee: Tracee, arch: int, nr: int, args: tuple[int, ...]) -> None:
        """One of the few calls that change how we trace."""
        called = arches.name(arch, nr)
        what = args[0] & 0xFFFFFFFF
        if called == "prctl" and what == _PR_SET_NAME:
            # By the time that anybody asks, the call is over.
            tracee._comm = None
        elif called in ("prctl", "seccomp"):
            tracee.watched = "seccomp"
        elif called == "ptrace":
            tracee.watched = "ptrace"
            tracee.target = args[1] & 0xFFFFFFFF if what != _PTRACE_TRACEME else 0
        elif called and (self.follow or self.quiet_children or tracee.attached):
            self._unhide(tracee, called, args)

    def _unhide(self, tracee: Tracee, called: str, args: tuple[int, ...]) -> None:
        """A clone or clone3: none that we follow may have a child that we do not get."""
        from bpftrace_sys.record.ptrace.clone_untraced import asked_for, clear

        if not asked_for(tracee.memory, called, args):
            return
        tracee.cleared = clear(tracee.tid, tracee.arch, tracee.memory, called, args)
        if tracee.cleared is not None:
            tracee.watched = "clone"
            says = "it is traced all the same, without that flag"
        else:
            lost = ", and the calls that we trace fail there" if self.use_seccomp else ""
            says = f"which hides it from us{lost}"
        if not tracee.silent and not (self.quiet_children and tracee.cleared):
            self.sink.note(tracee, f"{tracee.comm} starts a child with CLONE_UNTRACED: {says}")

    def _told_x32(self, tracee: Tracee) -> None:
        if tracee.pid in self._x32:
            return
        self._x32.add(tracee.pid)
        self.sink.note(
            tracee,
            f"{tracee.comm} makes system calls through the x32 ABI, which bpfstrace does not"
            " know: they are not shown",
        )

    def _seccomp(self, tracee: Tracee, info: tuple[int, ...]) -> None:
        """A seccomp stop that is not simply the entry of a call for the sink."""
        data = info[-1]
        if not tracee.every_call:
            self._entering(tracee, info)
        if data != stop_filter.RET_DATA and tracee.injected is None:
            # The tracee's own filter asks for a tracer that it does not have: the
            # kernel would fail the call, and so it shall.
            self._skip(tracee, -errno.ENOSYS)
        more = tracee.every_call or tracee.entered or tracee.watched or tracee.injected is not None
        px.resume(px.PTRACE_SYSCALL if more else px.PTRACE_CONT, tracee.tid)

    def watch(self, tracee: Tracee, calls: StopFilter | None) -> None:
        """From within a sink: stop this thread for ``calls`` too; None: no longer.

        Until then every call of the thread stops it, so this is for moments.
        """
        if calls is not None:
            if not tracee.lapsing and tracee.also is None:
                tracee.unfiltered = tracee.every_call
            tracee.every_call = True
            tracee.lapsing = False
        elif tracee.also is not None:
            # Not at once: this may be a call's entry, which the filter, too, will report.
            tracee.lapsing = True
            tracee.watched = tracee.watched or "also"
        tracee.also = calls

    def inject(self, tracee: Tracee, ret: int) -> bool:
        """From within Sink.entry: the call is not to be executed but to return
        ``ret`` (signed, a negative errno to fail), which Sink.exit is then told.

        Entry must answer True. False: the kernel refused (the tracee is gone).
        """
        return self._skip(tracee, ret)

    def _skip(self, tracee: Tracee, ret: int) -> bool:
        from bpftrace_sys.record.ptrace.registers import skip_syscall

        if not skip_syscall(tracee.tid):
            return False
        tracee.injected = ret
        return True

    def _leaving(self, tracee: Tracee, ret: int, failed: bool) -> None:
        """The exit of a call that we had an interest in ourselves."""
        if tracee.injected is not None:
            ret = tracee.injected
            failed = -4096 < ret < 0
            tracee.injected = None
            from bpftrace_sys.record.ptrace.registers import set_return

            set_return(tracee.tid, ret)
        watched, tracee.watched = tracee.watched, ""
        if tracee.lapsing:
            tracee.lapsing = False
            tracee.every_call = tracee.unfiltered
        if watched == "seccomp" and ret >= 0:
            # Its filter may now refuse calls before ours can report them: from
            # here on every call stops, ahead of all filters. Its other threads
            # may have been given the filter too (SECCOMP_FILTER_FLAG_TSYNC).
            for other in self.tracees.values():
                if other.pid == tracee.pid:
                    other.every_call = other.unfiltered = True
        elif watched == "clone" and tracee.cleared is not None:
            tracee.cleared.put_back(tracee.tid, child=False)
            tracee.cleared = None
        elif watched == "ptrace" and failed and -ret in (errno.EPERM, errno.ESRCH):
            self._told_ptrace(tracee)
        if tracee.entered:
            tracee.entered = False
            self._working = True
            self.sink.exit(tracee, ret, failed, time.time_ns())

    def _told_ptrace(self, tracee: Tracee) -> None:
        if tracee.silent or (tracee.target and tracee.target not in self.tracees):
            return
        whom = f"process {tracee.target}" if tracee.target else "itself"
        self.sink.note(
            tracee,
            f"{tracee.comm} asked to trace {whom} with ptrace and was refused, since bpfstrace"
            " traces it and a process has one tracer only",
        )

    # -- all other stops ----------------------------------------------------

    def _handle(self, tracee: Tracee, status: int) -> None:
        tid = tracee.tid
        if not os.WIFSTOPPED(status):
            self._ended(tracee, status)
            return
        event = status >> 16
        if event in _FORKS:
            self._forked(tracee, _FORKS[event])
        elif event == px.PTRACE_EVENT_STOP and tracee.cleared is not None:
            if tracee.watched != "clone":  # it is the child, in its first stop
                tracee.cleared.put_back(tid, child=True)
                tracee.cleared = None
        elif event == px.PTRACE_EVENT_EXEC:
            tracee = self._execed(tid)
        if tracee.detach:
            self._detach(tracee, status)
            return
        self._resume_from(tracee, status)

    def _resume_from(self, tracee: Tracee, status: int) -> None:
        """Let go of a stop: with its signal, in its group-stop, or just so."""
        event = status >> 16
        number = status >> 8 & 0xFF
        if event == px.PTRACE_EVENT_STOP and number in _STOP_SIGNALS:
            # A group-stop: it stays stopped until SIGCONT, which we hear of.
            px.resume(px.PTRACE_LISTEN, tracee.tid)
            if tracee.pid == self._first:
                self._first_stopped = True
                if self._stop_with:
                    self._stop_ourselves()
            return
        if tracee.pid == self._first:
            self._first_stopped = False
        if event or number == (signal.SIGTRAP | 0x80):
            number = 0
        elif number in OURS and tracee.pid in self._spawned:
            # Ours of the same sender, if it is there, is to find this one before it is gone.
            barrier()
            self._signals.poll()
        step = tracee.every_call or tracee.entered or tracee.watched
        # The kernel keeps the signal's siginfo as long as the number is the same.
        px.resume(px.PTRACE_SYSCALL if step else px.PTRACE_CONT, tracee.tid, number)

    def _ended(self, tracee: Tracee, status: int) -> None:
        tid = tracee.tid
        self.tracees.pop(tid, None)
        tracee.memory.close()
        self._reaped(tid, status)
        if tracee.silent:
            return
        self._working = True
        if os.WIFSIGNALED(status):
            self.sink.exited(tracee, None, os.WTERMSIG(status), os.WCOREDUMP(status))
        else:
            self.sink.exited(tracee, os.WEXITSTATUS(status), None, False)

    def _reaped(self, tid: int, status: int) -> bool:
        """Whether this was the end of one of the processes that we started."""
        if tid not in self._spawned:
            return False
        self._spawned.discard(tid)
        if tid == self._first:
            self._status = status
        return True

    def _gone(self, tracee: Tracee) -> None:
        """No tracee of ours any more, though nobody reported its end."""
        if self.tracees.get(tracee.tid) is tracee:
            del self.tracees[tracee.tid]
        tracee.memory.close()
        if not tracee.silent:
            self._working = True
            self.sink.exited(tracee, None, None, False)

    def _forked(self, parent: Tracee, how: str) -> None:
        try:
            tid = px.geteventmsg(parent.tid)
        except OSError:
            return  # killed in this very stop; the child gets adopted
        if tid in self._adopted:
            # It could not be waited for any longer, and has been announced; unless
            # that one has ended, and this is another child of the same id.
            self._adopted.discard(tid)
            if tid in self.tracees or not os.path.exists(f"/proc/{tid}"):
                return
        # clone() with CLONE_THREAD and SIGCHLD or CLONE_VFORK is odd, but can be.
        thread = os.path.exists(f"/proc/{parent.pid}/task/{tid}")
        child = self._new_child(parent, tid, parent.pid if thread else tid)
        self._announce(parent, child, how)
        early = self._early.pop(tid, None)
        if early is not None:
            self._handle(child, early)
            return
        late = self.strangers.pop(tid, None)
        if late is not None and not os.path.exists(f"/proc/{tid}"):
            # Killed before it ever stopped. (An older one of that id, if it is there.)
            self._ended(child, late)

    def _announce(self, parent: Tracee, child: Tracee, how: str) -> None:
        if not child.silent and not child.detach:
            self._working = True
            self.sink.forked(
                parent, child.tid, child.pid, "thread" if child.pid == parent.pid else how
            )

    def _new_child(self, parent: Tracee | None, tid: int, pid: int) -> Tracee:
        child = Tracee(tid, pid)
        if parent is None:
            child.every_call = not self.use_seccomp
            child.silent = not self.follow
        else:
            watching = parent.lapsing or parent.also is not None
            child.every_call = parent.unfiltered if watching else parent.every_call
            child.silent = parent.silent or self.quiet_children
            child.attached = parent.attached
            child.cleared = parent.cleared
            # An attached process's new threads are its own; its children are not.
            child.detach = parent.detach or (
                parent.attached and not self.follow and pid != parent.pid
            )
        self.tracees[tid] = child
        return child

    def _adopt(self) -> None:
        """Children that stopped, but whose parents' events did not come."""
        from bpftrace_sys.record.ptrace.refusals import status_number

        for tid, status in list(self._early.items()):
            del self._early[tid]
            pid = status_number(tid, "Tgid")
            if pid is None:
                continue  # killed; its end is still to be heard of
            of_thread = (tracee for tracee in self.tracees.values() if tracee.pid == pid)
            parent = self.tracees.get(pid) or next(of_thread, None)
            if parent is None:
                parent = self.tracees.get(status_number(tid, "PPid") or 0)
            child = self._new_child(parent, tid, pid)
            self._adopted.add(tid)
            if parent is not None:
                self._announce(parent, child, "fork")
            self._handle(child, status)

    def _execed(self, tid: int) -> Tracee:
        tracee = self.tracees[tid]
        try:
            former = px.geteventmsg(tid)
            info: tuple[int, ...] | None = px.syscall_info(tid)
        except OSError as error:
            if error.errno == errno.EIO:
                raise EngineError(
                    f"Linux {os.uname().release} lacks PTRACE_GET_SYSCALL_INFO (of Linux 5.3),"
                    " without which bpfstrace cannot tell what a program calls"
                ) from None
            former, info = tid, None
        if former != tid and former in self.tracees:
            # Another thread than the leader: it has taken over the leader's id,
            # and the leader is gone without a word.
            leader, tracee = tracee, self.tracees.pop(former)
            self._gone(leader)
            tracee.memory.close()
            tracee.memory = LiveMemory(tid)
            tracee.tid = tid
            tracee.silent = leader.silent
            self.tracees[tid] = tracee
        tracee.former_tid = former
        tracee.memory.close()
        tracee._comm = None
        if info is not None:
            _, tracee.arch, tracee.ip, tracee.sp, *_ = info
        if not tracee.silent:
            self._working = True
            if tracee.arch and tracee.arch not in arches.NAMES:
                self.sink.note(
                    tracee,
                    f"{tracee.comm} is a program of an architecture that bpfstrace does not"
                    f" know (AUDIT_ARCH {tracee.arch:#x}): its calls are not shown",
                )
            self.sink.execed(tracee)
        return tracee

    def _stranger(self, tid: int, status: int) -> None:
        """A status of somebody that we do not know, or do not know yet."""
        if os.WIFSTOPPED(status):
            self._early[tid] = status
        else:
            self._early.pop(tid, None)
            self._adopted.discard(tid)
            if not self._reaped(tid, status):
                self.strangers[tid] = status

    def _collect(self, flags: int) -> None:
        try:
            for _ in range(_BATCH):
                tid, status = os.waitpid(-1, flags)
                if not tid:
                    return
                self._batch.append((tid, status))
        except ChildProcessError:
            pass  # all that there was is in the batch

    def _vanished(self) -> None:
        """There is nothing to wait for: whatever we still list is not there."""
        for tracee in list(self.tracees.values()):
            self._gone(tracee)
        self._early.clear()
        self._spawned.clear()

    # -- letting go ---------------------------------------------------------

    def detach_all(self) -> None:
        """Ask every attached process to stop once more, to be detached from there.

        Spawned tracees stay: the filter that they carry needs its tracer.
        """
        for tracee in self.tracees.values():
            if tracee.attached and not tracee.detach:
                tracee.detach = True
                try:
                    px.interrupt(tracee.tid)
                except OSError:
                    pass

    def _detach(self, tracee: Tracee, status: int) -> None:
        number = status >> 8 & 0xFF
        if status >> 16 or number == (signal.SIGTRAP | 0x80):
            number = 0  # not a signal on its way; a group-stop goes on by itself
        try:
            px.detach(tracee.tid, number)
        except OSError:
            pass
        self._gone(tracee)

    # -- our own signals ----------------------------------------------------

    def _signalled(self, number: int, code: int, sender: int) -> None:
        terminal = code == _SI_KERNEL
        if number == signal.SIGTSTP and self.on_interrupt == "ignore-stop":
            return
        if number == signal.SIGTSTP:
            # Ctrl-Z: our tracees got it too, and may want to tidy up or to ignore
            # it. We stop when the first of them has.
            if terminal and self._first in self.tracees and not self._first_stopped:
                self._stop_with = True
            else:
                self._stop_ourselves()
            return
        again = self.interrupted is not None
        self.interrupted = number
        if self.on_interrupt in ("ignore", "ignore-stop"):
            return
        attached = any(tracee.attached for tracee in self.tracees.values())
        if attached and again:
            # Somebody is in a hurry: the kernel detaches what is left at our end.
            for tracee in [t for t in self.tracees.values() if t.attached]:
                self._gone(tracee)
        elif attached:
            self.detach_all()
        for pid in self._spawned:
            ending = self.on_interrupt == "end"
            if ending and again:
                _kill(pid, signal.SIGKILL)
            elif ending or not terminal:  # Ctrl-C is for those that the terminal sends it to
                tids = [tid for tid, tracee in self.tracees.items() if tracee.pid == pid]
                if not comes_by_itself(pid, tids, number, sender):
                    _kill(pid, number)
                if ending:
                    _kill(pid, signal.SIGCONT)

    def _stop_ourselves(self) -> None:
        self._stop_with = False
        while self.sink.idle():
            pass
        stop_ourselves()


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass  # it has ended, or has become another user's


def _check_machine() -> None:
    if not arches.of_machine():
        raise EngineError(f"bpfstrace does not know the system calls of {os.uname().machine}")
