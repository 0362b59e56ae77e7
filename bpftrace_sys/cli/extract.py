"""bpfstrace extract: the programs of a trace as ELF objects."""

from __future__ import annotations

from bpftrace_sys.cli.arguments import arguments
from bpftrace_sys.cli.collected import collected
from bpftrace_sys.cli.messages import DONE, TROUBLE, complain
from bpftrace_sys.cli.options import UsageError
from bpftrace_sys.export.extraction import ExtractError, Extraction, files, write
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
    found, damage = collected(trace, Extraction, "what stood before is extracted")
    made = files(found) if found is not None else []
    try:
        write(made, folder, force)
    except ExtractError as error:
        complain(str(error))
        return TROUBLE
    width = max((len(file.name) for file in made), default=0)
    for file in made:
        print(f"{file.name:<{width}}  {printable(file.about)}")
    if not made and damage is None:
        complain("the trace loads neither programs nor BTF")
    return DONE if damage is None else TROUBLE
