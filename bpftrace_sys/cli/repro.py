"""bpfstrace repro: a trace as a program that issues its calls again."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Final

from bpftrace_sys.cli.arguments import arguments
from bpftrace_sys.cli.collected import collected
from bpftrace_sys.cli.messages import DONE, TROUBLE, complain
from bpftrace_sys.cli.options import UsageError
from bpftrace_sys.common.output_files import OutputError
from bpftrace_sys.export.reproducer import CALL_LIMIT, Collector
from bpftrace_sys.export.reproducer_part import bad_range, part, range_of
from bpftrace_sys.export.reproduction import Reproduction

TOLD: Final = 5
"""Calls that are left out and told of one by one."""


def main(words: list[str]) -> int:
    """``bpfstrace repro``; returns the exit code."""
    found = arguments("repro", words)
    if found is None:
        return DONE
    given, traces = dict(found[0]), found[1]
    if len(traces) != 1:
        raise UsageError("repro takes one trace; see bpfstrace repro --help")
    wanted = given.get("--seq")
    why = None if wanted is None else bad_range(wanted)
    if why is not None:
        raise UsageError(why)
    return _repro(traces[0], given.get("--output"), wanted, "--c" in given)


def _repro(trace: str, output: str | None, wanted: str | None, in_c: bool) -> int:
    found, damage = collected(trace, Collector, "what stood before is written")
    if found is None:
        return TROUBLE
    made = found.finish()
    if damage is not None:
        made.remarks.append("the trace is not whole: calls are missing at its end")
    if wanted is not None:
        made = part(made, *range_of(wanted))
    if len(made.issues) > CALL_LIMIT:
        complain(f"{len(made.issues)} calls are too many for one program; choose with --seq A-B")
        return TROUBLE
    if not made.steps:
        complain("there are no such calls" if wanted else "the trace holds no calls to issue")
    _left_out(made)
    if in_c:
        from bpftrace_sys.export.reproducer_c import write
    else:
        from bpftrace_sys.export.reproducer_python import write
    return _save(write(made), output) or (DONE if damage is None else TROUBLE)


def _left_out(made: Reproduction) -> None:
    """Says which calls are not issued, and why."""
    left = made.left_out
    for step in left[:TOLD]:
        complain(f"call {step.seq} ({step.what}) is left out: {step.why}")
    if len(left) > TOLD:
        complain(f"and {len(left) - TOLD} more calls, which comments in it tell of")


def _save(pieces: Iterator[str], output: str | None) -> int:
    if output is None or output == "-":
        for piece in pieces:
            sys.stdout.write(piece)
        sys.stdout.flush()
        return DONE
    beside = f"{output}.{os.getpid()}.new"
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(pieces)
        os.replace(beside, output)
    except OSError as error:
        if os.path.exists(beside):
            os.unlink(beside)
        raise OutputError(f"cannot write {output}: {error.strerror}") from None
    complain(f"{output} holds memory of the traced program: look before you pass it on")
    return DONE
