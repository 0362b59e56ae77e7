"""The bpf(2) commands of which loops consist, and what may differ between rounds."""

from __future__ import annotations

from decoders import arch as arches
from decoders.raw import FdFact
from decoders.uapi import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


COMMANDS: Final = frozenset(
    {
        const.BPF_MAP_LOOKUP_ELEM,
        const.BPF_MAP_UPDATE_ELEM,
        const.BPF_MAP_DELETE_ELEM,
        const.BPF_MAP_GET_NEXT_KEY,
        const.BPF_MAP_LOOKUP_AND_DELETE_ELEM,
    }
)
"""Commands of which loops consist, and which change nothing that the model knows."""
TRIED_AGAIN: Final = frozenset(
    {const.BPF_MAP_CREATE, const.BPF_PROG_LOAD, const.BPF_BTF_LOAD}
)
"""Commands that loaders try again when they were refused, or to see whether they are."""
NUMBERS: Final = frozenset(
    (arch, number) for arch in arches.NAMES if (number := arches.number(arch, "bpf")) is not None
)
GROWING: Final = frozenset({"memlock"})
"""What fdinfo says of a map that changes with each element; nothing is decoded by it."""


def alike(one: FdFact, other: FdFact) -> bool:
    """Whether two looks at a map differ in nothing that decoding asks for."""
    if one is other or one.info == other.info:
        return True
    names = one.info.keys() | other.info.keys()
    return all(one.info.get(name) == other.info.get(name) for name in names - GROWING)
