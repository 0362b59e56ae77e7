"""What an fd is that is no BPF object, in more words than its path: device, socket, eventfd,
pidfd, signalfd; for --style strace -yy. To be asked in a stop."""

from __future__ import annotations

import os
import stat
from typing import Final

from bpftrace_sys.record.files.walk import place_of
from bpftrace_sys.record.machine.sock_diag import SockDiag
from decoders.raw import FdFact

PTMX: Final = os.makedev(5, 2)
LIMIT: Final = 4096
"""Bytes of an fdinfo that are read; of these kinds it is short."""
Info = dict[str, "int | str"]
FDINFO: Final = {
    "anon_inode:[eventfd]": ("eventfd", ("eventfd-count", "eventfd-id", "eventfd-semaphore")),
    "anon_inode:[pidfd]": ("pidfd", ("Pid",)),
    "anon_inode:[signalfd]": ("signalfd", ("sigmask",)),
}
"""By the link in /proc/TID/fd: the word of --decode-fds=, and what is kept of its fdinfo."""


class FdDetails:
    """``wanted``: words of --decode-fds=; ``stale``: as SockDiag's."""

    def __init__(self, wanted: frozenset[str], stale: bool = False) -> None:
        self.wanted = wanted
        self._sockets = SockDiag(stale)

    def of(self, tid: int, fact: FdFact) -> FdFact:
        """The fact, with what else is known of its fd."""
        path = fact.info.get("path")
        if fact.kind != "file" or fact.fd < 0 or not isinstance(path, str):
            return fact
        more = self._more(tid, fact.fd, path)
        return fact._replace(info={**fact.info, **more}) if more else fact

    def _more(self, tid: int, fd: int, path: str) -> Info:
        if path.startswith("socket:["):
            return self._socket(f"/proc/{tid}/fd/{fd}", path) if "socket" in self.wanted else {}
        if path.startswith("/"):
            return _device(tid, fd) if "dev" in self.wanted else {}
        link = "anon_inode:[pidfd]" if path.startswith("pidfd:") else path
        word, keys = FDINFO.get(link, ("", ()))
        return _fdinfo(tid, fd, keys) if word in self.wanted else {}

    def _socket(self, file: str, link: str) -> Info:
        told = self._sockets.told(file, link)
        if told is None:
            return {}
        return {"socket": told.words, **({"socket_path": told.path} if told.path else {})}


def _device(tid: int, fd: int) -> Info:
    try:
        handle = os.open(f"/proc/{tid}/fd/{fd}", os.O_PATH | os.O_CLOEXEC)
        with place_of(tid, handle) as place:
            # Of a file system that has to ask somebody, nothing is asked in a stop.
            status = os.fstat(place.fd) if place.answers else None
    except OSError:
        return {}
    if status is None:
        return {}
    kind = {stat.S_IFCHR: "char", stat.S_IFBLK: "block"}.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return {}
    number = status.st_rdev
    info: Info = {"device": f"{kind} {os.major(number)}:{os.minor(number)}"}
    if kind == "char" and number == PTMX:
        info.update(_fdinfo(tid, fd, ("tty-index",)))
    return info


def _fdinfo(tid: int, fd: int, keys: tuple[str, ...]) -> Info:
    """Lines of an fdinfo: numbers in decimal as such, others as they stand there."""
    try:
        with open(f"/proc/{tid}/fdinfo/{fd}", encoding="ascii", errors="replace") as file:
            lines = file.read(LIMIT).splitlines()
    except OSError:
        return {}
    found: Info = {}
    for line in lines:
        key, _, value = line.partition(":")
        value = value.strip()
        if key in keys and key not in found:
            # A count is in hex, and so is a mask, whatever its digits look like.
            plain = key not in ("eventfd-count", "sigmask") and value.lstrip("-").isdecimal()
            found[key] = int(value) if plain else value
    return found
