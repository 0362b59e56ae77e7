"""``bpfstrace schema``: the JSON Schema of a trace's lines."""

from __future__ import annotations

import sys
from importlib import resources

from bpftrace_sys.cli.options import UsageError

NAME = "schema.json"


def schema() -> str:
    """The schema, as it stands in the package."""
    return resources.files("bpftrace_sys.trace").joinpath(NAME).read_text(encoding="utf-8")


def main(words: list[str]) -> int:
    """``bpfstrace schema``; returns the exit code."""
    if words and words[0] not in ("-h", "--help"):
        raise UsageError("schema takes no arguments")
    if words:
        print("usage: bpfstrace schema     prints the JSON Schema of the lines of a trace")
        return 0
    sys.stdout.write(schema())
    return 0
