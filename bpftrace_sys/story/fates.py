"""What became of a program: where it is or was attached, that it was run, why it is not attached.

No evidence, no sentence: where the call that attaches is not traced, nothing is denied.
"""

from __future__ import annotations

from typing import Final

from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import BEFORE, FOUND, MADE, Object, Prog, Refusal, scope
from bpftrace_sys.story.targets import printable

ELSEWHERE: Final = {FOUND: "(from elsewhere)", BEFORE: "(from before the trace)"}
"""Of objects whose making the trace did not see."""
NETLINK_TYPES: Final = frozenset(
    {"xdp", "sched_cls", "sched_act", "lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local"}
)
"""Types of programs that can be attached over route netlink."""
ATTACHED_BY: Final = {
    "kprobe": "ioctl", "tracepoint": "ioctl", "perf_event": "ioctl",
    "socket_filter": "setsockopt", "sk_reuseport": "setsockopt",
}  # fmt: skip
"""Types of programs, and the call besides bpf() by which they are attached."""


def seen_at_the_end(prog: Object, model: Model) -> list[str]:
    """Where a program stood attached when the trace ended, and no traced call had put it."""
    # As Model.settle() asked: of programs that are still there and were not seen attached.
    if not prog.id or prog.attached or model.facts.fact("alive_prog", prog.id) is None:
        return []
    text = model.facts.fact("standing", prog.id)
    if text is None:
        return []
    from bpftrace_sys.story.standing import PlaceText
    from bpftrace_sys.trace.inventory import places_of

    place_text = PlaceText(model.facts)
    found = [place_text.target(place) for place in places_of(text)]
    return [target for target in found if target]


def targets(prog: Object) -> list[str]:
    """Where a program is attached, perf events of several CPUs as one; then where it was."""
    now: list[str] = []
    past: list[str] = []
    events: dict[str, dict[int | None, list[int]]] = {}
    idle: dict[str, dict[int | None, list[int]]] = {}
    for event in prog.events if isinstance(prog, Prog) else ():
        tasks = (idle if event.disabled else events).setdefault(event.name, {})
        tasks.setdefault(event.task, []).extend([] if event.cpu is None else [event.cpu])
    for target in dict.fromkeys(prog.attached):
        places = events.get(target) or ({} if target in idle else {None: []})
        now += [target + scope(cpus, task) for task, cpus in places.items()]
        if not places:
            past += [
                f"was attached to {target}{scope(cpus, task)}, disabled"
                for task, cpus in idle[target].items()
            ]
    past += [
        f"was attached to {target}, detached"
        for target in prog.was_attached
        if target not in prog.attached
    ]
    return [printable(target) for target in now + past]


def stands(prog: Object, model: Model) -> bool:
    """Whether a program is attached as far as the trace has come, or was seen to be at its end."""
    events: dict[str, bool] = {}
    for event in prog.events if isinstance(prog, Prog) else ():
        events[event.name] = events.get(event.name, False) or not event.disabled
    return any(events.get(target, True) for target in prog.attached) or bool(
        prog.origin == MADE and seen_at_the_end(prog, model)
    )


def unattached(prog: Prog, model: Model) -> tuple[str, str]:
    """What is to be said of a program that no traced call has attached, and more about it."""
    kind = prog.type_name
    call = ATTACHED_BY.get(kind)
    if call is not None and model.traced is not None and call not in model.traced:
        return "attachment not traced", f"{call} is not traced"
    because = cause(prog, model)
    if kind in NETLINK_TYPES and not model.netlink:
        more = "netlink is not traced"
        return "not seen attached", f"{because}; {more}" if because else more
    if model.left_out:
        return "not seen attached", f"{printable(model.left_out)} leaves calls out"
    return "not attached", because


def cause(prog: Prog, model: Model) -> str:
    """What failed on the way to attaching a program, where the trace has it."""
    refused = prog.refused
    if refused is None and prog.call is not None:
        trouble = model.troubles.get((prog.call.raw.pid, prog.type_name))
        if trouble is not None and trouble.seq > prog.call.raw.seq:
            refused = trouble
    return "" if refused is None else _told(refused)


def _told(refused: Refusal) -> str:
    text = f"{refused.what} {errno_name(refused.errno)}"
    reason = refused.reason or next(iter(refused.notes.explanation), "")
    return printable(f"{text}: {reason}" if reason else text)


def runs(prog: Prog) -> str:
    """``run once by BPF_PROG_TEST_RUN``, or nothing."""
    if not prog.runs:
        return ""
    times = "once" if prog.runs == 1 else f"{prog.runs:,} times"
    return f"{times} by BPF_PROG_TEST_RUN"


def fate(prog: Prog, model: Model) -> str:
    """Where a program is attached, in the cell of a table."""
    found = targets(prog)
    if prog.origin == MADE and not found:
        seen = seen_at_the_end(prog, model)
        if seen:
            found = [f"{', '.join(seen)} (seen at the end)"]
        elif not prog.runs:
            verb, more = unattached(prog, model)
            found = [f"{verb} ({more})" if more else verb]
    if prog.runs:
        found.append(f"run {runs(prog)}")
    if not found:
        found = [ELSEWHERE[prog.origin]]
    return ("; " if any(", " in words for words in found[:-1]) else ", ").join(found)
