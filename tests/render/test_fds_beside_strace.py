"""``--style strace`` -y and -yy: what an fd is, beside strace's own lines of the same process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftrace_sys.render.strace.fd_text import fd_text, signal_set
from decoders.raw import ENTRY, FdFact
from tests.support.needs import needs_tool
from tests.support.running import environment

PROGRAM = r"""
import ctypes, os, signal, socket, sys
folder = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
fds, kept = [], []

def keep(*files):
    for file in files:
        kept.append(file)
        fds.append(file if isinstance(file, int) else file.fileno())

keep(*socket.socketpair())
for name in (folder + "/so\"cket\n<", "\0abstract\x017"):
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    unix.bind(name)
    keep(unix)
for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    try:
        listening = socket.socket(family)
        listening.bind((address, 0))
    except OSError:
        continue  # no IPv6 here
    keep(listening)
    listening.listen()
    keep(socket.create_connection(listening.getsockname()[:2]))
    datagrams = socket.socket(family, socket.SOCK_DGRAM)
    keep(datagrams)
    datagrams.bind((address, 0))
keep(socket.socket(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
routes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
routes.bind((0, 0))
keep(routes, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15))
keep(libc.eventfd(0, 0), libc.eventfd(26, 1), os.pidfd_open(os.getpid()))
for numbers in ([], [2, 10, 34, 64], range(1, 65)):
    words = sum(1 << (number - 1) for number in numbers).to_bytes(128, "little")
    keep(libc.signalfd(-1, words, 0))
keep(os.open("/dev/null", os.O_RDONLY), *os.openpty(), *os.pipe())
path = folder + "/gone"
keep(os.open(path, os.O_RDWR | os.O_CREAT))
os.unlink(path)
for name in ("<b>\r\x017", "(deleted)", "ge\u00e4nd\x7f"):
    keep(os.open(folder + "/" + name, os.O_RDWR | os.O_CREAT))
print(*fds, flush=True)
while sys.stdin.readline():
    for fd in fds:
        libc.ioctl(fd, 0x2401, 0)
    print(flush=True)
"""
US = (sys.executable, "-m", "bpftrace_sys", "--no-config", "--style", "strace")
NEWER = re.compile(r"<\{eventfd-count=[^>]*>|<signalfd:[^>]*>| @/dev/pts/\d+")
"""What strace 6.1 does not say of an fd."""
OLDER = re.compile(r"<anon_inode:\[(eventfd|signalfd)\]>")


def padded(line: str) -> str:
    """Without what an older strace does not say, nor how far the result stands to the right."""
    return re.sub(" +=", " =", OLDER.sub("", NEWER.sub("", line)))


class Asking:
    """A process that calls ioctl for each of its fds when it is asked to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        self.count = len(self._out.readline().split())

    def traced(self, out: Path, *tracer: str) -> list[str]:
        """The lines of a tracer that is attached while it asks."""
        command = [*tracer, "-e", "trace=ioctl", "-o", str(out), "-p", str(self.process.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment()) as ran:
            assert ran.stderr is not None
            assert b"attached" in ran.stderr.readline()
            self._in.write("\n")
            self._in.flush()
            self._out.readline()
            ran.send_signal(signal.SIGINT)
            ran.communicate(timeout=60)
        return [line for line in out.read_text("ascii").splitlines() if line.startswith("ioctl(")]


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asking]:
    folder = tmp_path_factory.mktemp("fds")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        yield Asking(process)
        process.communicate()


@pytest.mark.live
@pytest.mark.parametrize(
    "options", [["-y"], ["-yy"], ["--decode-fds=socket,pidfd"], ["-e", "decode-fds=dev,path"]],
    ids=" ".join,
)  # fmt: skip
def test_beside_strace(options: list[str], asking: Asking, tmp_path: Path) -> None:
    """The same process's, so that inodes and ports are the same, too."""
    needs_tool("strace")
    theirs = asking.traced(tmp_path / "theirs", "strace", *options)
    ours = asking.traced(tmp_path / "ours", *US, *options)
    assert len(ours) == len(theirs) == asking.count
    for mine, its in zip(ours, theirs, strict=True):
        if mine != its and NEWER.search(mine):
            mine, its = (padded(line) for line in (mine, its))
        assert mine == its
    if options == ["-yy"]:
        text = "\n".join(ours)
        assert "<{eventfd-count=0x1a, eventfd-id=" in text
        assert re.search(r"<UNIX-STREAM:\[\d+->\d+\]>", text)
        assert "TCP:[127.0.0.1:" in text


@pytest.mark.parametrize(
    ("info", "text"),
    [
        ({"path": "/dev/ptmx", "device": "char 5:2", "tty-index": 3},
         "</dev/ptmx<char 5:2 @/dev/pts/3>>"),
        ({"path": "/x (deleted)"}, "</x>(deleted)"),
        ({"path": "anon_inode:[signalfd]", "sigmask": "0000000000000202"},
         "<signalfd:[INT USR1]>"),
        ({"path": "anon_inode:[eventfd]", "eventfd-count": "0"}, "<{eventfd-count=0}>"),
        # What nobody wrote is shown as it is, but steers nothing.
        ({"path": "socket:[1]", "socket": "\x1b[2J"}, r"<\33[2J>"),
        ({"path": "socket:[1]", "socket": "UNIX:[1]", "socket_path": "@\x1b\"7"},
         '<UNIX:[1,@"\\33\\"7"]>'),
        ({"path": "anon_inode:[signalfd]", "sigmask": "zz"}, "<anon_inode:[signalfd]>"),
        ({"path": "anon_inode:[pidfd]", "Pid": -1}, "<anon_inode:[pidfd]>"),
        ({"path": "anon_inode:[eventfd]", "eventfd-count": 7}, "<anon_inode:[eventfd]>"),
    ],
)  # fmt: skip
def test_of_recorded_facts(info: dict[str, int | str], text: str) -> None:
    """As strace 7.2 has them (src/util.c), whatever stands in the trace."""
    every = frozenset({"path", "socket", "dev", "eventfd", "pidfd", "signalfd"})
    assert fd_text(FdFact(3, ENTRY, "file", info), every) == text


def test_sets_of_signals() -> None:
    assert signal_set(0) == "[]"
    assert signal_set((1 << 64) - 1) == "~[]"
    assert signal_set(1 << 33 | 1 << 63) == "[RT_2 RT_32]"
    assert signal_set((1 << 64) - 1 ^ 1 << 8) == "~[KILL]"
