"""What the kernel asks of an attr, as tables: whole, and held against the kernel's own answers.

LAST_FIELDS say where a command's attr ends, MAP_RULES what each map type asks of its numbers. The
kernel is asked byte by byte and number by number; what it refuses must be what the tables say.
"""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Iterator
from typing import Final

import pytest

from bpftrace_sys.record.machine.live_facts import LiveFacts
from bpftrace_sys.story.explain import explain
from bpftrace_sys.story.explain.failure import Failure
from bpftrace_sys.story.explain.last_fields import LAST_FIELDS, end_of, layout_of
from bpftrace_sys.story.explain.maps import MAP_RULES, NO_RULE
from bpftrace_sys.story.model import Model
from bpftrace_sys.trace.facts import RecordedFacts
from tests.support import bpf_asm as asm
from tests.support.refusals import noted, refusal
from tests.support.uapi_tables import FACTS

UAPI: Final = json.loads(FACTS.read_text())["native"]


def values(enum: str) -> dict[str, int]:
    """The values of an enum of linux/bpf.h by name, but for what only counts them."""
    names = [name for name in UAPI["enums"][enum] if not name.startswith("__MAX")]
    return {name: UAPI["constants"][name] for name in names}


COMMANDS: Final = values("bpf_cmd")
NOT_ALONE: Final = {"BPF_COMMON_ATTRS", "BPF_PROG_RUN"}
"""A bit beside the command, and BPF_PROG_TEST_RUN by its other name."""
TYPES: Final = {
    name.removeprefix("BPF_MAP_TYPE_"): number
    for name, number in values("bpf_map_type").items()
    if not name.endswith("_DEPRECATED")
}
SIZE: Final = UAPI["structs"]["bpf_attr"]["size"]


# ---------------------------------------------------------------- the last field

NOBODY: Final = 0xFFFFFFFF  # an fd that is none, a size that is too large
WELL_FORMED: Final[tuple[tuple[str, dict[int, int]], ...]] = (
    ("MAP_CREATE", {0: 2, 4: 4, 8: 8, 12: 1, 80: 8, 88: 32}),  # a hash that cannot be read
    ("MAP_LOOKUP_ELEM MAP_UPDATE_ELEM MAP_DELETE_ELEM MAP_GET_NEXT_KEY", {0: NOBODY}),
    ("MAP_LOOKUP_AND_DELETE_ELEM MAP_FREEZE PROG_TEST_RUN OBJ_GET_INFO_BY_FD", {0: NOBODY}),
    ("LINK_UPDATE LINK_DETACH ITER_CREATE PROG_BIND_MAP", {0: NOBODY}),
    ("MAP_LOOKUP_BATCH MAP_LOOKUP_AND_DELETE_BATCH", {36: NOBODY}),
    ("MAP_UPDATE_BATCH MAP_DELETE_BATCH", {36: NOBODY}),
    ("OBJ_PIN OBJ_GET", {12: 1 << 14}),  # BPF_F_PATH_FD
    ("PROG_LOAD", {0: 1}),
    ("PROG_ATTACH LINK_CREATE", {0: NOBODY, 4: NOBODY, 8: 46}),  # BPF_TCX_INGRESS
    ("RAW_TRACEPOINT_OPEN", {8: NOBODY}),
    ("BTF_LOAD", {16: NOBODY}),
    ("TOKEN_CREATE", {4: NOBODY}),
    ("PROG_STREAM_READ_BY_FD", {16: NOBODY}),
    ("PROG_ASSOC_STRUCT_OPS", {0: NOBODY, 4: NOBODY}),
)
"""Numbers by offset for which the kernel refuses commands for another reason than EINVAL, or
takes them; all zero where one is not listed. From linux/bpf.h."""
MUST_BE_ZERO: Final = {"BPF_ENABLE_STATS", "BPF_ITER_CREATE", "BPF_PROG_BIND_MAP"}
"""Their last field takes nothing but 0 today: a byte in it is refused like one after it."""


def test_every_command_has_a_last_field() -> None:
    assert set(LAST_FIELDS) == set(COMMANDS) - NOT_ALONE
    members = {member[0] for member in UAPI["structs"]["bpf_attr"]["members"]}
    assert set(LAST_FIELDS.values()) <= members
    for command, path in LAST_FIELDS.items():
        part = UAPI["structs"][f"bpf_attr.{layout_of(command)}"]["members"]
        assert path.rpartition(".")[2] in {member[0].rpartition(".")[2] for member in part}


@pytest.fixture(scope="module")
def facts(needs_bpf: None) -> LiveFacts:
    return LiveFacts()


@pytest.fixture(scope="module")
def a_map(needs_bpf: None) -> Iterator[int]:
    with asm.map_create() as made:
        yield made.fd


def well_formed(command: str, size: int, a_map: int) -> bytearray:
    """An attr that the kernel refuses for another reason than EINVAL, or takes."""
    attr = bytearray(size)
    for commands, numbers in WELL_FORMED:
        if command.removeprefix("BPF_") in commands.split():
            for offset, number in numbers.items():
                struct.pack_into("<I", attr, offset, number)
    if command == "BPF_OBJ_PIN":
        struct.pack_into("<I", attr, 8, a_map)
    return attr


def answer(command: str, attr: bytes) -> int:
    """What the kernel says; nothing that it makes stays."""
    try:
        made = asm.bpf(COMMANDS[command], attr)
    except OSError as error:
        return error.errno or -1
    if command in ("BPF_MAP_CREATE", "BPF_ENABLE_STATS"):
        os.close(made)
    return 0


@pytest.mark.parametrize("command", LAST_FIELDS)
def test_where_the_last_field_ends(command: str, facts: LiveFacts, a_map: int) -> None:
    """The kernel refuses each byte after the end, and takes a byte of the last field."""
    size = int(facts.fact("why size bpf_attr", 0) or SIZE)
    attr = well_formed(command, size, a_map)
    if facts.fact("why enumerator bpf_cmd", COMMANDS[command]) == "-":
        assert answer(command, attr) == errno.EINVAL  # a newer command
        return
    assert answer(command, attr) != errno.EINVAL
    call = noted(refusal(errno.EINVAL, bytes(attr), COMMANDS[command]), facts)
    end = end_of(Failure(call, Model(facts), facts))
    assert end is not None

    def with_byte(offset: int, byte: int) -> bytes:
        return bytes(attr[:offset]) + bytes((byte,)) + bytes(attr[offset + 1 :])

    for offset in range(end, size):
        assert attr[offset] == 0
        assert answer(command, with_byte(offset, 1)) == errno.EINVAL, offset
    part = UAPI["structs"][f"bpf_attr.{layout_of(command)}"]["members"]
    width = min(member[2] for member in part if member[1] + member[2] == end)
    bits = [1 << bit for bit in range(8)]
    taken = any(
        answer(command, with_byte(offset, byte)) != errno.EINVAL
        for offset in range(end - width, end)
        for byte in bits
    )
    assert taken == (command not in MUST_BE_ZERO)


@pytest.mark.parametrize("command", LAST_FIELDS)
def test_a_byte_after_the_last_field_is_told(command: str, facts: LiveFacts, a_map: int) -> None:
    call = noted(refusal(errno.EINVAL, bytes(SIZE), COMMANDS[command]), facts)
    if facts.fact("why enumerator bpf_cmd", COMMANDS[command]) == "-":
        said = explain(call, Model(facts), facts)
        assert said == [f"this kernel knows no bpf command {COMMANDS[command]} ({command})"]
        return
    end = end_of(Failure(call, Model(facts), facts))
    assert end is not None
    if end == int(facts.fact("why size bpf_attr", 0) or 0):
        assert command == "BPF_PROG_LOAD"  # its part is the longest
        return
    attr = well_formed(command, SIZE, a_map)
    attr[end] = 1
    call = noted(refusal(errno.EINVAL, bytes(attr), COMMANDS[command]), facts)
    assert f"byte {end} of attr is not zero, after the last field of {command}" in explain(
        call, Model(facts), facts
    )


# ---------------------------------------------------------------- numbers of maps

FIRST: Final[dict[str, tuple[int, int, int, int]]] = {
    **dict.fromkeys(TYPES, (4, 8, 1, 0)),
    **dict.fromkeys(
        ("PROG_ARRAY", "PERF_EVENT_ARRAY", "CGROUP_ARRAY", "ARRAY_OF_MAPS", "HASH_OF_MAPS",
         "XSKMAP"),
        (4, 4, 1, 0),
    ),
    **dict.fromkeys(("QUEUE", "STACK", "BLOOM_FILTER"), (0, 8, 1, 0)),
    **dict.fromkeys(("RINGBUF", "USER_RINGBUF"), (0, 0, 4096, 0)),
    **dict.fromkeys(
        ("SK_STORAGE", "INODE_STORAGE", "TASK_STORAGE", "CGRP_STORAGE"), (4, 8, 0, 1)
    ),
    **dict.fromkeys(("CGROUP_STORAGE", "PERCPU_CGROUP_STORAGE"), (16, 8, 0, 0)),
    "LPM_TRIE": (8, 8, 1, 1),
    "RHASH": (4, 8, 1, 1),
    "ARENA": (0, 0, 1, 1 << 10),
    "INSN_ARRAY": (4, 16, 1, 0),
}  # fmt: skip
"""key_size, value_size, max_entries and map_flags that a type takes."""


def created(number: int, numbers: tuple[int, int, int, int], kind: str) -> bytes:
    """An attr of MAP_CREATE that names what else its type needs, though it is not there."""
    attr = bytearray(SIZE)
    struct.pack_into("<5I", attr, 0, number, *numbers)
    if kind.endswith("_OF_MAPS"):
        struct.pack_into("<I", attr, 20, NOBODY)  # inner_map_fd
    elif kind.endswith("_STORAGE") and "CGROUP" not in kind:
        struct.pack_into("<III", attr, 48, NOBODY, 1, 1)  # btf_fd, types of key and value
    elif kind == "STRUCT_OPS":
        struct.pack_into("<I", attr, 60, 1)  # btf_vmlinux_value_type_id
    return bytes(attr)


def neighbours(first: tuple[int, int, int, int]) -> Iterator[tuple[int, int, int, int]]:
    """The same with another number at one place."""
    key, value, entries, flags = first
    for other in (0, 1, 4, 5, 8, 12, 16, 300):
        yield other, value, entries, flags
    for other in (0, 1, 4, 8, 12, 16):
        yield key, other, entries, flags
    for other in (0, 1, 2, 3, 4096, 4097, 3 * 4096):
        yield key, value, other, flags
    for bit in range(20):
        yield key, value, entries, flags ^ 1 << bit


def test_every_type_of_map_has_a_rule() -> None:
    assert set(MAP_RULES) | NO_RULE == set(TYPES)
    assert not set(MAP_RULES) & NO_RULE


@pytest.mark.parametrize("kind", MAP_RULES)
def test_what_a_type_asks_of_its_numbers(kind: str, facts: LiveFacts) -> None:
    """Whatever the kernel refuses, and nothing else, breaks a rule."""
    first = FIRST[kind]
    if facts.fact("why enumerator bpf_map_type", TYPES[kind]) != "-":
        assert answer("BPF_MAP_CREATE", created(TYPES[kind], first, kind)) != errno.EINVAL
    fds = UAPI["constants"]["BPF_F_TOKEN_FD"]
    if kind == "STRUCT_OPS":
        fds |= UAPI["constants"]["BPF_F_VTYPE_BTF_OBJ_FD"]
    for numbers in (first, *neighbours(first)):
        if numbers[3] & fds:
            continue  # refused for an fd, which is none
        attr = created(TYPES[kind], numbers, kind)
        said = explain(noted(refusal(errno.EINVAL, attr, 0), facts), Model(facts), facts)
        assert bool(said) == (answer("BPF_MAP_CREATE", attr) == errno.EINVAL), (numbers, said)


def test_newer_types_of_maps() -> None:
    """What kernels ask that few have: as if one had refused, which knows them."""

    def said(kind: str, numbers: tuple[int, int, int, int]) -> list[str]:
        facts = RecordedFacts({}, 1)
        attr = created(TYPES[kind], numbers, kind)
        return explain(noted(refusal(errno.EINVAL, attr, 0), facts), Model(facts), facts)

    for kind in ("INSN_ARRAY", "RHASH", "STRUCT_OPS"):
        assert said(kind, FIRST[kind]) == []
    assert said("INSN_ARRAY", (4, 8, 1, 0)) == ["value_size of an insn_array must be 16, not 8"]
    assert said("INSN_ARRAY", (4, 16, 1, 1 << 7)) == ["an insn_array cannot have BPF_F_RDONLY_PROG"]
    assert said("RHASH", (4, 8, 1, 0)) == ["a rhash must be made with BPF_F_NO_PREALLOC"]
    assert said("RHASH", (4, 8, 1, 1 | 1 << 6)) == ["a rhash cannot have BPF_F_ZERO_SEED"]
    assert said("STRUCT_OPS", (4, 8, 2, 0)) == ["max_entries of a struct_ops must be 1, not 2"]
