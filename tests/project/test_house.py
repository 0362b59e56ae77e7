"""The house: modules that strings name, what stands at the root, who says what it holds."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bpftrace_sys.cli.main import COMMANDS

ROOT = next(path for path in Path(__file__).resolve().parents if (path / "bpftrace_sys").is_dir())
SOURCES = sorted(
    path for part in ("bpftrace_sys", "decoders") for path in (ROOT / part).rglob("*.py")
)
NAMED = re.compile(r"(?:bpftrace_sys|decoders)(?:\.[a-z_][a-z0-9_]*)+")


def named_modules() -> set[str]:
    """Every string in the sources that is a dotted name of ours: late imports, mostly."""
    return {
        node.value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and NAMED.fullmatch(node.value)
    }


def test_modules_that_strings_name_are_there() -> None:
    names = named_modules()
    assert "bpftrace_sys.render.text" in names
    for name in names | {f"bpftrace_sys.cli.{command}" for command in COMMANDS}:
        importlib.import_module(name)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_a_module_with_main(command: str) -> None:
    assert callable(importlib.import_module(f"bpftrace_sys.cli.{command}").main)


def test_nothing_lives_at_the_root() -> None:
    found = {path.name for path in (ROOT / "bpftrace_sys").glob("*.py")}
    assert found == {"__init__.py", "__main__.py", "hello.py"}


def test_each_module_says_what_lives_in_it() -> None:
    for path in SOURCES:
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_import_contracts_are_kept() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


LINES = 500
LONGER = {
    "tests/tracees/loaders/_common.py",  # what all loaders take with one import
}
"""Files that may be longer; those of decoders/uapi are generated."""


def test_files_are_short() -> None:
    paths = [
        path for folder in ("bpftrace_sys", "decoders", "tests", "tools", ".ci")
        for path in (ROOT / folder).rglob("*.py")
    ]  # fmt: skip
    assert len(paths) > 300
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    long = {
        name for name, length in lengths.items()
        if length > LINES and not name.startswith("decoders/uapi/")
    }  # fmt: skip
    assert long <= LONGER, f"more than {LINES} lines: {sorted(long - LONGER)}"
