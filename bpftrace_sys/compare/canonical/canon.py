"""Hands on what a trace says, by its meaning, as it comes."""

from __future__ import annotations

import re
from collections.abc import Callable

from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.compare.canonical.entries import Entry, Tied
from bpftrace_sys.compare.canonical.fields import Fields
from bpftrace_sys.compare.canonical.known import Known
from bpftrace_sys.compare.canonical.text import escaped, ref, refs, stable
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Attachment, NotedCall, Prog
from bpftrace_sys.story.renderer import Renderer
from bpftrace_sys.trace.header import Header
from decoders.events import Ending, ProcessEvent
from decoders.values import Fd

Take = Callable[[Entry | Tied], None]


class Canon(Renderer):
    """A renderer that hands on entries instead of printing."""

    def __init__(self, model: Model, take: Take) -> None:
        self.take = take
        self.known = Known(model)
        self.head: Header | None = None

    def header(self, header: Header) -> None:
        self.head = header
        found = re.match(r"(\d+)\.(\d+)", header.kernel)
        self.known.kernel = (int(found[1]), int(found[2])) if found else None

    def process(self, event: ProcessEvent) -> None:
        self.known.processes.event(event)

    def end(self, ending: Ending) -> None:
        self.known.objects.settle()

    def attachment(self, told: Attachment) -> None:
        process = self.known.processes.get(told.pid)
        known = None if told.prog is None else self.known.objects.known(told.prog)
        self.take(
            Tied(
                process,
                told.verb,
                "a program" if known is None else ref(known.number),
                stable(escaped(told.target), self.known.processes.numbers),
                told.via,
                tuple(step.role for step in told.steps),
            )
        )

    def call(self, call: NotedCall) -> None:
        raw = call.raw
        process = self.known.processes.get(raw.pid)
        process.comm = escaped(raw.comm) or process.comm
        made = call.notes.made
        entry = Entry(process, call.syscall.name, call.command, "", raw.failed, seq=raw.seq)
        if raw.ret is None:
            entry.result = "?"
        elif raw.failed:
            entry.result = errno_name(-raw.ret)
        elif made is not None:
            entry.result = self.known.objects.ref(made)
            if made.kind != "file" and refs(entry.result):
                entry.made = refs(entry.result)[0]
        elif isinstance(call.ret, Fd):
            entry.result = "fd"
        elif raw.ret:
            entry.result = str(raw.ret)
        probe = call.notes.probe
        if probe is not None and probe.certain:
            entry.probe = probe.name
        elif probe is not None:
            entry.notes = call.notes
        entry.reason = escaped("; ".join(call.notes.explanation))
        retry = call.notes.retry
        if retry is not None:
            entry.after = retry.after
            changed = retry.changed.items()
            entry.tries = escaped(", ".join(f"{name} {a} -> {b}" for name, (a, b) in changed))
        if call.command == "BPF_PROG_LOAD":
            listing = call.notes.listing
            computed = "" if listing is None else listing.sha1
            entry.tag = made.tag if isinstance(made, Prog) and made.tag else computed
        Fields(self.known, call, entry).all()
        self.take(entry)
