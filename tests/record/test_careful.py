"""Pages that never come cost a moment, not the tracer (careful.py)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.running import TRACEES, environment, run_cli

PATIENCE = 60.0
UNREADABLE = re.compile(r"insns=0x[0-9a-f]+ /\* unreadable address \*/")


@pytest.fixture(scope="module")
def faulting(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    binary = tmp_path_factory.mktemp("userfault") / "userfault"
    subprocess.run([compiler, "-w", "-o", binary, TRACEES / "userfault.c"], check=True)
    alone = subprocess.run([binary, "call"], capture_output=True, check=False)
    if alone.returncode == 77:
        pytest.skip("userfaultfd(2) is refused here")
    assert (alone.stdout, alone.returncode) == (b"-1 22\n", 3)
    return str(binary)


@pytest.mark.parametrize("mode", ["", "-f", "-f --no-seccomp", "-f -k"])
def test_a_page_that_never_comes(faulting: str, tmp_path: Path, mode: str) -> None:
    """It is shown as unreadable; what can be read is shown."""
    out = tmp_path / "out"
    done = run_cli("-q", *mode.split(), "-o", str(out), faulting, "call")
    assert (done.stdout, done.stderr, done.returncode) == ("-1 22\n", "", 3)
    text = out.read_text()
    assert UNREADABLE.search(text)
    assert 'license="GPL"' in text


def test_by_the_device(faulting: str, tmp_path: Path) -> None:
    if subprocess.run([faulting, "device"], capture_output=True).returncode == 77:
        pytest.skip("there is no /dev/userfaultfd here")
    out = tmp_path / "out"
    done = run_cli("-q", "-o", str(out), faulting, "device")
    assert done.returncode == 3
    assert UNREADABLE.search(out.read_text())


def test_one_that_had_it_before(faulting: str, tmp_path: Path) -> None:
    """-p finds the fd."""
    out = tmp_path / "out"
    with subprocess.Popen(
        [faulting, "attached"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with subprocess.Popen(
            [sys.executable, "-m", "bpftrace_sys", "-q", "-o", str(out), "-p", str(process.pid)],
            env=environment(),
        ) as tracer:
            deadline = time.monotonic() + PATIENCE
            status = Path(f"/proc/{process.pid}/status")
            while f"TracerPid:\t{tracer.pid}\n" not in status.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            said, _ = process.communicate(b"\n", PATIENCE)
            assert (said, process.returncode) == (b"-1 22\n", 3)
            assert tracer.wait(PATIENCE) == 0
    assert UNREADABLE.search(out.read_text())
