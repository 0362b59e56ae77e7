"""bpf_prog_info and the arrays around it: what the kernel gives of a loaded program.

struct bpf_prog_info of include/uapi/linux/bpf.h as BPF_OBJ_GET_INFO_BY_FD fills it
(bpf_prog_get_info_by_fd() in kernel/bpf/syscall.c).  It is asked for twice: the first answer
says how much there is of each array, the second brings them.  Here are the layout, the bytes
that come and go, and what they say; the two calls themselves are made elsewhere.

Offsets are written out rather than looked up, for this is imported before the first program's
stop; tests hold them against ``decoders.uapi.layouts``.
"""

from __future__ import annotations

import struct

from decoders.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

ROOM: Final = 256
"""Bytes that are offered for the struct: 232 as of Linux 7.1."""


class Row(NamedTuple):
    """An array of the struct's: offsets of its count and pointer, bytes of an element."""

    name: str
    count_at: int
    pointer_at: int
    size: int
    rec_size_at: int = 0
    """Offset of the size that user space has to name again, if it has to."""


ARRAYS: Final = (
    Row("jited_prog_insns", 16, 24, 1),
    Row("xlated_prog_insns", 20, 32, 1),
    Row("map_ids", 52, 56, 4),
    Row("jited_ksyms", 104, 112, 8),
    Row("jited_func_lens", 108, 120, 4),
    Row("func_info", 144, 136, 8, 132),
    Row("line_info", 148, 152, 16, 172),
    Row("jited_line_info", 168, 160, 8, 176),
    Row("prog_tags", 180, 184, 8),
)
ROWS: Final = {row.name: row for row in ARRAYS}
_BTF_ID: Final = 128
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")


def room_for(head: bytes) -> list[tuple[Row, int]]:
    """The arrays that a first answer promises, with their sizes in bytes."""
    found = []
    for row in ARRAYS:
        (count,) = _U32.unpack_from(head, row.count_at)
        size = row.size
        if row.rec_size_at:
            (size,) = _U32.unpack_from(head, row.rec_size_at)
        if count and size:
            found.append((row, count * size))
    return found


def btf_id_of(head: bytes) -> int:
    """bpf_prog_info.btf_id of the struct as it came; 0 where the program has none."""
    return int(_U32.unpack_from(head, _BTF_ID)[0])


def request(head: bytes, addresses: Mapping[str, int]) -> bytearray:
    """The struct for the second call: where each array of ``room_for(head)`` is to go."""
    room = bytearray(ROOM)
    for row, _ in room_for(head):
        if row.name not in addresses:
            continue
        room[row.count_at : row.count_at + 4] = head[row.count_at : row.count_at + 4]
        _U64.pack_into(room, row.pointer_at, addresses[row.name])
    for row in ARRAYS:
        if at := row.rec_size_at:
            room[at : at + 4] = head[at : at + 4]
    return room


class ProgInfo:
    """What the kernel gave of a program: the struct, and those arrays that it let us have.

    ``head`` is the struct with its pointers zeroed.  ``arrays`` holds what was copied, by
    name; where the struct counts elements of an array that is not there, the kernel hid it.
    Both may come from a trace file and hold anything: nothing here raises, and nothing is
    larger than its bytes.
    """

    __slots__ = ("arrays", "head")

    def __init__(self, head: bytes, arrays: Mapping[str, bytes]) -> None:
        self.head = head[:ROOM].ljust(ROOM, b"\0")
        self.arrays = dict(arrays)

    @classmethod
    def answered(cls, head: bytes, room: Mapping[str, bytes]) -> ProgInfo:
        """Of the second answer, and what then stood in the room that was offered."""
        cleared = bytearray(head)
        arrays = {}
        for row in ARRAYS:
            (pointer,) = _U64.unpack_from(head, row.pointer_at)
            (count,) = _U32.unpack_from(head, row.count_at)
            size = _U32.unpack_from(head, row.rec_size_at)[0] if row.rec_size_at else row.size
            # The kernel zeroes the pointer where it hides something (bpf_dump_raw_ok()).
            if pointer and row.name in room:
                arrays[row.name] = room[row.name][: count * size]
            _U64.pack_into(cleared, row.pointer_at, 0)
        return cls(bytes(cleared), arrays)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ProgInfo):
            return NotImplemented
        return self.head == other.head and self.arrays == other.arrays

    __hash__ = None  # type: ignore[assignment]

    def _u32(self, at: int) -> int:
        return int(_U32.unpack_from(self.head, at)[0])

    def _u64(self, at: int) -> int:
        return int(_U64.unpack_from(self.head, at)[0])

    def _items(self, name: str, form: struct.Struct) -> list[int]:
        data = self.arrays.get(name, b"")
        return [item for (item,) in form.iter_unpack(data[: len(data) // form.size * form.size])]

    def hidden(self, name: str) -> bool:
        """Whether there is something that the kernel did not let us have."""
        row = ROWS[name]
        return bool(self._u32(row.count_at)) and name not in self.arrays

    # ------------------------------------------------------------ the struct

    @property
    def type(self) -> int:
        """enum bpf_prog_type"""
        return self._u32(0)

    @property
    def id(self) -> int:
        """The kernel's id of the program."""
        return self._u32(4)

    @property
    def tag(self) -> str:
        """The main program's tag, in hex."""
        return self.head[8:16].hex()

    @property
    def name(self) -> str:
        """As the kernel keeps it, of at most 15 bytes; hostile text."""
        return self.head[64:80].partition(b"\0")[0].decode("utf-8", "backslashreplace")

    @property
    def uid(self) -> int:
        """Who loaded it."""
        return self._u32(48)

    @property
    def ifindex(self) -> int:
        """The device that it is bound to; 0: none."""
        return self._u32(80)

    @property
    def btf_id(self) -> int:
        """Its BTF; 0 where it has none."""
        return self._u32(_BTF_ID)

    @property
    def attach_btf_id(self) -> int:
        """What it is attached to in vmlinux's BTF, or in a program's; 0: nothing (Linux 5.17)."""
        return self._u32(224)

    @property
    def run_time_ns(self) -> int:
        """Nanoseconds that it ran, counted while statistics are on (Linux 5.1)."""
        return self._u64(192)

    @property
    def run_cnt(self) -> int:
        """How often it ran, counted while statistics are on (Linux 5.1)."""
        return self._u64(200)

    @property
    def recursion_misses(self) -> int:
        """Runs that were left out since it was running on that CPU already (Linux 5.12)."""
        return self._u64(208)

    @property
    def jited_len(self) -> int:
        """Bytes of native code that there are, whether we got them or not."""
        return self._u32(16)

    @property
    def xlated_len(self) -> int:
        """Bytes of translated instructions that there are."""
        return self._u32(20)

    # ------------------------------------------------------------ the arrays

    @property
    def xlated(self) -> bytes:
        """The instructions after the verifier; maps are ids in it, helpers distances."""
        return self.arrays.get("xlated_prog_insns", b"")

    @property
    def jited(self) -> bytes:
        """The native code of all its functions, one behind the other."""
        return self.arrays.get("jited_prog_insns", b"")

    @property
    def map_ids(self) -> list[int]:
        """The maps that it uses."""
        return self._items("map_ids", _U32)

    @property
    def ksyms(self) -> list[int]:
        """Where its functions begin in the kernel; the first is the main program."""
        return self._items("jited_ksyms", _U64)

    @property
    def func_lens(self) -> list[int]:
        """Bytes of native code of each function."""
        return self._items("jited_func_lens", _U32)

    @property
    def tags(self) -> list[str]:
        """The tag of each function, in hex."""
        data = self.arrays.get("prog_tags", b"")
        return [data[at : at + 8].hex() for at in range(0, len(data) - 7, 8)]

    def records(self, name: str, fields: int) -> list[tuple[int, ...]]:
        """func_info or line_info: the first ``fields`` numbers (u32) of each record."""
        row = ROWS[name]
        step = self._u32(row.rec_size_at)
        data = self.arrays.get(name, b"")
        form = struct.Struct(f"<{fields}I")
        if step < form.size:
            return []
        return [form.unpack_from(data, at) for at in range(0, len(data) - step + 1, step)]

    @property
    def func_info(self) -> list[tuple[int, ...]]:
        """(slot of the first translated instruction, BTF type id) of each function."""
        return self.records("func_info", 2)

    @property
    def line_info(self) -> list[tuple[int, ...]]:
        """(slot, file's and text's place in BTF's strings, line << 10 | column)."""
        return self.records("line_info", 4)

    @property
    def jited_line_info(self) -> list[int]:
        """The address of native code where each record of line_info begins."""
        step = self._u32(176)
        data = self.arrays.get("jited_line_info", b"")
        if step < 8:
            return []
        return [_U64.unpack_from(data, at)[0] for at in range(0, len(data) - step + 1, step)]

    def functions(self) -> list[tuple[int, bytes]]:
        """(address, native code) of each function; the address is 0 where it is hidden."""
        found = []
        at, code, ksyms = 0, self.jited, self.ksyms
        for index, size in enumerate(self.func_lens):
            if not code[at : at + size]:
                break
            found.append((ksyms[index] if index < len(ksyms) else 0, code[at : at + size]))
            at += size
        if not found and code:
            found.append((ksyms[0] if ksyms else 0, code))
        return found
