"""What the kernel refused in the end: without feature probes, and without attempts that were
followed by another one."""

from __future__ import annotations

import os
from typing import Final

from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.story.explain.failure import Failure
from bpftrace_sys.story.explain.logs import said
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import NotedCall, Notes, Object, text_of
from bpftrace_sys.story.places import Place, place_of
from bpftrace_sys.story.program_names import prog_key
from bpftrace_sys.story.retention import KEPT, slim
from bpftrace_sys.story.summary import Table
from bpftrace_sys.story.targets import printable
from decoders.records import dataclass, field, replace

REMEMBERED: Final = 10_000
ANSWERS: Final = frozenset(
    (command, "ENOENT")
    for command in (
        "BPF_MAP_LOOKUP_ELEM",
        "BPF_MAP_LOOKUP_AND_DELETE_ELEM",
        "BPF_MAP_DELETE_ELEM",
        "BPF_MAP_GET_NEXT_KEY",
        "BPF_MAP_LOOKUP_BATCH",
        "BPF_MAP_LOOKUP_AND_DELETE_BATCH",
        "BPF_PROG_GET_NEXT_ID",
        "BPF_MAP_GET_NEXT_ID",
        "BPF_BTF_GET_NEXT_ID",
        "BPF_LINK_GET_NEXT_ID",
        "BPF_OBJ_GET",
    )
)
"""Errors that say no more than that nothing is there."""
OPENING: Final = "openat"
"""Loaders look for files in several places."""


LISTED: Final = 200
"""Refused programs in a table."""


@dataclass(slots=True)
class Refusal:
    """A call that the kernel refused."""

    seq: int
    """Its number in the trace."""
    command: str
    errno: str
    """EACCES, ..."""
    name: str
    """Of the program, map or file that it is about; may be empty."""
    message: str
    """The reason in a line: the verifier's last words, else the explanation's first line."""
    lines: list[str] = field(default_factory=list)
    """The whole explanation, as it stands under the call in the text."""
    place: Place | None = None
    """Of the instruction that the verifier spoke of."""
    type: str = ""
    """Of a program that was to be loaded: ``xdp``."""

    @property
    def text(self) -> str:
        """The refusal in one line."""
        about = f" of {self.name}" if self.name else ""
        return f"{self.command}{about} = {self.errno}: {self.message}"


class Refusals:
    """Takes calls in order, as a renderer does."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._calls: dict[int, tuple[NotedCall, Refusal]] = {}
        self._size = 0
        self.more = 0
        """Refusals beyond those that are remembered."""

    def call(self, call: NotedCall) -> None:
        """Takes one."""
        retry = call.notes.retry
        if retry is not None:
            self._calls.pop(retry.after, None)
        if not call.raw.failed or call.raw.ret is None or call.syscall.name == OPENING:
            return
        command = call.command.partition("|")[0]
        name = errno_name(-call.raw.ret)
        if (command, name) in ANSWERS or call.notes.is_probe:
            return
        if len(self._calls) >= REMEMBERED:
            self.more += 1
        else:
            refusal = refusal_of(call, command, name, self.model)
            self._size += sum(len(chunk.data) for chunk in call.raw.chunks)
            if self._size > KEPT:
                # Its probe is shared: what follows may show that it is one.
                call = replace(slim(call), notes=Notes(probe=call.notes.probe))
            self._calls[call.raw.seq] = (call, refusal)

    def calls(self) -> list[tuple[Refusal, NotedCall]]:
        """The refusals with their calls."""
        known = self._calls.values()
        return [(refusal, call) for call, refusal in known if not call.notes.is_probe]

    def found(self) -> list[Refusal]:
        """Those that were no probes, for all that is known by now."""
        return [refusal for call, refusal in self._calls.values() if not call.notes.is_probe]


class RefusedPrograms:
    """Programs that the kernel refused in the end, for a table; takes failed PROG_LOADs in order.

    What is kept of a call does not hold the call: its instructions and log may be large.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._known: dict[int, tuple[Notes, Refusal]] = {}
        self.more = 0
        """Refusals beyond those that are listed."""

    def call(self, call: NotedCall) -> None:
        """Takes one."""
        retry = call.notes.retry
        if retry is not None:
            self._known.pop(retry.after, None)
        if not call.raw.failed or call.raw.ret is None or call.notes.is_probe:
            return
        if len(self._known) >= LISTED:
            self.more += 1
            return
        name = errno_name(-call.raw.ret)
        found = refusal_of(call, "BPF_PROG_LOAD", name, self.model)
        self._known[call.raw.seq] = (call.notes, found)

    def again(self, call: NotedCall, before: NotedCall) -> None:
        """Takes another attempt that failed as the one before it did."""
        known = self._known.pop(before.raw.seq, None)
        if known is None:
            self.call(call)
        else:
            self._known[call.raw.seq] = (call.notes, known[1])

    def table(self) -> Table:
        """name, type, errno, place in the source, the reason's first line."""
        table = Table("refused programs", ("name", "type", "errno", "source", "reason"))
        for notes, refusal in self._known.values():
            if notes.is_probe:
                continue  # as was seen later
            place = refusal.place
            where = "" if place is None else place.where or f"insn {place.pc}"
            cells = (refusal.name or "(anonymous)", refusal.type, refusal.errno, where)
            table.rows.append((*map(printable, cells), printable(refusal.message)))
        if self.more:
            table.title += f" (and {self.more} more)"
        return table


def refusal_of(call: NotedCall, command: str, errno: str, model: Model) -> Refusal:
    """What there is to say of a refused call."""
    name = kind = ""
    if command == "BPF_PROG_LOAD":
        name, kind = prog_key(call, model)
    made = text_of(call.attr("attr", "map_name")) or text_of(call.attr("attr", "pathname"))
    name = name or made or text_of(call.attr("pathname"))
    if not name:
        used: Object | None = None
        for path in (
            ("attr", "link_create", "prog_fd"), ("attr", "attach_bpf_fd"), ("attr", "map_fd"),
            ("attr", "raw_tracepoint", "prog_fd"), ("arg",), ("fd",),
        ):  # fmt: skip
            used = used or model.by_fd(call, *path)
        name = used.name if used is not None else ""
    lines = list(call.notes.explanation)
    message = lines[0] if lines else os.strerror(-(call.raw.ret or 0))
    made_of = Refusal(call.raw.seq, command, errno, name, message, lines, type=kind)
    if command == "BPF_PROG_LOAD":
        answer = said(Failure(call, model, model.facts))
        if answer is not None:
            verdict, pc = answer
            made_of.message = " ".join(verdict.lines)
            if pc is not None:
                made_of.place = place_of(call, model, pc)
    return made_of
