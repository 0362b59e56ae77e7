"""Every declaration against the kernel's layouts: each member, its place and its kind.

``decoders.uapi.layouts`` is what a compiler made of the kernel's headers;
``test_uapi.py`` proves it against the running kernel's BTF and the installed
headers.  Here the hand-written declarations are held against it, both ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import construct as cs
import pytest
from uapi_gen.declared import NOT_DECLARED, SHARED, STRUCTS, alternatives, one_of, places

from decoders.declare import bpf_attr, bpf_info, bpf_link, perf_attr, perf_ioctl
from decoders.declare.fields import Field, FlagSet, Meaning, Named, Written, table_name
from decoders.declare.structs import Many, One, Pick, Ptr, layout_of
from decoders.declare.syscalls import SYSCALLS
from decoders.uapi import const, names, perf, system
from decoders.uapi.layouts import LAYOUTS, SIZES, Member

COMMANDS = {number: name for number, name in names.bpf_cmd.items() if number != 1 << 16}


def kernels(members: tuple[Member, ...]) -> set[tuple[Any, ...]]:
    """Members of the kernel's, as tuples that compare with declared ones."""
    return {tuple(member[:5]) for member in members}


def declared(declaration: Any) -> set[tuple[Any, ...]]:
    """Declared members, as tuples."""
    return {tuple(place[:5]) for place in places(declaration)}


def unnamed(member: tuple[Any, ...]) -> bool:
    """Of several members at one place, the declaration shows the parts only."""
    return member[0] in NOT_DECLARED


def test_every_command_has_a_row() -> None:
    assert set(bpf_attr.COMMANDS) == set(COMMANDS)


@pytest.mark.parametrize("key", STRUCTS)
def test_members_of_a_struct(key: str) -> None:
    """Nothing is declared elsewhere than the kernel has it, and nothing is left out."""
    ours = declared(STRUCTS[key])
    theirs = {member for member in kernels(LAYOUTS[key]) if not unnamed(member)}
    if key in SHARED:
        assert ours < theirs
    else:
        assert ours == theirs


@pytest.mark.parametrize("number", COMMANDS, ids=COMMANDS.values())
def test_members_of_a_command(number: int) -> None:
    """Each command by itself: several share a struct and show different members of it."""
    key, struct = one_of(number)
    ours, theirs = declared(struct), kernels(LAYOUTS[key])
    assert ours <= theirs
    # No byte that the kernel has a member for is without a name.
    covered = {at for _, start, size, *_ in ours for at in range(start, start + size)}
    assert {at for _, start, size, *_ in theirs for at in range(start, start + size)} == covered


def test_all_of_bpf_attr() -> None:
    """Together the commands have every member of union bpf_attr, and no other."""
    ours = {member for row in bpf_attr.COMMANDS.values() for member in declared(row.attr)}
    assert ours == kernels(LAYOUTS["bpf_attr"])


def test_iterators_and_links() -> None:
    assert {
        member for row in alternatives(bpf_link.ITER_INFO) for member in declared(row)
    } == kernels(LAYOUTS["bpf_iter_link_info"])
    by_type = {f"BPF_LINK_TYPE_{name}" for name in bpf_info.LINK_DETAILS}
    assert by_type == set(names.bpf_link_type.values()) - {"BPF_LINK_TYPE_UNSPEC"}


@pytest.mark.parametrize("key", STRUCTS)
def test_sizes(key: str) -> None:
    """The declaration ends where the struct does, but for the kernel's own padding."""
    assert layout_of(STRUCTS[key]).size in (
        SIZES[key],
        max(member.offset + member.size for member in LAYOUTS[key]),
    )


@pytest.mark.parametrize("key", STRUCTS)
def test_signs(key: str) -> None:
    """Signed where the kernel's type is, and where an fd stands: -1 is passed in a __u32."""
    theirs = {member.path: member.ctype for member in LAYOUTS[key]}
    for place in places(STRUCTS[key]):
        if place.signed is not None and place.path not in NOT_DECLARED:
            ctype = theirs[place.path]
            fd = place.path.endswith("fd") and place.signed
            assert fd or place.signed == ctype.startswith(("__s", "int")), (place.path, ctype)


def test_attr_versions_of_perf() -> None:
    """Every published size ends between two members: none is cut in the middle."""
    ends = {place.offset + place.size for place in places(perf_attr.PERF_ATTR)}
    assert set(perf.perf_attr_size) <= ends
    assert layout_of(perf_attr.PERF_ATTR).size == max(perf.perf_attr_size)


# ---------------------------------------------------------------- tables


def fields(declaration: Any, seen: set[int]) -> Iterator[tuple[str, Field]]:
    """(name, field) of everything below a declaration, through its pointers."""
    if id(declaration) in seen:
        return
    seen.add(id(declaration))
    for slot in layout_of(declaration).slots:
        field = slot.field.field if isinstance(slot.field, Written) else slot.field
        if slot.kind == "struct":
            yield from fields(field, seen)
        elif slot.kind == "pick":
            for row in alternatives(field):
                yield from fields(row, seen)
        elif isinstance(field, Meaning):
            for each in field.rows.values():
                yield slot.name, each
        else:
            yield slot.name, field
        if isinstance(field, Ptr) and isinstance(field.target, One | Many):
            item = field.target.item
            if isinstance(item, Pick):
                for row in alternatives(item):
                    yield from fields(row, seen)
            elif isinstance(item, cs.Struct):
                yield from fields(item, seen)
            else:
                yield slot.name, item


EVERY_FIELD = [
    pair
    for name in ("bpf", "perf_event_open", "ioctl")
    for pair in fields(SYSCALLS[name].args, set())
]


def test_tables() -> None:
    """Each name comes from a generated table, under the name of the enum that it is."""
    found = 0
    for name, field in EVERY_FIELD:
        if isinstance(field, Named) and field.table is not perf_ioctl.NAMES:
            table = table_name(field.table)
            assert table, name
            # What a newer kernel's BTF adds is looked up by the enum's name.
            if field.enum in vars(names) or field.enum in vars(perf):
                assert field.enum == table, name
            found += 1
        elif isinstance(field, FlagSet) and not isinstance(field, bpf_info.Mask):
            if name not in ("sample_regs_user", "sample_regs_intr"):
                assert table_name(field.table), name
            found += 1
    assert found > 60


@pytest.mark.parametrize(
    ("enum", "where"),
    [
        (enum, where)
        for where, enums in {
            names: "bpf_map_type bpf_prog_type bpf_attach_type bpf_link_type bpf_perf_event_type"
            " bpf_stats_type bpf_task_fd_type bpf_cgroup_iter_order bpf_core_relo_kind"
            " bpf_stream_id map_flags map_elem_flags prog_flags file_flags open_flags"
            " attach_flags link_create_flags link_update_flags query_flags test_run_flags"
            " btf_flags kprobe_multi_flags uprobe_multi_flags netfilter_flags xdp_flags",
            perf: "perf_hw_id perf_sw_ids perf_event_sample_format perf_event_read_format"
            " perf_branch_sample_type perf_event_open_flags perf_event_ioc_flags"
            " hw_breakpoint_type hw_breakpoint_len",
            system: "nfproto nf_inet_hooks clockid",
        }.items()
        for enum in enums.split()
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__.rpartition(".")[2],
)
def test_table_is_used(enum: str, where: Any) -> None:
    """Every table that the generator makes for a field is some field's."""
    table = vars(where)[enum]
    assert any(getattr(field, "table", None) is table for _, field in EVERY_FIELD)


def test_every_ioctl_has_a_row() -> None:
    """Of both pointer sizes, with the number's own size where it says one."""
    for number, name in {
        **perf.perf_event_ioc,
        **perf.perf_event_ioc_compat32,
        **system.tun_ioctl,
        **system.kcm_ioctl,
    }.items():
        row = perf_ioctl.ROWS[number]
        assert row is perf_ioctl.REQUESTS[name].arg
        assert row.sizeof() == 8, name


def test_attach_types_have_variants() -> None:
    """Every attach type that a link's union has something for, has it in our table; of the others
    it is said that there is nothing."""
    named = {name for name in bpf_link.VARIANTS if name.startswith("BPF_")}
    cgroups = {name for name in names.bpf_attach_type.values() if "CGROUP" in name}
    assert named | set(bpf_link.NO_VARIANT) | cgroups == set(names.bpf_attach_type.values())
    assert not named & {*bpf_link.NO_VARIANT, *cgroups}
    for part in ("MULTI", "SESSION", "TCX", "NETKIT", "TRACE_F", "ITER", "NETFILTER"):
        assert {name for name in names.bpf_attach_type.values() if part in name} <= named, part
    assert const.BPF_STRUCT_OPS in names.bpf_attach_type
