"""Where a name is mentioned in BTF's bytes: some milliseconds, where an index takes a hundred."""

from __future__ import annotations

from typing import Final, Literal

from decoders.formats.btf_records import WORD

PLACES: Final = 16
"""Places where a name may stand among the strings; ``list`` ends hundreds of them."""
LOOKED_AT: Final = 4096
"""Words that may hold the offset of such a place."""


def is_whole(name: str) -> bool:
    """Whether a name as `Btf.string` has it is what stands there, byte for byte."""
    return name.isascii() and "\\" not in name and not name.startswith("(")


def words_of(
    name: str, strings: bytes, types: bytes, byteorder: Literal["little", "big"]
) -> list[int] | None:
    """The words of the type section that hold the offset of a name; None where there are too
    many to look through.

    A name may be the end of a longer string, and the last string may have no NUL.
    """
    wanted = name.encode() + b"\0"
    offsets = []
    at = strings.find(wanted)
    while at >= 0:
        offsets.append(at)
        if len(offsets) > PLACES:
            return None
        at = strings.find(wanted, at + 1)
    if strings.endswith(wanted[:-1]):
        offsets.append(len(strings) - len(name))
    found = []
    looked = 0
    for offset in offsets:
        word = offset.to_bytes(WORD, byteorder)
        at = types.find(word)
        while at >= 0:
            looked += 1
            if looked > LOOKED_AT:
                return None
            if at % WORD == 0:
                found.append(at // WORD)
            at = types.find(word, at + 1)
    return found
