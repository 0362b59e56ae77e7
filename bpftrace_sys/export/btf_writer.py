"""Adding types to BTF, and writing .BTF.ext.

The types and strings that are there keep their ids and offsets, so whatever
refers to them stays right; new ones come after them.  Formats as in
``decoders.formats.btf`` and in libbpf's btf_ext_header (libbpf 1.7).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from decoders.formats.btf import Btf, parse
from decoders.formats.btf_records import MAGIC
from decoders.formats.btf_types import Kind

_HEADER: Final = struct.Struct("<HBBIIIII")
_LAYOUT: Final = struct.Struct("<II")
_TYPE: Final = struct.Struct("<III")
_WORD: Final = struct.Struct("<I")
_TRIPLE: Final = struct.Struct("<III")
STATIC: Final = 0
GLOBAL: Final = 1
_SIGNED: Final = 1


class BtfWriter:
    """BTF that grows.  ``base``: the blob to begin with; BtfError if it is none.

    Little endian only, as the kernel that took it.
    """

    def __init__(self, base: bytes | None = None) -> None:
        self.read: Btf | None = None
        self._types = bytearray()
        self._strings = bytearray(1)
        self._layout = b""
        self._next = 1
        self._known: dict[bytes, int] = {}
        if base is not None:
            self.read = found = parse(base)
            header = found.header
            start = header.hdr_len
            self._types += base[start + header.type_off :][: header.type_len]
            self._strings[:] = base[start + header.str_off :][: header.str_len] or b"\0"
            if header.layout_len:
                self._layout = base[start + header.layout_off :][: header.layout_len]
            self._next = found.end_id

    def string(self, text: str) -> int:
        """The offset of a string, an old one where it is there."""
        data = text.encode("utf-8", "replace").replace(b"\0", b"")
        if not data:
            return 0
        offset = self._known.get(data)
        if offset is None:
            found = self._strings.find(b"\0" + data + b"\0")
            offset = found + 1 if found >= 0 else len(self._strings)
            if found < 0:
                self._strings += data + b"\0"
            self._known[data] = offset
        return offset

    def _add(self, name: str, kind: int, vlen: int, size_or_type: int, more: bytes = b"") -> int:
        self._types += _TYPE.pack(self.string(name), kind << 24 | vlen, size_or_type) + more
        self._next += 1
        return self._next - 1

    def integer(self, name: str, size: int) -> int:
        """A signed integer of so many bytes."""
        return self._add(name, Kind.INT, 0, size, _WORD.pack(_SIGNED << 24 | size * 8))

    def pointer(self, type_id: int) -> int:
        """A pointer to a type."""
        return self._add("", Kind.PTR, 0, type_id)

    def array(self, type_id: int, index_type: int, count: int) -> int:
        """An array."""
        return self._add("", Kind.ARRAY, 0, 0, _TRIPLE.pack(type_id, index_type, count))

    def function(self) -> int:
        """``void ()``."""
        return self._add("", Kind.FUNC_PROTO, 0, 0)

    def enum64(self, name: str, value: int) -> int:
        """An enum of one 64-bit value."""
        more = _TRIPLE.pack(self.string(name), value & 0xFFFFFFFF, value >> 32)
        return self._add("", Kind.ENUM64, 1, 8, more)

    def struct(self, members: Sequence[tuple[str, int]], each: int) -> int:
        """An anonymous struct of members (name, type) of ``each`` bytes."""
        more = b"".join(
            _TRIPLE.pack(self.string(name), type_id, index * each * 8)
            for index, (name, type_id) in enumerate(members)
        )
        return self._add("", Kind.STRUCT, len(members), len(members) * each, more)

    def variable(self, name: str, type_id: int) -> int:
        """A global variable."""
        return self._add(name, Kind.VAR, 0, type_id, _WORD.pack(GLOBAL))

    def section(self, name: str, variables: Sequence[tuple[int, int, int]], size: int) -> int:
        """A section of variables: (VAR, offset, size)."""
        more = b"".join(_TRIPLE.pack(*each) for each in variables)
        return self._add(name, Kind.DATASEC, len(variables), size, more)

    def rename(self, type_id: int, name: str) -> None:
        """Gives an old type another name."""
        offset = self.read.offset_of(type_id) if self.read is not None else None
        if offset is not None:
            # May add to the strings, never to the types.
            _WORD.pack_into(self._types, offset, self.string(name))

    def make_static(self, type_id: int) -> None:
        """Makes an old VAR static: no symbol is looked for."""
        offset = self.read.offset_of(type_id) if self.read is not None else None
        if offset is not None and len(self._types) >= offset + _TYPE.size + _WORD.size:
            _WORD.pack_into(self._types, offset + _TYPE.size, STATIC)

    def dump(self) -> bytes:
        """The blob."""
        extra = _LAYOUT.size if self._layout else 0
        strings = bytes(self._strings)
        header = _HEADER.pack(
            MAGIC, 1, 0, _HEADER.size + extra, 0, len(self._types), len(self._types), len(strings)
        )
        if not self._layout:
            return header + self._types + strings
        padding = bytes(-(len(self._types) + len(strings)) % 4)
        at = len(self._types) + len(strings) + len(padding)
        layout = _LAYOUT.pack(at, len(self._layout))
        return header + layout + self._types + strings + padding + self._layout


_EXT: Final = struct.Struct("<HBBIIIIIII")
FUNC_INFO_SIZE: Final = 8
LINE_INFO_SIZE: Final = 16
CORE_RELO_SIZE: Final = 16
Records = Sequence[tuple[str, Sequence[tuple[int, ...]]]]
"""By section name, the fields of each record."""


def _info(writer: BtfWriter, size: int, records: Records) -> bytes:
    out = bytearray()
    for name, rows in records:
        if rows:
            out += struct.pack("<II", writer.string(name), len(rows))
            for row in rows:
                out += struct.pack(f"<{size // 4}I", *row)
    return _WORD.pack(size) + out if out else b""


def btf_ext(writer: BtfWriter, funcs: Records, lines: Records, relos: Records) -> bytes:
    """A .BTF.ext section; offsets of instructions are bytes in their sections."""
    parts = [
        _info(writer, FUNC_INFO_SIZE, funcs),
        _info(writer, LINE_INFO_SIZE, lines),
        _info(writer, CORE_RELO_SIZE, relos),
    ]
    words = []
    for index, part in enumerate(parts):
        words += [sum(map(len, parts[:index])), len(part)]
    return _EXT.pack(MAGIC, 1, 0, _EXT.size, *words) + b"".join(parts)
