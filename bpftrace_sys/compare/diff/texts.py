"""Fields of several lines, line by line: declarations of BTF, a verifier's log, source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from bpftrace_sys.common.edits import Edit, edits, hunks
from bpftrace_sys.compare.canonical.entries import Entry
from bpftrace_sys.compare.diff.differences import TextLine
from bpftrace_sys.compare.diff.options import Options

CONTEXT: Final = 2
"""Equal lines shown around those that differ."""
LOG_SHOWN: Final = 40


def text_hunks(a: Sequence[str], b: Sequence[str]) -> list[list[TextLine]]:
    """Where two texts differ."""
    return [[_text_line(edit, a, b) for edit in hunk] for hunk in hunks(edits(a, b), CONTEXT)]


def _text_line(edit: Edit, a: Sequence[str], b: Sequence[str]) -> TextLine:
    if edit.b is None:
        assert edit.a is not None
        return TextLine("-", a[edit.a])
    return TextLine("+" if edit.a is None else " ", b[edit.b])


def texts(one: Entry, two: Entry, options: Options) -> Iterator[tuple[str, list[list[TextLine]]]]:
    """The blocks that differ between two entries, by name."""
    a = {block.name: block.lines for block in one.blocks}
    b = {block.name: block.lines for block in two.blocks}
    failed = one.failed or two.failed
    for name in dict.fromkeys((*a, *b)):
        if options.ignores(name):
            continue
        is_log = name.endswith("log_buf")
        if is_log and not failed and not options.strict:
            continue  # what the verifier says of a program that it takes is its own affair
        lines_a, lines_b = a.get(name, ()), b.get(name, ())
        if is_log:
            lines_a, lines_b = lines_a[-LOG_SHOWN:], lines_b[-LOG_SHOWN:]
        if lines_a != lines_b:
            yield name, text_hunks(lines_a, lines_b)
