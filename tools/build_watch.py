#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Builds the eBPF engine's programs: C to object, object to what is loaded at run time.

    tools/build_watch.py            writes watch.bpf.o and watch.image
    tools/build_watch.py --link     only the image, from the object that is there

clang 14 compiles (another one by --clang: other instructions, which work as well). What can be done
before the programs run is done here: each program gets the subprograms that it calls appended, and
its own func_info, line_info and core_relos cut out of .BTF.ext, so that little is left to
bpftrace_sys/record/ebpf/loader.py: create maps, write their fds into instructions, load.

It takes seconds.

The image is a line of JSON, then the bytes that it names, compressed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import subprocess
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import venv_python

venv_python.needs("elftools")

from elftools.elf.elffile import ELFFile  # noqa: E402
from elftools.elf.relocation import RelocationSection  # noqa: E402
from elftools.elf.sections import SymbolTableSection  # noqa: E402

FOLDER: Final = Path(__file__).resolve().parents[1] / "bpftrace_sys" / "record" / "ebpf"
SOURCE: Final = FOLDER / "watch.bpf.c"
OBJECT: Final = FOLDER / "watch.bpf.o"
IMAGE: Final = FOLDER / "watch.image"
CLANG: Final = "clang-14"
FLAGS: Final = (
    "-target", "bpf", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror",
    "-Wno-unused-const-variable", "-Wno-unused-parameter", "-ffile-prefix-map=%s=.",
)  # fmt: skip

LD_IMM64: Final = 0x18
CALL: Final = 0x85
PSEUDO_CALL: Final = 1
PSEUDO_MAP_FD: Final = 1
PSEUDO_MAP_VALUE: Final = 2
PSEUDO_FUNC: Final = 4
R_BPF_64_64: Final = 1
R_BPF_64_32: Final = 10
INSN: Final = struct.Struct("<BBhi")
KIND_PTR, KIND_ARRAY, KIND_VAR, KIND_DATASEC = 2, 3, 14, 15
EXTRA: Final = {
    1: (4, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 13: (0, 8), 14: (4, 0),
    15: (0, 12), 17: (4, 0), 19: (0, 12),
}  # fmt: skip
"""By BTF kind the bytes after struct btf_type: once, and for each of vlen."""


class BuildError(Exception):
    """The object holds what the loader could not do."""


def compile_object(clang: str, source: Path, target: Path) -> None:
    """Runs clang; paths in the object are relative to the source's folder."""
    flags = [flag.replace("%s", str(source.parent)) for flag in FLAGS]
    command = [clang, *flags, "-c", source.name, "-o", str(target.resolve())]
    subprocess.run(command, cwd=source.parent, check=True)
    # Without DWARF it is a quarter: BTF is all that is needed.
    strip = shutil.which(clang.replace("clang", "llvm-strip")) or "llvm-strip"
    subprocess.run([strip, "-g", str(target)], check=True)


# ---------------------------------------------------------------- the object


@dataclass(frozen=True)
class Symbol:
    """Of an ELF file; ``section`` is a section's number."""

    name: str
    kind: str
    section: int
    value: int
    size: int


@dataclass(frozen=True)
class Place:
    """Where a function begins."""

    section: int
    offset: int


class Btf:
    """The types of an object, as far as maps need them."""

    def __init__(self, blob: bytes) -> None:
        header, type_off, type_len, str_off, str_len = struct.unpack_from("<IIIII", blob, 4)
        self.strings = blob[header + str_off : header + str_off + str_len]
        self.types: list[tuple[str, int, int, int, bytes]] = [("", 0, 0, 0, b"")]
        """Name, kind, size or type, offset in the blob, what follows."""
        at, end = header + type_off, header + type_off + type_len
        while at < end:
            name, info, ref = struct.unpack_from("<III", blob, at)
            kind, vlen = info >> 24 & 31, info & 0xFFFF
            once, each = EXTRA.get(kind, (0, 0))
            size = once + each * vlen
            self.types.append((self.string(name), kind, ref, at, blob[at + 12 : at + 12 + size]))
            at += 12 + size

    def string(self, at: int) -> str:
        """A name."""
        return self.strings[at : self.strings.index(b"\0", at)].decode()

    def size(self, index: int) -> int:
        """Bytes of a type."""
        _, kind, ref, _, extra = self.types[index]
        if kind == KIND_PTR:
            return 8
        if kind == KIND_ARRAY:
            element, _, count = struct.unpack("<III", extra)
            return self.size(element) * int(count)
        return self.size(ref) if kind in (8, 9, 10, 11, 18) else ref

    def map_definition(self, var: int) -> dict[str, int]:
        """The members of a map in SEC(".maps"): UINT's number, TYPE's type."""
        struct_type = self.types[self.types[var][2]]
        found = {}
        for name, ref, _ in struct.iter_unpack("<III", struct_type[4]):
            target = self.types[ref][2]
            _, kind, _, _, extra = self.types[target]
            number = struct.unpack("<III", extra)[2] if kind == KIND_ARRAY else target
            found[self.string(name)] = number
        return found


@dataclass
class Program:
    """A program, linked."""

    name: str
    section: str
    code: bytearray = field(default_factory=bytearray)
    infos: list[bytearray] = field(default_factory=lambda: [bytearray() for _ in range(3)])
    """func_info, line_info, core_relos."""
    maps: list[tuple[int, str, int]] = field(default_factory=list)
    """Instruction, map, offset in its value, or -1 for the map itself."""


class Object:
    """A BPF object made by clang."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            elf = ELFFile(file)
            sections = list(elf.iter_sections())
            self.names = [section.name for section in sections]
            self.data = [
                bytes(section["sh_size"]) if section["sh_type"] == "SHT_NOBITS" else section.data()
                for section in sections
            ]
            self.code = [
                bool(section["sh_flags"] & 4) and section["sh_type"] == "SHT_PROGBITS"
                for section in sections
            ]
            table = elf.get_section_by_name(".symtab")
            assert isinstance(table, SymbolTableSection)
            self.symbols = [
                Symbol(
                    symbol.name, symbol["st_info"]["type"],
                    symbol["st_shndx"] if isinstance(symbol["st_shndx"], int) else 0,
                    symbol["st_value"], symbol["st_size"],
                )
                for symbol in table.iter_symbols()
            ]  # fmt: skip
            self.relocations: dict[int, dict[int, tuple[int, Symbol]]] = {}
            for section in sections:
                if isinstance(section, RelocationSection):
                    self.relocations[section["sh_info"]] = {
                        rel["r_offset"]: (rel["r_info_type"], self.symbols[rel["r_info_sym"]])
                        for rel in section.iter_relocations()
                    }
        blob = self.data[self.names.index(".BTF")]
        self.btf = Btf(blob)
        self.blob = self._sized(blob)
        self.ext = self._ext(self.data[self.names.index(".BTF.ext")])
        self.functions = {
            Place(symbol.section, symbol.value): symbol
            for symbol in self.symbols
            if symbol.kind == "STT_FUNC"
        }
        self.values = {
            name: self.data[index]
            for index, name in enumerate(self.names)
            if name.startswith((".bss", ".data", ".rodata")) and self.data[index]
        }
        for name in self.values:
            if self.relocations.get(self.names.index(name)):
                raise BuildError(f"{name} holds addresses, which a BPF map cannot")

    def _sized(self, blob: bytes) -> bytes:
        """The BTF with what clang leaves to the linker: sizes and offsets of DATASECs."""
        fixed = bytearray(blob)
        relocations = self.relocations.get(self.names.index(".BTF"), {})
        for name, kind, _, at, extra in self.btf.types:
            if kind != KIND_DATASEC:
                continue
            entries = []
            for number, (var, offset, size) in enumerate(struct.iter_unpack("<III", extra)):
                found = relocations.get(at + 12 + number * 12 + 4)
                entries.append((offset + (found[1].value if found else 0), var, size))
            for number, (offset, var, size) in enumerate(sorted(entries)):
                struct.pack_into("<III", fixed, at + 12 + number * 12, var, offset, size)
            end = max(offset + size for offset, _, size in entries)
            whole = len(self.data[self.names.index(name)]) if name in self.names else end
            struct.pack_into("<I", fixed, at + 8, whole)
        return bytes(fixed)

    def _ext(self, blob: bytes) -> list[tuple[int, dict[str, list[bytes]]]]:
        """.BTF.ext's func_info, line_info, core_relo: a record's size, records by section."""
        header = struct.unpack_from("<I", blob, 4)[0]
        parts = []
        for where in (8, 16, 24):
            offset, length = struct.unpack_from("<II", blob, where)
            by_section: dict[str, list[bytes]] = {}
            at, end = header + offset, header + offset + length
            size = struct.unpack_from("<I", blob, at)[0]
            at += 4
            while at < end:
                name, count = struct.unpack_from("<II", blob, at)
                at += 8
                records = [blob[at + number * size :][:size] for number in range(count)]
                by_section[self.btf.string(name)] = records
                at += count * size
            parts.append((size, by_section))
        return parts

    # ------------------------------------------------------------ linking

    def programs(self) -> list[Program]:
        """Every function of a section that is not .text, each with all that it calls."""
        return [
            self._link(symbol)
            for symbol in sorted(self.functions.values(), key=lambda s: (s.section, s.value))
            if self.names[symbol.section] != ".text"
        ]

    def _link(self, main: Symbol) -> Program:
        program = Program(main.name, self.names[main.section])
        bases: dict[Place, int] = {}
        calls: list[tuple[int, Place]] = []
        waiting = [Place(main.section, main.value)]
        while waiting:
            place = waiting.pop(0)
            if place in bases:
                continue
            symbol = self.functions[place]
            base = bases[place] = len(program.code) // 8
            code = self.data[place.section][symbol.value :][: symbol.size]
            program.code += code
            for at in range(len(code) // 8):
                called = self._relocate(program, base + at, place, at)
                if called is not None:
                    calls.append((base + at, called))
                    waiting.append(called)
            self._infos(program, symbol, base)
        for at, place in calls:
            opcode, regs, offset, _ = INSN.unpack_from(program.code, at * 8)
            INSN.pack_into(program.code, at * 8, opcode, regs, offset, bases[place] - at - 1)
        return program

    def _relocate(self, program: Program, at: int, place: Place, local: int) -> Place | None:
        """Notes the map of an instruction; returns the function that it leads to, if one."""
        opcode, regs, offset, imm = INSN.unpack_from(program.code, at * 8)
        found = self.relocations.get(place.section, {}).get(place.offset + local * 8)
        if found is None:
            if opcode == CALL and regs >> 4 == PSEUDO_CALL:
                return Place(place.section, place.offset + (local + imm + 1) * 8)
            return None
        kind, symbol = found
        name = self.names[symbol.section]
        if kind == R_BPF_64_32 and opcode == CALL:
            return Place(symbol.section, symbol.value + (imm + 1) * 8)
        if kind != R_BPF_64_64 or opcode != LD_IMM64:
            raise BuildError(f"a relocation of kind {kind} to {symbol.name!r}")
        if self.code[symbol.section]:
            INSN.pack_into(program.code, at * 8, opcode, regs & 15 | PSEUDO_FUNC << 4, offset, 0)
            return Place(symbol.section, symbol.value + imm)
        pseudo = PSEUDO_MAP_FD if name == ".maps" else PSEUDO_MAP_VALUE
        if name == ".maps":
            program.maps.append((at, symbol.name, -1))
        elif name in self.values:
            program.maps.append((at, name, symbol.value + imm))
        else:
            raise BuildError(f"{symbol.name!r} in {name} is in no map")
        INSN.pack_into(program.code, at * 8, opcode, regs & 15 | pseudo << 4, offset, 0)
        return None

    def _infos(self, program: Program, symbol: Symbol, base: int) -> None:
        """A function's records: func_info and line_info count instructions, core_relos bytes."""
        for (_, by_section), out, unit in zip(self.ext, program.infos, (8, 8, 1), strict=True):
            for record in by_section.get(self.names[symbol.section], ()):
                offset = struct.unpack_from("<I", record)[0] - symbol.value
                if 0 <= offset < symbol.size:
                    out += struct.pack("<I", (offset + base * 8) // unit) + record[4:]

    # ------------------------------------------------------------ the image

    def maps(self) -> list[dict[str, Any]]:
        """What to create: those of .maps, then one for each section of variables."""
        found: list[dict[str, Any]] = []
        sections: dict[str, int] = {}
        for index, (name, kind, _, _, extra) in enumerate(self.btf.types):
            if kind != KIND_DATASEC:
                continue
            sections[name] = index
            if name != ".maps":
                continue
            for var, _, _ in struct.iter_unpack("<III", extra):
                definition = self.btf.map_definition(var)
                key, value = definition.get("key", 0), definition.get("value", 0)
                found.append(
                    {
                        "name": self.btf.types[var][0],
                        "type": definition["type"],
                        "key_size": self.btf.size(key) if key else 0,
                        "value_size": self.btf.size(value) if value else 0,
                        "max_entries": definition.get("max_entries", 0),
                        "flags": definition.get("map_flags", 0),
                        "key_type": key,
                        "value_type": value,
                    }
                )
        for name, data in self.values.items():
            found.append(
                {
                    "name": name,
                    "type": 2,
                    "key_size": 4,
                    "value_size": len(data),
                    "max_entries": 1,
                    "flags": 1 << 10 | (1 << 7 if name.startswith(".rodata") else 0),
                    "key_type": 0,
                    "value_type": sections.get(name, 0),
                }
            )
        return found

    def variables(self) -> dict[str, list[Any]]:
        """Name of a global variable -> map, offset, size."""
        return {
            symbol.name: [self.names[symbol.section], symbol.value, symbol.size]
            for symbol in self.symbols
            if symbol.kind == "STT_OBJECT" and self.names[symbol.section] in self.values
        }


def image(found: Object) -> bytes:
    """What the loader reads."""
    blobs = bytearray()

    def put(data: bytes | bytearray) -> list[int]:
        place = [len(blobs), len(data)]
        blobs.extend(data)
        return place

    maps = [
        {**one, "data": put(found.values[one["name"]]) if one["name"] in found.values else None}
        for one in found.maps()
    ]
    programs = [
        {
            "name": program.name,
            "section": program.section,
            "insns": put(program.code),
            "func_info": put(program.infos[0]),
            "line_info": put(program.infos[1]),
            "core_relos": put(program.infos[2]),
            "maps": program.maps,
        }
        for program in found.programs()
    ]
    head = {
        "btf": put(found.blob),
        "record_sizes": [size for size, _ in found.ext],
        "maps": maps,
        "programs": programs,
        "variables": found.variables(),
    }
    line = json.dumps(head, separators=(",", ":"), sort_keys=True)
    return line.encode() + b"\n" + zlib.compress(bytes(blobs), 9)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--link", action="store_true", help="do not compile")
    parser.add_argument("--clang", default=CLANG)
    options = parser.parse_args()
    if not options.link:
        compile_object(options.clang, SOURCE, OBJECT)
    found = Object(OBJECT)
    IMAGE.write_bytes(image(found))
    for program in found.programs():
        print(f"{program.name:<14} {program.section:<24} {len(program.code) // 8:>6} instructions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
