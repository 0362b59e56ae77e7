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

import pytest

from tests.support.running import ROOT, environment

HOSTILE = ROOT / "tests" / "hostile"
CPU = 20
"""Seconds; the slowest takes 2 on a quiet machine."""
MEMORY = 1 << 30
OUTPUT = 1024
"""Times the input without its outer compression, and a megabyte; pieces in it are packed, too."""
TRACES = sorted(path.name for path in HOSTILE.glob("*.jsonl*"))
COMMANDS = {
    "text": ["replay"],
    "all of the text": ["replay", "-v"],
    "json": ["replay", "--json", "-", "-o", "/dev/null"],
    "canonical": ["replay", "--canonical"],
    "strace": ["replay", "--style", "strace", "-v"],
    "tables": ["replay", "-c"],
    "diff": ["diff", str(HOSTILE / "diff_unnamed_b.jsonl.gz")],
}


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


def unpacked(path: Path) -> int:
    """Bytes of a trace, without its compression."""
    if path.suffix == ".gz":
        import gzip

        with gzip.open(path) as file:
            return len(file.read())
    return path.stat().st_size


@pytest.mark.parametrize("name", TRACES)
def test_small_inputs_stay_small(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bound = (1 << 20) + OUTPUT * unpacked(HOSTILE / name)
    for what, words in COMMANDS.items():
        done = run(out, *words, str(HOSTILE / name))
        assert done.returncode in (0, 1, 2), (what, done.returncode, done.stderr[-500:])
        assert b"Traceback" not in done.stderr, what
        assert out.stat().st_size < bound, what
        text = out.read_bytes() + done.stderr
        assert b"\x1b" not in text, what
        out.unlink()


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
