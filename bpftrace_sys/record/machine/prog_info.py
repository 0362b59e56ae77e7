"""Asks the kernel for all that it gives of a program, by an fd.

One call of BPF_OBJ_GET_INFO_BY_FD, or two where there is much: some 20 to 60 us.  Used in the exit
stop of a BPF_PROG_LOAD, so nothing slow is imported here.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

from decoders import arch
from decoders.formats.prog_info import ARRAYS, ROOM, ProgInfo, request, room_for

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


class _Slab:
    """Room that is offered at the first call: for most programs one call is then enough."""

    SIZES: Final = {
        "jited_prog_insns": 16384, "xlated_prog_insns": 16384, "map_ids": 256,
        "jited_ksyms": 512, "jited_func_lens": 256, "func_info": 512, "line_info": 8192,
        "jited_line_info": 4096, "prog_tags": 512,
    }  # fmt: skip

    def __init__(self) -> None:
        self.buffer = ctypes.create_string_buffer(sum(self.SIZES.values()))
        start = ctypes.addressof(self.buffer)
        self.places: dict[str, tuple[int, int]] = {}
        template = bytearray(ROOM)
        at = 0
        for row in ARRAYS:
            size = self.SIZES[row.name]
            self.places[row.name] = (at, at + size)
            struct.pack_into("<I", template, row.count_at, size // row.size)
            struct.pack_into("<Q", template, row.pointer_at, start + at)
            if row.rec_size_at:
                struct.pack_into("<I", template, row.rec_size_at, row.size)
            at += size
        self.template = bytes(template)
        self.view = memoryview(self.buffer)

    def holds(self, head: bytes) -> bool:
        """Whether all that the answer speaks of has found room."""
        return all(size <= self.SIZES[row.name] for row, size in room_for(head))

    def taken(self, head: bytes) -> ProgInfo:
        """What the kernel put into it."""
        room = {
            row.name: bytes(self.view[self.places[row.name][0] :][:size])
            for row, size in room_for(head)
        }
        return ProgInfo.answered(head, room)


_slab: _Slab | None = None


def fetch(fd: int) -> ProgInfo:
    """What the kernel gives of the program that ``fd`` is.

    Arrays beyond LIMIT are left out.  OSError where the kernel does not answer.
    """
    global _slab
    if _slab is None:
        _slab = _Slab()
    room = ctypes.create_string_buffer(_slab.template, ROOM)
    # A kernel with longer records, or with fewer fields, refuses.
    with contextlib.suppress(OSError):
        _get_info(fd, room)
        head = room.raw
        info = ProgInfo(head, {})
        # Of a device's program, and where we may see nothing, it leaves counts as they were.
        if info.xlated_len and not info.ifindex and _slab.holds(head):
            return _slab.taken(head)
    return _in_two_calls(fd)


def _in_two_calls(fd: int) -> ProgInfo:
    """First how much there is, and then all of it."""
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
