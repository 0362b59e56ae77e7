"""bpfstrace's command line: which command, and errors as messages."""

from __future__ import annotations

import gc
import os
import sys

from bpftrace_sys import __version__
from bpftrace_sys.options import Settings, UsageError, parse, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

BAD_USAGE = 2
LOST = 125
"""What was printed did not arrive."""
GARBAGE = 50_000
"""Objects between two looks for cycles; Python looks after 700, and imports make many."""


def run() -> NoReturn:
    """The console script: main, and then the end of the process, without first taking
    apart all that was imported."""
    gc.set_threshold(GARBAGE)
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or LOST
    os._exit(code)


def main(argv: list[str] | None = None) -> int:
    """Runs bpfstrace; returns its exit code.

    125: bpfstrace's own failure, 126/127: PROG cannot be executed / found,
    2: wrong arguments or an unreadable trace; else PROG's own.
    """
    words = sys.argv[1:] if argv is None else argv
    if None in (sys.stdin, sys.stdout, sys.stderr):
        from bpftrace_sys.output import ensure_streams

        ensure_streams()
    try:
        return _run(words)
    except UsageError as error:
        _complain(str(error))
        print("Try 'bpfstrace --help'.", file=sys.stderr)
        return BAD_USAGE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _complain(text: str) -> None:
    """A message on stderr; names that stand in it cannot steer a terminal."""
    from bpftrace_sys.escape import printable

    print(f"bpfstrace: {printable(text)}", file=sys.stderr)


def _run(words: list[str]) -> int:
    command = words[0] if words else ""
    if command in COMMANDS:
        return COMMANDS[command](words[1:])
    settings = parse(words, "live")
    done = _said(settings)
    if done:
        return 0
    if not settings.args and not settings.pids:
        raise UsageError("no program to trace: bpfstrace [OPTIONS] PROG [ARGS]")
    from bpftrace_sys.live import OWN_FAILURE, trace
    from bpftrace_sys.output import OutputError

    try:
        return trace(settings)
    except OutputError as error:
        _complain(str(error))
        return OWN_FAILURE


def _said(settings: Settings) -> bool:
    """--help and --version."""
    if settings.help:
        print(usage(), end="")
    elif settings.version:
        print(f"bpfstrace {__version__}")
    else:
        return False
    return True


def _replay(words: list[str]) -> int:
    settings = parse(words, "replay")
    if _said(settings):
        return 0
    from bpftrace_sys.output import OutputError
    from bpftrace_sys.replay import TROUBLE, replay

    try:
        return replay(settings)
    except OutputError as error:
        _complain(str(error))
        return TROUBLE


def _disasm(words: list[str]) -> int:
    if len(words) != 1 or words[0] in ("-h", "--help"):
        raise UsageError("disasm takes one file of raw instructions (- is stdin)")
    from itertools import islice

    from decoders.insn_text import disasm

    try:
        if words[0] == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(words[0], "rb") as file:
                data = file.read()
    except OSError as error:
        _complain(f"{words[0]}: {error.strerror}")
        return BAD_USAGE
    lines = disasm(data)
    while part := list(islice(lines, 4096)):
        sys.stdout.write("\n".join(part) + "\n")
    if len(data) % 8:
        print(f"bpfstrace: {len(data) % 8} bytes after the last instruction", file=sys.stderr)
        return 1
    return 0


def _diff(words: list[str]) -> int:
    from bpftrace_sys.diff_cli import main as diff

    return diff(words)


def _schema(words: list[str]) -> int:
    from bpftrace_sys.schema_cli import main as schema

    return schema(words)


def _check(words: list[str]) -> int:
    from bpftrace_sys.check import check

    return check(words)


def _extract(words: list[str]) -> int:
    from bpftrace_sys.extract import extract

    return extract(words)


COMMANDS = {
    "replay": _replay,
    "disasm": _disasm,
    "diff": _diff,
    "schema": _schema,
    "check": _check,
    "extract": _extract,
}
"""By the first word; ``bpfstrace -- replay`` traces a program of that name."""


if __name__ == "__main__":
    run()
