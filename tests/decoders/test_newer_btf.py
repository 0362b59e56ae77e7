"""What our tables lack comes from the BTF of the running kernel."""

from __future__ import annotations

import pytest

from decoders import newer
from decoders.uapi import helpers, names, perf
from decoders.uapi.layouts import LAYOUTS
from tests.support.btf import (
    UNION,
    Blob,
    needs_vmlinux,
    vmlinux,
)


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
