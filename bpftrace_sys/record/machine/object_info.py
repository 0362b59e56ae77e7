"""BPF objects by their ids: what OBJ_GET_INFO_BY_FD and fdinfo tell, as fields by name.

Offsets come from decoders/uapi/layouts.py, which is generated from the kernel's header.
An fd is had for the moment of the question, so nothing is kept alive.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import Final, TypeAlias

from bpftrace_sys.record.machine import bpf
from bpftrace_sys.record.machine.fds import parse_fdinfo
from bpftrace_sys.trace.kernel_fields import Info
from decoders.uapi import const, names
from decoders.uapi.layouts import LAYOUTS, Member

NEXT_ID: Final = {
    "prog": const.BPF_PROG_GET_NEXT_ID,
    "map": const.BPF_MAP_GET_NEXT_ID,
    "btf": const.BPF_BTF_GET_NEXT_ID,
    "link": const.BPF_LINK_GET_NEXT_ID,
}
Room: TypeAlias = "ctypes.Array[ctypes.c_char]"
ROOM: Final = 256
"""Bytes for a bpf_*_info; those that the kernel does not know must be zero, and are."""
MAP_IDS: Final = 64
TEXT_ROOM: Final = 4096
"""PATH_MAX: the longest that a link's path may be."""
COUNT_LIMIT: Final = 1 << 16
"""Addresses or offsets of one link that are asked for."""

FROM_FDINFO: Final = {
    "prog": ("memlock",),
    "map": ("memlock", "frozen", "owner_prog_type"),
    "link": (),
    "btf": (),
}
FIELDS: Final = {
    "prog": (
        "type", "jited_prog_len", "xlated_prog_len", "load_time", "created_by_uid", "ifindex",
        "gpl_compatible", "btf_id", "run_time_ns", "run_cnt", "recursion_misses",
        "verified_insns", "attach_btf_obj_id", "attach_btf_id",
    ),
    "map": (
        "type", "key_size", "value_size", "max_entries", "map_flags", "ifindex",
        "btf_vmlinux_value_type_id", "btf_id", "btf_key_type_id", "btf_value_type_id", "map_extra",
    ),
    "btf": ("btf_size", "kernel_btf"),
    "link": ("type", "prog_id"),
}  # fmt: skip
"""Fields of a bpf_*_info that are kept; of a program and a map their name and id besides."""
KEPT_ZERO: Final = frozenset(
    {"type", "created_by_uid", "xlated_prog_len", "jited_prog_len", "key_size", "value_size",
     "max_entries", "prog_id", "attach_type", "btf_size"}
)  # fmt: skip
"""Zeros that mean something."""

# Of a link's details: the field that points at a text, and the one that says how long it is.
TEXTS: Final = {
    "raw_tracepoint": ("tp_name", "tp_name_len"),
    "iter": ("target_name", "target_name_len"),
    "uprobe_multi": ("path", "path_size"),
    "perf_event.uprobe": ("file_name", "name_len"),
    "perf_event.kprobe": ("func_name", "name_len"),
    "perf_event.tracepoint": ("tp_name", "name_len"),
}
# ... and at an array of u64, all of `count`.
ARRAYS: Final = {"kprobe_multi": "addrs", "uprobe_multi": "offsets", "tracing_multi": "addrs"}
PROBE_KINDS: Final = {
    "UPROBE": "perf_event.uprobe",
    "URETPROBE": "perf_event.uprobe",
    "KPROBE": "perf_event.kprobe",
    "KRETPROBE": "perf_event.kprobe",
    "TRACEPOINT": "perf_event.tracepoint",
    "EVENT": "perf_event.event",
}
POINTERS: Final = frozenset({"addrs", "offsets", "cookies", "ref_ctr_offsets", "ids"})


def ids(kind: str) -> Iterator[int]:
    """The ids of all objects of a kind, ascending; raises OSError (EPERM, EINVAL)."""
    last = 0
    while True:
        attr = ctypes.create_string_buffer(struct.pack("<III", last, 0, 0), 16)
        try:
            bpf.bpf(NEXT_ID[kind], attr)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        last = struct.unpack_from("<I", attr.raw, 4)[0]
        yield last


def _fields(layout: str, data: bytes, prefix: str = "") -> Info:
    """The members of a struct, or of one of the named ones in it; bitfields as numbers."""
    found = Info()
    for member in LAYOUTS[layout]:
        name = member.path
        if prefix:
            if not name.startswith(f"{prefix}."):
                continue
            name = name[len(prefix) + 1 :]
        if "." not in name:
            found[name] = _value(member, data)
    return found


def _value(member: Member, data: bytes) -> int | str:
    part = data[member.offset : member.offset + member.size]
    if member.ctype.startswith("char["):
        return part.partition(b"\0")[0].decode("utf-8", "backslashreplace")
    if member.ctype.startswith("__u8["):
        return part.hex()
    number = int.from_bytes(part, "little", signed=member.ctype.startswith("__s"))
    if member.bit_size is not None:
        return number >> (member.bit_offset or 0) & ((1 << member.bit_size) - 1)
    return number


def _kept(found: Info, wanted: tuple[str, ...]) -> Info:
    return Info(
        (name, found[name])
        for name in wanted
        if name in found and (found[name] or name in KEPT_ZERO)
    )


def info_of(kind: str, fd: int) -> Info:
    """What the kernel tells of an object by an fd of ours; raises OSError.

    ``id`` and, of programs and maps, ``name`` stand among the fields.
    """
    room = ctypes.create_string_buffer(ROOM)
    if kind == "prog":
        found = _prog(fd, room)
    elif kind == "link":
        found = _link(fd, room)
    elif kind == "btf":
        text = ctypes.create_string_buffer(64)
        room = ctypes.create_string_buffer(
            struct.pack("<QIIQI", 0, 0, 0, ctypes.addressof(text), len(text)), 32
        )
        bpf.fill_info(fd, room)
        fields = _fields("bpf_btf_info", room.raw)
        found = Info({"id": fields["id"], **_kept(fields, FIELDS["btf"])})
        found["name"] = text.value.decode("utf-8", "backslashreplace")
    else:
        bpf.fill_info(fd, room)
        fields = _fields(f"bpf_{kind}_info", room.raw)
        found = Info({name: fields[name] for name in ("id", "name")})
        found |= _kept(fields, FIELDS[kind])
    if FROM_FDINFO[kind]:
        found.update(_from_fdinfo(kind, fd))
    return found


def _prog(fd: int, room: Room) -> Info:
    wanted = MAP_IDS
    while True:
        numbers = (ctypes.c_uint32 * wanted)()
        ctypes.memset(room, 0, ROOM)
        struct.pack_into("<IQ", room, 52, wanted, ctypes.addressof(numbers))
        bpf.fill_info(fd, room)
        fields = _fields("bpf_prog_info", room.raw)
        count = fields.number("nr_map_ids")
        if count <= wanted:
            break
        wanted = count
    found = Info({name: fields[name] for name in ("id", "name", "tag")})
    found |= _kept(fields, FIELDS["prog"])
    if count:
        found["map_ids"] = list(numbers[:count])
    return found


def _link(fd: int, room: Room) -> Info:
    bpf.fill_info(fd, room)
    fields = _fields("bpf_link_info", room.raw)
    found = Info({name: fields[name] for name in ("id", "type", "prog_id")})
    kind = link_way(fields.number("type"))
    part = kind
    if kind == "perf_event":
        number = _fields("bpf_link_info", room.raw, kind).number("type")
        name = names.bpf_perf_event_type.get(number, "").removeprefix("BPF_PERF_EVENT_")
        part = PROBE_KINDS.get(name, "")
        if part:  # before Linux 6.6 nothing is told
            found["fd_type"] = name.lower()
    if not part:
        return found
    details = _fields("bpf_link_info", room.raw, part)
    details.update(_pointed(fd, room, part, details))
    if kind == "iter":
        inner, over = _iterated(str(details["target_name"]))
        details.update(_kept(_fields("bpf_link_info", room.raw, f"iter.{inner}"), over))
    found.update(_as_probe(part, details) if kind == "perf_event" else details)
    return Info((name, value) for name, value in found.items() if value or name in KEPT_ZERO)


def _iterated(target: str) -> tuple[str, tuple[str, ...]]:
    """Which member of the union says over what an iterator goes, and its fields."""
    if target == "cgroup":
        return target, ("cgroup_id", "order")
    if target.startswith("task"):
        return "task", ("tid", "pid")
    return "map", ("map_id",)


def _at(part: str, name: str) -> int:
    return next(
        member.offset for member in LAYOUTS["bpf_link_info"] if member.path == f"{part}.{name}"
    )


def _pointed(fd: int, room: Room, part: str, details: Info) -> Info:
    """The texts and arrays of a link: asked for a second time, now with room for them."""
    text, numbers = TEXTS.get(part), ARRAYS.get(part)
    count = min(details.number("count"), COUNT_LIMIT)
    found = Info((name, 0) for name in details if name in POINTERS)
    if text is None and not (numbers and count):
        return found
    again = ctypes.create_string_buffer(ROOM)
    letters = ctypes.create_string_buffer(TEXT_ROOM)
    addresses = (ctypes.c_uint64 * max(1, count))()
    if text is not None:
        struct.pack_into("<Q", again, _at(part, text[0]), ctypes.addressof(letters))
        struct.pack_into("<I", again, _at(part, text[1]), TEXT_ROOM)
        found[text[0]] = ""
        found[text[1]] = 0
    if numbers and count:
        struct.pack_into("<Q", again, _at(part, numbers), ctypes.addressof(addresses))
        struct.pack_into("<I", again, _at(part, "count"), count)
    try:
        bpf.fill_info(fd, again)
    except OSError as error:
        if error.errno != errno.ENOSPC:  # what fits was written
            return found
    if text is not None:
        found[text[0]] = letters.value.decode("utf-8", "backslashreplace")
    if numbers and count:
        found[numbers] = list(addresses[:count])
    return found


def _as_probe(part: str, details: Info) -> Info:
    """A perf event's probe in the words of BPF_TASK_FD_QUERY, which tells of those without link."""
    if part == "perf_event.event":
        return Info({"event_type": details["type"], "config": details["config"]})
    name = TEXTS[part][0]
    return Info(
        {
            "probe": details[name],
            "probe_offset": details.number("offset"),
            "probe_addr": details.number("addr"),
        }
    )


def _from_fdinfo(kind: str, fd: int) -> Info:
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8", errors="replace") as file:
            told = parse_fdinfo(file.read(1 << 16))
    except OSError:
        return Info()
    return Info((name, told[name]) for name in FROM_FDINFO[kind] if told.get(name))


def info_by_id(kind: str, number: int) -> Info:
    """What the kernel tells of an object; raises OSError (ENOENT: gone; EPERM)."""
    fd = bpf.fd_by_id(kind, number)
    try:
        return info_of(kind, fd)
    finally:
        os.close(fd)


def link_way(number: int) -> str:
    """A link's type as the way of a Place."""
    return names.bpf_link_type.get(number, str(number)).removeprefix("BPF_LINK_TYPE_").lower()
