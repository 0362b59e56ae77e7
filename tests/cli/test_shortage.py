"""Where something runs out: a sentence, 125, and the program lives."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bpftrace_sys.common.shortage import shortage
from tests.support.running import environment

TIMEOUT = 120
# bpf() with nothing behind its pointer, often enough for us to import all that tells of it.
WORK = r"""
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 20; i++) syscall(SYS_bpf, 0, 8, 72);
        printf("round %d\n", round);
        fflush(stdout);
        if (!round) usleep(200000);
    }
    return 7;
}
"""
SAID = "round 0\nround 1\n"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("work")
    (folder / "work.c").write_text(WORK)
    subprocess.run([compiler, "-w", "-o", folder / "work", folder / "work.c"], check=True)
    return str(folder / "work")


def limited(work: str, limit: int, number: int, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bpftrace_sys", "-q", "-o", str(out), work],
        preexec_fn=lambda: resource.setrlimit(limit, (number, number)),
        capture_output=True, text=True, env=environment(), timeout=TIMEOUT, check=False,
    )  # fmt: skip


def test_few_file_descriptors(work: str, tmp_path: Path) -> None:
    said = set()
    for number in (5, 6, 7, 8, 10, 12):
        done = limited(work, resource.RLIMIT_NOFILE, number, tmp_path / "out")
        assert "Traceback" not in done.stderr
        if done.returncode == 7:
            assert (done.stdout, done.stderr) == (SAID, "")
        else:
            assert done.returncode == 125
            assert done.stdout in ("", SAID)
            assert "no file descriptor is left (`ulimit -n` is" in done.stderr
            assert done.stderr.count("\n") == 1
        said.add(done.returncode)
    assert said == {7, 125}


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc")
def test_little_memory(work: str, tmp_path: Path) -> None:
    """From where Python starts to where all is told."""
    unseen = 0
    for megabytes in (20, 24, 28, 32, 36, 40, 48, 256):
        done = limited(work, resource.RLIMIT_AS, megabytes << 20, tmp_path / "out")
        if done.returncode not in (7, 125):
            assert "Python" in done.stderr or "error while loading" in done.stderr
            continue  # Python itself cannot start
        assert "Traceback" not in done.stderr
        if done.returncode == 7:
            assert (done.stdout, done.stderr) == (SAID, "")
        else:
            assert done.stderr.startswith("bpfstrace: ")
            assert done.stderr.count("\n") == 1
            assert done.stdout in ("", SAID)
            unseen += "no memory is left" in done.stderr and done.stdout == SAID
    assert unseen
    assert done.returncode == 7


def test_words() -> None:
    assert shortage(OSError(errno.ENFILE, "")) == (
        "no file descriptor is left on this machine (fs.file-max)"
    )
    assert str(shortage(RuntimeError("can't start new thread"))).startswith("no thread can be")
    for error in (OSError(errno.EACCES, ""), RuntimeError("else"), ValueError()):
        assert shortage(error) is None
