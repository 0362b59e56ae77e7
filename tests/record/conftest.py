"""Fixtures of the tests of recording."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.engine_runs import Tracer
from tests.support.running import TRACEES

MODES: Final[dict[str, dict[str, Any]]] = {
    "follow": {"follow": True},
    "alone": {"follow": False},
    "no-seccomp": {"follow": True, "seccomp": False},
    "quiet": {"quiet": True},
}
"""Ways for the engine to trace."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """transparent.c, compiled; where other users may execute it."""
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("transparent")
    binary = folder / "tracee"
    source = TRACEES / "transparent.c"
    subprocess.run([compiler, "-O1", "-w", "-o", binary, source, "-pthread"], check=True)
    return str(binary)


@pytest.fixture(scope="session")
def engine_c(tmp_path_factory: pytest.TempPathFactory) -> str:
    """engine.c, compiled: a program with many modes."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    binary = tmp_path_factory.mktemp("program") / "tracee"
    subprocess.run(
        [compiler, "-O1", "-w", "-o", binary, TRACEES / "engine.c", "-pthread"],
        check=True, timeout=60,
    )  # fmt: skip
    return str(binary)


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Tracer]:
    """Runs the engine: ``trace(program, arg, ..., option=value)``."""
    tracer = Tracer(tmp_path)
    yield tracer
    tracer.close()


@pytest.fixture(scope="module")
def tracee(tmp_path_factory: pytest.TempPathFactory) -> str:
    """rounds.c, compiled."""
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    binary = str(tmp_path_factory.mktemp("tracee") / "tracee")
    subprocess.run([compiler, "-O1", "-o", binary, TRACEES / "rounds.c"], check=True)
    return binary


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> dict[str, Any]:
    """One of the ways for the engine to trace."""
    return MODES[request.param]
