"""A FUSE file system whose server does not answer everybody, and who uses it.

    python3 tests/tracees/silent_fuse.py FOLDER SILENT WORK FILE OUT

mounts one at FOLDER, in a mount namespace of its own, and does WORK there (functions below, in
their order). In it are ``file``, which has the bytes of FILE, and ``link``, which leads there. Its
server, a child of this process, answers what this process asks, and of others only what SILENT
does not name (LOOKUP, GETATTR, OPEN, READ, STATFS). SILENT and WORK are words separated by commas.
The server ends with this process, which waits for the end of stdin; what it did not answer it
writes to OUT, a line each. Where there is no FUSE, the exit code is 77.

The protocol is include/uapi/linux/fuse.h, version 7.31.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "loaders"))

from _common import call, perf_event, pmu

CLONE_NEWNS = 0x00020000
MS_REC_PRIVATE = 0x4000 | 1 << 18
LIBC = ctypes.CDLL(None, use_errno=True)

OPCODES = {
    1: "LOOKUP", 2: "FORGET", 3: "GETATTR", 5: "READLINK", 14: "OPEN", 15: "READ", 17: "STATFS",
    18: "RELEASE", 25: "FLUSH", 26: "INIT", 27: "OPENDIR", 29: "RELEASEDIR", 34: "ACCESS",
    36: "INTERRUPT", 42: "BATCH_FORGET",
}  # fmt: skip
UNANSWERED = {"FORGET", "INTERRUPT", "BATCH_FORGET"}
"""What has no answer in the protocol."""
ROOT, FILE, LINK = 1, 2, 3
NAMES = {b"file": FILE, b"link": LINK}
HEADER_IN, HEADER_OUT = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
ATTR = struct.Struct("<6Q10I")
ENOENT, ENOSYS = 2, 38


def mounted(folder: str) -> int:
    """The fd of the server's end."""
    if LIBC.unshare(CLONE_NEWNS) or LIBC.mount(None, b"/", None, MS_REC_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "unshare")
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if LIBC.mount(b"silent", folder.encode(), b"fuse.silent", 0, options):
        raise OSError(ctypes.get_errno(), "mount")
    return device


class Server:
    """Answers, or does not."""

    def __init__(self, device: int, silent: set[str], data: bytes, friend: int, out: str) -> None:
        self.device, self.silent, self.data, self.friend = device, silent, data, friend
        self.out = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def attr(self, node: int) -> bytes:
        """struct fuse_attr."""
        kind = {ROOT: stat.S_IFDIR, LINK: stat.S_IFLNK}.get(node, stat.S_IFREG)
        size = {ROOT: 0, LINK: len(b"file")}.get(node, len(self.data))
        return ATTR.pack(node, size, 0, 0, 0, 0, 0, 0, 0, kind | 0o755, 1, 0, 0, 0, 4096, 0)

    def reply(self, opcode: str, node: int, body: bytes) -> bytes | int:
        """What an answer holds, or an errno; all that is answered is to be asked again."""
        if opcode == "INIT":
            return struct.pack("<IIIIHHIIHHI7I", 7, 31, 1 << 16, 0, 8, 8, 1 << 16, 1, 16, *[0] * 9)
        if opcode == "LOOKUP":
            found = NAMES.get(body.rstrip(b"\0"))
            if found is None or node != ROOT:
                return ENOENT
            return struct.pack("<4QII", found, 0, 0, 0, 0, 0) + self.attr(found)
        if opcode == "GETATTR":
            return struct.pack("<QII", 0, 0, 0) + self.attr(node)
        if opcode == "READLINK":
            return b"file"
        if opcode in ("OPEN", "OPENDIR"):
            return struct.pack("<QII", 0, 0, 0)
        if opcode == "READ":
            _, offset, size = struct.unpack_from("<QQI", body)
            return self.data[offset : offset + size]
        if opcode == "STATFS":
            return struct.pack("<5Q12I", 1, 1, 1, 1, 1, 4096, 255, 4096, *[0] * 9)
        return b"" if opcode in ("RELEASE", "RELEASEDIR", "FLUSH") else ENOSYS

    def serve(self) -> None:
        """Until the file system is gone."""
        while True:
            try:
                request = os.read(self.device, 1 << 17)
            except OSError:
                return
            _, code, unique, node, _, _, pid, _, _ = HEADER_IN.unpack_from(request)
            opcode = OPCODES.get(code, str(code))
            if opcode in UNANSWERED:
                continue
            if opcode in self.silent and pid != self.friend and pid:
                os.write(self.out, f"{opcode}\n".encode())
                continue
            found = self.reply(opcode, node, request[HEADER_IN.size :])
            error, data = (-found, b"") if isinstance(found, int) else (0, found)
            try:
                os.write(self.device, HEADER_OUT.pack(16 + len(data), error, unique) + data)
            except OSError:
                continue  # who had asked is gone


def uprobe(folder: str) -> None:
    """A uprobe in a file there."""
    perf_event(pmu("uprobe"), text=f"{folder}/file".encode(), config2=0x1000)


def refused_uprobe(folder: str) -> None:
    """A uprobe past the file's end."""
    with contextlib.suppress(OSError):
        perf_event(pmu("uprobe"), text=f"{folder}/link".encode(), config2=1 << 40)


def get(folder: str) -> None:
    """A pin that is none, by an absolute path and from a working directory there."""
    here = os.getcwd()
    for path in (f"{folder}/file", "link"):
        with contextlib.suppress(OSError):
            call("OBJ_GET", pathname=path.encode() + b"\0")
        os.chdir(folder)
    os.chdir(here)


def attach(folder: str) -> None:
    """A question about a folder there, as if it were a cgroup."""
    where = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):
        call("PROG_QUERY", target_fd=where, attach_type=0)


def execute(folder: str) -> None:
    """A program that stands there."""
    os.execv(f"{folder}/file", ["file"])


def memory(folder: str) -> None:
    """Memory of a file there, of which nothing was read yet, as the name of a pin."""
    with open(f"{folder}/file", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE)
    at = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    with contextlib.suppress(OSError):
        call("OBJ_GET", pathname=at)


def main(folder: str, silent: str, work: str, file: str, out: str) -> None:
    """See above."""
    data = Path(file).read_bytes()
    try:
        device = mounted(folder)
    except OSError as error:
        print(error, file=sys.stderr)
        sys.exit(77)
    friend = os.getpid()
    ours, theirs = socket.socketpair()
    if not os.fork():
        ours.close()
        for number in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
        theirs.close()
        if os.getppid() == friend:
            Server(device, {*silent.split(",")}, data, friend, out).serve()
        os._exit(0)
    os.close(device)
    theirs.close()
    ours.recv(1)
    works: dict[str, Callable[[str], None]] = {
        each.__name__: each for each in (uprobe, refused_uprobe, get, attach, execute, memory)
    }
    for name in work.split(","):
        works[name](folder)
    sys.stdin.read()  # as long as somebody may have to look


if __name__ == "__main__":
    main(*sys.argv[1:])
