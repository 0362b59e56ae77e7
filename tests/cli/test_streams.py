"""The tracer keeps no end of the program's pipes, but those that it writes to itself."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.running import environment

PATIENCE = 60.0
TRACED = [sys.executable, "-m", "bpftrace_sys", "-q"]
MODES = [[], ["-f"], ["-f", "--no-seccomp"]]


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", f"import os; {code}"]


def _is_broken(fd: int) -> bool:
    try:
        os.write(fd, b"x")
    except BrokenPipeError:
        return True
    return False


@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_the_program_closes_its_output(mode: list[str]) -> None:
    """Whoever reads it sees its end while the program runs on."""
    with subprocess.Popen(
        [*TRACED, *mode, "-o", os.devnull, "sh", "-c", "echo said; exec >&-; read line"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(),
    ) as tracer:  # fmt: skip
        assert tracer.stdout is not None
        assert select.select([tracer.stdout], [], [], PATIENCE)[0]
        assert tracer.stdout.read() == b"said\n"
        assert tracer.poll() is None
        tracer.communicate(b"\n", PATIENCE)
        assert tracer.returncode == 0


@pytest.mark.parametrize("mode", MODES, ids=" ".join)
def test_the_program_closes_its_input(mode: list[str]) -> None:
    """Whoever writes to it is told so."""
    go, come = os.pipe()
    with subprocess.Popen(
        [*TRACED, *mode, "-o", os.devnull, *python(f"os.close(0); os.read({go}, 1)")],
        stdin=subprocess.PIPE, env=environment(), pass_fds=[go],
    ) as tracer:  # fmt: skip
        assert tracer.stdin is not None
        deadline = time.monotonic() + PATIENCE
        while not _is_broken(tracer.stdin.fileno()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert tracer.poll() is None
        os.write(come, b"\n")
        os.close(go)
        os.close(come)
        assert tracer.wait(PATIENCE) == 0


def test_the_program_closes_another_file() -> None:
    out, end = os.pipe()
    with subprocess.Popen(
        [*TRACED, "-o", os.devnull, *python(f"os.close({end}); os.read(0, 1)")],
        stdin=subprocess.PIPE, env=environment(), pass_fds=[end],
    ) as tracer:  # fmt: skip
        os.close(end)
        assert select.select([out], [], [], PATIENCE)[0]
        assert os.read(out, 1) == b""
        assert tracer.poll() is None
        tracer.communicate(b"\n", PATIENCE)
        assert tracer.returncode == 0
    os.close(out)


def test_in_the_background(tmp_path: Path) -> None:
    """`x=$(bpfstrace -D PROG)` has what the program said when it has ended, though a child of
    its that is traced lives on."""
    words = " ".join([*TRACED, "-D", "-f", "-o", os.devnull])
    script = f"x=$({words} sh -c 'sleep 1000 >&- 2>&- & echo $!'); echo =$x="
    done = subprocess.run(
        ["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=environment(), timeout=PATIENCE, check=True,
    )  # fmt: skip
    pid = int(done.stdout.strip(b"=\n"))
    os.kill(pid, 9)


def test_json_to_stdout() -> None:
    """What the tracer writes to it keeps."""
    done = subprocess.run(
        [*TRACED, "--json", "-", "-o", os.devnull, "sh", "-c", "exec >&-"],
        capture_output=True, env=environment(), timeout=PATIENCE, check=True,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["type"] == "trace"
    assert lines[-1]["type"] == "end"
