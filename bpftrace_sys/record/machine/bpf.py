"""Asks the kernel about BPF objects by id, as bpftool does.

Used for objects that the trace did not see being made.  The fd that this needs
is closed at once, so no object is kept alive.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Any, Final

from bpftrace_sys.record.proc import process_of
from decoders import arch
from decoders.formats.prog_info import ROOM, ROWS, ProgInfo
from decoders.uapi import const

_GET_FD: Final = {
    "prog": const.BPF_PROG_GET_FD_BY_ID,
    "map": const.BPF_MAP_GET_FD_BY_ID,
    "btf": const.BPF_BTF_GET_FD_BY_ID,
    "link": const.BPF_LINK_GET_FD_BY_ID,
}
MAP_NAME_AT: Final = 24
"""Offset of ``name`` in bpf_map_info; tests hold it against decoders.uapi.layouts."""
LOAD_TIME_AT: Final = 40
"""Offset of ``load_time`` in bpf_prog_info."""
MAP_VALUE_TYPE_AT: Final = 44
"""Offset of ``btf_vmlinux_value_type_id`` in bpf_map_info."""
NAME_LEN: Final = 15
"""What the kernel keeps of a name (BPF_OBJ_NAME_LEN, less the NUL)."""
BTF_LIMIT: Final = 16 << 20
FD_TYPES: Final = ("raw_tracepoint", "tracepoint", "kprobe", "kretprobe", "uprobe", "uretprobe")
"""enum bpf_task_fd_type."""

_libc = ctypes.CDLL(None, use_errno=True)


def bpf(cmd: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    """bpf(2); raises OSError."""
    number = arch.number(arch.of_machine()[0], "bpf")
    result: int = _libc.syscall(number, cmd, attr, len(attr))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def fd_by_id(kind: str, object_id: int) -> int:
    """An fd of an object, to be closed soon; raises OSError."""
    request = ctypes.create_string_buffer(struct.pack("<III", object_id, 0, 0), 16)
    return bpf(_GET_FD[kind], request)


def fill_info(fd: int, room: Any) -> None:
    """BPF_OBJ_GET_INFO_BY_FD into ``room``; raises OSError."""
    attr = ctypes.create_string_buffer(
        struct.pack("<IIQ", fd, len(room), ctypes.addressof(room)), 16
    )
    bpf(const.BPF_OBJ_GET_INFO_BY_FD, attr)


def info(kind: str, object_id: int) -> bytes | None:
    """The bpf_*_info of an object by its id; None where it is gone or we may not ask."""
    try:
        fd = fd_by_id(kind, object_id)
    except OSError:
        return None
    try:
        room = ctypes.create_string_buffer(ROOM)
        fill_info(fd, room)
        return room.raw
    except OSError:
        return None
    finally:
        os.close(fd)


def load_time(prog_id: int) -> int | None:
    """When a program was loaded, in nanoseconds since the machine booted; None where it is gone."""
    data = info("prog", prog_id)
    return int.from_bytes(data[LOAD_TIME_AT : LOAD_TIME_AT + 8], "little") if data else None


def attach_btf_id(prog_id: int) -> int | None:
    """The id in vmlinux BTF of what a program is attached to; None where it is unknown."""
    data = info("prog", prog_id)
    return (ProgInfo(data, {}).attach_btf_id or None) if data else None


def vmlinux_value_type(map_id: int) -> int | None:
    """The id in vmlinux BTF of the type of a struct_ops map's value; None where it has none."""
    data = info("map", map_id)
    found = int.from_bytes(data[MAP_VALUE_TYPE_AT : MAP_VALUE_TYPE_AT + 4], "little") if data else 0
    return found or None


def short_name(kind: str, object_id: int) -> str | None:
    """A program's or map's name as the kernel keeps it: of at most 15 bytes; or None."""
    data = info(kind, object_id)
    return None if data is None else _name(kind, data)


def _name(kind: str, data: bytes) -> str:
    if kind == "prog":
        return ProgInfo(data, {}).name
    name = data[MAP_NAME_AT : MAP_NAME_AT + NAME_LEN + 1].partition(b"\0")[0]
    return name.decode("utf-8", "backslashreplace")


def name(kind: str, object_id: int) -> str | None:
    """An object's name (of a link: its type's), or None.

    A program's name that the kernel cut is whole, where its BTF has it.
    """
    if kind == "btf":
        return btf_name(object_id)
    data = info(kind, object_id)
    if data is None:
        return None
    if kind == "link":
        from decoders.uapi import names

        number = int.from_bytes(data[:4], "little")
        return names.bpf_link_type.get(number, str(number)).removeprefix("BPF_LINK_TYPE_").lower()
    if kind not in ("prog", "map"):
        return None
    text = _name(kind, data)
    if kind == "prog" and len(text) >= NAME_LEN:
        text = function_name(object_id) or text
    return text or None


def function_name(prog_id: int) -> str | None:
    """The name of a program's main function in its BTF, or None."""
    try:
        fd = fd_by_id("prog", prog_id)
    except OSError:
        return None
    try:
        found = main_function(fd)
    finally:
        os.close(fd)
    blob = btf_data(found[0]) if found else None
    if blob is None or found is None:
        return None
    from decoders.formats import btf

    try:
        return btf.parse(blob).name(found[1]) or None
    except btf.BtfError:
        return None


def main_function(fd: int) -> tuple[int, int] | None:
    """The BTF of a program and the type id of its main function there; None where it has none."""
    room = ctypes.create_string_buffer(ROOM)
    try:
        fill_info(fd, room)
        row = ROWS["func_info"]
        btf_id = ProgInfo(room.raw, {}).btf_id
        (step,) = struct.unpack_from("<I", room.raw, row.rec_size_at)
        (count,) = struct.unpack_from("<I", room.raw, row.count_at)
        if not btf_id or not count or not 8 <= step <= 256:
            return None
        records = ctypes.create_string_buffer(step)
        room = ctypes.create_string_buffer(ROOM)
        struct.pack_into("<I", room, row.rec_size_at, step)
        struct.pack_into("<Q", room, row.pointer_at, ctypes.addressof(records))
        struct.pack_into("<I", room, row.count_at, 1)
        fill_info(fd, room)
    except OSError:
        return None
    return btf_id, int.from_bytes(records.raw[4:8], "little")


def type_name(prog_id: int, type_id: int) -> str | None:
    """The name of a type in a program's BTF, or None."""
    data = info("prog", prog_id)
    blob = btf_data(ProgInfo(data, {}).btf_id) if data else None
    if blob is None:
        return None
    from decoders.formats import btf

    try:
        return btf.parse(blob).name(type_id) or None
    except btf.BtfError:
        return None


def btf_data(btf_id: int) -> bytes | None:
    """The bytes of BTF by its id, or None."""
    data = info("btf", btf_id)
    if data is None:
        return None
    size = int.from_bytes(data[8:12], "little")
    if not 0 < size <= BTF_LIMIT:
        return None
    blob = ctypes.create_string_buffer(size)
    room = ctypes.create_string_buffer(struct.pack("<QI", ctypes.addressof(blob), size), 32)
    try:
        fd = fd_by_id("btf", btf_id)
        try:
            fill_info(fd, room)
        finally:
            os.close(fd)
    except OSError:
        return None
    return blob.raw


def btf_name(btf_id: int) -> str | None:
    """What BTF is called: ``vmlinux`` or a module; programs' own BTF has no name."""
    text = ctypes.create_string_buffer(64)
    # struct bpf_btf_info: btf, btf_size, id, name, name_len, kernel_btf.
    room = ctypes.create_string_buffer(
        struct.pack("<QIIQI", 0, 0, 0, ctypes.addressof(text), len(text)), 32
    )
    try:
        fd = fd_by_id("btf", btf_id)
        try:
            fill_info(fd, room)
        finally:
            os.close(fd)
    except OSError:
        return None
    return text.value.decode("utf-8", "backslashreplace") or None


def task_fd_query(tid: int, fd: int) -> dict[str, int | str]:
    """What the kernel tells of a task's perf event or raw tracepoint; empty if nothing.

    ``fd_type`` is one of FD_TYPES, ``probe`` its function, path or tracepoint.
    """
    try:
        return query_task_fd(tid, fd)
    except (OSError, ValueError):
        return {}


def query_task_fd(tid: int, fd: int) -> dict[str, int | str]:
    """As :func:`task_fd_query`; raises OSError, and ValueError where the task is gone."""
    text = ctypes.create_string_buffer(256)
    pid = process_of(tid)
    attr = ctypes.create_string_buffer(
        struct.pack("<4IQ2I2Q", pid, fd, 0, len(text), ctypes.addressof(text), 0, 0, 0, 0), 48
    )
    bpf(const.BPF_TASK_FD_QUERY, attr)
    _, _, _, _, _, prog_id, fd_type, offset, addr = struct.unpack("<4IQ2I2Q", attr.raw)
    found: dict[str, int | str] = {"attached_prog": prog_id}
    if fd_type < len(FD_TYPES):
        found["fd_type"] = FD_TYPES[fd_type]
        found["probe"] = text.value.decode("utf-8", "backslashreplace")
        found["probe_offset"] = offset
        found["probe_addr"] = addr
    return found
