"""Without -f: what was started and not followed is said, where it may be what is missing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.running import environment, run_cli

PATIENCE = 60.0
PYTHON = [sys.executable, "-I", "-S", "-c"]
STARTS = """
import os, sys, threading
ASK = '''
import ctypes, os
number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
for _ in range(3):
    ctypes.CDLL(None).syscall(number, 11, ctypes.create_string_buffer(12), 12)
'''
thread = threading.Thread(target=os.getpid)
thread.start()
thread.join()
child = os.fork()
if not child:
    exec(ASK if sys.argv[1] == "ask" else "")
    os._exit(0)
os.waitpid(child, 0)
child = os.posix_spawn(sys.executable, [sys.executable, "-I", "-S", "-c", ""], {})
os.waitpid(child, 0)
"""
ASKS = """
import ctypes, os, select, sys
number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
while not select.select([sys.stdin], [], [], 0.01)[0]:
    ctypes.CDLL(None).syscall(number, 11, ctypes.create_string_buffer(12), 12)
"""
MAKES = """
import ctypes, os, struct, threading
number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
attr = ctypes.create_string_buffer(struct.pack("<5I", 2, 4, 4, 1, 0))  # an array
assert ctypes.CDLL(None).syscall(number, 0, attr, 20) >= 0
child = os.fork()
if not child:
    os._exit(0)
os.waitpid(child, 0)
"""
THREAD = "thread = threading.Thread(target=os.getpid); thread.start(); thread.join()"


def births(words: list[str], folder: Path) -> tuple[int, int]:
    """Processes and threads that a program starts, as strace says."""
    out = folder / "strace.txt"
    subprocess.run(
        ["strace", "-o", str(out), "-e", "trace=fork,vfork,clone,clone3", *words],
        check=True, env=environment(),
    )  # fmt: skip
    made = [line for line in out.read_text().splitlines() if re.search(r"= [1-9]\d*$", line)]
    threads = sum("CLONE_THREAD" in line for line in made)
    return len(made) - threads, threads


@pytest.mark.parametrize("engine", ["ptrace", "bpf"])
def test_what_was_not_followed(needs_bpf: None, tmp_path: Path, engine: str) -> None:
    """Processes and threads are told as many as strace counts; the eBPF engine has seen whether
    they called bpf(); -f and -q say nothing."""
    words = [*PYTHON, STARTS, "ask"]
    assert births(words, tmp_path) == (2, 1)
    trace = tmp_path / "trace.jsonl"
    done = run_cli("--engine", engine, "--json", str(trace), *words)
    assert done.returncode == 0
    said = "the program started 2 processes and 1 thread"
    said += {
        "ptrace": ", which were not followed: -f follows them",
        "bpf": "; 3 calls of bpf() that they or their children made are not shown: -f follows them",
    }[engine]
    assert done.stderr.splitlines()[-1] == said
    ended = json.loads(trace.read_text().splitlines()[-1])["status"]["left_alone"]
    calls = {} if engine == "ptrace" else {"calls": 3}
    assert ended == {"processes": 2, "threads": 1, **calls}
    assert run_cli("replay", str(trace)).stdout.splitlines()[-1] == said
    for options in (["-f"], ["-q"], ["--style", "strace"]):
        assert "started" not in run_cli("--engine", engine, *options, *words).stderr
    quiet = run_cli("--engine", engine, *words[:-1], "no").stderr
    assert ("the program started" in quiet) is (engine == "ptrace")  # nobody has looked


def test_a_program_that_made_something(needs_bpf: None) -> None:
    """Of its processes nothing is known, so nothing is said; its threads share what it has."""
    done = run_cli(*PYTHON, MAKES)
    assert "BPF_MAP_CREATE" in done.stderr
    assert "follow" not in done.stderr
    done = run_cli(*PYTHON, MAKES + THREAD)
    said = done.stderr.splitlines()[-1]
    assert said == "the program started 1 thread, which was not followed: -f follows it"


@pytest.mark.parametrize("engine", ["ptrace", "bpf"])
def test_of_a_process_that_runs(needs_bpf: None, tmp_path: Path, engine: str) -> None:
    """With -p its threads are traced in any case; children are not."""
    trace = tmp_path / "trace.jsonl"
    tracer = [sys.executable, "-m", "bpftrace_sys", "--engine", engine, "--json", str(trace)]
    with (
        subprocess.Popen([*PYTHON, ASKS + STARTS, "ask"], stdin=subprocess.PIPE) as process,
        subprocess.Popen(
            [*tracer, "-p", str(process.pid)], stderr=subprocess.PIPE, text=True, env=environment()
        ) as tracing,
    ):
        deadline = time.monotonic() + PATIENCE
        while not (trace.exists() and '"syscall"' in trace.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.communicate(b"\n", PATIENCE)
        _, said = tracing.communicate(timeout=PATIENCE)
    started = "what is attached to started 2 processes"
    more = ", which were not" if engine == "ptrace" else "; 3 calls of bpf() that they"
    assert said.splitlines()[-1].startswith(started + more), said
