"""Values of maps that hold objects: in as fds, out as ids.

From the map types' map_fd_get_ptr and map_fd_sys_lookup_elem
(kernel/bpf/arraymap.c, map_in_map.c, devmap.c, cpumap.c, net/core/sock_map.c).
"""

from __future__ import annotations

from typing import Final

from decoders.declare.structs import Blob
from decoders.uapi import const
from decoders.values import Bytes, Fd, Int, Struct, Value
from decoders.walk import map_fds
from decoders.walk.map_fds import PROG_AFTER, map_type, operations
from decoders.walk.scope import Scope

ID_NAMES: Final = {
    const.BPF_MAP_TYPE_PROG_ARRAY: "prog_id",
    const.BPF_MAP_TYPE_ARRAY_OF_MAPS: "map_id",
    const.BPF_MAP_TYPE_HASH_OF_MAPS: "map_id",
}
"""What a lookup in these gives back instead of the fd."""


class ValueIn(map_fds.ValueIn, Blob):
    """A value that user space passes."""

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        typed: Value | None = None
        if map_type(scope) == const.BPF_MAP_TYPE_STRUCT_OPS:
            members = [
                (f"{name}.fd", Fd(fd, scope.env.fd(fd))) for _, name, fd in operations(data, scope)
            ]
            return Bytes(data, wanted, Struct(tuple(members)) if members else None)
        found = list(self.fds(data, scope))
        if found:
            typed = Fd(found[0], scope.env.fd(found[0]))
            kind = map_type(scope)
            if kind in PROG_AFTER:
                first = Int(int.from_bytes(data[:4], "little"))
                typed = Struct(((PROG_AFTER[kind], first), ("bpf_prog.fd", typed)))
        return Bytes(data, wanted, typed)


class ValueOut(Blob):
    """A value that the kernel gives."""

    def value(self, data: bytes, wanted: int, scope: Scope) -> Value:
        name = ID_NAMES.get(map_type(scope) or 0)
        if name is None or len(data) < 4:
            return Bytes(data, wanted)
        number = Int(int.from_bytes(data[:4], "little"))
        return Bytes(data, wanted, Struct(((name, number),)))
