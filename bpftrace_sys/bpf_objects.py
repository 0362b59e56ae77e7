"""Asks the kernel about BPF objects by id, as bpftool does.

Used for objects that the trace did not see being made.  The fd that this needs
is closed at once, so no object is kept alive.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from bpftrace_sys import arch
from decoders.uapi import const

_GET_FD: Final = {
    "prog": const.BPF_PROG_GET_FD_BY_ID,
    "map": const.BPF_MAP_GET_FD_BY_ID,
    "btf": const.BPF_BTF_GET_FD_BY_ID,
    "link": const.BPF_LINK_GET_FD_BY_ID,
}
_NAME_AT: Final = {"prog": 64, "map": 24}
"""Offset of ``name`` in bpf_prog_info and bpf_map_info (decoders.uapi.layouts)."""
_ATTACH_BTF_ID: Final = 224
"""Offset of ``attach_btf_id`` in bpf_prog_info (Linux 5.17)."""
_INFO_ROOM: Final = 256

_libc = ctypes.CDLL(None, use_errno=True)


def bpf(cmd: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    """bpf(2); raises OSError."""
    number = arch.number(arch.of_machine()[0], "bpf")
    result: int = _libc.syscall(number, cmd, attr, len(attr))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def info(kind: str, object_id: int) -> bytes | None:
    """The bpf_*_info of an object by its id; None where it is gone or we may not ask."""
    try:
        request = ctypes.create_string_buffer(struct.pack("<III", object_id, 0, 0), 16)
        fd = bpf(_GET_FD[kind], request)
    except OSError:
        return None
    try:
        room = ctypes.create_string_buffer(_INFO_ROOM)
        attr = ctypes.create_string_buffer(
            struct.pack("<IIQ", fd, _INFO_ROOM, ctypes.addressof(room)), 16
        )
        bpf(const.BPF_OBJ_GET_INFO_BY_FD, attr)
        return room.raw
    except OSError:
        return None
    finally:
        os.close(fd)


def attach_btf_id(prog_id: int) -> int | None:
    """The id in vmlinux BTF of what a program is attached to; None where it is unknown."""
    data = info("prog", prog_id)
    found = int.from_bytes(data[_ATTACH_BTF_ID : _ATTACH_BTF_ID + 4], "little") if data else 0
    return found or None


def name(kind: str, object_id: int) -> str | None:
    """An object's name (of a link: its type's), or None."""
    data = info(kind, object_id)
    if data is None:
        return None
    if kind == "link":
        from decoders.uapi import names

        number = int.from_bytes(data[:4], "little")
        return names.bpf_link_type.get(number, str(number)).removeprefix("BPF_LINK_TYPE_").lower()
    at = _NAME_AT.get(kind)
    if at is None:
        return None
    text = data[at : at + 16].partition(b"\0")[0].decode("utf-8", "backslashreplace")
    return text or None
