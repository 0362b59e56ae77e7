"""tools/output_hashes.py hashes in forked processes what bpfstrace prints when started anew."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import output_hashes
import pytest

from tests.support.running import ROOT, environment

NAME = "xdp-link"  # attachments, a map, programs with names from BTF: and small


def hashes(*words: str) -> list[str]:
    """The tool's lines, where sets of strings have another order than in ``started_anew``."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "output_hashes.py"), *words],
        capture_output=True, text=True, check=True, env=environment(PYTHONHASHSEED="1"),
    )  # fmt: skip
    return done.stdout.splitlines()


def started_anew(*words: str, cwd: Path = ROOT) -> bytes:
    """What ``bpfstrace WORDS`` prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bpftrace_sys", *words],
        capture_output=True, check=False, cwd=cwd,
        env=environment(COLUMNS=output_hashes.COLUMNS, PYTHONHASHSEED="2"),
    )  # fmt: skip
    return b"%d\n%s\n%s" % (done.returncode, done.stdout, done.stderr)


def test_the_hashes_are_those_of_what_the_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    there = hashes("--only", NAME)
    names = output_hashes.names_of_all()
    monkeypatch.setattr(output_hashes, "run", started_anew)
    expected = []
    for words in output_hashes.outputs(NAME, names[names.index(NAME) - 1]):
        data = output_hashes.output(NAME, words)
        assert data.startswith(b"1\n" if words[0] == "diff" else b"0\n"), data
        expected.append(" ".join((hashlib.sha256(data).hexdigest()[:20], NAME, *words)))
    assert there == expected
    assert len(set(there)) == len(there) > 10
