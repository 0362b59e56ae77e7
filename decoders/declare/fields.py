"""The vocabulary of declarations.

A declaration is a construct ``Struct`` whose fields are the classes of this
module.  Each field says how many bytes it takes (its construct part) and what
those bytes mean: a name, a set of flags, an fd, a pointer to something of a
given length.  construct can parse every declaration on its own; the tracer
never does so in its hot loop, because :func:`layout_of` derives a flat
``struct`` format from the declaration once, and unpacks with that.

Lengths, counts and selectors are expressions over the fields around them:
``this.insn_cnt``, or any function of a :class:`Scope`.  A field may stand after
the pointer that it measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import construct as cs
from construct import this as this

from decoders.uapi import names, perf, system
from decoders.values import (
    EMPTY,
    NULL,
    Absent,
    Array,
    Bytes,
    Fd,
    Flags,
    Insns,
    Int,
    Name,
    Text,
    Value,
)
from decoders.walk import layouts
from decoders.walk.scope import Scope

READ_LIMIT: Final = layouts.READ_LIMIT


Expr = int | Callable[[Any], Any]
number = layouts.number


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
        self.memo: dict[int, Value] = {
            number_: Name(number_, name, enum) for number_, name in table.items()
        }

    def value(self, raw: Any, scope: Scope) -> Value:
        known = self.memo.get(raw)
        if known is not None:
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


class Pick(Field, layouts.Union):
    """A union: what stands here depends on other fields.

    The alternatives are construct Structs.  With ``embed`` their fields become
    fields of the struct around, as those of an anonymous union do; an
    alternative that is a named struct is a Struct with one field of that name.
    A key that is in no row gets ``default``; None stands for nothing at all.
    """

    def __init__(
        self,
        key: Callable[[Any], Any],
        rows: Mapping[Any, Any],
        default: Any = None,
        size: int | None = None,
    ) -> None:
        alternatives = [row for row in rows.values() if row is not None]
        if default is not None:
            alternatives.append(default)
        self.size = max((row.sizeof() for row in alternatives), default=0) if size is None else size
        Field.__init__(self, cs.Bytes(self.size))
        layouts.Union.__init__(self, key, rows, default)

    def chosen(self, scope: Scope) -> Any:
        """The alternative (a construct Struct) that the fields around select."""
        return self.rows.get(self.key(scope), self.default)

    def layout(self, scope: Scope) -> layouts.Layout | None:
        """Its layout."""
        row = self.chosen(scope)
        return None if row is None else layout_of(row)


# ---------------------------------------------------------------- pointers


class Target(layouts.Target):
    """What a pointer points at."""

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        """The decoded value of what was read there."""
        raise NotImplementedError


class CStr(layouts.CStr, Target):
    """A NUL-terminated string of at most ``limit`` bytes."""

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        return Text(data, len(data) >= wanted)


class Log(layouts.Log, CStr):
    """A log that the kernel writes; its end, where it is too long to be kept whole."""


class Blob(layouts.Blob, Target):
    """Bytes that nothing here interprets."""

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        return Bytes(data, wanted)


class Chunked(Blob):
    """Text of a given length, not NUL-terminated or padded with NULs."""

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        return Text(data.rstrip(b"\0"), len(data) == wanted)


class InsnArray(layouts.InsnArray, Target):
    """``struct bpf_insn[count]``; the listing is made from it later."""

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        return Insns(data, wanted // 8)


class Many(layouts.Many, Target):
    """An array.  ``item`` is a scalar Field, a construct Struct, or a pointer (In).

    ``stride`` is the caller's record size where that may differ from ours.
    """

    layout: Layout

    def __init__(self, item: Any, count: Expr, stride: Expr | None = None) -> None:
        self.item = item
        struct_ = isinstance(item, cs.Struct)
        super().__init__(
            layout_of(item if struct_ else cs.Struct("_" / item)),
            count,
            stride,
            scalar=not struct_,
            pointed=item.target if isinstance(item, Ptr) else None,
            are_fds=isinstance(item, FdField),
        )

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        raise NotImplementedError  # decode.py walks the elements


class Tail(NamedTuple):
    """The flexible array at the end of a struct, which the kernel fills in."""

    name: str
    item: Field
    count: Callable[[Any], int]


class One(layouts.One, Target):
    """A single struct (or what a Pick selects), of which ``size`` bytes are valid."""

    def __init__(
        self,
        item: Any,
        size: Expr | None = None,
        limit: int = 4096,
        peek: Callable[[bytes], int] | None = None,
        tail: Tail | None = None,
        rewritten: frozenset[int] = frozenset(),
        unknown: tuple[str, str, Callable[[Any], int]] | None = None,
    ) -> None:
        """``peek``, ``rewritten``: as in walk.One.

        ``unknown``: where no row says what stands there, the running kernel's BTF
        may: the union that it is a member of, the enum that names it, and the value.
        """
        super().__init__(item, size, limit, peek, rewritten)
        self.item = item
        self.tail = tail
        self.unknown = unknown

    def struct(self, scope: Scope) -> Any:
        """The construct Struct that stands there."""
        return self.item.chosen(scope) if isinstance(self.item, Pick) else self.item

    def layout(self, scope: Scope) -> layouts.Layout | None:
        struct_ = self.struct(scope)
        return None if struct_ is None else layout_of(struct_)

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        raise NotImplementedError  # decode.py walks the fields


class Ptr(Field, layouts.Pointer):
    """A user-space address.  ``way``: the kernel reads, writes, or both."""

    target: Target

    def __init__(
        self,
        target: Target,
        way: str,
        always: bool | frozenset[int] = False,
        subcon: Any = None,
        reads_if: Callable[[Any], bool] | None = None,
    ) -> None:
        Field.__init__(self, cs.Int64ul if subcon is None else subcon)
        layouts.Pointer.__init__(self, target, way, always, reads_if)

    def value(self, raw: Any, scope: Scope) -> Value:
        return Absent(NULL) if raw == 0 else Int(raw, 16)


def In(target: Target) -> Ptr:  # noqa: N802 - reads as the direction in the declarations
    """A pointer to what the kernel reads: copied at entry."""
    return Ptr(target, "in")


def Out(  # noqa: N802
    target: Target,
    always: bool | frozenset[int] = False,
    reads_if: Callable[[Any], bool] | None = None,
) -> Ptr:
    """A pointer to what the kernel writes: copied at exit.

    ``always``: also when the call failed (logs), or when it failed with one of
    these errors (ENOSPC with a partial answer).  ``reads_if``: whether, with these
    other fields, the kernel reads there before.
    """
    return Ptr(target, "out", always, reads_if=reads_if)


def InOut(target: Target, always: bool | frozenset[int] = False) -> Ptr:  # noqa: N802
    """A pointer to what the kernel reads and then writes."""
    return Ptr(target, "inout", always)


# ---------------------------------------------------------------- layouts


class Slot(layouts.Slot):
    """One field of a layout: its name, place and declaration."""

    __slots__ = ("called", "field", "layout", "must_be_zero", "name", "one_value")

    def __init__(self, name: str, offset: int, size: int, field: Any, index: int) -> None:
        self.called = field if isinstance(field, Called) else None
        self.must_be_zero = isinstance(field, MustBeZero)
        if isinstance(field, Called | MustBeZero):
            field = field.field
        self.name = name
        self.field = field
        self.layout: Layout | None = None
        visit: Any = field
        if isinstance(field, cs.Struct):
            kind = "struct"
            visit = self.layout = layout_of(field)
        elif isinstance(field, Pick):
            kind = "pick"
        elif isinstance(field, Ptr):
            kind = "ptr"
        elif isinstance(field, FdField):
            kind = "fd"
        elif isinstance(field, Written) and isinstance(field.field, FdField):
            kind, visit = "fd", field.field
        elif isinstance(field, Bits):
            kind = "bits"
        elif isinstance(field, Padding):
            kind = "pad"
        elif isinstance(field, Skip):
            kind = "skip"
        elif isinstance(field, FactField) and field.kind in AT_ONCE:
            kind = "asked"
        else:
            kind = "leaf"
        super().__init__(kind, index, offset, size, visit)
        # Most fields: one value, the same at exit, under one name.
        self.one_value = (
            self.kind in ("leaf", "fd", "asked")
            and not field.written
            and self.called is None
            and not self.must_be_zero
        )


class Layout(layouts.Layout):
    """A flattened declaration: all its ``slots`` in order."""

    __slots__ = ("ctype", "slots")

    def __init__(self, declaration: Any) -> None:
        self.ctype: str = getattr(declaration, "ctype", "")
        slots: list[Slot] = []
        fmt = "<"
        offset = 0
        for index, subcon in enumerate(declaration.subcons):
            inner = subcon.subcon
            size = subcon.sizeof()
            slots.append(Slot(subcon.name, offset, size, inner, index))
            fmt += _format(inner, size)
            offset += size
        self.slots = tuple(slots)
        written = any(_written(slot.field) for slot in slots)
        super().__init__(
            fmt,
            [slot.name for slot in slots],
            # What a walk has to visit: everything else is only decoded later.
            [
                slot
                for slot in slots
                if slot.kind in ("ptr", "pick", "fd", "asked")
                or (slot.layout is not None and slot.layout.followed)
            ],
            written,
            written or any(_exits(slot.field) for slot in slots),
        )
        if self.size != offset:
            raise AssertionError(f"{declaration}: {fmt} is not {offset} bytes")


def _alternatives(field: Any) -> list[Any]:
    """The structs that may stand in a field or behind it."""
    if isinstance(field, Pick):
        return [row for row in (*field.rows.values(), field.default) if row is not None]
    return [field] if isinstance(field, cs.Struct) else []


def _written(field: Any) -> bool:
    return getattr(field, "written", False) or any(
        layout_of(row).written for row in _alternatives(field)
    )


def _exits(field: Any) -> bool:
    if isinstance(field, Ptr):
        inner = field.target.item if isinstance(field.target, One | Many) else None
        return field.writes or any(layout_of(row).exits for row in _alternatives(inner))
    return any(layout_of(row).exits for row in _alternatives(field))


def _format(field: Any, size: int) -> str:
    while isinstance(field, cs.Subconstruct) and not isinstance(field, cs.Struct):
        field = field.subcon
    if isinstance(field, cs.FormatField):
        return str(field.fmtstr[1:])
    return f"{size}s"


def kernel(ctype: str, declaration: Any) -> Any:
    """A construct Struct that is the kernel's ``ctype``, by its key in uapi.layouts.

    Members that only the running kernel has are shown by the names in its BTF.
    """
    declaration.ctype = ctype
    return declaration


_layouts: dict[int, tuple[Any, Layout]] = {}


def layout_of(declaration: Any) -> Layout:
    """The layout of a construct Struct, made once."""
    known = _layouts.get(id(declaration))
    if known is None:
        known = _layouts[id(declaration)] = (declaration, Layout(declaration))
    return known[1]


# ---------------------------------------------------------------- the usual fields

U8 = Num(cs.Int8ul)
U16 = Num(cs.Int16ul)
U32 = Num(cs.Int32ul)
S32 = Num(cs.Int32sl)
U64 = Num(cs.Int64ul)
S64 = Num(cs.Int64sl)
X32 = Num(cs.Int32ul, 16)
X64 = Num(cs.Int64ul, 16)

__all__ = [
    "EMPTY",
    "NULL",
    "Array",
    "Bits",
    "Blob",
    "CStr",
    "Called",
    "Chars",
    "Chunked",
    "FactField",
    "FdField",
    "Field",
    "FlagSet",
    "MustBeZero",
    "In",
    "InOut",
    "InsnArray",
    "Layout",
    "Many",
    "Meaning",
    "Named",
    "NotedField",
    "Num",
    "One",
    "Out",
    "Padding",
    "Pick",
    "Ptr",
    "Raw",
    "Skip",
    "Slot",
    "Tail",
    "Target",
    "Written",
    "kernel",
    "this",
]
