"""Just enough DWARF 5 that disassemblers show source lines.

``llvm-objdump -S`` before LLVM 18 knows no BTF: it wants a line table, and the
source.  BTF has the text of each line that an instruction came from, so these
texts go along, embedded in the table (DW_LNCT_LLVM_source), at their line numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from bpftrace_sys.export.elf_writer import R_BPF_64_ABS64, Elf, Section
from decoders.records import NamedTuple

SOURCE_LIMIT: Final = 4 << 20
"""Bytes of embedded source: line numbers are the tracee's, and each costs a byte."""
FILES_LIMIT: Final = 4096

DW_TAG_COMPILE_UNIT: Final = 0x11
DW_AT_NAME: Final = 0x03
DW_AT_STMT_LIST: Final = 0x10
DW_AT_LOW_PC: Final = 0x11
DW_AT_RANGES: Final = 0x55
DW_FORM_ADDR: Final = 0x01
DW_FORM_STRING: Final = 0x08
DW_FORM_UDATA: Final = 0x0F
DW_FORM_SEC_OFFSET: Final = 0x17
DW_LNCT_PATH: Final = 1
DW_LNCT_DIRECTORY: Final = 2
DW_LNCT_LLVM_SOURCE: Final = 0x2001
DW_UT_COMPILE: Final = 1
DW_LNS_COPY: Final = 1
DW_LNS_ADVANCE_PC: Final = 2
DW_LNS_ADVANCE_LINE: Final = 3
DW_LNS_SET_FILE: Final = 4
DW_LNS_SET_COLUMN: Final = 5
DW_LNE_END_SEQUENCE: Final = 1
DW_LNE_SET_ADDRESS: Final = 2
DW_RLE_END_OF_LIST: Final = 0
DW_RLE_START_LENGTH: Final = 7
_RANGES: Final = struct.Struct("<IHBBI")
_OPERANDS: Final = bytes((0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1))

ABBREVIATIONS: Final = bytes(
    (1, DW_TAG_COMPILE_UNIT, 0,
     DW_AT_NAME, DW_FORM_STRING, DW_AT_STMT_LIST, DW_FORM_SEC_OFFSET,
     DW_AT_LOW_PC, DW_FORM_ADDR, DW_AT_RANGES, DW_FORM_SEC_OFFSET, 0, 0, 0)
)  # fmt: skip


class Row(NamedTuple):
    """The source of the instructions from ``offset`` (bytes in the section) on."""

    offset: int
    file: str
    line: int
    column: int
    text: str


def uleb(number: int) -> bytes:
    """An unsigned LEB128 number."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def sleb(number: int) -> bytes:
    """A signed LEB128 number."""
    out = bytearray()
    while not -64 <= number < 64:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number & 0x7F)
    return bytes(out)


def _text(text: str) -> bytes:
    return text.encode("utf-8", "replace").replace(b"\0", b"") + b"\0"


def sources(rows: Sequence[Row]) -> dict[str, str]:
    """The known lines of each file, at their numbers; the others are empty."""
    by_file: dict[str, dict[int, str]] = {}
    for row in rows:
        if row.file not in by_file and len(by_file) >= FILES_LIMIT:
            continue
        lines = by_file.setdefault(row.file, {})
        if row.line > 0:
            # A line whose text nobody told is there all the same, and empty.
            lines[row.line] = lines.get(row.line) or row.text.rstrip("\r\n")
    found = {}
    room = SOURCE_LIMIT
    for file, lines in by_file.items():
        size = max(lines, default=0) + sum(map(len, lines.values()))
        if size > room:
            lines = {}
        else:
            room -= size
        found[file] = "".join(
            lines.get(number, "") + "\n" for number in range(1, max(lines, default=0) + 1)
        )
    return found


def add(elf: Elf, code: Sequence[tuple[Section, Sequence[Row]]]) -> None:
    """Adds debug sections that tell the source of code sections.

    One unit for all of them, because in a file that is not linked yet each
    section begins at address 0, and units are found by address.
    """
    places = [(section, rows) for section, rows in code if rows]
    if not places:
        return
    table, sequences = _line_table(places)
    name = _text(places[0][1][0].file)
    unit = struct.pack("<HBBI", 5, DW_UT_COMPILE, 8, 0) + uleb(1) + name
    unit += struct.pack("<IQI", 0, 0, _RANGES.size)
    ranges, starts = bytearray(), []
    for section, _ in places:
        ranges.append(DW_RLE_START_LENGTH)
        starts.append(_RANGES.size + len(ranges))
        ranges += bytes(8) + uleb(len(section.data))
    ranges.append(DW_RLE_END_OF_LIST)
    ranges[:0] = _RANGES.pack(_RANGES.size - 4 + len(ranges), 5, 8, 0, 0)
    elf.section(".debug_abbrev", ABBREVIATIONS, align=1)
    elf.section(".debug_info", struct.pack("<I", len(unit)) + unit, align=1)
    for name_, data, offsets in (
        (".debug_rnglists", bytes(ranges), starts),
        (".debug_line", table, sequences),
    ):
        made = elf.section(name_, data, align=1)
        for (section, _), offset in zip(places, offsets, strict=True):
            elf.reloc(made, offset, elf.section_symbol(section), R_BPF_64_ABS64)


def _line_table(places: Sequence[tuple[Section, Sequence[Row]]]) -> tuple[bytes, list[int]]:
    """The line table, and where in it the sections' addresses are to be filled in."""
    files = sources([row for _, rows in places for row in rows])
    numbers = {file: index for index, file in enumerate(files)}
    header = bytearray((1, 1, 1, 0x100 - 5, 14, 13)) + _OPERANDS
    header += bytes((1,)) + uleb(DW_LNCT_PATH) + uleb(DW_FORM_STRING) + uleb(1) + _text(".")
    header += bytes((3,))
    for content, form in (
        (DW_LNCT_PATH, DW_FORM_STRING),
        (DW_LNCT_DIRECTORY, DW_FORM_UDATA),
        (DW_LNCT_LLVM_SOURCE, DW_FORM_STRING),
    ):
        header += uleb(content) + uleb(form)
    header += uleb(len(files))
    for file, text in files.items():
        header += _text(file) + uleb(0) + _text(text)
    program, addresses = bytearray(), []
    for section, rows in places:
        program += bytes((0, 9, DW_LNE_SET_ADDRESS))
        addresses.append(len(program))
        program += bytes(8)
        at, line = 0, 1
        for row in rows:
            if row.file not in numbers or row.offset < at:
                continue
            program += bytes((DW_LNS_ADVANCE_PC,)) + uleb(row.offset - at)
            program += bytes((DW_LNS_ADVANCE_LINE,)) + sleb(row.line - line)
            program += bytes((DW_LNS_SET_FILE,)) + uleb(numbers[row.file])
            program += bytes((DW_LNS_SET_COLUMN,)) + uleb(row.column) + bytes((DW_LNS_COPY,))
            at, line = row.offset, row.line
        program += bytes((DW_LNS_ADVANCE_PC,)) + uleb(max(0, len(section.data) - at))
        program += bytes((0, 1, DW_LNE_END_SEQUENCE))
    body = struct.pack("<HBBI", 5, 8, 0, len(header)) + bytes(header)
    table = struct.pack("<I", len(body) + len(program)) + body
    return table + bytes(program), [len(table) + address for address in addresses]
