"""The generated tables, against the kernel's BTF, the installed headers and the kernel itself.

None of the oracles shares code with tools/gen_uapi.py: the running kernel's
types are read through bpftool, the headers' through offsetof() in a C program.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from decoders.uapi import names, perf, system
from decoders.uapi.layouts import BASES, LAYOUTS, SIZES
from tests.support.running import ROOT
from tests.support.uapi_tables import FACTS, constants, tables

# The generator


def generate(top: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(top / "tools/gen_uapi.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the generator, its facts and its output, to spoil."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    shutil.copytree(ROOT / "decoders/uapi", tmp_path / "decoders/uapi")
    return tmp_path


def spoil(top: Path, old: str, new: str) -> None:
    path = top / "tools/uapi_facts.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_render_changes_nothing() -> None:
    done = generate(ROOT, "render", "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_render_writes_what_is_committed(copy: Path) -> None:
    files = list((copy / "decoders/uapi").glob("*.py"))
    for path in files:
        if path.name != "__init__.py":
            path.unlink()
    assert generate(copy, "render").returncode == 0
    for path in files:
        assert path.read_text() == (ROOT / "decoders/uapi" / path.name).read_text(), path.name


def test_check_notices_an_edit_by_hand(copy: Path) -> None:
    path = copy / "decoders/uapi/names.py"
    path.write_text(path.read_text().replace('5: "BPF_PROG_LOAD"', '6: "BPF_PROG_LOAD"'))
    done = generate(copy, "render", "--check")
    assert done.returncode == 1
    assert 'BPF_PROG_LOAD"' in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "said", "code"),
    [
        ('"BPF_F_CLONE": ', '"BPF_F_BRAND_NEW": 1048576, "BPF_F_CLONE": ', "BPF_F_BRAND_NEW", 0),
        ('"bpf_cmd": [', '"bpf_brand_new": ["BPF_ANY"], "bpf_cmd": [', "bpf_brand_new", 0),
        ('"bpf_cmd": [', '"bpf_cmd_renamed": [', "bpf_cmd", 2),
        ('"BPF_F_SLEEPABLE": ', '"BPF_F_SLEEPY": ', "BPF_F_SLEEPABLE", 2),
    ],
    ids=["new flag", "new enum", "enum gone", "flag gone"],
)
def test_nothing_is_lost_silently(copy: Path, old: str, new: str, said: str, code: int) -> None:
    """What is new is said, and the tables are made; without what is gone they cannot be."""
    spoil(copy, old, new)
    done = generate(copy, "render")
    assert done.returncode == code
    assert said in done.stderr


def test_new_enum_members_and_fields_arrive_without_edits(copy: Path) -> None:
    row = '["newer_field", 168, 8, null, null, "__u64"]'
    spoil(copy, '"bpf_cmd": [', '"bpf_cmd": ["BPF_NEWER", ')
    spoil(copy, '"BPF_MAP_CREATE": ', '"BPF_NEWER": 39, "BPF_MAP_CREATE": ')
    spoil(copy, '["prog_token_fd",', f'{row}, ["prog_token_fd",')
    assert generate(copy, "render").returncode == 0
    assert '39: "BPF_NEWER"' in (copy / "decoders/uapi/names.py").read_text()
    assert "BPF_NEWER: Final = 39" in (copy / "decoders/uapi/const.py").read_text()
    assert 'Member("newer_field", 168' in (copy / "decoders/uapi/layouts.py").read_text()


def test_extract_changes_nothing() -> None:
    libbpf = os.environ.get("BPFSTRACE_LIBBPF")
    if not libbpf:
        pytest.skip("BPFSTRACE_LIBBPF names no checkout of libbpf")
    pytest.importorskip("elftools")
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    made = json.loads(FACTS.read_text())["made_from"]
    show = ["git", "-C", libbpf, "show", "HEAD:CHECKPOINT-COMMIT"]
    commit = subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip()
    if commit not in made["libbpf"]:
        pytest.skip(f"BPFSTRACE_LIBBPF is of another kernel: {commit}")
    done = generate(ROOT, "extract", "--check", "--libbpf", libbpf)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# What holds between the tables


def test_nested_layouts_agree_with_the_outermost() -> None:
    seen = 0
    for name, members in LAYOUTS.items():
        outer, _, rest = name.partition(".")
        if not rest:
            continue
        whole = {member.path: member for member in LAYOUTS[outer]}
        for member in members:
            path = f"{rest}.{member.path}" if rest.islower() else member.path
            there = whole[path]
            assert member == there._replace(
                path=member.path, offset=there.offset - BASES.get(name, 0)
            ), (name, member)
            seen += 1
    assert seen > 250


def test_members_stay_inside_and_paths_are_unique() -> None:
    for name, members in LAYOUTS.items():
        assert len({member.path for member in members}) == len(members), name
        assert all(member.offset + member.size <= SIZES[name] for member in members), name
    assert set(SIZES) == set(LAYOUTS) >= set(BASES)


def test_every_member_of_bpf_attr_belongs_to_a_command() -> None:
    """The anonymous structs have keys of their own, and leave nothing over."""
    whole = {member.path for member in LAYOUTS["bpf_attr"]}
    told: set[str] = set()
    for name, members in LAYOUTS.items():
        if name.startswith("bpf_attr.") and name.count(".") == 1:
            key = name.removeprefix("bpf_attr.")
            told.update(f"{key}.{m.path}" if key.islower() else m.path for m in members)
    assert told == whole
    for key in ("MAP_CREATE", "MAP_*_ELEM", "PROG_LOAD", "OBJ_*", "PROG_ATTACH", "*_GET_*_ID",
                "BTF_LOAD"):  # fmt: skip
        assert LAYOUTS[f"bpf_attr.{key}"]


def test_flag_tables_hold_bits_and_no_bit_twice() -> None:
    for name, table in tables(names):
        if name.endswith("_flags"):
            assert all(bit.bit_count() <= 1 for bit in table), name
            assert len(set(table.values())) == len(table), name


def test_tables_agree_with_constants() -> None:
    known = constants()
    for module in (names, perf):
        for table_name, table in tables(module):
            if table_name in ("log_level", "perf_regs_arm64") or "compat32" in table_name:
                continue
            for number, name in table.items():
                assert known[name] == number, (table_name, name)
        for table_name, aliases in module.ALIASES.items():
            for name, number in aliases.items():
                assert known[name] == number
                assert number in getattr(module, table_name)


def test_compat_ioctls_differ_in_the_size_of_pointers_alone() -> None:
    """_IOC_SIZE is bits 16 to 29 of a request number."""
    wide = {name: number for number, name in perf.perf_event_ioc.items()}
    narrow = {name: number for number, name in perf.perf_event_ioc_compat32.items()}
    pointers = {"SET_FILTER", "ID", "QUERY_BPF", "MODIFY_ATTRIBUTES"}
    assert set(wide) == set(narrow)
    for name, number in wide.items():
        if name.removeprefix("PERF_EVENT_IOC_") in pointers:
            assert (number >> 16) & 0x3FFF == 8
            assert narrow[name] == number - (4 << 16)
        else:
            assert narrow[name] == number


def test_perf_attr_sizes_end_where_a_member_does() -> None:
    ends = {member.offset + member.size for member in LAYOUTS["perf_event_attr"]}
    assert set(perf.perf_attr_size) <= ends
    assert max(perf.perf_attr_size) == SIZES["perf_event_attr"]


def test_open_flags_and_clocks_as_python_knows_them() -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("Python knows the open flags of its own machine")
    seen = 0
    for number, name in system.o_flags.items():
        if name not in ("O_LARGEFILE", "FASYNC"):  # 0 in a 64-bit libc, O_ASYNC
            assert getattr(os, name) == number, name
            seen += 1
    assert seen >= 14
    for number, name in system.clockid.items():
        assert getattr(time, name, number) == number, name
    assert time.CLOCK_TAI in system.clockid


def test_arm64_open_flags_move_four() -> None:
    x86 = {name: number for number, name in system.o_flags.items()}
    arm = {name: number for number, name in system.o_flags_arm64.items()}
    moved = {name for name in x86 if x86[name] != arm[name]}
    assert moved == {"O_DIRECTORY", "O_NOFOLLOW", "O_DIRECT", "O_LARGEFILE", "O_TMPFILE"}
    # The four bits change places: no other number is used.
    assert sum(n for n in arm.values() if n.bit_count() == 1) == sum(
        n for n in x86.values() if n.bit_count() == 1
    )


def test_kernel_errors_are_none_of_user_space() -> None:
    assert system.kernel_errno[512] == "ERESTARTSYS"
    assert system.kernel_errno[516] == "ERESTART_RESTARTBLOCK"
    assert system.kernel_errno[524] == "ENOTSUPP"
    assert not set(system.kernel_errno) & set(errno.errorcode)
