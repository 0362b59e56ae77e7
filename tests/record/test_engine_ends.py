"""How tracing ends: by signals, at a terminal, in a vfork."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine_runs import (
    LIMIT,
    Tracer,
    python,
    read_events,
    state_of,
    wait_for,
)
from tests.support.running import ROOT


@pytest.mark.parametrize("seccomp", [True, False])
def test_spawned_dies_with_a_killed_tracer(trace: Tracer, seccomp: bool) -> None:
    code = "import os\nos.fork()\nprint(os.getpid(), flush=True)\nimport time; time.sleep(600)"
    process, _ = trace.start(
        python(code), follow=True, seccomp=seccomp, popen={"stdout": subprocess.PIPE}
    )
    assert process.stdout is not None
    pids = [int(process.stdout.readline()) for _ in range(2)]
    process.kill()
    process.wait(60)
    for pid in pids:
        wait_for(lambda pid=pid: state_of(pid) in ("", "State:\tZ (zombie)"))


def terminal(command: list[str], env: dict[str, str]) -> tuple[int, int]:
    """Run a command as the foreground job of a terminal: its pid, the other end."""
    pid, end = pty.fork()
    if pid == 0:
        os.execve(command[0], command, env)
    return pid, end


def read_until(end: int, what: bytes) -> bytes:
    seen = b""
    deadline = time.monotonic() + 60
    why = "nothing else came"
    while what not in seen and time.monotonic() < deadline:
        if select.select([end], [], [], 0.2)[0]:
            try:
                seen += os.read(end, 4096)
            except OSError as error:
                why = f"then nobody was there: {error}"
                break
    assert what in seen, (seen, why)
    return seen


# An interpreter notes a signal, and calls the handler before its next instruction. If one
# comes just before a system call that sleeps, that is after the sleep: so short ones.
INTERACTIVE = """
import os, signal, time
def stop(*_):
    os.write(1, b'tidied up')
    os._exit(3)
signal.signal(signal.SIGINT, stop)
print('ready', flush=True)
while True:
    time.sleep(0.1)
"""


def test_ctrl_c_goes_to_the_tracee(trace: Tracer, mode: dict[str, Any]) -> None:
    command, path = trace.command(python(INTERACTIVE), **mode)
    pid, end = terminal(command, {**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        read_until(end, b"ready")
        os.write(end, b"\x03")
        read_until(end, b"tidied up")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 3
    finally:
        os.close(end)
    assert read_events(path)[-1][0] == "exited"


def test_ctrl_z_stops_the_job(trace: Tracer, mode: dict[str, Any]) -> None:
    """Both stop; for the shell the job has stopped; both continue."""
    code = "print('ready', flush=True); print(input() + ' heard', flush=True)"
    # Between us and the job stands what a shell would be: not in its group, same session.
    shell = (
        "import os, signal, sys\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    os.setpgid(0, 0)\n"
        "    signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n"
        "    os.tcsetpgrp(0, os.getpgrp())\n"
        "    signal.signal(signal.SIGTTOU, signal.SIG_DFL)\n"
        f"    os.execv(sys.executable, {trace.command(python(code), **mode)[0]!r})\n"
        "print('before', os.waitstatus_to_exitcode(0), flush=True)\n"
        "_, status = os.waitpid(pid, os.WUNTRACED)\n"
        "print('stopped by', os.WIFSTOPPED(status) and os.WSTOPSIG(status), flush=True)\n"
        "os.killpg(pid, signal.SIGCONT)\n"
        "_, status = os.waitpid(pid, os.WUNTRACED)\n"
        "print('ended with', os.WIFEXITED(status) and os.WEXITSTATUS(status), flush=True)\n"
        "os._exit(0)\n"
    )
    pid, end = terminal([sys.executable, "-c", shell], {**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        read_until(end, b"ready")
        os.write(end, b"\x1a")
        read_until(end, b"stopped by 20")
        time.sleep(0.2)
        os.write(end, b"word\n")
        seen = read_until(end, b"ended with 0")
        assert b"word heard" in seen
        os.waitpid(pid, 0)
    finally:
        os.close(end)


def test_signals_that_end_it(trace: Tracer) -> None:
    """on_interrupt: end gives the tracee the signal; and then SIGKILL."""
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    process, _ = trace.start(
        python(code), follow=True, on_interrupt="end", popen={"stdout": subprocess.PIPE}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    time.sleep(0.3)
    assert process.poll() is None

    def ended() -> bool:
        process.terminate()  # two that come before it looks are one
        return process.poll() is not None

    wait_for(ended)
    assert process.returncode == -signal.SIGKILL


def in_vfork(
    trace: Tracer, engine_c: str, *words: str, **options: Any
) -> tuple[subprocess.Popen[str], Path, int]:
    """A program that waits in a vfork: its tracer, what that tells, and the child."""
    process, path = trace.start(
        [engine_c, "waits-in-vfork", *words],
        popen={"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}, **options,
    )  # fmt: skip
    assert process.stdout is not None
    child = int(process.stdout.readline())
    # The child has spoken; its parent need not be asleep yet.
    parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    wait_for(lambda: "D (disk sleep)" in state_of(parent))
    return process, path, parent


@pytest.mark.parametrize("on_interrupt", ["wait", "end"])
def test_ends_in_a_vfork(
    trace: Tracer, mode: dict[str, Any], engine_c: str, on_interrupt: str
) -> None:
    """A traced process that waits for a vfork's child notices nothing but SIGKILL."""
    process, path, parent = in_vfork(trace, engine_c, on_interrupt=on_interrupt, **mode)
    process.terminate()
    wait_for(lambda: ["exited", parent, None, signal.SIGTERM] in read_events(path))
    assert process.stdin is not None
    process.stdin.close()  # where it is traced, the child's end is waited for
    assert process.wait(LIMIT) == -signal.SIGTERM


def test_a_handler_waits_for_the_vfork(trace: Tracer, mode: dict[str, Any], engine_c: str) -> None:
    """What would not kill it untraced does not, either."""
    process, _, _ = in_vfork(trace, engine_c, "handler", **mode)
    process.terminate()
    time.sleep(0.2)
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(LIMIT) == 8


@pytest.mark.parametrize("no_threads", [False, True])
@pytest.mark.parametrize("rounds", range(4))
def test_a_signal_ends_any_sleep(trace: Tracer, rounds: int, no_threads: bool) -> None:
    """Once stops have come often enough for us to sleep in waitpid, no blocked signal ends
    that: whenever it comes, it must be noticed."""
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(7))\n"
        "for _ in range(100): os.getpid(); time.sleep(0.0005)\n"
        f"print('ready', flush=True); time.sleep({rounds} * 0.0008)\n"
        "os.getpid()\n"
        "while True: time.sleep(0.5)\n"  # untraced: no stop of its own wakes us
    )
    process, _ = trace.start(
        python(code), follow=True, stops={"getpid": None}, no_threads=no_threads,
        popen={"stdout": subprocess.PIPE},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(LIMIT) == 7
