"""Protocol buffers' wire format, as far as writing goes.

https://protobuf.dev/programming-guides/encoding: a field is a key (number and wire type) and
a value; a message is its fields one after the other.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1


def varint(number: int) -> bytes:
    """A number in groups of seven bits; negative ones as 64-bit two's complement."""
    number &= _MASK
    if number < 0x80:
        return bytes((number,))
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def integer(field: int, value: int) -> bytes:
    """A field of type int32, int64, uint32, uint64, bool or an enum."""
    return varint(field << 3) + varint(value)


def fixed64(field: int, value: int) -> bytes:
    """A field of type fixed64."""
    return varint(field << 3 | 1) + (value & _MASK).to_bytes(8, "little")


def message(field: int, *parts: bytes) -> bytes:
    """A field that is a message made of these fields, or bytes."""
    body = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(body)) + body


def string(field: int, text: str) -> bytes:
    """A field of type string."""
    return message(field, text.encode("utf-8", "backslashreplace"))
