"""Tests that documents name: ``test_file.py::test_function``, wherever the file is."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.support.running import ROOT

TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


@cache
def functions_of(file: str) -> frozenset[str]:
    """The test functions of the one file below ``tests`` that has this name."""
    found = list((ROOT / "tests").rglob(file))
    assert len(found) == 1, f"{file}: {len(found)} files of this name"
    body = ast.parse(found[0].read_text()).body
    return frozenset(node.name for node in body if isinstance(node, ast.FunctionDef))
