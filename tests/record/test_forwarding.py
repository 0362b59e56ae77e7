"""A signal reaches a spawned program once, whoever else it was sent to."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import environment

PATIENCE = 60.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)

# Writes a byte, its number, for each signal that it gets: from within the C handler, since
# Python's own are called once for several. A "u" on stdin unblocks, anything else ends it.
COUNTS = """
import os, signal, sys
names = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
os.set_blocking(1, False)
signal.set_wakeup_fd(1)
for number in names:
    signal.signal(number, lambda *_: None)
if "blocked" in sys.argv:
    signal.pthread_sigmask(signal.SIG_BLOCK, names)
os.write(1, b"r")
if "busy" in sys.argv:
    os.set_blocking(0, False)
while True:
    try:
        word = os.read(0, 1)
    except BlockingIOError:
        try:
            os.close(os.open("/sys/fs/bpf/nowhere", 0))
        except OSError:
            continue
    if word == b"u":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, names)
        os.write(1, b"u")
    else:
        break
"""


class Program:
    """COUNTS under bpfstrace, which leads a process group, with the program in it."""

    def __init__(self, options: list[str], *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bpftrace_sys", *options, "-o", os.devnull,
             sys.executable, "-S", "-E", "-c", COUNTS, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(),
            start_new_session=True,
        )  # fmt: skip
        self.heard(b"r")
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        (self.pid,) = map(int, Path(children).read_text().split())

    def heard(self, wanted: bytes) -> None:
        """Reads what the program says; nothing else must come before."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], PATIENCE)[0], f"no {wanted!r}"
        assert os.read(self.process.stdout.fileno(), 1) == wanted

    def say(self, word: bytes) -> None:
        assert self.process.stdin is not None
        os.write(self.process.stdin.fileno(), word)

    def rest(self) -> bytes:
        """Ends the program; what it still had to say."""
        self.say(b"x")
        said, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0
        return bytes(said)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        self.process.wait()


@pytest.fixture(params=["", "busy", "-f", "-f busy"])
def program(request: pytest.FixtureRequest) -> Iterator[Program]:
    words = request.param.split()
    running = Program([word for word in words if word == "-f"], *(w for w in words if w != "-f"))
    yield running
    running.close()


def test_once(program: Program) -> None:
    """Sent to the group, to the tracer alone, to the program alone: in each case once."""
    for _ in range(5):
        for number in SIGNALS:
            for target in (-program.process.pid, program.process.pid, program.pid):
                os.kill(target, number)
                program.heard(bytes([number]))
    assert program.rest() == b""


def test_once_when_blocked() -> None:
    """What waits at the program for its unblocking is not sent again."""
    program = Program(["-f"], "blocked")
    try:
        os.killpg(program.process.pid, signal.SIGTERM)
        _wait_until_taken(program.process.pid)
        program.say(b"u")
        program.heard(bytes([signal.SIGTERM]))
        program.heard(b"u")
        assert program.rest() == b""
    finally:
        program.close()


def _wait_until_taken(pid: int) -> None:
    """Until a process has none of SIGNALS pending."""
    deadline = time.monotonic() + PATIENCE
    mask = sum(1 << (number - 1) for number in SIGNALS)
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status").read_text()
        pending = [line.split()[1] for line in status.splitlines() if line[3:7] == "Pnd:"]
        if not any(int(word, 16) & mask for word in pending):
            return
        time.sleep(0.01)
    raise AssertionError("the tracer never took its signal")


def test_timeout() -> None:
    """timeout(1) signals its child and then the group: twice at most, as untraced."""
    words = [sys.executable, "-m", "bpftrace_sys", "-o", os.devnull,
             sys.executable, "-S", "-E", "-c", COUNTS]  # fmt: skip
    with subprocess.Popen(
        ["timeout", "--preserve-status", "600", *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        assert select.select([process.stdout], [], [], PATIENCE)[0]
        assert os.read(process.stdout.fileno(), 1) == b"r"
        process.terminate()  # does what the end of its time does
        assert select.select([process.stdout], [], [], PATIENCE)[0]
        said = process.communicate(b"x", PATIENCE)[0]
    assert said in (bytes([signal.SIGTERM]), bytes([signal.SIGTERM] * 2))
    assert process.returncode == 0
