"""BTF's bytes: the records of include/uapi/linux/btf.h, and which follow a type of each kind."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final, Literal

from decoders.constructs import cs
from decoders.formats.btf_types import BtfError, Kind
from decoders.records import NamedTuple

MAGIC: Final = 0xEB9F
ByteOrder = Literal["little", "big"]

_U8, _U16, _U32, _S32 = cs.Int8ul, cs.Int16ul, cs.Int32ul, cs.Int32sl

BTF_HEADER: Final = cs.Struct(
    "magic" / _U16,
    "version" / _U8,
    "flags" / _U8,
    "hdr_len" / _U32,
    "type_off" / _U32,
    "type_len" / _U32,
    "str_off" / _U32,
    "str_len" / _U32,
    "layout_off" / _U32,
    "layout_len" / _U32,
)
BTF_LAYOUT: Final = cs.Struct("info_sz" / _U8, "elem_sz" / _U8, "flags" / _U16)
BTF_TYPE: Final = cs.Struct("name_off" / _U32, "info" / _U32, "size_or_type" / _U32)
BTF_INT: Final = cs.Struct("info" / _U32)
BTF_ARRAY: Final = cs.Struct("type" / _U32, "index_type" / _U32, "nelems" / _U32)
BTF_VAR: Final = cs.Struct("linkage" / _U32)
BTF_DECL_TAG: Final = cs.Struct("component_idx" / _S32)
BTF_MEMBER: Final = cs.Struct("name_off" / _U32, "type" / _U32, "offset" / _U32)
BTF_ENUM: Final = cs.Struct("name_off" / _U32, "val" / _U32)
BTF_ENUM64: Final = cs.Struct("name_off" / _U32, "val_lo32" / _U32, "val_hi32" / _U32)
BTF_PARAM: Final = cs.Struct("name_off" / _U32, "type" / _U32)
BTF_VAR_SECINFO: Final = cs.Struct("type" / _U32, "offset" / _U32, "size" / _U32)


def unpacker(record: Any, byteorder: ByteOrder = "little") -> Struct:
    """The `struct.Struct` of a construct Struct of plain integers, for loops.

    Raises AttributeError for a record that holds anything but integers.
    """
    codes = "".join(field.subcon.fmtstr[1:] for field in record.subcons)
    return Struct(("<" if byteorder == "little" else ">") + codes)


class Following(NamedTuple):
    """What follows a btf_type of a kind: one ``fixed`` record, and vlen ``elements``."""

    fixed: Any = None
    element: Any = None
    sized: bool = False  # size_or_type is a size


FOLLOWING: Final[dict[int, Following]] = {
    Kind.INT: Following(BTF_INT, sized=True),
    Kind.PTR: Following(),
    Kind.ARRAY: Following(BTF_ARRAY),
    Kind.STRUCT: Following(element=BTF_MEMBER, sized=True),
    Kind.UNION: Following(element=BTF_MEMBER, sized=True),
    Kind.ENUM: Following(element=BTF_ENUM, sized=True),
    Kind.FWD: Following(),
    Kind.TYPEDEF: Following(),
    Kind.VOLATILE: Following(),
    Kind.CONST: Following(),
    Kind.RESTRICT: Following(),
    Kind.FUNC: Following(),  # its vlen is its linkage
    Kind.FUNC_PROTO: Following(element=BTF_PARAM),
    Kind.VAR: Following(BTF_VAR),
    Kind.DATASEC: Following(element=BTF_VAR_SECINFO, sized=True),
    Kind.FLOAT: Following(sized=True),
    Kind.DECL_TAG: Following(BTF_DECL_TAG),
    Kind.TYPE_TAG: Following(),
    Kind.ENUM64: Following(element=BTF_ENUM64, sized=True),
}
NR_KINDS: Final = 128
WORD: Final = _U32.sizeof()
TYPE_WORDS: Final = BTF_TYPE.sizeof() // WORD
_UNKNOWN: Final = -1


def _words_of(record: Any) -> int:
    return 0 if record is None else record.sizeof() // WORD


FIXED_WORDS: Final = [_UNKNOWN] * NR_KINDS  # by kind: 32-bit words
ELEMENT_WORDS: Final = [0] * NR_KINDS
for _kind, _row in FOLLOWING.items():
    FIXED_WORDS[_kind] = _words_of(_row.fixed)
    ELEMENT_WORDS[_kind] = _words_of(_row.element)


BYTE_ORDERS: Final[tuple[ByteOrder, ...]] = ("little", "big")
UNPACKERS: Final = {
    (order, record): unpacker(record, order)
    for row in FOLLOWING.values()
    for record in (row.fixed, row.element)
    if record is not None
    for order in BYTE_ORDERS
}


class Header(NamedTuple):
    """struct btf_header; the layout's fields are 0 where the header ends before them."""

    magic: int
    version: int
    flags: int
    hdr_len: int
    type_off: int
    type_len: int
    str_off: int
    str_len: int
    layout_off: int
    layout_len: int


SHORT_HEADER: Final = 24  # offsetofend(struct btf_header, str_len): all BTF has that much


def read_header(data: bytes) -> tuple[ByteOrder, Header]:
    if len(data) < 2:
        raise BtfError(f"no BTF: {len(data)} bytes")
    for byteorder in BYTE_ORDERS:
        if int.from_bytes(data[:2], byteorder) == MAGIC:
            break
    else:
        raise BtfError(f"no BTF: starts with {data[:2].hex(' ')}, not with the magic number eb9f")
    unpack = unpacker(BTF_HEADER, byteorder)
    header = Header(*unpack.unpack(data[: unpack.size].ljust(unpack.size, b"\0")))
    if len(data) < SHORT_HEADER or header.hdr_len > len(data):
        raise BtfError(f"no BTF: {len(data)} bytes do not hold the header")
    if header.hdr_len < SHORT_HEADER:
        raise BtfError(f"no BTF: a header of {header.hdr_len} bytes is too short")
    if header.hdr_len < unpack.size:
        # What follows a short header is no part of it.
        header = header._replace(layout_off=0, layout_len=0)
    return byteorder, header


def _int_details(info: int) -> dict[str, Any]:
    return {
        "encoding": info >> 24 & 0xF,
        "bit_offset": info >> 16 & 0xFF,
        "bits": info & 0xFF,
    }


def _array_details(element: int, index_type: int, nelems: int) -> dict[str, Any]:
    return {"type": element, "index_type": index_type, "nelems": nelems}


def _var_details(linkage: int) -> dict[str, Any]:
    return {"linkage": linkage}


def _tag_details(component: int) -> dict[str, Any]:
    return {"component": component}


FIXED_DETAILS: Final[dict[int, Callable[..., dict[str, Any]]]] = {
    Kind.INT: _int_details,
    Kind.ARRAY: _array_details,
    Kind.VAR: _var_details,
    Kind.DECL_TAG: _tag_details,
}
"""What follows a type of these kinds, by the names of Type."""
