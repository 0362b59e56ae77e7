"""JSON: the decoded trace, one object a line, with what replay needs in ``raw``.

The path of a value in ``args`` is its path in C.  Numbers that are addresses or
bit patterns are strings in hex; named values are their names, unknown ones
numbers; flags are lists (a rest that no name covers is a number in it);
pointers are objects with addr and value; fields that the kernel changed are
objects with before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.common.strict_json import dumps
from bpftrace_sys.render.json_objects import insns_json, object_json
from bpftrace_sys.render.json_templates import JsonTemplate
from bpftrace_sys.story.listing import listing_for
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Attachment, NotedCall, PerfEvent
from bpftrace_sys.story.renderer import Renderer, Template, text_of
from bpftrace_sys.story.walks import key_of
from bpftrace_sys.trace.events import ending_line, event_line
from bpftrace_sys.trace.header import Header
from bpftrace_sys.trace.lines import raw_line
from bpftrace_sys.trace.pieces import Pieces, pack, pack_apart
from decoders.digests import sha256_of
from decoders.events import ProcessEvent
from decoders.raw import EXIT
from decoders.records import asdict
from decoders.values import (
    NULL,
    Absent,
    Array,
    Bytes,
    Changed,
    Fd,
    Flags,
    Insns,
    Int,
    Name,
    Pointer,
    Struct,
    Text,
    Value,
)

if TYPE_CHECKING:
    from bpftrace_sys.render.output import TextOut
    from bpftrace_sys.story.kernel_view import Seen
    from bpftrace_sys.story.objects import Object
    from bpftrace_sys.story.walks import Key
    from bpftrace_sys.trace.inventory import ObjectState, Unseen
    from decoders.events import Ending
    from decoders.loop_calls import Rounds

RECORDS_SHOWN: Final = 64
"""Records that each have the names of their fields; more than that become a table."""
BYTES_SHOWN: Final = 4096
"""Of longer pieces only the beginning stands in ``args``, with size and hash."""
HOLE: Final = "\0hole\0"
"""Stands in a template for what differs from call to call."""
UNDERSCORES: Final = 8
"""Members of one name that are told apart by what follows it; then they are counted."""
_HOLE: Final = dumps(HOLE)


class _Values:
    """Makes JSON of the values of one call."""

    def __init__(self, call: NotedCall, model: Model, holes: list[Bytes] | None = None) -> None:
        self.call = call
        self.model = model
        self._holes = holes
        """While a template is made: what HOLE stands for, one after the other."""

    def json(self, value: Value) -> Any:
        return _BY_TYPE[type(value)](self, value)

    def int(self, value: Int) -> Any:
        number: Any = hex(value.value) if value.base == 16 and value.value else value.value
        return {"value": number, "name": value.note} if value.note else number

    def name(self, value: Name) -> Any:
        return value.value if value.name is None else value.name

    def flags(self, value: Flags) -> Any:
        return [*value.names, value.rest] if value.rest else list(value.names)

    def fd(self, value: Fd) -> Any:
        return value.value

    def text(self, value: Text) -> Any:
        text = value.data.decode("utf-8", "backslashreplace")
        return text if value.whole else {"text": text, "truncated": True}

    def bytes(self, value: Bytes) -> Any:
        if self._holes is not None:
            self._holes.append(value)
            return {"hex": HOLE}
        line: dict[str, object] = {"hex": value.data[:BYTES_SHOWN].hex()}
        if len(value.data) > BYTES_SHOWN:
            # All of it is in raw; here its identity is enough.
            line["size"] = len(value.data)
            line["sha256"] = sha256_of(value.data).hex()
        if value.wanted > len(value.data):
            line["wanted"] = value.wanted
        if value.typed is not None:
            line["typed"] = self.json(value.typed)
        if value.note is not None:
            line["summary"] = value.note
        return line

    def insns(self, value: Insns) -> Any:
        found = listing_for(self.call, value, self.model)
        if found is None:
            from decoders.formats.insn_text import disasm

            return [{"text": line} for line in disasm(value.data)]
        return insns_json(found)

    def struct(self, value: Struct) -> Any:
        line: dict[str, object] = {}
        times: dict[str, int] = {}
        for name, member in value.fields:
            if isinstance(member, Absent) and member.reason == "beyond size":
                continue
            line[_free(name, line, times)] = self.json(member)
        return line

    def array(self, value: Array) -> Any:
        if len(value.items) > RECORDS_SHOWN and value.total == len(value.items):
            table = self.table(value)
            if table is not None:
                return table
        items = [self.json(item) for item in value.items]
        if value.total > len(items):
            return {"items": items, "total": value.total}
        return items

    def table(self, value: Array) -> Any:
        """Many records of numbers (line_info) as rows, which take a third of the room."""
        first = value.items[0]
        names = [name for name, _ in first.fields] if isinstance(first, Struct) else []
        rows = []
        for item in value.items:
            if not isinstance(item, Struct) or len(item.fields) != len(names):
                return None
            row = [member.value for _, member in item.fields if isinstance(member, Int)]
            if len(row) != len(names) or [name for name, _ in item.fields] != names:
                return None
            rows.append(row)
        return {"fields": names, "rows": rows} if names else None

    def pointer(self, value: Pointer) -> Any:
        if isinstance(value.value, Absent):
            return {"addr": hex(value.addr), "absent": value.value.reason}
        line = {"addr": hex(value.addr), "value": self.json(value.value)}
        if isinstance(value.value, Insns):
            found = listing_for(self.call, value.value, self.model)
            if found is not None and found.unlisted:
                line["unlisted"] = found.unlisted
            if value.value.unread:
                line["unread"] = value.value.unread
                line["why"] = value.value.why
        return line

    def absent(self, value: Absent) -> Any:
        return None if value.reason == NULL else {"absent": value.reason}

    def changed(self, value: Changed) -> Any:
        return {"before": self.json(value.before), "after": self.json(value.after)}


_BY_TYPE: Final[dict[type, Callable[[_Values, Any], Any]]] = {
    Int: _Values.int,
    Name: _Values.name,
    Flags: _Values.flags,
    Fd: _Values.fd,
    Text: _Values.text,
    Bytes: _Values.bytes,
    Insns: _Values.insns,
    Struct: _Values.struct,
    Array: _Values.array,
    Pointer: _Values.pointer,
    Absent: _Values.absent,
    Changed: _Values.changed,
}


def _free(name: str, line: dict[str, object], times: dict[str, int]) -> str:
    """A key that is not there yet, for a member whose name may be another one's: C's are not."""
    if name not in line:
        return name
    for count in range(times.get(name, 0) + 1, len(line) + 2):
        key = f"{name}{'_' * count}" if count <= UNDERSCORES else f"{name}_{count}"
        if key not in line:
            times[name] = count
            return key
    raise AssertionError("as many keys as there are members")


def _is_load(call: NotedCall) -> bool:
    return call.command.startswith("BPF_PROG_LOAD")


def decoded(call: NotedCall, values: _Values) -> dict[str, object]:
    """A call's line without ``raw``."""
    raw = call.raw
    line: dict[str, object] = {
        "type": "syscall",
        "seq": raw.seq,
        "time": raw.time,
        "duration": raw.duration,
        "pid": raw.pid,
        "tid": raw.tid,
        "comm": raw.comm,
        "syscall": call.syscall.name,
    }
    if raw.stack is not None:
        from bpftrace_sys.trace.stacks import stack_line

        line.update(stack_line(raw.stack))
    args = {}
    for name, value in call.args.fields:
        shown = values.json(value)
        # The attr is the argument, not what it points at (issue: attr.insns).
        if (
            name.startswith("attr")
            and isinstance(value, Pointer)
            and isinstance(value.value, Struct)
        ):
            shown = shown["value"]
        args[name] = shown
    line["args"] = args
    if raw.ret is None:
        line["ret"] = None
    elif raw.failed:
        line["ret"] = -1
        line["errno"] = errno_name(-raw.ret)
        line["errnum"] = -raw.ret
    else:
        line["ret"] = raw.ret
    notes = call.notes
    made = notes.made
    if made is not None:
        line["fd"] = object_json(made)
    fds = {
        str(fd): object_json(found)
        for (fd, stage), found in notes.objects.items()
        if stage != EXIT
    }
    if fds:
        line["fds"] = fds
    if notes.listing is not None and notes.listing.sha1:
        line["tag"] = {"sha1": notes.listing.sha1, "sha256": notes.listing.sha256}
    if notes.probe is not None and notes.probe.certain:
        line["probe"] = notes.probe.name
    if notes.retry is not None:
        line["retry"] = asdict(notes.retry)
    if notes.mismatch:
        line["mismatch"] = notes.mismatch
    if notes.differs:
        line["differs"] = notes.differs
    if notes.explanation:
        line["explanation"] = notes.explanation
    if call.problem is not None:
        line["problem"] = call.problem
    return line


def call_json(call: NotedCall, model: Model) -> dict[str, object]:
    """A call as a trace's line has it, without what is only read back (``raw``)."""
    return decoded(call, _Values(call, model))


def _scope(event: PerfEvent | None) -> dict[str, int]:
    """Where a perf event counts."""
    if event is None:
        return {}
    found = {"cpu": event.cpu, "task": event.task}
    return {name: number for name, number in found.items() if number is not None}


def _given(told: Attachment) -> dict[str, object]:
    """What the program is given there, and what it reads of that."""
    if told.given is None:
        return {}
    reads = [{"pc": pc, "what": what} for pc, what in told.given.reads]
    return {"given": {"what": told.given.what, "reads": reads}}


class JsonLines(Renderer):
    """The renderer.  Lines come out whole, one write each."""

    has_templates = True

    def __init__(self, out: TextOut, model: Model) -> None:
        self.out = out
        self.model = model
        self.pieces = Pieces()
        self._walk: Key | None = None
        """The walk that the last call was a part of, if it was."""
        self._again: tuple[NotedCall, str] | None = None
        """The last call, where it was another attempt at one, and the form of such lines."""

    def _write(self, line: dict[str, object]) -> None:
        self.out.write(dumps(line) + "\n")

    def header(self, header: Header) -> None:
        """The first line."""
        self._write(header.line())

    def fact(self, kind: str, key: int, name: str) -> None:
        """A name from the live machine; stands before the line that needs it."""
        self._write({"type": "fact", "kind": kind, "key": key, "name": name})

    def call(self, call: NotedCall) -> None:
        """A completed (or never completed) call."""
        line = decoded(call, _Values(call, self.model))
        self._walk = key_of(call, self.model, self._walk)
        if self._walk is not None:
            line["walk"] = self._walk[0]
        line["raw"] = raw_line(call.raw, self._packed)
        self._write(line)

    def running(self, call: NotedCall) -> None:
        """A call that is not over; readers that do not know such lines pass over them, so
        pieces in them have no numbers."""
        line = decoded(call, _Values(call, self.model))
        line["type"] = "running"
        del line["ret"], line["duration"]
        line["raw"] = raw_line(call.raw, pack_apart)
        self._write(line)

    def again(self, call: NotedCall, before: NotedCall) -> None:
        """Another attempt: its line is the last one's but for numbers, times and ``raw``."""
        known = self._again
        form = known[1] if known is not None and known[0] is before else self._form(call)
        self._again = None if form is None else (call, form)
        retry, raw = call.notes.retry, call.raw
        if form is None or retry is None:
            self.call(call)
            return
        duration = "null" if raw.duration is None else str(raw.duration)
        words = (raw.seq, raw.time, duration, retry.attempt, retry.after)
        self.out.write(form % (*words, dumps(raw_line(raw, self._packed))))

    def _form(self, call: NotedCall) -> str | None:
        """A line with holes for what another attempt has of its own."""
        line = decoded(call, _Values(call, self.model))
        line["seq"] = line["time"] = line["duration"] = line["raw"] = HOLE
        retry = line.get("retry")
        if isinstance(retry, dict):
            retry["attempt"] = retry["after"] = HOLE
        parts = dumps(line).split(_HOLE)
        # A name of the tracee's may look like a hole.
        if len(parts) != 7:
            return None
        return "%s".join(part.replace("%", "%%") for part in parts) + "\n"

    def _packed(self, data: bytes) -> Any:
        return pack(data, self.pieces)

    def template(self, call: NotedCall) -> JsonTemplate | None:
        """The lines of calls that are like this one but for their data."""
        holes: list[Bytes] = []
        line = decoded(call, _Values(call, self.model, holes))
        if self._walk is not None:
            line["walk"] = self._walk[0]
        raw = raw_line(call.raw, lambda data: HOLE)
        line["raw"] = raw
        line["seq"] = line["time"] = line["duration"] = raw["fds"] = HOLE
        chunks = call.raw.chunks
        parts = dumps(line).split(_HOLE)
        # A name of the tracee's may look like a hole.
        if len(parts) != 5 + len(holes) + len(chunks) or len(holes) != len(chunks) - 1:
            return None
        if any(len(value.data) > BYTES_SHOWN for value in holes):
            return None
        return self._template(parts)

    def _template(self, parts: list[str]) -> JsonTemplate:
        return JsonTemplate(self.pieces, parts, self._walk)

    def loop(self, templates: Sequence[Template], rounds: Rounds) -> None:
        self.out.write(text_of(templates, rounds))
        super().loop(templates, rounds)
        last = templates[0 if rounds.order is None else rounds.order[-1]]
        self._walk = last.walk if isinstance(last, JsonTemplate) else None

    def attachment(self, told: Attachment) -> None:
        """A program attached, enabled, replaced or detached."""
        self._write(
            {
                "type": "attachment",
                "verb": told.verb,
                "prog": None if told.prog is None else object_json(told.prog),
                "target": told.target,
                "via": told.via,
                **_scope(told.event),
                **_given(told),
                **({"link": object_json(told.link)} if told.link is not None else {}),
                "pid": told.pid,
                "steps": [
                    {"role": step.role, "seq": step.call.raw.seq} for step in told.steps
                ],
            }
        )

    def kernel_view(self, seen: Seen) -> None:
        """What became of a program, behind its load."""
        from bpftrace_sys.render.kernel_view_json import kernel_view_json

        self._write(kernel_view_json(seen, self._packed))

    def held(self, state: ObjectState, known: Object) -> None:
        """What a process held when it was attached to."""
        from bpftrace_sys.render.inventory import object_line

        self._write(object_line(state, known))

    def unseen(self, unseen: Unseen) -> None:
        """What could not be looked at then."""
        from bpftrace_sys.trace.inventory import unseen_line

        self._write(unseen_line(unseen))

    def process(self, event: ProcessEvent) -> None:
        """A fork, exec or exit."""
        self._write(event_line(event))

    def lull(self) -> None:
        """Where the text told what it had held back; so does replay."""
        self._write({"type": "flush"})

    def end(self, ending: Ending) -> None:
        """The last line: the trace is whole."""
        self._write(ending_line(ending))
        self.out.flush()
