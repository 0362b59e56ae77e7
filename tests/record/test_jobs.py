"""Job control on a terminal: bpfstrace as a job of a shell, and a shell under bpfstrace."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import environment

PATIENCE = 60.0
TRACED = f"{sys.executable} -m bpftrace_sys"
MODES = ["", "-f", "-f --no-seccomp"]


class Terminal:
    """A terminal with a command on it, which reads what is typed."""

    def __init__(self, *command: str) -> None:
        self.seen = ""
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            path = shutil.which(command[0]) or command[0]
            os.execve(path, command, environment(PS1="$ ", PS2="", TERM="dumb", HISTFILE=""))

    def type(self, keys: str) -> None:
        """What a person types."""
        os.write(self.end, keys.encode())

    def until(self, pattern: str) -> re.Match[str]:
        """Waits for what matches to come, and drops all up to it."""
        deadline = time.monotonic() + PATIENCE
        while True:
            match = re.search(pattern, self.seen)
            if match is not None:
                self.seen = self.seen[match.end() :]
                return match
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.seen!r}"
            if select.select([self.end], [], [], 0.5)[0]:
                try:
                    self.seen += os.read(self.end, 4096).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"ended, no {pattern!r} in {self.seen!r}") from None

    def insist(self, keys: str, pattern: str) -> None:
        """Types the same again and again until what matches comes."""
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.seen):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.seen!r}"
            self.type(keys)
            while select.select([self.end], [], [], 0.5)[0]:
                self.seen += os.read(self.end, 4096).decode(errors="replace")
        self.until(pattern)

    def ended(self) -> int:
        """Waits for the command's end, reading on; its exit code."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            if select.select([self.end], [], [], 0.05)[0]:
                with contextlib.suppress(OSError):
                    os.read(self.end, 4096)
        raise AssertionError("does not end")

    def close(self) -> None:
        os.close(self.end)  # hangs up
        if self.pid:
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)


@pytest.fixture
def shell() -> Iterator[Terminal]:
    """An interactive bash that is not traced."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    terminal = Terminal("bash", "--norc", "--noprofile", "--noediting", "-i")
    terminal.until(r"\$ ")
    yield terminal
    terminal.close()


READS = (
    f"{sys.executable} -S -E -c 'print(\"re\" + \"ady\")\n"
    "while (word := input()) != \"end\": print(\"got\", word)'"
)
SLEEPS = (
    f"{sys.executable} -S -E -c 'import os, time; print(\"re\" + \"ady\", flush=True)\n"
    "while not os.path.exists(\"FILE\"): time.sleep(0.02)\n"
    "print(\"do\" + \"ne\")'"
)


@pytest.mark.parametrize("mode", MODES)
def test_a_job_of_a_shell(shell: Terminal, mode: str) -> None:
    """Ctrl-Z stops it, fg continues it, more than once; Ctrl-C ends it; $? is the program's."""
    shell.type(f"{TRACED} {mode} -o /dev/null {READS}\n")
    shell.until("ready")
    for word in ("one", "two", "three"):
        shell.type("\x1a")
        shell.until(r"\[1\]\+  Stopped")
        shell.until(r"\$ ")
        shell.type("fg\n")
        shell.until("bpftrace_sys")
        shell.type(f"{word}\n")
        shell.until(f"got {word}")
    shell.type("end\n")
    shell.until(r"\$ ")
    shell.type("echo =$?=\n")
    shell.until("=0=")
    traps = "trap 'exit 7' INT; echo re''ady; while :; do sleep 0.1; done"
    shell.type(f'{TRACED} {mode} -o /dev/null sh -c "{traps}"\n')
    shell.until("ready")
    shell.type("\x03")
    shell.until(r"\$ ")
    shell.type("echo =$?=\n")
    shell.until("=7=")


@pytest.mark.parametrize("mode", MODES)
def test_in_the_background(shell: Terminal, mode: str, tmp_path: Path) -> None:
    """Reading the terminal there stops it (SIGTTIN), writing as well after stty tostop (SIGTTOU);
    fg lets it go on; bg continues what Ctrl-Z has stopped."""
    shell.type(f"{TRACED} {mode} -o /dev/null {READS} &\n")
    shell.until("ready")
    shell.insist("\n", "Stopped")
    shell.type("fg\n")
    shell.until("bpftrace_sys")
    shell.type("line\n")
    shell.until("got line")
    shell.type("end\n")
    shell.type("stty tostop\n")
    shell.until(r"\$ ")
    shell.type(f"{TRACED} {mode} -o /dev/null sh -c 'echo writ\"\"ten' &\n")
    shell.insist("\n", "Stopped")
    shell.type("fg; stty -tostop\n")
    shell.until("written")
    # No shell: in the vfork that it starts a command with it could not be stopped, traced or not.
    go = str(tmp_path / "go")
    shell.type(f"{TRACED} {mode} -o /dev/null {SLEEPS.replace('FILE', go)}\n")
    shell.until("ready")
    shell.type("\x1a")
    shell.until("Stopped")
    shell.type(f"bg; touch {go}; wait; echo =$?=\n")
    shell.until("done")
    shell.until("=0=")


@pytest.mark.parametrize("mode", ["-f", "-f --no-seccomp"])
def test_a_shell_under_bpfstrace(mode: str) -> None:
    """An interactive bash has job control as ever: its jobs stop, go on, read, and die."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    shell = Terminal(
        *TRACED.split(), *mode.split(), "-o", os.devnull,
        "bash", "--norc", "--noprofile", "--noediting", "-i",
    )  # fmt: skip
    try:
        shell.until(r"\$ ")
        shell.type("cat\n")
        shell.type("one\n")
        shell.until("one\r\none")
        shell.type("\x1a")
        shell.until(r"\[1\]\+  Stopped")
        shell.type("jobs\n")
        shell.until(r"Stopped +cat")
        shell.type("sleep 1000 &\n")
        shell.until(r"\[2\] (\d+)")
        shell.type("kill -STOP %2\n")
        shell.insist("\n", r"\[2\]\+  Stopped +sleep")
        shell.type("kill %2; kill -CONT %2\n")
        shell.insist("\n", r"\[2\].  Terminated +sleep")
        shell.type("fg\n")
        shell.until(r"fg\r\ncat\r\n")
        shell.type("two\n")
        shell.until("two\r\ntwo")
        shell.type("\x03")
        shell.until(r"\$ ")
        shell.type("cat &\n")
        shell.insist("\n", r"\[1\]\+  Stopped")
        shell.type("fg\n")
        shell.until(r"fg\r\ncat\r\n")
        shell.type("three\n")
        shell.until("three\r\nthree")
        shell.type("\x03")
        shell.until(r"\$ ")
        shell.type("exit 5\n")
        assert shell.ended() == 5
    finally:
        shell.close()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_interruptible(shell: Terminal, number: int) -> None:
    """-I1, -I2: Ctrl-C ends the program; -I3, -I4: it is the program's alone, as is, with -I4,
    Ctrl-Z."""
    ignores = READS.replace("-c '", "-c 'import signal; signal.signal(2, signal.SIG_IGN); ")
    shell.type(f"{TRACED} -I{number} -o /dev/null {ignores}\n")
    shell.until("ready")
    shell.type("\x03")
    if number < 3:
        shell.insist("\x03", r"\$ ")  # the second time for good
        shell.type("echo =$?=\n")
        shell.until("=137=")
        return
    shell.type("a\n")
    shell.until("got a")
    if number == 3:
        shell.type("\x1a")
        shell.until("Stopped")
        shell.type("fg\n")
    shell.type("b\n")
    shell.until("got b")
    shell.type("end\n")
    shell.until(r"\$ ")
    shell.type("echo =$?=\n")
    shell.until("=0=")
