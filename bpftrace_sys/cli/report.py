"""``bpfstrace report TRACE -o page.html``: a trace as a page for a browser."""

from __future__ import annotations

import getopt
import sys
from typing import Final

from bpftrace_sys.cli.messages import DONE, TROUBLE, complain
from bpftrace_sys.cli.options import UsageError
from bpftrace_sys.render.html.gather import Gather
from bpftrace_sys.render.html.page import page
from bpftrace_sys.render.output import OutputError, open_page
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.whole_trace import read
from bpftrace_sys.trace.items import TraceError

USAGE: Final = """\
usage: bpfstrace report TRACE -o PAGE     a trace as one HTML file

  -o, --output PAGE   the file to write (- is stdout, and so is none in a pipe)
  -h, --help          this text

The page needs nothing but a browser: no network, no other file.  It holds what the
trace holds, the program's memory included.  TRACE may be - (stdin).
Live: bpfstrace --report PAGE PROG.  Two traces: bpfstrace diff --report PAGE A B.

Exit code: 0, or 2 where the trace is damaged or not whole (the page shows what stood
before) or the page could not be written.
"""


def main(words: list[str]) -> int:
    """``bpfstrace report`` with what follows it; returns the exit code."""
    output: str | None = None
    try:
        pairs, paths = getopt.gnu_getopt(words, "ho:", ["help", "output="])
    except getopt.GetoptError as error:
        raise UsageError(f"report: {error.msg}") from None
    for flag, value in pairs:
        if flag in ("-h", "--help"):
            print(USAGE, end="")
            return DONE
        output = value
    if len(paths) != 1:
        raise UsageError("report takes one trace file: bpfstrace report TRACE -o PAGE")
    if output is None and sys.stdout.isatty():
        raise UsageError("report: a page is nothing for a terminal: -o PAGE says where to")
    try:
        return _report(paths[0], output or "-")
    except OutputError as error:
        complain(str(error))
        return TROUBLE


def _report(path: str, output: str) -> int:
    gathered: list[Gather] = []

    def make(model: Model) -> Gather:
        gathered.append(Gather(model))
        return gathered[0]

    code = DONE
    try:
        read(path, make)
    except TraceError as error:
        code = TROUBLE
        if not gathered:
            complain(str(error))
            return code
        gathered[0].cut()
        complain(f"{error}; the page shows what stood before")
    out = open_page(output)
    for piece in page(gathered[0].report, gathered[0].marks.names):
        out.write(piece)
    out.close()
    if out.lost is not None and not out.closed_pipe:
        complain(f"output to {out.name} was lost: {out.lost}")
        return TROUBLE
    return code
