"""Programs that maps hold: tail calls, XDP in devmaps and cpumaps, struct_ops, verdicts."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator
from typing import Final

from bpftrace_sys.record.machine import bpf
from bpftrace_sys.record.machine.prog_query import Query
from bpftrace_sys.trace.inventory import Place
from bpftrace_sys.trace.kernel_fields import Info
from decoders.formats.btf import Btf
from decoders.formats.btf_types import Kind
from decoders.uapi import const

ENTRIES: Final = 4096
"""Of one map, that are looked at."""
VALUE_LIMIT: Final = 1 << 16
SOCKMAP_HOOKS: Final = (
    const.BPF_SK_SKB_STREAM_PARSER,
    const.BPF_SK_SKB_STREAM_VERDICT,
    const.BPF_SK_SKB_VERDICT,
    const.BPF_SK_MSG_VERDICT,
)
_ELEMENT: Final = struct.Struct("<IIQQQ")
"""union bpf_attr's elements: map_fd, pad, key, value, flags."""
INUSE: Final = 1
"""BPF_STRUCT_OPS_STATE_INUSE, the second of a struct_ops map's value (refcnt, state)."""

Members = Callable[[int], str | None]
"""Of a struct_ops map: where its functions stand, as the fact ``ops_members`` has it."""


def functions_of(vmlinux: Btf, value_type: int) -> str | None:
    """The functions of a struct_ops map's value, by its type in vmlinux: ``data.init:256 ...``."""
    outer = vmlinux.type(value_type)
    words = []
    for holder in outer.members if outer is not None else ():
        inner = vmlinux.resolve(holder.type)
        if holder.name != "data" or inner is None:
            continue
        for member in inner.members:
            pointer = vmlinux.resolve(member.type)
            if pointer is None or pointer.kind != Kind.PTR:
                continue
            pointed = vmlinux.resolve(pointer.type)
            if pointed is not None and pointed.kind == Kind.FUNC_PROTO:
                offset = (holder.bit_offset + member.bit_offset) // 8
                words.append(f"data.{member.name}:{offset}")
    return " ".join(words) or None


def programs_in(
    kind: int, map_id: int, entries: int, value_size: int, members: Members
) -> Iterator[tuple[int, Place]]:
    """(program's id, where) of each program that a map holds; raises OSError.

    A struct_ops map that is registered without a link yields itself: 0 and the place.
    """
    look = {
        const.BPF_MAP_TYPE_PROG_ARRAY: lambda fd: _slots(fd, map_id, entries, "prog_array", 4),
        const.BPF_MAP_TYPE_CPUMAP: lambda fd: _slots(fd, map_id, entries, "cpumap", value_size),
        const.BPF_MAP_TYPE_DEVMAP: lambda fd: _slots(fd, map_id, entries, "devmap", value_size),
        const.BPF_MAP_TYPE_DEVMAP_HASH: lambda fd: _devices(fd, map_id, entries, value_size),
        const.BPF_MAP_TYPE_STRUCT_OPS: lambda fd: _struct_ops(fd, map_id, value_size, members),
        const.BPF_MAP_TYPE_SOCKMAP: lambda fd: _verdicts(fd, map_id),
        const.BPF_MAP_TYPE_SOCKHASH: lambda fd: _verdicts(fd, map_id),
    }.get(kind)
    if look is None:
        return
    fd = bpf.fd_by_id("map", map_id)
    try:
        yield from look(fd)
    finally:
        os.close(fd)


def _lookup(fd: int, key: int, size: int) -> bytes | None:
    """The value of a key of four bytes; None where there is none; raises OSError."""
    name, value = ctypes.c_uint32(key), ctypes.create_string_buffer(size)
    attr = ctypes.create_string_buffer(
        _ELEMENT.pack(fd, 0, ctypes.addressof(name), ctypes.addressof(value), 0), _ELEMENT.size
    )
    try:
        bpf.bpf(const.BPF_MAP_LOOKUP_ELEM, attr)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return value.raw


def _slots(fd: int, map_id: int, entries: int, way: str, size: int) -> Iterator[tuple[int, Place]]:
    """An array whose values are a program's id, or a number and then that (bpf_devmap_val)."""
    for index in range(min(entries, ENTRIES) if size in (4, 8) else 0):
        yield from _slot(fd, map_id, index, way, size)


def _slot(fd: int, map_id: int, key: int, way: str, size: int) -> Iterator[tuple[int, Place]]:
    value = _lookup(fd, key, size)
    # A short value of a devmap or cpumap has no room for a program (before Linux 5.8, 5.9).
    if value is not None and (size == 8 or way == "prog_array"):
        prog = int.from_bytes(value[-4:], "little")
        if prog:
            yield prog, Place(way, Info({"map_id": map_id, "index": key}))


def _devices(fd: int, map_id: int, entries: int, size: int) -> Iterator[tuple[int, Place]]:
    """A devmap by keys of any number."""
    key, following = ctypes.c_uint32(), ctypes.c_uint32()
    start = 0  # no key: from the beginning
    for _ in range(min(entries, ENTRIES) if size == 8 else 0):
        attr = ctypes.create_string_buffer(
            _ELEMENT.pack(fd, 0, start, ctypes.addressof(following), 0), _ELEMENT.size
        )
        try:
            bpf.bpf(const.BPF_MAP_GET_NEXT_KEY, attr)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        key.value, start = following.value, ctypes.addressof(key)
        yield from _slot(fd, map_id, key.value, "devmap", size)


def _struct_ops(
    fd: int, map_id: int, size: int, members: Members
) -> Iterator[tuple[int, Place]]:
    value = _lookup(fd, 0, min(size, VALUE_LIMIT))
    if value is None or len(value) < 8:
        return
    if int.from_bytes(value[4:8], "little") == INUSE:
        yield 0, Place("struct_ops", Info({"map_id": map_id}))
    for word in (members(map_id) or "").split():
        name, _, offset = word.partition(":")
        at = int(offset) if offset.isdigit() else len(value)
        prog = int.from_bytes(value[at : at + 8], "little") if at + 8 <= len(value) else 0
        if 0 < prog < 1 << 32:
            yield prog, Place("struct_ops", Info({"map_id": map_id, "member": name}))


def _verdicts(fd: int, map_id: int) -> Iterator[tuple[int, Place]]:
    query = Query()
    for hook in SOCKMAP_HOOKS:
        try:
            answer = query(fd, hook)
        except OSError as error:
            # EINVAL, EOPNOTSUPP: before Linux 5.17, or no such hook; EBUSY: a link's, which tells.
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.EBUSY):
                continue
            raise
        for prog in answer.prog_ids:
            yield prog, Place("sockmap", Info({"map_id": map_id, "attach_type": hook}))
