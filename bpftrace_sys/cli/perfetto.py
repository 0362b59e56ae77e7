"""``bpfstrace perfetto TRACE -o t.pftrace``: a trace for Perfetto's timeline."""

from __future__ import annotations

import sys
from typing import IO

from bpftrace_sys.cli.arguments import arguments
from bpftrace_sys.cli.messages import DONE, TROUBLE, complain
from bpftrace_sys.cli.options import UsageError
from bpftrace_sys.common.output_files import create
from bpftrace_sys.export.perfetto import Perfetto
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.whole_trace import read
from bpftrace_sys.trace.items import TraceError


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
        complain(f"cannot write {name}: {error.strerror}")
        return TROUBLE


def _write(path: str, out: IO[bytes]) -> int:
    made: list[Perfetto] = []

    def make(model: Model) -> Perfetto:
        made.append(Perfetto(out, model))
        return made[0]

    try:
        read(path, make)
    except TraceError as error:
        if not made:
            complain(str(error))
            return TROUBLE
        made[0].cut()
        complain(f"{error}; what stood before is written")
        return TROUBLE
    finally:
        out.flush()
    return DONE
