"""The closed set of decoded values.

Every decoder yields these and every renderer takes these; nothing else
crosses the boundary.  They are named tuples because a trace makes millions of
them; compare their types, not only their contents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from decoders.raw import FdFact
from decoders.records import NamedTuple

NAMELESS: Final = frozenset({"extra_data", "_", "pad"})
"""How bytes are called that belong to no member."""


class Int(NamedTuple):
    """A number.  ``base`` is 10, 16 or 8; ``note`` is said as a comment."""

    value: int
    base: int = 10
    note: str | None = None


class Name(NamedTuple):
    """An enum value; ``name`` is None where no table knows it.

    ``enum`` is the kernel's name of the enum (``bpf_map_type``), ``newer`` says
    that the running kernel's BTF knew the name and our tables did not.
    """

    value: int
    name: str | None
    enum: str = ""
    newer: bool = False


class Flags(NamedTuple):
    """A set of flags: names of the known bits, and the bits that remain.

    ``enum`` names the set, by the prefix of its members (``BPF_F``); ``newer`` are
    those of the names that the running kernel's BTF knew and our tables did not.
    """

    value: int
    names: tuple[str, ...]
    rest: int
    enum: str = ""
    newer: tuple[str, ...] = ()


class Fd(NamedTuple):
    """A file descriptor, and what is known of it."""

    value: int
    fact: FdFact | None = None


class Text(NamedTuple):
    """A string of the tracee's, undecoded; ``whole`` is False where it went on.

    ``before``: bytes that stand before ``data`` and were not kept.
    """

    data: bytes
    whole: bool = True
    before: int = 0


class Bytes(NamedTuple):
    """Uninterpreted bytes; ``wanted`` is how many there should have been.

    ``typed``: what they mean by the BTF of their map; ``note``: what they are in short.
    """

    data: bytes
    wanted: int
    typed: Value | None = None
    note: str | None = None


class Insns(NamedTuple):
    """An array of struct bpf_insn as passed; its listing is made elsewhere.

    ``total`` is how many the tracee claimed, ``data`` what could be read. The last ``unread`` of
    them nobody tried to read, for the reason ``why``.
    """

    data: bytes
    total: int
    unread: int = 0
    why: str = ""

    @property
    def missing(self) -> int:
        """How many could not be read."""
        return self.total - self.unread - len(self.data) // 8


class Struct(NamedTuple):
    """Fields in declaration order, under the kernel's own names."""

    fields: tuple[tuple[str, Value], ...]
    ctype: str = ""

    def get(self, name: str) -> Value | None:
        """The field of that name, or None."""
        for key, value in self.fields:
            if key == name:
                return value
        return None


class Array(NamedTuple):
    """Elements; ``total`` is how many the tracee claimed."""

    items: tuple[Value, ...]
    total: int


class Pointer(NamedTuple):
    """An address and what stands there (Absent where that is not known)."""

    addr: int
    value: Value


class Absent(NamedTuple):
    """Nothing, and why: one of the reasons below."""

    reason: str


class Changed(NamedTuple):
    """A field that the kernel wrote: its value at entry and at exit."""

    before: Value
    after: Value


NULL = "null"  # a null pointer
BEYOND_SIZE = "beyond size"  # the caller's struct ends before this field
UNREADABLE = "unreadable address"
NOT_CAPTURED = "not captured"
NOT_WRITTEN = "not written"  # the call failed, so the kernel wrote nothing there
EMPTY = "empty"  # a pointer with a length of 0

Value: TypeAlias = (
    Int
    | Name
    | Flags
    | Fd
    | Text
    | Bytes
    | Insns
    | Struct
    | Array
    | Pointer
    | Absent
    | Changed
)


def rewritten(value: Value, change: Callable[[Value], Value | None]) -> Value:
    """A tree of values with others in it.

    ``change`` says what stands in a value's place; None: the same, with its parts rewritten.
    """
    new = change(value)
    if new is not None:
        return new
    if isinstance(value, Pointer):
        return value._replace(value=rewritten(value.value, change))
    if isinstance(value, Changed):
        return Changed(rewritten(value.before, change), rewritten(value.after, change))
    if isinstance(value, Struct):
        fields = tuple((name, rewritten(member, change)) for name, member in value.fields)
        return value._replace(fields=fields)
    if isinstance(value, Array):
        return value._replace(items=tuple(rewritten(item, change) for item in value.items))
    return value


def rewritten_at(value: Value, path: tuple[str, ...], change: Callable[[Value], Value]) -> Value:
    """A tree with another value at a path of fields, through pointers, before and after."""
    if isinstance(value, Pointer):
        return value._replace(value=rewritten_at(value.value, path, change))
    if isinstance(value, Changed):
        return Changed(
            rewritten_at(value.before, path, change), rewritten_at(value.after, path, change)
        )
    if not path:
        return change(value)
    if isinstance(value, Struct):
        fields = tuple(
            (name, rewritten_at(member, path[1:], change) if name == path[0] else member)
            for name, member in value.fields
        )
        return value._replace(fields=fields)
    return value


def below(value: Value, name: str = "", items: int = 1000) -> Iterator[tuple[str, Value]]:
    """A value and all below it, each with its field's name; elements are ``name[0]`` and so on.

    Of what the kernel changed, what stood there before.  ``items``: so many of an array.
    """
    yield name, value
    if isinstance(value, Pointer):
        yield from below(value.value, name, items)
    elif isinstance(value, Changed):
        yield from below(value.before, name, items)
    elif isinstance(value, Struct):
        for key, member in value.fields:
            yield from below(member, key, items)
    elif isinstance(value, Array):
        for index, item in enumerate(value.items[:items]):
            yield from below(item, f"{name}[{index}]", items)
