"""Bytes in a trace file: each long piece once, packed as text."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections import OrderedDict
from typing import Any, Final

from bpftrace_sys.common.strict_json import dumps
from decoders.digests import short_of

NUMBERED: Final = 64
"""Bytes from which a piece is counted, so that it need not be written twice."""
COMPRESSED: Final = 256
"""Bytes from which compression is tried."""
REMEMBERED: Final = 64 << 20
"""Bytes of pieces that reader and writer remember; the oldest go first."""
KNOWN: Final = 32_768
"""Pieces that a writer knows again: what it has forgotten it writes once more."""
OVERHEAD: Final = 256
"""What a piece counts for above its bytes: remembering it takes that much."""
PIECE_LIMIT: Final = 64 << 20
"""Bytes that a piece may unpack to."""
CALL_LIMIT: Final = 128 << 20
"""Bytes that the pieces of one line may unpack to."""


class Pieces:
    """The numbered pieces so far; counted by the same rule for writing and reading."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, int] = {}
        self._by_number: OrderedDict[int, bytes] = OrderedDict()
        """A piece, or where it need not be known again the digest and size of it."""
        self._size = 0
        self._next = 0

    def known(self, data: bytes) -> int | None:
        """The number of a piece that is still remembered (writing)."""
        return self._by_digest.get(_digest(data))

    def holds(self, number: int) -> bool:
        """Whether a piece is still remembered."""
        return number in self._by_number

    def piece(self, number: int) -> bytes:
        """The piece of a number; KeyError if there is none (reading)."""
        return self._by_number[number]

    def add(self, data: bytes, keep: bool) -> None:
        """Counts a piece.  ``keep``: its bytes are needed (reading)."""
        if keep:
            self._by_number[self._next] = data
        else:
            digest = _digest(data)
            self._by_digest[digest] = self._next
            self._by_number[self._next] = len(data).to_bytes(8, "little") + digest
        self._next += 1
        self._size += len(data) + OVERHEAD
        while self._size > REMEMBERED or (not keep and len(self._by_number) > KNOWN):
            number, old = self._by_number.popitem(last=False)
            if keep:
                self._size -= len(old) + OVERHEAD
                continue
            self._size -= int.from_bytes(old[:8], "little") + OVERHEAD
            if self._by_digest.get(old[8:]) == number:
                del self._by_digest[old[8:]]


def _digest(data: bytes) -> bytes:
    return short_of(data)


def pack(data: bytes, pieces: Pieces) -> Any:
    """Bytes as JSON: base64, {"z": ...} compressed, or the number of an earlier piece."""
    if len(data) >= NUMBERED:
        number = pieces.known(data)
        if number is not None:
            return number
        pieces.add(data, keep=False)
    return pack_apart(data)


def pack_apart(data: bytes) -> Any:
    """Bytes of which nothing later makes use, as JSON: they have no number."""
    if len(data) >= COMPRESSED:
        small = zlib.compress(data, 6)
        if len(small) < len(data) * 9 // 10:
            return {"z": base64.b64encode(small).decode("ascii")}
    return base64.b64encode(data).decode("ascii")


def unpack(value: object, pieces: Pieces) -> bytes:
    """The bytes again; ValueError if that is not what they are."""
    if isinstance(value, int):
        try:
            return pieces.piece(value)
        except KeyError:
            raise ValueError(f"piece {value} of raw has not been seen") from None
    try:
        if isinstance(value, dict):
            packed = base64.b64decode(value["z"], validate=True)
            engine = zlib.decompressobj()
            data = engine.decompress(packed, PIECE_LIMIT)
            if engine.unconsumed_tail:
                raise ValueError(f"a piece of raw unpacks to more than {PIECE_LIMIT} bytes")
        elif isinstance(value, str):
            data = binascii.a2b_base64(value, strict_mode=True)
        else:
            raise ValueError("bytes of raw are neither text, number nor object")
    except (binascii.Error, zlib.error, KeyError, TypeError) as error:
        raise ValueError(f"bytes of raw cannot be unpacked: {error}") from None
    if len(data) >= NUMBERED:
        pieces.add(data, keep=True)
    return data


def dumps_packed(data: bytes, pieces: Pieces) -> str:
    """What :func:`dumps` makes of packed bytes."""
    if len(data) < NUMBERED:
        return f'"{binascii.b2a_base64(data, newline=False).decode("ascii")}"'
    packed = pack(data, pieces)
    return f'"{packed}"' if isinstance(packed, str) else dumps(packed)
