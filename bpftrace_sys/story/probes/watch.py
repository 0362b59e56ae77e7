"""Recognises probes as calls go by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Object
from bpftrace_sys.story.probes.matchers import MATCHERS
from bpftrace_sys.story.probes.verdicts import Found
from decoders.call import Call
from decoders.raw import ENTRY
from decoders.values import Fd


@dataclass(slots=True)
class _Pending:
    """A weak probe whose fd may turn out to be in use."""

    call: Call
    found: Found
    fd: int
    made: Object | None


@dataclass(slots=True)
class _Process:
    company: bool = False
    pending: list[_Pending] = field(default_factory=list)


class Probes:
    """Recognises probes as calls go by.

    :meth:`watch` puts into ``call.notes``: ``probe`` (the feature's name), for a
    weak one without company ``maybe_probe`` instead, and ``probe_found`` (Found).
    A weak one's note is taken back when the object is used after all, and
    ``maybe_probe`` becomes ``probe`` when it shows that it was closed unused.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._processes: dict[int, _Process] = {}
        self.recent = False
        """Whether the last call was a probe, perhaps, so that it may be held back."""

    def watch(self, call: Call) -> None:
        """A call, after the model has seen it and before anybody prints it."""
        self.recent = False
        if call.syscall.name not in ("bpf", "openat", "perf_event_open", "ioctl"):
            return
        process = self._processes.get(call.raw.pid)
        matcher = MATCHERS.get(call.command)
        found = None if matcher is None else matcher(call, self.model)
        if process is None:
            if found is None:
                return
            process = self._processes[call.raw.pid] = _Process()
        if process.pending:
            process.pending = list(self._judged(process, call, found))
        if found is None:
            return
        self.recent = True
        call.notes["probe_found"] = found
        if not found.weak:
            process.company = True
            call.notes["probe"] = found.name
            return
        if call.raw.ret is None or (call.raw.failed and not process.company):
            del call.notes["probe_found"]
            return
        call.notes["probe" if process.company else "maybe_probe"] = found.name
        if isinstance(call.ret, Fd):
            process.pending.append(
                _Pending(call, found, call.ret.value, call.notes.get("made"))
            )

    def _judged(
        self, process: _Process, call: Call, found: Found | None
    ) -> Iterator[_Pending]:
        """Those of a process's weak probes that a call says nothing about."""
        made = call.ret.value if isinstance(call.ret, Fd) else None
        for pending in process.pending:
            if _uses(call, pending):
                if found is None:
                    _real(pending.call)
                else:
                    _probe(pending)
            elif made == pending.fd:
                _probe(pending)  # its number is free again: closed, and never used
            elif made is not None and (made == pending.fd + 1 or not process.company):
                _real(pending.call)  # still open
            else:
                yield pending

    def exited(self, pid: int) -> None:
        """A process has ended; what was not proven to be a probe is none."""
        process = self._processes.pop(pid, None)
        for pending in process.pending if process is not None else ():
            if "maybe_probe" in pending.call.notes:
                _real(pending.call)


def _uses(call: Call, pending: _Pending) -> bool:
    made = pending.made
    if made is None or made.id is None:
        return False
    return any(
        fact.stage == ENTRY and fact.kind == made.kind and fact.id == made.id
        for fact in call.raw.fds
    )


def _real(call: Call) -> None:
    for name in ("probe", "maybe_probe", "probe_found"):
        call.notes.pop(name, None)


def _probe(pending: _Pending) -> None:
    call = pending.call
    call.notes.pop("maybe_probe", None)
    call.notes["probe"] = pending.found.name
