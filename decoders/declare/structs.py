"""Unions, pointers and what they point at; and the layouts of structs that all of these are in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from decoders.constructs import cs
from decoders.declare.fields import (
    AT_ONCE,
    Bits,
    Called,
    FactField,
    FdField,
    Field,
    MustBeZero,
    Padding,
    Skip,
    Written,
)
from decoders.records import NamedTuple
from decoders.values import (
    NULL,
    Absent,
    Bytes,
    Insns,
    Int,
    Text,
    Value,
)
from decoders.walk import layouts
from decoders.walk.measures import too_many_insns
from decoders.walk.scope import Scope

READ_LIMIT: Final = layouts.READ_LIMIT

Expr = int | Callable[[Any], Any]
number = layouts.number


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
        layouts.Union.__init__(self, key, rows, default)
        self._size = size
        # Of what stands behind a pointer nobody asks how large it may be.
        Field.__init__(self, cs.Bytes(lambda _: self.size))

    @property
    def size(self) -> int:
        """Bytes of the largest alternative."""
        if self._size is None:
            self._size = max((row.sizeof() for row in _alternatives(self)), default=0)
        return self._size

    def chosen(self, scope: Scope) -> Any:
        """The alternative (a construct Struct) that the fields around select."""
        return self.rows.get(self.key(scope), self.default)

    def layout(self, scope: Scope) -> layouts.Layout | None:
        """Its layout."""
        row = self.chosen(scope)
        return None if row is None else layout_of(row)


class Late(Mapping[Any, Any]):
    """The rows of a Pick that another module declares, which ``load`` imports: few traces have
    any of them."""

    def __init__(self, load: Callable[[], Mapping[Any, Any]]) -> None:
        self._load = load
        self._rows: Mapping[Any, Any] | None = None

    def _loaded(self) -> Mapping[Any, Any]:
        if self._rows is None:
            self._rows = self._load()
        return self._rows

    def __getitem__(self, key: Any) -> Any:
        return self._loaded()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loaded())

    def __len__(self) -> int:
        return len(self._loaded())


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
        total = wanted // 8 if self.claimed is None else layouts.number(self.claimed, scope)
        unread = max(0, total - min(wanted, READ_LIMIT) // 8)
        why = ""
        if unread:
            loads = self.claimed is not None
            why = too_many_insns(scope) if loads else f"{READ_LIMIT >> 20} MiB are copied at most"
        return Insns(data, total, unread, why)


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


class Unknown(NamedTuple):
    """How a struct is named that has no row: in the generated tables, or a kernel's BTF."""

    union: str
    """What it is a member of."""
    enum: str
    """The kernel's enum that selects it."""
    names: Mapping[int, str]
    """The enum's names that we have."""
    number: Callable[[Any], int]
    """The enum's value, of the scope."""


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
        unknown: Unknown | None = None,
    ) -> None:
        """``peek``, ``rewritten``: as in walk.One.

        ``unknown``: what may be known of what stands there where no row says it.
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
