"""Outputs that go away, fill up or were never open: what is left, and what is told."""

from __future__ import annotations

import errno
import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.killing import (
    check_left,
    replay,
    syscalls,
)
from tests.support.needs import needs_tool
from tests.support.running import environment, run_cli

pytestmark = pytest.mark.usefixtures("needs_bpf")


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """What a live trace and a replay import, so that the forks need not."""
    import bpftrace_sys

    for found in pkgutil.walk_packages(bpftrace_sys.__path__, "bpftrace_sys."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    importlib.import_module("decoders.decode")


# -- an output that goes away -----------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "bpfstrace-test", str(place)]
    needs_tool("mount", "umount")
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


WORK = 100
CALLS = 10
"""bpf() calls in a round of the tracee's work."""


def unharmed(tracee: str, tmp_path: Path, rounds: int = WORK) -> list[str]:
    """A tracee that exits with 98 if any of its calls failed, and leaves a witness if not."""
    return [tracee, "work", str(rounds), "1", "3", str(tmp_path / "witness")]


FILLING = {
    "text": ["-o", "{}/text"],
    "verbose text": ["-v", "-o", "{}/text"],
    "as strace's": ["--style=strace", "-o", "{}/text"],
    "a file a thread": ["-ff", "-o", "{}/text"],
    "json": ["-o", "/dev/null", "--json", "{}/trace.jsonl"],
    "json.gz": ["-o", "/dev/null", "--json", "{}/trace.jsonl.gz"],
    "json.zst": ["-o", "/dev/null", "--json", "{}/trace.jsonl.zst"],
}


@pytest.mark.parametrize("kind", FILLING)
def test_disk_full(tracee: str, tmp_path: Path, small: Path, kind: str) -> None:
    """The loss is told once, the exit code says it, the tracee has noticed nothing."""
    if kind.endswith("zst"):
        pytest.importorskip("zstandard")
    options = [word.format(small) for word in FILLING[kind]]
    if "." in kind:  # what compresses well would fit after all
        (small / "ballast").write_bytes(bytes(60 << 10))
    done = run_cli("-f", *options, *unharmed(tracee, tmp_path))
    assert (tmp_path / "witness").exists()
    assert done.returncode == 125
    assert done.stdout == ""
    written = sorted(path for path in small.iterdir() if path.name != "ballast")
    assert sorted(done.stderr.splitlines()) == [
        f"bpfstrace: output to {path} was lost: {os.strerror(errno.ENOSPC)}" for path in written
    ]
    if kind == "json":
        check_left(replay(written[0], tmp_path), 1, kind)
    elif "json" in kind:
        left = replay(written[0], tmp_path)
        assert left.code == 2
        assert "truncated" in left.said or "empty" in left.said


def test_only_one_of_two_outputs_is_lost(tracee: str, tmp_path: Path, small: Path) -> None:
    """The other goes on, and is whole."""
    trace = tmp_path / "trace.jsonl"
    done = run_cli(
        "-f", "-o", str(small / "text"), "--json", str(trace), *unharmed(tracee, tmp_path)
    )
    assert done.returncode == 125
    assert done.stderr.count("was lost") == 1
    left = replay(trace, tmp_path)
    check_left(left, 0, "the other")
    assert left.code == 0
    assert len(syscalls(left.lines)) == WORK * CALLS


def test_size_limit(tracee: str, tmp_path: Path) -> None:
    """A file that may not grow any further (ulimit -f): as a full disk, no signal."""
    text = tmp_path / "text"
    script = 'ulimit -f 16; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "bpftrace_sys", "-f", "-o", str(text),
         *unharmed(tracee, tmp_path)],
        capture_output=True, text=True, env=environment(), check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 125
    assert (tmp_path / "witness").exists()
    assert done.stderr == (
        f"bpfstrace: output to {text} was lost: {os.strerror(errno.EFBIG)}\n"
    )


PIPES = {
    "stderr": ("{} 2>&1 >/dev/null | head -n 1", ""),
    "json": ("{} -o /dev/null --json - | head -n 1", "<stdout>"),
    "both": ("{} --json - 2>&1 | head -n 1", ""),
    "-o": ("{} -o /dev/stdout | head -n 1", "/dev/stdout"),
}


@pytest.mark.parametrize("kind", PIPES)
def test_closed_pipe(tracee: str, tmp_path: Path, kind: str) -> None:
    """``| head -n 1``: its own stdout and stderr are all that bpfstrace loses."""
    pipeline, name = PIPES[kind]
    traced = " ".join(unharmed(tracee, tmp_path))
    code, options = tmp_path / "code", pipeline.split(" | ")[0].format("")
    script = (
        f"{{ {sys.executable} -m bpftrace_sys -f {options} {traced}; echo $? >{code}; }}"
        f" | {pipeline.split(' | ')[1]}"
    )
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, env=environment(), check=False,
        timeout=60,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 1
    assert (tmp_path / "witness").exists()
    assert code.read_text() == "125\n"
    wanted = f"bpfstrace: output to {name} was lost: {os.strerror(errno.EPIPE)}\n"
    assert done.stderr == (wanted if name else "")


REDIRECTIONS = [">&-", "2>&-", "<&-", ">&- 2>&- <&-"]


def test_streams_that_were_closed_before(tracee: str, tmp_path: Path) -> None:
    """``>&-``, ``2>&-``: nothing of ours lands in a file of the tracee's."""
    for redirection in REDIRECTIONS:
        witness = tmp_path / "witness"
        witness.unlink(missing_ok=True)
        trace = tmp_path / "trace.jsonl"
        script = f'exec "$@" {redirection}'
        done = subprocess.run(
            ["sh", "-c", script, "sh", sys.executable, "-m", "bpftrace_sys", "-f", "--json",
             str(trace), *unharmed(tracee, tmp_path, 2)],
            capture_output=True, text=True, env=environment(), check=False, timeout=60,
        )  # fmt: skip
        assert witness.exists(), redirection
        assert witness.read_text() == "", redirection
        assert "Traceback" not in done.stderr, redirection
        check_left(replay(trace, tmp_path), 0, redirection)


@pytest.mark.parametrize("options", [["-f"], ["--no-seccomp"]])
def test_closed_streams_stay_closed(tmp_path: Path, options: list[str]) -> None:
    """The tracee finds the same fds as without us."""
    listing = tmp_path / "fds"
    words = [
        sys.executable, "-S", "-E", "-c",
        "import os, sys; print(os.listdir('/proc/self/fd'), file=open(sys.argv[1], 'w'))",
        str(listing),
    ]  # fmt: skip
    tracer = [sys.executable, "-m", "bpftrace_sys", *options, "--json", str(tmp_path / "trace")]
    for redirection in REDIRECTIONS:
        seen = []
        for command in (words, [*tracer, *words]):
            listing.unlink(missing_ok=True)
            script = f'exec "$@" {redirection}'
            subprocess.run(
                ["sh", "-c", script, "sh", *command],
                capture_output=True, env=environment(), check=False, timeout=60,
            )  # fmt: skip
            seen.append(listing.read_text())
        assert seen[0] == seen[1], redirection


def test_json_to_a_closed_stdout(tmp_path: Path) -> None:
    """What was asked for cannot be had: said before the program runs."""
    witness = tmp_path / "witness"
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "bpftrace_sys",
         "--json", "-", "touch", str(witness)],
        capture_output=True, text=True, env=environment(), check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 125
    assert done.stderr == "bpfstrace: cannot write -: stdout is closed\n"
    assert not witness.exists()


def test_a_file_a_thread_for_thousands(tmp_path: Path) -> None:
    """-ff: a thread's file is closed with it; there may be more than may be open at once."""
    script = (
        "ulimit -n 64; exec \"$@\""
    )
    calls = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None)\n"
        "for _ in range(150):\n"
        "    if not os.fork():\n"
        "        libc.syscall(321 if os.uname().machine == 'x86_64' else 280, 99, 0, 0)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "bpftrace_sys", "-ff", "-q",
         "-o", str(tmp_path / "text"), sys.executable, "-S", "-E", "-c", calls],
        capture_output=True, text=True, env=environment(), check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    files = list(tmp_path.glob("text.*"))
    assert len(files) == 150
    assert all("bpf(" in file.read_text() for file in files)


def test_what_waits_to_be_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracee that is faster than the telling waits for it; loops, captured by plan, as well."""
    from types import SimpleNamespace

    from bpftrace_sys.record.capture import sink as capture
    from bpftrace_sys.record.capture.loops import Plan
    from decoders.raw import AUDIT_ARCH_X86_64, ENTRY, Chunk, RawCall

    monkeypatch.setattr(capture, "WAITING", 40)
    told: list[Any] = []
    sink = capture.Capture()
    sink.begin(told.append)
    sink._row(AUDIT_ARCH_X86_64, 321)
    tracee: Any = SimpleNamespace(tid=7, pid=7, memory=None)
    args = (2, 4096, 32, 0, 0, 0)
    attr = Chunk(ENTRY, 4096, bytes(32), 32)
    plan = Plan(RawCall(0, 0, 7, 7, "", AUDIT_ARCH_X86_64, 321, args, chunks=[attr]), False)
    for seq in range(1000):
        raw = RawCall(seq, 0, 7, 7, "", AUDIT_ARCH_X86_64, 321, args)
        sink._pending[7] = (raw, plan, None)
        sink.exit(tracee, -2, True, 1)
        assert seq + 1 - len(told) <= 41
    sink.drain()
    assert [raw.seq for raw in told] == list(range(1000))
