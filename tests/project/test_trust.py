"""docs/trust.md names tests: each of them exists, and there is one in every row."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.named_tests import TEST, functions_of
from tests.support.running import ROOT


def rows() -> Iterator[str]:
    """The rows of the tables that say what shows something, not of those that explain words."""
    shown_by = False
    for line in (ROOT / "docs/trust.md").read_text().splitlines():
        if not line.startswith("|"):
            shown_by = False
        elif line == "| what | shown by |":
            shown_by = True
        elif shown_by and line.startswith("| "):
            yield line


ROWS = list(rows())


def test_there_are_rows() -> None:
    assert len(ROWS) > 40


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() for row in ROWS])
def test_every_row_has_tests(row: str) -> None:
    named = TEST.findall(row)
    assert named
    for file, name in named:
        assert name in functions_of(file), f"{file}::{name}"
