"""bpfstrace extract: the programs of a trace as ELF objects."""

from __future__ import annotations

import sys

from bpftrace_sys.cli.arguments import arguments
from bpftrace_sys.cli.messages import DONE, TROUBLE
from bpftrace_sys.cli.options import UsageError
from bpftrace_sys.export.extraction import ExtractError, Extraction, files, write
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.targets import printable


def main(words: list[str]) -> int:
    """``bpfstrace extract``; returns the exit code."""
    found = arguments("extract", words)
    if found is None:
        return DONE
    given, traces = dict(found[0]), found[1]
    folder = given.get("--output")
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
