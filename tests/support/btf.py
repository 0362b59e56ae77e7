"""BTF by hand, and what bpftool, clang and the kernel have of it."""

from __future__ import annotations

import functools
import io
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from decoders.formats.btf import Btf, parse
from decoders.formats.btf_c import Writer, budget

VMLINUX = Path("/sys/kernel/btf/vmlinux")


needs_vmlinux = pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel has no BTF")


def needs(*tools: str) -> pytest.MarkDecorator:
    missing = [tool for tool in tools if not shutil.which(tool)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True, **options)


# Numbers of linux/btf.h, written again so that the decoder can be found wrong.
INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST = range(1, 11)

RESTRICT, FUNC, PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(11, 20)


def c_decl(btf: Btf, type_id: int) -> str:
    """A type's full declaration, as `declarations` has it among the others."""
    found = btf.type(type_id)
    assert found is not None
    return Writer(btf, budget(btf)).definition(found)


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
