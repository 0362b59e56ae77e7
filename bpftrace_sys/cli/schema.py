"""``bpfstrace schema``: the JSON Schema of a trace's lines."""

from __future__ import annotations

import sys
from importlib import resources

from bpftrace_sys.cli.arguments import arguments
from bpftrace_sys.cli.getopt_long import UsageError

NAME = "schema.json"


def schema() -> str:
    """The schema, as it stands in the package."""
    return resources.files("bpftrace_sys.trace").joinpath(NAME).read_text(encoding="utf-8")


def main(words: list[str]) -> int:
    """``bpfstrace schema``; returns the exit code."""
    found = arguments("schema", words)
    if found is None:
        return 0
    if found[1]:
        raise UsageError("schema takes no arguments")
    sys.stdout.write(schema())
    return 0
