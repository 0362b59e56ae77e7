"""Tracing: engine -> capture -> pipeline, and how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from bpftrace_sys.engine import ArgRule, AttachError, Engine, EngineError, SpawnError, StopFilter
from bpftrace_sys.options import Settings, bpf_commands
from bpftrace_sys.output import Output, open_json, open_text

if TYPE_CHECKING:
    from bpftrace_sys.pipeline import Renderer

OWN_FAILURE: Final = 125
"""bpfstrace itself could not do its work, as with env(1) and timeout(1)."""


def stop_filter(settings: Settings) -> StopFilter:
    """Which calls stop a tracee."""
    from decoders.perf_ioctl import NAMES
    from decoders.uapi.const import BPF_COMMON_ATTRS
    from decoders.uapi.system import so_filter

    rules: dict[str, Any] = dict.fromkeys(settings.traced)
    if "bpf" in rules and settings.commands:
        rules["bpf"] = ArgRule(0, bpf_commands(settings.commands), mask=~BPF_COMMON_ATTRS)
    if "ioctl" in rules and "ioctl" not in settings.explicit:
        rules["ioctl"] = ArgRule(1, frozenset(NAMES))
    if "setsockopt" in rules and "setsockopt" not in settings.explicit:
        rules["setsockopt"] = ArgRule(2, frozenset(so_filter))
    return StopFilter(rules)


def complain(text: str) -> None:
    """A message for the person, on stderr."""
    print(f"bpfstrace: {text}", file=sys.stderr)


def spawn_failure(error: SpawnError, argv: list[str]) -> str:
    """Why the program did not start, and what to do."""
    name = argv[0]
    if error.script:
        hint = f"; try: bpfstrace python3 {name}" if name.endswith(".py") else ""
        return f"Exec format error: {os.path.basename(name)} has no #! line{hint}"
    if error.stage == "exec" and error.exit_code == 127:
        return f"{name}: no such program" + ("" if "/" in name else " in PATH")
    return f"{name}: {os.strerror(error.errno)}"


def trace(settings: Settings) -> int:
    """Runs a program under the tracer; returns the exit code, or dies by its signal."""
    outputs: list[Output] = []
    text = open_text(settings.output, sys.stderr)
    outputs.append(text)
    json = None
    if settings.json is not None:
        json = open_json(settings.json)
        outputs.append(json)

    from bpftrace_sys.capture import Capture
    from bpftrace_sys.facts import LiveFacts
    from bpftrace_sys.pipeline import Pipeline
    from bpftrace_sys.trace_file import Header

    facts = LiveFacts()
    pipeline = Pipeline(facts)
    facts.record = pipeline.fact
    pipeline.renderers = renderers(settings, pipeline, text, json)
    capture = Capture(
        pipeline.take,
        pmus=facts.pmus,
        cpus=facts.cpus,
        explicit=settings.explicit,
        notes=complain,
    )
    uname = os.uname()
    header = Header(
        argv=settings.args,
        kernel=uname.release,
        machine=uname.machine,
        cpus=facts.cpus,
        pmu_types={name: number for number, name in sorted(facts.pmus.items())},
        start=time.time_ns(),
        options={"traced": list(settings.traced), "explicit": sorted(settings.explicit)},
    )
    engine = Engine(
        capture,
        follow=settings.follow,
        stops=stop_filter(settings),
        use_seccomp=settings.seccomp,
    )
    capture.watch = engine.watch
    pipeline.header(header)
    status = 0
    try:
        engine.spawn(settings.args)
        status = engine.run()
    except SpawnError as error:
        complain(spawn_failure(error, settings.args))
        pipeline.end({"error": str(error)})
        close(outputs)
        return error.exit_code
    except (EngineError, AttachError) as error:
        complain(str(error))
        pipeline.end({"error": str(error)})
        close(outputs)
        return OWN_FAILURE
    capture.drain()
    code = os.waitstatus_to_exitcode(status)
    pipeline.end({"signal": -code} if code < 0 else {"code": code})
    if not close(outputs):
        return OWN_FAILURE
    return leave(code)


def renderers(
    settings: Settings, pipeline: Any, text: Output, json: Output | None
) -> list[Renderer]:
    """What the settings ask for."""
    from bpftrace_sys.render.style import painter
    from bpftrace_sys.render.tables import LedgerRenderer
    from bpftrace_sys.render.text import Options, TextRenderer
    from bpftrace_sys.select import Selected, Selection

    stream: Any = text
    chosen: list[Renderer] = []
    if not settings.counts:
        options = Options(
            verbose=settings.verbose,
            insns=settings.insns,
            width=width_of(text),
            quiet=settings.quiet or settings.style == "strace",
        )
        if settings.string_limit is not None:
            options.string_limit = settings.string_limit
        paint = painter(text.stream)
        if settings.style == "strace":
            from bpftrace_sys.render.strace import StraceRenderer

            chosen.append(
                StraceRenderer(
                    stream,
                    column=settings.column,
                    string_limit=settings.string_limit,
                    quiet=settings.quiet,
                )
            )
        else:
            chosen.append(TextRenderer(stream, pipeline.model, options, paint))
    if json is not None:
        from bpftrace_sys.render.json_lines import JsonLines

        chosen.append(JsonLines(json, pipeline.model))  # type: ignore[arg-type]
    selection = Selection(settings.succeeded, settings.progs, settings.paths)
    if selection:
        chosen = [Selected(renderer, selection) for renderer in chosen]
    if settings.counts or not (settings.quiet or settings.style == "strace"):
        # After the text and before the JSON's last line.
        ledger = LedgerRenderer(stream, text.stream, pipeline.model, settings.counts)
        chosen.insert(0 if settings.counts else 1, ledger)
    return chosen


def width_of(output: Output) -> int:
    """Columns to fill: a terminal's own, else always the same."""
    try:
        if output.stream.isatty():
            return max(os.get_terminal_size(output.stream.fileno()).columns, 40)
    except (OSError, ValueError):
        pass
    return 100


def close(outputs: list[Output]) -> bool:
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
