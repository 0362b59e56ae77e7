"""Tests that documents name: ``test_file.py::test_function``, wherever the file is."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.support.running import ROOT

TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


@cache
def _definitions(file: str) -> dict[str, ast.stmt]:
    """What the one file below ``tests`` that has this name defines, by name."""
    found = list((ROOT / "tests").rglob(file))
    assert len(found) == 1, f"{file}: {len(found)} files of this name"
    named: dict[str, ast.stmt] = {}
    for node in ast.parse(found[0].read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            named[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    return named


def functions_of(file: str) -> frozenset[str]:
    """The test functions of a file."""
    found = _definitions(file).items()
    return frozenset(name for name, node in found if isinstance(node, ast.FunctionDef))


@cache
def strings_of(file: str, function: str) -> str:
    """The strings and names in a test, and in what it uses of its own file: a line each.

    Docstrings do not count: they say, and hold nothing.
    """
    definitions = _definitions(file)
    seen: set[str] = set()
    waiting = [function]
    found = []
    while waiting:
        name = waiting.pop()
        node = definitions.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        said = {
            id(each.value) for each in ast.walk(node)
            if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
        }  # fmt: skip
        for each in ast.walk(node):
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                found += [] if id(each) in said else [each.value]
            elif isinstance(each, ast.Attribute):
                found.append(each.attr)
            elif isinstance(each, ast.Name):
                waiting.append(each.id)
            elif isinstance(each, ast.arg):
                waiting.append(each.arg)  # a fixture
    return "\n".join(found)
