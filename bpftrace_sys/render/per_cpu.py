"""Perf events that are opened for each CPU: what is attached to them is told as one."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Attachment, NotedCall, PerfEvent, scope
from decoders.records import dataclass, field
from decoders.values import Fd

ON_EVENTS: Final = frozenset(
    {
        "PERF_EVENT_IOC_SET_BPF",
        "PERF_EVENT_IOC_ENABLE",
        "PERF_EVENT_IOC_DISABLE",
        "PERF_EVENT_IOC_ID",
    }
)
"""Calls on an event that come between its CPU and the next."""


@dataclass(slots=True)
class _Group:
    """Attachments of a program to events that differ in their CPU only."""

    first: Attachment
    cpus: list[int] = field(default_factory=list)

    def takes(self, told: Attachment) -> bool:
        """Whether an attachment is one more of these."""
        first, event = self.first, told.event
        return (
            event is not None
            and event.cpu is not None
            and first.event is not None
            and (told.verb, told.target, told.prog, told.tid, event.task)
            == (first.verb, first.target, first.prog, first.tid, first.event.task)
        )


class PerCpu:
    """Holds the attachment to one CPU's event for as long as those of others follow."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._group: _Group | None = None

    def __bool__(self) -> bool:
        return self._group is not None

    def hold(self, told: Attachment) -> bool:
        """Takes one; False if it is none of these, or of others than those that are held."""
        event = told.event
        if event is None or event.cpu is None:
            return False
        if self._group is None:
            self._group = _Group(told)
        elif not self._group.takes(told):
            return False
        self._group.cpus.append(event.cpu)
        return True

    def other(self, call: NotedCall) -> bool:
        """Whether what is held has to be told before a call: it is not of such an event."""
        if self._group is None:
            return False
        first = self._group.first
        event: object = None
        if call.command in ON_EVENTS:
            # What was attached may have run for long before it is disabled.
            if first.verb != "disabled" and call.command == "PERF_EVENT_IOC_DISABLE":
                return True
            event = self._model.object(call.fact("fd"), call.raw.pid)
        elif call.syscall.name == "perf_event_open" and isinstance(call.ret, Fd):
            event = call.notes.made
        elif call.command == "BPF_LINK_CREATE":
            target = call.fact("attr", "link_create", "target_fd")
            event = self._model.object(target, call.raw.pid)
        if not isinstance(event, PerfEvent) or first.event is None:
            return True
        same = (event.name, event.task) == (first.target, first.event.task)
        return not same or event.cpu is None or call.raw.tid != first.tid

    def take(self) -> tuple[Attachment, str, int] | None:
        """What was held: the first, where all of them are, and how many more there are."""
        group, self._group = self._group, None
        if group is None or group.first.event is None:
            return None
        return group.first, scope(group.cpus, group.first.event.task), len(group.cpus) - 1
