"""bpfstrace extract: the programs of a trace as ELF objects."""

from __future__ import annotations

import getopt
import sys
from typing import Final

from bpftrace_sys.cli.messages import DONE, TROUBLE
from bpftrace_sys.cli.options import UsageError
from bpftrace_sys.export.extraction import ExtractError, Extraction, files, write
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.targets import printable

USAGE: Final = """\
usage: bpfstrace extract TRACE -o DIR [--force]

Writes each program that a trace loads to DIR as an ELF object (NAME.o), with its
maps, BTF and source lines, and each BTF blob as it was loaded (NAME.btf).
`llvm-objdump -dS` disassembles the objects, `bpftool prog load` loads them.

  -o, --output DIR   where to; made if need be
  --force            overwrite files that are there

Exit code: 0, or 2 for trouble; of a damaged trace, what stands before the damage
is extracted.
"""


def main(words: list[str]) -> int:
    """``bpfstrace extract``; returns the exit code."""
    try:
        pairs, traces = getopt.gnu_getopt(words, "ho:", ["help", "output=", "force"])
    except getopt.GetoptError as error:
        raise UsageError(error.msg) from None
    given = dict(pairs)
    if "-h" in given or "--help" in given:
        print(USAGE, end="")
        return DONE
    folder = given.get("-o") or given.get("--output")
    if len(traces) != 1 or not folder:
        raise UsageError("extract takes one trace and -o DIR; see bpfstrace extract --help")
    return _extract(traces[0], folder, "--force" in given)


def _extract(trace: str, folder: str, force: bool) -> int:
    from bpftrace_sys.story.whole_trace import read
    from bpftrace_sys.trace.items import TraceError

    collectors: list[Extraction] = []

    def make(model: Model) -> Extraction:
        collectors.append(Extraction(model))
        return collectors[0]

    code = DONE
    try:
        read(trace, make)
    except TraceError as error:
        rest = "; what stood before is extracted" if collectors else ""
        print(f"bpfstrace: {printable(str(error))}{rest}", file=sys.stderr)
        code = TROUBLE
    made = files(collectors[0]) if collectors else []
    try:
        write(made, folder, force)
    except ExtractError as error:
        print(f"bpfstrace: {printable(str(error))}", file=sys.stderr)
        return TROUBLE
    width = max((len(file.name) for file in made), default=0)
    for file in made:
        print(f"{file.name:<{width}}  {printable(file.about)}")
    if not made and code == DONE:
        print("bpfstrace: the trace loads neither programs nor BTF", file=sys.stderr)
    return code
