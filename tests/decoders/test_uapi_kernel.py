"""The generated tables, against the running kernel's BTF and what it takes."""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decoders.uapi import const, helpers, names, perf, system
from decoders.uapi.layouts import LAYOUTS, SIZES, Member
from tests.support.uapi_tables import FACTS, constants, tables

VMLINUX = Path("/sys/kernel/btf/vmlinux")
UNIONS = {"bpf_attr", "bpf_iter_link_info"}
MODULES = (names, helpers, perf, system)


# The running kernel's BTF


class Btf:
    """The running kernel's types, as bpftool lists them."""

    def __init__(self, listing: dict[str, Any]) -> None:
        self.types: dict[int, dict[str, Any]] = {row["id"]: row for row in listing["types"]}

    def structs(self, name: str) -> list[dict[str, Any]]:
        return [
            row
            for row in self.types.values()
            if row["kind"] in ("STRUCT", "UNION") and row["name"] == name
        ]

    def enums(self) -> list[dict[str, Any]]:
        return [row for row in self.types.values() if row["kind"] in ("ENUM", "ENUM64")]

    def base(self, number: int) -> dict[str, Any]:
        """A type without typedefs and qualifiers."""
        row = self.types[number]
        while row["kind"] in ("TYPEDEF", "CONST", "VOLATILE", "RESTRICT", "TYPE_TAG"):
            row = self.types[row["type_id"]]
        return row

    def size(self, number: int) -> int:
        row = self.base(number)
        if row["kind"] == "PTR":
            return 8
        if row["kind"] == "ARRAY":
            return int(row["nr_elems"]) * self.size(row["type_id"])
        return int(row["size"])

    def members(
        self, row: dict[str, Any], base: int = 0, prefix: str = ""
    ) -> Iterator[tuple[str, tuple[int, int, int | None]]]:
        """Path -> offset in bits, size in bytes, width of a bitfield."""
        for member in row["members"]:
            name = "" if member["name"] == "(anon)" else member["name"]
            offset = base + member["bits_offset"]
            kind = self.types[member["type_id"]]
            if kind["kind"] in ("STRUCT", "UNION") and kind["name"] == "(anon)":
                yield from self.members(kind, offset, f"{prefix}{name}." if name else prefix)
            elif name:
                width = member.get("bitfield_size") or None
                yield prefix + name, (offset, self.size(member["type_id"]), width)


@pytest.fixture(scope="module")
def btf() -> Btf:
    bpftool = shutil.which("bpftool") or shutil.which("bpftool", path="/usr/sbin:/sbin")
    if bpftool is None:
        pytest.skip("no bpftool")
    if not VMLINUX.exists():
        pytest.skip("the kernel has no BTF of its own")
    command = [bpftool, "-j", "btf", "dump", "file", str(VMLINUX), "format", "raw"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"bpftool cannot read the kernel's BTF: {done.stdout.decode()[:200]}")
    return Btf(json.loads(done.stdout))


def in_bits(member: Member) -> tuple[int, int, int | None]:
    return 8 * member.offset + (member.bit_offset or 0), member.size, member.bit_size


def test_layouts_equal_the_running_kernels(btf: Btf) -> None:
    shared = 0
    compared = set()
    for name, members in LAYOUTS.items():
        ours = {member.path: in_bits(member) for member in members}
        for row in btf.structs(name):
            theirs = dict(btf.members(row))
            # Reserved bits shrink where a newer kernel takes one.
            both = {p for p in ours.keys() & theirs.keys() if "__reserved" not in p}
            assert {p: ours[p] for p in both} == {p: theirs[p] for p in both}, name
            shared += len(both)
            compared.add(name)
    assert shared > 500
    assert compared >= {
        "bpf_attr",
        "bpf_insn",
        "bpf_prog_info",
        "bpf_map_info",
        "bpf_btf_info",
        "bpf_link_info",
        "bpf_func_info",
        "bpf_line_info",
        "bpf_core_relo",
        "bpf_iter_link_info",
        "perf_event_attr",
        "perf_event_query_bpf",
        "btf_header",
        "btf_type",
    }


@pytest.mark.parametrize(
    "name",
    ["bpf_attr", "bpf_link_info", "bpf_prog_info", "bpf_map_info", "bpf_btf_info",
     "bpf_iter_link_info", "perf_event_attr"],
)  # fmt: skip
def test_no_field_of_the_running_kernel_is_missing(btf: Btf, name: str) -> None:
    ours = {member.path for member in LAYOUTS[name]}
    (row,) = btf.structs(name)
    if row["size"] > SIZES[name]:
        pytest.skip(f"the running kernel's {name} is newer than the tables")
    assert not {path for path, _ in btf.members(row)} - ours


SENTINEL = re.compile(r"_*MAX_\w+|\w+_MAX(_ID)?|NR_\w+")
# Masks and limits, which grow with the kernel.
GROWING = {"BPF_F_REDIRECT_FLAGS", "BTF_MAX_KIND", "BTF_MAX_TYPE", "BTF_MAX_VLEN"}
# Enums of net/core/filter.c, for the kernel's own use.
INTERNAL = {"BPF_F_NEIGH", "BPF_F_PEER", "BPF_F_NEXTHOP"}


def test_enums_equal_the_running_kernels(btf: Btf) -> None:
    """All the kernel's values have the same name here, aliases included."""
    compared = set()
    # The other tables' names are ours: a kernel's enum of that name would be something else.
    uapi = json.loads(FACTS.read_text())["native"]["enums"]
    for module in MODULES:
        for table_name, table in tables(module):
            if table_name not in uapi:
                continue
            prefix = "BPF_FUNC_" if table_name == "bpf_func_id" else ""
            ours = {prefix + name: number for number, name in table.items()}
            ours.update(module.ALIASES.get(table_name, {}))
            for row in btf.enums():
                if row["name"] != table_name:
                    continue
                theirs = {
                    value["name"]: value["val"]
                    for value in row["values"]
                    if not SENTINEL.fullmatch(value["name"]) and "NUM" not in value["name"]
                }
                assert {name: ours.get(name) for name in theirs} == theirs, table_name
                assert {table[number] for number in theirs.values()} <= {
                    name.removeprefix(prefix) for name in theirs
                }
                compared.add(table_name)
    assert compared >= {
        "bpf_cmd",
        "bpf_map_type",
        "bpf_prog_type",
        "bpf_attach_type",
        "bpf_link_type",
        "bpf_func_id",
        "bpf_task_fd_type",
        "perf_type_id",
        "perf_hw_id",
        "perf_sw_ids",
        "perf_event_sample_format",
        "perf_branch_sample_type",
    }


def test_anonymous_enums_equal_the_running_kernels(btf: Btf) -> None:
    known = constants()
    shared = set()
    for row in btf.enums():
        for value in row["values"]:
            name = value["name"]
            ours = name in known or name in INTERNAL or not name.startswith("BPF_F_")
            assert ours, f"{name} is not in const.py"
            if name in known and name not in GROWING:
                width = (1 << 8 * row["size"]) - 1
                assert known[name] & width == value["val"] & width, name
                shared.add(name)
    assert {"BPF_NOEXIST", "BPF_F_NO_PREALLOC", "BPF_F_MMAPABLE"} <= shared
    assert len(shared) > 300


# The installed headers, as a compiler sees them


HEADERS = ("linux/bpf.h", "linux/btf.h", "linux/perf_event.h", "linux/hw_breakpoint.h",
           "linux/if_link.h", "linux/if_tun.h", "linux/sockios.h", "linux/kcm.h",
           "linux/capability.h", "linux/time.h", "linux/fcntl.h", "linux/openat2.h",
           "linux/netfilter.h", "linux/netfilter_ipv4.h", "asm/socket.h")  # fmt: skip


def run_c(rows: list[str], folder: Path) -> dict[int, list[str]]:
    """Run one statement a row; row number -> the words that it printed.

    Rows that do not compile (the headers lack what they name) are left out.
    """
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    if not Path("/usr/include/linux/bpf.h").exists():
        pytest.skip("no kernel headers for user space")
    head = "".join(f"#include <{name}>\n" for name in HEADERS)
    head += "int printf(const char *, ...);\n#define SAY(...) printf(__VA_ARGS__)\n"
    head += "#define offsetof __builtin_offsetof\nint main(void) {\n"
    first = head.count("\n") + 1
    limit = "-ferror-limit=0" if "clang" in compiler else "-fmax-errors=0"
    source, program = folder / "unit.c", folder / "unit"
    keep = dict(enumerate(rows))
    for _ in range(2):
        lines = (f'SAY("%d", {i}); {keep[i]} SAY("\\n");' if i in keep else ""
                 for i in range(len(rows)))  # fmt: skip
        source.write_text(head + "\n".join(lines) + "\n}\n")
        command = [compiler, "-w", "-O0", limit, str(source), "-o", str(program)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            out = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
            return {int(line.split()[0]): line.split()[1:] for line in out.splitlines()}
        for match in re.finditer(r"unit\.c:(\d+):\d+: (?:fatal )?error", done.stderr):
            keep.pop(int(match[1]) - first, None)
    raise AssertionError(done.stderr[:2000])


def test_layouts_equal_offsetof(tmp_path: Path) -> None:
    wanted: list[tuple[str, Member]] = []
    rows = []
    for name, members in LAYOUTS.items():
        if "." in name:
            continue
        ctype = f"{'union' if name in UNIONS else 'struct'} {name}"
        for member in members:
            if "struct " in member.ctype and member.size == 0:
                continue
            wanted.append((name, member))
            if member.bit_size is not None:
                rows.append(
                    f"{{ union {{ {ctype} s; unsigned char b[sizeof({ctype})]; }} u = {{}};"
                    f" u.s.{member.path} = -1;"
                    ' for (unsigned i = 0; i < sizeof u; i++) SAY(" %02x", u.b[i]); }'
                )
                continue
            size = f"sizeof((({ctype} *)0)->{member.path})" if member.size else "0ul"
            rows.append(f'SAY(" %lu %lu", offsetof({ctype}, {member.path}), {size});')
    said = run_c(rows, tmp_path)
    for index, words in said.items():
        name, member = wanted[index]
        if member.bit_size is None:
            assert [int(word) for word in words] == [member.offset, member.size], (name, member)
            continue
        bits = int.from_bytes(bytes.fromhex("".join(words)), "little")
        shift, _, width = in_bits(member)
        if member.path.startswith("__reserved"):
            continue  # they shrink where a new kernel takes a bit
        assert bits == ((1 << (width or 0)) - 1) << shift, (name, member)
    reached = {wanted[index][0] for index in said}
    assert len(said) > 450
    assert {"bpf_attr", "perf_event_attr", "bpf_link_info", "btf_header", "open_how"} <= reached


def test_numbers_equal_the_headers(tmp_path: Path) -> None:
    wanted = constants()
    wanted.update({f"BPF_FUNC_{name}": n for n, name in helpers.bpf_func_id.items()})
    for table_name, table in tables(system):
        if table_name not in ("o_flags_arm64", "kernel_errno"):
            wanted.update({name: number for number, name in table.items()})
    pairs = list(wanted.items())
    said = run_c([f'SAY(" %lld", (long long)({name}));' for name, _ in pairs], tmp_path)
    for index, (word,) in said.items():
        name, number = pairs[index]
        if name not in GROWING:
            assert int(word) == number, name
    assert len(said) > 700
    got = {pairs[index][0] for index in said}
    assert {"PERF_EVENT_IOC_QUERY_BPF", "TUNSETFILTEREBPF", "SIOCKCMATTACH", "CAP_BPF"} <= got


# The running kernel itself


def prog_load(log_level: int) -> int:
    """errno of a BPF_PROG_LOAD of "r0 = 0; exit", made by the layout; 0: it loaded."""
    code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
    insns = ctypes.create_string_buffer(code, len(code))
    license_ = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(65536)
    attr = bytearray(SIZES["bpf_attr.PROG_LOAD"])
    values = {
        "prog_type": const.BPF_PROG_TYPE_SOCKET_FILTER,
        "insn_cnt": len(code) // SIZES["bpf_insn"],
        "insns": ctypes.addressof(insns),
        "license": ctypes.addressof(license_),
        "log_level": log_level,
        "log_size": len(log),
        "log_buf": ctypes.addressof(log),
    }
    for member in LAYOUTS["bpf_attr.PROG_LOAD"]:
        value = values.pop(member.path, 0)
        if value:
            attr[member.offset : member.offset + member.size] = value.to_bytes(
                member.size, "little"
            )
    assert not values
    libc = ctypes.CDLL(None, use_errno=True)
    bpf = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    raw = (ctypes.c_char * 144).from_buffer(attr)
    fd = libc.syscall(bpf, const.BPF_PROG_LOAD, raw, 144)
    if fd < 0:
        return ctypes.get_errno()
    os.close(fd)
    return 0


def test_the_kernel_takes_the_log_levels_that_have_names(needs_bpf: None) -> None:
    for bit, name in names.log_level.items():
        if name != "BPF_LOG_FIXED":  # of Linux 6.4
            assert prog_load(bit) == 0, name
    assert prog_load(sum(names.log_level) + 1) == errno.EINVAL


def test_capabilities_reach_the_last() -> None:
    last = Path("/proc/sys/kernel/cap_last_cap")
    if not last.exists():
        pytest.skip("no cap_last_cap in /proc")
    assert max(system.capability) >= int(last.read_text())


def test_tables_import_no_more_than_types() -> None:
    for module in (*MODULES, const, importlib.import_module("decoders.uapi.layouts")):
        text = Path(module.__file__ or "").read_text()
        imports = [line for line in text.splitlines() if re.match(r"(from|import) ", line)]
        # decoders.records is what the house has instead of typing.NamedTuple.
        known = r"from (__future__|typing|decoders\.records) import"
        assert all(re.match(known, line) for line in imports)
