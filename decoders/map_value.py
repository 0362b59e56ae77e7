"""Values of maps that hold objects: in as fds, out as ids.

From the map types' map_fd_get_ptr and map_fd_sys_lookup_elem
(kernel/bpf/arraymap.c, map_in_map.c, devmap.c, cpumap.c, net/core/sock_map.c).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from decoders.declare import Blob, Scope
from decoders.uapi import const
from decoders.values import Bytes, Fd, Int, Struct, Value

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
ID_NAMES: Final = {
    const.BPF_MAP_TYPE_PROG_ARRAY: "prog_id",
    const.BPF_MAP_TYPE_ARRAY_OF_MAPS: "map_id",
    const.BPF_MAP_TYPE_HASH_OF_MAPS: "map_id",
}
"""What a lookup in these gives back instead of the fd."""
PROG_AFTER: Final = {
    const.BPF_MAP_TYPE_DEVMAP: "ifindex",
    const.BPF_MAP_TYPE_DEVMAP_HASH: "ifindex",
    const.BPF_MAP_TYPE_CPUMAP: "qsize",
}
"""struct bpf_devmap_val and bpf_cpumap_val: a number, then perhaps a program."""


def _map_type(scope: Scope) -> int | None:
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


class ValueIn(Blob):
    """A value that user space passes."""

    def fds(self, data: bytes, scope: Scope) -> Iterable[int]:
        kind = _map_type(scope)
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

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        typed: Value | None = None
        if _map_type(scope) == const.BPF_MAP_TYPE_STRUCT_OPS:
            members = [
                (f"{name}.fd", Fd(fd, scope.env.fd(fd))) for _, name, fd in operations(data, scope)
            ]
            return Bytes(data, wanted, Struct(tuple(members)) if members else None)
        found = list(self.fds(data, scope))
        if found:
            typed = Fd(found[0], scope.env.fd(found[0]))
            kind = _map_type(scope)
            if kind in PROG_AFTER:
                first = Int(int.from_bytes(data[:4], "little"))
                typed = Struct(((PROG_AFTER[kind], first), ("bpf_prog.fd", typed)))
        return Bytes(data, wanted, typed)


class ValueOut(Blob):
    """A value that the kernel gives."""

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        name = ID_NAMES.get(_map_type(scope) or 0)
        if name is None or len(data) < 4:
            return Bytes(data, wanted)
        number = Int(int.from_bytes(data[:4], "little"))
        return Bytes(data, wanted, Struct(((name, number),)))
