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

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import construct as cs
from construct import this as this

from decoders.raw import FdFact
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

READ_LIMIT: Final = 16 << 20
"""The most that one pointer can make us copy, in bytes."""
ITEM_LIMIT: Final = 1 << 16
"""The most elements of an array that become values of their own."""


class Env(Protocol):
    """What a declaration may ask of the world around the call."""

    ret: int | None
    """The call's result; None before it returned."""
    arch: int
    """AUDIT_ARCH_* of the call."""

    @property
    def cpus(self) -> int:
        """Possible CPUs: per-CPU map values are that many."""

    def fd(self, fd: int) -> FdFact | None:
        """What that fd of the tracee is."""

    def fact(self, kind: str, key: int) -> str | None:
        """A name that only the live machine knows (``pmu``, ``ifindex``, ...)."""

    def newer(self, enum: str, value: int) -> str | None:
        """The name of an enum value in the running kernel's BTF."""


class Scope(Protocol):
    """The raw fields that an expression can see; ``scope["_"]`` is the struct around."""

    @property
    def env(self) -> Env: ...
    def __getitem__(self, name: str) -> Any: ...
    def fetched(self, name: str, make: Callable[[bytes], Any], default: Any) -> Any:
        """``make`` of the bytes that an earlier pointer field of this struct led to."""


Expr: TypeAlias = int | Callable[[Any], Any]


def number(expr: Expr, scope: Scope) -> int:
    """The value of an expression."""
    return expr if isinstance(expr, int) else int(expr(scope))


# ---------------------------------------------------------------- scalar fields


class Field(cs.Subconstruct):
    """Some bytes of a struct, with a meaning."""

    written = False
    """The kernel writes this field, so it is read again at exit."""

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


class FdField(Field):
    """A file descriptor.

    ``optional``: 0 means that there is none (most fds of bpf_attr), so nothing
    is looked up for it; else 0 is an fd like any other.
    """

    def __init__(self, subcon: Any, optional: bool = False) -> None:
        super().__init__(subcon)
        self.optional = optional

    def value(self, raw: Any, scope: Scope) -> Value:
        return Fd(raw, self.fact(raw, scope))

    def fact(self, raw: int, scope: Scope) -> FdFact | None:
        """What the fd is, or None where it is none or nobody knows."""
        if raw < 0 or raw >= 1 << 31 or (raw == 0 and self.optional):
            return None
        return scope.env.fd(raw)


AT_ONCE: Final = frozenset({"ifindex"})
"""Facts that are asked for in the stop: later the asker's network namespace may be gone."""


class FactField(Field):
    """A number that the live machine has a name for: an ifindex, a BTF type id.

    ``when``: whether it is one, where other fields decide that.
    """

    def __init__(
        self, subcon: Any, kind: str, base: int = 10, when: Callable[[Any], bool] | None = None
    ) -> None:
        super().__init__(subcon)
        self.kind = kind
        self.base = base
        self.when = when

    def value(self, raw: Any, scope: Scope) -> Value:
        asked = raw and (self.when is None or self.when(scope))
        return Int(raw, self.base, scope.env.fact(self.kind, raw) if asked else None)


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
        self, subcon: Any, key: Callable[[Any], Any], rows: Mapping[Any, Field], base: int = 10
    ) -> None:
        super().__init__(subcon, base)
        self.key = key
        self.rows = rows

    def value(self, raw: Any, scope: Scope) -> Value:
        chosen = self.rows.get(self.key(scope))
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


class Idle(Field):
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


class Pick(Field):
    """A union: what stands here depends on other fields.

    The alternatives are construct Structs.  With ``embed`` their fields become
    fields of the struct around, as those of an anonymous union do; an
    alternative that is a named struct is a Struct with one field of that name.
    A key that is in no row gets ``default``; None stands for nothing at all.
    """

    def __init__(
        self, key: Expr, rows: Mapping[Any, Any], default: Any = None, size: int | None = None
    ) -> None:
        alternatives = [row for row in rows.values() if row is not None]
        if default is not None:
            alternatives.append(default)
        self.size = max((row.sizeof() for row in alternatives), default=0) if size is None else size
        super().__init__(cs.Bytes(self.size))
        self.key = key
        self.rows = rows
        self.default = default

    def chosen(self, scope: Scope) -> Any:
        """The alternative (a construct Struct) that the fields around select."""
        key = self.key(scope) if callable(self.key) else self.key
        return self.rows.get(key, self.default)


# ---------------------------------------------------------------- pointers


class Target:
    """What a pointer points at."""

    open_end = False

    def size(self, scope: Scope) -> int | None:
        """How many bytes that is; None where only the memory can tell (strings)."""
        raise NotImplementedError

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        """The decoded value of what was read there."""
        raise NotImplementedError

    def fds(self, data: bytes, scope: Scope) -> Iterable[int]:
        """The fds inside, so that their identity is recorded with them."""
        return ()


class CStr(Target):
    """A NUL-terminated string of at most ``limit`` bytes."""

    def __init__(self, limit: Expr = 4096) -> None:
        self.limit = limit

    def size(self, scope: Scope) -> int | None:
        return None

    def most(self, scope: Scope) -> int:
        """The limit in bytes."""
        return max(0, min(number(self.limit, scope), READ_LIMIT))

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        return Text(data, len(data) >= wanted)


class Blob(Target):
    """Bytes that nothing here interprets."""

    def __init__(self, length: Expr, open_end: bool = False) -> None:
        """``open_end``: a length of 0 at entry means as much as there is."""
        self.length = length
        self.open_end = open_end

    def size(self, scope: Scope) -> int | None:
        if isinstance(self.length, int):
            return self.length
        found: int | None = self.length(scope)  # None: of a map that nobody knows
        return found

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        return Bytes(data, wanted)


class Chunked(Blob):
    """Text of a given length, not NUL-terminated or padded with NULs."""

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        return Text(data.rstrip(b"\0"), len(data) == wanted)


class InsnArray(Target):
    """``struct bpf_insn[count]``; the listing is made from it later."""

    def __init__(self, count: Expr, maps: bool = True) -> None:
        self.count = count
        self.maps = maps

    def size(self, scope: Scope) -> int | None:
        return number(self.count, scope) * 8

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        return Insns(data, wanted // 8)

    def fds(self, data: bytes, scope: Scope) -> Iterable[int]:
        return map_fds(data) if self.maps else ()


def ld_imm64s(insns: bytes) -> Iterator[tuple[int, int, int]]:
    """(src_reg, imm, imm of the second slot) of each ld_imm64, without decoding the rest."""
    opcodes = insns[::8]
    at = opcodes.find(0x18)
    while at >= 0:
        start = at * 8
        if start + 8 > len(insns):
            return
        second = insns[start + 12 : start + 16]
        yield (
            insns[start + 1] >> 4,
            int.from_bytes(insns[start + 4 : start + 8], "little", signed=True),
            int.from_bytes(second, "little", signed=True),
        )
        at = opcodes.find(0x18, at + 2)


def map_fds(insns: bytes) -> list[int]:
    """The fds in BPF_PSEUDO_MAP_FD (1) and BPF_PSEUDO_MAP_VALUE (2) loads, each once."""
    return list(dict.fromkeys(imm for src, imm, _ in ld_imm64s(insns) if src in (1, 2)))


def fd_array_used(insns: bytes) -> int:
    """How many slots of fd_array the MAP_IDX (5) and MAP_IDX_VALUE (6) loads name."""
    return max((imm + 1 for src, imm, _ in ld_imm64s(insns) if src in (5, 6)), default=0)


class Many(Target):
    """An array.  ``item`` is a scalar Field, a construct Struct, or a pointer (In).

    ``stride`` is the caller's record size where that may differ from ours.
    """

    def __init__(self, item: Any, count: Expr, stride: Expr | None = None) -> None:
        self.item = item
        self.count = count
        self.stride = stride
        self.layout = layout_of(item if isinstance(item, cs.Struct) else cs.Struct("_" / item))
        self.scalar = not isinstance(item, cs.Struct)

    def step(self, scope: Scope) -> int:
        """Bytes from one element to the next."""
        step = self.layout.size if self.stride is None else number(self.stride, scope)
        return step if step > 0 else 0

    def size(self, scope: Scope) -> int | None:
        return number(self.count, scope) * self.step(scope)

    def fds(self, data: bytes, scope: Scope) -> Iterable[int]:
        if isinstance(self.item, FdField):
            usable = len(data) - len(data) % self.layout.size
            return [raw for (raw,) in self.layout.full.iter_unpack(data[:usable])][:4096]
        return ()

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        raise NotImplementedError  # follow.py walks the elements


class Tail(NamedTuple):
    """The flexible array at the end of a struct, which the kernel fills in."""

    name: str
    item: Field
    count: Callable[[Any], int]


class One(Target):
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
        """``peek``: the struct's first 8 bytes say its own size.

        ``rewritten``: what the kernel writes into a struct that it only reads, it
        writes when it fails with one of these errors.

        ``unknown``: where no row says what stands there, the running kernel's BTF
        may: the union that it is a member of, the enum that names it, and the value.
        """
        self.item = item
        self.length = size
        self.limit = limit
        self.peek = peek
        self.tail = tail
        self.rewritten = rewritten
        self.unknown = unknown

    def struct(self, scope: Scope) -> Any:
        """The construct Struct that stands there."""
        return self.item.chosen(scope) if isinstance(self.item, Pick) else self.item

    def size(self, scope: Scope) -> int | None:
        if self.length is None:
            struct_ = self.struct(scope)
            return 0 if struct_ is None else layout_of(struct_).size
        return min(number(self.length, scope), self.limit)

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        raise NotImplementedError  # follow.py walks the fields


class Ptr(Field):
    """A user-space address.  ``way``: the kernel reads, writes, or both."""

    def __init__(
        self,
        target: Target,
        way: str,
        always: bool | frozenset[int] = False,
        subcon: Any = None,
        reads_if: Callable[[Any], bool] | None = None,
    ) -> None:
        super().__init__(cs.Int64ul if subcon is None else subcon)
        self.target = target
        self.reads = "in" in way
        self.writes = "out" in way
        self.always = always
        self.reads_if = reads_if

    def kept(self, ret: int | None) -> bool:
        """Whether a failed call wrote there all the same."""
        if isinstance(self.always, bool):
            return self.always
        return ret is not None and -ret in self.always

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


class Slot:
    """One field of a layout: its name, place and declaration."""

    __slots__ = (
        "called",
        "field",
        "idle",
        "index",
        "kind",
        "layout",
        "name",
        "offset",
        "plain",
        "size",
    )

    def __init__(self, name: str, offset: int, size: int, field: Any, index: int) -> None:
        self.called = field if isinstance(field, Called) else None
        self.idle = isinstance(field, Idle)
        if isinstance(field, Called | Idle):
            field = field.field
        self.name = name
        self.offset = offset
        self.size = size
        self.field = field
        self.index = index
        self.layout: Layout | None = None
        if isinstance(field, cs.Struct):
            self.kind = "struct"
            self.layout = layout_of(field)
        elif isinstance(field, Pick):
            self.kind = "pick"
        elif isinstance(field, Ptr):
            self.kind = "ptr"
        elif isinstance(field, FdField) or (
            isinstance(field, Written) and isinstance(field.field, FdField)
        ):
            self.kind = "fd"
        elif isinstance(field, Bits):
            self.kind = "bits"
        elif isinstance(field, Padding):
            self.kind = "pad"
        elif isinstance(field, Skip):
            self.kind = "skip"
        elif isinstance(field, FactField) and field.kind in AT_ONCE:
            self.kind = "asked"
        else:
            self.kind = "leaf"
        # Most fields: one value, the same at exit, under one name.
        self.plain = (
            self.kind in ("leaf", "fd", "asked")
            and not field.written
            and self.called is None
            and not self.idle
        )


class Layout:
    """A flattened declaration.

    ``slots`` in order; ``full`` unpacks a whole struct; :meth:`unpack` one that
    its caller cut short, with zeros for what is missing, as the kernel does.
    ``followed`` are the slots that a walk has to visit.  ``written``: the
    kernel writes into the struct itself; ``exits``: into it or behind one of
    its pointers, so that there is something to copy at exit.
    """

    __slots__ = (
        "ctype", "exits", "followed", "full", "index", "names", "size", "slots", "written",
    )  # fmt: skip

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
        self.names = tuple(slot.name for slot in slots)
        self.index = {name: index for index, name in enumerate(self.names)}
        self.full = struct.Struct(fmt)
        self.size = offset
        if self.full.size != offset:
            raise AssertionError(f"{declaration}: {fmt} is not {offset} bytes")
        # What a walk has to visit: everything else is only decoded later.
        self.followed: tuple[Slot, ...] = tuple(
            slot
            for slot in slots
            if slot.kind in ("ptr", "pick", "fd", "asked")
            or (slot.layout is not None and slot.layout.followed)
        )
        self.written = any(_written(slot.field) for slot in slots)
        self.exits = self.written or any(_exits(slot.field) for slot in slots)

    def unpack(self, data: bytes) -> tuple[Any, ...]:
        """The raw fields; missing bytes are zero."""
        if len(data) >= self.size:
            return self.full.unpack_from(data)
        return self.full.unpack(data + bytes(self.size - len(data)))


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
    "Env",
    "FactField",
    "FdField",
    "Field",
    "FlagSet",
    "Idle",
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
    "Scope",
    "Skip",
    "Slot",
    "Tail",
    "Target",
    "Written",
    "kernel",
    "this",
]
