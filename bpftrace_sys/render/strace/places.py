"""Where each declared field stands in its struct."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from bpftrace_sys.render.strace.rows import STRUCTS
from decoders.constructs import cs
from decoders.declare.fields import Bits, Called, MustBeZero, Written
from decoders.declare.structs import Pick, layout_of
from decoders.records import NamedTuple


class Place(NamedTuple):
    """Where a field stands in its struct; ``width`` bits from ``shift`` if it is a bit field."""

    offset: int
    size: int
    field: Any
    shift: int = 0
    width: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.size

    def number(self, data: bytes) -> int:
        """Its value in the bytes of a struct, unsigned; missing bytes are zero."""
        value = int.from_bytes(data[self.offset : self.offset + min(self.size, 8)], "little")
        return value >> self.shift & ((1 << self.width) - 1) if self.width else value


def _walk(declaration: Any, prefix: str, base: int) -> Iterator[tuple[str, Place]]:
    for slot in layout_of(declaration).slots:
        at = base + slot.offset
        field = slot.field
        if isinstance(field, cs.Struct):
            yield from _walk(field, f"{prefix}{slot.name}.", at)
        elif isinstance(field, Pick):
            for row in (*field.rows.values(), field.default):
                if row is not None:
                    yield from _walk(row, prefix, at)
        elif isinstance(field, Bits):
            for name, shift, width, _ in field.members:
                yield prefix + name, Place(at, slot.size, field, shift, width)
        else:
            while isinstance(field, Called | MustBeZero | Written):
                field = field.field
            yield prefix + slot.name, Place(at, slot.size, field)


@cache
def places_of(struct_name: str) -> dict[str, Place]:
    """The fields of a struct of STRUCTS, by their path in it."""
    found: dict[str, Place] = {}
    for name, place in _walk(STRUCTS[struct_name], "", 0):
        found.setdefault(name, place)
    return found
