"""docs/trust.md names tests: each of them exists, and there is one in every row."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT

ROWS = [
    line
    for line in (ROOT / "docs/trust.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| what |")
]


def functions_of(path: Path) -> set[str]:
    """The test functions of a file."""
    body = ast.parse(path.read_text()).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def test_there_are_rows() -> None:
    assert len(ROWS) > 40


@pytest.mark.parametrize("row", ROWS, ids=[row.split("|")[1].strip() for row in ROWS])
def test_every_row_has_tests(row: str) -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)
    assert named
    for file, name in named:
        assert name in functions_of(ROOT / "tests" / file), f"{file}::{name}"
