"""Files that once were too much, and ``tools/fuzz.py``, which looks for more of them.

``tests/hostile/`` holds them. Each goes through every subcommand that takes a trace,
under limits of memory and processor time: no traceback, a documented exit code, no
control character, and no cost out of proportion.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import fuzz
import pytest

from tests.support.running import FIXTURES, ROOT, environment

pytestmark = pytest.mark.offline

OTHER = FIXTURES / "eperm" / "trace.jsonl.gz"
FILES = sorted(fuzz.HOSTILE.glob("*.jsonl*"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_hostile_files_are_taken(path: Path, tmp_path: Path) -> None:
    for words in fuzz.commands(path, OTHER, tmp_path):
        if words[0] in ("replay", "diff"):
            continue  # in test_small_inputs.py
        assert fuzz.wrong(words, tmp_path) is None, words


def test_what_is_wrong_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that finds nothing would be no use."""
    told = {
        "raises": "raise KeyError('planted')",
        "escape": r"print('\x1b[2J')",
        "code": "code = 9",
        "memory": "bytes(5 << 30)",
        "signal": "import os; os.abort()",
    }
    seen = {}
    for name, text in told.items():

        def planted(words: list[str], text: str = text) -> int:
            found: dict[str, int] = {}
            exec(text, found)
            return found.get("code", 0)

        monkeypatch.setattr(fuzz.cli, "main", planted)
        seen[name] = fuzz.wrong([], tmp_path)
    assert seen == {
        "raises": "a traceback: KeyError: 'planted'",
        "escape": r"'\x1b' in stdout",
        "code": "exit code 9",
        "memory": "a traceback: MemoryError",
        "signal": "ended by signal 6 after 0 s of processor time",
    }


def test_a_round_is_the_same_again() -> None:
    lines = fuzz.lines_of(OTHER)
    first, again, next_one = (fuzz.spoiled(lines, random.Random(seed)) for seed in ("1", "1", "2"))
    assert first == again != next_one
    assert first != lines


def test_a_short_run(tmp_path: Path) -> None:
    """From the command line: rounds are counted, and nothing is left beside the finds."""
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "tools" / "fuzz.py", "--only", "traces", "--seed", "1"),
            *("--minutes", "0.02", "--finds", tmp_path / "finds"),
        ],
        capture_output=True, text=True, env=environment(), cwd=tmp_path, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    assert "spoiled traces" in done.stdout
    assert "(seed 1)" in done.stdout
