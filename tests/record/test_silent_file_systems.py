"""File systems whose server never answers: who traces goes on, and says what was not looked at."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bpftrace_sys.record.files.mounts import mounts
from bpftrace_sys.record.files.tracee_files import Base, TraceeFiles
from bpftrace_sys.record.files.walk import walk
from bpftrace_sys.record.machine.symbols import Symbols
from tests.support.needs import c_compiler
from tests.support.running import TRACEES, environment

TRACEE = TRACEES / "silent_fuse.py"
PATIENCE = 60
SAYS = "on fuse.silent, which did not answer in time"
PROGRAM = r"""
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
__attribute__((noinline)) long asks(void) { return syscall(SYS_bpf, 0, 8, 72) + 1; }
int main(void) { return asks() + (getchar() != -1); }
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What asks bpf(2), and waits for the end of stdin."""
    out = tmp_path_factory.mktemp("program") / "program"
    subprocess.run(
        [c_compiler(), "-O1", "-w", "-fno-optimize-sibling-calls", "-x", "c", "-", "-o", str(out)],
        input=PROGRAM.encode(), check=True,
    )  # fmt: skip
    return str(out)


@pytest.fixture(scope="module")
def fuse(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where there is no FUSE."""
    folder = tmp_path_factory.mktemp("fuse")
    words = [sys.executable, str(TRACEE), str(folder), "", "get", "/bin/true", f"{folder}.out"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode == 77:
        pytest.skip("there is no FUSE here")
    assert done.returncode == 0, done.stderr


def traced(
    folder: Path, options: str, silent: str, work: str, file: str, until: str, end: int = 0
) -> str:
    """The text of bpfstrace, which traces the tracee until it has said something; what it did not
    answer stands in ``folder / "out"``. ``end``: a signal for bpfstrace, instead of an end."""
    (folder / "mount").mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "bpftrace_sys", "-q", "-s", "200", *options.split(), sys.executable,
         str(TRACEE), f"{folder}/mount", silent, work, file, f"{folder}/out"],
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    ) as tracer:  # fmt: skip
        assert tracer.stderr is not None
        hangs = threading.Timer(PATIENCE, tracer.kill)
        hangs.start()
        try:
            text = b""
            while until.encode() not in b" ".join(text.split()):
                piece = os.read(tracer.stderr.fileno(), 1 << 16)
                assert piece, text.decode()
                text += piece
            if end:
                tracer.send_signal(end)
            else:
                text += tracer.communicate(b"")[1]
            assert tracer.wait() == -end, text.decode()
        finally:
            hangs.cancel()
    return " ".join(text.decode().split())


def unanswered(folder: Path) -> list[str]:
    """What the server did not answer."""
    return (folder / "out").read_text().split()


def test_paths_of_one_that_looks_nothing_up(fuse: None, tmp_path: Path, needs_bpf: None) -> None:
    """By an absolute path, through a link, from a working directory, of an fd; asked once."""
    works = "uprobe,refused_uprobe,get,attach"
    text = traced(tmp_path, "-yy", "LOOKUP,GETATTR", works, "/bin/true", "not a cgroup")
    mount = f"{tmp_path}/mount"
    assert f"{mount}/file:0x1000 (file not looked at: it is {SAYS})" in text
    for path in (f"{mount}/link", f"{mount}/file", "link"):
        assert f"why: {path} was not looked at: it is {SAYS}" in text
    assert f"target_fd=5<{mount}>" in text
    assert f"target_fd 5 is {mount}, not a cgroup" in text
    assert unanswered(tmp_path) == ["LOOKUP"]


@pytest.mark.parametrize("silent", ["GETATTR", "OPEN", "READ"])
def test_a_file_that_is_found(fuse: None, tmp_path: Path, silent: str, needs_bpf: None) -> None:
    """But not told of, opened, or read. The program ends as bpfstrace is asked to end."""
    text = traced(tmp_path, "", silent, "uprobe", "/bin/true", "in time)", signal.SIGTERM)
    assert f"/mount/file:0x1000 (file not looked at: it is {SAYS})" in text
    assert unanswered(tmp_path) == [silent]


def test_a_program_that_stands_there(fuse: None, tmp_path: Path, program: str) -> None:
    """A stack leads through a file whose server answers, if not in a stop."""
    text = traced(tmp_path, "-k", "", "execute", program, "_start+")
    assert f"{tmp_path}/mount/file(asks+0x" in text
    assert f"{tmp_path}/mount/file(main+0x" in text
    assert unanswered(tmp_path) == []


def test_a_stack_in_a_file_that_does_not_open(fuse: None, tmp_path: Path, program: str) -> None:
    text = traced(tmp_path, "-f -k", "OPEN", "execute", program, "in time")
    assert "/mount/file() [0x" in text
    assert f"... file not looked at: it is {SAYS}" in text
    assert unanswered(tmp_path) == ["OPEN"]


def test_a_server_that_is_traced(fuse: None, tmp_path: Path, needs_bpf: None) -> None:
    """It stands in a stop, while we wait for it: not for ever."""
    text = traced(tmp_path, "-f --no-seccomp", "", "uprobe", "/bin/true", "in time)")
    assert f"/mount/file:0x1000 (file not looked at: it is {SAYS})" in text
    assert unanswered(tmp_path) == []


def test_a_uprobe_of_the_program_itself(program: str, tmp_path: Path, needs_bpf: None) -> None:
    """Of /proc/self the program is meant, not bpfstrace."""
    with subprocess.Popen([program], stdin=subprocess.PIPE) as process:
        try:
            offset = next(
                int(line.split()[0], 16)
                for line in subprocess.check_output(["nm", program], text=True).splitlines()
                if line.endswith(" asks")
            )
            symbols = Symbols(TraceeFiles())
            for path in ("/proc/self/exe", "/proc/thread-self/root/proc/self/exe"):
                assert symbols.at(process.pid, path, offset) == "asks"
            assert symbols.at(process.pid, "/proc/self/environ", 0) is None
        finally:
            process.communicate(b"")


# ------------------------------------------------------------------ the walk

OPENAT2 = 437
RESOLVE_IN_ROOT = 0x10
RESOLVE_NO_MAGICLINKS = 0x02
LIBC = ctypes.CDLL(None, use_errno=True)


def found_by_the_kernel(root: int, path: str) -> tuple[int, int] | int:
    """Device and inode of what a path leads to below a root, or an errno: openat2(2)."""
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_IN_ROOT)
    fd = LIBC.syscall(OPENAT2, root, os.fsencode(path), how, ctypes.sizeof(how))
    if fd < 0:
        return ctypes.get_errno()
    try:
        return os.fstat(fd).st_dev, os.fstat(fd).st_ino
    finally:
        os.close(fd)


def found_by_us(root: int, path: str) -> tuple[int, int] | int:
    link = f"/proc/self/fd/{root}"
    try:
        with walk(os.getpid(), link, link, path) as place:
            assert place.answers
            assert place.mount in mounts()
            return os.fstat(place.fd).st_dev, os.fstat(place.fd).st_ino
    except OSError as error:
        return error.errno or -1


def test_walks_where_the_kernel_does(tmp_path: Path) -> None:
    """Folders, files, links that lead up, down, round, nowhere, out of the root and back."""
    draw = random.Random(20260)
    names = ["a", "b", "c", "file", "up", "loop", "gone", "top"]
    for folder in ("a", "a/b", "a/b/c", "b", "b/a", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text(folder)
        (tmp_path / folder / "up").symlink_to(draw.choice(["..", "../..", "../../../../b", "./."]))
        (tmp_path / folder / "loop").symlink_to(draw.choice(["loop", "../loop", "up/loop"]))
        (tmp_path / folder / "gone").symlink_to(draw.choice(["nothing", "/nothing/there"]))
        (tmp_path / folder / "top").symlink_to(draw.choice(["/", "/a/b", "//a/../a/b/up", "/c/"]))
    (tmp_path / "proc").mkdir()
    root = os.open(tmp_path, os.O_PATH)
    found = set()
    try:
        for _ in range(1000):
            length = draw.randint(0, 6)
            words = [draw.choice([*names, "..", ".", ""]) for _ in range(length)]
            path = draw.choice(["", "/"]) + "/".join(words)
            if LIBC.syscall(OPENAT2, root, b".", None, 0) < 0 and ctypes.get_errno() == 38:
                pytest.skip("openat2(2) is not there")
            expected = found_by_the_kernel(root, path)
            assert found_by_us(root, path) == expected, path
            found.add(expected)
    finally:
        os.close(root)
    assert len([each for each in found if isinstance(each, tuple)]) >= 10
    assert {each for each in found if isinstance(each, int)} >= {2, 20, 40}


def test_a_walk_ends_with_its_patience(tmp_path: Path) -> None:
    """A path of links to links is looked up no further than the kernel would."""
    for number in range(41):
        (tmp_path / str(number)).symlink_to(str(number + 1))
    (tmp_path / "41").write_text("")
    base = Base.of(os.getpid())
    for first, answers in ((0, False), (1, True)):
        path = f"{tmp_path}/{first}"
        assert os.path.exists(path) is answers
        if answers:
            assert TraceeFiles().status(base, path).size == 0
        else:
            with pytest.raises(OSError, match="Too many levels"):
                TraceeFiles().status(base, path)
    with pytest.raises(OSError, match="too long"):
        TraceeFiles().status(base, "/." + "/.." * 5000)
    with pytest.raises(ValueError, match="null"):
        TraceeFiles().status(base, "/\0")
