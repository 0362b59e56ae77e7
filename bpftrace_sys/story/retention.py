"""What of a long trace is kept in memory: enough for what comes, and no more.

An object keeps the call that made it, for listings and for the steps of an
attachment.  In a trace that makes objects for days that would be all of the
trace; so beyond KEPT bytes the oldest calls lose their long parts, and beyond
OBJECTS those that were not used for longest are forgotten, as if they were from
before the trace.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import Final, TypeVar

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import NotedCall, Notes, Object, PerfEvent
from decoders.records import replace
from decoders.values import (
    NOT_CAPTURED,
    Absent,
    Array,
    Bytes,
    Insns,
    Struct,
    Text,
    Value,
    rewritten,
)

KEPT: Final = 32 << 20
"""Bytes of raw that the calls of objects hold."""
OBJECTS: Final = 8_192
"""Objects that are known at a time."""
COUNTED: Final = 1 << 12
"""What an object counts for, whatever its call holds."""
LONG: Final = 256
"""Bytes of a text or blob, and items of a list, that even a slim call keeps."""
SITES: Final = 4_096
"""Entries of each table of lesser things: files read, BTF parsed, targets of a program."""


class Retention:
    """Watches what the model keeps, and takes the oldest away."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._objects: OrderedDict[int, Object] = OrderedDict()
        """By id(), which stays its own while it is held here; the least used first."""
        self._sizes: OrderedDict[int, int] = OrderedDict()
        self._size = 0

    def call(self, call: NotedCall) -> None:
        """A call that the model and all renderers have seen."""
        if len(self._objects) > OBJECTS // 2:
            for used in call.notes.objects.values():
                self.used(used)
        made = call.notes.made
        if made is None or made.kind == "file" or id(made) in self._objects:
            return
        size = COUNTED
        if made.call is call:
            size += sum(len(chunk.data) for chunk in call.raw.chunks)
        self._objects[id(made)] = made
        self._sizes[id(made)] = size
        self._size += size
        while len(self._objects) > OBJECTS:
            self._forget(*self._objects.popitem(last=False))
        while self._size > KEPT:
            self._slim(*self._sizes.popitem(last=False))
        for table in (self.model.pmu_calls, self.model.probes, self.model.btfs):
            while len(table) > SITES:
                table.pop(next(iter(table)))  # type: ignore[call-overload]

    def used(self, found: Object) -> None:
        """Others are to go before this one."""
        if len(self._objects) > OBJECTS // 2 and id(found) in self._objects:
            self._objects.move_to_end(id(found))

    def _slim(self, number: int, size: int) -> None:
        self._size -= size
        found = self._objects[number]
        if found.call is not None:
            found.call = slim(found.call)

    def _forget(self, number: int, found: Object) -> None:
        self._size -= self._sizes.pop(number, 0)
        if found.call is not None:
            # Its notes lead back to the object: a circle, which would stay for long.
            found.call = slim(found.call)
            found.call.notes.made = None
        model = self.model
        if found.kind == "perf_event":
            _drop(model.events, found)
            _drop(model.events_by_id, found)
        elif found.id is not None and model.objects.get((found.kind, found.id)) is found:
            del model.objects[found.kind, found.id]


Key = TypeVar("Key")


def _drop(table: dict[Key, PerfEvent], found: Object) -> None:
    """Takes an object out of a table where it stands among the first."""
    for key in [key for key, known in islice(table.items(), LONG + 1) if known is found]:
        del table[key]


def slim(call: NotedCall) -> NotedCall:
    """A copy of a call without its long parts and without what it was decoded from."""
    notes = Notes(probe=call.notes.probe if call.notes.is_probe else None)
    if call.syscall.name == "perf_event_open":
        notes.made = call.notes.made
    args = rewritten(call.args, _slim)
    assert isinstance(args, Struct)
    return replace(call, raw=call.raw.replace(chunks=[]), args=args, notes=notes)


def _slim(value: Value) -> Value | None:
    """What is left of a value that is long; None: all of it."""
    if (
        isinstance(value, Insns)
        or (isinstance(value, Text | Bytes) and len(value.data) > LONG)
        or (isinstance(value, Array) and len(value.items) > LONG // 16)
    ):
        return Absent(NOT_CAPTURED)
    return None


__all__ = ["KEPT", "OBJECTS", "Retention", "slim"]
