"""What failed on the way to an attachment, so that the end can say why there is none."""

from __future__ import annotations

import errno
from typing import Final

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import NotedCall, Object, Prog, Refusal, text_of
from bpftrace_sys.story.targets import opened
from decoders.values import Int, Name

PROGRAM_FDS: Final[dict[str, tuple[str, ...]]] = {
    "PERF_EVENT_IOC_SET_BPF": ("arg",),
    "BPF_LINK_CREATE": ("attr", "link_create", "prog_fd"),
    "BPF_RAW_TRACEPOINT_OPEN": ("attr", "raw_tracepoint", "prog_fd"),
    "BPF_PROG_ATTACH": ("attr", "attach_bpf_fd"),
    "setsockopt": ("optval", "fd"),
}
"""Calls that attach, and where the program's fd stands in them."""
PROBES: Final = {"kprobe_events": "kprobe", "uprobe_events": "uprobe"}
"""Files of tracefs that define probes."""
CONFIGS: Final = {"kprobe": "CONFIG_KPROBE_EVENTS", "uprobe": "CONFIG_UPROBE_EVENTS"}
TROUBLES: Final = 4_096
"""Processes and types of programs of which is remembered what failed."""


class Troubles:
    """Watches calls that failed."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def failed(self, call: NotedCall) -> None:
        """A call that failed, perhaps on the way to an attachment."""
        path = PROGRAM_FDS.get(call.command)
        if path is not None:
            prog = self._model.by_fd(call, *path)
            if isinstance(prog, Prog):
                prog.refused = _refusal(call, call.command)
        elif call.syscall.name == "openat":
            self._openat(call)
        elif call.syscall.name == "perf_event_open":
            self._remember(call, _type_for(call), _refusal(call, "perf_event_open"))
        elif call.syscall.name == "write":
            fact = call.fact("fd")
            name = "" if fact is None else str(fact.info.get("path", "")).rpartition("/")[2]
            if name in PROBES:
                self._remember(call, "kprobe", _refusal(call, f"write to {name}"))

    def over(self, prog: Object) -> None:
        """A program was attached: what failed before was got over."""
        if isinstance(prog, Prog):
            prog.refused = None
            if prog.call is not None:
                self._model.troubles.pop((prog.call.raw.pid, prog.type_name), None)

    def _openat(self, call: NotedCall) -> None:
        path = text_of(call.attr("pathname"))
        what, _, name = (opened(path) or "").partition(" ")
        refusal = _refusal(call, f"openat {path}")
        if what == "pmu" and name in CONFIGS and call.raw.ret == -errno.ENOENT:
            pmus = self._model.facts.pmus.values()
            # Where there is no /sys, its files prove nothing.
            if pmus and name not in pmus:
                refusal.reason = f"this kernel has no {name}s ({CONFIGS[name]})"
            self._remember(call, "kprobe", refusal)
        elif what == "tracepoint":
            self._remember(call, "tracepoint", refusal)
        elif path.rpartition("/")[2] in PROBES:
            self._remember(call, "kprobe", refusal)

    def _remember(self, call: NotedCall, kind: str, refusal: Refusal) -> None:
        """The last failure counts, but for one that tells what the kernel lacks."""
        troubles = self._model.troubles
        key = (call.raw.pid, kind)
        known = troubles.get(key)
        if known is not None and known.reason:
            return
        troubles[key] = refusal
        if len(troubles) > TROUBLES:
            del troubles[next(iter(troubles))]


def _refusal(call: NotedCall, what: str) -> Refusal:
    return Refusal(what, -(call.raw.ret or 0), call.notes, call.raw.seq)


def _type_for(call: NotedCall) -> str:
    """The type of programs that an event would have taken."""
    kind = call.attr("attr", "type")
    if isinstance(kind, Int):
        return "kprobe" if kind.note in ("kprobe", "uprobe") else "perf_event"
    name = kind.name if isinstance(kind, Name) else None
    return "tracepoint" if name == "PERF_TYPE_TRACEPOINT" else "perf_event"
