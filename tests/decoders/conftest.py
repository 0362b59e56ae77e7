"""Fixtures of the tests of decoding."""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests.support.decoded import Run, Traced
from tests.support.running import TRACEES, run_cli


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a tracee once; the path of a Python file below ``tests/tracees`` names it."""
    known: dict[str, Traced] = {}

    def traced(name: str) -> Traced:
        if name not in known:
            path = tmp_path_factory.mktemp("traced") / "trace.jsonl"
            done = run_cli(
                *("-f", "-o", os.devnull, "--json", str(path), sys.executable),
                str(TRACEES / f"{name}.py"),
            )
            assert done.returncode == 0, done.stderr
            known[name] = Traced(path, json.loads(done.stdout))
        return known[name]

    return traced
