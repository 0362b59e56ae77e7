"""Where a name is mentioned in BTF's bytes: 3 milliseconds, where an index takes a hundred."""

from __future__ import annotations

import re
from typing import Final, Literal

from decoders.formats.btf_records import WORD

PLACES: Final = 16
"""Places where a name may stand among the strings; ``list`` ends hundreds of them."""
SEARCHES: Final = 32
"""Names that are searched for before it takes an index of them, which takes as long."""
LOOKED_AT: Final = 4096
"""Words that may hold the offset of such a place."""


def is_whole(name: str) -> bool:
    """Whether a name as `Btf.string` has it is what stands there, byte for byte."""
    return name.isascii() and "\\" not in name and not name.startswith("(")


def words_of(
    name: str, strings: bytes, types: bytes, byteorder: Literal["little", "big"]
) -> list[int] | None:
    """The words of the type section that hold the offset of a name, lowest first; None where
    there are too many to look through.

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
        # A third of the time that bytes.find() takes, with zeros among its four bytes.
        look = re.compile(re.escape(offset.to_bytes(WORD, byteorder))).search
        place = look(types)
        while place:
            looked += 1
            if looked > LOOKED_AT:
                return None
            at = place.start()
            if at % WORD == 0:
                found.append(at // WORD)
            place = look(types, at + 1)
    return sorted(found)


class Search:
    """Searches a BTF's own bytes for the first few names that are asked for, each once."""

    def __init__(self, strings: bytes, types: bytes, byteorder: Literal["little", "big"]) -> None:
        self._strings = strings
        self._types = types
        self._byteorder = byteorder
        self._known: dict[str, list[int] | None] = {}

    def words(self, name: str) -> list[int] | None:
        """As words_of; None also where it takes an index."""
        if name not in self._known:
            if len(self._known) >= SEARCHES or not is_whole(name):
                return None
            self._known[name] = words_of(name, self._strings, self._types, self._byteorder)
        return self._known[name]
