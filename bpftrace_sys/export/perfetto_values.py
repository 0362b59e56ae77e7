"""Values of a call as Perfetto's debug annotations: trees of names, numbers and strings.

DebugAnnotation (protos/perfetto/trace/track_event/debug_annotation.proto): name=10, int_value=4,
string_value=6, dict_entries=11, array_values=12.
"""

from __future__ import annotations

from typing import Final

from bpftrace_sys.common.escape import printable
from bpftrace_sys.export.protobuf import integer, message, string
from bpftrace_sys.story.objects import Object
from decoders.values import (
    BEYOND_SIZE,
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

NAME: Final = 10
INT: Final = 4
STRING: Final = 6
DICT: Final = 11
ARRAY: Final = 12
LONG: Final = 512
"""Characters of a string."""
ITEMS: Final = 16
"""Of an array."""
FIELDS: Final = 256
"""Of a call, all levels together."""
UNSAID: Final = frozenset({NULL, BEYOND_SIZE})
LISTED: Final = frozenset({"func_info", "line_info"})
"""Tables that say nothing without the instructions."""
_INT64: Final = 1 << 63

Objects = dict[tuple[int, int], Object]


def annotation(field: int, name: str, *value: bytes) -> bytes:
    """An annotation that holds a value, in a message's field."""
    return message(field, string(NAME, name), *value)


def annotated(field: int, name: str, value: Value, objects: Objects) -> bytes:
    """A value as an annotation; no longer than the limits here."""
    return annotation(field, name, *_Tree(objects).value(value))


class _Tree:
    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.left = FIELDS

    def value(self, value: Value) -> list[bytes]:
        """The fields of an annotation that say a value."""
        if isinstance(value, Pointer):
            if isinstance(value.value, Absent):
                return [string(STRING, f"{value.addr:#x} ({value.value.reason})")]
            return self.value(value.value)
        if isinstance(value, Changed):
            return self.value(value.after)
        if isinstance(value, Struct):
            return self._struct(value)
        if isinstance(value, Array):
            parts = []
            for item in value.items[:ITEMS]:
                if self._room():
                    parts.append(message(ARRAY, *self.value(item)))
            more = value.total - len(parts)
            if more > 0:
                parts.append(message(ARRAY, string(STRING, f"{more} more")))
            return parts
        if isinstance(value, Int) and value.note is None and -_INT64 <= value.value < _INT64:
            return [integer(INT, value.value)]
        return [string(STRING, printable(self._text(value))[:LONG])]

    def _room(self) -> bool:
        self.left -= 1
        return self.left >= 0

    def _struct(self, value: Struct) -> list[bytes]:
        parts = []
        for index, (name, member) in enumerate(value.fields):
            if name in LISTED or (isinstance(member, Absent) and member.reason in UNSAID):
                continue
            # A zero says little, and most fields of most calls are zero.
            if index and isinstance(member, Int | Name | Flags | Fd) and not member.value:
                continue
            if not self._room():
                break
            parts.append(annotation(DICT, name or "?", *self.value(member)))
        return parts

    def _text(self, value: Value) -> str:
        if isinstance(value, Int):
            return f"{value.value} ({value.note})" if value.note else str(value.value)
        if isinstance(value, Name):
            return value.name or str(value.value)
        if isinstance(value, Flags):
            words = [*value.names, *([hex(value.rest)] if value.rest else [])]
            return "|".join(words) or "0"
        if isinstance(value, Fd):
            fact = value.fact
            found = None if fact is None else self.objects.get((fact.fd, fact.stage))
            return f"{value.value} <{found.label}>" if found is not None else str(value.value)
        if isinstance(value, Text):
            return value.data[:LONG].decode("utf-8", "backslashreplace")
        if isinstance(value, Bytes):
            return value.note or value.data[: LONG // 4].hex(" ")
        if isinstance(value, Insns):
            return f"{value.total} instructions"
        return value.reason if isinstance(value, Absent) else "?"
