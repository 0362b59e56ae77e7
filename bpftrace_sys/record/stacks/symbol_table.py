"""The functions of an ELF file by address: .symtab, .dynsym, and where those are thin,
.gnu_debugdata (a packed ELF file in a section) and the separate debug file."""

from __future__ import annotations

import lzma
from array import array
from bisect import bisect_right
from typing import Final

from bpftrace_sys.record.stacks.elf_image import (
    SECTION_LIMIT,
    SHT_DYNSYM,
    SHT_SYMTAB,
    ElfError,
    Image,
    InMemory,
)

STT_NOTYPE: Final = 0
STT_FUNC: Final = 2
STT_GNU_IFUNC: Final = 10
STB_GLOBAL: Final = 1
SYMBOLS: Final = 1 << 20
NAME_LIMIT: Final = 1024
NESTED: Final = 256
"""Symbols that are looked at for one that covers an address: they may overlap."""
UNPACKED_LIMIT: Final = 64 << 20


ALIASES: Final = 64
"""Names of one function that are looked at."""


class SymbolTable:
    """Functions by address, names as they stand in the file (mangled)."""

    def __init__(self, image: Image, debug: Image | None = None) -> None:
        """``debug``: the file's separate debug file.  Never raises; a damaged table is none."""
        self._names: list[bytes] = []
        rows: list[tuple[int, int, int, int, int]] = []
        images = [image]
        if debug is not None:
            images.append(debug)
        if not any(section.type == SHT_SYMTAB for each in images for section in each.sections):
            packed = _packed(image)
            if packed is not None:
                images.append(packed)
        for each in images:
            for section in each.sections:
                if section.type in (SHT_SYMTAB, SHT_DYNSYM) and len(rows) < SYMBOLS:
                    self._add(each, section.offset, section.size, section.link, rows)
        # Of several names of a place the last counts: the largest, global, and plainest.
        rows.sort()
        self._starts = array("Q", (row[0] for row in rows))
        self._sizes = array("Q", (row[1] for row in rows))
        self._places = array("Q", (row[4] for row in rows))
        widest, self._reach = 0, array("Q")
        for start, size, *_ in rows:
            widest = max(widest, start + max(size, 1))
            self._reach.append(widest)

    def _add(
        self, image: Image, offset: int, size: int, link: int,
        rows: list[tuple[int, int, int, int, int]],
    ) -> None:  # fmt: skip
        layout = image.format.symbol
        if link >= len(image.sections) or size > SECTION_LIMIT:
            return
        try:
            names = image.content(image.sections[link])
            data = image.read(offset, size - size % layout.size)
        except ElfError:
            return
        table = len(self._names)
        self._names.append(names)
        for row in layout.iter_unpack(data):
            if image.word == 8:
                name, info, _, shndx, value, length = row
            else:
                name, value, length, info, _, shndx = row
            kind = info & 15
            function = kind in (STT_FUNC, STT_GNU_IFUNC)
            # Without a type are those of assembler, aarch64's sigreturn in the vdso among them.
            if not value or not name or not (function or kind == STT_NOTYPE):
                continue
            if not shndx:
                if not function:
                    continue
                length = 1  # the entry in the PLT for another file's function
            if kind == STT_NOTYPE and names[name : name + 1] in (b"$", b""):
                continue  # aarch64's marks for code and data
            underscores = names[name : name + 2].count(b"_")
            rows.append(
                (value, min(length, 1 << 40), info >> 4 == STB_GLOBAL, -underscores,
                 table << 40 | name)
            )  # fmt: skip
            if len(rows) >= SYMBOLS:
                return

    def at(self, vaddr: int) -> tuple[str, int] | None:
        """The function that covers an address, and how far into it; None: none does.

        A symbol without a size reaches to the next one.
        """
        last = bisect_right(self._starts, vaddr) - 1
        first = True
        for index in range(last, max(last - NESTED, -1), -1):
            if not first and self._reach[index] <= vaddr:
                break
            start, size = self._starts[index], self._sizes[index]
            if vaddr < start + size or (first and not size):
                return self._name(self._places[index]), vaddr - start
            first = False
        return None

    def names(self, vaddr: int) -> list[str]:
        """All names of the largest function that begins at an address, the usual one first."""
        last = bisect_right(self._starts, vaddr) - 1
        found: dict[str, None] = {}
        for index in range(last, max(last - ALIASES, -1), -1):
            if self._starts[index] != vaddr or self._sizes[index] != self._sizes[last]:
                break
            found[self._name(self._places[index])] = None
        return list(found)

    def _name(self, place: int) -> str:
        names, offset = self._names[place >> 40], place & (1 << 40) - 1
        end = names.find(b"\0", offset, offset + NAME_LIMIT)
        name = names[offset : end if end >= 0 else offset + NAME_LIMIT]
        # In .symtab a name's version stands behind it.
        return (name[:1] + name[1:].partition(b"@")[0]).decode("utf-8", "backslashreplace")


def _packed(image: Image) -> Image | None:
    """.gnu_debugdata: the symbols that a distribution's strip took away, packed with xz."""
    section = image.section(b".gnu_debugdata")
    if section is None:
        return None
    try:
        engine = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=UNPACKED_LIMIT)
        data = engine.decompress(image.content(section), UNPACKED_LIMIT)
        return Image(InMemory(data))
    except (ElfError, lzma.LZMAError, MemoryError, EOFError):
        return None
