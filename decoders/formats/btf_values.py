"""Bytes of maps' keys and values, as the types that BTF gives them.

A value of a given type and its bytes becomes one of `decoders.values`:

INT            Int; bool (BTF_INT_BOOL) a Name of enum ``bool``
PTR            Int in base 16
ENUM, ENUM64   Name
FLOAT          Bytes (there is no value for it yet)
STRUCT, UNION  Struct; unnamed members' fields stand in it as C has them
ARRAY          Array; of char, Text; of other unsigned single bytes, Bytes
VAR            its type's value
DATASEC        Struct of its variables
others         Bytes

Typedefs and modifiers are looked through.  Data may be shorter than the type
(Absent, or Bytes that want more) or longer (the rest is shown unless it is
zero).  Types are hostile: depth, the number of values and the bytes that they
copy are bounded.
"""

from __future__ import annotations

from typing import Final

from decoders.formats.btf import MAX_DEPTH, Btf
from decoders.formats.btf_c import c_type
from decoders.formats.btf_types import (
    COMPOSITES,
    ENUMS,
    INT_BOOL,
    INT_CHAR,
    INT_SIGNED,
    MODIFIERS,
    Kind,
    Type,
)
from decoders.values import BEYOND_SIZE, Absent, Array, Bytes, Int, Name, Struct, Text, Value

MAX_VALUES: Final = 1 << 14
"""The most values that one call of `value` makes; what remains is Bytes, or
missing from an Array (whose ``total`` tells)."""
REST: Final = "(beyond the type)"
"""The field that holds the bytes of data which the type does not cover."""

_BOOLS: Final = {0: "false", 1: "true"}


class _Reader:
    """Decodes one piece of data; counts what it makes."""

    def __init__(self, btf: Btf, data: bytes) -> None:
        self.btf = btf
        self.data = data
        self._values = MAX_VALUES
        # Members may overlap, so one byte can be copied often, but not for ever.
        self._bytes = 4 * len(data) + 4096
        self._names: dict[tuple[int, int], dict[int, str]] = {}
        self._ctypes: dict[int, str] = {}

    @property
    def exhausted(self) -> bool:
        """Whether no more values may be made."""
        return self._values <= 0

    def raw(self, start: int, size: int) -> Value:
        """Uninterpreted bytes, as many of them as there are."""
        if start >= len(self.data) and size:
            return Absent(BEYOND_SIZE)
        data = self.data[start : start + min(size, self._bytes)]
        self._bytes -= len(data)
        return Bytes(data, size)

    def value(self, type_id: int, start: int, depth: int = 0) -> Value:
        """The value of that type at that byte."""
        btf = self.btf
        found = btf.resolve(type_id)
        size = btf.size_of(type_id)
        self._values -= 1
        if found is None or size is None:
            return self.raw(start, max(len(self.data) - start, 0) if depth == 0 else 0)
        if depth > MAX_DEPTH or self._values < 0:
            return self.raw(start, size)
        if found.kind in COMPOSITES:
            return self._struct(found, type_id, start, depth)
        if found.kind == Kind.DATASEC:
            return self._section(found, start, depth)
        if found.kind == Kind.ARRAY:
            return self._array(found, start, size, depth)
        if start + size > len(self.data):
            return self.raw(start, size)
        if found.kind == Kind.INT and (found.bit_offset or found.bits < size * 8):
            return self.bits(found, start * 8 + found.bit_offset, found.bits)
        if found.kind in _SCALARS:
            number = int.from_bytes(self.data[start : start + size], btf.byteorder)
            return self._scalar(found, number, size * 8)
        return self.raw(start, size)

    def bits(self, found: Type, start: int, bits: int) -> Value:
        """The value of a bit-field that starts at that bit."""
        first, end = start // 8, -(-(start + bits) // 8)
        if end > len(self.data) or found.kind not in _SCALARS:
            return self.raw(first, end - first)
        number = int.from_bytes(self.data[first:end], self.btf.byteorder)
        # Big-endian machines count bits from the most significant one.
        shift = start % 8 if self.btf.byteorder == "little" else end * 8 - start - bits
        return self._scalar(found, number >> shift & ((1 << bits) - 1), bits)

    def _scalar(self, found: Type, number: int, bits: int) -> Value:
        if found.kind == Kind.PTR:
            return Int(number, 16)
        signed = found.kind_flag if found.kind in ENUMS else found.encoding & INT_SIGNED
        value = number - (1 << bits) if signed and bits and number >> (bits - 1) else number
        if found.kind in ENUMS:
            return Name(value, self._enum(found, bits).get(number), found.name)
        if found.encoding & INT_BOOL:
            return Name(value, _BOOLS.get(value), "bool")
        return Int(value)

    def _enum(self, found: Type, bits: int) -> dict[int, str]:
        """Names by the lowest ``bits`` bits of their values.

        So a negative value is found in a narrow bit-field, and also where a
        compiler from before kind_flag wrote it as unsigned.
        """
        names = self._names.get((found.id, bits))
        if names is None:
            mask = (1 << bits) - 1
            # Of two names of one value the first is the one that is meant.
            names = {each.value & mask: each.name for each in reversed(found.enumerators)}
            self._names[found.id, bits] = names
        return names

    def _struct(self, found: Type, type_id: int, start: int, depth: int) -> Value:
        fields: list[tuple[str, Value]] = []
        for member in found.members:
            if self._values < 0:
                fields.append((REST, self.raw(start, found.size)))
                break
            at = start * 8 + member.bit_offset
            if member.bits:
                self._values -= 1
                inner = self.btf.resolve(member.type)
                value = self.bits(inner, at, member.bits) if inner else self.raw(at // 8, 0)
            elif at % 8 or self._is_old_field(member.type):
                value = self._old_field(member.type, at)
            else:
                value = self.value(member.type, at // 8, depth + 1)
            if not member.name and isinstance(value, Struct):
                fields += value.fields
            else:
                fields.append((member.name, value))
        return Struct(tuple(fields), self._ctype(found, type_id))

    def _ctype(self, found: Type, type_id: int) -> str:
        """The struct's name, or that of the typedef which an anonymous one goes by."""
        text = self._ctypes.get(type_id)
        if text is None:
            named = self.btf.type(type_id)
            while named is not None and named.kind in MODIFIERS:
                named = self.btf.type(named.type)
            alias = named is not None and named.kind == Kind.TYPEDEF and not found.name
            text = named.name if named and alias else c_type(self.btf, found.id)
            self._ctypes[type_id] = text
        return text

    def _is_old_field(self, type_id: int) -> bool:
        found = self.btf.resolve(type_id)
        return found is not None and found.kind == Kind.INT and found.bit_offset != 0

    def _old_field(self, type_id: int, start: int) -> Value:
        """A bit-field from before kind_flag: an INT of its own tells the bits."""
        self._values -= 1
        found = self.btf.resolve(type_id)
        if found is None or found.kind not in (Kind.INT, *ENUMS):
            return self.raw(start // 8, self.btf.size_of(type_id) or 0)
        bits = found.bits if found.kind == Kind.INT else found.size * 8
        return self.bits(found, start + found.bit_offset, bits)

    def _section(self, found: Type, start: int, depth: int) -> Value:
        fields: list[tuple[str, Value]] = []
        covered = 0
        for variable in sorted(found.variables, key=lambda each: each.offset):
            if self._values < 0:
                fields.append((REST, self.raw(start, found.size)))
                break
            if any(self.data[start + covered : start + variable.offset]):
                # String literals and padding have no variable.
                rest = self.raw(start + covered, variable.offset - covered)
                fields.append((f"(at {covered})", rest))
            var = self.btf.type(variable.type)
            value = self.value(variable.type, start + variable.offset, depth + 1)
            fields.append((var.name if var else "", value))
            covered = max(covered, variable.offset + variable.size)
        if any(self.data[start + covered : start + found.size]):
            fields.append((f"(at {covered})", self.raw(start + covered, found.size - covered)))
        return Struct(tuple(fields), found.name)

    def _array(self, found: Type, start: int, size: int, depth: int) -> Value:
        element = self.btf.resolve(found.type)
        if start >= len(self.data) and size:
            return Absent(BEYOND_SIZE)
        if element is not None and element.kind == Kind.INT and element.size == 1:
            if element.encoding & INT_CHAR or element.name == "char":
                return self._text(start, size)
            if not element.encoding & (INT_SIGNED | INT_BOOL):
                return self.raw(start, size)
        step = self.btf.size_of(found.type)
        if not step:
            return Array((), found.nelems)
        there = max(len(self.data) - start, 0)
        items = []
        for index in range(min(found.nelems, -(-there // step))):
            if self.exhausted:
                break
            items.append(self.value(found.type, start + index * step, depth + 1))
        return Array(tuple(items), found.nelems)

    def _text(self, start: int, size: int) -> Value:
        data = self.data[start : start + min(size, self._bytes)]
        self._bytes -= len(data)
        # Only the zeros at the end are left out: what follows a NUL is data too.
        return Text(data.rstrip(b"\0"), len(data) == size)


_SCALARS: Final = frozenset({Kind.INT, Kind.PTR, *ENUMS})


def value(btf: Btf, type_id: int, data: bytes) -> Value:
    """``data`` as a value of that type; never raises, whatever the type says."""
    reader = _Reader(btf, data)
    found = reader.value(type_id, 0)
    size = btf.size_of(type_id)
    if size is None or not any(data[size:]):
        return found
    rest = (REST, Bytes(data[size:], len(data) - size))
    if isinstance(found, Struct):
        return found._replace(fields=(*found.fields, rest))
    return Struct((("value", found), rest))


def values(btf: Btf, type_id: int, data: bytes, step: int) -> Array:
    """Values of that type, one every ``step`` bytes: a batch, or one value per CPU.

    All together are bounded as one call of `value` is; what lies between the
    end of a value and the next is padding.
    """
    total = len(data) // step if step > 0 else 0
    reader = _Reader(btf, data)
    items = []
    for index in range(total):
        if reader.exhausted:
            break
        items.append(reader.value(type_id, index * step))
    return Array(tuple(items), total)
