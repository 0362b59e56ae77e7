"""Declarations in C of BTF types, against bpftool and compilers."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from decoders.formats import btf_c
from decoders.formats.btf import Btf, parse
from decoders.formats.btf_types import Kind
from tests.support.btf import (
    CONST,
    DATASEC,
    DECL_TAG,
    FUNC,
    PTR,
    RESTRICT,
    STRUCT,
    TYPE_TAG,
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
from tests.support.running import ROOT


@pytest.fixture
def types(tmp_path: Path) -> Btf:
    """BTF of SOURCE."""
    return parse(section(compiled(tmp_path), ".BTF"))


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
    assert c_decl(btf, ids[which]) == text


def test_prototypes_and_summary(small: tuple[Btf, dict[str, int]]) -> None:
    btf, ids = small
    assert btf_c.func_prototype(btf, ids["main"]) == "int main(void *ctx, int n)"
    assert btf_c.func_prototype(btf, ids["event"]) is None
    assert btf_c.func_prototype(btf, 4711) is None
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
            assert normal(c_decl(btf, ids[0])) == normal(match[0])
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
    assert "/* at bit" not in c_decl(btf, root)
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
            mine = c_decl(types, found.id)
            assert "/* at bit" not in mine
            assert c_decl(again, other.id) == mine
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


# ------------------------------------------------------------------ what a compiler says of them

ODD_C = """
struct in { long x; };
struct s { int a; long :64; long :64; long :64; struct in m; } v;
struct q { int a; long :64; long:64; long:64; struct in m; char c[8]; int d; long:64; } w;
typedef enum { ONE = 1, TWO } numbers;
numbers n;
struct holds { enum { RED, GREEN = -1 } colour; enum { BIG = 1ull << 40 } big; } h;
int old_style();
int (*called)() = old_style;
int counts(void) { static int fmt[3]; return ++fmt[0] + (int)n + (int)h.colour + v.a + w.a; }
"""


def test_declarations_compile_and_have_their_sizes(tmp_path: Path) -> None:
    """The compiler's own layout is the oracle: sizes of all, offsets of members."""
    for tool in ("clang", "gcc", "llvm-objcopy"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    source = tmp_path / "odd.c"
    source.write_text(ODD_C)
    subprocess.run(
        ["clang", "-target", "bpf", "-g", "-O2", "-c", source, "-o", tmp_path / "odd.o"],
        check=True,
    )
    raw = tmp_path / "odd.btf"
    subprocess.run(
        ["llvm-objcopy", "--dump-section", f".BTF={raw}", tmp_path / "odd.o"], check=True
    )
    types = parse(raw.read_bytes())
    lines = list(btf_c.declarations(types))
    for type_id in types.ids_of(Kind.STRUCT):
        found = types.type(type_id)
        assert found is not None
        name = f"struct {found.name}"
        lines.append(f'_Static_assert(sizeof({name}) == {found.size}, "{name}");')
        lines += [
            f'_Static_assert(__builtin_offsetof({name}, {member.name}) == '
            f'{member.bit_offset // 8}, "{member.name}");'
            for member in found.members
        ]
    assert len(lines) > 12
    again = tmp_path / "again.c"
    again.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["gcc", "-fsyntax-only", "-w", again], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + again.read_text()


def test_small_btf_stays_small() -> None:
    """Nested unions that many types share, padding, parameters: text grows with the data."""
    for name in ("btf_padding.btf",):
        data = (ROOT / "tests/hostile" / name).read_bytes()
        texts = list(btf_c.declarations(parse(data)))
        assert sum(map(len, texts)) < 2 * (btf_c.BASE + btf_c.FACTOR * len(data))
