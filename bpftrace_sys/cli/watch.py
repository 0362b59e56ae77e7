"""Tracing with the engine made of eBPF: -a, and --engine bpf."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bpftrace_sys.cli.beginning import bind_to_this_cpu
from bpftrace_sys.cli.getopt_long import UsageError
from bpftrace_sys.cli.live import (
    OWN_FAILURE,
    Telling,
    ending_of,
    environment,
    leave,
    on_interrupt,
    say_fault,
)
from bpftrace_sys.cli.outputs import Outputs
from bpftrace_sys.cli.spawn_failures import spawn_failure
from bpftrace_sys.cli.watch_signals import Signals
from bpftrace_sys.cli.watch_source import Source
from bpftrace_sys.record.ebpf.cgroups import Cgroups
from bpftrace_sys.record.ebpf.engine import CALLS, RING, Told, Wanted, Watch
from bpftrace_sys.record.ptrace.errors import EngineError
from bpftrace_sys.record.ptrace.spawn import SpawnError, Starting, start
from bpftrace_sys.render.output import complain
from decoders.events import Ending, Lost, ProcessEvent
from decoders.loop_calls import Rounds
from decoders.raw import RawCall

if TYPE_CHECKING:
    from bpftrace_sys.cli.settings import Settings
    from bpftrace_sys.record.ebpf.records import WhoRecord
    from bpftrace_sys.trace.inventory import ObjectState, Unseen

NEEDS_STOPS: Final = {
    "stacks": "-k: nobody is stopped whose stack could be read",
    "injections": "-e inject=: calls cannot be kept from being executed",
    "background": "-D",
    "kill": "--kill-on-exit: PROG is not held by bpfstrace",
}
"""Settings that this engine cannot serve."""
STRANGERS: Final = 8_192
"""Processes of which is remembered who they are."""


def unserved(settings: Settings) -> str | None:
    """Why these settings cannot be had with this engine; None where they can."""
    instead = "" if settings.everybody else "; try: --engine ptrace"
    for name, why in NEEDS_STOPS.items():
        if getattr(settings, name):
            return f"--engine bpf cannot do {why}{instead}"
    others = sorted(set(settings.traced) - set(CALLS))
    if others:
        return f"--engine bpf traces {', '.join(CALLS)}, not {', '.join(others)}{instead}"
    return None


def wanted_of(settings: Settings) -> Wanted:
    """The calls of whom the settings ask for."""
    from bpftrace_sys.cli.expressions import bpf_commands

    return Wanted(
        calls=tuple(name for name in CALLS if name in settings.traced),
        explicit=settings.explicit,
        commands=bpf_commands(settings.commands) if settings.commands else None,
        everybody=settings.everybody,
        follow=settings.follow,
        uid=None if settings.uid is None else user_id(settings.uid),
        cgroup=settings.cgroup,
        ring=settings.ring or RING,
    )


def user_id(text: str) -> int:
    """A user's number, by name or number; UsageError for one that is unknown."""
    if text.isascii() and text.isdigit():
        return int(text)
    import pwd

    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise UsageError(f"--uid {text}: there is no such user") from None


def watch(settings: Settings) -> int:
    """Traces by eBPF; returns the exit code, or dies by the program's signal."""
    refusal = unserved(settings)
    if refusal is not None:
        raise UsageError(refusal)
    engine = Watch(wanted_of(settings))
    outputs = Outputs.asked(settings)
    if settings.same_cpu:
        bind_to_this_cpu()
    source = Source(engine)
    telling = Telling(settings, outputs, source)
    if settings.kernel and not (settings.counts and settings.json is None):
        from bpftrace_sys.record.capture.kernel_views import KernelViews

        telling.views = source.views = KernelViews(settings.kernel)
    return Session(settings, engine, telling).run()


class Session:
    """One trace: from attaching the programs to the summary."""

    def __init__(self, settings: Settings, engine: Watch, telling: Telling) -> None:
        self.settings = settings
        self.engine = engine
        self.telling = telling
        self.signals = Signals()
        self._starting: Starting | None = None
        self._status: int | None = None
        self._ended_by = 0
        """The signal to us that ended it."""
        self._complained = False
        self._narrow = False
        self._cgroups = Cgroups()
        self._introducing = settings.everybody or settings.events is not None
        self._strangers: dict[int, WhoRecord] = {}
        """Processes that asked something, but nothing yet that was told."""
        self._known: dict[int, bool] = {}

    def run(self) -> int:
        """The exit code."""
        try:
            return self._run()
        except Exception as error:
            self._failed(error)
            return OWN_FAILURE

    def _failed(self, error: Exception) -> None:
        """A fault of ours: the kernel's programs are taken out, the trace is finished, and the
        program runs to its end."""
        for tidy in (self._close, self.engine.close):
            with contextlib.suppress(Exception):
                tidy()
        if self._starting is not None:
            with contextlib.suppress(Exception):
                self._starting.go()
        say_fault(error, "the trace ends here", self.settings.debug)
        with contextlib.suppress(Exception):
            while self.telling.step():
                pass
        with contextlib.suppress(Exception):
            self.telling.end(Ending(error=f"{type(error).__name__}: {error}".rstrip(": ")))
        if self._starting is not None and self._status is None:
            # A terminal's Ctrl-C is the program's.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._starting.pid, 0)

    def _run(self) -> int:
        settings, engine = self.settings, self.engine
        try:
            self._open()
            self.signals.open(engine)
            if settings.stats:
                self._count_runs()
            held = self._attach() if settings.pids else []
            self.telling.count_held(held)
            if settings.args:
                self._spawn()
        except (EngineError, SpawnError) as error:
            self._close()
            engine.close()
            if isinstance(error, SpawnError):
                complain(spawn_failure(error, settings.args))
                return error.exit_code
            complain(str(error))
            return OWN_FAILURE
        capture = self.telling.capture
        capture.before = engine.before
        while self.telling.step():
            pass
        for item in held:
            capture.take(item)
        take = self._introduce if self._introducing else capture.take
        engine.tell(Told(take, self._take_rounds, self._who, self._lost, self._unseen))
        self.telling.facts.types = engine.records.types
        if not engine.numbered_alike:
            complain(
                "bpfstrace runs in a pid namespace: processes are shown by the numbers that "
                "they have outside of it"
            )
        if settings.everybody and not settings.quiet and sys.stderr.isatty():
            complain("watching the whole machine; Ctrl-C ends it")
        self._loop()
        return self._end()

    def _open(self) -> None:
        """Loads and attaches, while what telling needs is imported: the verifier takes as long."""
        failed: list[BaseException] = []

        def tried(what: Callable[[], None]) -> None:
            try:
                what()
            except BaseException as error:
                failed.append(error)

        loading = threading.Thread(target=tried, args=(self.engine.open,))
        try:
            loading.start()
        except RuntimeError:  # no more threads
            tried(self.engine.open)
        else:
            tried(self.telling.get_ready)
            loading.join()
        # What the kernel refuses is of more interest than what came of it.
        failed.sort(key=lambda error: not isinstance(error, EngineError))
        if failed:
            raise failed[0]

    def _count_runs(self) -> None:
        """--stats"""
        from bpftrace_sys.record.ebpf.held_runs import HeldRuns

        engine = self.engine
        newest = engine.before.get("prog", 0)
        stats = self.telling.count_runs(lambda: HeldRuns(engine.holders, newest))
        if isinstance(stats, HeldRuns):
            self.telling.capture.runs = stats

    def _attach(self) -> list[ObjectState | Unseen]:
        """Watches the processes that were asked for; returns what they hold."""
        from bpftrace_sys.record.machine.opening import Opening

        opening = Opening(self.settings.pids)
        for pid in self.settings.pids:
            self.engine.attach(pid)
        return opening.held()

    def _spawn(self) -> None:
        settings = self.settings
        starting = self._starting = start(
            settings.args,
            bpf_filter=None,
            mask=set(),
            env=environment(settings),
            argv0=settings.argv0,
            user=settings.user,
        )
        self.engine.spawned(starting.pid)
        self.signals.child(starting.pid)
        starting.go()

    def _loop(self) -> None:
        """Until everybody who is watched has ended, or somebody ends us."""
        engine, settings = self.engine, self.settings
        while not self.telling.limited:
            count = engine.read()
            for number in self.signals.taken():
                if self._ends(number):
                    return
            if count:
                continue
            if self._starting is not None and self._status is None:
                self._reap()
            if not settings.everybody and self._all_ended():
                return
            engine.wait(self.telling.rest())

    def _reap(self) -> None:
        """Whether the program has ended."""
        assert self._starting is not None
        pid, status = os.waitpid(self._starting.pid, os.WNOHANG)
        if pid:
            self._status = status
            self.signals.child_ended()

    def _all_ended(self) -> bool:
        if self._starting is None:
            return not self.engine.alive
        # Where events were lost, or name others than we do, who is left cannot be known.
        unknown = bool(self.engine.lost.events) or not self.engine.numbered_alike
        return self._status is not None and (
            not self.engine.alive or not self.settings.follow or unknown
        )

    def _ends(self, number: int) -> bool:
        """What a signal to us does. True: the trace ends."""
        settings = self.settings
        how = on_interrupt(settings)
        if how.startswith("ignore"):
            return False
        if self._starting is None or self._status is not None:
            if number == signal.SIGHUP and self.telling.outputs.reopen():
                return False
            self._ended_by = number
            return True
        if number != signal.SIGINT or how == "end":
            # A terminal's Ctrl-C reaches the program by itself.
            with contextlib.suppress(OSError):
                os.kill(self._starting.pid, number)
        return False

    def _end(self) -> int:
        settings, engine = self.settings, self.engine
        # What comes until now is read: of a flood, what the ring holds.
        engine.stop()
        while engine.read():
            pass
        self._close()
        limited = self.telling.limited
        code = None if self._status is None or limited else os.waitstatus_to_exitcode(self._status)
        lost = engine.lost
        ending = Ending() if code is None else ending_of(code)
        ending = ending._replace(lost=lost or None, left_alone=engine.left_alone)
        whole = self.telling.end(ending)
        engine.close(behind=True)
        error = None if self._starting is None else self._starting.error()
        if error is not None:
            complain(spawn_failure(error, settings.args))
            return error.exit_code
        if lost or not whole:
            return OWN_FAILURE
        if code is None:
            # Of everybody's calls nobody sees the end but who ends it: that is how it is done.
            code = 0 if settings.everybody else -self._ended_by
        return leave(code)

    def _close(self) -> None:
        self.signals.close()

    # ------------------------------------------------------------ what is told besides calls

    def _who(self, who: WhoRecord) -> None:
        """A process appears: told before its first call, if that is one that we tell."""
        if self._introducing:
            self._strangers[who.pid] = who
            if len(self._strangers) > STRANGERS:
                del self._strangers[next(iter(self._strangers))]

    def _introduce(self, item: RawCall | ProcessEvent) -> None:
        """Tells who somebody is ahead of what they do; of others nothing is told at all."""
        take = self.telling.capture.take
        if isinstance(item, RawCall):
            who = self._strangers.pop(item.pid, None)
            if who is not None:
                from bpftrace_sys.record.ebpf.who import who_is

                self._known[who.pid] = True
                if len(self._known) > STRANGERS:
                    del self._known[next(iter(self._known))]
                take(ProcessEvent(who_is(who, self._cgroups), who.time, who.pid, who.tid))
        elif not isinstance(item.what, Lost):
            ended = item.ends_process
            if ended:
                self._strangers.pop(item.pid, None)
            known = self._known.pop(item.pid, False) if ended else item.pid in self._known
            if not known and self.settings.everybody:
                return
        take(item)

    def _take_rounds(self, rounds: Rounds) -> None:
        """Calls of loops; nearly always of those who were introduced with an earlier one."""
        strangers = self._strangers
        if strangers and any(strand.like.pid in strangers for strand in rounds.strands):
            for call in rounds.calls():
                self._introduce(call)
        else:
            self.telling.capture.take(rounds)

    def _lost(self, lost: Lost) -> None:
        event = ProcessEvent(lost, time.time_ns(), 0, 0)
        self.telling.capture.take(event)
        if not self._complained:
            self._complained = True
            complain("calls were lost, as the ring was full; a greater one (--ring) loses fewer")


    def _unseen(self, pid: int) -> None:
        """Said once."""
        if not self._narrow:
            self._narrow = True
            complain(
                f"process {pid} runs a 32-bit program: by tracepoints the calls of such are not "
                "seen; --engine ptrace sees them"
            )
