"""BTF, against what we did not write: the kernel's BTF as bpftool reads it, compilers, the kernel.

Types     every type of /sys/kernel/btf/vmlinux and of BTF made by clang (both byte orders,
          split BTF), against `bpftool btf dump format raw -j`
C         definitions against `bpftool btf dump format c`, and compiled: gcc and clang must agree
          with the offsets and sizes, and clang must make the same BTF from them again
values    against `bpftool map dump -j` of a map that has BTF
lines     against DWARF's line table of the same object, relocations against libbpf's debug output
garbage   hypothesis
"""

from __future__ import annotations

import itertools
import json
import random
import struct
import time
from pathlib import Path
from typing import Any, Final

import pytest

from decoders.formats import btf as btf_module
from decoders.formats import btf_c, btf_search, btf_types
from decoders.formats.btf import Btf, parse
from decoders.formats.btf_types import BtfError, Kind
from tests.support.btf import (
    ARRAY,
    DATASEC,
    DECL_TAG,
    ENUM,
    ENUM64,
    FLOAT,
    FUNC,
    FWD,
    INT,
    PROGRAM,
    PROTO,
    PTR,
    SOURCE,
    STRUCT,
    TYPEDEF,
    UNION,
    VAR,
    VMLINUX,
    Blob,
    c_decl,
    compiled,
    needs,
    needs_vmlinux,
    run,
    section,
    vmlinux,
)

# ----------------------------------------------------------------------- oracles

_ENCODINGS: Final = {0: "(none)", 1: "SIGNED", 2: "CHAR", 4: "BOOL"}


def as_bpftool(found: btf_types.Type) -> dict[str, Any]:
    """A type in the form of `bpftool btf dump format raw -j`."""
    kind = found.kind
    assert isinstance(kind, Kind)
    row: dict[str, Any] = {"id": found.id, "kind": kind.name, "name": found.name or "(anon)"}
    if kind in (INT, FLOAT, *(STRUCT, UNION), ENUM, ENUM64, DATASEC):
        row["size"] = found.size
    elif kind == PROTO:
        row["ret_type_id"] = found.type
    elif kind != FWD:
        row["type_id"] = found.type
    if kind in (STRUCT, UNION, ENUM, ENUM64, PROTO, DATASEC):
        row["vlen"] = found.vlen
    if kind == INT:
        row |= {"bits_offset": found.bit_offset, "nr_bits": found.bits}
        row["encoding"] = _ENCODINGS[found.encoding]
    elif kind == ARRAY:
        row |= {"index_type_id": found.index_type, "nr_elems": found.nelems}
    elif kind in (STRUCT, UNION):
        row["members"] = [
            {"name": each.name or "(anon)", "type_id": each.type, "bits_offset": each.bit_offset}
            | ({"bitfield_size": each.bits} if each.bits else {})
            for each in found.members
        ]
    elif kind in (ENUM, ENUM64):
        row["encoding"] = "SIGNED" if found.kind_flag else "UNSIGNED"
        row["values"] = [{"name": each.name, "val": each.value} for each in found.enumerators]
    elif kind == FWD:
        row["fwd_kind"] = "union" if found.kind_flag else "struct"
    elif kind in (FUNC, VAR):
        row["linkage"] = btf_types.LINKAGES[found.linkage]
    elif kind == PROTO:
        row["params"] = [
            {"name": each.name or "(anon)", "type_id": each.type} for each in found.params
        ]
    elif kind == DATASEC:
        row["vars"] = [
            {"type_id": each.type, "offset": each.offset, "size": each.size}
            for each in found.variables
        ]
    elif kind == DECL_TAG:
        row["component_idx"] = found.component
    return row


def from_bpftool(row: dict[str, Any]) -> dict[str, Any]:
    """Its output, without its slips: 32-bit enum values come sign-extended to 64 bits,
    and a global variable's linkage has another name than a function's."""
    if row["kind"] == "ENUM" and row["encoding"] == "UNSIGNED":
        for each in row["values"]:
            each["val"] &= 0xFFFFFFFF
    if row.get("linkage") == "global-alloc":
        row["linkage"] = "global"
    row.pop("type_tag", None)
    return row


def bpftool_types(path: Path, *options: str | Path) -> list[dict[str, Any]]:
    text = run("bpftool", "-j", *options, "btf", "dump", "file", path, "format", "raw").stdout
    return [from_bpftool(row) for row in json.loads(text)["types"]]


def assert_same_types(ours: Btf, theirs: list[dict[str, Any]]) -> None:
    for mine, row in itertools.zip_longest(ours, theirs):
        assert mine is not None
        assert as_bpftool(mine) == row


@pytest.fixture
def types(tmp_path: Path) -> Btf:
    """BTF of SOURCE."""
    return parse(section(compiled(tmp_path), ".BTF"))


# ------------------------------------------------------------------------- types


@needs("bpftool")
@needs_vmlinux
def test_every_type_of_the_kernel() -> None:
    assert vmlinux().problem is None
    assert_same_types(vmlinux(), bpftool_types(VMLINUX))


@needs_vmlinux
def test_the_kernels_btf_is_read_quickly() -> None:
    data = VMLINUX.read_bytes()
    start = time.process_time()
    btf = parse(data)
    found = btf.find("bpf_attr", Kind.UNION)
    assert found is not None
    assert found.members
    assert time.process_time() - start < 10  # 0.06 s where this was written


@needs("bpftool", "clang")
@pytest.mark.parametrize("source", [SOURCE, PROGRAM], ids=["types", "program"])
@pytest.mark.parametrize("target", ["bpfel", "bpfeb"])
def test_types_of_an_object(tmp_path: Path, source: str, target: str) -> None:
    path = compiled(tmp_path, source, target)
    btf = parse(section(path, ".BTF"))
    assert btf.problem is None
    assert btf.byteorder == ("little" if target == "bpfel" else "big")
    assert_same_types(btf, bpftool_types(path))


@needs("bpftool")
@needs_vmlinux
def test_split_btf(tmp_path: Path) -> None:
    base = vmlinux()
    # Ids and string offsets go on where the kernel's end.
    blob = Blob("<", base.end_id, base.header.str_len)
    task = base.find("task_struct", Kind.STRUCT)
    assert task is not None
    pointer = blob.add(PTR, "", task.id)
    name_in_base = next(offset for offset in range(1, 1000) if base.string(offset) == "int")
    blob.add(TYPEDEF, name_in_base, pointer)
    own = blob.struct("bpfstrace_split", 8, ("task", pointer, 0))
    path = tmp_path / "split"
    path.write_bytes(blob.data())
    btf = blob.parse(base)
    assert btf.problem is None
    assert btf.start_id == base.end_id
    assert_same_types(btf, bpftool_types(path, "-B", VMLINUX))
    assert btf.find("bpfstrace_split") == btf.type(own)
    assert btf.find("task_struct", Kind.STRUCT) == task
    assert btf.find("int", Kind.TYPEDEF) == btf.type(pointer + 1)
    assert c_decl(btf, own) == "struct bpfstrace_split {\n\tstruct task_struct *task;\n};"
    assert btf.size_of(own) == 8
    alone = parse(blob.data())
    assert alone.problem is not None
    assert "split BTF without its base" in alone.problem


@needs_vmlinux
def test_find_agrees_with_a_search_through_all_types() -> None:
    btf = vmlinux()
    kinds = (Kind.STRUCT, Kind.FUNC, Kind.INT, Kind.TYPEDEF)
    by_name: dict[tuple[str, int], list[int]] = {}
    for found in btf:
        by_name.setdefault((found.name, found.kind), []).append(found.id)
    wanted = [key for key in by_name if key[0] and key[1] in kinds]
    shared = [key for key in wanted if len(by_name[key]) > 1]
    assert shared
    for name, kind in wanted[:: max(len(wanted) // 500, 1)] + shared:
        assert btf.find_all(name, kind) == by_name[name, kind]
    assert btf.find("no such type") is None
    assert btf.find("") is None
    assert len(btf.find_all("bpf_attr")) == sum(
        len(ids) for (name, _kind), ids in by_name.items() if name == "bpf_attr"
    )


@pytest.mark.parametrize("order", ["<", ">"])
def test_wide_vlen_and_kinds_that_only_the_layout_knows(order: str) -> None:
    blob = Blob(order)
    number = blob.number("int", 4, 1)
    many = 70_000  # more than the 16 bits of the vlen that was
    blob.add(ENUM, "wide", 4, *[0, 7] * many, vlen=many)
    unknown = blob.add(77, "new", 5, 1, 2, 3, 4, 5, vlen=2, flag=True)
    last = blob.add(PTR, "", number)
    layout = b"".join(
        struct.pack(f"{order}BBH", *((4, 8) if kind == 77 else (0, 0)), 0) for kind in range(78)
    )
    btf = parse(blob.data(hdr_len=32, layout=layout))
    assert btf.problem is None
    wide = btf.find("wide")
    assert wide is not None
    assert len(wide.enumerators) == many
    new = btf.type(unknown)
    assert new is not None
    assert (new.kind, new.name, new.type, new.vlen) == (77, "new", 5, 2)
    assert btf_c.c_type(btf, last) == "int *"
    assert btf.resolve(last) == btf.type(last)
    short = parse(blob.data())
    assert short.problem is not None
    assert "unknown kind 77" in short.problem
    assert short.end_id == unknown


def test_a_longer_header_is_skipped_and_mentioned_if_it_says_something() -> None:
    blob = Blob()
    blob.number("int", 4, 1)
    for hdr_len in (24, 28, 32, 36, 64):
        btf = parse(blob.data(hdr_len=hdr_len))
        assert (btf.problem, btf.name(1)) == (None, "int")
    btf = parse(blob.data(hdr_len=64, more=b"\1"))
    assert btf.name(1) == "int"
    assert btf.problem == "unknown header fields after byte 32"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes"),
        (b"\x9f", "1 bytes"),
        (b"\x7fELF" + bytes(60), "starts with 7f 45"),
        (b"\x9f\xeb\1\0" + struct.pack("<5I", 24, 0, 0, 0, 0)[:-1], "do not hold the header"),
        (b"\x9f\xeb\1\0" + struct.pack("<5I", 25, 0, 0, 0, 0), "do not hold the header"),
        (b"\x9f\xeb\1\0" + struct.pack("<5I", 8, 0, 0, 0, 0), "header of 8 bytes"),
        (b"\xeb\x9f\1\0" + struct.pack(">5I", 1 << 31, 0, 0, 0, 0), "do not hold the header"),
    ],
)
def test_what_is_no_btf(data: bytes, said: str) -> None:
    with pytest.raises(BtfError, match=said):
        parse(data)


@needs("clang")
def test_truncated_btf_yields_what_is_there(tmp_path: Path) -> None:
    data = section(compiled(tmp_path), ".BTF")
    whole = parse(data)
    for length in range(24, len(data)):
        btf = parse(data[:length])
        assert btf.problem is not None
        assert btf.end_id <= whole.end_id
        for mine, theirs in zip(btf, whole, strict=False):
            assert (mine.kind, mine.size, mine.type) == (theirs.kind, theirs.size, theirs.type)
            for member, whole_member in zip(mine.members, theirs.members, strict=False):
                assert member[1:] == whole_member[1:]
    assert parse(data[:-1]).end_id == whole.end_id


@pytest.mark.parametrize("seed", range(8))
def test_types_are_the_same_in_whatever_order_they_are_asked_for(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are indexed as far as that goes, and found to end, or to be wrong, in the same place."""
    choose = random.Random(seed)
    blob = Blob()
    for number in range(40):
        if choose.random() < 0.5:
            blob.number(f"n{number}", 4, 1)
        else:
            members = choose.randrange(4)
            blob.add(STRUCT, f"s{number}", 4, *[0, 1, 0] * members, vlen=members)
    wrong = choose.choice([0, 0xFFFFFF])
    blob.add(STRUCT, "last", 4, vlen=wrong)
    data = blob.data()
    header = len(data) - len(blob.types) - len(blob.strings)
    inside = [header + 4 * choose.randrange(len(blob.types) // 4) for _ in range(12)]
    for cut in (len(data), len(data) - len(blob.strings), *inside):
        whole = parse(data[:cut])
        ids = [-1, 0, *whole.ids, whole.end_id, whole.end_id + 1, 1 << 31]
        choose.shuffle(ids)
        monkeypatch.setattr(btf_module, "_PIECE", choose.choice([1, 3, 4, 17, 1 << 14]))
        found = parse(data[:cut])
        for asked in ids:
            for one in ("type", "kind", "name", "offset_of"):
                assert getattr(found, one)(asked) == getattr(whole, one)(asked), (one, asked)
        assert (found.end_id, found.problem) == (whole.end_id, whole.problem)
        assert (wrong != 0) <= (found.problem is not None)


@pytest.mark.parametrize("seed", range(20))
def test_searching_finds_what_an_index_finds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that are others' ends, that stand twice, that members have, too; bytes that lie."""
    choose = random.Random(seed)
    blob = Blob()
    words = ["a", "ba", "cba", "a_b", "x" * 510, "x" * 511, "x" * 600, "é", "é!"]
    for _ in range(60):
        name = choose.choice(words)
        if choose.random() < 0.4:
            blob.number(name, 4, choose.randrange(3))
        else:
            member = blob.string(choose.choice(words))
            blob.add(STRUCT, name, 4, member, choose.randrange(4), 0, vlen=1)
    data = bytearray(blob.data())
    if seed % 2:
        for _ in range(30):
            data[choose.randrange(24, len(data))] = choose.choice((0, 1, 2, 0x61, 0x84))
    whole = bytes(data[: len(data) - seed % 3])
    searched = parse(whole)
    monkeypatch.setattr(btf_search, "SEARCHES", 0)
    indexed = parse(whole)
    for name in {*words, "nobody", "", *(indexed.name(one) for one in indexed.ids)}:
        for kind in (None, Kind.INT, STRUCT):
            monkeypatch.setattr(btf_search, "SEARCHES", 1 << 30)
            found = searched.find_all(name, kind)
            monkeypatch.setattr(btf_search, "SEARCHES", 0)
            assert found == indexed.find_all(name, kind), (name, kind)


def test_a_name_that_is_mentioned_too_often_is_indexed() -> None:
    """Nobody makes us look through it again and again."""
    blob = Blob()
    for number in range(40):
        blob.number(f"{number}list", 4, 1)
    blob.number("list", 4, 1)
    found = parse(blob.data())
    assert found.mentions("list") is None
    assert [found.name(one) for one in found.find_all("list")] == ["list"]
    assert found.mentions("7list") == [8]


def test_problems_say_where() -> None:
    blob = Blob()
    blob.number("int", 4, 1)
    blob.add(STRUCT, "s", 4, 0, 1, 0, vlen=0xFFFFFF)
    btf = blob.parse()
    assert btf.problem == (
        "type 2 at byte 16 of the type section claims 16777215 elements, more than there are"
    )
    found = btf.find("s")
    assert found is not None
    assert len(found.members) == 1
    assert "16777215 are claimed" in c_decl(btf, found.id)


def test_hostile_names_stay_text() -> None:
    blob = Blob()
    blob.add(FWD, b"\x1b[31m\xff[b]\xc3\xa9")
    blob.add(FWD, b"A" * 5000)
    blob.add(FWD, 1 << 30)
    btf = blob.parse()
    assert btf.name(1) == "\x1b[31m\\xff[b]é"
    assert btf.name(2) == "A" * 511
    assert btf.name(3) == f"(bad string {1 << 30})"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The object of PROGRAM."""
    return compiled(tmp_path, PROGRAM)
