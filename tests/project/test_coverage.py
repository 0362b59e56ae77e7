"""docs/coverage.md leaves nothing out, and the tests that it names are there."""

from __future__ import annotations

import re

import pytest

from decoders.declare.bpf_link import VARIANTS
from decoders.declare.perf_ioctl import REQUESTS
from decoders.uapi import names, perf
from tests.support.named_tests import TEST, functions_of, strings_of
from tests.support.running import ROOT

COVERAGE = (ROOT / "docs/coverage.md").read_text()
ROWS = [line for line in COVERAGE.splitlines() if line.startswith("|")]


def rows_of(name: str) -> list[str]:
    """Rows that are about a name: it stands before their last cell."""
    return [row for row in ROWS if f"`{name}`" in row.rpartition("|")[0].rpartition("|")[0]]


@pytest.mark.parametrize(
    "name",
    [
        *names.bpf_cmd.values(),
        *perf.perf_attr_size.values(),
        *perf.perf_type_id.values(),
        *REQUESTS,
    ],
)
def test_listed(name: str) -> None:
    """Every command, attr version, event type and request has a row that names a test."""
    rows = rows_of(name)
    assert rows, f"{name} is not in docs/coverage.md"
    assert any(TEST.search(row) or "below" in row for row in rows), name


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_link_listed(name: str) -> None:
    """Every attach type that has a part of LINK_CREATE's union."""
    assert any(TEST.search(row) for row in rows_of(name)), name


def test_numbers() -> None:
    """The number beside a command or a version is its own."""
    for number, name in names.bpf_cmd.items():
        if number < 1 << 16:
            assert any(row.startswith(f"| {number} | `{name}` |") for row in ROWS), name
    for size, name in perf.perf_attr_size.items():
        assert any(row.startswith(f"| {size} | `{name}` |") for row in ROWS), name


def test_tests_exist() -> None:
    named = {found.groups() for row in ROWS for found in TEST.finditer(row)}
    assert len(named) > 40
    for file, function in sorted(named):
        assert function in functions_of(file), f"{file}::{function}"


PREFIXES = ("BPF_", "PERF_TYPE_", "PERF_EVENT_IOC_")
KERNEL_NAME = re.compile(r"`([A-Z][A-Z0-9_]+\*?)`")


def mentions(file: str, function: str, name: str) -> bool:
    """Whether a test has a name in it, as the kernel has it or without its beginning."""
    forms = [name, *(name.removeprefix(prefix) for prefix in PREFIXES)]
    whole = "|".join(re.escape(form).replace(r"\*", r"\w+") for form in forms)
    return bool(re.search(rf"(?<![A-Z0-9_])(?:{whole})(?![A-Z0-9_])", strings_of(file, function)))


@pytest.mark.parametrize("row", [row for row in ROWS if TEST.search(row)])
def test_a_row_and_its_tests_are_of_the_same(row: str) -> None:
    """Each name of a row is in one of its tests, and each of its tests has one of its names."""
    named = KERNEL_NAME.findall(row.rpartition("|")[0].rpartition("|")[0])
    tests = [found.groups() for found in TEST.finditer(row)]
    for name in named:
        assert any(mentions(*test, name) for test in tests), f"none has {name}"
    for test in tests if named else ():
        assert any(mentions(*test, name) for name in named), "::".join(test)


def test_a_test_of_another_name_is_told() -> None:
    assert mentions("test_decode.py", "test_stream", "BPF_PROG_STREAM_READ_BY_FD")
    assert not mentions("test_decode.py", "test_stream", "BPF_PROG_BIND_MAP")
    assert not mentions("test_decode.py", "test_stream", "BPF_PROG_STREAM")


def test_instructions_have_their_own_table() -> None:
    assert "(instructions.md)" in COVERAGE
    assert (ROOT / "docs/instructions.md").is_file()
    for linked in re.findall(r"\]\((\w+\.md)\)", COVERAGE):
        assert (ROOT / "docs" / linked).is_file(), linked
