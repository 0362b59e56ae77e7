"""``bpfstrace extract``: objects that llvm, bpftool and pyelftools read as what was loaded."""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from bpftrace_sys.cli.extract import DONE, TROUBLE
from bpftrace_sys.cli.extract import main as extract
from bpftrace_sys.export.elf_writer import R_BPF_64_32, R_BPF_64_64, Elf
from bpftrace_sys.export.extraction import Extraction, Names, files
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.whole_trace import read
from decoders.call import plain
from decoders.formats import btf
from decoders.formats.tag import tags
from decoders.values import Insns
from tests.support.needs import needs_tool
from tests.support.running import FIXTURES, run_cli

ALL = sorted(FIXTURES.glob("*/trace.jsonl.gz"))
LOADALL = FIXTURES / "bpftool-loadall" / "trace.jsonl.gz"
HELLO = FIXTURES / "bcc-kprobe-hello" / "trace.jsonl.gz"
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


def extraction(trace: Path) -> Extraction:
    made: list[Extraction] = []

    def make(model: Model) -> Extraction:
        made.append(Extraction(model))
        return made[0]

    read(str(trace), make)
    return made[0]


def objects(trace: Path, to: Path) -> dict[Path, bytes]:
    """The object files of a trace, and the instructions that each one's load passed."""
    assert extract([str(trace), "-o", str(to)]) == DONE
    found = extraction(trace)
    made = [file for file in files(found) if file.name.endswith(".o")]
    insns = []
    for call in found.programs():
        value = plain(call.attr("attr", "insns"))
        assert isinstance(value, Insns)
        insns.append(value.data)
    return {to / file.name: data for file, data in zip(made, insns, strict=True)}


# ------------------------------------------------------------------ the same instructions


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


# ------------------------------------------------------------------ bpftool loads them


def bpftool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bpftool", *words], capture_output=True, text=True, check=False)


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


# ------------------------------------------------------------------ BTF


@pytest.mark.parametrize("trace", ALL, ids=lambda path: path.parent.name)
def test_blobs_are_as_they_were_loaded(trace: Path, tmp_path: Path) -> None:
    found = extraction(trace)
    extract([str(trace), "-o", str(tmp_path)])
    written = sorted(path.read_bytes() for path in tmp_path.glob("*.btf"))
    assert written == sorted(blob.data for blob in found.btfs())
    for path in tmp_path.glob("*.btf"):
        assert btf.parse(path.read_bytes()).problem is None
        if shutil.which("bpftool"):
            done = bpftool("btf", "dump", "file", str(path))
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("trace", ALL, ids=lambda path: path.parent.name)
def test_btf_of_objects_is_sound_and_keeps_all_ids(trace: Path, tmp_path: Path) -> None:
    found = extraction(trace)
    for call, path in zip(found.programs(), objects(trace, tmp_path), strict=True):
        with path.open("rb") as file:
            section = ELFFile(file).get_section_by_name(".BTF")
            data = None if section is None else section.data()
        blob = found.blob_of(call)
        if blob is None:
            continue
        assert data is not None
        old, new = btf.parse(blob.data), btf.parse(data)
        assert new.problem is None
        for type_id in old.ids:
            before, after = old.type(type_id), new.type(type_id)
            assert before is not None
            assert after is not None
            assert before._replace(linkage=0, name="") == after._replace(linkage=0, name="")
        if shutil.which("bpftool"):
            assert bpftool("btf", "dump", "file", str(path)).returncode == 0


# ------------------------------------------------------------------ files


def test_nothing_is_overwritten_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert extract([str(LOADALL), "-o", str(out)]) == DONE
    listing = capsys.readouterr().out
    assert listing.splitlines()[0].startswith("count_packets.o ")
    assert {path.name for path in out.iterdir()} == {
        "count_packets.o", "sum_sizes.o", "count_packets.btf",
    }  # fmt: skip
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in out.iterdir())
    (out / "sum_sizes.o").unlink()
    (out / "count_packets.o").write_text("mine")
    assert extract([str(LOADALL), "-o", str(out)]) == TROUBLE
    assert "--force" in capsys.readouterr().err
    assert (out / "count_packets.o").read_text() == "mine"
    assert not (out / "sum_sizes.o").exists()
    # A link that leads elsewhere is replaced, not followed.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (out / "count_packets.o").unlink()
    (out / "count_packets.o").symlink_to(elsewhere)
    assert extract([str(LOADALL), "--force", "-o", str(out)]) == DONE
    assert elsewhere.read_text() == "mine"
    assert not (out / "count_packets.o").is_symlink()


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("../../etc/passwd", "_.._etc_passwd.o"),
        ("/", "_.o"),
        ("", "prog.o"),
        (".", "prog.o"),
        ("-rf", "rf.o"),
        ("a\n\x1b[31m", "a___31m.o"),
        ("x" * 300, "x" * 100 + ".o"),
    ],
)
def test_file_names_are_safe(name: str, made: str) -> None:
    assert Names().make(name, "prog", ".o") == made


def test_file_names_are_unique_without_regard_to_case() -> None:
    taken = Names()
    made = [taken.make(name, "prog", ".o") for name in ("a", "A", "a", "a.2", "b")]
    assert made == ["a.o", "A.2.o", "a.3.o", "a.2.2.o", "b.o"]


def test_a_truncated_trace_gives_what_stands_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = gzip.decompress(LOADALL.read_bytes()).splitlines(keepends=True)
    at = next(i for i, line in enumerate(whole) if b'"prog_name":"sum_sizes"' in line)
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(b"".join(whole[:at]) + whole[at][:1000])
    assert extract([str(cut), "-o", str(tmp_path / "out")]) == TROUBLE
    assert "what stood before is extracted" in capsys.readouterr().err
    assert (tmp_path / "out" / "count_packets.o").exists()
    assert not (tmp_path / "out" / "sum_sizes.o").exists()


def test_usage_and_trouble(tmp_path: Path) -> None:
    for words in (["x"], ["-o", "x"], [str(HELLO), str(HELLO), "-o", "x"], ["--what"]):
        done = run_cli("extract", *words)
        assert done.returncode == 2
        assert done.stdout == ""
    done = run_cli("extract", str(tmp_path / "none"), "-o", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "No such file" in done.stderr
    file = tmp_path / "file"
    file.write_text("")
    assert run_cli("extract", str(HELLO), "-o", str(file)).returncode == 2


# ------------------------------------------------------------------ hostile traces


NUMBERED = 64  # bytes from which a later line may refer back to a piece


def _spoil(line: dict[str, Any], dice: random.Random) -> None:
    """Changes bytes of what a call pointed at, or what its fds are said to be."""
    for chunk in line["raw"].get("entry", ()):
        if not isinstance(chunk[1], str) or dice.random() < 0.5:
            continue
        data = bytearray(base64.b64decode(chunk[1]))
        if line["args"].get("cmd") in ("BPF_PROG_LOAD", "BPF_BTF_LOAD", "BPF_MAP_CREATE"):
            for _ in range(dice.randrange(1, 6)):
                data[dice.randrange(len(data))] = dice.choice((0, 1, 2, 0x18, 0x85, 0x7F, 0xFF))
        if len(data) > NUMBERED and dice.random() < 0.1:
            chunk[2:] = [len(data)]
            data = data[: dice.randrange(NUMBERED, len(data))]
        chunk[1] = base64.b64encode(data).decode()
    for fact in line["raw"].get("fds", ()):
        for key, value in fact[3].items():
            if isinstance(value, int) and not key.endswith("_id") and dice.random() < 0.1:
                fact[3][key] = dice.choice((0, 1, 3, 12, 1 << 31, (1 << 32) - 1))


def test_spoiled_traces_make_readable_objects_or_none(tmp_path: Path) -> None:
    made = 0
    for seed in range(60):
        dice = random.Random(seed)
        name = dice.choice(["bpftool-loadall", "libbpf-tcpconnect", "bcc-tracepoint"])
        with gzip.open(FIXTURES / name / "trace.jsonl.gz", "rt") as file:
            lines = [json.loads(line) for line in file]
        for line in lines:
            if line["type"] == "syscall" and line["syscall"] == "bpf":
                _spoil(line, dice)
        spoiled, out = tmp_path / f"{seed}.jsonl", tmp_path / str(seed)
        spoiled.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert extract([str(spoiled), "-o", str(out)]) in (DONE, TROUBLE)
        for path in out.glob("*.o"):
            made += 1
            with path.open("rb") as file:
                for section in ELFFile(file).iter_sections():
                    assert section["sh_type"] == "SHT_NOBITS" or (
                        len(section.data()) == section["sh_size"]
                    )
    assert made > 60


def test_a_claim_of_gigabytes_of_data_costs_nothing(tmp_path: Path) -> None:
    trace = FIXTURES / "libbpf-vfsstat" / "trace.jsonl.gz"
    with gzip.open(trace, "rt") as file:
        lines = [json.loads(line) for line in file]
    for line in lines:
        if line["type"] == "syscall":
            for fact in line["raw"].get("fds", ()):
                if fact[2] == "map" and "value_size" in fact[3]:
                    fact[3]["value_size"] = 0xFFFFFFFF
            if line["args"].get("cmd") == "BPF_MAP_CREATE":
                attr = bytearray(base64.b64decode(line["raw"]["entry"][0][1]))
                struct.pack_into("<I", attr, 8, 0xFFFFFFFF)
                line["raw"]["entry"][0][1] = base64.b64encode(attr).decode()
    claimed = tmp_path / "t.jsonl"
    claimed.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert extract([str(claimed), "-o", str(tmp_path / "out")]) == DONE
    made = list((tmp_path / "out").glob("*.o"))
    assert len(made) == 5
    assert all(path.stat().st_size < 1 << 16 for path in made)


# ------------------------------------------------------------------ the writer


def test_elf_files_are_read_back_by_pyelftools() -> None:
    made = Elf()
    code = made.section("xdp", bytes(range(16)), flags=6)
    made.section(".bss", nobits=7, flags=3)
    outside = made.symbol("elsewhere", None)
    function = made.symbol("main", code, 8, 8, kind=2)
    made.reloc(code, 8, made.section_symbol(code), R_BPF_64_64)
    made.reloc(code, 0, function, R_BPF_64_32)
    elf = ELFFile(BytesIO(made.dump()))
    assert elf["e_machine"] == "EM_BPF"
    assert elf["e_type"] == "ET_REL"
    assert elf.get_section_by_name("xdp").data() == bytes(range(16))
    assert elf.get_section_by_name(".bss")["sh_size"] == 7
    relocs = list(elf.get_section_by_name(".relxdp").iter_relocations())
    assert [(each["r_offset"], each["r_info_type"]) for each in relocs] == [(0, 10), (8, 1)]
    table = elf.get_section_by_name(".symtab")
    named = table.get_symbol(relocs[0]["r_info_sym"])
    assert (named.name, named["st_value"], named["st_size"]) == ("main", 8, 8)
    assert table.get_symbol_by_name("elsewhere")[0]["st_shndx"] == "SHN_UNDEF"
    assert outside.index > table["sh_info"] - 1
    assert table["sh_info"] == 2
