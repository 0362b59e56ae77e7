"""The hint that -f is missing: a program, traced without it, has started others."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from decoders.events import LeftAlone


def left_alone_line(left: LeftAlone, program: bool, made: bool) -> str:
    """``the program started 2 processes, which were not followed: -f follows them``; empty where
    that is nobody's business.

    ``program``: one was started, and not only attached to. ``made``: the trace saw an object of
    BPF being made. Of processes of whom it is not known that they asked anything of BPF, nothing
    is said then; of threads it is, for they share what the program has.
    """
    processes = 0 if made and left.calls is None else left.processes
    counts = [
        f"{count:,} {one if count == 1 else many}"
        for count, one, many in (
            (processes, "process", "processes"), (left.threads, "thread", "threads"),
        )
        if count > 0
    ]  # fmt: skip
    if not counts or left.calls == 0:
        return ""
    single = processes + left.threads == 1
    whose = "the program" if program else "what is attached to"
    started = f"{whose} started {' and '.join(counts)}"
    if left.calls is None:
        was, them = ("was", "it") if single else ("were", "them")
        return f"{started}, which {was} not followed: -f follows {them}"
    calls = "1 call of bpf()" if left.calls == 1 else f"{left.calls:,} calls of bpf()"
    who = "it or its children" if single else "they or their children"
    return f"{started}; {calls} that {who} made are not shown: -f follows them"
