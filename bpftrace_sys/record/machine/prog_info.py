"""Asks the kernel for all that it gives of a program, by an fd.

Two calls of BPF_OBJ_GET_INFO_BY_FD, some 50 us together.  Used in the exit stop of a
BPF_PROG_LOAD, so nothing slow is imported here.
"""

from __future__ import annotations

import ctypes
import os
import struct

from decoders import arch
from decoders.formats.prog_info import ROOM, ProgInfo, request, room_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LIMIT: Final = 64 << 20
"""Bytes of a program's arrays that are taken: a million instructions stay below."""
_OBJ_GET_INFO_BY_FD: Final = 15
_ATTR: Final = struct.Struct("<IIQ")
"""bpf_fd, info_len and info of union bpf_attr."""

_libc = ctypes.CDLL(None, use_errno=True)
_number = arch.number(arch.of_machine()[0], "bpf")


def _get_info(fd: int, room: ctypes.Array[ctypes.c_char]) -> None:
    attr = ctypes.create_string_buffer(_ATTR.pack(fd, len(room), ctypes.addressof(room)), 16)
    if _libc.syscall(_number, _OBJ_GET_INFO_BY_FD, attr, 16) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def fetch(fd: int) -> ProgInfo:
    """What the kernel gives of the program that ``fd`` is.

    Arrays beyond LIMIT are left out.  OSError where the kernel does not answer.
    """
    first = ctypes.create_string_buffer(ROOM)
    _get_info(fd, first)
    head = first.raw
    wanted = []
    total = 0
    for row, size in room_for(head):
        if total + size <= LIMIT:
            wanted.append((row.name, total, size))
            total += size + -size % 8
    buffer = ctypes.create_string_buffer(max(total, 1))
    start = ctypes.addressof(buffer)
    room = ctypes.create_string_buffer(
        bytes(request(head, {name: start + at for name, at, _ in wanted})), ROOM
    )
    _get_info(fd, room)
    view = memoryview(buffer)
    return ProgInfo.answered(
        room.raw, {name: bytes(view[at : at + size]) for name, at, size in wanted}
    )
