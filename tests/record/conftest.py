"""Fixtures of the tests of recording."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.support.running import TRACEES


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
