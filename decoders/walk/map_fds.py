"""Fds in the values of maps that hold objects.

From the map types' map_fd_get_ptr (kernel/bpf/arraymap.c, map_in_map.c, devmap.c,
cpumap.c, net/core/sock_map.c).
"""

from __future__ import annotations

import struct

from decoders.uapi import const
from decoders.walk import layouts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

    from decoders.walk.scope import Scope

FD_MAPS: Final = frozenset(
    {
        const.BPF_MAP_TYPE_PROG_ARRAY,
        const.BPF_MAP_TYPE_PERF_EVENT_ARRAY,
        const.BPF_MAP_TYPE_CGROUP_ARRAY,
        const.BPF_MAP_TYPE_ARRAY_OF_MAPS,
        const.BPF_MAP_TYPE_HASH_OF_MAPS,
        const.BPF_MAP_TYPE_SOCKMAP,
        const.BPF_MAP_TYPE_SOCKHASH,
        const.BPF_MAP_TYPE_REUSEPORT_SOCKARRAY,
        const.BPF_MAP_TYPE_XSKMAP,
    }
)
"""Their value is an fd (of 4 bytes, or 8 in some socket maps)."""
_WORD: Final = struct.Struct("<Q")
PROG_AFTER: Final = {
    const.BPF_MAP_TYPE_DEVMAP: "ifindex",
    const.BPF_MAP_TYPE_DEVMAP_HASH: "ifindex",
    const.BPF_MAP_TYPE_CPUMAP: "qsize",
}
"""struct bpf_devmap_val and bpf_cpumap_val: a number, then perhaps a program."""

MEANT: Final = FD_MAPS | PROG_AFTER.keys() | {const.BPF_MAP_TYPE_STRUCT_OPS}
"""All maps whose values are not just bytes: what they are depends on what they hold."""


def map_type(scope: Scope) -> int | None:
    fact = scope.env.fd(scope["map_fd"])
    found = None if fact is None else fact.info.get("map_type")
    return found if isinstance(found, int) else None


def is_small(word: int) -> bool:
    """Whether a word may be an fd: nobody has as many as there are pointers."""
    return 0 < word < 1 << 16


def operations(data: bytes, scope: Scope) -> list[tuple[int, str, int]]:
    """(offset, name, fd) of the functions in a struct_ops value.

    Which members are functions, the kernel's BTF knows, by the map's id.
    """
    fact = scope.env.fd(scope["map_fd"])
    known = None if fact is None or fact.id is None else scope.env.fact("ops_members", fact.id)
    found = []
    for word in (known or "").split():
        name, _, offset = word.rpartition(":")
        if name and offset.isascii() and offset.isdigit():
            at = int(offset)
            fd = int.from_bytes(data[at : at + 8], "little")
            if at + 8 <= len(data) and is_small(fd):
                found.append((at, name, fd))
    return found


class ValueIn(layouts.Blob):
    """A value that user space passes."""

    def fds(self, data: bytes, scope: Scope) -> Iterable[int]:
        kind = map_type(scope)
        if kind in FD_MAPS and len(data) >= 4:
            return (int.from_bytes(data[:4], "little", signed=True),)
        if kind in PROG_AFTER and len(data) >= 8:
            fd = int.from_bytes(data[4:8], "little", signed=True)
            return (fd,) if fd > 0 else ()
        if kind == const.BPF_MAP_TYPE_STRUCT_OPS:
            # Asked now, for the map may be gone when its value is decoded.
            operations(data, scope)
            return {word for (word,) in _WORD.iter_unpack(data[: len(data) & ~7]) if is_small(word)}
        return ()
