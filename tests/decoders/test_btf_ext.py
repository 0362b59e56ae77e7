""".BTF.ext: lines, functions and relocations, against DWARF, symbol tables and libbpf."""

from __future__ import annotations

import io
import re
import struct
import subprocess
from pathlib import Path
from typing import Final

import pytest

from decoders.formats import btf_c, line_info
from decoders.formats.btf import Btf, Kind, parse
from tests.support import bpf_asm
from tests.support.btf import (
    PROGRAM,
    Blob,
    compiled,
    needs,
    needs_vmlinux,
    section,
)


def ext_records(data: bytes, which: int) -> tuple[int, dict[int, bytes]]:
    """Of a .BTF.ext section: the record size, and each section's records by its name's offset."""
    header_size = struct.unpack_from("<I", data, 4)[0]
    offset, length = struct.unpack_from("<II", data, 8 + which * 8)
    area = data[header_size + offset :][:length]
    record_size = struct.unpack_from("<I", area)[0]
    found = {}
    at = 4
    while at < len(area):
        name, count = struct.unpack_from("<II", area, at)
        found[name] = area[at + 8 : at + 8 + count * record_size]
        at += 8 + count * record_size
    return record_size, found


def in_slots(data: bytes, record_size: int) -> bytes:
    """Records of an object file count bytes where the kernel counts slots."""
    out = bytearray(data)
    for at in range(0, len(out), record_size):
        struct.pack_into("<I", out, at, struct.unpack_from("<I", out, at)[0] // 8)
    return bytes(out)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The object of PROGRAM."""
    return compiled(tmp_path, PROGRAM)


@needs("clang")
def test_lines_are_those_of_dwarf(tmp_path: Path) -> None:
    elffile = pytest.importorskip("elftools.elf.elffile")
    # All code in one section: DWARF's addresses alone do not tell which they mean.
    path = compiled(tmp_path, PROGRAM.replace("raw_tp/sys_enter", ".text"))
    btf = parse(section(path, ".BTF"))
    size, sections = ext_records(section(path, ".BTF.ext"), 1)
    dwarf = elffile.ELFFile(io.BytesIO(path.read_bytes())).get_dwarf_info()
    rows = {
        (entry.state.address // 8, entry.state.line, entry.state.column)
        for unit in dwarf.iter_CUs()
        for entry in dwarf.line_program_for_CU(unit).get_entries()
        if entry.state is not None
    }
    source = PROGRAM.splitlines()
    (data,) = sections.values()
    lines = line_info.line_infos(in_slots(data, size), size, btf)
    assert {(each.insn_off, each.line, each.column) for each in lines} <= rows
    assert len(lines) > 10
    for each in lines:
        assert each.file.endswith("source.c")
        assert each.text == (source[each.line - 1] if each.line else "")


@needs("clang")
def test_functions_are_those_of_the_symbol_table(program: Path) -> None:
    elffile = pytest.importorskip("elftools.elf.elffile")
    btf = parse(section(program, ".BTF"))
    size, sections = ext_records(section(program, ".BTF.ext"), 0)
    elf = elffile.ELFFile(io.BytesIO(program.read_bytes()))
    symbols = {
        (elf.get_section(each["st_shndx"]).name, each["st_value"] // 8): each.name
        for each in elf.get_section_by_name(".symtab").iter_symbols()
        if each["st_info"]["type"] == "STT_FUNC"
    }
    found = {
        (btf.string(name), each.insn_off): btf.name(each.type_id)
        for name, data in sections.items()
        for each in line_info.func_infos(in_slots(data, size), size)
    }
    assert found == symbols
    prototypes = [btf_c.func_prototype(btf, type_id) for type_id in btf.ids_of(Kind.FUNC)]
    assert sorted(filter(None, prototypes)) == [
        "int hello_world(void *ctx)",
        "int helper(int value)",
    ]


# What libbpf calls the kinds that PROGRAM uses.
_RELOCATIONS: Final = {
    "byte_off": "BPF_CORE_FIELD_BYTE_OFFSET",
    "enumval_value": "BPF_CORE_ENUMVAL_VALUE",
    "type_size": "BPF_CORE_TYPE_SIZE",
}
_LOGGED: Final = re.compile(
    r"relo #\d+: <(\w+)> \[(\d+)\] (.*?)(?: \([\d:]+ @ offset \d+\)| = \d+)?$", re.M
)


@pytest.mark.skipif(bpf_asm.why_not() is not None, reason=str(bpf_asm.why_not()))
@needs("clang", "bpftool")
@needs_vmlinux
def test_relocations_are_those_of_libbpf(program: Path) -> None:
    btf = parse(section(program, ".BTF"))
    size, sections = ext_records(section(program, ".BTF.ext"), 2)
    relos = [relo for data in sections.values() for relo in line_info.core_relos(data, size, btf)]
    # No such kernel type has all the members, so nothing is loaded nor pinned: libbpf
    # only says what it read.
    command = ["bpftool", "-d", "prog", "load", str(program), "/sys/fs/bpf/bpfstrace-never"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    logged = [
        (_RELOCATIONS[kind], int(type_id), path)
        for kind, type_id, path in _LOGGED.findall(shown.stderr + shown.stdout)
    ]
    assert [
        (relo.kind_name, relo.type_id, line_info.access_path(btf, relo)) for relo in relos
    ] == logged
    assert len(relos) == 6
    assert [relo.slot for relo in relos] == sorted({relo.slot for relo in relos})


def test_relocations_that_do_not_fit_keep_their_string(types_by_hand: Btf) -> None:
    expected = {
        "0": "struct event",
        "0:0": "struct event.pid",
        "2:0": "struct event[2].pid",
        "0:9": "struct event:9",
        "0:0:1": "struct event.pid:1",
        "0:x": "struct event:x",
        "": "struct event",
        "0:" + "9" * 50: "struct event:" + "9" * 50,
    }
    for access, path in expected.items():
        relo = line_info.CoreRelo(8, 2, access, 0, None)
        assert line_info.access_path(types_by_hand, relo) == path
    assert line_info.access_path(types_by_hand, line_info.CoreRelo(0, 99, "0:1", 0, None)) == (
        "/* no type 99 */ void:1"
    )


@pytest.fixture
def types_by_hand() -> Btf:
    blob = Blob()
    blob.struct("event", 4, ("pid", blob.number("int", 4, 1), 0))
    return blob.parse()


def test_records_of_any_size() -> None:
    blob = Blob()
    blob.string("file.c")
    btf = blob.parse()
    record = struct.pack("<4I", 3, 1, 0, 12 << 10 | 34)
    one = line_info.LineInfo(3, "file.c", "", 12, 34)
    assert line_info.line_infos(record * 2, 16, btf) == [one, one]
    assert line_info.line_infos((record + b"more") * 2, 20, btf) == [one, one]
    assert line_info.line_infos((record + b"more") * 2, 20, None) == [one._replace(file="")] * 2
    assert line_info.line_infos(record * 2 + b"tail", 16, btf) == [one, one]
    assert line_info.line_infos(record, 8, btf)[0] == line_info.LineInfo(3, "file.c", "", 0, 0)
    for size in (-1, 0, 1, 3):
        assert line_info.line_infos(record, size, btf) == []
        assert line_info.func_infos(record, size) == []
    assert line_info.line_infos(record, 1 << 32, btf) == []
    assert line_info.func_infos(struct.pack("<4I", 0, 5, 9, 6), 8) == [(0, 5), (9, 6)]
    assert line_info.func_infos(struct.pack(">2I", 1, 5), 8, "big") == [(1, 5)]


def test_lines_by_slot() -> None:
    infos = [line_info.LineInfo(at, "f.c", f"line {at}", at, 1) for at in (8, 0, 3, 3)]
    lines = line_info.Lines(infos)
    assert len(lines) == 4
    assert [found and found.insn_off for found in map(lines.start, range(5))] == [
        0, None, None, 3, None,
    ]  # fmt: skip
    assert [found and found.insn_off for found in map(lines.at, (-1, 0, 2, 3, 7, 8, 10**9))] == [
        None, 0, 0, 3, 3, 8, 8,
    ]  # fmt: skip
    assert line_info.Lines([]).at(0) is None
