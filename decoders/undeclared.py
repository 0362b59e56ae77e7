"""What our generated tables know and no declaration does.

Tables made anew for a kernel (tools/gen_uapi.py) have its new commands and fields at once; until a
declaration says what these mean, they are shown by their names, as numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from decoders.newer import NewerField, Place, grafted, place_of, struct_for
from decoders.uapi.layouts import LAYOUTS
from decoders.values import NAMELESS, Bytes, Name, Struct, Value

_Fields = list[tuple[str, Value]]


@cache
def _members(ctype: str) -> tuple[NewerField, ...]:
    return tuple(NewerField(*member, "") for member in LAYOUTS.get(ctype, ()))


def named(fields: _Fields, layout: Any, data: bytes) -> _Fields:
    """``fields`` of a struct, with the names of its bytes that the declaration has none for.

    A union's struct is taken if the name of a value beside it is its own, too.
    """
    places = [
        place
        for name, value in fields
        if name in NAMELESS and isinstance(value, Bytes)
        if (place := place_of(value, layout, data)) is not None
    ]
    words = [value.name for _, value in fields if isinstance(value, Name) and value.name]
    own = [
        field
        for field in _members(layout.ctype)
        if any(_fits(field, place, fields, words) for place in places)
    ]
    return grafted(fields, layout, data, own, words, None)


def _fits(field: NewerField, place: Place, fields: _Fields, words: Iterable[str]) -> bool:
    """Whether it stands there, and is of the struct itself; or of one within that is there, or
    meant. Of a union's members nobody knows which is meant that is no struct."""
    if not (place.start <= field.offset and field.offset + field.size <= place.end):
        return False
    if field.path.rpartition(".")[2].lstrip("_").startswith(("reserved", "pad")):
        return False
    head, dot, _ = field.path.partition(".")
    if not dot:
        return not place.in_union
    return any(name == head for name, _ in fields) or any(head.upper() in word for word in words)


def struct_of(word: str, union: str, declared: Iterable[str], data: bytes) -> Struct | None:
    """The struct in a union that an enum value is named for, where no row has it; or None.

    ``declared``: the union's members that have rows.
    """
    known = frozenset(declared)

    def own() -> Iterator[NewerField]:
        for field in _members(union):
            head, dot, _ = field.path.partition(".")
            if dot and head not in known and head.upper() in word:
                yield field

    return struct_for(word, data, own(), None)
