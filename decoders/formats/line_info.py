"""func_info, line_info and core_relo: what ties instructions to BTF.

struct bpf_func_info, bpf_line_info and bpf_core_relo of include/uapi/linux/bpf.h,
as BPF_PROG_LOAD passes them and bpf_prog_info returns the first two.  All are
arrays whose record size the caller tells: longer records have fields that we
do not know, shorter ones lack fields, which then read as 0.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Final, NamedTuple

import construct

from decoders.formats.btf import COMPOSITES, ENUMS, MAX_DEPTH, Btf, ByteOrder, Kind, Type, unpacker
from decoders.formats.btf_c import c_type
from decoders.uapi.names import bpf_core_relo_kind

_U32 = construct.Int32ul

BPF_FUNC_INFO: Final = construct.Struct("insn_off" / _U32, "type_id" / _U32)
BPF_LINE_INFO: Final = construct.Struct(
    "insn_off" / _U32, "file_name_off" / _U32, "line_off" / _U32, "line_col" / _U32
)
BPF_CORE_RELO: Final = construct.Struct(
    "insn_off" / _U32, "type_id" / _U32, "access_str_off" / _U32, "kind" / _U32
)
INSN_SIZE: Final = 8  # sizeof(struct bpf_insn)


class FuncInfo(NamedTuple):
    """The function (a BTF type id) that starts at an instruction slot."""

    insn_off: int
    type_id: int


class LineInfo(NamedTuple):
    """The source of the instructions from slot ``insn_off`` on.

    ``file`` and ``text`` are hostile, as `Btf.string` gives them; ``text``
    keeps its indentation.  ``line`` and ``column`` count from 1; 0 says that
    the compiler knew none (then ``text`` is empty too).
    """

    insn_off: int
    file: str
    text: str
    line: int
    column: int


class CoreRelo(NamedTuple):
    """A relocation that the kernel is to apply (CO-RE).

    ``insn_off`` counts bytes, unlike that of the others.  ``kind`` is one of
    enum bpf_core_relo_kind, ``kind_name`` its name or None.
    """

    insn_off: int
    type_id: int
    access: str
    kind: int
    kind_name: str | None

    @property
    def slot(self) -> int:
        """The instruction slot."""
        return self.insn_off // INSN_SIZE


def records(
    record: Any, data: bytes, rec_size: int, byteorder: ByteOrder = "little"
) -> Iterator[tuple[int, ...]]:
    """The records of an array, as far as there are whole ones, by their known fields."""
    unpack = unpacker(record, byteorder)
    if rec_size < _U32.sizeof():
        return
    if rec_size == unpack.size:
        yield from unpack.iter_unpack(data[: len(data) // rec_size * rec_size])
        return
    for start in range(0, len(data) - rec_size + 1, rec_size):
        known = data[start : start + min(rec_size, unpack.size)]
        yield unpack.unpack(known.ljust(unpack.size, b"\0"))


def func_infos(data: bytes, rec_size: int, byteorder: ByteOrder = "little") -> list[FuncInfo]:
    """The records of a func_info array, in the caller's order."""
    return [FuncInfo(*each) for each in records(BPF_FUNC_INFO, data, rec_size, byteorder)]


def line_infos(
    data: bytes, rec_size: int, btf: Btf | None, byteorder: ByteOrder = "little"
) -> list[LineInfo]:
    """The records of a line_info array, in the caller's order.

    Without the BTF files and texts are empty.
    """
    found = []
    strings: dict[int, str] = {0: ""}
    for insn_off, file_off, line_off, line_col in records(BPF_LINE_INFO, data, rec_size, byteorder):
        if btf is not None:
            for offset in (file_off, line_off):
                if offset not in strings:
                    strings[offset] = btf.string(offset)
        found.append(
            LineInfo(
                insn_off,
                strings.get(file_off, ""),
                strings.get(line_off, ""),
                line_col >> 10,
                line_col & 0x3FF,
            )
        )
    return found


class Lines:
    """Source lines by instruction slot."""

    def __init__(self, infos: Iterable[LineInfo]) -> None:
        # The kernel demands rising offsets; a refused program may have any.
        self._infos = sorted(infos, key=lambda info: info.insn_off)

    @cached_property
    def _starts(self) -> list[int]:
        return [info.insn_off for info in self._infos]

    @cached_property
    def _by_start(self) -> dict[int, LineInfo]:
        return {info.insn_off: info for info in reversed(self._infos)}

    def __len__(self) -> int:
        return len(self._infos)

    def start(self, slot: int) -> LineInfo | None:
        """The line that starts at exactly that slot (a listing prints it there)."""
        return self._by_start.get(slot)

    def at(self, slot: int) -> LineInfo | None:
        """The line that the instruction at that slot belongs to."""
        index = bisect_right(self._starts, slot)
        return self._infos[index - 1] if index else None


def core_relos(
    data: bytes, rec_size: int, btf: Btf | None, byteorder: ByteOrder = "little"
) -> list[CoreRelo]:
    """The records of a core_relo array, in the caller's order."""
    return [
        CoreRelo(
            insn_off,
            type_id,
            btf.string(access_off) if btf is not None else "",
            kind,
            bpf_core_relo_kind.get(kind),
        )
        for insn_off, type_id, access_off, kind in records(BPF_CORE_RELO, data, rec_size, byteorder)
    ]


def access_path(btf: Btf, relo: CoreRelo) -> str:
    """What a relocation is about: ``struct task_struct.mm.exe_file``, ``enum e::VALUE``.

    Its access string lists indexes: of an array of the type itself, then of
    members, elements or, for an enum, its enumerators.  Where these do not fit
    the types, the string stands for the rest: ``struct s.x:7``.
    """
    text = c_type(btf, relo.type_id)
    parts = relo.access.split(":")
    found = btf.resolve(relo.type_id)
    if found is not None and found.kind in ENUMS:
        name = _indexed(found.enumerators, parts[0])
        return f"{text}::{name.name}" if name else f"{text}:{relo.access}"
    if parts[0] not in ("0", ""):
        text += f"[{parts[0]}]"
    for index, part in enumerate(parts[1:], 1):
        step = _step(found, part) if index <= MAX_DEPTH else None
        if step is None:
            return ":".join([text, *parts[index:]])
        text += step[0]
        found = btf.resolve(step[1])
    return text


def _indexed(items: tuple[Any, ...], part: str) -> Any:
    if not (part.isascii() and part.isdigit() and len(part) < 10):
        return None
    index = int(part)
    return items[index] if index < len(items) else None


def _step(found: Type | None, part: str) -> tuple[str, int] | None:
    """One index of an access string: its text and the type that it leads to."""
    if found is None:
        return None
    if found.kind in COMPOSITES:
        member = _indexed(found.members, part)
        if member is None:
            return None
        return (f".{member.name}" if member.name else ""), member.type
    if found.kind == Kind.ARRAY and part.isascii() and part.isdigit():
        return f"[{part}]", found.type
    return None
