"""Recognises probes as calls go by."""

from __future__ import annotations

from collections.abc import Iterator

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.notes import Probe
from bpftrace_sys.story.objects import NotedCall
from bpftrace_sys.story.probes.matchers import MATCHERS
from bpftrace_sys.story.probes.verdicts import Found
from decoders.raw import ENTRY
from decoders.records import dataclass, field
from decoders.values import Fd


@dataclass(slots=True)
class _Pending:
    """A weak probe whose fd may turn out to be in use."""

    call: NotedCall
    probe: Probe
    fd: int


@dataclass(slots=True)
class _Process:
    company: bool = False
    pending: list[_Pending] = field(default_factory=list)


class Probes:
    """Recognises probes as calls go by.

    :meth:`watch` notes a Probe with the call, which for a weak one without company is
    not certain.  A weak one's note is taken back when the object is used after all, and
    becomes certain when it shows that it was closed unused.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._processes: dict[int, _Process] = {}
        self.recent = False
        """Whether the last call was a probe, perhaps, so that it may be held back."""

    def watch(self, call: NotedCall) -> None:
        """A call, after the model has seen it and before anybody prints it."""
        self.recent = False
        if call.syscall.name not in ("bpf", "openat", "perf_event_open", "ioctl"):
            return
        process = self._processes.get(call.raw.pid)
        found = None
        for matcher in MATCHERS.get(call.command, ()):
            found = found or matcher(call, self.model)
        if process is None:
            if found is None:
                return
            process = self._processes[call.raw.pid] = _Process()
        if process.pending and (call.raw.fds or isinstance(call.ret, Fd)):
            process.pending = list(self._judged(process, call, found))
        if found is None:
            return
        self.recent = True
        if not found.weak:
            process.company = True
            call.notes.probe = Probe(*found, certain=True)
            return
        alone = found.alone and call.raw.failed
        if call.raw.ret is None or (call.raw.failed and not (process.company or alone)):
            return
        certain = (process.company or alone) and not found.part
        call.notes.probe = Probe(*found, certain=certain)
        if isinstance(call.ret, Fd):
            process.pending.append(_Pending(call, call.notes.probe, call.ret.value))

    def _judged(
        self, process: _Process, call: NotedCall, found: Found | None
    ) -> Iterator[_Pending]:
        """Those of a process's weak probes that a call says nothing about."""
        made = call.ret.value if isinstance(call.ret, Fd) else None
        for pending in process.pending:
            if pending.call.notes.probe is None or (pending.probe.part and pending.probe.certain):
                continue  # decided with another one
            if _uses(call, pending):
                if found is not None and found.part:
                    yield pending
                else:
                    _decide(pending, process.pending, found is not None)
            elif made == pending.fd:
                pending.probe.certain = True  # its number is free again: closed, and never used
            elif pending.probe.part:
                yield pending
            elif made is not None and (made == pending.fd + 1 or not process.company):
                pending.call.notes.probe = None  # still open
            else:
                yield pending

    def exited(self, pid: int) -> None:
        """A process has ended; what was not proven to be a probe is none."""
        process = self._processes.pop(pid, None)
        for pending in process.pending if process is not None else ():
            if pending.probe.alone:
                pending.probe.certain = True
            elif not pending.probe.certain:
                pending.call.notes.probe = None


def _uses(call: NotedCall, pending: _Pending) -> bool:
    made = pending.call.notes.made
    if made is None or made.id is None:
        return False
    return any(
        fact.stage == ENTRY and fact.kind == made.kind and fact.id == made.id
        for fact in call.raw.fds
    )


def _decide(pending: _Pending, others: list[_Pending], is_probe: bool) -> None:
    """What a call is is known, and with it what the parts are that it rests on."""
    if is_probe:
        pending.probe.certain = True
    else:
        pending.call.notes.probe = None
    if pending.probe.part:
        for other in others:
            if other.probe.part and _uses(pending.call, other):
                _decide(other, others, is_probe)
