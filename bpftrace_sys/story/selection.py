"""Which calls are shown: -z, -Z, -e prog=NAME, -P PATH; of a trace that is replayed, also
-e trace= and -e bpf=.

What is not shown is still seen: the model knows all objects, so names stay right.
"""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

from bpftrace_sys.story.objects import Attachment, Link, NotedCall, Object, PerfEvent, Prog, text_of
from bpftrace_sys.story.renderer import Renderer
from bpftrace_sys.trace.header import Header
from decoders.call import Call, inner_value
from decoders.events import ProcessEvent
from decoders.records import dataclass
from decoders.uapi.const import BPF_COMMON_ATTRS
from decoders.values import Struct, Text, Value

if TYPE_CHECKING:
    from bpftrace_sys.story.kernel_view import Seen
    from bpftrace_sys.trace.inventory import ObjectState, Unseen
    from decoders.events import Ending


@dataclass(frozen=True, slots=True)
class Selection:
    """What to show.  Empty: everything."""

    statuses: frozenset[str] = frozenset()
    """successful, failed, unfinished, detached: only such calls."""
    succeeded: bool | None = None
    """True: only successful calls (-z); False: only failed ones (-Z)."""
    progs: tuple[str, ...] = ()
    """Patterns of program names."""
    paths: tuple[str, ...] = ()
    calls: frozenset[str] | None = None
    """Names of system calls; None: all."""
    commands: frozenset[int] = frozenset()
    """Of bpf(2); other calls are shown whatever stands here."""

    def __bool__(self) -> bool:
        return (
            self.succeeded is not None
            or bool(self.progs)
            or bool(self.paths)
            or bool(self.statuses)
            or self.calls is not None
            or bool(self.commands)
        )

    def call(self, call: NotedCall) -> bool:
        """Whether a call is shown."""
        if not self._asked(call):
            return False
        if self.succeeded is not None and (
            call.raw.ret is None or call.raw.failed is self.succeeded
        ):
            return False
        if self.statuses and status_of(call) not in self.statuses:
            return False
        if self.progs and not any(self._prog(found) for found in progs_of(call)):
            return False
        return not self.paths or any(path in self.paths for path in paths_of(call))

    def running(self, call: NotedCall) -> bool:
        """Whether a call that is not over is shown: that is left open where its result counts,
        or what its memory will hold."""
        if self.succeeded is not None or self.statuses or self.progs or self.paths:
            return False
        return self._asked(call)

    def attachment(self, told: Attachment) -> bool:
        """Whether an attachment is shown."""
        if self.succeeded is False or (told.steps and not self._asked(told.steps[-1].call)):
            return False
        if self.progs and not (told.prog is not None and self._prog(told.prog)):
            return False
        return not self.paths or any(
            path in self.paths for step in told.steps for path in paths_of(step.call)
        )

    def _asked(self, call: Call) -> bool:
        """Whether it is one of the calls and commands that were named."""
        if self.calls is not None and call.syscall.name not in self.calls:
            return False
        if not self.commands or call.syscall.name != "bpf" or not call.raw.args:
            return True
        return call.raw.args[0] & 0xFFFF_FFFF & ~BPF_COMMON_ATTRS in self.commands

    def _prog(self, found: Object) -> bool:
        return any(fnmatch.fnmatchcase(found.name, pattern) for pattern in self.progs)


def status_of(call: Call) -> str:
    """successful, failed, unfinished or detached, as -e status= has them."""
    if call.raw.ret is None:
        return "detached" if call.raw.extra.detached else "unfinished"
    return "failed" if call.raw.failed else "successful"


def progs_of(call: NotedCall) -> list[Object]:
    """The programs that a call has to do with: its fds', and a failed load's own."""
    objects = call.notes.objects.values()
    found = [known for known in objects if known.kind == "prog"]
    for known in objects:
        if isinstance(known, Link | PerfEvent) and known.prog is not None:
            found.append(known.prog)
    if call.command.startswith("BPF_PROG_LOAD") and not found:
        found.append(Prog(name=text_of(call.attr("attr", "prog_name"))))
    return found


def paths_of(call: Call) -> list[str]:
    """The paths in a call's arguments, and those of its fds."""
    found = [
        str(fact.info["path"]) for fact in call.raw.fds if isinstance(fact.info.get("path"), str)
    ]

    def walk(value: Value | None) -> None:
        value = inner_value(value)
        if isinstance(value, Struct):
            for name, member in value.fields:
                inner = inner_value(member)
                if isinstance(inner, Text) and "path" in name:
                    found.append(text_of(inner))
                else:
                    walk(inner)

    walk(call.args)
    return found


class Selected(Renderer):
    """A renderer that is shown only what a Selection lets through."""

    def __init__(self, renderer: Renderer, selection: Selection) -> None:
        self.renderer = renderer
        self.selection = selection

    def header(self, header: Header) -> None:
        self.renderer.header(header)

    def fact(self, kind: str, key: int, name: str) -> None:
        self.renderer.fact(kind, key, name)

    def held(self, state: ObjectState, known: Object) -> None:
        self.renderer.held(state, known)

    def unseen(self, unseen: Unseen) -> None:
        self.renderer.unseen(unseen)

    def running(self, call: NotedCall) -> None:
        if self.selection.running(call):
            self.renderer.running(call)

    def call(self, call: NotedCall) -> None:
        if self.selection.call(call):
            self.renderer.call(call)

    def attachment(self, told: Attachment) -> None:
        if self.selection.attachment(told):
            self.renderer.attachment(told)

    def kernel_view(self, seen: Seen) -> None:
        # Where the load is shown, what became of it is.
        call = None if seen.prog is None else seen.prog.call
        if call is None or self.selection.call(call):
            self.renderer.kernel_view(seen)

    def process(self, event: ProcessEvent) -> None:
        self.renderer.process(event)

    def waits(self) -> bool:
        return self.renderer.waits()

    def lull(self) -> None:
        self.renderer.lull()

    def end(self, ending: Ending) -> None:
        self.renderer.end(ending)

    def cut(self) -> None:
        self.renderer.cut()
