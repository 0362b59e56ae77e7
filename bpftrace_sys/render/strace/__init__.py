"""``--style strace``: one line a call, in the syntax of strace 7.2.

What strace prints of a struct is a row of :data:`ROWS` (rows.py, which tells the
language of rows).  Offsets, sizes, enums and flags come from the declarations in
``decoders``; so a row says nothing twice.  Bytes are those of the RawCall, because
strace prints fields as they stand in memory, whatever the kernel makes of them.

How this differs from strace's own lines, and why: docs/strace-style.md.
"""

from __future__ import annotations

from bpftrace_sys.render.strace.calls import call_line, result
from bpftrace_sys.render.strace.manner import Manner
from bpftrace_sys.render.strace.quoting import quoted
from bpftrace_sys.render.strace.renderer import StraceRenderer, event_line
from bpftrace_sys.render.strace.rows import LINK_ROWS, ROWS

__all__ = [
    "LINK_ROWS", "ROWS", "Manner", "StraceRenderer", "call_line", "event_line", "quoted", "result",
]  # fmt: skip
