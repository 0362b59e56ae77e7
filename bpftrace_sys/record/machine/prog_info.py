"""Asks the kernel for all that it gives of a program, by an fd.

One call of BPF_OBJ_GET_INFO_BY_FD, or two where there is much.  ``ask`` is used in the exit stop of
a BPF_PROG_LOAD: what came is taken out of its room, and interpreted, when the thread runs again,
and nothing slow is imported here.
"""

from __future__ import annotations

import ctypes
import operator
import os
import struct

from decoders import arch
from decoders.formats.prog_info import ARRAYS, ROOM, ProgInfo, request, room_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, TypeAlias

    Answer: TypeAlias = tuple[bytes, dict[str, bytes]]
    """The struct, and the room that was offered for each array, as the kernel left both."""

LIMIT: Final = 64 << 20
"""Bytes of a program's arrays that are taken: a million instructions stay below."""
SIZES: Final = {
    "jited_prog_insns": 16384, "xlated_prog_insns": 16384, "map_ids": 256, "jited_ksyms": 512,
    "jited_func_lens": 256, "func_info": 512, "line_info": 8192, "jited_line_info": 4096,
    "prog_tags": 512,
}  # fmt: skip
"""Room that is offered at the first call: for most programs one call is then enough."""
_OBJ_GET_INFO_BY_FD: Final = 15
_ATTR: Final = struct.Struct("<IIQ")
"""bpf_fd, info_len and info of union bpf_attr."""

_libc = ctypes.CDLL(None, use_errno=True)
_number = arch.number(arch.of_machine()[0], "bpf")


def _get_info(fd: int, room: ctypes.Array[ctypes.c_char]) -> bool:
    attr = ctypes.create_string_buffer(_ATTR.pack(fd, len(room), ctypes.addressof(room)), 16)
    done: bool = _libc.syscall(_number, _OBJ_GET_INFO_BY_FD, attr, 16) == 0
    return done


class _Slab:
    """The room of a first call."""

    def __init__(self) -> None:
        self.arrays = ctypes.create_string_buffer(sum(SIZES.values()))
        self.view = memoryview(self.arrays)
        self.struct = ctypes.create_string_buffer(ROOM)
        template = bytearray(ROOM)
        start = ctypes.addressof(self.arrays)
        at = 0
        rows = []
        for row in sorted(ARRAYS, key=lambda row: row.count_at):
            size = SIZES[row.name]
            struct.pack_into("<I", template, row.count_at, size // row.size)
            struct.pack_into("<Q", template, row.pointer_at, start + at)
            if row.rec_size_at:
                struct.pack_into("<I", template, row.rec_size_at, row.size)
            rows.append((row.name, at, row.size))
            at += size
        self.template = bytes(template)
        self.rows = tuple(rows)
        self.read_counts = _counts([row.count_at for row in ARRAYS]).unpack
        self.most = self.read_counts(self.template)
        self.counts: tuple[int, ...] = ()
        self.head = b""

    def fill(self, fd: int) -> bool:
        """Asks; True if this one call was enough."""
        room = self.struct
        room.raw = self.template
        if not _get_info(fd, room):
            return False  # a kernel with longer records, or with fewer fields, refuses
        self.head = room.raw
        xlated_len, ifindex = _CERTAIN.unpack_from(self.head)
        if not xlated_len or ifindex:
            return False  # of a device's program, or where we may see nothing, counts are left
        self.counts = self.read_counts(self.head)
        return all(map(operator.le, self.counts, self.most))

    def answer(self) -> Answer:
        """What it was filled with."""
        view = self.view
        return self.head, {
            name: view[at : at + count * size].tobytes()
            for count, (name, at, size) in zip(self.counts, self.rows, strict=True)
            if count
        }


class Asked:
    """An answer that may still stand in the room that the kernel wrote it to."""

    __slots__ = ("_answer", "_slab", "head")

    def __init__(self, head: bytes, answer: Answer | None, slab: _Slab | None) -> None:
        self.head = head
        """The struct, as the kernel left it."""
        self._answer = answer
        self._slab = slab

    def answer(self) -> Answer:
        """For ``ProgInfo.answered``; gives the room back."""
        if self._slab is not None:
            self._answer = self._slab.answer()
            _free.append(self._slab)
            self._slab = None
        assert self._answer is not None
        return self._answer


_CERTAIN: Final = struct.Struct("<20xI56xI")
"""xlated_prog_len and ifindex."""


def _counts(offsets: list[int]) -> struct.Struct:
    """Reads the numbers (u32) at these offsets of the struct at once, in their order."""
    form, at = "<", 0
    for offset in sorted(offsets):
        form += f"{offset - at}xI"
        at = offset + 4
    return struct.Struct(f"{form}{ROOM - at}x")


_free: list[_Slab] = []
_made = 0
_SLABS: Final = 16
"""Rooms (45 KB each) that wait to be read at the same time, at most."""


def ask(fd: int) -> Asked:
    """All that the kernel gives of the program that ``fd`` is.

    Arrays beyond LIMIT are left out.  OSError where the kernel does not answer.
    """
    global _made
    if not _free:
        _free.append(_Slab())
        _made += 1
    slab = _free[-1]
    if not slab.fill(fd):
        answer = _in_two_calls(fd)
        return Asked(answer[0], answer, None)
    if _made >= _SLABS and len(_free) == 1:
        return Asked(slab.head, slab.answer(), None)
    return Asked(slab.head, None, _free.pop())


def _in_two_calls(fd: int) -> Answer:
    """First how much there is, and then all of it."""
    first = ctypes.create_string_buffer(ROOM)
    if not _get_info(fd, first):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
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
    if not _get_info(fd, room):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    view = memoryview(buffer)
    return room.raw, {name: view[at : at + size].tobytes() for name, at, size in wanted}


def fetch(fd: int) -> ProgInfo:
    """What the kernel gives of the program that ``fd`` is; as :func:`ask`."""
    return ProgInfo.answered(*ask(fd).answer())
