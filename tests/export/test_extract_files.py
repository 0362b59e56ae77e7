"""``bpfstrace extract``: BTF blobs, file names, and traces that lie."""

from __future__ import annotations

import base64
import gzip
import json
import random
import shutil
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from bpftrace_sys.cli.extract import main as extract
from bpftrace_sys.cli.messages import DONE, TROUBLE
from bpftrace_sys.export.elf_writer import R_BPF_64_32, R_BPF_64_64, Elf
from bpftrace_sys.export.extraction import Names
from decoders.formats import btf
from tests.support.extracting import ALL, HELLO, bpftool, extraction, objects
from tests.support.running import FIXTURES, run_cli

LOADALL = FIXTURES / "bpftool-loadall" / "trace.jsonl.gz"


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
    assert run_cli("extract", str(HELLO), "-o", str(file)).returncode == 125


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
