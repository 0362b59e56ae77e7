"""Attach types: which programs they take, and what their target is, against the kernel's answers.

A program of each type is loaded and offered to each attach type, with a target that is not there:
of what does not belong together the kernel says EINVAL, of a target that is none EBADF or ENODEV.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import Final

import pytest

from bpftrace_sys.story.explain import explain
from bpftrace_sys.story.explain.attach import ATTACH_PROGS, NO_PROGS
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Prog
from bpftrace_sys.trace.facts import RecordedFacts
from decoders.declare.bpf_link import VARIANTS
from decoders.uapi import names
from decoders.walk.measures import ATTACH_BY_IFINDEX
from tests.support import bpf_asm as asm
from tests.support.refusals import noted, refusal

TYPES: Final = {name: number for number, name in names.bpf_attach_type.items()}
PROGS: Final = {
    name.removeprefix("BPF_PROG_TYPE_").lower(): number
    for number, name in names.bpf_prog_type.items()
}
LINK_CREATE: Final = 28
PROG_ATTACH: Final = 8
UNTRIED: Final = {
    # Its EINVAL may be for what else the link lacks: a path, a device, a map.
    "BPF_XDP", "BPF_TRACE_UPROBE_MULTI", "BPF_TRACE_UPROBE_SESSION",
    # Programs that take a type of the kernel's BTF.
    "BPF_TRACE_RAW_TP", "BPF_TRACE_FENTRY", "BPF_TRACE_FEXIT", "BPF_MODIFY_RETURN",
    "BPF_TRACE_ITER", "BPF_LSM_MAC", "BPF_LSM_CGROUP",
}  # fmt: skip
OF_CONFIG: Final = {"BPF_LIRC_MODE2", "BPF_NETKIT_PRIMARY", "BPF_NETKIT_PEER"}
"""Kernels may be built without them."""


def load(kind: str, attach_type: int) -> int:
    """The fd of a program that returns 1; negative where the kernel takes none of that kind."""
    code = ctypes.create_string_buffer(asm.mov(0, 1) + asm.exit_())
    licence = ctypes.create_string_buffer(b"GPL")
    attr = bytearray(144)
    pointers = (ctypes.addressof(code), ctypes.addressof(licence))
    struct.pack_into("<IIQQ", attr, 0, PROGS[kind], 2, *pointers)
    struct.pack_into("<I", attr, 68, attach_type)
    try:
        return asm.bpf(5, attr)
    except OSError as error:
        return -(error.errno or 1)


@contextlib.contextmanager
def program(kind: str, attach_type: int) -> Iterator[int]:
    """A program that was loaded for the attach type, or for none where it cannot be."""
    fd = load(kind, attach_type)
    if fd < 0:
        fd = load(kind, 0)
    yield fd
    if fd >= 0:
        os.close(fd)


def answer(command: int, *numbers: int) -> int:
    """The error of LINK_CREATE or PROG_ATTACH; 0 where a link was made, which is closed."""
    try:
        made = asm.bpf(command, struct.pack("<iiIIIIQ", *numbers, 0, 0, 0, 0))
    except OSError as error:
        return error.errno or -1
    assert command == LINK_CREATE
    os.close(made)
    return 0


@pytest.fixture(scope="module")
def answers(needs_bpf: None) -> dict[str, dict[str, set[int]]]:
    """What the kernel says but EINVAL, by attach type and type of program."""
    found: dict[str, dict[str, set[int]]] = {}
    for name, number in TYPES.items():
        for kind in PROGS:
            with program(kind, number) as fd:
                if fd < 0:
                    continue
                said = {
                    answer(LINK_CREATE, fd, -1, number), answer(PROG_ATTACH, -1, fd, number)
                } - {errno.EINVAL}  # fmt: skip
                if said:
                    found.setdefault(name, {})[kind] = said
    return found


def test_every_attach_type_has_its_programs_or_a_reason() -> None:
    assert set(ATTACH_PROGS) | set(NO_PROGS) == set(TYPES)
    assert not set(ATTACH_PROGS) & set(NO_PROGS)
    assert {kind for kinds in ATTACH_PROGS.values() for kind in kinds} <= set(PROGS)


def test_the_kernel_takes_the_same_programs(answers: dict[str, dict[str, set[int]]]) -> None:
    assert {name: set(kinds) for name, kinds in answers.items()} == {
        name: set(ATTACH_PROGS[name]) for name in answers
    }
    assert set(ATTACH_PROGS) - set(answers) - OF_CONFIG == UNTRIED


def test_the_kernel_looks_for_the_same_target(answers: dict[str, dict[str, set[int]]]) -> None:
    """A device that is not there is ENODEV, a file EBADF."""
    of = {errno.ENODEV: set[str](), errno.EBADF: set[str]()}
    for name, kinds in answers.items():
        for said in kinds.values():
            for number in said & set(of):
                of[number].add(name)
    by_ifindex = {names.bpf_attach_type[number] for number in ATTACH_BY_IFINDEX}
    assert of[errno.ENODEV] == by_ifindex & set(answers)
    assert by_ifindex - set(answers) <= UNTRIED | OF_CONFIG
    # What looks for neither has no target there: functions, the kernel's own hooks.
    neither = set(answers) - of[errno.ENODEV] - of[errno.EBADF]
    assert neither <= {
        "BPF_NETFILTER", "BPF_TRACE_KPROBE_MULTI", "BPF_TRACE_KPROBE_SESSION",
    }  # fmt: skip


NO_DEVICE: Final = {
    "BPF_LIRC_MODE2", "BPF_XDP_DEVMAP", "BPF_XDP_CPUMAP", "BPF_SK_REUSEPORT_SELECT",
    "BPF_SK_REUSEPORT_SELECT_OR_MIGRATE", "BPF_FLOW_DISSECTOR", "BPF_SK_LOOKUP",
    "BPF_SK_SKB_STREAM_PARSER", "BPF_SK_SKB_STREAM_VERDICT", "BPF_SK_SKB_VERDICT",
    "BPF_SK_MSG_VERDICT", "BPF_STRUCT_OPS",
}  # fmt: skip


def test_every_attach_type_says_what_its_target_is() -> None:
    """By ifindex, by an fd (of a cgroup, a map, a namespace), or by its part of the union.

    A new attach type is in neither list: whether its target is a device has to be looked up.
    """
    by_ifindex = {names.bpf_attach_type[number] for number in ATTACH_BY_IFINDEX}
    cgroups = {name for name in TYPES if "CGROUP" in name}
    parts = set(VARIANTS) - by_ifindex
    assert by_ifindex | cgroups | parts | NO_DEVICE >= set(TYPES)
    assert not NO_DEVICE & (by_ifindex | cgroups | parts)


def test_an_extension_is_no_wrong_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its attach type is 0, which is a cgroup's."""
    facts = RecordedFacts({}, 1)
    attr = struct.pack("<iiIIIIQ", 5, 6, 0, 0, 0, 0, 0).ljust(64, b"\0")
    model = Model(facts)
    loaded = noted(refusal(0, (28).to_bytes(4, "little").ljust(144, b"\0")), facts)
    for kind, said in (("ext", False), ("xdp", True)):
        prog = Prog(call=loaded, type=kind)
        monkeypatch.setattr(model, "by_fd", lambda call, *path, prog=prog: prog)
        call = noted(refusal(errno.EINVAL, attr, LINK_CREATE), facts)
        assert bool(explain(call, model, facts)) is said
