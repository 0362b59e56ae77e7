"""The vocabulary of declarations.

A declaration is a construct ``Struct`` whose fields are the classes of this
module and of ``structs``, where unions and pointers are.  Each field says how
many bytes it takes (its construct part) and what those bytes mean: a name, a
set of flags, an fd, a pointer to something of a given length.  construct can
parse every declaration on its own; the tracer never does so in its hot loop,
because ``structs.layout_of`` derives a flat ``struct`` format from the
declaration once, and unpacks with that.

Lengths, counts and selectors are expressions over the fields around them:
``this.insn_cnt``, or any function of a :class:`Scope`.  A field may stand after
the pointer that it measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from decoders.constructs import cs
from decoders.constructs import this as this
from decoders.uapi import names, perf, system
from decoders.values import (
    EMPTY,
    NULL,
    Array,
    Bytes,
    Fd,
    Flags,
    Int,
    Name,
    Text,
    Value,
)
from decoders.walk import layouts
from decoders.walk.scope import Scope

# ---------------------------------------------------------------- scalar fields


class Field(cs.Subconstruct):
    """Some bytes of a struct, with a meaning."""

    written = False
    """The kernel writes this field, so it is read again at exit."""

    def __init__(self, subcon: Any) -> None:
        cs.Subconstruct.__init__(self, subcon)

    def value(self, raw: Any, scope: Scope) -> Value:
        """The decoded value; ``raw`` is what ``struct`` unpacked."""
        raise NotImplementedError


class Num(Field):
    """A plain number."""

    def __init__(self, subcon: Any, base: int = 10) -> None:
        super().__init__(subcon)
        self.base = base

    def value(self, raw: Any, scope: Scope) -> Value:
        return Int(raw, self.base)


class Named(Field):
    """A number that an enum names.  ``table`` is one of the generated ones."""

    def __init__(self, subcon: Any, table: Mapping[int, str], enum: str = "") -> None:
        super().__init__(subcon)
        self.table = table
        self.enum = enum
        self.memo: dict[int, Value] = {}
        """Of those in the table that were seen."""

    def value(self, raw: Any, scope: Scope) -> Value:
        known = self.memo.get(raw)
        if known is not None:
            return known
        name = self.table.get(raw)
        if name is not None:
            known = self.memo[raw] = Name(raw, name, self.enum)
            return known
        name = scope.env.newer(self.enum, raw) if self.enum else None
        return Name(raw, name, self.enum, name is not None)


class FlagSet(Field):
    """A number made of named bits.  A name for 0 is used for 0 only.

    Bits that the table lacks are looked up in the running kernel's enums.
    """

    def __init__(self, subcon: Any, table: Mapping[int, str], enum: str = "") -> None:
        super().__init__(subcon)
        self.table = table
        self.enum = enum
        self.memo: dict[int, Value] = {}

    def value(self, raw: Any, scope: Scope) -> Value:
        known = self.memo.get(raw)
        if known is None:
            found = flags(raw, self.table, self.enum)
            if found.rest:
                # What a newer kernel has names for depends on the trace: no memo.
                return named_by_kernel(found, self.table, scope)
            known = found
            if len(self.memo) < 4096:
                self.memo[raw] = known
        return known


_tables: dict[int, str] = {}


def table_name(table: Mapping[int, str]) -> str:
    """What a generated table is called: under that name the kernel's BTF adds to it."""
    if not _tables:
        for module in (names, perf, system):
            _tables.update({id(each): name for name, each in vars(module).items()})
    return _tables.get(id(table), "")


def named_by_kernel(found: Flags, table: Mapping[int, str], scope: Scope) -> Flags:
    """Moves those bits from the rest to the names that the running kernel's BTF names."""
    kind = table_name(table)
    newer = {}
    for shift in range(found.rest.bit_length()) if kind else ():
        name = scope.env.newer(kind, 1 << shift) if found.rest >> shift & 1 else None
        if name is not None:
            newer[1 << shift] = name
    if not newer:
        return found
    return found._replace(
        names=(*found.names, *newer.values()),
        rest=found.rest & ~sum(newer),
        newer=tuple(newer.values()),
    )


def flags(raw: int, table: Mapping[int, str], enum: str = "") -> Flags:
    """Splits a number into the named bits of a table and the rest."""
    if raw == 0:
        return Flags(0, (table[0],) if 0 in table else (), 0, enum)
    found = []
    rest = raw
    for bits, name in table.items():
        if bits and rest & bits == bits:
            found.append(name)
            rest &= ~bits
    return Flags(raw, tuple(found), rest, enum)


class FdField(Field, layouts.FdIn):
    """A file descriptor; ``optional`` as in walk.FdIn."""

    def __init__(self, subcon: Any, optional: bool = False) -> None:
        Field.__init__(self, subcon)
        layouts.FdIn.__init__(self, optional)

    def value(self, raw: Any, scope: Scope) -> Value:
        return Fd(raw, self.fact(raw, scope))


AT_ONCE: Final = frozenset({"ifindex"})
"""Facts that are asked for in the stop: later the asker's network namespace may be gone."""


class FactField(Field, layouts.Asked):
    """A number that the live machine has a name for: an ifindex, a BTF type id.

    ``when``: whether it is one, where other fields decide that.
    """

    def __init__(
        self, subcon: Any, kind: str, base: int = 10, when: Callable[[Any], bool] | None = None
    ) -> None:
        Field.__init__(self, subcon)
        layouts.Asked.__init__(self, kind, when)
        self.base = base

    def value(self, raw: Any, scope: Scope) -> Value:
        return Int(raw, self.base, self.ask(raw, scope))


class NotedField(Field):
    """A number with a comment that a function makes of it."""

    def __init__(self, subcon: Any, note: Callable[[int, Scope], str | None], base: int = 10):
        super().__init__(subcon)
        self.note = note
        self.base = base

    def value(self, raw: Any, scope: Scope) -> Value:
        return Int(raw, self.base, self.note(raw, scope))


class Meaning(Num):
    """A number whose meaning depends on other fields: the Field that ``key`` selects."""

    def __init__(
        self,
        subcon: Any,
        key: Callable[[Any], Any],
        rows: Mapping[Any, Field],
        base: int = 10,
        usual: Field | None = None,
    ) -> None:
        super().__init__(subcon, base)
        self.key = key
        self.rows = rows
        self.usual = usual

    def value(self, raw: Any, scope: Scope) -> Value:
        chosen = self.rows.get(self.key(scope), self.usual)
        return Int(raw, self.base) if chosen is None else chosen.value(raw, scope)


class Called(Field):
    """A field that goes by another name at times, as like members of a union do.

    Expressions use the name that it is declared under; ``other`` is the other one,
    which it has where ``when`` says so.
    """

    def __init__(self, field: Field, other: str, when: Callable[[Any], bool]) -> None:
        super().__init__(field)
        self.field = field
        self.other = other
        self.when = when


class MustBeZero(Field):
    """A member that the kernel wants to be zero here: said only where it is not."""

    def __init__(self, field: Field) -> None:
        super().__init__(field)
        self.field = field


class Bits(Field):
    """Bit fields in one number: several members of the struct, in order."""

    def __init__(self, subcon: Any, *members: tuple[str, int, int, Mapping[int, str] | None]):
        super().__init__(subcon)
        self.members = members

    def value(self, raw: Any, scope: Scope) -> Value:
        return Int(raw, 16)

    def values(self, raw: int) -> Iterator[tuple[str, Value]]:
        """(name, value) of each member."""
        for name, shift, width, table in self.members:
            part = raw >> shift & ((1 << width) - 1)
            yield name, Int(part) if table is None else Name(part, table.get(part))


class Chars(Field):
    """``char name[n]``: text up to its NUL."""

    def __init__(self, size: int) -> None:
        super().__init__(cs.Bytes(size))

    def value(self, raw: Any, scope: Scope) -> Value:
        return Text(raw.partition(b"\0")[0], b"\0" in raw)


class Raw(Field):
    """``__u8 name[n]`` or padding: bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(cs.Bytes(size))

    def value(self, raw: Any, scope: Scope) -> Value:
        return Bytes(raw, len(raw))


class Padding(Raw):
    """Bytes without a name; said only where they are not zero."""


class Skip(Raw):
    """Bytes that mean nothing at all: the unused half of an argument register."""


class Written(Field):
    """A field that the kernel writes: shown as ``before => after``."""

    written = True

    def __init__(self, field: Field) -> None:
        super().__init__(field)
        self.field = field

    def value(self, raw: Any, scope: Scope) -> Value:
        return self.field.value(raw, scope)


# ---------------------------------------------------------------- the usual fields

U16 = Num(cs.Int16ul)
U32 = Num(cs.Int32ul)
S32 = Num(cs.Int32sl)
U64 = Num(cs.Int64ul)
X32 = Num(cs.Int32ul, 16)
X64 = Num(cs.Int64ul, 16)

__all__ = [
    "EMPTY",
    "NULL",
    "Array",
    "Bits",
    "Called",
    "Chars",
    "FactField",
    "FdField",
    "Field",
    "FlagSet",
    "Meaning",
    "MustBeZero",
    "Named",
    "NotedField",
    "Num",
    "Padding",
    "Raw",
    "Skip",
    "Written",
    "this",
]
