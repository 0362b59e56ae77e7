"""The ELF object of one program: what a compiler could have written.

The program stands in a section that tells its type, the functions that it calls
in .text, its maps in .maps, their first contents in data sections, and
relocations where the loader had put fds and distances.  docs/extract.md says
what is the same as in the trace and what is not; what libbpf demands of an
object is from its libbpf.c (1.1 and 1.7).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from bpftrace_sys.export import dwarf_lines
from bpftrace_sys.export.btf_writer import BtfWriter, btf_ext
from bpftrace_sys.export.elf_writer import (
    R_BPF_64_32,
    R_BPF_64_64,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_WRITE,
    STB_GLOBAL,
    STB_LOCAL,
    STT_FUNC,
    STT_OBJECT,
    Elf,
    Section,
    Symbol,
)
from bpftrace_sys.export.map_definitions import MapTypes, map_flags, u32
from bpftrace_sys.export.section_names import section_name
from bpftrace_sys.story.listing import btf_fd, records
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Map, text_of
from bpftrace_sys.story.program_names import prog_key
from decoders.call import Call, inner_value
from decoders.formats import insn as isa
from decoders.formats.btf import Btf
from decoders.formats.btf_types import LINKAGES, BtfError, Kind, Type
from decoders.raw import EXIT
from decoders.records import NamedTuple, dataclass
from decoders.uapi import const
from decoders.values import Array, Fd, Insns, Int, Name

ARRAY: Final = 2  # BPF_MAP_TYPE_ARRAY
MAPS_OF_MAPS: Final = frozenset({12, 13})  # BPF_MAP_TYPE_ARRAY_OF_MAPS, HASH_OF_MAPS
ZEROS_LIMIT: Final = 1 << 20
"""Bytes of a data section of unknown content that are written out: more is a claim."""
NAME_LIMIT: Final = 100
DATA_SECTIONS: Final = re.compile(r"\.(rodata|data|bss)(\.[\w.]+)?")
MAP_FDS: Final = frozenset({isa.PSEUDO_MAP_FD, isa.PSEUDO_MAP_VALUE})
MAP_INDEXES: Final = frozenset({isa.PSEUDO_MAP_IDX, isa.PSEUDO_MAP_IDX_VALUE})
MAP_VALUES: Final = frozenset({isa.PSEUDO_MAP_VALUE, isa.PSEUDO_MAP_IDX_VALUE})
EXECUTED: Final = SHF_ALLOC | SHF_EXECINSTR
GLOBAL: Final = LINKAGES.index("global")


@dataclass(slots=True)
class Source:
    """What an object is made of."""

    call: Call
    """The PROG_LOAD."""
    model: Model
    btf: bytes | None
    """The BTF that it was given."""
    attached: Sequence[str]
    """Where the program was attached."""
    contents: Mapping[int, bytes]
    """First contents of maps of one entry, by kernel id."""


class Built(NamedTuple):
    """An object file, and a line about it."""

    data: bytes
    about: str


def build(source: Source) -> Built:
    """The object of a load."""
    return _Object(source).build()


def identifier(text: str, default: str) -> str:
    """A name that C, libbpf and the kernel take."""
    made = re.sub(r"[^A-Za-z0-9_]", "_", text)[:NAME_LIMIT]
    if not made:
        return default
    return f"_{made}" if made[0].isdigit() else made


class _Variable(NamedTuple):
    offset: int
    size: int
    symbol: Symbol


class _Data(NamedTuple):
    """A data section, and the variables in it."""

    section: Section
    variables: list[_Variable]


class _Fixup(NamedTuple):
    """A relocation, by its byte offset in the whole program."""

    offset: int
    symbol: Symbol
    type: int


class _Object:
    """The object in the making."""

    def __init__(self, source: Source) -> None:
        self.call = call = source.call
        self.model = source.model
        self.source = source
        insns = inner_value(call.attr("attr", "insns"))
        assert isinstance(insns, Insns)
        self.slots = len(insns.data) // isa.SLOT
        self.missing = insns.total - self.slots
        self.code = bytearray(insns.data[: self.slots * isa.SLOT])
        self.insns = list(isa.insns(insns.data))
        self.elf = Elf()
        self.writer, self.btf = _btf(source.btf)
        self.taken: set[str] = set()
        self._numbers: dict[str, int] = {}
        """The next number behind a name that is taken."""
        self.maps: dict[str, tuple[Map, Symbol]] = {}
        """By a key of the map's own."""
        self.data: dict[str, _Data] = {}
        self.fixups: list[_Fixup] = []
        self.left: set[str] = set()
        """What of the machine of the trace stays in the instructions."""

    def build(self) -> Built:
        name, kind = prog_key(self.call, self.model)
        functions = self._functions(identifier(name, "prog"))
        starts = sorted(functions)
        # libbpf takes a program's first function from its section, all others from .text.
        split = starts[1] if len(starts) > 1 else self.slots
        main = self.elf.section(self._section(kind), flags=EXECUTED)
        text = self.elf.section(".text", flags=EXECUTED) if split < self.slots else None
        symbols = {}
        for start, end in zip(starts, [*starts[1:], self.slots], strict=True):
            at, base = (main, 0) if text is None or start < split else (text, split)
            symbols[start] = self.elf.symbol(
                functions[start], at, (start - base) * isa.SLOT, (end - start) * isa.SLOT, STT_FUNC
            )
        license_ = text_of(self.call.attr("attr", "license")).encode("utf-8", "replace")
        self.elf.section("license", license_ + b"\0", flags=SHF_ALLOC | SHF_WRITE, align=1)
        self._relocate(symbols)
        self._define_maps()
        edge = split * isa.SLOT
        main.data = bytes(self.code[:edge])
        if text is not None:
            text.data = bytes(self.code[edge:])
        for fixup in self.fixups:
            at, base = (main, 0) if text is None or fixup.offset < edge else (text, edge)
            self.elf.reloc(at, fixup.offset - base, fixup.symbol, fixup.type)
        self._debug(main, text, edge)
        return Built(self.elf.dump(), self._about(kind, len(starts)))

    def _about(self, kind: str, functions: int) -> str:
        words = [f"{kind}, {self.slots} instructions"]
        if functions > 1:
            words.append(f"{functions} functions")
        for count, word in ((len(self.maps), "map"), (len(self.data), "data section")):
            if count:
                words.append(f"{count} {word}{'s' if count > 1 else ''}")
        if self.btf is not None:
            words.append("BTF")
        if self.missing:
            words.append(f"the last {self.missing} instructions are missing")
        if self.left:
            words.append(f"left as they were: {', '.join(sorted(self.left))}")
        return ", ".join(words)

    def _section(self, kind: str) -> str:
        attach = inner_value(self.call.attr("attr", "expected_attach_type"))
        name = attach.name or "" if isinstance(attach, Name) else ""
        target = inner_value(self.call.attr("attr", "attach_btf_id"))
        flags = self.call.number("attr", "prog_flags") or 0
        return section_name(
            kind,
            name.removeprefix("BPF_").lower(),
            target.note or "" if isinstance(target, Int) else "",
            self.source.attached,
            bool(flags & const.BPF_F_SLEEPABLE),
            bool(flags & const.BPF_F_XDP_HAS_FRAGS),
        )

    def _functions(self, main: str) -> dict[int, str]:
        """Where functions start, and their names."""
        names: dict[int, str] = {}
        if self.btf is not None:
            for off, type_id in records(self.call.attr("attr", "func_info"), "insn_off", "type_id"):
                names.setdefault(off, self.btf.name(type_id))
        starts = {pc for pc, kind in isa.targets(self.insns).items() if kind != "jump"}
        starts |= names.keys() & {insn.pc for insn in self.insns}
        found = {0: self._unique(main)}
        for pc in sorted(starts - {0}):
            found[pc] = self._unique(identifier(names.get(pc, ""), f"function_at_{pc}"))
        return found

    def _unique(self, name: str) -> str:
        made, number = name, self._numbers.get(name, 2)
        while made in self.taken:
            made = f"{name}_{number}"
            number += 1
        self._numbers[name] = number
        self.taken.add(made)
        return made

    # -- instructions

    def _relocate(self, functions: Mapping[int, Symbol]) -> None:
        by_fd, by_index = self._map_fds()
        for insn in self.insns:
            target = isa.call_target(insn)
            if target is not None:
                self._refer_to_function(insn, functions.get(target))
            elif insn.wide and insn.src in MAP_FDS | MAP_INDEXES:
                fds = by_fd if insn.src in MAP_FDS else by_index
                self._refer_to_map(insn, fds.get(insn.imm))
            elif insn.wide and insn.src == isa.PSEUDO_BTF_ID:
                self.left.add("variables by BTF id")
            elif insn.code == isa.CALL_K and insn.src == isa.PSEUDO_KFUNC_CALL:
                self.left.add("kfuncs by BTF id")

    def _map_fds(self) -> tuple[dict[int, Map], dict[int, Map]]:
        """Maps by fd, and by index of fd_array."""
        by_fd: dict[int, Map] = {}
        for fact in self.call.raw.fds:
            if fact.stage != EXIT and fact.kind == "map":
                found = self.model.object(fact, self.call.raw.pid)
                if isinstance(found, Map) and found.map_type is not None:
                    by_fd[fact.fd] = found
        by_index: dict[int, Map] = {}
        array = inner_value(self.call.attr("attr", "fd_array"))
        for index, item in enumerate(array.items if isinstance(array, Array) else ()):
            if isinstance(item, Fd) and item.value in by_fd:
                by_index[index] = by_fd[item.value]
        return by_fd, by_index

    def _refer_to_function(self, insn: isa.Insn, symbol: Symbol | None) -> None:
        if symbol is None:
            self.left.add("calls to no function")
        elif insn.wide:
            self._clear(insn, 0, symbol)
        else:
            at = insn.pc * isa.SLOT
            self.code[at + 4 : at + 8] = b"\xff\xff\xff\xff"  # -1: from the next slot
            self.fixups.append(_Fixup(at, symbol, R_BPF_64_32))

    def _refer_to_map(self, insn: isa.Insn, found: Map | None) -> None:
        if found is None:
            self.left.add("maps that the trace does not know")
        elif insn.src not in MAP_VALUES:
            self._clear(insn, 0, self._map(found))
        elif (u32(found.map_type), u32(found.max_entries)) != (ARRAY, 1):
            self.left.add("addresses in maps that are no data sections")
        else:
            data = self._data(found)
            offset = (insn.next_imm or 0) & 0xFFFFFFFF
            for variable in data.variables:
                if variable.offset <= offset < variable.offset + variable.size:
                    self._clear(insn, offset - variable.offset, variable.symbol)
                    return
            self._clear(insn, offset, self.elf.section_symbol(data.section))

    def _clear(self, insn: isa.Insn, addend: int, symbol: Symbol) -> None:
        """An ld_imm64 as compilers leave it: no fd, no kind, a relocation instead."""
        at = insn.pc * isa.SLOT
        self.code[at + 1] &= 0x0F
        self.code[at + 4 : at + 8] = addend.to_bytes(4, "little")
        self.code[at + 12 : at + 16] = bytes(len(self.code[at + 12 : at + 16]))
        self.fixups.append(_Fixup(at, symbol, R_BPF_64_64))

    # -- maps

    def _map(self, found: Map) -> Symbol:
        key = _key(found)
        if key not in self.maps:
            name = self._unique(identifier(found.name, f"map_{len(self.maps) + 1}"))
            self.maps[key] = (found, self.elf.symbol(name, None, kind=STT_OBJECT))
        return self.maps[key][1]

    def _data(self, found: Map) -> _Data:
        key = _key(found)
        known = self.data.get(key)
        if known is not None:
            return known
        size = u32(found.value_size)
        content = self.source.contents.get(found.id) if found.id is not None else None
        rodata = bool(map_flags(found) & const.BPF_F_RDONLY_PROG)
        datasec = self._datasec(found)
        wanted = ".rodata" if rodata else ".data" if content and any(content) else ".bss"
        if datasec is not None and DATA_SECTIONS.fullmatch(datasec.name):
            wanted = datasec.name
        name, number = wanted, 2
        while name in {data.section.name for data in self.data.values()}:
            name = f"{wanted}.{number}"
            number += 1
        flags = SHF_ALLOC if rodata else SHF_ALLOC | SHF_WRITE
        content = content or b""
        unknown = size > ZEROS_LIMIT and len(content) < size
        if unknown or (name.startswith(".bss") and not any(content)):
            section = self.elf.section(name, flags=flags, nobits=size)
        else:
            section = self.elf.section(name, content[:size].ljust(size, b"\0"), flags=flags)
        made = self.data[key] = _Data(section, self._variables(section, datasec))
        return made

    def _datasec(self, found: Map) -> Type | None:
        """The section that a data map's values are, by the program's BTF."""
        if self.btf is None or not self._shares_btf(found):
            return None
        kind = self.btf.type(u32(found.value_type))
        return kind if kind is not None and kind.kind == Kind.DATASEC else None

    def _shares_btf(self, found: Map) -> bool:
        fact = btf_fd(self.call)
        return fact is not None and fact.id is not None and fact.id == found.btf_id

    def _variables(self, section: Section, datasec: Type | None) -> list[_Variable]:
        assert self.btf is not None or datasec is None
        made = []
        for place in datasec.variables if datasec is not None else ():
            variable = self.btf.type(place.type) if self.btf is not None else None
            if variable is None or variable.kind != Kind.VAR or not variable.name:
                continue
            name = identifier(variable.name, "variable")
            # A global one must be found under its own name.
            if variable.linkage == GLOBAL and name == variable.name and name not in self.taken:
                binding = STB_GLOBAL
                self.taken.add(name)
            else:
                binding = STB_LOCAL
                self.writer.make_static(variable.id)
            symbol = self.elf.symbol(name, section, place.offset, place.size, STT_OBJECT, binding)
            made.append(_Variable(place.offset, place.size, symbol))
        return made

    def _define_maps(self) -> None:
        """.maps and its BTF, in the form that libbpf reads."""
        self._retire_sections()
        if not self.maps:
            return
        defs = MapTypes(self.writer)
        variables = []
        size = 0
        section = self.elf.section(".maps", flags=SHF_ALLOC | SHF_WRITE)
        for found, symbol in self.maps.values():
            struct, length = defs.define(found, self._inner(found), self._shares_btf(found))
            symbol.section, symbol.value, symbol.size = section, size, length
            variables.append((self.writer.variable(symbol.name, struct), size, length))
            size += length
        self.writer.section(".maps", variables, size)
        section.data = bytes(size)

    def _retire_sections(self) -> None:
        """Sections of the trace's BTF that are not in this object.

        Their variables have no symbols here, so they must be static; and the maps
        of the whole object, of which this program uses some, are defined anew.
        """
        if self.btf is None:
            return
        present = {data.section.name for data in self.data.values()}
        for type_id in self.btf.ids_of(Kind.DATASEC):
            section = self.btf.type(type_id)
            if section is None or section.name in present or section.name in (".ksyms", ".kconfig"):
                continue
            if section.name == ".maps":
                self.writer.rename(type_id, ".maps.traced")
            for place in section.variables:
                if self.btf.kind(place.type) == Kind.VAR:
                    self.writer.make_static(place.type)

    def _inner(self, found: Map) -> Map | None:
        """The map that a map of maps was made after."""
        if u32(found.map_type) not in MAPS_OF_MAPS or found.call is None:
            return None
        inner = self.model.by_fd(found.call, "attr", "inner_map_fd")
        return inner if isinstance(inner, Map) else None

    # -- debug information

    def _debug(self, main: Section, text: Section | None, edge: int) -> None:
        if self.btf is None:
            if self.maps:
                self.elf.section(".BTF", self.writer.dump(), align=4)
            return
        attr = self.call.attr
        places = [(main, 0, edge), *([(text, edge, len(self.code))] if text is not None else [])]
        funcs = [
            (off * isa.SLOT, type_id)
            for off, type_id in records(attr("attr", "func_info"), "insn_off", "type_id")
        ]
        lines = [
            (off * isa.SLOT, *rest)
            for off, *rest in records(
                attr("attr", "line_info"), "insn_off", "file_name_off", "line_off", "line_col"
            )
        ]
        relos = records(
            attr("attr", "core_relos"), "insn_off", "type_id", "access_str_off", "kind"
        )
        parts = []
        for rows in (funcs, lines, relos):
            # The kernel wants rising offsets, and takes nothing beyond the program.
            rows = sorted(rows, key=lambda row: row[0])
            parts.append(
                [
                    (
                        section.name,
                        [(row[0] - start, *row[1:]) for row in rows if start <= row[0] < end],
                    )
                    for section, start, end in places
                ]
            )
        extended = btf_ext(self.writer, *parts)
        self.elf.section(".BTF", self.writer.dump(), align=4)
        self.elf.section(".BTF.ext", extended, align=4)
        named = dict(parts[1])
        dwarf_lines.add(
            self.elf,
            [(section, self._rows(named[section.name])) for section, _, _ in places],
        )

    def _rows(self, lines: Sequence[tuple[int, ...]]) -> list[dwarf_lines.Row]:
        assert self.btf is not None
        string = self.btf.string
        return [
            dwarf_lines.Row(
                off, string(file_off), line_col >> 10, line_col & 0x3FF, string(line_off)
            )
            for off, file_off, line_off, line_col in lines
        ]


def _btf(data: bytes | None) -> tuple[BtfWriter, Btf | None]:
    """A writer that begins with the program's BTF, and that BTF read, if it is sound."""
    if data is not None:
        try:
            writer = BtfWriter(data)
        except BtfError:
            return BtfWriter(), None
        read = writer.read
        if read is not None and read.problem is None and read.byteorder == "little":
            return writer, read
    return BtfWriter(), None


def _key(found: Map) -> str:
    return f"{found.kind} {found.id}" if found.id is not None else f"object {id(found)}"


__all__ = ["Built", "Source", "build", "identifier"]
