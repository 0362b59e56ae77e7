"""A whole trace, read as a side of a comparison."""

from __future__ import annotations

from bpftrace_sys.compare.canonical.canon import Canon
from bpftrace_sys.compare.diff.side import Side
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.whole_trace import read


def whole(path: str, strict: bool) -> Side:
    """A whole trace.  TraceError where it is damaged or ends too early."""
    side = Side(strict)

    def make(model: Model) -> Canon:
        side.canon = Canon(model, side.take)
        return side.canon

    read(path, make)
    side.end()
    return side
