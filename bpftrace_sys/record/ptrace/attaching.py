"""Attaching to all threads of a running process."""

from __future__ import annotations

import errno
import os

from bpftrace_sys.common.light import suppress
from bpftrace_sys.record.ptrace import requests as px
from bpftrace_sys.record.ptrace.careful import holds_userfaultfd
from bpftrace_sys.record.ptrace.errors import AttachError
from bpftrace_sys.record.ptrace.refusals import status_number, why_not
from bpftrace_sys.record.ptrace.tracee import Tracee


def attach(pid: int, tracees: dict[int, Tracee], follow: bool, more: int = 0) -> None:
    """Seizes the threads of the process that ``pid`` is a thread of, asks each to stop, and adds
    them to ``tracees``. ``follow``: new processes of theirs, too; ``more``: further
    PTRACE_O_*. Raises AttachError."""
    tgid = status_number(pid, "Tgid") or pid
    if tgid == os.getpid():
        raise AttachError(pid, errno.EPERM, f"process {pid} is bpfstrace itself")
    if _traces(tgid, os.getpid()):
        text = f"process {pid} traces bpfstrace itself: each would wait for the other for ever"
        raise AttachError(pid, errno.EPERM, text)
    options = px.PTRACE_O_TRACESYSGOOD | px.PTRACE_O_TRACEEXEC | px.PTRACE_O_TRACECLONE | more
    if follow:
        options |= px.PTRACE_O_TRACEFORK | px.PTRACE_O_TRACEVFORK
    careful = holds_userfaultfd(tgid)
    seen: set[int] = set()
    seized = 0
    while True:
        # Threads may be born while we look: until a look finds no new one.
        try:
            tids = {int(name) for name in os.listdir(f"/proc/{tgid}/task")} - seen
        except OSError:
            tids = set()
        if not tids:
            break
        seen |= tids
        for tid in sorted(tids - tracees.keys()):
            try:
                px.seize(tid, options)
            except OSError as error:
                if tid == tgid and status_number(tid, "TracerPid") == os.getpid():
                    continue  # a child of one of our tracees
                if not seized and error.errno != errno.ESRCH:
                    why = why_not(pid, tid, error.errno or 0)
                    raise AttachError(pid, error.errno or 0, why) from None
                continue
            seized += 1
            tracee = Tracee(tid, tgid)
            tracee.every_call = True
            tracee.attached = True
            if careful:
                tracee.memory.be_careful()
            tracees[tid] = tracee
            with suppress(OSError):
                px.interrupt(tid)
    if not seen:
        raise AttachError(pid, errno.ESRCH, f"no process {pid}")


def _traces(tgid: int, whom: int) -> bool:
    """Whether a process traces another, or traces its tracer, and so on."""
    for _ in range(64):
        tracer = status_number(whom, "TracerPid")
        if not tracer:
            return False
        whom = status_number(tracer, "Tgid") or tracer
        if whom == tgid:
            return True
    return False
