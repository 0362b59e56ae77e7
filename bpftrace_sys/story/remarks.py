"""The lines that stand below a call."""

from __future__ import annotations

from decoders.call import Call


def remarks(call: Call) -> list[str]:
    """The lines below a call: which attempt it was, which probe, why it failed."""
    if not call.notes:
        return []
    lines = []
    retry = call.notes.get("retry")
    if retry is not None:
        changed = retry["changed"].items()
        changes = ", ".join(f"{name} {old} -> {new}" for name, (old, new) in changed)
        lines.append(
            f"  again: attempt {retry['attempt']} of this, after {retry['errno']}: "
            f"{changes or 'nothing changed'}"
        )
    if "probe" in call.notes:
        from bpftrace_sys.story.probes.folds import remark

        said = remark(call)
        if said is not None:
            lines.append(f"  {said}")
    lines += [f"  not as it was read: {line}" for line in call.notes.get("mismatch", ())]
    why = call.notes.get("explanation")
    for index, line in enumerate(why or ()):
        lines.append(f"  {'why: ' if not index else '     '}{line}")
    return lines
