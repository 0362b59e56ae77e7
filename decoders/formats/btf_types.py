"""BTF's types as records: what a type, a member, an enumerator is; kinds and their groups."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from decoders import BpfstraceError
from decoders.records import NamedTuple


class BtfError(BpfstraceError, ValueError):
    """The bytes are no BTF: too short, no magic number, or a header that does not fit."""


class Kind(IntEnum):
    """BTF_KIND_*."""

    VOID = 0  # BTF_KIND_UNKN: never in the data, but type id 0 means void
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


MODIFIERS: Final = frozenset({Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
"""Kinds that change nothing about the bytes of the type that they refer to."""
COMPOSITES: Final = frozenset({Kind.STRUCT, Kind.UNION})
ENUMS: Final = frozenset({Kind.ENUM, Kind.ENUM64})

INT_SIGNED: Final = 1  # BTF_INT_*: Type.encoding of an INT
INT_CHAR: Final = 2
INT_BOOL: Final = 4

LINKAGES: Final = ("static", "global", "extern")  # BTF_FUNC_*, BTF_VAR_*: Type.linkage


class Member(NamedTuple):
    """A member of a struct or union; ``bits`` is 0 where it is no bit-field."""

    name: str
    type: int
    bit_offset: int
    bits: int


class Enumerator(NamedTuple):
    """A name of an enum."""

    name: str
    value: int


class Param(NamedTuple):
    """A parameter of a function; a last one without name and type stands for ``...``."""

    name: str
    type: int


class Variable(NamedTuple):
    """A variable in a section: ``type`` is that of a VAR, offset and size in bytes."""

    type: int
    offset: int
    size: int


class Type(NamedTuple):
    """One type; what its kind has no use for is zero or empty."""

    id: int
    kind: int
    """A `Kind`, or a newer number where a layout section tells its length."""
    name: str
    """Empty for an anonymous one; hostile text, as `Btf.string` gives it."""
    kind_flag: bool
    vlen: int
    """The number of elements that the type claims; fewer can be there."""
    size: int
    """Bytes, of an INT, FLOAT, ENUM, ENUM64, STRUCT, UNION, DATASEC."""
    type: int
    """The type referred to; of an ARRAY, its elements' type."""
    encoding: int = 0
    bit_offset: int = 0
    bits: int = 0
    """Of an INT, as are ``encoding`` and ``bit_offset``."""
    index_type: int = 0
    nelems: int = 0
    linkage: int = 0
    """Of a FUNC or VAR: an index of `LINKAGES`, or an unknown number."""
    component: int = -1
    """Of a DECL_TAG: the member or parameter, -1 for the whole."""
    members: tuple[Member, ...] = ()
    enumerators: tuple[Enumerator, ...] = ()
    params: tuple[Param, ...] = ()
    variables: tuple[Variable, ...] = ()


VOID: Final = Type(0, Kind.VOID, "void", False, 0, 0, 0)


TRANSPARENT: Final = MODIFIERS | {Kind.TYPEDEF, Kind.VAR, Kind.FUNC}
