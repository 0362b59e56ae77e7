"""``bpfstrace perfetto TRACE -o t.pftrace``: a trace for Perfetto's timeline."""

from __future__ import annotations

import sys
from typing import IO

from bpftrace_sys.cli.arguments import arguments
from bpftrace_sys.cli.collected import collected
from bpftrace_sys.cli.messages import DONE, TROUBLE
from bpftrace_sys.cli.options import UsageError
from bpftrace_sys.common.output_files import OutputError, create
from bpftrace_sys.export.perfetto import Perfetto


def main(words: list[str]) -> int:
    """``bpfstrace perfetto`` with what follows it; returns the exit code."""
    found = arguments("perfetto", words)
    if found is None:
        return DONE
    output, paths = dict(found[0]).get("--output"), found[1]
    if len(paths) != 1:
        raise UsageError("perfetto takes one trace file: bpfstrace perfetto TRACE -o FILE")
    if output is None and sys.stdout.isatty():
        raise UsageError("perfetto: its file is nothing for a terminal: -o FILE says where to")
    name = output or "-"
    try:
        if name == "-":
            return _write(paths[0], sys.stdout.buffer)
        with open(create(name), "wb") as out:
            return _write(paths[0], out)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {name}: {error.strerror}") from None


def _write(path: str, out: IO[bytes]) -> int:
    try:
        made, damage = collected(
            path, lambda model: Perfetto(out, model), "what stood before is written"
        )
        if made is not None and damage is not None:
            made.cut()
    finally:
        out.flush()
    return DONE if damage is None else TROUBLE
