"""Tracing: engine -> capture -> pipeline, and how it ends."""

from __future__ import annotations

import os
import sys
import time

from bpftrace_sys.cli.messages import OWN_FAILURE as OWN_FAILURE
from bpftrace_sys.cli.messages import fault_words
from bpftrace_sys.cli.outputs import Outputs
from bpftrace_sys.cli.settings import INTERRUPTIBLE, Settings, narrowed
from bpftrace_sys.cli.slow_calls import slow_calls
from bpftrace_sys.common.light import signal, suppress
from bpftrace_sys.record.capture.sink import Capture
from bpftrace_sys.record.ptrace.engine import ArgRule, Engine, EngineError, SpawnError, StopFilter
from bpftrace_sys.record.ptrace.nobody import Nobody
from bpftrace_sys.render.output import complain
from decoders.events import Ending

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final, Literal

    from bpftrace_sys.cli.call_limit import CallLimit
    from bpftrace_sys.export.live_redaction import LiveRedaction
    from bpftrace_sys.record.capture.kernel_views import KernelViews
    from bpftrace_sys.record.capture.run_stats import RunStats
    from bpftrace_sys.record.machine.live_facts import LiveFacts
    from bpftrace_sys.story.faults import Faults
    from bpftrace_sys.story.pipeline import Pipeline
    from bpftrace_sys.trace.inventory import ObjectState, Unseen
    from bpftrace_sys.trace.items import Take
    from decoders.events import ProcessEvent


def stop_filter(settings: Settings) -> StopFilter:
    """Which calls stop a tracee."""
    from decoders.uapi.const import BPF_COMMON_ATTRS
    from decoders.uapi.perf import perf_event_ioc, perf_event_ioc_compat32
    from decoders.uapi.system import kcm_ioctl, so_filter, tun_ioctl

    rules: dict[str, ArgRule | None] = dict.fromkeys(settings.traced)
    if "bpf" in rules and settings.commands:
        from bpftrace_sys.cli.expressions import bpf_commands

        rules["bpf"] = ArgRule(0, bpf_commands(settings.commands), mask=~BPF_COMMON_ATTRS)
    if "ioctl" in rules and "ioctl" not in settings.explicit:
        rules["ioctl"] = ArgRule(
            1, frozenset({*perf_event_ioc, *perf_event_ioc_compat32, *tun_ioctl, *kcm_ioctl})
        )
    if "setsockopt" in rules and "setsockopt" not in settings.explicit:
        rules["setsockopt"] = ArgRule(2, frozenset(so_filter))
    return StopFilter(rules)


def trace(settings: Settings, own_process: bool = False) -> int:
    """Runs a program under the tracer; returns the exit code, or dies by its signal.

    ``own_process``: as main()'s.
    """
    telling = Telling(settings, Outputs.asked(settings))
    if settings.same_cpu:
        from bpftrace_sys.cli.beginning import bind_to_this_cpu

        bind_to_this_cpu()  # before there is an engine, which looks at where it may run
    capture = telling.capture
    engine = Engine(
        capture,
        follow=settings.follow,
        stops=stop_filter(settings),
        # Who is to be let go of cannot carry a filter.
        use_seccomp=settings.seccomp and settings.limit is None,
        on_interrupt=on_interrupt(settings),
    )
    capture.watches(engine.watch)
    capture.fault = telling.fault
    telling.let_go = engine.let_go
    if settings.limit is not None:
        capture.waiting = 0
    shown = not settings.counts or settings.json is not None
    if settings.stacks and shown:
        from bpftrace_sys.record.stacks.stacks import Stacks

        capture.stacks = Stacks()
    if settings.style == "strace":
        from bpftrace_sys.cli import strace_live

        strace_live.prepare(settings, capture, engine)
    if settings.kernel and shown:
        from bpftrace_sys.record.capture.kernel_views import KernelViews

        views = telling.views = KernelViews(settings.kernel)
        capture.watchers.append(views)
    if settings.stats and (stats := telling.count_runs()) is not None:
        capture.watchers.append(stats)
        engine.tell_leaving(stats.leaving)
    if settings.injections:
        capture.inject(settings.injections, engine.inject)
    trouble: SpawnError | EngineError | None = None
    fault: Exception | None = None
    status = 0

    def get_ready() -> None:
        # The program waits for nobody here, and is not to wait for somebody who has gone.
        nonlocal fault
        try:
            capture.get_ready()
        except Exception as error:
            fault = error

    engine.resting = telling.rest
    if settings.commands or "bpf" not in settings.traced:
        # The calls that make objects are not seen, so what is older is known only from now.
        _ = capture.before
    try:
        if settings.pids:
            from bpftrace_sys.cli.beginning import attach
            from bpftrace_sys.record.machine.opening import Opening

            capture.get_ready()
            opening = Opening(settings.pids)
            attach(engine, settings.pids, alone=not settings.args)
            if settings.style == "strace":
                strace_live.tell_attached(settings, engine)
            held = opening.held()
            capture.first(held)
            telling.count_held(held)
        if settings.args:
            engine.spawn(
                settings.args,
                env=environment(settings),
                argv0=settings.argv0,
                user=settings.user,
                background=settings.background,
                meanwhile=get_ready,
            )
            if fault is not None:
                raise fault
        if own_process:
            from bpftrace_sys.cli.streams import let_go

            let_go({1} if telling.outputs.to_stdout else set())
        # The program runs, up to its first call that concerns us, while the rest is imported.
        status = engine.run()
    except (SpawnError, EngineError) as error:
        trouble = error
    except Exception as error:
        unseen(engine, telling, error)
        with suppress(Exception):
            telling.end(Ending(error=f"{type(error).__name__}: {error}".rstrip(": ")))
        return OWN_FAILURE
    if trouble is not None:
        complain(_why(trouble, settings.args))
        telling.end(Ending(error=str(trouble)))
        if isinstance(trouble, SpawnError):
            return trouble.exit_code if settings.args[0] else 127
        return OWN_FAILURE
    if (settings.pids or telling.limited) and settings.style == "strace":
        strace_live.tell_detached(settings, capture)
    if telling.limited:
        return 0 if telling.end(Ending()) else OWN_FAILURE
    code = os.waitstatus_to_exitcode(status)
    whole = telling.end(ending_of(code)._replace(left_alone=engine.left_alone))
    if engine.interrupted is not None and not settings.args:
        code = -engine.interrupted  # nobody's status is ours to pass on
    return leave(code) if whole else OWN_FAILURE


RESERVE: Final = 4 << 20
ATTEMPTS: Final = 1000
"""How often the loop is taken up again when nothing goes right any more."""
PATIENCE: Final = 1.0
"""Seconds in which attached processes are detached from; who is left then the kernel detaches."""


def unseen(engine: Engine, telling: Telling, error: Exception) -> None:
    """Says that nothing is told from here on, and why; lets the program run to its end, and go
    of whom we had attached to."""
    telling.reserve = None
    engine.sink = Nobody()
    spawned = any(not tracee.attached for tracee in engine.tracees.values())
    say_fault(
        error,
        "from here on the program runs unseen" if spawned else "the trace ends here",
        telling.settings.debug,
    )
    until = time.monotonic() + PATIENCE
    for _ in range(ATTEMPTS):
        with suppress(Exception):
            engine.free(until - time.monotonic())
            engine.run()
            return


def say_fault(error: Exception, result: str, debug: bool) -> None:
    """A fault that ends the trace, in a sentence; ``result``: what it costs."""
    if not debug:
        error.__traceback__ = None  # which holds all that its frames hold
    with suppress(Exception):
        complain(f"{fault_words(error, debug)}; {result}")
        if debug:
            import traceback

            traceback.print_exception(error)


def ending_of(code: int) -> Ending:
    """How a program ended, of its exit code as subprocess has it: of a signal, the negative."""
    return Ending(signal=-code) if code < 0 else Ending(code=code)


def on_interrupt(settings: Settings) -> Literal["wait", "end", "ignore", "ignore-stop"]:
    """What Ctrl-C does: it is the spawned program's, and ends the tracing of others."""
    if settings.interruptible:
        return INTERRUPTIBLE[str(settings.interruptible)]
    if settings.background:
        return "ignore-stop"
    return "wait" if settings.args else "end"


def environment(settings: Settings) -> dict[str, str] | None:
    """The program's environment, if it is not just ours."""
    if not settings.environment:
        return None
    merged = {**os.environ, **settings.environment}
    return {name: value for name, value in merged.items() if value is not None}


def _why(error: SpawnError | EngineError, argv: list[str]) -> str:
    if isinstance(error, SpawnError):
        from bpftrace_sys.cli.spawn_failures import spawn_failure

        return spawn_failure(error, argv)
    return str(error)


def no_proc() -> bool:
    """Whether there is nothing to look fds up in."""
    return not os.path.isdir("/proc/self/fd")


STEPS: Final = (
    "functools", "re", "typing", "decoders.constructs", "decoders.uapi.names", "decoders.values",
    "decoders.declare.fields", "decoders.declare.bpf_attr", "decoders.declare.syscalls",
    "decoders.decode", "bpftrace_sys.record.machine.live_facts", "bpftrace_sys.story.targets",
    "bpftrace_sys.story.model", "bpftrace_sys.story.attach.rows", "bpftrace_sys.story.pipeline",
    "bpftrace_sys.story.probes.matchers", "bpftrace_sys.story.probes.watch",
    "bpftrace_sys.story.explain", "bpftrace_sys.render.text",
)  # fmt: skip
"""What telling a call imports, in pieces of some milliseconds: stops are served in between."""


def _nothing() -> None:
    pass


class Telling:
    """What comes after the capture: imported step by step once there is something to tell."""

    def __init__(self, settings: Settings, outputs: Outputs, source: Any = None) -> None:
        """``source``: where calls come from, if not from a Capture (watch_source.Source)."""
        self.settings = settings
        self.outputs = outputs
        self.started = time.time_ns()
        self.reserve: bytes | None = bytes(RESERVE)
        """Memory for the time when there is none: given up then."""
        light = self._event if plain(settings, outputs) else None
        self.capture: Any = source or Capture(settings.explicit, complain, self.step, light)
        self._steps = list(reversed(STEPS))
        self._pipeline: Pipeline | None = None
        self._slow = None if source else slow_calls(settings, self.capture.begun, outputs.text)
        self.views: KernelViews | None = None
        """-e kernel="""
        self._stats: RunStats | None = None
        self.facts: LiveFacts
        """Once the header is written."""
        self._faults: Faults | None = None
        self._ended = False
        self.let_go: Callable[[], None] = _nothing
        """Lets go of what is traced."""
        self._limit: CallLimit | None = None

    @property
    def limited(self) -> bool:
        """Whether --syscall-limit has ended the trace."""
        return self._limit is not None and self._limit.over

    @property
    def faults(self) -> Faults:
        """Faults of our own; what notes them is imported when it is needed."""
        if self._faults is None:
            from bpftrace_sys.story.faults import Faults

            self._faults = Faults()
            self._faults.report = complain
            self._faults.debug = self.settings.debug
        return self._faults

    def fault(self, where: str, error: Exception) -> None:
        """Something of ours failed in a stop, or on the way from there."""
        self.faults.found(where, error, "the program goes on")

    def count_held(self, held: Sequence[ObjectState | Unseen]) -> None:
        """Programs that were there before the trace are counted from now on."""
        if self._stats is not None:
            from bpftrace_sys.trace.inventory import ObjectState

            for state in held:
                if isinstance(state, ObjectState) and state.kind == "prog" and state.id:
                    self._stats.add(state.id)

    def count_runs(self, make: Callable[[], RunStats] | None = None) -> RunStats | None:
        """--stats; None, and why is said, where the kernel does not let us. ``make``: what counts,
        if not a RunStats itself."""
        from bpftrace_sys.record.capture.run_stats import RunStats

        try:
            self._stats = (make or RunStats)()
        except OSError as error:
            complain(
                f"--stats: the kernel counts no runs for us: {error.strerror} "
                "(it needs CAP_SYS_ADMIN); goes on without"
            )
        return self._stats

    def step(self) -> bool:
        """Imports a little, or sets up what was imported. True: there is more."""
        if self._steps or self._pipeline is None:
            from bpftrace_sys.common.shortage import see_that_there_is_room

            see_that_there_is_room()
        if self._steps:
            __import__(self._steps.pop())
            return True
        if self._pipeline is None:
            self._begin()
        return False

    def get_ready(self) -> None:
        """Imports all that telling needs."""
        while self._steps:
            self.step()

    def _begin(self) -> None:
        """Sets up all that comes after the capture, and writes the header."""
        from bpftrace_sys.cli.renderers import renderers
        from bpftrace_sys.record.capture.world import before
        from bpftrace_sys.record.machine.live_facts import LiveFacts
        from bpftrace_sys.story.lull import LullAlarm
        from bpftrace_sys.story.pipeline import Pipeline
        from bpftrace_sys.trace.header import Header

        settings = self.settings
        stacks = self.capture.stacks
        files = None if stacks is None else stacks.looking
        facts = LiveFacts(self.capture.before, self.capture.machine, files)
        self.facts = facts
        redaction = self._redaction(facts)
        pipeline = self._pipeline = Pipeline(facts if redaction is None else redaction.facts)
        pipeline.faults = self.faults
        facts.record = pipeline.fact
        take: Take = pipeline.take
        if redaction is not None:
            facts.record = redaction.recording(pipeline.fact)
            take = redaction.before(take)
        if self._stats is not None:
            facts.runs = self._stats.runs
        if settings.limit is not None:
            from bpftrace_sys.cli.call_limit import CallLimit

            self._limit = CallLimit(settings, self.let_go)
            take = self._limit.before(take)
        take = LullAlarm(pipeline, take).take
        take = before(take, facts)
        if self.capture.stacks is not None:
            take = self.capture.stacks.before(take)
        if self.views is not None:
            take = self.views.before(take)
        self.capture.begin(take, facts.fact, pipeline.model.process)
        pipeline.renderers = renderers(settings, pipeline, self.outputs, self._limit)
        uname = os.uname()
        header = Header(
            argv=settings.args,
            kernel=uname.release,
            machine=uname.machine,
            cpus=facts.cpus,
            pmu_types={name: number for number, name in sorted(facts.pmus.items())},
            start=self.started,
            options={
                "traced": list(settings.traced),
                "explicit": sorted(settings.explicit),
                **({"follow": True} if settings.follow else {}),
                **({"narrowed": narrowed(settings)} if narrowed(settings) else {}),
                # The eBPF engine has fds from the kernel.
                **({"proc": False} if settings.engine != "bpf" and no_proc() else {}),
            },
            host=uname.nodename,
        )
        pipeline.header(header if redaction is None else redaction.header(header))

    def _redaction(self, facts: LiveFacts) -> LiveRedaction | None:
        """--redact"""
        if not self.settings.redacted:
            return None
        from bpftrace_sys.export.live_redaction import LiveRedaction

        return LiveRedaction(facts, self.settings.redacted)

    def rest(self) -> float | None:
        """What was written can be read from now on."""
        self.outputs.rest()
        wait: float | None = self.capture.rest()
        if self._slow is not None and (look := self._slow.look()) is not None:
            wait = look if wait is None else min(wait, look)
        if self._stats is not None:
            from bpftrace_sys.record.capture.run_stats import OFTEN

            self._stats.look(OFTEN)
            return OFTEN if wait is None else min(wait, OFTEN)
        return wait

    def end(self, ending: Ending) -> bool:
        """Tells what is left and closes the outputs. False: something was lost, or is at fault.

        A second time, after a fault, it does nothing.
        """
        if self._ended:
            return False
        self._ended = True
        if self._stats is not None:
            self._stats.finish()
        if self._pipeline is not None or not self.capture.tell_events():
            self.capture.drain()
            assert self._pipeline is not None
            # LullAlarm may ring no more: at exit nobody hears the signal, and it kills.
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._pipeline.end(ending)
        elif ending.left_alone and not self.settings.quiet:
            from bpftrace_sys.render.left_alone import left_alone_line

            line = left_alone_line(ending.left_alone, bool(self.settings.args), made=False)
            self.outputs.text.write(f"{line}\n" if line else "")
        if self._stats is not None:
            self._stats.close()
        sound = self._faults is None or not self._faults.count
        return self.outputs.close() and sound

    def _event(self, event: ProcessEvent) -> None:
        """What TextRenderer says of a process before there is a call."""
        from bpftrace_sys.render.exits import exit_line

        line = None if self.settings.quiet else exit_line(event)
        if line is not None:
            self.outputs.text.write(f"[{event.tid}] {line}\n")


def plain(settings: Settings, outputs: Outputs) -> bool:
    """Whether before the first call just the ends of processes are told, uncoloured."""
    from bpftrace_sys.render.style import wants_colour

    return not (
        outputs.without_calls
        or settings.counts
        or settings.split
        or settings.style != "bpfstrace"
        or wants_colour(outputs.text.stream, settings.colour)
    )


def leave(code: int) -> int:
    """The tracee's exit code; or its death by a signal, as our own."""
    if code >= 0:
        return code
    import resource

    number = -code
    sys.stdout.flush()
    sys.stderr.flush()
    # Its core, if any, is the tracee's; ours would tell nothing.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):  # SIGKILL has no handler to reset
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number
