"""A part of a reproduction: some calls, and what they depend on."""

from __future__ import annotations

import re

from bpftrace_sys.export.reproduction import (
    FD,
    Close,
    Handle,
    Issue,
    LeftOut,
    Reproduction,
    Step,
)


def part(whole: Reproduction, first: int, last: int) -> Reproduction:
    """The calls from ``first`` to ``last``, with all earlier ones that they depend on."""
    handles: set[Handle] = set()
    things: set[str] = set()
    kept: list[Step] = []
    for step in reversed(whole.steps):
        if isinstance(step, Close):
            kept.append(step)
            continue
        wanted = first <= step.seq <= last
        if isinstance(step, LeftOut):
            if wanted:
                kept.append(step)
            continue
        made = step.made is not None and (step.made in handles or step.made.thing in things)
        failed = isinstance(step.expected, str) and step.expected != FD
        changed = not failed and step.seq < first and not step.changes.isdisjoint(things)
        if wanted or made or changed:
            kept.append(step)
            handles |= step.handles
            things |= step.uses
            things |= {handle.thing for handle in step.handles}
    there = {step.made for step in kept if isinstance(step, Issue)}
    final = max((step.seq for step in kept if isinstance(step, Issue)), default=0)
    steps: list[Step] = []
    for step in reversed(kept):
        if isinstance(step, Close) and (step.handle not in there or step.handle.seq >= final):
            continue
        steps.append(step)
    while steps and isinstance(steps[-1], Close):
        steps.pop()
    return Reproduction(
        whole.title, whole.kernel, whole.machine, steps, list(whole.remarks)
    )


def bad_range(text: str) -> str | None:
    """Why ``text`` is no range of calls; None if it is one."""
    if re.fullmatch(r"\d{1,18}(-\d{0,18})?|-\d{1,18}", text):
        return None
    return f"--seq {text}: not a call's number or A-B"


def range_of(text: str) -> tuple[int, int]:
    """``7``, ``3-9``, ``3-`` or ``-9`` as (first, last)."""
    first, dash, last = text.partition("-")
    low = int(first) if first else 1
    return low, (int(last) if last else 1 << 62) if dash else low


