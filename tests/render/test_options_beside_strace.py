"""What strace's options make of lines: the same program under both tracers, line by line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.needs import needs_tool
from tests.support.running import environment

PROGRAM = r"""
import ctypes, os, sys
if sys.argv[1:] != ["again"]:
    os.execv(sys.executable, ["python3", "-S", __file__, "again"])
libc = ctypes.CDLL(None)
x86 = os.uname().machine == "x86_64"
BPF, PERF, IOCTL, OPENAT = (321, 298, 16, 257) if x86 else (280, 241, 29, 56)
four = ctypes.create_string_buffer(b"\x63\0\0\0", 4)
for _ in range(2):
    libc.syscall(BPF, 22, four, 4)
libc.syscall(BPF, 22, None, 4)
libc.syscall(BPF, 99, four, 4)
libc.syscall(PERF, ctypes.c_void_p(1 << 41), 0, -1, -1, 8)
libc.syscall(IOCTL, 0, 0x2400, 0)
libc.syscall(IOCTL, 77, 0x2401, 1)
for name in (b"/dev/null", b"/nowhere\x01\"/of/all/the/places/that/there/are"):
    libc.syscall(OPENAT, -100, ctypes.c_char_p(name), 0x80000, 0)
os.kill(os.getpid(), 0)
signal = __import__("signal")
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
os.kill(os.getpid(), signal.SIGUSR1)
"""
OURS = (sys.executable, "-m", "bpftrace_sys", "--no-config", "--style", "strace")
CALLS = ("-e", "trace=bpf,perf_event_open,ioctl,openat")
OTHERS = re.compile(
    r"openat.*(python|\.py|/etc/|/usr/|/lib)|ioctl\(\d+(<.*>)?, (T|FIO|0x54|_IOC)|syscall_0x14f"
)
"""Calls of Python's own start, ioctls of terminals, which bpfstrace does not decode, and
uretprobe(2), which older straces have no name for: somebody on this machine probes a library."""
PASSING = re.compile(r"0x(?!20000000000\b)[0-9a-f]{9,}|\b\d{4,7}\b(?=[ <,}])")
"""Addresses, and ids of processes."""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return [sys.executable, "-S", str(path), "again"]


def told(tracer: tuple[str, ...], words: list[str], out: Path, program: list[str]) -> str:
    """What it prints, with ids of processes and addresses numbered, and its exit code."""
    ran = subprocess.run(
        [*tracer, "-o", str(out), *CALLS, *words, *program], env=environment(),
        stdin=subprocess.DEVNULL, capture_output=True, check=False, cwd=out.parent,
    )  # fmt: skip
    return f"{plain(out.read_text('ascii'))}exit code {ran.returncode}"


def plain(text: str) -> str:
    lines = [
        line for line in text.splitlines(keepends=True)
        if not OTHERS.search(line)
    ]  # fmt: skip
    found: dict[str, str] = {}

    def numbered(match: re.Match[str]) -> str:
        return found.setdefault(match[0], f"A{len(found)}").ljust(len(match[0]))

    return PASSING.sub(numbered, "".join(lines))


@pytest.mark.live
@pytest.mark.parametrize(
    "words",
    [
        [], ["-a", "10"], ["--columns=70"], ["-s", "5"], ["-X", "raw"], ["-X", "verbose"],
        ["-e", "raw=bpf,ioctl"], ["-e", "verbose=none"], ["-e", "v=!bpf"], ["-yy"], ["-z"], ["-Z"],
        ["-P", "/dev/null"], ["-e", "signal=none"], ["-e", "inject=bpf:error=EXDEV:when=2+"],
        ["-e", "fault=bpf,ioctl:when=1"], ["--inject=bpf:retval=5:when=1..4+3"],
        ["--seccomp-bpf", "-f"], ["-I", "1"], ["-e", "abbrev=none"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_the_same_lines(words: list[str], program: list[str], tmp_path: Path) -> None:
    needs_tool("strace")
    translated = [re.sub("^-a$", "--columns", word) for word in words]
    ours = told(OURS, translated, tmp_path / "ours", program)
    theirs = told(("strace",), words, tmp_path / "theirs", program)
    assert ours == theirs
    assert ours.count("\n") >= 1


@pytest.mark.live
def test_what_only_newer_ones_have(program: list[str], tmp_path: Path) -> None:
    """--always-show-pid and -N, as strace 7.2 has them; Debian's 6.1 has neither."""
    text = told(OURS, ["--always-show-pid", "-N"], tmp_path / "out", program)
    lines = text.splitlines()
    assert re.match(
        r'A\d +openat\(dirfd=AT_FDCWD, pathname="/dev/null", flags=O_RDONLY\|O_CLOEXEC\) = \d$',
        next(line for line in lines if "/dev/null" in line),
    )
    first = next(line for line in lines if "bpf(" in line)
    assert re.match(r"A\d +bpf\(cmd=BPF_MAP_FREEZE, attr=\{map_fd=99\}, size=4\) = -1 ", first)
    assert all(re.match(r"A\d ", line) for line in lines[:-1])
