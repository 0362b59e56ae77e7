"""Writing relocatable ELF files for the BPF machine: sections, symbols, relocations.

ELF64, little endian, ET_REL, EM_BPF, as clang writes them; numbers from elf.h
(glibc 2.36) and from LLVM's ELFRelocs/BPF.def.
"""

from __future__ import annotations

import struct
from typing import Final

from decoders.records import dataclass, field

EM_BPF: Final = 247
ET_REL: Final = 1

SHT_PROGBITS: Final = 1
SHT_SYMTAB: Final = 2
SHT_STRTAB: Final = 3
SHT_NOBITS: Final = 8
SHT_REL: Final = 9

SHF_WRITE: Final = 1
SHF_ALLOC: Final = 2
SHF_EXECINSTR: Final = 4
SHF_INFO_LINK: Final = 0x40

STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION = range(4)
STB_LOCAL, STB_GLOBAL = range(2)

R_BPF_64_64: Final = 1
"""An ld_imm64: the symbol's address, the addend in imm of its first slot."""
R_BPF_64_ABS64: Final = 2
R_BPF_64_32: Final = 10
"""A call: the symbol's distance in slots, less one, the addend in imm."""

_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION: Final = struct.Struct("<IIQQQQIIQQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_REL: Final = struct.Struct("<QQ")
_IDENT: Final = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")


@dataclass(eq=False, slots=True)
class Section:
    """A section.  ``size`` counts where there are no bits."""

    name: str
    data: bytes = b""
    type: int = SHT_PROGBITS
    flags: int = 0
    align: int = 8
    size: int = 0
    link: int = 0
    info: int = 0
    entry_size: int = 0
    index: int = 0


@dataclass(eq=False, slots=True)
class Symbol:
    """A symbol; its section is None for one that is defined elsewhere."""

    name: str
    section: Section | None
    value: int = 0
    size: int = 0
    type: int = STT_NOTYPE
    binding: int = STB_GLOBAL
    index: int = 0


@dataclass(eq=False, slots=True)
class _Reloc:
    section: Section
    offset: int
    symbol: Symbol
    type: int


@dataclass(slots=True)
class Elf:
    """A file in the making."""

    sections: list[Section] = field(default_factory=list)
    symbols: list[Symbol] = field(default_factory=list)
    _relocs: list[_Reloc] = field(default_factory=list)
    _by_section: dict[str, Symbol] = field(default_factory=dict)

    def section(
        self,
        name: str,
        data: bytes = b"",
        *,
        flags: int = 0,
        align: int = 8,
        nobits: int | None = None,
    ) -> Section:
        """Adds a section; ``nobits``: one of so many zeros that are not in the file."""
        made = Section(name, data, flags=flags, align=align)
        if nobits is not None:
            made.type, made.size = SHT_NOBITS, nobits
        self.sections.append(made)
        made.index = len(self.sections)
        return made

    def symbol(
        self,
        name: str,
        section: Section | None,
        value: int = 0,
        size: int = 0,
        kind: int = STT_NOTYPE,
        binding: int = STB_GLOBAL,
    ) -> Symbol:
        """Adds a symbol."""
        made = Symbol(name, section, value, size, kind, binding)
        self.symbols.append(made)
        return made

    def section_symbol(self, section: Section) -> Symbol:
        """The symbol that stands for a section."""
        known = self._by_section.get(section.name)
        if known is None:
            known = self.symbol("", section, kind=STT_SECTION, binding=STB_LOCAL)
            self._by_section[section.name] = known
        return known

    def reloc(self, section: Section, offset: int, symbol: Symbol, kind: int) -> None:
        """Adds a relocation; its addend is in the section's bytes."""
        self._relocs.append(_Reloc(section, offset, symbol, kind))

    def dump(self) -> bytes:
        """The file."""
        sections = list(self.sections)
        names = _Strings()
        # Local symbols come first: the table's info says where the others begin.
        symbols = sorted(self.symbols, key=lambda symbol: symbol.binding != STB_LOCAL)
        table = [bytes(_SYMBOL.size)]
        for index, symbol in enumerate(symbols, 1):
            symbol.index = index
            table.append(
                _SYMBOL.pack(
                    names.add(symbol.name),
                    symbol.binding << 4 | symbol.type,
                    0,
                    symbol.section.index if symbol.section is not None else 0,
                    symbol.value,
                    symbol.size,
                )
            )
        locals_ = sum(symbol.binding == STB_LOCAL for symbol in symbols)
        symtab = len(sections) + len({reloc.section.name for reloc in self._relocs}) + 1
        for section in self.sections:
            rows = sorted(
                (reloc for reloc in self._relocs if reloc.section is section),
                key=lambda reloc: reloc.offset,
            )
            if rows:
                data = b"".join(
                    _REL.pack(row.offset, row.symbol.index << 32 | row.type) for row in rows
                )
                sections.append(
                    Section(
                        f".rel{section.name}", data, SHT_REL, SHF_INFO_LINK,
                        link=symtab, info=section.index, entry_size=_REL.size,
                    )
                )  # fmt: skip
        sections.append(
            Section(
                ".symtab", b"".join(table), SHT_SYMTAB,
                link=symtab + 1, info=locals_ + 1, entry_size=_SYMBOL.size,
            )
        )  # fmt: skip
        offsets = [names.add(section.name) for section in sections]
        offsets.append(names.add(".strtab"))
        sections.append(Section(".strtab", bytes(names.data), SHT_STRTAB, align=1))
        return _file(sections, offsets)


class _Strings:
    """A string table."""

    def __init__(self) -> None:
        self.data = bytearray(1)
        self._known = {"": 0}

    def add(self, text: str) -> int:
        """The offset of a string; a NUL would end it, so it is left out."""
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = len(self.data)
            self.data += text.encode("utf-8", "replace").replace(b"\0", b"") + b"\0"
        return found


def _file(sections: list[Section], name_offsets: list[int]) -> bytes:
    out = bytearray(_HEADER.size)
    headers = [bytes(_SECTION.size)]
    for section, name in zip(sections, name_offsets, strict=True):
        out += bytes(-len(out) % section.align)
        nobits = section.type == SHT_NOBITS
        headers.append(
            _SECTION.pack(
                name,
                section.type,
                section.flags,
                0,
                len(out),
                section.size if nobits else len(section.data),
                section.link,
                section.info,
                section.align,
                section.entry_size,
            )
        )
        out += b"" if nobits else section.data
    out += bytes(-len(out) % 8)
    _HEADER.pack_into(
        out, 0, _IDENT, ET_REL, EM_BPF, 1, 0, 0, len(out), 0,
        _HEADER.size, 0, 0, _SECTION.size, len(headers), len(sections),
    )  # fmt: skip
    return bytes(out) + b"".join(headers)
