"""docs/coverage.md leaves nothing out, and the tests that it names are there."""

from __future__ import annotations

import re

import pytest

from decoders.declare.bpf_link import VARIANTS
from decoders.declare.perf_ioctl import REQUESTS
from decoders.uapi import names, perf
from tests.support.named_tests import TEST, functions_of
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


def test_instructions_have_their_own_table() -> None:
    assert "(instructions.md)" in COVERAGE
    assert (ROOT / "docs/instructions.md").is_file()
    for linked in re.findall(r"\]\((\w+\.md)\)", COVERAGE):
        assert (ROOT / "docs" / linked).is_file(), linked
