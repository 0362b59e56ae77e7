"""--syscall-limit: so many calls, and then the program goes on without us; and calls in which a
thread was let go of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bpftrace_sys.cli.options import UsageError, parse
from tests.support.needs import needs_tool
from tests.support.running import TRACEES, environment, run_cli

CALLS = """
import ctypes, os, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]

def ask(command, size):
    attr = (ctypes.c_uint * 5)(2, 4, 8, 1)
    libc.syscall(BPF, command, attr, size)

def traced():
    return open("/proc/self/status").read().partition("TracerPid:")[2].split()[0]

def some():
    for _ in range(3):
        ask(0, 20)   # makes a map
        ask(99, 4)   # fails

how = sys.argv[1]
if how == "thread":
    thread = threading.Thread(target=some)
    thread.start()
    thread.join()
elif how == "fork" and not os.fork():
    some()
    print(traced(), flush=True)
    os._exit(0)
elif how == "fork":
    os.wait()
else:
    some()
print(traced(), flush=True)
sys.exit(3)
"""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    path = tmp_path / "calls.py"
    path.write_text(CALLS)
    return [sys.executable, str(path)]


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if " bpf(" in line or line.startswith("bpf(")]


@pytest.mark.parametrize("how", ["alone", "thread", "fork"])
def test_after_so_many_calls_the_program_goes_on_untraced(
    how: str, program: list[str], needs_bpf: None
) -> None:
    """As strace 7.2 has it: status 0, no word of what it does later."""
    words = ["-f", "--style", "strace", "-e", "trace=bpf", "--syscall-limit=4"]
    done = run_cli(*words, *program, how)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"0"}
    assert len(lines(done.stderr)) == 4
    assert "+++" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("bpfstrace:")]
    limit = said.index("bpfstrace: System call limit has been reached, detaching tracees")
    count = {"alone": 1, "thread": 2, "fork": 2}[how]
    assert [line.split()[-1] for line in said[limit + 1 :]] == ["detached"] * count
    if how == "alone":
        quiet = run_cli("-q", *words, *program, how)
        assert "bpfstrace:" not in quiet.stderr


@pytest.mark.parametrize(
    ("options", "kept"),
    [(["-e", "status=failed"], "EINVAL"), (["-e", "bpf=map_create"], "BPF_MAP_CREATE, "),
     (["-c"], "")],
)  # fmt: skip
def test_calls_that_are_not_shown_do_not_count(
    options: list[str], kept: str, program: list[str], needs_bpf: None, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.jsonl"
    style = ["--style", "strace"]
    words = [*style, "-e", "trace=bpf", "--syscall-limit", "2", "--json", str(trace), *options]
    done = run_cli(*words, *program, "alone")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0\n"
    if not kept:
        assert done.stderr.splitlines()[-1].split()[-3:] == ["2", "1", "total"]
        return
    assert sum(kept in line for line in lines(done.stderr)) == 2
    again = run_cli("replay", *style, *(options if "bpf=" not in options[-1] else []), str(trace))
    assert lines(again.stdout) == lines(done.stderr)


@pytest.mark.parametrize("engine", ["ptrace", "bpf"])
def test_calls_that_come_together_are_counted_one_by_one(
    engine: str, needs_bpf: None, tmp_path: Path
) -> None:
    loop = [sys.executable, "-S", str(TRACEES / "secret_loop.py"), "500", "value"]
    for limit in (1, 100, 333):
        done = run_cli(
            "--engine", engine, f"--syscall-limit={limit}", "-v", "-e", "trace=bpf",
            "-o", str(tmp_path / "text"), "--json", str(tmp_path / "json"), *loop,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        text, json = (tmp_path / name for name in ("text", "json"))
        assert text.read_text().count("bpf(BPF_MAP_") == limit
        assert json.read_text().count('"type":"syscall"') == limit


@pytest.mark.parametrize("engine", ["ptrace", "bpf"])
def test_own_style(engine: str, program: list[str], needs_bpf: None) -> None:
    done = run_cli("--engine", engine, "--syscall-limit=1", "-e", "trace=bpf", *program, "alone")
    assert (done.returncode, done.stdout) == (0, "0\n")
    assert len(lines(done.stderr)) == 1
    assert "what was traced goes on untraced" in done.stderr


def test_a_program_that_ends_before(program: list[str], needs_bpf: None) -> None:
    done = run_cli("--syscall-limit=99", "-e", "trace=bpf", *program, "alone")
    assert done.returncode == 3
    assert "untraced" not in done.stderr


@pytest.mark.offline
@pytest.mark.parametrize("text", ["0", "-5", "x", ""])
def test_no_limit(text: str) -> None:
    with pytest.raises(UsageError, match=r"--syscall-limit takes a number"):
        parse([f"--syscall-limit={text}", "true"], "live")


OPENS = """
import os, sys
print(flush=True)
sys.stdin.read(1)
os.open(sys.argv[1], os.O_WRONLY)
"""


def until(pid: int, there: Callable[[int], bool]) -> None:
    """Waits until it is so."""
    deadline = time.monotonic() + 60
    while not there(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


def opens(pid: int) -> bool:
    """Whether it stands in an openat of /proc's numbering."""
    number = {"x86_64": "257", "aarch64": "56"}[os.uname().machine]
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] == number


def test_let_go_of_in_a_call(tmp_path: Path) -> None:
    """The line that has begun ends in words of its own, as strace's, and is found by its status."""
    needs_tool("strace")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    us = [sys.executable, "-m", "bpftrace_sys", "-e", "trace=openat"]
    told = {}
    for name, tracer in {
        "theirs": ["strace", "-e", "trace=openat"], "ours": [*us, "--style", "strace"],
        "own": us, "chosen": [*us, "--style", "strace", "-e", "status=detached"],
        "failed": [*us, "--style", "strace", "-e", "status=failed"],
    }.items():  # fmt: skip
        out = tmp_path / name
        asked = [sys.executable, "-c", OPENS, str(fifo)]
        with subprocess.Popen(asked, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            command = [*tracer, "-o", str(out), "-p", str(process.pid)]
            with subprocess.Popen(
                command, stderr=subprocess.PIPE, text=True, env=environment()
            ) as ran:
                until(process.pid, is_traced)
                process.stdin.write(b"x")
                process.stdin.flush()
                until(process.pid, opens)
                ran.send_signal(signal.SIGINT)
                _, stderr = ran.communicate(timeout=60)
            process.kill()
        told[name] = out.read_text()
        if name in ("theirs", "ours"):
            assert "detached" in stderr
    line = f'openat(AT_FDCWD, "{fifo}", O_WRONLY|O_CLOEXEC <detached ...>\n'
    assert told["theirs"] == told["ours"] == told["chosen"] == line
    assert " = ? (detached)" in told["own"]
    assert not told["failed"]
