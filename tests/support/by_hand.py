"""Calls put together by hand."""

from __future__ import annotations

import struct
from typing import Any

from decoders import arch as arches
from decoders.decode import Call, decode
from decoders.raw import AUDIT_ARCH_X86_64
from decoders.uapi import const
from decoders.uapi.layouts import LAYOUTS, SIZES
from decoders.values import (
    NULL,
    Absent,
    Array,
    Bytes,
    Changed,
    Fd,
    Flags,
    Int,
    Name,
    Pointer,
    Struct,
    Text,
    Value,
)
from tests.support.made_up import Facts, Memory, record


class Room:
    """Memory of the tracee, filled piece by piece."""

    def __init__(self) -> None:
        self.regions: dict[int, bytes] = {}
        self._next = 0x7F0000000000

    def put(self, data: bytes) -> int:
        """The address of a copy of these bytes; nothing that is mapped follows."""
        addr = self._next
        self._next += (len(data) + 0x1FFF) & ~0xFFF
        self.regions[addr] = data
        return addr

    def memory(self) -> Memory:
        """As it is now."""
        return Memory(dict(self.regions))


def built(layout: str, room: Room | None = None, **fields: Any) -> bytes:
    """A struct from its fields (``link_create__flags``); bytes are put behind pointers."""
    members = {member.path.replace(".", "__"): member for member in LAYOUTS[layout]}
    data = bytearray(SIZES[layout])
    for name, value in fields.items():
        member = members[name]
        if member.bit_size is not None:
            shift = member.bit_offset or 0
            old = int.from_bytes(data[member.offset : member.offset + member.size], "little")
            value = old | value << shift
        if isinstance(value, bytes) and not member.ctype.startswith("char["):
            assert room is not None
            value = room.put(value)
        if isinstance(value, int):
            value = (value & (1 << 8 * member.size) - 1).to_bytes(member.size, "little")
        data[member.offset : member.offset + len(value)] = value
    return bytes(data)


def bpf(
    cmd: str,
    *,
    ret: int | None = 0,
    room: Room | None = None,
    after: dict[str, Any] | None = None,
    size: int | None = None,
    arch: int = AUDIT_ARCH_X86_64,
    extra: tuple[int, int] = (0, 0),
    flags: int = 0,
    **fields: Any,
) -> Call:
    """A decoded bpf(); ``after``: the fields that the kernel changed in the attr."""
    room = room or Room()
    attr = built("bpf_attr", room, **fields)
    number = getattr(const, f"BPF_{cmd}") | flags
    addr = room.put(attr)
    before = room.memory()
    changed = dict(fields)
    changed.update(after or {})
    raws = {
        name: value
        for name, value in changed.items()
        if not isinstance(value, bytes) or name.endswith("name")
    }
    fresh = bytearray(attr)
    for member in LAYOUTS["bpf_attr"]:
        name = member.path.replace(".", "__")
        if name in (after or {}):
            fresh[member.offset : member.offset + member.size] = (
                raws[name] & (1 << 8 * member.size) - 1
            ).to_bytes(member.size, "little")
    room.regions[addr] = bytes(fresh)
    args = (number, addr, size or len(attr), *extra, 0)
    nr = arches.number(arch, "bpf")
    raw = record(arch, nr, args, before, None if ret is None else room.memory(), ret or 0)
    call = decode(raw, Facts())
    assert call.problem is None
    return call


def plain(value: Value | None) -> Any:
    """A value as Python's own: struct as dict, array as list, names as str."""
    if isinstance(value, Pointer):
        return plain(value.value)
    if isinstance(value, Changed):
        return plain(value.after)
    if isinstance(value, Struct):
        return {name: plain(member) for name, member in value.fields}
    if isinstance(value, Array):
        return [plain(item) for item in value.items]
    if isinstance(value, Name):
        return value.name if value.name is not None else value.value
    if isinstance(value, Flags):
        return [*value.names, *([value.rest] if value.rest else [])]
    if isinstance(value, Int | Fd):
        return value.value
    if isinstance(value, Text | Bytes):
        return value.data
    if isinstance(value, Absent):
        return None if value.reason == NULL else value.reason
    return value


def u32s(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def u64s(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)
