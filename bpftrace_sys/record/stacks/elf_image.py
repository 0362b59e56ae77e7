"""ELF files, read piece by piece: segments, sections, notes (System V ABI, chapters 4 and 5).

Little endian, 32 and 64 bits.  The files are the tracee's: nothing in them is
believed, every read is bounded, and what makes no sense raises ElfError.
"""

from __future__ import annotations

import struct
import zlib
from functools import cached_property
from typing import Final, Protocol

from decoders.records import NamedTuple

PT_LOAD: Final = 1
PT_NOTE: Final = 4
PT_GNU_EH_FRAME: Final = 0x6474E550
PF_X: Final = 1
SHT_SYMTAB: Final = 2
SHT_NOBITS: Final = 8
SHT_DYNSYM: Final = 11
SHF_COMPRESSED: Final = 0x800
ELFCOMPRESS_ZLIB: Final = 1
NT_GNU_BUILD_ID: Final = 3

SEGMENTS: Final = 256
SECTIONS: Final = 4096
HEADER_LIMIT: Final = 256
"""Bytes of a segment's or a section's header."""
NAMES_LIMIT: Final = 1 << 20
NOTES_LIMIT: Final = 1 << 16
SECTION_LIMIT: Final = 64 << 20
"""Bytes of a section that are read, or unpacked; libLLVM's symbols are 15 MiB."""
PAGE: Final = 4096


class ElfError(ValueError):
    """A file that is no ELF file, or a damaged one."""


class Source(Protocol):
    """Bytes at offsets, fewer at the end; and what changes when they are written to."""

    def read(self, offset: int, size: int) -> bytes: ...
    def stamp(self) -> tuple[int, int]: ...


class InMemory:
    """Bytes that are at hand."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        return self._data[max(offset, 0) : max(offset + size, 0)]

    def stamp(self) -> tuple[int, int]:
        """Nothing changes."""
        return 0, 0


class Segment(NamedTuple):
    """A program header."""

    type: int
    flags: int
    offset: int
    vaddr: int
    filesz: int


class Section(NamedTuple):
    """A section header."""

    name: bytes
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int


class _Format(NamedTuple):
    """How 32 and 64 bits differ."""

    header: struct.Struct
    """From e_type: e_type e_machine e_version e_entry e_phoff e_shoff e_flags e_ehsize
    e_phentsize e_phnum e_shentsize e_shnum e_shstrndx."""
    segment: struct.Struct
    section: struct.Struct
    symbol: struct.Struct
    compression: struct.Struct


_FORMATS: Final = {
    1: _Format(*map(struct.Struct, ("<HHIIIIIHHHHHH", "<8I", "<10I", "<IIIBBH", "<III"))),
    2: _Format(*map(struct.Struct, ("<HHIQQQIHHHHHH", "<IIQQQQQQ", "<IIQQQQIIQQ", "<IBBHQQ",
                                    "<IIQQ"))),
}  # fmt: skip


class Image:
    """An ELF file, or the vdso's memory."""

    def __init__(self, source: Source) -> None:
        """Raises ElfError."""
        self.source = source
        ident = self.read(0, 16)
        if ident[:4] != b"\x7fELF":
            raise ElfError("no ELF file")
        if ident[4] not in _FORMATS or ident[5] != 1:
            raise ElfError("neither of 32 nor of 64 bits, or big endian")
        self.word = 4 * ident[4]
        self.format = _FORMATS[ident[4]]
        header = self.read(16, self.format.header.size)
        _, self.machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx = (
            self.format.header.unpack(header)
        )
        self._sections_at = (shoff, shentsize, min(shnum, SECTIONS), shstrndx)
        self.segments: list[Segment] = []
        rows = self._rows(phoff, phentsize, min(phnum, SEGMENTS), self.format.segment)
        for row in rows:
            if self.word == 8:
                kind, flags, offset, vaddr, _, filesz, _, _ = row
            else:
                kind, offset, vaddr, _, filesz, _, flags, _ = row
            self.segments.append(Segment(kind, flags, offset, vaddr, filesz))

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file; ElfError where there are fewer."""
        data = self.source.read(offset, size)
        if len(data) < size:
            raise ElfError("the file ends too early")
        return data

    def _rows(
        self, offset: int, size: int, count: int, layout: struct.Struct
    ) -> list[tuple[int, ...]]:
        if not count or not offset:
            return []
        if not layout.size <= size <= HEADER_LIMIT:
            raise ElfError("headers of an unknown size")
        data = self.read(offset, size * count)
        return [layout.unpack_from(data, size * index) for index in range(count)]

    # ------------------------------------------------------------ addresses

    def vaddr(self, offset: int) -> int | None:
        """The address, in the file's own terms, of code at an offset."""
        for kind, flags, start, vaddr, filesz in self.segments:
            # Whole pages are mapped, also what stands before and behind.
            first = start & -PAGE
            if kind == PT_LOAD and flags & PF_X and first <= offset < start + filesz + PAGE:
                return vaddr + offset - start
        return None

    def at_vaddr(self, vaddr: int, size: int) -> bytes:
        """Up to ``size`` bytes at an address, as the file has them; empty: not in the file."""
        for kind, _, offset, start, filesz in self.segments:
            if kind == PT_LOAD and start <= vaddr < start + filesz:
                return self.source.read(vaddr - start + offset, min(size, start + filesz - vaddr))
        return b""

    # ------------------------------------------------------------ sections

    @cached_property
    def sections(self) -> list[Section]:
        """The section headers; none where they cannot be read (the vdso's may not be there)."""
        offset, size, count, names_at = self._sections_at
        try:
            rows = self._rows(offset, size, count, self.format.section)
            if names_at >= len(rows):
                return []
            names = self.source.read(rows[names_at][4], min(rows[names_at][5], NAMES_LIMIT))
        except ElfError:
            return []
        return [
            Section(_string(names, row[0]), row[1], row[2], row[3], row[4], row[5], row[6])
            for row in rows
        ]

    def section(self, name: bytes) -> Section | None:
        """A section by its name."""
        return next((found for found in self.sections if found.name == name), None)

    def content(self, section: Section) -> bytes:
        """A section's bytes, unpacked.  ElfError if there are none, or too many."""
        if section.type == SHT_NOBITS or section.size > SECTION_LIMIT:
            raise ElfError("a section that is not there, or too large")
        data = self.read(section.offset, section.size)
        if not section.flags & SHF_COMPRESSED:
            return data
        head = self.format.compression
        if len(data) < head.size or head.unpack_from(data)[0] != ELFCOMPRESS_ZLIB:
            raise ElfError("a section that is compressed in an unknown way")
        try:
            engine = zlib.decompressobj()
            return engine.decompress(data[head.size :], SECTION_LIMIT)
        except zlib.error as error:
            raise ElfError(str(error)) from None

    @cached_property
    def build_id(self) -> bytes:
        """NT_GNU_BUILD_ID; empty if there is none."""
        for segment in self.segments:
            if segment.type != PT_NOTE:
                continue
            data = self.source.read(segment.offset, min(segment.filesz, NOTES_LIMIT))
            at = 0
            while at + 12 <= len(data):
                name_size, size, kind = struct.unpack_from("<III", data, at)
                name = data[at + 12 : at + 12 + name_size]
                begin = at + 12 + (name_size + 3 & -4)
                if kind == NT_GNU_BUILD_ID and name == b"GNU\0":
                    return data[begin : begin + min(size, 64)]
                at = begin + (size + 3 & -4)
        return b""


def _string(table: bytes, offset: int, limit: int = 256) -> bytes:
    """A string of a string table, or its beginning."""
    if offset >= len(table):
        return b""
    end = table.find(b"\0", offset, offset + limit)
    return table[offset : end if end >= 0 else offset + limit]
