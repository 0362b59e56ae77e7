"""Documents: links lead somewhere, tests that they name exist, and the index leaves none out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.named_tests import TEST, functions_of
from tests.support.running import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\(([\w./-]+)(?:#[\w-]*)?\)")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text()):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_tests_that_are_named_exist(path: Path) -> None:
    for file, name in TEST.findall(path.read_text()):
        assert name in functions_of(file), f"{file}::{name}"


def test_the_index_leaves_none_out() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    there = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert there <= set(LINK.findall(index))


def test_every_tool_is_said_to_take_its_time() -> None:
    """A tool that a person runs says how long it takes."""
    said = re.compile(r"\b(seconds?|minutes?|\d+ s)\b")
    for path in (ROOT / "tools").glob("*.py"):
        text = path.read_text()
        if text.startswith("#!"):
            assert said.search(text.split('"""')[1]), path.name
