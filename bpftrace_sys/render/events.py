"""One flat JSON object for each thing that an operator wants to hear of (--events).

For collectors and their databases: a field is always of one type, a number or a string, never an
object or a list; what is not known is left out. Times are RFC 3339 in UTC, with microseconds.
"""

from __future__ import annotations

import json
import shlex
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Attachment, NotedCall, Object, Prog
from bpftrace_sys.story.renderer import Renderer
from bpftrace_sys.trace.header import Header
from decoders.events import Ending, Lost, ProcessEvent, Who
from decoders.uapi import names
from decoders.values import Text, Value

if TYPE_CHECKING:
    from bpftrace_sys.render.output import TextOut

FIELDS: Final[dict[str, type]] = {
    "time": str, "event": str, "host": str, "kernel": str, "seq": int,
    "pid": int, "tid": int, "comm": str, "exe": str, "command_line": str, "uid": int,
    "parent_pid": int, "cgroup": str, "container": str,
    "call": str, "command": str, "errno": str, "why": str, "duration_us": int,
    "prog_id": int, "prog_name": str, "prog_type": str, "prog_tag": str, "prog_insns": int,
    "map_id": int, "map_name": str, "link_id": int, "object": str, "object_id": int,
    "object_name": str, "path": str, "target": str, "via": str, "lost_calls": int,
    "lost_events": int,
}  # fmt: skip
"""Every field that may stand in a line, and its type."""
REFUSALS: Final = frozenset({-1, -13})
"""-EPERM, -EACCES"""
LOADS: Final = frozenset({"BPF_PROG_LOAD", "BPF_BTF_LOAD", "BPF_LINK_CREATE"})
"""Commands whose every failure is told."""
PROCESSES: Final = 8_192
"""Processes of which is remembered who they are."""
OUT: Final = 2_000
"""Characters of a text."""


class Events(Renderer):
    """The renderer. ``out`` gets whole lines, at once."""

    def __init__(self, out: TextOut, model: Model) -> None:
        self.out = out
        self.model = model
        self._machine: dict[str, object] = {}
        self._who: OrderedDict[int, dict[str, str | int | None]] = OrderedDict()

    def header(self, header: Header) -> None:
        self._machine = {"host": header.host, "kernel": header.kernel}

    def process(self, event: ProcessEvent) -> None:
        what = event.what
        if isinstance(what, Who):
            self._who[event.pid] = _identity(what)
            self._who.move_to_end(event.pid)
            if len(self._who) > PROCESSES:
                self._who.popitem(last=False)
        elif event.ends_process:
            self._who.pop(event.pid, None)
        elif isinstance(what, Lost):
            self._write(
                event.time, "lost",
                {"lost_calls": what.calls, "lost_events": what.events},
            )  # fmt: skip

    def call(self, call: NotedCall) -> None:
        raw = call.raw
        if call.notes.is_probe:
            return
        command = call.command
        if raw.failed:
            if command in LOADS or raw.ret in REFUSALS:
                self._call(call, "refused", {"why": "; ".join(call.notes.explanation) or None})
        elif command == "BPF_PROG_LOAD":
            self._call(call, "load", {})
        elif command == "BPF_OBJ_PIN" and raw.ret == 0:
            path = call.attr("attr", "pathname")
            pinned = call.notes.objects.get((call.number("attr", "bpf_fd") or -1, 0))
            self._call(call, "pin", {"path": _text(path), **_object(pinned)})

    def attachment(self, told: Attachment) -> None:
        step = told.steps[-1].call if told.steps else None
        fields: dict[str, object] = {
            "target": told.target,
            "via": told.via or None,
            "link_id": None if told.link is None else told.link.id,
            **_prog(told.prog),
        }
        verb = VERBS.get(told.verb, told.verb)
        if step is None:
            return
        self._call(step, verb, fields)

    def _call(self, call: NotedCall, event: str, fields: dict[str, object]) -> None:
        raw = call.raw
        made = call.notes.made
        base: dict[str, object] = {
            "seq": raw.seq,
            "pid": raw.pid,
            "tid": raw.tid,
            "comm": raw.comm,
            **self._who.get(raw.pid, {}),
            "call": call.syscall.name,
            "command": call.command,
            "errno": errno_name(-raw.ret) if raw.failed and raw.ret is not None else None,
            "duration_us": None if raw.duration is None else raw.duration // 1000,
        }
        if event in ("load", "refused") and call.command == "BPF_PROG_LOAD":
            base |= _asked(call) | _prog(made)
        self._write(raw.time, event, base | fields)

    def _write(self, time: int, event: str, fields: dict[str, object]) -> None:
        stamp = datetime.fromtimestamp(time // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        line: dict[str, object] = {
            "time": f"{stamp}.{time // 1000 % 10**6:06}Z",
            "event": event,
            **self._machine,
            **fields,
        }
        flat = {
            name: value[:OUT] if isinstance(value, str) else value
            for name, value in line.items()
            if value is not None and value != ""
        }
        self.out.write(json.dumps(flat, separators=(",", ":")) + "\n")

    def end(self, ending: Ending) -> None:
        self.out.flush()


VERBS: Final = {
    "attached": "attach", "enabled": "attach", "replaced": "replace", "detached": "detach",
    "disabled": "detach",
}  # fmt: skip
"""What an event is called, by the attachment's verb."""


def _identity(who: Who) -> dict[str, str | int | None]:
    return {
        "exe": who.exe,
        "command_line": None if who.argv is None else shlex.join(who.argv),
        "uid": who.uid,
        "parent_pid": who.parent,
        "cgroup": who.cgroup,
        "container": who.container,
    }


def _text(value: Value | None) -> str | None:
    from decoders.call import inner_value

    found = inner_value(value)
    return found.data.decode("utf-8", "backslashreplace") if isinstance(found, Text) else None


def _asked(call: NotedCall) -> dict[str, object]:
    """What a PROG_LOAD asked for."""
    number = call.number("attr", "prog_type")
    kind = names.bpf_prog_type.get(number, "") if number is not None else ""
    return {
        "prog_name": _text(call.attr("attr", "prog_name")),
        "prog_type": kind.removeprefix("BPF_PROG_TYPE_").lower() or None,
        "prog_insns": call.number("attr", "insn_cnt"),
    }


def _prog(prog: Object | None) -> dict[str, object]:
    if not isinstance(prog, Prog):
        return {}
    found: dict[str, object] = {
        "prog_id": prog.id,
        "prog_name": prog.name or None,
        "prog_type": prog.type or None,
        "prog_tag": prog.tag or None,
        "prog_insns": prog.insns,
    }
    return {name: value for name, value in found.items() if isinstance(value, FIELDS[name])}


def _object(found: Object | None) -> dict[str, object]:
    if found is None:
        return {}
    fields: dict[str, object] = {"object": found.kind, "object_id": found.id}
    fields["object_name"] = found.name or None
    if found.kind == "prog":
        fields |= _prog(found)
    elif found.kind == "map":
        fields |= {"map_id": found.id, "map_name": found.name or None}
    elif found.kind == "link":
        fields["link_id"] = found.id
    return fields
