"""Tracing: engine -> capture -> pipeline, and how it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Literal

from bpftrace_sys import watermark
from bpftrace_sys.capture import Capture
from bpftrace_sys.engine import ArgRule, Engine, EngineError, SpawnError, StopFilter
from bpftrace_sys.options import INTERRUPTIBLE, Settings, bpf_commands, narrowed
from bpftrace_sys.output import Files, Output, open_json, open_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bpftrace_sys.pipeline import Pipeline, Renderer

OWN_FAILURE: Final = 125
"""bpfstrace itself could not do its work, as with env(1) and timeout(1)."""


def stop_filter(settings: Settings) -> StopFilter:
    """Which calls stop a tracee."""
    from decoders.uapi.const import BPF_COMMON_ATTRS
    from decoders.uapi.perf import perf_event_ioc, perf_event_ioc_compat32
    from decoders.uapi.system import kcm_ioctl, so_filter, tun_ioctl

    rules: dict[str, Any] = dict.fromkeys(settings.traced)
    if "bpf" in rules and settings.commands:
        rules["bpf"] = ArgRule(0, bpf_commands(settings.commands), mask=~BPF_COMMON_ATTRS)
    if "ioctl" in rules and "ioctl" not in settings.explicit:
        rules["ioctl"] = ArgRule(
            1, frozenset({*perf_event_ioc, *perf_event_ioc_compat32, *tun_ioctl, *kcm_ioctl})
        )
    if "setsockopt" in rules and "setsockopt" not in settings.explicit:
        rules["setsockopt"] = ArgRule(2, frozenset(so_filter))
    return StopFilter(rules)


def complain(text: str) -> None:
    """A message for the person, on stderr; whatever it quotes cannot steer a terminal."""
    from bpftrace_sys.phrases import printable

    with contextlib.suppress(OSError, ValueError):  # stderr is closed or full
        print(f"bpfstrace: {printable(text)}", file=sys.stderr)


def spawn_failure(error: SpawnError, argv: list[str]) -> str:
    """Why the program did not start, and what to do."""
    from bpftrace_sys.phrases import printable

    name = printable(argv[0])
    if error.stage != "exec" or not argv[0]:
        return f"{name or repr('')}: {error if argv[0] else 'no such program'}"
    file = error.path if "/" in argv[0] else shutil.which(argv[0]) or error.path
    head = _head(file)
    if error.script:
        if head.startswith(b"\x7fELF"):
            return f"Exec format error: {name} is a program for another machine, or damaged"
        script = name.removeprefix("./")
        hint = f"; try: bpfstrace python3 {script}" if name.endswith(".py") else ""
        return f"Exec format error: {script} has no #! line{hint}"
    if error.errno == errno.ENOENT and head.startswith(b"#!"):
        interpreter = head[2:].split(b"\n")[0].strip().decode("utf-8", "backslashreplace")
        return f"{name}: its #! line names {printable(interpreter)}, which is not there"
    if error.exit_code == 127:
        return f"{name}: no such program" + ("" if "/" in name else " in PATH")
    if os.path.isdir(file):
        return f"{name}: is a directory"
    if error.errno == errno.EACCES and os.path.isfile(file) and not os.access(file, os.X_OK):
        return f"{name}: Permission denied: not executable (chmod +x makes it so)"
    return f"{name}: {os.strerror(error.errno)}"


def _head(path: str) -> bytes:
    """The beginning of a file; empty where it cannot be read."""
    try:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                return file.read(256)
    except (OSError, ValueError):
        pass
    return b""


def trace(settings: Settings) -> int:
    """Runs a program under the tracer; returns the exit code, or dies by its signal."""
    text = open_text(settings.output, sys.stderr)
    json = None if settings.json is None else open_json(settings.json)
    outputs: list[Output | Files] = [text] if json is None else [text, json]
    capture = Capture(explicit=settings.explicit, notes=complain)
    engine = Engine(
        capture,
        follow=settings.follow,
        stops=stop_filter(settings),
        use_seccomp=settings.seccomp,
        on_interrupt=on_interrupt(settings),
    )
    capture.watch = engine.watch
    if settings.injections:
        capture.inject(settings.injections, engine.inject)
    trouble: SpawnError | EngineError | None = None
    status = 0
    before = watermark.highest()
    started = time.time_ns()
    try:
        for pid in settings.pids:
            engine.attach(pid)
        if settings.args:
            engine.spawn(
                settings.args,
                env=environment(settings),
                argv0=settings.argv0,
                user=settings.user,
                background=settings.background,
            )
    except (SpawnError, EngineError) as error:
        trouble = error
    # The program runs, up to its first call that concerns us, while this is imported.
    pipeline = begin(settings, capture, outputs, text, json, started, before)
    engine.resting = lambda: rest(outputs)
    if trouble is None:
        try:
            status = engine.run()
        except EngineError as error:
            trouble = error
    capture.drain()
    # No alarm of Idle's may ring from here on: at exit nobody hears it, and it kills.
    signal.setitimer(signal.ITIMER_REAL, 0)
    if trouble is not None:
        complain(_why(trouble, settings.args))
        pipeline.end({"error": str(trouble)})
        close(outputs)
        if isinstance(trouble, SpawnError):
            return trouble.exit_code if settings.args[0] else 127
        return OWN_FAILURE
    code = os.waitstatus_to_exitcode(status)
    pipeline.end({"signal": -code} if code < 0 else {"code": code})
    if not close(outputs):
        return OWN_FAILURE
    return leave(code)


def on_interrupt(settings: Settings) -> Literal["wait", "end", "ignore"]:
    """What Ctrl-C does: it is the spawned program's, and ends the tracing of others."""
    if settings.interruptible:
        return INTERRUPTIBLE[str(settings.interruptible)]
    return "wait" if settings.args else "end"


def environment(settings: Settings) -> dict[str, str] | None:
    """The program's environment, if it is not just ours."""
    if not settings.environment:
        return None
    merged = {**os.environ, **settings.environment}
    return {name: value for name, value in merged.items() if value is not None}


def _why(error: SpawnError | EngineError, argv: list[str]) -> str:
    return spawn_failure(error, argv) if isinstance(error, SpawnError) else str(error)


def begin(
    settings: Settings,
    capture: Capture,
    outputs: list[Output | Files],
    text: Output,
    json: Output | None,
    started: int,
    before: dict[str, int],
) -> Pipeline:
    """Sets up all that comes after the capture, and writes the header.

    ``outputs``: text, JSON, and what else is opened, to be closed in the end.
    ``before``: the highest ids of BPF objects when the trace began.
    """
    from bpftrace_sys.facts import LiveFacts
    from bpftrace_sys.header import Header
    from bpftrace_sys.idle import Idle
    from bpftrace_sys.pipeline import Pipeline

    facts = LiveFacts(highest=before)
    pipeline = Pipeline(facts)
    facts.record = pipeline.fact
    capture.begin(Idle(pipeline).take, facts.pmus, facts.cpus, facts.fact)
    pipeline.renderers = renderers(settings, pipeline, text, json, outputs)
    uname = os.uname()
    pipeline.header(
        Header(
            argv=settings.args,
            kernel=uname.release,
            machine=uname.machine,
            cpus=facts.cpus,
            pmu_types={name: number for number, name in sorted(facts.pmus.items())},
            start=started,
            options={
                "traced": list(settings.traced),
                "explicit": sorted(settings.explicit),
                **({"narrowed": narrowed(settings)} if narrowed(settings) else {}),
            },
            host=uname.nodename,
        )
    )
    return pipeline


def renderers(
    settings: Settings,
    pipeline: Any,
    text: Output,
    json: Output | None,
    outputs: list[Output | Files],
) -> list[Renderer]:
    """What the settings ask for; what is opened for it is added to ``outputs``."""
    from bpftrace_sys.render.split import Split
    from bpftrace_sys.render.style import painter, plain_painter
    from bpftrace_sys.render.tables import LedgerRenderer
    from bpftrace_sys.render.text import Options, TextRenderer
    from bpftrace_sys.render.times import stamps
    from bpftrace_sys.select import Selected, Selection

    stream: Any = text
    chosen: list[Renderer] = []
    if settings.canonical:
        from bpftrace_sys.render.canonical import CanonicalRenderer

        chosen.append(CanonicalRenderer(stream, pipeline.model, settings.verbose))
    elif not settings.counts:
        options = Options(
            verbose=settings.verbose,
            insns=settings.insns,
            width=width_of(text),
            quiet=settings.quiet or settings.style == "strace",
            stamp=stamps(settings.times),
            spent=settings.spent,
            comms=settings.comms,
        )
        if settings.string_limit is not None:
            options.string_limit = settings.string_limit
        paint = painter(text.stream)

        def to(out: Any, paint: Any) -> Renderer:
            if settings.style == "strace":
                from bpftrace_sys.render.strace import StraceRenderer

                return StraceRenderer(
                    out,
                    column=settings.column,
                    string_limit=settings.string_limit,
                    quiet=settings.quiet,
                )
            return TextRenderer(out, pipeline.model, options, paint)

        if settings.split:
            files = Files(str(settings.output))
            outputs.append(files)
            chosen.append(Split(lambda tid: to(files.open(tid), plain_painter), files.ended))
        else:
            chosen.append(to(stream, paint))
    alone = chosen[0] if len(chosen) == 1 else None
    if json is not None:
        from bpftrace_sys.render.json_lines import JsonLines

        chosen.append(JsonLines(json, pipeline.model))  # type: ignore[arg-type]
        alone = None
    selection = Selection(
        settings.statuses, settings.succeeded, settings.progs, settings.paths
    )
    if selection:
        chosen = [Selected(renderer, selection) for renderer in chosen]
    if not settings.canonical and (
        settings.counts or not (settings.quiet or settings.style == "strace")
    ):
        # After the text and before the JSON's last line.
        ledger = LedgerRenderer(stream, text.stream, pipeline.model, settings.counts)
        chosen.insert(0 if settings.counts else 1, ledger)
    if (
        isinstance(alone, TextRenderer)
        and not selection
        and not (settings.times or settings.spent or settings.comms)
    ):
        from bpftrace_sys.repeats import Repeats

        counting = chosen[1] if len(chosen) > 1 else None
        pipeline.repeats = Repeats(
            pipeline, alone, counting if isinstance(counting, LedgerRenderer) else None
        )
    return chosen


def width_of(output: Output) -> int:
    """Columns to fill: a terminal's own, else always the same."""
    try:
        if output.stream.isatty():
            return max(os.get_terminal_size(output.stream.fileno()).columns, 40)
    except (OSError, ValueError):
        pass
    return 100


def rest(outputs: list[Output | Files]) -> None:
    """What was written can be read from now on."""
    for output in outputs:
        output.rest()


def close(outputs: Sequence[Output | Files]) -> bool:
    """Closes the outputs; False if anything was lost, which is said."""
    whole = True
    for output in outputs:
        output.close()
        if output.lost is not None:
            whole = False
            if output.name != "<stderr>":
                complain(f"output to {output.name} was lost: {output.lost}")
    return whole


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
    with contextlib.suppress(OSError, ValueError):  # SIGKILL has no handler to reset
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number
