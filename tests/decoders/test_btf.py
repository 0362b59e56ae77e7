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

import functools
import io
import itertools
import json
import os
import re
import shutil
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from decoders import newer
from decoders.formats import btf as btf_module
from decoders.formats import btf_c, btf_values, line_info
from decoders.formats.btf import Btf, BtfError, Kind, parse
from decoders.uapi import helpers, names, perf
from decoders.uapi.layouts import LAYOUTS
from decoders.values import BEYOND_SIZE, Absent, Array, Bytes, Int, Name, Struct, Text, Value
from tests.support import bpf_asm

VMLINUX = Path("/sys/kernel/btf/vmlinux")

needs_vmlinux = pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel has no BTF")


def needs(*tools: str) -> pytest.MarkDecorator:
    missing = [tool for tool in tools if not shutil.which(tool)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True, **options)


# ------------------------------------------------------------------- BTF by hand

# Numbers of linux/btf.h, written again so that the decoder can be found wrong.
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST = range(1, 11)
RESTRICT, FUNC, PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(11, 20)


class Blob:
    """Builds BTF: types in the order of `add`, whose results are their ids."""

    def __init__(self, order: str = "<", first_id: int = 1, first_string: int = 0) -> None:
        self.order = order
        self.types = b""
        self.strings = b"" if first_string else b"\0"
        self.next_id = first_id
        self.first_string = first_string

    def string(self, text: str | bytes | int) -> int:
        if isinstance(text, int):
            return text
        data = text.encode() if isinstance(text, str) else text
        if not data:
            return 0
        offset = self.first_string + len(self.strings)
        self.strings += data + b"\0"
        return offset

    def words(self, *values: int) -> bytes:
        return struct.pack(f"{self.order}{len(values)}I", *(each & 0xFFFFFFFF for each in values))

    def add(
        self,
        kind: int,
        name: str | bytes | int = "",
        size_or_type: int = 0,
        *tail: int,
        vlen: int = 0,
        flag: bool = False,
    ) -> int:
        info = flag << 31 | kind << 24 | vlen
        self.types += self.words(self.string(name), info, size_or_type, *tail)
        self.next_id += 1
        return self.next_id - 1

    def number(
        self, name: str, size: int, encoding: int = 0, offset: int = 0, bits: int = 0
    ) -> int:
        return self.add(INT, name, size, encoding << 24 | offset << 16 | (bits or size * 8))

    def array(self, element: int, count: int, index: int = 1) -> int:
        return self.add(ARRAY, "", 0, element, index, count)

    def struct(
        self, name: str, size: int, *members: tuple[str, int, int], kind: int = STRUCT,
        flag: bool = False,
    ) -> int:  # fmt: skip
        tail = [each for n, t, offset in members for each in (self.string(n), t, offset)]
        return self.add(kind, name, size, *tail, vlen=len(members), flag=flag)

    def enum(self, name: str, size: int = 4, flag: bool = False, **values: int) -> int:
        tail = [each for n, value in values.items() for each in (self.string(n), value)]
        return self.add(ENUM, name, size, *tail, vlen=len(values), flag=flag)

    def enum64(self, name: str, flag: bool = False, **values: int) -> int:
        tail = [w for n, v in values.items() for w in (self.string(n), v, v >> 32)]
        return self.add(ENUM64, name, 8, *tail, vlen=len(values), flag=flag)

    def proto(self, returns: int, *params: tuple[str, int]) -> int:
        tail = [each for n, t in params for each in (self.string(n), t)]
        return self.add(PROTO, "", returns, *tail, vlen=len(params))

    def data(self, *, hdr_len: int = 24, layout: bytes = b"", more: bytes = b"") -> bytes:
        sections = [0, len(self.types), len(self.types) + len(layout), len(self.strings)]
        header = struct.pack(f"{self.order}HBB5I", 0xEB9F, 1, 0, hdr_len, *sections)
        if hdr_len >= 32:
            header += self.words(len(self.types), len(layout))
        header += more.ljust(hdr_len - len(header), b"\0")
        return header + self.types + layout + self.strings

    def parse(self, base: Btf | None = None) -> Btf:
        return parse(self.data(), base)


# ----------------------------------------------------------------------- oracles

_ENCODINGS: Final = {0: "(none)", 1: "SIGNED", 2: "CHAR", 4: "BOOL"}


def as_bpftool(found: btf_module.Type) -> dict[str, Any]:
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
        row["linkage"] = btf_module.LINKAGES[found.linkage]
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


@functools.cache
def vmlinux() -> Btf:
    return parse(VMLINUX.read_bytes())


SOURCE: Final = """
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;
typedef _Bool bool;

enum colour { RED, GREEN = 5, BLUE = 7 };
enum level { LOW = -2, HIGH = 3 };
struct point { int x; int y; };
typedef struct { u16 port; u8 mac[6]; } anon_t;
struct node { struct node *next; struct node *(*walk)(struct node *, void *, ...); };
struct bits {
	u32 a : 3;
	u32 b : 5;
	int c : 7;
	u64 wide : 40;
	enum colour col : 4;
	enum level lev : 3;
	bool yes : 1;
};
struct __attribute__((packed)) packed { u8 tag; u64 value; u16 tail; };
struct aligned { u8 c; u64 v __attribute__((aligned(32))); };
struct holes { u8 a; u32 b; u32 : 5; u32 c : 3; u64 : 64; u8 d; u8 : 3; u8 e : 2; };
struct __attribute__((packed)) loose { u8 a; u32 : 20; u32 b : 3; u16 c; u32 d : 7; u32 e : 31; };
struct everything {
	char name[16];
	char full[4];
	u8 raw[4];
	signed char sc[3];
	char c;
	short s;
	bool flag;
	bool flags[2];
	enum colour colour;
	enum colour unknown;
	enum level level;
	struct point points[2];
	int grid[2][3];
	union { u32 v4; u8 bytes[4]; };
	union { s64 whole; struct { u32 lo, hi; } half; } both;
	struct bits bits;
	struct packed packed;
	anon_t anon;
	const volatile u64 counter;
	void *ptr;
	const char *const strings[2];
	int (*fn)(void *, int);
	int (*fns[2])(const struct point *, enum colour);
	int (*(*deep)(int))[4];
	struct node *list;
	struct aligned al;
	struct holes holes;
	struct loose loose;
	u8 flexible[0];
};
int all(struct everything *e, struct node *n) { return e->c + (n->next != 0); }
"""

PROGRAM: Final = """
struct event { int pid; char comm[16]; };
struct task_struct { int pid; struct mm_struct *mm; int numa_faults[4]; }
	__attribute__((preserve_access_index));
struct mm_struct { struct { unsigned long flags_; struct { int users; } in[2]; }; }
	__attribute__((preserve_access_index));
enum bpf_cmd { BPF_MAP_CREATE, BPF_PROG_LOAD = 5 };
char _license[] __attribute__((section("license"))) = "GPL";
int counter;
static const volatile int limit = 3;
extern int LINUX_KERNEL_VERSION __attribute__((section(".kconfig")));

static __attribute__((noinline)) int helper(int value)
{
	if (value > limit)
		counter += value;
	return counter * 2;
}

__attribute__((section("raw_tp/sys_enter")))
int hello_world(void *ctx)
{
	struct event event = {};
	struct task_struct *task = ctx;
	event.pid = task->pid;
	event.pid += task->numa_faults[2] + task->mm->in[1].users;
	event.pid += __builtin_preserve_enum_value(*(enum bpf_cmd *)BPF_PROG_LOAD, 1);
	event.pid += __builtin_preserve_type_info(*(struct task_struct *)0, 1);
	return helper(event.pid);
}
"""


def compiled(folder: Path, source: str = SOURCE, target: str = "bpfel") -> Path:
    """The object file that clang makes of it."""
    (folder / "source.c").write_text(source)
    command = ["clang", "-target", target, "-g", "-O2", "-c", "source.c", "-o", f"{target}.o"]
    run(*command, cwd=folder)
    return folder / f"{target}.o"


def section(path: Path, name: str) -> bytes:
    elffile = pytest.importorskip("elftools.elf.elffile")
    found = elffile.ELFFile(io.BytesIO(path.read_bytes())).get_section_by_name(name)
    return bytes(found.data())


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
    start = time.perf_counter()
    btf = parse(data)
    found = btf.find("bpf_attr", Kind.UNION)
    assert found is not None
    assert found.members
    assert time.perf_counter() - start < 1  # 0.06 s where this was written


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
    assert btf_c.c_decl(btf, own) == "struct bpfstrace_split {\n\tstruct task_struct *task;\n};"
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
    assert "16777215 are claimed" in btf_c.c_decl(btf, found.id)


def test_hostile_names_stay_text() -> None:
    blob = Blob()
    blob.add(FWD, b"\x1b[31m\xff[b]\xc3\xa9")
    blob.add(FWD, b"A" * 5000)
    blob.add(FWD, 1 << 30)
    btf = blob.parse()
    assert btf.name(1) == "\x1b[31m\\xff[b]é"
    assert btf.name(2) == "A" * 511
    assert btf.name(3) == f"(bad string {1 << 30})"


# ----------------------------------------------------------------------------- C


@pytest.fixture
def small() -> tuple[Btf, dict[str, int]]:
    blob = Blob()
    ids = {"int": blob.number("int", 4, 1), "char": blob.number("char", 1, 1)}
    ids["void *"] = blob.add(PTR)
    ids["const"] = blob.add(CONST, "", ids["char"])
    ids["string"] = blob.add(PTR, "", ids["const"])
    ids["const string"] = blob.add(CONST, "", ids["string"])
    ids["restrict"] = blob.add(RESTRICT, "", ids["string"])
    ids["array"] = blob.array(ids["int"], 3)
    ids["rows"] = blob.array(ids["array"], 2)
    ids["to array"] = blob.add(PTR, "", ids["array"])
    ids["proto"] = blob.proto(ids["int"], ("ctx", ids["void *"]), ("n", ids["int"]))
    ids["fn"] = blob.add(PTR, "", ids["proto"])
    ids["fns"] = blob.array(ids["fn"], 4)
    ids["varargs"] = blob.proto(0, ("fmt", ids["string"]), ("", 0))
    ids["main"] = blob.add(FUNC, "main", ids["proto"], vlen=1)
    ids["log"] = blob.add(FUNC, "log", ids["varargs"], vlen=0)
    ids["none"] = blob.add(FUNC, "none", blob.proto(0), vlen=2)
    ids["user"] = blob.add(TYPE_TAG, 'us"er', ids["int"])
    ids["user *"] = blob.add(PTR, "", ids["user"])
    ids["raw"] = blob.add(PTR, "", blob.add(TYPE_TAG, "address_space(1)", ids["int"], flag=True))
    ids["event"] = blob.struct("event", 8, ("pid", ids["int"], 0), ("n", ids["int"], 32))
    blob.add(DECL_TAG, "kptr", ids["event"], -1)
    blob.add(DECL_TAG, "counter", ids["event"], 1)
    ids["anonymous"] = blob.struct("", 4, ("x", ids["int"], 0))
    ids["event *"] = blob.add(PTR, "", ids["event"])
    ids["typedef"] = blob.add(TYPEDEF, "event_t", ids["anonymous"])
    ids["big"] = blob.enum64("big", A=1, B=1 << 40, C=(1 << 64) - 1)
    ids["signed"] = blob.enum64("signed", True, LOW=-1 << 62)
    ids["byte"] = blob.enum("byte", 1, ONE=1)
    ids["var"] = blob.add(VAR, "counter", ids["int"], 0)
    ids["section"] = blob.add(DATASEC, ".bss", 4, ids["var"], 0, 4, vlen=1)
    return blob.parse(), ids


@pytest.mark.parametrize(
    ("which", "name", "text"),
    [
        ("int", "", "int"),
        ("int", "x", "int x"),
        ("void *", "ctx", "void *ctx"),
        ("string", "s", "const char *s"),
        ("const string", "s", "const char *const s"),
        ("restrict", "s", "const char *restrict s"),
        ("array", "", "int[3]"),
        ("rows", "grid", "int grid[2][3]"),
        ("to array", "p", "int (*p)[3]"),
        ("fn", "fn", "int (*fn)(void *ctx, int n)"),
        ("fn", "", "int (*)(void *ctx, int n)"),
        ("fns", "table", "int (*table[4])(void *ctx, int n)"),
        ("varargs", "f", "void f(const char *fmt, ...)"),
        ("user *", "p", 'int __attribute__((btf_type_tag("us\\"er"))) *p'),
        ("raw", "p", "int __attribute__((address_space(1))) *p"),
        ("event *", "e", "struct event *e"),
        ("anonymous", "", "struct {...}"),
        ("typedef", "t", "event_t t"),
        ("main", "", "int main(void *ctx, int n)"),
    ],
)
def test_c_types(small: tuple[Btf, dict[str, int]], which: str, name: str, text: str) -> None:
    btf, ids = small
    assert btf_c.c_type(btf, ids[which], name) == text


@pytest.mark.parametrize(
    ("which", "text"),
    [
        (
            "event",
            "struct event {\n\tint pid;\n"
            '\tint n __attribute__((btf_decl_tag("counter")));\n'
            '} __attribute__((btf_decl_tag("kptr")));',
        ),
        ("typedef", "typedef struct {\n\tint x;\n} event_t;"),
        (
            "big",
            "enum big {\n\tA = 1,\n\tB = 1099511627776LL,\n\tC = 18446744073709551615ULL,\n};",
        ),
        ("signed", "enum signed {\n\tLOW = -4611686018427387904LL,\n};"),
        ("byte", "enum byte {\n\tONE = 1,\n} __attribute__((mode(byte)));"),
        ("main", "int main(void *ctx, int n);"),
        ("log", "static void log(const char *fmt, ...);"),
        ("none", "extern void none(void);"),
        ("var", "static int counter;"),
        ("section", "/* section .bss: 4 bytes, 1 variables */"),
        ("string", "const char *"),
    ],
)
def test_c_declarations(small: tuple[Btf, dict[str, int]], which: str, text: str) -> None:
    btf, ids = small
    assert btf_c.c_decl(btf, ids[which]) == text


def test_prototypes_and_summary(small: tuple[Btf, dict[str, int]]) -> None:
    btf, ids = small
    assert btf_c.func_prototype(btf, ids["main"]) == "int main(void *ctx, int n)"
    assert btf_c.func_prototype(btf, ids["event"]) is None
    assert btf_c.func_prototype(btf, 4711) is None
    assert btf_c.c_decl(btf, 4711) == "/* no type 4711 */"
    blob = Blob()
    number = blob.number("int", 4, 1)
    blob.struct("event", 4, ("pid", number, 0))
    pointer = blob.add(PTR)
    blob.add(FUNC, "hello_world", blob.proto(number, ("ctx", pointer)), vlen=1)
    btf = blob.parse()
    assert btf_c.summary(btf) == "5 types, 6 strings: int, struct event, hello_world()"
    assert btf_c.summary(parse(blob.data()[:40])).startswith("1 types, 0 strings: (bad string 1) (")
    assert btf_c.func_prototype(btf, 5) == "int hello_world(void *ctx)"


_DEFINITION: Final = re.compile(r"^(struct|union|enum) (\w+) \{\n.*?^\}[^\n]*;$", re.M | re.S)
_KIND_OF: Final = {"struct": Kind.STRUCT, "union": Kind.UNION, "enum": Kind.ENUM}


def normal(text: str) -> str:
    """A definition without what two right ones may differ in: how padding is made,
    spaces after ``*``, and the ``___2`` by which bpftool tells equal names apart."""
    text = re.sub(r" __attribute__\(\((aligned\(\d+\)|mode\(byte\)|packed)\)\)", "", text)
    text = re.sub(r"___\d+\b", "", text)
    text = re.sub(r"\* (?=\(|const|restrict)", "*", text)
    text = re.sub(
        r"^\s*((long|int|short|char): \d+|char __pad_\w+\[\d+\]);\n", "", text, flags=re.M
    )
    return re.sub(r"\n\n+", "\n", text)


@needs("bpftool")
@needs_vmlinux
def test_definitions_of_the_kernel_are_bpftools() -> None:
    btf = vmlinux()
    text = run("bpftool", "btf", "dump", "file", VMLINUX, "format", "c").stdout
    compared = 0
    for match in _DEFINITION.finditer(text):
        ids = btf.find_all(match[2], _KIND_OF[match[1]])
        if len(ids) == 1:
            assert normal(btf_c.c_decl(btf, ids[0])) == normal(match[0])
            compared += 1
    assert compared > 5000


def by_file(btf: Btf) -> Iterator[list[int]]:
    """Named structs and unions, in lots that can stand in one file: no name of two meanings."""
    lots: list[tuple[dict[tuple[bool, str], int], list[int]]] = []
    for root in [*btf.ids_of(Kind.STRUCT), *btf.ids_of(Kind.UNION)]:
        if not btf.name(root):
            continue
        meanings: dict[tuple[bool, str], int] = {}
        clash = False
        for type_id, _whole in btf_c.ordered(btf, [root]):
            found = btf.type(type_id)
            assert found is not None
            tagged = found.kind not in (TYPEDEF, FUNC, VAR)
            spellings = [(tagged, found.name), *((False, e.name) for e in found.enumerators)]
            clash |= any(meanings.setdefault(key, type_id) != type_id for key in spellings)
        if clash:
            continue
        for known, roots in lots:
            if all(known.get(key, value) == value for key, value in meanings.items()):
                known.update(meanings)
                roots.append(root)
                break
        else:
            lots.append((meanings, [root]))
    for _known, roots in lots:
        yield roots


def assertions(btf: Btf, root: int) -> Iterator[str]:
    found = btf.type(root)
    assert found is not None
    spelled = btf_c.c_type(btf, root)
    assert "/* at bit" not in btf_c.c_decl(btf, root)
    yield f'_Static_assert(sizeof({spelled}) == {found.size}, "{spelled}: {found.size}");'
    for member in found.members:
        if member.name and not member.bits:
            offset = member.bit_offset // 8
            yield (
                f"_Static_assert(__builtin_offsetof({spelled}, {member.name}) == {offset},"
                f' "{spelled}.{member.name}: {offset}");'
            )


def source_of(btf: Btf, roots: Sequence[int]) -> str:
    lines = [*btf_c.declarations(btf, roots)]
    lines += [each for root in roots for each in assertions(btf, root)]
    # The one type of the kernel's that compilers know by themselves.
    return "\n".join(line for line in lines if "__builtin_va_list[" not in line) + "\n"


def shape(btf: Btf, type_id: int) -> list[tuple[str, int, int | None]]:
    """Names, bit offsets and bits of the members."""
    found = btf.type(type_id)
    assert found is not None
    return [(each.name, each.bit_offset, each.bits) for each in found.members]


@needs("gcc", "clang")
@needs_vmlinux
def test_the_kernels_structs_compile_to_their_layout(tmp_path: Path) -> None:
    btf = vmlinux()
    path = tmp_path / "types.c"
    compiled_structs = 0
    for roots in by_file(btf):
        path.write_text(source_of(btf, roots))
        for compiler in ("gcc", "clang"):
            run(compiler, "-std=gnu11", "-fsyntax-only", "-w", path)
        compiled_structs += len(roots)
    assert compiled_structs > 5000


@needs("clang")
@needs_vmlinux
def test_the_kernels_bit_fields_come_back_from_clang(tmp_path: Path) -> None:
    btf = vmlinux()
    roots: list[int] = []
    for each in by_file(btf):
        roots = [
            root
            for root in each
            if (found := btf.type(root)) and any(member.bits for member in found.members)
        ]
        break
    text = source_of(btf, roots)
    spelled = [btf_c.c_type(btf, root, f"v{root}") for root in roots]
    again = parse(section(compiled(tmp_path, text + "".join(f"{s};" for s in spelled)), ".BTF"))
    assert len(roots) > 100
    for root in roots:
        name = btf.name(root)
        found = again.find(name, btf.kind(root))
        assert found is not None, name
        assert shape(again, found.id) == shape(btf, root), name


@needs("clang", "gcc")
def test_our_c_makes_the_same_btf_again(types: Btf, tmp_path: Path) -> None:
    text = "\n".join(btf_c.declarations(types))
    root = types.find("everything", Kind.STRUCT)
    assert root is not None
    (tmp_path / "again.c").write_text(text)
    for compiler in ("gcc", "clang"):
        run(compiler, "-std=gnu11", "-fsyntax-only", "-w", tmp_path / "again.c")
    use = "\nint f(struct everything *e, struct node *n) { return e->c; }"
    again = parse(section(compiled(tmp_path, text + use), ".BTF"))
    seen = 0
    for found in types:
        if found.kind in (STRUCT, UNION) and found.name:
            other = again.find(found.name, found.kind)
            assert other is not None
            assert other.size == found.size
            assert shape(again, other.id) == shape(types, found.id)
            mine = btf_c.c_decl(types, found.id)
            assert "/* at bit" not in mine
            assert btf_c.c_decl(again, other.id) == mine
            seen += 1
    assert seen == 7


@needs_vmlinux
def test_all_declarations_of_the_kernel_are_made() -> None:
    btf = vmlinux()
    order = list(btf_c.ordered(btf))
    kinds = Counter(btf.kind(type_id) for type_id, whole in order if whole)
    for kind in (Kind.FUNC, Kind.TYPEDEF, Kind.VAR):
        assert kinds[kind] == len(btf.ids_of(kind))
    assert sum(1 for _ in btf_c.declarations(btf)) == len(order)


# ------------------------------------------------------------------------ values


def assert_agrees(value: Value | None, dumped: Any) -> None:
    """Whether `bpftool map dump -j` shows the value as we do.

    It says "(nil)", "0x1f" or (of pointers to functions) a number where we have an Int,
    and shows a bit-field in hex, without its sign or name.
    """
    match value:
        case Struct(fields):
            inner = {name: each for name, each in dumped.items() if name not in ("", "(anon)")}
            for name in ("", "(anon)"):
                inner |= dumped.get(name, {})
            assert sorted(name for name, _ in fields) == sorted(inner)
            for name, each in fields:
                assert_agrees(each, inner[name])
        case Array(items, total):
            assert total == len(items) == len(dumped)
            for each, theirs in zip(items, dumped, strict=True):
                assert_agrees(each, theirs)
        case Text(data):
            assert dumped == data.decode()
        case Bytes(data):
            assert dumped == list(data)
        case Name(number) | Int(number) if str(dumped).startswith(("0x", "(nil)")):
            theirs = int(dumped.replace("(nil)", "0"), 0)
            # The same bits, as signed and as unsigned number.
            assert number == theirs or (number < 0 and (theirs - number).bit_count() == 1)
        case Name(number, name, "bool"):
            assert dumped is {"true": True, "false": False}[name or ""]
        case Name(number, None):
            assert dumped % (1 << 32) == number % (1 << 32)  # it takes all enums as signed
        case Name(_, name):
            assert dumped == name
        case Int(number):
            assert dumped == number
        case _:
            pytest.fail(f"{value} is not {dumped}")


def create_with_btf(btf_fd: int, key: int, value: int, sizes: tuple[int, int]) -> int:
    attr = struct.pack(
        "<IIIIIII16sIIIIII",
        1, *sizes, 4, 0, 0, 0, b"values", 0, btf_fd, key, value, 0, 0,
    )  # fmt: skip
    return bpf_asm.bpf(bpf_asm.MAP_CREATE, attr)


def update(map_fd: int, key: bytes, value: bytes) -> None:
    import ctypes

    key_buf = ctypes.create_string_buffer(key, len(key))
    value_buf = ctypes.create_string_buffer(value, len(value))
    addresses = (ctypes.addressof(key_buf), ctypes.addressof(value_buf))
    bpf_asm.bpf(2, struct.pack("<IIQQQ", map_fd, 0, *addresses, 0))


def map_id(map_fd: int) -> str:
    text = Path(f"/proc/self/fdinfo/{map_fd}").read_text()
    return str(re.findall(r"^map_id:\s*(\d+)$", text, re.M)[0])


@pytest.mark.skipif(bpf_asm.why_not() is not None, reason=str(bpf_asm.why_not()))
@needs("bpftool", "clang")
def test_values_are_those_of_bpftool_map_dump(tmp_path: Path) -> None:
    blob = section(compiled(tmp_path), ".BTF")
    btf = parse(blob)
    key, value = btf.find("point", Kind.STRUCT), btf.find("everything", Kind.STRUCT)
    assert key is not None
    assert value is not None
    contents = {
        struct.pack("<ii", 7, -7): bytes(range(1, 128)) * 4,
        struct.pack("<ii", 0, 1): bytes(value.size),
        struct.pack("<ii", -1, 2): b"\xff" * value.size,
    }
    # Printable text with its NUL is what both sides show as a string.
    at = {member.name: member.bit_offset // 8 for member in value.members}
    texts = {at["name"]: b"name\0".ljust(16, b"\0"), at["full"]: b"abc\0"}
    bools = {at["flag"]: b"\1", at["flags"]: b"\0\1"}
    with bpf_asm.btf_load(blob) as loaded:
        map_fd = create_with_btf(loaded.fd, key.id, value.id, (key.size, value.size))
    try:
        for each, data in contents.items():
            changed = bytearray(data[: value.size])
            for offset, text in (texts | bools).items():
                changed[offset : offset + len(text)] = text
            changed[at["colour"] : at["colour"] + 4] = struct.pack("<I", 5)
            changed[at["level"] : at["level"] + 4] = struct.pack("<i", -2)
            contents[each] = bytes(changed)
            update(map_fd, each, contents[each])
        dumped = run("bpftool", "-j", "map", "dump", "id", map_id(map_fd)).stdout
    finally:
        os.close(map_fd)
    rows = json.loads(dumped)
    assert len(rows) == len(contents)
    for row in rows:
        raw_key = bytes(int(each, 16) for each in row["key"])
        raw_value = bytes(int(each, 16) for each in row["value"])
        assert raw_value == contents[raw_key]
        assert_agrees(btf_values.value(btf, key.id, raw_key), row["formatted"]["key"])
        assert_agrees(btf_values.value(btf, value.id, raw_value), row["formatted"]["value"])


@pytest.fixture
def kit() -> tuple[Blob, dict[str, int]]:
    blob = Blob()
    ids = {
        "int": blob.number("int", 4, 1),
        "char": blob.number("char", 1, 1),
        "u8": blob.number("u8", 1),
    }
    ids["u32"] = blob.number("u32", 4)
    ids["bool"] = blob.number("_Bool", 1, 4)
    return blob, ids


def test_values(kit: tuple[Blob, dict[str, int]]) -> None:
    blob, ids = kit
    text = blob.array(ids["char"], 8)
    level = blob.enum("level", flag=True, LOW=-2, HIGH=3)
    old_level = blob.enum("old_level", OLD=0xFFFFFFFE)
    big = blob.enum64("big", B=1 << 40)
    double = blob.add(FLOAT, "double", 8)
    alias = blob.add(TYPEDEF, "alias", blob.add(CONST, "", ids["int"]))
    btf = blob.parse()
    expected: list[tuple[int, bytes, Value]] = [
        (ids["int"], b"\xfe\xff\xff\xff", Int(-2)),
        (ids["u32"], b"\xfe\xff\xff\xff", Int(0xFFFFFFFE)),
        (alias, b"\1\0\0\0", Int(1)),
        (ids["bool"], b"\1", Name(1, "true", "bool")),
        (ids["bool"], b"\2", Name(2, None, "bool")),
        (text, b"hi\0\0\0\0\0\0", Text(b"hi")),
        (text, b"hi\0there", Text(b"hi\0there")),
        (text, b"hi", Text(b"hi", False)),
        (text, b"", Absent(BEYOND_SIZE)),
        (level, b"\xfe\xff\xff\xff", Name(-2, "LOW", "level")),
        (level, b"\4\0\0\0", Name(4, None, "level")),
        (old_level, b"\xfe\xff\xff\xff", Name(0xFFFFFFFE, "OLD", "old_level")),
        (big, bytes(5) + b"\1\0\0", Name(1 << 40, "B", "big")),
        (double, bytes(8), Bytes(bytes(8), 8)),
        (ids["int"], b"\1\2", Bytes(b"\1\2", 4)),
        (ids["int"], b"\1\0\0\0\0\0\0\0", Int(1)),
        (
            ids["int"],
            b"\1\0\0\0\0\0\0\7",
            Struct((("value", Int(1)), (btf_values.REST, Bytes(b"\0\0\0\7", 4)))),
        ),
        (0, b"ab", Bytes(b"ab", 2)),
        (4711, b"ab", Bytes(b"ab", 2)),
    ]
    for type_id, data, value in expected:
        made = btf_values.value(btf, type_id, data)
        assert (type(made), made) == (type(value), value)


def test_bit_fields_old_and_new_in_both_byte_orders() -> None:
    for order in "<>":
        blob = Blob(order)
        number = blob.number("int", 4, 1)
        three = blob.number("int", 4, 1, 0, 3)
        five = blob.number("u32", 4, 0, 3, 5)
        old = blob.struct("old", 4, ("a", three, 0), ("b", five, 0), ("c", three, 11))
        new = blob.struct(
            "new", 4, ("a", number, 3 << 24), ("b", number, 5 << 24 | 3),
            ("c", number, 3 << 24 | 11), flag=True,
        )  # fmt: skip
        btf = blob.parse()
        # GCC and clang fill the lowest bits first on little-endian machines, the highest
        # first on big-endian ones.
        data = bytes([0b10110_101, 0b00_011_000, 0, 0])
        if order == ">":
            data = bytes([0b101_10110, 0b000_011_00, 0, 0])
        got_old = btf_values.value(btf, old, data)
        got_new = btf_values.value(btf, new, data)
        assert isinstance(got_old, Struct)
        assert isinstance(got_new, Struct)
        assert got_old.fields == (("a", Int(-3)), ("b", Int(0b10110)), ("c", Int(3)))
        assert got_new.fields == (("a", Int(-3)), ("b", Int(0b10110 - 32)), ("c", Int(3)))


def test_short_structs_keep_what_is_there(kit: tuple[Blob, dict[str, int]]) -> None:
    blob, ids = kit
    pair = blob.struct("pair", 8, ("a", ids["int"], 0), ("b", ids["int"], 32))
    pairs = blob.array(pair, 100)
    btf = blob.parse()
    got = btf_values.value(btf, pairs, struct.pack("<iii", 1, 2, 3))
    assert got == Array(
        (
            Struct((("a", Int(1)), ("b", Int(2))), "struct pair"),
            Struct((("a", Int(3)), ("b", Absent(BEYOND_SIZE))), "struct pair"),
        ),
        100,
    )


def test_values_in_a_row(kit: tuple[Blob, dict[str, int]]) -> None:
    blob, ids = kit
    btf = blob.parse()
    data = struct.pack("<iiii", 1, 0, -2, 0)
    assert btf_values.values(btf, ids["int"], data, 8) == Array((Int(1), Int(-2)), 2)
    assert btf_values.values(btf, ids["int"], data, 0) == Array((), 0)
    assert btf_values.values(btf, ids["int"], data, 100) == Array((), 0)
    many = btf_values.values(btf, ids["u8"], bytes(1 << 20), 1)
    assert many.total == 1 << 20
    assert len(many.items) <= btf_values.MAX_VALUES + 1


def test_sections_of_variables(kit: tuple[Blob, dict[str, int]]) -> None:
    blob, ids = kit
    first = blob.add(VAR, "first", ids["int"], 1)
    second = blob.add(VAR, "second", ids["bool"], 0)
    area = blob.add(DATASEC, ".data", 24, second, 16, 1, first, 0, 4, vlen=2)
    btf = blob.parse()
    data = struct.pack("<i", 3) + bytes(4) + b"literal\0" + b"\1" + bytes(6) + b"\7"
    assert btf_values.value(btf, area, data) == Struct(
        (
            ("first", Int(3)),
            ("(at 4)", Bytes(bytes(4) + b"literal\0", 12)),
            ("second", Name(1, "true", "bool")),
            ("(at 17)", Bytes(bytes(6) + b"\7", 7)),
        ),
        ".data",
    )


@needs("clang")
def test_typedefs_name_anonymous_structs(types: Btf) -> None:
    everything = types.find("everything")
    assert everything is not None
    value = btf_values.value(types, everything.id, bytes(everything.size))
    assert isinstance(value, Struct)
    assert value.ctype == "struct everything"
    anon = value.get("anon")
    assert isinstance(anon, Struct)
    assert anon.ctype == "anon_t"
    assert value.get("v4") == Int(0)
    assert value.get("flexible") is not None


# --------------------------------------------------------------------- .BTF.ext


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


# ----------------------------------------------------------------- newer kernels


def tables() -> dict[str, dict[int, str]]:
    return {
        name: value
        for module in (names, perf, helpers)
        for name, value in vars(module).items()
        if name.islower() and isinstance(value, dict) and not name.startswith("_")
    }


def without(table: str, *values: int) -> dict[str, dict[int, str]]:
    known = tables()
    known[table] = {key: name for key, name in known[table].items() if key not in values}
    return known


@needs_vmlinux
@pytest.mark.parametrize(
    ("table", "gone"),
    [
        ("bpf_cmd", (5, 28)),
        ("bpf_map_type", (1, 27)),
        ("bpf_prog_type", (2,)),
        ("bpf_attach_type", (0, 41)),
        ("bpf_link_type", (7,)),
        ("bpf_func_id", (6, 112)),
        ("perf_hw_id", (1,)),
        ("perf_sw_ids", (10,)),
        ("map_flags", (1 << 10,)),
    ],
)
def test_names_that_our_tables_lack_come_from_the_kernel(table: str, gone: tuple[int, ...]) -> None:
    whole = tables()[table]
    found = newer.newer_names(vmlinux(), without(table, *gone))
    ours = found.pop(table)
    assert ours == {value: whole[value] for value in gone}
    # What remains is what a kernel newer than our tables really adds, and never a counter.
    for table_of_newer in found.values():
        assert not [name for name in table_of_newer.values() if "MAX" in name]


@needs_vmlinux
@pytest.mark.parametrize(
    ("struct_name", "gone", "beside"),
    [
        ("bpf_attr", "map_extra", "map_type"),
        ("bpf_attr", "prog_token_fd", "prog_type"),
        ("bpf_attr", "link_create.uprobe_multi.pid", ""),
        ("bpf_attr", "token_create.bpffs_fd", ""),
        ("bpf_prog_info", "attach_btf_id", ""),
        ("bpf_map_info", "map_extra", ""),
        ("perf_event_attr", "sig_data", ""),
    ],
)
def test_fields_that_our_layouts_lack(struct_name: str, gone: str, beside: str) -> None:
    whole = LAYOUTS[struct_name]
    known = {struct_name: [each for each in whole if each.path != gone]}
    # Others that the kernel adds since are none of ours.
    before = newer.newer_fields(vmlinux(), {struct_name: whole}).get(struct_name, ())
    found = newer.newer_fields(vmlinux(), known)[struct_name]
    (field,) = [each for each in found if each not in before]
    (expected,) = [each for each in whole if each.path == gone]
    assert field[:5] == expected[:5]
    assert field.beside == beside


@needs_vmlinux
def test_flags_in_place_of_reserved_bits_are_newer() -> None:
    whole = LAYOUTS["perf_event_attr"]
    # An older table has one more reserved bit instead.
    (flag,) = [each for each in whole if each.path == "sigtrap"]
    older = [
        each._replace(bit_offset=flag.bit_offset, bit_size=27)
        if each.path == "__reserved_1"
        else each
        for each in whole
        if each.path != "sigtrap"
    ]
    found = newer.newer_fields(vmlinux(), {"perf_event_attr": older})["perf_event_attr"]
    assert flag[:5] in [each[:5] for each in found]


@needs_vmlinux
def test_a_new_commands_struct_is_newer_as_a_whole() -> None:
    known = [each for each in LAYOUTS["bpf_attr"] if not each.path.startswith("iter_create.")]
    found = newer.newer_fields(vmlinux(), {"bpf_attr": known})["bpf_attr"]
    assert {"iter_create.link_fd", "iter_create.flags"} <= {each.path for each in found}


def test_a_new_commands_unnamed_struct_is_newer_as_a_whole() -> None:
    blob = Blob()
    number = blob.number("__u32", 4)
    known = blob.struct("", 8, ("map_type", number, 0), ("key_size", number, 32))
    added = blob.struct("", 8, ("fresh", number, 0), ("flags", number, 32))
    members = [("", known, 0), ("", added, 0)]
    blob.struct("bpf_attr", 8, *members, kind=UNION)
    layout = [newer.NewerField("map_type", 0, 4, None, None, "", "")]
    layout.append(newer.NewerField("key_size", 4, 4, None, None, "", ""))
    assert newer.newer_fields(blob.parse(), {"bpf_attr": layout}) == {
        "bpf_attr": (
            newer.NewerField("fresh", 0, 4, None, None, "__u32", "fresh"),
            newer.NewerField("flags", 4, 4, None, None, "__u32", "fresh"),
        )
    }


# ----------------------------------------------------------------------- garbage


def use_everything(btf: Btf) -> None:
    """Calls all there is, and demands bounded results."""
    data_size = btf.data_size
    assert btf.problem is None or btf.problem
    made = list(btf)
    assert len(made) == len(btf.ids) <= data_size // 12
    sizes = [len(each.members) + len(each.enumerators) + len(each.params) for each in made]
    assert sum(sizes) <= data_size // 4
    for type_id in [-1, 0, *btf.ids, btf.end_id, 1 << 32]:
        btf.resolve(type_id)
        btf.size_of(type_id)
        btf.tags(type_id)
        for text in (
            btf_c.c_type(btf, type_id, "name"),
            btf_c.c_decl(btf, type_id),
            btf_c.func_prototype(btf, type_id) or "",
        ):
            assert len(text) < btf_c.TYPE_LIMIT + 64 * (data_size + 1024)
        for data in (b"", b"\xff" * 7, bytes(range(256)) * 2):
            value = btf_values.value(btf, type_id, data)
            assert count(value) <= 2 * btf_values.MAX_VALUES
        line_info.access_path(btf, line_info.CoreRelo(0, type_id, "0:1:0:2", 0, None))
        assert all(found in (*btf.ids, 0) for found in btf.find_all(btf.name(type_id)))
    assert len(btf_c.summary(btf)) < 10_000 + 8 * 512
    for _text in btf_c.declarations(btf):
        pass
    newer.newer_names(btf, {"bpf_cmd": {0: "a"}, "": {}, "flags": {1: "b"}})
    newer.newer_fields(btf, {"bpf_attr": LAYOUTS["bpf_attr"], "a": (), "": ()})


def count(value: Value) -> int:
    match value:
        case Struct(fields):
            return 1 + sum(count(each) for _, each in fields)
        case Array(items):
            return 1 + sum(map(count, items))
    return 1


def tried(data: bytes) -> None:
    start = time.perf_counter()
    try:
        btf = parse(data)
    except BtfError:
        return
    use_everything(btf)
    assert time.perf_counter() - start < 20


small_ids = st.integers(0, 12)
words = st.one_of(small_ids, st.sampled_from([31, 32, 64, 1 << 24, 1 << 31, 0xFFFFFFFF]))


@st.composite
def type_sections(draw: st.DrawFn) -> bytes:
    """Types that refer to each other at will, with names out of a few strings."""
    blob = Blob(draw(st.sampled_from("<>")))
    blob.strings = b"\0a\0bpf_attr\0char\0\x1b\xff\0bpf_cmd\0"
    # In a layout of a kind: what stands behind the btf_type, fixed and for each element.
    tails = {INT: (1, 0), ARRAY: (3, 0), VAR: (1, 0), DECL_TAG: (1, 0), STRUCT: (0, 3)}
    tails |= {UNION: (0, 3), ENUM: (0, 2), ENUM64: (0, 3), PROTO: (0, 2), DATASEC: (0, 3)}
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.integers(1, 19))
        fixed, element = tails.get(kind, (0, 0))
        vlen = draw(st.integers(0, 5)) if element else 0
        tail = draw(
            st.lists(words, min_size=fixed + element * vlen, max_size=fixed + element * vlen)
        )
        claimed = draw(st.sampled_from([vlen] * 8 + [0xFFFFFF]))
        name = draw(st.sampled_from([0, 0, 1, 3, 12, 17, 20, 1 << 20]))
        blob.add(kind, name, draw(words), *tail, vlen=claimed, flag=draw(st.booleans()))
    return blob.data()


@settings(deadline=None, max_examples=300)
@given(type_sections())
def test_types_that_refer_to_each_other_at_will(data: bytes) -> None:
    tried(data)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400), st.sampled_from(["<", ">"]), st.integers(0, 500))
def test_random_sections(body: bytes, order: str, split: int) -> None:
    head = struct.pack(f"{order}HBB5I", 0xEB9F, 1, 0, 24, 0, split, split, 500)
    tried(head + body)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=64))
def test_random_headers(data: bytes) -> None:
    tried(data)
    tried(b"\x9f\xeb" + data)
    tried(b"\xeb\x9f" + data)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_spoiled_real_btf(data: st.DataObject) -> None:
    blob = Blob()
    number = blob.number("int", 4, 1)
    inner = blob.struct("", 8, ("a", number, 0), ("b", number, 32))
    pointer = blob.add(PTR, "", 7)
    proto = blob.proto(number, ("ctx", pointer))
    blob.add(FUNC, "main", proto, vlen=1)
    blob.array(inner, 3)
    blob.struct("outer", 32, ("x", inner, 0), ("p", pointer, 64), ("y", 6, 128))
    blob.add(TYPEDEF, "outer_t", 7)
    whole = bytearray(blob.data())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    tried(bytes(whole[: data.draw(st.integers(0, len(whole)))]))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.integers(-2, 40))
def test_random_records(data: bytes, size: int) -> None:
    btf = Blob().parse()
    assert len(line_info.func_infos(data, size)) <= len(data) // 4
    assert len(line_info.Lines(line_info.line_infos(data, size, btf))) <= len(data) // 4
    assert len(line_info.core_relos(data, size, None)) <= len(data) // 4


def test_bombs() -> None:
    """Small blobs that stand for huge things."""
    blob = Blob()
    byte = blob.number("char", 1, 1)
    for level in range(30):  # 64 ** 30 members
        blob.struct("", 1, *[(f"m{level}", byte + level, 0)] * 64)
    deepest = blob.next_id - 1
    for level in range(30):  # and as many parameters
        blob.proto(byte, *[(f"p{level}", blob.next_id - 1 if level else byte)] * 64)
    btf = blob.parse()
    start = time.perf_counter()
    assert len(btf_c.c_decl(btf, deepest)) < 4 * btf_c.DECLARATION_LIMIT
    assert len(btf_c.c_type(btf, blob.next_id - 1, "f")) < 4 * btf_c.TYPE_LIMIT
    assert count(btf_values.value(btf, deepest, b"\1")) <= 2 * btf_values.MAX_VALUES
    assert sum(1 for _ in btf_c.declarations(btf)) == 0
    assert time.perf_counter() - start < 20

    blob = Blob()
    element = blob.number("int", 4, 1)
    for _ in range(60):
        element = blob.array(element, 0xFFFFFFFF)
    empty = blob.array(blob.struct("empty", 0), 0xFFFFFFFF)
    texts = blob.array(blob.number("char", 1), 0xFFFFFFFF)
    overlapping = blob.struct("texts", 4, *[("t", texts, 0)] * 5000)
    btf = blob.parse()
    data = bytes(range(1, 201)) * 5000
    for type_id in (*btf.ids, empty):
        assert count(btf_values.value(btf, type_id, data)) <= 2 * btf_values.MAX_VALUES
    value = btf_values.value(btf, overlapping, data)
    assert isinstance(value, Struct)
    copied = sum(len(each.data) for _, each in value.fields if isinstance(each, Text | Bytes))
    assert copied <= 6 * len(data)


def test_repetition_is_bounded() -> None:
    """A few bytes each that make a large text again and again."""
    blob = Blob()
    number = blob.number("int", 4, 1)
    large = blob.struct("", 1, *[("member", number, 0)] * 8_000)
    for _ in range(8_000):
        blob.add(TYPEDEF, "again", large)
    tagged = blob.struct("tagged", 1, *[("m", number, 0)] * 8_000)
    for _ in range(8_000):
        blob.add(DECL_TAG, "tag", tagged, 5)
    btf = blob.parse()
    start = time.perf_counter()
    texts = list(btf_c.declarations(btf))
    assert sum(map(len, texts)) < 2 * btf_c.DECLARATION_LIMIT + 17 * btf.data_size
    assert texts[-1] == "/* ... */"
    assert len(btf_c.c_decl(btf, tagged)) < btf_c.DECLARATION_LIMIT
    assert time.perf_counter() - start < 30


def test_cycles_end() -> None:
    blob = Blob()
    blob.number("int", 4, 1)
    blob.add(TYPEDEF, "t", 2)  # itself
    blob.add(CONST, "", 4)
    blob.add(VOLATILE, "", 3)  # each other
    blob.add(PTR, "", 5)
    blob.array(6, 2)
    blob.struct("s", 8, ("s", 7, 0))  # itself by value
    blob.proto(8, ("f", 8))
    blob.add(FUNC, "f", 9, vlen=1)
    btf = blob.parse()
    use_everything(btf)
    assert btf.resolve(2) is None
    assert btf.size_of(6) is None
    assert btf_c.c_decl(btf, 7) == "struct s {\n\tstruct s s;\n};"
    assert btf_c.c_type(btf, 5, "p").startswith("... *")
