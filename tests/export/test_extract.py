"""``bpfstrace extract``: objects that llvm, bpftool and pyelftools read as what was loaded."""

from __future__ import annotations

import gzip
import json
import os
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from bpftrace_sys.export.elf_writer import R_BPF_64_32, R_BPF_64_64
from decoders.formats.tag import tags
from tests.support.extracting import ALL, HELLO, bpftool, extraction, objects
from tests.support.needs import needs_tool
from tests.support.running import run_cli

LOADABLE = {
    "kprobe", "tracepoint", "xdp", "socket_filter", "perf_event", "cgroup_skb", "raw_tracepoint",
}  # fmt: skip
PINS = Path("/sys/fs/bpf")


def loads(trace: Path) -> dict[int, dict[str, Any]]:
    """The PROG_LOAD lines of a trace by their number."""
    with gzip.open(trace, "rt") if trace.suffix == ".gz" else open(trace) as file:
        found = [json.loads(line) for line in file]
    return {
        line["seq"]: line
        for line in found
        if line["type"] == "syscall" and line["args"].get("cmd") == "BPF_PROG_LOAD"
    }


def code_sections(elf: ELFFile) -> list[Any]:
    """The program's section, then .text."""
    found = [section for section in elf.iter_sections() if section["sh_flags"] & 4]
    return sorted(found, key=lambda section: section.name == ".text")


def linked(path: Path, original: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(slot, bytes in the object after linking, bytes as loaded) of every slot.

    Of an ld_imm64 with a relocation only the opcode and the register that it
    writes are compared: the rest is what a loader fills in.
    """
    with path.open("rb") as file:
        elf = ELFFile(file)
        sections = code_sections(elf)
        bases, code = {}, bytearray()
        for section in sections:
            bases[section.name] = len(code) // 8
            code += section.data()
        wide = set()
        symbols = elf.get_section_by_name(".symtab")
        for section in sections:
            relocs = elf.get_section_by_name(f".rel{section.name}")
            for reloc in relocs.iter_relocations() if relocs is not None else ():
                slot = bases[section.name] + reloc["r_offset"] // 8
                symbol = symbols.get_symbol(reloc["r_info_sym"])
                target = elf.get_section(symbol["st_shndx"]).name
                if reloc["r_info_type"] == R_BPF_64_32:
                    (imm,) = struct.unpack_from("<i", code, slot * 8 + 4)
                    place = bases[target] + symbol["st_value"] // 8 + imm + 1
                    struct.pack_into("<i", code, slot * 8 + 4, place - slot - 1)
                    continue
                assert reloc["r_info_type"] == R_BPF_64_64
                assert code[slot * 8] == 0x18
                if target in bases:  # the address of a function
                    (imm,) = struct.unpack_from("<i", code, slot * 8 + 4)
                    place = bases[target] + (symbol["st_value"] + imm) // 8
                    struct.pack_into("<i", code, slot * 8 + 4, place - slot - 1)
                    code[slot * 8 + 1] |= 4 << 4
                else:
                    assert original[slot * 8 + 1] >> 4 in (1, 2, 5, 6)
                    wide.add(slot)
    assert len(code) == len(original)
    for slot in range(len(code) // 8):
        ours, theirs = code[slot * 8 : slot * 8 + 8], original[slot * 8 : slot * 8 + 8]
        if slot in wide:
            ours, theirs = ours[:1] + bytes([ours[1] & 15]), theirs[:1] + bytes([theirs[1] & 15])
        elif slot - 1 in wide:
            assert not any(ours)
            continue
        yield slot, bytes(ours), bytes(theirs)


@pytest.mark.parametrize("trace", ALL, ids=lambda path: path.parent.name)
def test_objects_hold_the_instructions_of_the_trace(trace: Path, tmp_path: Path) -> None:
    for path, original in objects(trace, tmp_path).items():
        for slot, ours, theirs in linked(path, original):
            assert ours == theirs, f"{path.name} slot {slot}"


_LINE = re.compile(r"^ +(\d+):\t((?:[0-9a-f]{2} ?)+)\t(.*)$", re.M)


def disassembled(path: Path) -> dict[str, list[tuple[str, str, str]]]:
    """What llvm-objdump -dS says, by section: (slot, bytes, text)."""
    done = subprocess.run(
        ["llvm-objdump", "-dS", "--mattr=+alu32", str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    parts = re.split(r"^Disassembly of section (.*):$", done.stdout, flags=re.M)[1:]
    return {
        name: _LINE.findall(body) for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.mark.parametrize("trace", ALL, ids=lambda path: path.parent.name)
def test_llvm_disassembles_them(trace: Path, tmp_path: Path) -> None:
    needs_tool("llvm-objdump", "llvm-objcopy")
    for path in objects(trace, tmp_path):
        with path.open("rb") as file:
            sections = {each.name: each.data() for each in code_sections(ELFFile(file))}
        found = disassembled(path)
        assert found.keys() == sections.keys()
        for name, rows in found.items():
            assert bytes.fromhex("".join(data for _, data, _ in rows)) == sections[name]
            assert not [text for _, _, text in rows if "unknown" in text]
            dumped = tmp_path / "dumped"
            subprocess.run(
                ["llvm-objcopy", f"--dump-section={name}={dumped}", str(path), str(tmp_path / "o")],
                check=True,
            )
            assert dumped.read_bytes() == sections[name]


def test_the_lessons_listing_with_its_source(tmp_path: Path) -> None:
    needs_tool("llvm-objdump")
    (path,) = objects(HELLO, tmp_path)
    done = subprocess.run(
        ["llvm-objdump", "-dS", "--no-show-raw-insn", str(path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    assert lines[1] == "Disassembly of section kprobe/do_sys_openat2:"
    assert lines[2].endswith("<hello_world>:")
    assert lines[3] == "; int hello_world(void *ctx)"
    assert "r1 = 33" in lines[4]
    assert 'bpf_trace_printk_(_fmt, sizeof(_fmt))' in lines[5]
    assert lines[-3] == "; return 0;" or lines[-3].startswith(";   return 0;")
    assert lines[-1].endswith("exit")


@pytest.fixture
def pin(needs_bpf: None) -> Iterator[Path]:
    needs_tool("bpftool")
    if not os.path.ismount(PINS):
        pytest.skip("bpffs is not mounted")
    path = PINS / f"bpfstrace-test-{os.getpid()}"
    yield path
    path.unlink(missing_ok=True)


def loaded(path: Path, pin: Path) -> dict[str, Any]:
    """What bpftool tells of a program after it loaded it from an object."""
    done = bpftool("prog", "load", str(path), str(pin))
    assert done.returncode == 0, done.stderr
    try:
        told = bpftool("--json", "prog", "show", "pinned", str(pin)).stdout
    finally:
        pin.unlink()
    shown: dict[str, Any] = json.loads(told)
    return shown


@pytest.mark.parametrize("trace", ALL, ids=lambda path: path.parent.name)
def test_bpftool_loads_them_and_the_kernel_gives_the_same_tag(
    trace: Path, tmp_path: Path, pin: Path
) -> None:
    lines = loads(trace)
    found = extraction(trace)
    for call, (path, original) in zip(
        found.programs(), objects(trace, tmp_path).items(), strict=True
    ):
        line = lines[call.raw.seq]
        kind = line["args"]["attr"]["prog_type"].removeprefix("BPF_PROG_TYPE_").lower()
        if kind not in LOADABLE or (call.raw.failed and line["errno"] != "EPERM"):
            continue
        told = loaded(path, pin)
        assert told["type"] == kind
        assert told["tag"] in tags(original)
        assert ("btf_id" in told) == (found.blob_of(call) is not None)
        maps = [fd for fd in line.get("fds", {}).values() if fd["kind"] == "map"]
        assert len(told.get("map_ids", [])) == len(maps)


SOURCE = r"""
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "Dual BSD/GPL";
struct pair { __u32 a, b; };
struct {
  __uint(type, BPF_MAP_TYPE_LRU_HASH);
  __uint(max_entries, 16);
  __type(key, struct pair);
  __type(value, __u64);
} counts SEC(".maps");
struct inner {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 3);
  __type(key, __u32);
  __type(value, __u32);
} first SEC(".maps");
struct {
  __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
  __uint(max_entries, 5);
  __type(key, __u32);
  __array(values, struct inner);
} outer SEC(".maps") = { .values = { [1] = &first } };
struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 4096);
} ring SEC(".maps");
const volatile int answer = 42;
int counter, given = 5;
static volatile int hidden;
static int each(__u32 i, void *ctx) { counter += i + hidden; return 0; }
__attribute__((noinline)) int thrice(int a) { return a * 3 + answer + given; }
static __attribute__((noinline)) int more(int a) { return a + thrice(a); }
SEC("tracepoint/syscalls/sys_enter_getppid")
int all_of_it(void *ctx)
{
  struct pair key = {1, 2};
  __u64 *value = bpf_map_lookup_elem(&counts, &key);
  void *map = bpf_map_lookup_elem(&outer, &key.a);
  if (map)
    bpf_map_lookup_elem(map, &key.b);
  bpf_ringbuf_output(&ring, &key, sizeof(key), 0);
  bpf_loop(4, each, 0, 0);
  if (value)
    return more(*value) + thrice(2);
  static const char text[] = "hi %d";
  bpf_trace_printk(text, sizeof(text), 3);
  return 0;
}
"""


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    needs_tool("clang", "llvm-strip")
    (tmp_path / "all.c").write_text(SOURCE)
    machine = os.uname().machine
    subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", f"-I/usr/include/{machine}-linux-gnu",
         "-c", "all.c", "-o", "all.o"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    subprocess.run(["llvm-strip", "-g", "all.o"], cwd=tmp_path, check=True)
    return tmp_path / "all.o"


def test_functions_callbacks_data_and_maps_live(
    compiled: Path, tmp_path: Path, pin: Path
) -> None:
    """From clang's object through the kernel and a trace to an object, and back."""
    trace, out = tmp_path / "t.jsonl", tmp_path / "out"
    done = run_cli(
        "-f", "-o", str(tmp_path / "text"), "--json", str(trace),
        "bpftool", "prog", "load", str(compiled), str(pin),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first = json.loads(bpftool("--json", "prog", "show", "pinned", str(pin)).stdout)
    pin.unlink()
    found = objects(trace, out)
    assert [path.name for path in found] == ["all_of_it.o"]
    ((path, original),) = found.items()
    for slot, ours, theirs in linked(path, original):
        assert ours == theirs, slot
    with path.open("rb") as file:
        elf = ELFFile(file)
        sections = {section.name: section for section in elf.iter_sections()}
        assert sections["license"].data() == b"Dual BSD/GPL\0"
        assert sections[".rodata"].data()[:4] == struct.pack("<i", 42)
        assert b"hi %d\0" in sections[".rodata"].data()
        assert sections[".data"].data() == struct.pack("<i", 5)
        assert sections[".bss"]["sh_type"] == "SHT_NOBITS"
        names = {symbol.name for symbol in sections[".symtab"].iter_symbols()}
        wanted = {"all_of_it", "each", "more", "thrice", "counts", "outer", "ring"}
        assert wanted | {"answer", "counter", "given", "hidden"} <= names
        assert elf.get_dwarf_info().has_debug_info
    done = bpftool("prog", "load", str(path), str(pin))
    assert done.returncode == 0, done.stderr
    second = json.loads(bpftool("--json", "prog", "show", "pinned", str(pin)).stdout)
    assert second["tag"] == first["tag"]
    maps = [
        json.loads(bpftool("--json", "map", "show", "id", str(number)).stdout)
        for number in second["map_ids"]
    ]
    shape = ("type", "bytes_key", "bytes_value", "max_entries", "flags")
    by_name = {each["name"]: tuple(each.get(name) for name in shape) for each in maps}
    assert by_name["counts"] == ("lru_hash", 8, 8, 16, 0)
    assert by_name["outer"] == ("hash_of_maps", 4, 4, 5, 0)
    assert by_name["ring"] == ("ringbuf", 0, 0, 4096, 0)
    rodata = next(each for each in maps if each["name"].endswith("rodata"))
    dump = json.loads(bpftool("--json", "map", "dump", "id", str(rodata["id"])).stdout)
    assert "answer" in str(dump)
    assert "42" in str(dump)
    text = bpftool("prog", "dump", "xlated", "pinned", str(pin), "linum").stdout
    assert "return a * 3 + answer + given" in text
    assert "all.c" in text


def test_llvm_shows_the_source_of_every_function(
    compiled: Path, tmp_path: Path, pin: Path
) -> None:
    needs_tool("llvm-objdump", "llvm-dwarfdump")
    trace, out = tmp_path / "t.jsonl", tmp_path / "out"
    run_cli(
        "-f", "-o", str(tmp_path / "text"), "--json", str(trace),
        "bpftool", "prog", "load", str(compiled), str(pin),
    )  # fmt: skip
    (tmp_path / "all.c").unlink()  # the source is in the object
    (path,) = objects(trace, out)
    done = subprocess.run(
        ["llvm-objdump", "-dS", str(path)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    shown = re.findall(r"^; *(.*)$", done.stdout, re.M)
    for line in ("int all_of_it(void *ctx)", "bpf_loop(4, each, 0, 0);"):
        assert line in shown
    for part in ("counter += i + hidden", "return a * 3 + answer", "return a + thrice(a)"):
        assert any(part in line for line in shown)
    done = subprocess.run(
        ["llvm-dwarfdump", "--verify", str(path)], capture_output=True, text=True, check=False
    )
    assert "No errors." in done.stdout
