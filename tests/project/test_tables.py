"""What is forgotten is told: names that stand in the code are the kernel's, and rows are whole."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from bpftrace_sys.story.attach import link_targets
from decoders import commands
from decoders.declare.bpf_attr import COMMANDS
from decoders.declare.perf_ioctl import REQUESTS
from decoders.uapi import const, helpers, names, perf, system
from tests.support.running import ROOT

SOURCES = [
    path
    for part in ("bpftrace_sys", "decoders")
    for path in sorted((ROOT / part).rglob("*.py"))
    if "uapi" not in path.parts
]
NAME = re.compile(r"(?:BPF|PERF)_[A-Z0-9_]*[A-Z0-9]")
OTHERS = {
    # Prefixes of flags, of which the bits have names; strace prints PREFIX_???.
    "BPF_F", "BPF_F_KPROBE_MULTI", "BPF_F_NETFILTER", "BPF_F_QUERY", "BPF_F_TEST",
    "BPF_F_UPROBE_MULTI", "BPF_CGROUP_ITER", "PERF_ATTR_SIZE", "PERF_FLAG", "PERF_FORMAT",
    "PERF_IOC_FLAG", "PERF_REG", "PERF_SAMPLE", "PERF_SAMPLE_BRANCH",
    # Beginnings of command names.
    "BPF_OBJ_GET_INFO", "BPF_TCX",
    # Options of the kernel's configuration, without CONFIG_.
    "BPF_EVENTS", "BPF_JIT", "BPF_LSM", "PERF_EVENTS",
    # Parts of an opcode (linux/bpf_common.h).
    "BPF_B", "BPF_DW", "BPF_H", "BPF_K", "BPF_W", "BPF_X",
    # A limit (linux/bpf_common.h), which no table has.
    "BPF_MAXINSNS",
    # Names of program and map types without their prefix, and of a row of ours.
    "PERF_EVENT", "PERF_EVENT_ARRAY", "PERF_ATTR",
}  # fmt: skip


def known() -> set[str]:
    """Every name of the generated tables."""
    found: set[str] = set()
    for module in (const, helpers, names, perf, system):
        for name, value in vars(module).items():
            found.add(name)
            if isinstance(value, dict):
                found |= {part for pair in value.items() for part in pair if isinstance(part, str)}
    return found


def literals(path: Path) -> set[str]:
    """Strings of a source that are whole names of the kernel's kind."""
    return {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and NAME.fullmatch(node.value)
    }


def test_names_in_the_code_are_the_kernels() -> None:
    tables = known() | OTHERS
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        for name in literals(path)
        if name not in tables
    }
    assert wrong == set()


def test_every_exemption_is_used() -> None:
    used = set().union(*(literals(path) for path in SOURCES))
    assert used >= OTHERS


def test_every_command_has_its_traits() -> None:
    real = {name for name in names.bpf_cmd.values() if name != "BPF_COMMON_ATTRS"}
    assert set(commands.TRAITS) == real


@pytest.mark.parametrize("name", sorted(commands.ELEMENT | commands.BATCH))
def test_traits_agree_with_declarations(name: str) -> None:
    """An element's command has attr.map_fd, a batch attr.batch.map_fd."""
    number = {value: key for key, value in names.bpf_cmd.items()}[name]
    fields = {field.name for field in COMMANDS[number].attr.subcons}
    assert ("batch" if commands.TRAITS[name].batch else "map_fd") in fields


def test_every_ioctl_has_its_traits() -> None:
    assert set(commands.IOCTLS) == set(REQUESTS)


def test_ioctls_that_only_look_are_those_that_return_something() -> None:
    """By the direction in perf's request numbers (_IOC_READ)."""
    requests = perf.perf_event_ioc.items()
    assert {name for number, name in requests if number >> 30 & 2} == commands.IOCTLS_LOOK


def test_every_attach_type_has_a_row_or_a_reason() -> None:
    assert not set(link_targets.TARGETS) & set(link_targets.NO_LINK)
    known = set(names.bpf_attach_type.values())
    assert set(link_targets.TARGETS) | set(link_targets.NO_LINK) == known
