"""``bpfstrace perfetto TRACE -o t.pftrace``: a trace for Perfetto's timeline."""

from __future__ import annotations

import getopt
import sys
from typing import IO, Final

from bpftrace_sys.cli.messages import DONE, TROUBLE, complain
from bpftrace_sys.cli.options import UsageError
from bpftrace_sys.common.output_files import create
from bpftrace_sys.export.perfetto import Perfetto
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.whole_trace import read
from bpftrace_sys.trace.items import TraceError

USAGE: Final = """\
usage: bpfstrace perfetto TRACE -o FILE     a trace for https://ui.perfetto.dev

  -o, --output FILE   the file to write (- is stdout, and so is none in a pipe)
  -h, --help          this text

A track a process and thread, a slice a call with its arguments, flows from a load to
what attaches it, counters of objects and attachments.  The file is opened in the
browser; it holds strings and values of the traced program.

Exit code: 0, or 2 where the trace is damaged or not whole (what stood before is
written) or the file could not be written.
"""


def main(words: list[str]) -> int:
    """``bpfstrace perfetto`` with what follows it; returns the exit code."""
    output: str | None = None
    try:
        pairs, paths = getopt.gnu_getopt(words, "ho:", ["help", "output="])
    except getopt.GetoptError as error:
        raise UsageError(f"perfetto: {error.msg}") from None
    for flag, value in pairs:
        if flag in ("-h", "--help"):
            print(USAGE, end="")
            return DONE
        output = value
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
