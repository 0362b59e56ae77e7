"""Small inputs stay small: hostile files through every output, and ``tools/fuzz.py``.

``tests/hostile/`` holds files that once were too much, and ``tests/hostile/bombs/`` what
``tests/support/bombs.py`` makes: traces that claim, repeat or unfold much.  Each goes through every
subcommand that takes a trace, and the API: no traceback, a documented exit code, no control
character, and time, memory and output within bounds.  Processor time is counted, not time: on a
busy machine a run waits, it does not work more.
"""

from __future__ import annotations

import gzip
import importlib
import operator
import random
import subprocess
import sys
from pathlib import Path

import fuzz
import pytest

from tests.support import bombs
from tests.support.running import FIXTURES, ROOT, environment

pytestmark = pytest.mark.offline

OTHER = FIXTURES / "eperm" / "trace.jsonl.gz"
PARTNER = fuzz.HOSTILE / "diff_unnamed_b.jsonl.gz"
FILES = sorted(set(fuzz.HOSTILE.rglob("*.jsonl*")) - {PARTNER})
BASE = 5.0, 200, 6 << 20
"""Seconds, megabytes and bytes that any input may cost; a third of it is what one does."""
TIMES = 4.0, 20, 100
"""Seconds, megabytes and bytes that it may cost for each megabyte, megabyte and byte of lines."""


ONLY = {
    "extract_same_names": "extract",
    "diff_unnamed_a": "diff",
}
"""What thousands of programs once were too much for; all else would take minutes here."""


def size_of(path: Path) -> int:
    """Bytes of a trace's lines; pieces in them are packed, too."""
    data = path.read_bytes()
    return len(gzip.decompress(data)) if path.suffix == ".gz" else len(data)


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    """What a command imports is not what a file costs."""
    for command in fuzz.cli.COMMANDS:
        importlib.import_module(f"bpftrace_sys.cli.{command}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.partition(".")[0])
def test_small_inputs_stay_small(path: Path, tmp_path: Path) -> None:
    size = size_of(path)
    bounds = [base + times * size / unit for base, times, unit in
              zip(BASE, TIMES, (1 << 20, 1 << 20, 1), strict=True)]  # fmt: skip
    only = ONLY.get(path.name.partition(".")[0])
    other = PARTNER if only == "diff" else OTHER
    for number, words in enumerate(fuzz.commands(path, other, tmp_path)):
        if only is not None and (words[0] != only or words[-1] == words[-2]):
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        done = fuzz.tried([word.replace(str(tmp_path), str(folder)) for word in words], folder)
        assert done.wrong is None, words
        spent = done.seconds, done.peak, done.written
        assert all(map(operator.le, spent, bounds)), (words, spent, bounds)


def test_bombs_are_what_is_made_here() -> None:
    """After a change of it: ``python3 -m tests.support.bombs``."""
    assert sorted(map(bombs.file_of, bombs.BOMBS)) == sorted(bombs.FOLDER.iterdir())
    for bomb in bombs.BOMBS:
        assert gzip.decompress(bombs.file_of(bomb).read_bytes()) == bombs.lines(bomb), bomb
    assert set(map(bombs.file_of, bombs.BOMBS)) < set(fuzz.seeds())


def test_what_is_wrong_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that finds nothing would be no use."""
    told = {
        "raises": "raise KeyError('planted')",
        "escape": r"print('\x1b[2J')",
        "code": "code = 9",
        "memory": "bytes(5 << 30)",
        "signal": "import os; os.abort()",
        "colour": r"print('\x1b[31m')",
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
        "colour": None,
    }


def test_costs_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(words: list[str]) -> int:
        data = b"x" * (150 << 20)
        (tmp_path / "written").write_bytes(data[:1000])
        sum(range(10_000_000))
        return 1

    monkeypatch.setattr(fuzz.cli, "main", planted)
    done = fuzz.tried(["replay"], tmp_path)
    assert (done.wrong, done.code, done.written) == (None, 1, 1000)
    assert 0.05 < done.seconds < 5
    assert 140 < done.peak < 200


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
