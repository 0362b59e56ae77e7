"""The lines that stand below a call."""

from __future__ import annotations

from bpftrace_sys.story.objects import NotedCall


def remarks(call: NotedCall) -> list[str]:
    """The lines below a call: which attempt it was, which probe, why it failed."""
    notes = call.notes
    lines = []
    retry = notes.retry
    if retry is not None:
        changed = retry.changed.items()
        changes = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changed)
        lines.append(
            f"  again: attempt {retry.attempt} of this, after {retry.errno}: "
            f"{changes or 'nothing changed'}"
        )
    if notes.is_probe:
        from bpftrace_sys.story.probes.folds import remark

        said = remark(call)
        if said is not None:
            lines.append(f"  {said}")
    lines += [f"  not as it was read: {line}" for line in notes.mismatch]
    lines += [f"  other than declared: {line}" for line in notes.differs]
    if call.problem is not None:
        lines.append(f"  not decoded whole, a fault of bpfstrace's own: {call.problem}")
    for index, line in enumerate(notes.explanation):
        lines.append(f"  {'why: ' if not index else '     '}{line}")
    return lines
