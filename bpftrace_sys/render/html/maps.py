"""Maps of a trace for the page: what was put in, read and taken away, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bpftrace_sys.common.escape import printable
from bpftrace_sys.render.html import records
from bpftrace_sys.render.html.page_objects import PageObjects
from bpftrace_sys.render.html.painting import PageText, unmarked
from bpftrace_sys.render.html.records import Map, MapEvent, Report
from bpftrace_sys.story import objects
from bpftrace_sys.story.objects import MADE, NotedCall, Object
from decoders.call import inner_value
from decoders.records import dataclass
from decoders.values import Array, Bytes, Int, Value

WHAT: Final = {
    "BPF_MAP_UPDATE_ELEM": "set",
    "BPF_MAP_UPDATE_BATCH": "set",
    "BPF_MAP_LOOKUP_ELEM": "read",
    "BPF_MAP_LOOKUP_BATCH": "read",
    "BPF_MAP_DELETE_ELEM": "delete",
    "BPF_MAP_DELETE_BATCH": "delete",
    "BPF_MAP_LOOKUP_AND_DELETE_ELEM": "take",
    "BPF_MAP_LOOKUP_AND_DELETE_BATCH": "take",
}
"""What an operation does to a key."""
VALUE: Final = 1024
"""Characters of a key or value."""
EXACT: Final = 1 << 53
"""From here on not every integer is a number of JavaScript's."""
BATCH: Final = 64
"""Elements of a batch that are told."""


@dataclass(slots=True)
class Operation:
    """An operation on a map: keys and values painted, and the values that are numbers."""

    used: Object
    what: str
    elements: list[tuple[str, str, int | None]]


class Maps:
    """Takes map operations in order."""

    def __init__(self, report: Report, page_objects: PageObjects, text: PageText) -> None:
        self.report = report
        self.page_objects = page_objects
        self.text = text
        self._maps: dict[int, Map] = {}
        """By thing."""
        self._objects: dict[int, Object] = {}
        self._last: tuple[NotedCall, Operation | None] | None = None
        self._left = records.ALL_EVENTS

    def take(self, call: NotedCall) -> None:
        """A bpf(BPF_MAP_*) call that is no feature probe."""
        if call.command == "BPF_MAP_CREATE":
            made = call.notes.made
            found = None if made is None else self.of(made)
            if found is not None:
                found.seq = call.raw.seq
            return
        operation = self.operation(call)
        if operation is not None:
            self.events(operation, call.raw.seq, call.raw.failed)

    def events(self, operation: Operation, seq: int, failed: bool) -> None:
        """Notes what an operation did."""
        found = self.of(operation.used)
        what = happened(operation.what, failed)
        if found is None or not what:
            return
        for key, value, number in operation.elements:
            self.event(found, MapEvent(seq, what, key, value, number))

    def has_room(self, found: Map) -> bool:
        """Whether an event of this map would be told, and not counted only."""
        return len(found.events) < records.EVENTS and self._left > 0

    def event(self, found: Map, event: MapEvent | None) -> None:
        """Notes what happened to a key; None: it is counted only."""
        if event is None or not self.has_room(found):
            found.more += 1
            return
        self._left -= 1
        found.events.append(event)

    def of(self, used: Object) -> Map | None:
        """A map's entry."""
        number = self.page_objects.of(used) if isinstance(used, objects.Map) else None
        if number is None or not isinstance(used, objects.Map):
            return None
        known = self._maps.get(number)
        if known is None:
            known = self._maps[number] = Map(self.report.page_objects[number].anchor, number, "")
            self._objects[number] = used
            self.report.maps.append(known)
            known.types = self._types(used)
        return known

    def subject(self, call: NotedCall) -> str:
        """``counts[1] = 5`` for an operation; empty for what is none."""
        operation = self.operation(call)
        if operation is None or not operation.elements:
            return ""
        return subject_of(operation)

    def operation(self, call: NotedCall) -> Operation | None:
        """What a call does to a map's elements."""
        if self._last is not None and self._last[0] is call:
            return self._last[1]
        found = self._operation(call)
        self._last = (call, found)
        return found

    def _operation(self, call: NotedCall) -> Operation | None:
        command = call.command.partition("|")[0]
        what = WHAT.get(command)
        if what is None:
            return None
        batch = "BATCH" in command
        where = ("attr", "batch") if batch else ("attr",)
        fact = call.fact(*where, "map_fd")
        used = None if fact is None else call.notes.objects.get((fact.fd, fact.stage))
        if not isinstance(used, objects.Map):
            return None
        self.text.calls.call_, self.text.calls.objects = call, call.notes.objects
        if not batch:
            return Operation(
                used,
                what,
                [self._pair(call.attr(*where, "key"), call.attr(*where, "value"))],
            )
        keys = self._parts(call.attr(*where, "keys"), used.key_size)
        values = self._parts(call.attr(*where, "values"), used.value_size)
        count = min(call.number(*where, "count") or 0, len(keys), BATCH)
        none: Sequence[Value | None] = [None] * count
        pairs = zip(keys[:count], (values or none)[:count], strict=False)
        return Operation(used, what, [self._pair(key, value) for key, value in pairs])

    @staticmethod
    def _parts(value: Value | None, size: object) -> Sequence[Value | None]:
        """The elements of a batch."""
        found = inner_value(value)
        if not isinstance(found, Bytes) or not isinstance(size, int) or size <= 0:
            return found.items if isinstance(found, Array) else ()
        if isinstance(found.typed, Array):
            return found.typed.items
        data = found.data[: BATCH * size]
        return [Bytes(data[at : at + size], size) for at in range(0, len(data), size)]

    def _pair(self, key: Value | None, value: Value | None) -> tuple[str, str, int | None]:
        key, value = inner_value(key), inner_value(value)
        return (
            "" if key is None else self.text.painted(self.text.calls.value(key), VALUE),
            "" if value is None else self.text.painted(self.text.calls.value(value), VALUE),
            number_of(value),
        )

    def _types(self, used: objects.Map) -> tuple[str, str]:
        from decoders.formats import btf_c

        btf = self.text.model.btf(used.btf_id) if used.btf_id else None
        if btf is None:
            return "", ""
        key, value = used.key_type, used.value_type
        return (
            printable(btf_c.c_type(btf, key))[: records.NAME] if key else "",
            printable(btf_c.c_type(btf, value))[: records.NAME] if value else "",
        )

    def finish(self) -> None:
        """What is known of the maps at the end; those come too that were only used by programs."""
        for number, used in enumerate(self.page_objects.objects):
            if isinstance(used, objects.Map):
                self.of(used)
                known = self._maps[number]
                known.name = printable(used.name)[: records.NAME] or "(anonymous)"
                known.id, known.operations = used.id, used.operations
                known.kind = used.type_name
                known.sizes = (used.key_size, used.value_size, used.max_entries)
                known.origin = "" if used.origin == MADE else used.origin
                known.pins = [printable(pin)[: records.NAME] for pin in used.pins[:16]]


def number_of(value: Value | None) -> int | None:
    """A value that is a number, to draw it; None for others, and for what a script cannot hold."""
    number = None
    if isinstance(value, Bytes):
        if isinstance(value.typed, Int):
            number = value.typed.value
        elif value.typed is None and value.note is None:
            number = number_in(value.data)
    elif isinstance(value, Int):
        number = value.value
    return number if number is not None and abs(number) < EXACT else None


def number_in(data: bytes) -> int | None:
    """Four or eight bytes as a number."""
    number = int.from_bytes(data, "little") if len(data) in (4, 8) else EXACT
    return number if number < EXACT else None


def happened(what: str, failed: bool) -> str:
    """What an operation came to, for its key; empty: nothing."""
    if not failed:
        return what
    return "miss" if what in ("read", "take") else ""


def name_of(used: Object) -> str:
    """A map as it is called where its keys are."""
    return printable(used.name) or f"map id={used.id}"


def element_text(name: str, what: str, key: str, value: str) -> str:
    """``counts[1] = 5``; key and value without marks."""
    text = f"{name}{key}" if key.startswith("[") else f"{name}[{key}]"
    return f"{text} = {value}" if value and what != "delete" else text


def subject_of(operation: Operation) -> str:
    """``counts[1] = 5 and 3 more``."""
    key, value, _ = operation.elements[0]
    name = name_of(operation.used)
    text = element_text(name, operation.what, unmarked(key), unmarked(value))
    more = len(operation.elements) - 1
    return f"{text} and {more} more" if more else text
