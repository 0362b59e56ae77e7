"""-p as people use it: lists, thread ids, thousands of threads, stopped ones, twice the same."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.running import environment, run_cli

PATIENCE = 60.0

ASKS = """
import ctypes, os, sys, threading, time
libc = ctypes.CDLL(None)
number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
def ask():
    while True:
        libc.syscall(number, 11, ctypes.create_string_buffer(12), 12)
        time.sleep(0.01)
for _ in range(2):
    threading.Thread(target=ask, daemon=True).start()
print("ready", flush=True)
input()
"""


@pytest.fixture
def asking() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts programs whose two threads make bpf calls, until a line comes on stdin."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", ASKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def unharmed(process: subprocess.Popen[bytes]) -> None:
    """It is traced by nobody, still there, and ends as it always does."""
    for tid in os.listdir(f"/proc/{process.pid}/task"):
        assert "TracerPid:\t0\n" in _status(int(tid))
    assert process.poll() is None
    process.communicate(b"\n", PATIENCE)
    assert process.returncode == 0


def attached(folder: Path, words: list[str], enough: Callable[[set[tuple[int, int]]], bool]) -> str:
    """Runs ``bpfstrace WORDS`` until the (pid, tid) of its calls are enough, and interrupts
    it; its stderr."""
    trace = folder / "trace.jsonl"
    trace.unlink(missing_ok=True)
    with subprocess.Popen(
        [sys.executable, "-m", "bpftrace_sys", "-q", "-o", os.devnull, "--json", str(trace),
         *words],
        stderr=subprocess.PIPE, text=True, env=environment(),
    ) as tracer:  # fmt: skip
        deadline = time.monotonic() + PATIENCE
        seen: set[tuple[int, int]] = set()
        while not enough(seen) and tracer.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
            lines = trace.read_text().split("\n")[:-1] if trace.exists() else []
            calls = [line for line in map(json.loads, lines) if line["type"] == "syscall"]
            seen = {(line["pid"], line["tid"]) for line in calls}
        tracer.send_signal(signal.SIGINT)
        _, said = tracer.communicate(timeout=PATIENCE)
        assert tracer.returncode == -signal.SIGINT, said
    assert enough(seen), seen
    return said


@pytest.mark.parametrize("how", ["comma", "twice", "space"])
def test_several_processes(
    needs_bpf: None, asking: Callable[[], subprocess.Popen[bytes]], tmp_path: Path, how: str
) -> None:
    """Repeated, by commas, by spaces (-p "$(pidof X)"): all threads of all, and all run on."""
    one, two = asking(), asking()
    words = {
        "comma": ["-p", f"{one.pid},{two.pid}"],
        "twice": ["-p", f"{one.pid}", "--attach", f"{two.pid}"],
        "space": ["-p", f"{one.pid} {two.pid}"],
    }[how]
    said = attached(tmp_path, words, lambda seen: len(seen) == 4)
    assert said == ""
    for process in (one, two):
        unharmed(process)


def test_one_that_is_not_there(
    needs_bpf: None, asking: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """Is said, wherever it stands; the others are traced."""
    process = asking()
    for words in (
        ["-p", f"4194303,{process.pid}"], ["-p", f"{process.pid}", "-p", "4194303"],
    ):  # fmt: skip
        said = attached(tmp_path, words, lambda seen: len(seen) == 2)
        assert said == "bpfstrace: no process 4194303\n"
    unharmed(process)
    done = run_cli("-q", "-p", "4194302,4194303")
    assert done.returncode == 125
    assert done.stderr.splitlines() == [
        "bpfstrace: no process 4194302", "bpfstrace: no process 4194303"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
)
def test_signals_end_it(
    asking: Callable[[], subprocess.Popen[bytes]], tmp_path: Path, number: signal.Signals
) -> None:
    """It detaches, finishes its files, and dies of the signal, as strace does."""
    process = asking()
    trace = tmp_path / "trace.jsonl"
    with subprocess.Popen(
        [sys.executable, "-m", "bpftrace_sys", "-q", "-o", os.devnull, "--json", str(trace), "-p",
         str(process.pid)],
        env=environment(),
    ) as tracer:  # fmt: skip
        _until(lambda: f"TracerPid:\t{tracer.pid}\n" in _status(process.pid))
        tracer.send_signal(number)
        assert tracer.wait(PATIENCE) == -number
    assert json.loads(trace.read_text().splitlines()[-1])["type"] == "end"
    unharmed(process)


TRACES = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
print("ready", flush=True)
input()
tracer = int(sys.argv[1]) if len(sys.argv) > 1 else 0
while not tracer:
    with open("/proc/self/status") as file:
        tracer = int(file.read().partition("TracerPid:")[2].split()[0])
time.sleep(0.5)  # calls are watched from the first stop on, a moment after that line has changed
for request in (0x4206, 16):  # PTRACE_SEIZE, PTRACE_ATTACH
    print(libc.ptrace(request, tracer, None, None), ctypes.get_errno(), flush=True)
"""


def test_a_tracee_that_would_trace_its_tracer() -> None:
    """Each would wait for the other: it is refused, and said."""
    command = [sys.executable, "-S", "-E", "-c", TRACES]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with subprocess.Popen(
            [sys.executable, "-m", "bpftrace_sys", "-q", "-p", str(process.pid)],
            stderr=subprocess.PIPE, text=True, env=environment(),
        ) as tracer:  # fmt: skip
            said, _ = process.communicate("\n", PATIENCE)
            assert said == "-1 1\n-1 1\n"
            _, told = tracer.communicate(timeout=PATIENCE)
            assert tracer.returncode == 0
            assert told.count("asked to trace bpfstrace, which traces it, and was refused") == 2
    for mode in ([], ["-f"]):
        done = run_cli("-q", *mode, *command, input="\n")
        assert done.stdout == "ready\n-1 1\n-1 1\n"
        assert done.stderr.count("asked to trace bpfstrace") == 2


TRACES_BPFSTRACE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
ready, go = os.pipe()
me = os.getpid()
pid = os.fork()
if not pid:
    os.read(ready, 1)
    os.execv(sys.executable, [sys.executable, "-m", "bpftrace_sys", "-q", "-p", str(me)])
assert libc.ptrace(0x4206, pid, None, None) == 0
os.write(go, b"x")
while True:
    _, status = os.waitpid(pid, 0)
    if not os.WIFSTOPPED(status):
        sys.exit(os.waitstatus_to_exitcode(status))
    libc.ptrace(7, pid, None, os.WSTOPSIG(status))
"""


def test_who_traces_bpfstrace_is_not_attached_to() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRACES_BPFSTRACE], capture_output=True, text=True,
        env=environment(), timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 125
    assert "traces bpfstrace itself" in done.stderr


def test_the_same_twice_or_by_a_thread(
    needs_bpf: None, asking: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """A process named twice is attached to once; a thread's id stands for its process."""
    process = asking()
    tids = sorted(int(name) for name in os.listdir(f"/proc/{process.pid}/task"))
    threads = {(process.pid, tid) for tid in tids if tid != process.pid}
    for words in (
        ["-p", f"{process.pid},{process.pid}"],
        ["-p", f"{tids[1]}"],
        ["-f", "-p", f"{tids[2]},{process.pid}", "-p", f"{tids[1]}"],
    ):
        assert attached(tmp_path, words, lambda seen: seen == threads) == ""
    unharmed(process)


def test_a_stopped_process(
    needs_bpf: None, asking: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """It stays stopped, before and after; and is traced when somebody continues it."""
    process = asking()
    process.send_signal(signal.SIGSTOP)
    _until(lambda: _state(process.pid) == "T")
    trace = tmp_path / "trace.jsonl"
    with subprocess.Popen(
        [sys.executable, "-m", "bpftrace_sys", "-q", "-o", os.devnull, "--json", str(trace),
         "-p", str(process.pid)], env=environment(),
    ) as tracer:  # fmt: skip
        _until(lambda: f"TracerPid:\t{tracer.pid}" in _status(process.pid))
        _until(lambda: _state(process.pid) == "t")
        process.send_signal(signal.SIGCONT)
        _until(lambda: trace.exists() and "GET_NEXT_ID" in trace.read_text())
        process.send_signal(signal.SIGSTOP)
        _until(lambda: _state(process.pid) == "t")
        tracer.send_signal(signal.SIGINT)
        assert tracer.wait(PATIENCE) == -signal.SIGINT
    _until(lambda: _state(process.pid) == "T")
    process.send_signal(signal.SIGCONT)
    unharmed(process)


def test_thousands_of_threads(program: str, tmp_path: Path) -> None:
    """All are attached to, and let go: the process goes on as if nothing had been."""
    count = 3000
    target = subprocess.Popen(
        [program, "threads", str(count), "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert target.stdout is not None
        assert target.stdout.readline() == b"%d threads\n" % count
        with subprocess.Popen(
            [sys.executable, "-m", "bpftrace_sys", "-q", "-o", os.devnull, "-p", str(target.pid)],
            env=environment(),
        ) as tracer:
            for tid in os.listdir(f"/proc/{target.pid}/task"):
                _until(lambda tid=tid: f"TracerPid:\t{tracer.pid}" in _status(int(tid)))
            tracer.send_signal(signal.SIGINT)
            assert tracer.wait(PATIENCE) == -signal.SIGINT
        for tid in os.listdir(f"/proc/{target.pid}/task"):
            assert "TracerPid:\t0" in _status(int(tid))
        said, _ = target.communicate(b"\n", PATIENCE)
        assert said == b"still there\n"
        assert target.returncode == 5
    finally:
        target.kill()
        target.communicate()


def test_what_cannot_be_attached_to(asking: Callable[[], subprocess.Popen[bytes]]) -> None:
    """Missing, zombie, traced already, ourselves: said in one line; 125; the others unharmed."""
    process = asking()
    gone = subprocess.Popen(["true"])
    try:
        _until(lambda: _state(gone.pid) == "Z")
        for pid, why in ((gone.pid, "is a zombie"), (4194303, "no process 4194303")):
            done = run_cli("-p", str(pid))
            assert done.returncode == 125
            assert why in done.stderr
            assert done.stderr.count("\n") == 1
    finally:
        gone.wait()
    with subprocess.Popen(
        [sys.executable, "-m", "bpftrace_sys", "-q", "-o", os.devnull, "-p", str(process.pid)],
        env=environment(),
    ) as tracer:
        _until(lambda: f"TracerPid:\t{tracer.pid}" in _status(process.pid))
        done = run_cli("-p", str(process.pid))
        assert done.returncode == 125
        assert f"process {process.pid} is already traced by " in done.stderr
        assert f"({tracer.pid})" in done.stderr
        tracer.send_signal(signal.SIGINT)
        tracer.wait(PATIENCE)
    unharmed(process)


def test_what_is_spawned_dies_with_bpfstrace() -> None:
    """--kill-on-exit or not: no tracee of a killed bpfstrace lives on with a filter of ours."""
    for option in ([], ["--kill-on-exit"]):
        with subprocess.Popen(
            [sys.executable, "-m", "bpftrace_sys", "-f", *option, "-o", os.devnull,
             "sh", "-c", "sleep 1000 & echo ready; wait"],
            stdout=subprocess.PIPE, env=environment(),
        ) as tracer:  # fmt: skip
            assert tracer.stdout is not None
            assert tracer.stdout.readline() == b"ready\n"
            tracer.kill()
            # Its end comes when nobody holds the pipe any more.
            assert select.select([tracer.stdout], [], [], PATIENCE)[0]
            assert tracer.stdout.read() == b""


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def _state(pid: int) -> str:
    found = re.search(r"^State:\s+(\w)", _status(pid), re.M)
    return found[1] if found else ""


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.01)
