"""``bpfstrace report TRACE -o page.html``: a trace as a page for a browser."""

from __future__ import annotations

import sys

from bpftrace_sys.cli.arguments import arguments
from bpftrace_sys.cli.collected import collected
from bpftrace_sys.cli.messages import DONE, OWN_FAILURE, TROUBLE, complain
from bpftrace_sys.cli.options import UsageError
from bpftrace_sys.render.html.gather import Gather
from bpftrace_sys.render.html.page import page
from bpftrace_sys.render.output import open_page


def main(words: list[str]) -> int:
    """``bpfstrace report`` with what follows it; returns the exit code."""
    found = arguments("report", words)
    if found is None:
        return DONE
    output, paths = dict(found[0]).get("--output"), found[1]
    if len(paths) != 1:
        raise UsageError("report takes one trace file: bpfstrace report TRACE -o PAGE")
    if output is None and sys.stdout.isatty():
        raise UsageError("report: a page is nothing for a terminal: -o PAGE says where to")
    return _report(paths[0], output or "-")


def _report(path: str, output: str) -> int:
    gathered, damage = collected(path, Gather, "the page shows what stood before")
    if gathered is None:
        return TROUBLE
    if damage is not None:
        gathered.cut()
    out = open_page(output)
    for piece in page(gathered.report, gathered.marks.names):
        out.write(piece)
    out.close()
    if out.lost is not None and not out.closed_pipe:
        complain(f"output to {out.name} was lost: {out.lost}")
        return OWN_FAILURE
    return DONE if damage is None else TROUBLE
