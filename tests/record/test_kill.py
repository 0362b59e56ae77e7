"""What is left when bpfstrace is killed, or a tracee."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.killing import (
    check_left,
    reap,
    replay,
    start,
    syscalls,
    whole_lines,
)
from tests.support.running import environment, run_cli

pytestmark = pytest.mark.usefixtures("needs_bpf")

ROUNDS = {"": 200, ".gz": 40, ".zst": 20}
"""Kills of bpfstrace in a fork of ours, by kind of trace file."""
TEXT_ROUNDS = {"-o": 80, "-ff -o": 60, "--style=strace -o": 40}
"""The same where there is only text (without the tables at the end), by options."""
REPLAYED = 4
"""Of so many trace files one is replayed; the lines of all are looked at."""
SLOW_ROUNDS = 12
"""Kills of a bpfstrace that was started as a person starts it: imports and all."""
ENOUGH = 15.0
"""Seconds, for one kind of output, after which half of the rounds will do: 220 in all."""
PATIENCE = 60.0
"""Seconds for what has to come about."""
SEED = 1
"""Of the moments; which instruction each of them meets is the machine's affair."""

# -- bpfstrace killed ---------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """What a live trace and a replay import, so that the forks need not."""
    import bpftrace_sys

    for found in pkgutil.walk_packages(bpftrace_sys.__path__, "bpftrace_sys."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    importlib.import_module("decoders.decode")


def wait_end(end: int) -> bool:
    """Whether all that held the other end of a pipe are gone in time."""
    return bool(select.select([end], [], [], PATIENCE)[0]) and not os.read(end, 1)


class Kills:
    """Rounds of killing: each at another moment of what an unharmed run takes."""

    def __init__(self, words: list[str], folder: Path, rounds: int) -> None:
        self.words = words
        self.out = folder / "out"
        self.rounds = rounds
        self.done = 0
        self.began = time.monotonic()
        assert reap(start(words, self.out)) == 0, self.out.read_text()
        self.usual = time.monotonic() - self.began
        self.seed = SEED

    def __iter__(self) -> Iterator[str]:
        """Yields after each kill, with what to say where something is wrong."""
        choose = random.Random(self.seed)
        for number in range(self.rounds):
            if number > self.rounds // 2 and time.monotonic() - self.began > ENOUGH:
                return  # a slow or busy machine
            note = f"seed {self.seed}, round {number}"
            ours, theirs = os.pipe()
            try:
                pid = start(self.words, self.out, keep=theirs)
                os.close(theirs)
                time.sleep(choose.uniform(0, self.usual * 1.05))
                os.kill(pid, signal.SIGKILL)
                assert reap(pid) in (-signal.SIGKILL, 0), self.out.read_text()
                assert wait_end(ours), f"{note}: a tracee lives on"
            finally:
                os.close(ours)
            self.done += 1
            yield note


@pytest.mark.parametrize("suffix", ROUNDS)
def test_killed_at_random_moments(tracee: str, tmp_path: Path, suffix: str) -> None:
    """SIGKILL at any moment: the tracees die too, and what was written can be used."""
    if suffix == ".zst":
        pytest.importorskip("zstandard")
    trace = tmp_path / f"trace.jsonl{suffix}"
    words = [
        "-f", "-o", str(tmp_path / "text"), "--json", str(trace),
        tracee, "work", "5", "3", "0", "",
    ]  # fmt: skip
    kills = Kills(words, tmp_path, ROUNDS[suffix])
    check_left(replay(trace, tmp_path), 0, "unharmed")
    trace.unlink()
    cut = found = 0
    for note in kills:
        if not trace.exists():
            continue
        lines, rest = whole_lines(trace)
        assert all(isinstance(json.loads(line), dict) for line in lines), note
        if kills.done % REPLAYED == 0:
            check_left(replay(trace, tmp_path), 3, note)
        cut += not lines or bool(rest) or json.loads(lines[-1])["type"] != "end"
        found += bool(syscalls(lines))
        trace.unlink()
    # Else the moments were badly chosen, and nothing was tested.
    assert cut > kills.done // 4
    assert suffix or found > kills.done // 8


def alike(text: str) -> list[str]:
    """Lines but for what differs from run to run: ids and addresses."""
    return re.sub(r"\b(?:0x[0-9a-f]+|\d+)\b", "#", text).split("\n")


@pytest.mark.parametrize("options", TEXT_ROUNDS)
def test_text_killed_at_random_moments(tracee: str, tmp_path: Path, options: str) -> None:
    """Of the text every line is there up to the last, which alone may be cut."""
    processes = 3 if "-ff" in options else 1
    words = [
        "-fq", *options.split(), str(tmp_path / "text"),
        tracee, "work", "60", str(processes), "0", "",
    ]  # fmt: skip
    kills = Kills(words, tmp_path, TEXT_ROUNDS[options])

    def take() -> list[str]:
        found = []
        for path in tmp_path.glob("text*"):
            found.append(path.read_text())
            path.unlink()
        return found

    models = [alike(text) for text in take() if text]
    assert len(models) >= processes
    cut = 0
    for note in kills:
        for text in take():
            *lines, rest = alike(text)
            alikes = [model for model in models if model[: len(lines)] == lines]
            assert alikes, f"{note}: {lines}"
            assert any(model[len(lines)].startswith(rest.rstrip("#")) for model in alikes), note
            cut += bool(lines) and all(len(lines) < len(model) - 1 for model in alikes)
    assert cut > kills.done // 16


def test_killed_while_it_starts(tracee: str, tmp_path: Path) -> None:
    """The same for a bpfstrace from its first instruction on, imports included."""
    trace = tmp_path / "trace.jsonl"
    words = ["-f", "-o", os.devnull, "--json", str(trace), tracee, "work", "5", "3", "0", ""]
    command = [sys.executable, "-m", "bpftrace_sys", *words]
    began = time.monotonic()
    assert run_cli(*words).returncode == 0
    usual = time.monotonic() - began
    for number in range(SLOW_ROUNDS):
        trace.unlink(missing_ok=True)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment()
        ) as process:
            time.sleep(usual * number / SLOW_ROUNDS)
            process.kill()
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], PATIENCE)[0]
            said = process.stdout.read()  # its end comes when the tracees are gone as well
        assert b"Traceback" not in said
        if trace.exists():
            check_left(replay(trace, tmp_path), 3, f"round {number}")


def test_text_is_there_before_the_end(tracee: str, tmp_path: Path) -> None:
    """What has been seen can be read while the tracee runs on, and after a kill."""
    text, trace = tmp_path / "text", tmp_path / "trace.jsonl"
    words = ["-o", str(text), "--json", str(trace), tracee, "forever"]
    with subprocess.Popen(
        [sys.executable, "-m", "bpftrace_sys", *words], stdout=subprocess.PIPE, env=environment()
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"running\n"
            deadline = time.monotonic() + PATIENCE
            while "returns_zero" not in text.read_text() and time.monotonic() < deadline:
                time.sleep(0.02)
            shown = text.read_text()
        finally:
            process.kill()
    assert "returns_zero" in shown
    assert shown.endswith("\n")
    check_left(replay(trace, tmp_path), 1, "killed")


# -- a tracee killed ------------------------------------------------------------------


@pytest.mark.parametrize("options", [["-f"], [], ["--no-seccomp", "-f"]])
def test_tracee_killed_in_a_call(tracee: str, tmp_path: Path, options: list[str]) -> None:
    """The call that it was in is shown, as one that never returned; live and replayed."""
    text, trace = tmp_path / "text", tmp_path / "trace.jsonl"
    command = [
        sys.executable, "-m", "bpftrace_sys", *options,
        "-o", str(text), "--json", str(trace), tracee, "forever",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        (pid,) = map(int, Path(children).read_text().split())
        wait_for_call(pid)
        os.kill(pid, signal.SIGKILL)
        assert process.wait(PATIENCE) == -signal.SIGKILL
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    call = [line for line in lines if line["type"] == "syscall"][-1]
    assert call["args"]["cmd"] in ("BPF_PROG_RUN", "BPF_PROG_TEST_RUN")
    assert "ret" not in call or call["ret"] is None
    assert call["args"]["attr"]["test"]["repeat"] == 0xFFFFFFFF
    assert lines[-1] == {"type": "end", "status": {"signal": signal.SIGKILL}}
    shown = text.read_text()
    assert re.search(r"^\[\d+\] bpf\(BPF_PROG_(TEST_)?RUN", shown, re.M)
    assert ") = ? (unfinished)\n" in shown
    assert f"[{pid}] +++ killed by SIGKILL +++" in shown
    assert run_cli("replay", str(trace)).stdout == shown


def wait_for_call(pid: int) -> None:
    """Until a tracee runs in the kernel: it is on a CPU, and not about to stop."""
    deadline = time.monotonic() + PATIENCE
    busy = 0
    while busy < 5 and time.monotonic() < deadline:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0]
        busy = busy + 1 if state == "R" else 0
        time.sleep(0.02)
