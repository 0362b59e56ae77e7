"""Every output is a row of one table, for live tracing and replay; what is lost of one is told."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bpftrace_sys.cli.options import OPTIONS, OUTPUT
from bpftrace_sys.cli.outputs import ROWS
from bpftrace_sys.cli.renderers import RENDERERS
from tests.support.running import FIXTURES, LOADERS, environment

TRACE = FIXTURES / "libbpf-execsnoop" / "trace.jsonl.gz"
REFUSED = FIXTURES / "verifier-reject" / "trace.jsonl.gz"
"""In which calls are refused, so that there is something to annotate."""
FILES = ["-o", "--json", "--events", "--report"]
FULL = os.strerror(errno.ENOSPC)


def run(
    words: list[str], *, limit: int | None = None, out: str | None = None, err: str | None = None
) -> subprocess.CompletedProcess[str]:
    """bpfstrace; ``limit``: KiB that a file may have; ``out``, ``err``: where its streams go."""
    script = f"{'' if limit is None else f'ulimit -f {limit * 2}; '}exec \"$@\""
    streams = [
        subprocess.PIPE if path is None else os.open(path, os.O_WRONLY) for path in (out, err)
    ]
    try:
        return subprocess.run(
            ["sh", "-c", script, "sh", sys.executable, "-m", "bpftrace_sys", *words],
            stdout=streams[0], stderr=streams[1], text=True, env=environment(), check=False,
            timeout=60,
        )  # fmt: skip
    finally:
        for stream in streams:
            if stream != subprocess.PIPE:
                os.close(stream)


# ------------------------------------------------------------------ one table


def test_every_output_is_a_row() -> None:
    """The options that name something to write to, and those that make something besides."""
    written = {
        option.long
        for option in OPTIONS
        if option.group == OUTPUT and (option.metavar == "FILE" or option.long == "annotate")
    }
    assert written == {row.option for row in ROWS}
    assert len(ROWS) == len(set(ROWS)) == len({row.option for row in ROWS})


def test_every_row_has_its_renderer() -> None:
    assert set(RENDERERS) == set(ROWS)


# ------------------------------------------------------------------ a disk that is full


LOSING = {
    "replay A": "output to <stdout> was lost: ",
    "diff A B": "output to <stdout> was lost: ",
    "diff --json A B": "output to <stdout> was lost: ",
    "diff -q A B --report /dev/full": "output to /dev/full was lost: ",
    "diff -q A B --report NO/page": "cannot write NO/page: ",
    "report A -o -": "output to <stdout> was lost: ",
    "report A -o NO/page": "cannot write NO/page: ",
    "perfetto A -o -": "cannot write -: ",
    "perfetto A -o /dev/full": "cannot write /dev/full: ",
    "redact A -o -": "output to <stdout> was lost: ",
    "redact A -o /dev/full": "output to /dev/full was lost: ",
    "redact A -o NO/x": "cannot write NO/x: ",
    "repro A": "output was lost: ",
    "repro A -o NO/x": "cannot write NO/x: ",
    "check A --lock LOCK": "output was lost: ",
    "check B --lock LOCK": "output was lost: ",
    "check B --lock LOCK --junit /dev/full": "output was lost: ",
    "check A --lock NO/lock --update": "cannot write NO/lock: ",
    "extract A -o OUT": "output was lost: ",
    "extract A -o /proc/x": "cannot write /proc/x: ",
    "disasm INSNS": "output was lost: ",
    "doctor": "output to <stdout> was lost: ",
    "schema": "output was lost: ",
    "--help": "output was lost: ",
}
"""Subcommands whose output is lost on stdout, or cannot be written, and what they say."""


def test_a_lost_output_is_125_of_every_subcommand(tmp_path: Path) -> None:
    """Whatever they found: who reads the status alone is not told what did not arrive."""
    (tmp_path / "insns").write_bytes(bytes(1 << 20))
    lock = tmp_path / "lock.toml"
    assert run(["check", str(TRACE), "--lock", str(lock), "--update"]).returncode == 0
    known = {"A": TRACE, "B": REFUSED, "LOCK": lock, "OUT": tmp_path / "out", "INSNS":
             tmp_path / "insns"}  # fmt: skip
    nowhere = str(tmp_path / "nowhere")
    for line, said in LOSING.items():
        words = [str(known.get(word, word)).replace("NO/", f"{nowhere}/") for word in line.split()]
        done = run(words, out="/dev/full")
        assert done.returncode == 125, line
        assert said.replace("NO/", f"{nowhere}/") in done.stderr, line
        assert "Traceback" not in done.stderr
    piped = "set -o pipefail; \"$@\" | head -c 1 >/dev/null"
    words = [sys.executable, "-m", "bpftrace_sys", "diff", str(TRACE), str(REFUSED)]
    done = subprocess.run(["bash", "-c", piped, "bash", *words], env=environment(), check=False)
    assert done.returncode == 1


@pytest.fixture(scope="module")
def whole() -> str:
    """The text of TRACE."""
    done = run(["replay", str(TRACE)])
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("option", FILES)
def test_a_full_disk_is_told_by_replay(option: str, whole: str) -> None:
    """And what goes elsewhere is whole."""
    done = run(["replay", option, "/dev/full", str(TRACE)])
    assert done.stderr == f"bpfstrace: output to /dev/full was lost: {FULL}\n"
    assert done.returncode == 125
    assert done.stdout == ("" if option == "-o" else whole)


@pytest.mark.parametrize("option", ["-o", "--events"])
def test_a_file_that_may_not_grow_is_told_by_replay(option: str, tmp_path: Path) -> None:
    """As a full disk: what fits is there, the rest is lost, and no signal ends anything."""
    path = tmp_path / "out"
    words = [] if option == "-o" else ["-o", os.devnull]
    done = run(["replay", *words, option, str(path), str(TRACE)], limit=1)
    assert done.stderr == f"bpfstrace: output to {path} was lost: {os.strerror(errno.EFBIG)}\n"
    assert done.returncode == 125
    assert path.stat().st_size == 1024


@pytest.mark.parametrize("option", ["--events", "--report"])
def test_a_full_stdout_is_told(option: str) -> None:
    done = run(["replay", "-o", os.devnull, option, "-", str(TRACE)], out="/dev/full")
    assert done.stderr == f"bpfstrace: output to <stdout> was lost: {FULL}\n"
    assert done.returncode == 125


def test_annotations_that_are_lost_count() -> None:
    """They are on stderr, so nobody can be told but by the exit code."""
    words = ["replay", "-o", os.devnull, "--annotate=github", str(REFUSED)]
    assert run(words, err="/dev/full").returncode == 125
    done = run(words)
    assert done.returncode == 0
    assert done.stderr.startswith("::")


@pytest.mark.parametrize(
    ("option", "engine"), [("--events", "ptrace"), ("--events", "bpf"), ("--report", "ptrace")]
)
def test_a_full_disk_is_told_live(
    option: str, engine: str, needs_bpf: None, tmp_path: Path
) -> None:
    witness = tmp_path / "ran"
    """test_cli_failures.py has the others."""
    program = ["sh", "-c", f"{sys.executable} {LOADERS}/tracefs_uprobe.py; touch {witness}"]
    done = run(["-f", "--engine", engine, "-o", os.devnull, option, "/dev/full", *program])
    assert done.stderr == f"bpfstrace: output to /dev/full was lost: {FULL}\n"
    assert done.returncode == 125
    assert witness.exists()


@pytest.mark.parametrize("option", FILES)
def test_what_cannot_be_opened_is_said_before_anything_is_read(
    option: str, tmp_path: Path
) -> None:
    path = tmp_path / "no" / "where"
    done = run(["replay", option, str(path), str(TRACE)])
    assert done.stdout == ""
    assert done.stderr == f"bpfstrace: cannot write {path}: {os.strerror(errno.ENOENT)}\n"
    assert done.returncode == 125


@pytest.mark.parametrize("option", ["--events", "--report"])
def test_a_live_trace_without_calls_ends_well(option: str, tmp_path: Path) -> None:
    path = tmp_path / "out"
    done = run(["-q", option, str(path), "true"])
    assert (done.returncode, done.stderr) == (0, "")
    assert path.exists()
    assert bool(path.stat().st_size) == (option == "--report")
