"""Small inputs stay small: each hostile file through each output, under a cap of CPU and memory.

The files in tests/hostile are traces and BTF made to be expensive or to mislead. CPU seconds are
counted, not time: on a busy machine a run waits, it does not work more.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from tests.support.running import ROOT, environment

HOSTILE = ROOT / "tests" / "hostile"
CPU = 20
"""Seconds; the slowest takes 2 on a quiet machine."""
MEMORY = 1 << 30


def capped() -> None:
    """In the child: limits that a run away would hit."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def run(out: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """bpfstrace under the cap; what it prints goes to a file."""
    with out.open("wb") as file:
        return subprocess.run(
            [sys.executable, "-m", "bpftrace_sys", *words],
            stdout=file, stderr=subprocess.PIPE, preexec_fn=capped, env=environment(),
            cwd=ROOT, check=False,
        )  # fmt: skip


def test_many_programs_of_one_name(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    trace = HOSTILE / "extract_same_names.jsonl.gz"
    done = run(tmp_path / "out", "extract", str(trace), "-o", str(folder))
    assert done.returncode == 0, done.stderr
    assert sum(name.endswith(".o") for name in os.listdir(folder)) == 8000


def test_six_arguments_are_demanded(tmp_path: Path) -> None:
    done = run(tmp_path / "out", "replay", str(HOSTILE / "args_empty.jsonl"))
    assert done.returncode == 2
    assert b"raw.args is not a list of six" in done.stderr


def test_a_kind_is_a_word(tmp_path: Path) -> None:
    done = run(tmp_path / "out", "replay", str(HOSTILE / "fd_kind_escape.jsonl"))
    assert done.returncode == 2
    assert b"the kind of an fd is not a word" in done.stderr
