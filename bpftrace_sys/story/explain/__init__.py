"""Why a call was refused: one row per command and errno, evidence only.

A row looks at the decoded call, at what the model knows, and at facts of the
machine of the trace (evidence.py); it says why only where that proves it.  What
the kernel checks is from kernel/bpf/syscall.c, kernel/bpf/verifier.c, the map
types' map_alloc_check() and kernel/events/core.c of Linux 6.18; docs/refusals.md
lists the rows.

The table is :data:`bpftrace_sys.story.explain.rows.ROWS`; the reasons stand by theme
in the modules beside it, which the first call that fails imports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpftrace_sys.story.explain.retries import Retries

if TYPE_CHECKING:
    from bpftrace_sys.story.model import Model
    from bpftrace_sys.story.objects import NotedCall
    from bpftrace_sys.trace.facts import Facts

__all__ = ["Retries", "explain"]


def explain(call: NotedCall, model: Model, facts: Facts) -> list[str]:
    """Why a call failed, in lines; empty where nothing proves it."""
    if not call.raw.failed or call.raw.ret is None:
        return []
    from bpftrace_sys.story.explain.failure import ANY, ANY_ERRNO, Failure
    from bpftrace_sys.story.explain.rows import TABLE

    failure = Failure(call, model, facts)
    for number in (failure.errno, ANY_ERRNO):
        for name in dict.fromkeys((call.syscall.name, failure.command, ANY)):
            for row in TABLE.get((name, number), ()):
                lines = row(failure)
                if lines:
                    return lines
    return failure.unlooked[:1]
