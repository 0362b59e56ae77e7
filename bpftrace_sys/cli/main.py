"""bpfstrace's command line: which command, and errors as messages."""

from __future__ import annotations

import gc
import os
import sys

from bpftrace_sys.cli.config import configured
from bpftrace_sys.cli.messages import OWN_FAILURE, TROUBLE, complain, fault_words
from bpftrace_sys.cli.options import UsageError, parse
from bpftrace_sys.common import BpfstraceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

    from bpftrace_sys.cli.settings import Settings

DEBUG = frozenset({"-d", "--debug"})
GARBAGE = 50_000
"""Objects between two looks for cycles; Python looks after 700, and imports make many."""


def run() -> NoReturn:
    """The console script: main, and then the end of the process, without first taking
    apart all that was imported."""
    gc.set_threshold(GARBAGE)
    try:
        code = main(own_process=True)
    except KeyboardInterrupt:
        import signal

        # Before a program runs (opening a FIFO may wait), or in a subcommand: as any program.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        code = 128 + signal.SIGINT  # where it is blocked
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            pass  # whoever reads has had enough
        except (OSError, ValueError):
            code = OWN_FAILURE
    os._exit(code)


def main(argv: list[str] | None = None, own_process: bool = False) -> int:
    """Runs bpfstrace; returns its exit code.

    ``own_process``: there is nothing else in this process, which is to hold what it needs only.

    125: bpfstrace's own failure, or a lost output; 126/127: PROG cannot be executed / found;
    2: wrong arguments or an unreadable trace; else PROG's own.
    """
    words = sys.argv[1:] if argv is None else argv
    if None in (sys.stdin, sys.stdout, sys.stderr):
        from bpftrace_sys.render.output import ensure_streams

        ensure_streams()
    try:
        return _run(words, own_process)
    except UsageError as error:
        complain(str(error))
        print("Try 'bpfstrace --help'.", file=sys.stderr)
        return TROUBLE
    except BpfstraceError as error:
        from bpftrace_sys.common.output_files import OutputError

        complain(str(error))
        return OWN_FAILURE if isinstance(error, OutputError) else TROUBLE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        debug = not DEBUG.isdisjoint(words)
        complain(fault_words(error, debug))
        if debug:
            import traceback

            traceback.print_exception(error)
        return OWN_FAILURE


def _run(words: list[str], own_process: bool) -> int:
    command = words[0] if words else ""
    if command in COMMANDS:
        from importlib import import_module

        rest = words[1:]
        if command != "replay":  # which has it among its options
            rest = [word for word in rest if word not in DEBUG]
        code: int = import_module(f"bpftrace_sys.cli.{command}").main(rest)
        return code
    settings = parse(words, "live")
    if settings.help or settings.version:
        from bpftrace_sys.cli.help import said

        if said(settings):
            return 0
    settings = configured(settings, words, "live")
    if not (settings.args or settings.pids or settings.everybody):
        raise UsageError("no program to trace: bpfstrace [OPTIONS] PROG [ARGS]")
    if settings.tui:
        from bpftrace_sys.cli.tui import live

        return live(settings, lambda: traced(settings, own_process=True))
    return traced(settings, own_process)


def traced(settings: Settings, own_process: bool) -> int:
    """Traces what the settings say, by the engine that they say; returns the exit code."""
    from bpftrace_sys.cli.live import OWN_FAILURE, trace
    from bpftrace_sys.render.output import OutputError

    try:
        if settings.engine == "bpf":
            from bpftrace_sys.cli.watch import watch

            return watch(settings)
        return trace(settings, own_process)
    except OutputError as error:
        complain(str(error))
        return OWN_FAILURE


COMMANDS: Final = (
    "replay", "disasm", "diff", "schema", "check", "extract", "ps", "dump", "repro",
    "report", "perfetto", "redact", "doctor", "tui",
)  # fmt: skip
"""By the first word, each a module beside this one with a ``main(words)``; ``bpfstrace -- replay``
traces a program of that name."""


if __name__ == "__main__":
    run()
