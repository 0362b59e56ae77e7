"""One pass over /proc: who has which BPF objects and perf events open, and in which namespaces.

A process's fds are those of its first thread; a thread that has a table of its own
(kcmp(2) tells) counts as well. What we may not read is counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Callable, Iterable
from typing import Final

from bpftrace_sys.record.machine.fds import FdLookup
from decoders import arch
from decoders.raw import FdFact
from decoders.records import dataclass, field

BPF_LINKS: Final = ("anon_inode:bpf", "anon_inode:[bpf", "anon_inode:btf")
"""How the links of BPF fds read: bpf-prog, bpf-map, bpf_link, [bpf_link], btf, bpf-token."""
PERF_EVENT: Final = "anon_inode:[perf_event]"
NETNS: Final = re.compile(r"net:\[(\d+)\]")
SCANNED: Final = 1 << 20
"""Fds that are looked at, of all processes together."""
KCMP_FILES: Final = 2
"""enum kcmp_type (include/uapi/linux/kcmp.h)."""


@dataclass(slots=True)
class Process:
    """A process that has something of interest open."""

    pid: int
    comm: str = "?"
    exe: str = ""
    cgroup: str = ""


@dataclass(slots=True)
class Open:
    """An fd of a process that is a BPF object or a perf event."""

    pid: int
    tid: int
    fact: FdFact
    """``fact.fd`` is the number."""


@dataclass(slots=True)
class Pass:
    """What a pass found."""

    opens: list[Open] = field(default_factory=list)
    processes: dict[int, Process] = field(default_factory=dict)
    """Of those in ``opens``."""
    netns: dict[int, str] = field(default_factory=dict)
    """Inode -> a path by which the namespace can be entered."""
    mounts: dict[int, int] = field(default_factory=dict)
    """Mount namespace's inode -> a process in it."""
    looked: int = 0
    """Fds."""
    denied: int = 0
    """Processes whose fds we may not see."""
    cut: bool = False
    """There were more than SCANNED fds."""


def pids() -> list[int]:
    """All processes that /proc shows us."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def scan(
    which: Iterable[int] | None = None,
    but: int = 0,
    events: bool = True,
    where: bool = True,
    limit: int = SCANNED,
) -> Pass:
    """Looks at the fds of processes: of all, or of ``which``, but not of ``but``.

    ``events``: also at perf events; ``where``: also in which namespaces each process is.
    """
    found = Pass()
    lookup = FdLookup(max_open=1)
    links = (*BPF_LINKS, PERF_EVENT) if events else BPF_LINKS
    same = _same_files()
    with contextlib.closing(lookup):
        for pid in pids() if which is None else which:
            if where:
                _namespaces(pid, found)
            if pid == but:
                continue
            for tid in _tables(pid, same):
                if not _fds(pid, tid, links, lookup, found, limit):
                    found.denied += tid == pid
            if found.cut:
                break
    return found


def namespaces() -> Pass:
    """The namespaces of all processes, without a look at their fds."""
    found = Pass()
    for pid in pids():
        _namespaces(pid, found)
    return found


def _fds(
    pid: int, tid: int, links: tuple[str, ...], lookup: FdLookup, found: Pass, limit: int
) -> bool:
    """False: we may not see the fds of this thread."""
    folder = f"/proc/{tid}/fd"
    try:
        place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return False
    except OSError:
        return True  # gone
    try:
        return _each(pid, tid, place, links, lookup, found, limit)
    except PermissionError:
        return False
    except OSError:
        return True
    finally:
        os.close(place)
        lookup.forget(tid)


def _each(
    pid: int,
    tid: int,
    place: int,
    links: tuple[str, ...],
    lookup: FdLookup,
    found: Pass,
    limit: int,
) -> bool:
    """All fds of a thread, whose folder is open as ``place``."""
    readlink = os.readlink
    for fd in os.listdir(place):
        if found.looked >= limit:
            found.cut = True
            break
        found.looked += 1
        try:
            link = readlink(fd, dir_fd=place)
        except FileNotFoundError:
            continue
        if link.startswith("net:["):
            _netns(link, f"/proc/{tid}/fd/{fd}", found)
        elif link.startswith(links):
            fact = lookup.fact(tid, int(fd), 0)
            if fact is not None and fact.kind != "file":
                found.opens.append(Open(pid, tid, fact))
                if pid not in found.processes:
                    found.processes[pid] = process(pid)
    return True


def _tables(pid: int, same: Callable[[int, int], bool]) -> list[int]:
    """The threads that stand for a process's tables of fds: the first, and those apart from it."""
    folder = f"/proc/{pid}/task"
    try:
        if os.stat(folder).st_nlink <= 3:  # 2 and a thread (proc_task_getattr, fs/proc/base.c)
            return [pid]
        tids = [int(name) for name in os.listdir(folder)]
    except OSError:
        return [pid]
    told = [pid]
    for tid in tids:
        # Of a first thread that has ended, nothing is left to compare with.
        if tid != pid and not any(same(tid, each) for each in told[:8]):
            told.append(tid)
    return told


def _same_files() -> Callable[[int, int], bool]:
    """Whether two threads share their fds; taken for true where the kernel does not say."""
    native = arch.of_machine()
    number = arch.number(native[0], "kcmp") if native else None
    libc = ctypes.CDLL(None, use_errno=True)

    def same(first: int, second: int) -> bool:
        if number is None:
            return True
        order = int(libc.syscall(number, first, second, KCMP_FILES, 0, 0))
        # 0: the same; 1 and 2: others; negative: gone, or not to be known.
        return order <= 0

    return same


def _namespaces(pid: int, found: Pass) -> None:
    try:
        _netns(os.readlink(f"/proc/{pid}/ns/net"), f"/proc/{pid}/ns/net", found)
        mounts = os.readlink(f"/proc/{pid}/ns/mnt")
        found.mounts.setdefault(int(mounts[5:-1]), pid)
    except (OSError, ValueError):
        return


def _netns(link: str, path: str, found: Pass) -> None:
    match = NETNS.fullmatch(link)
    if match is not None:
        found.netns.setdefault(int(match[1]), path)


def process(pid: int) -> Process:
    """Who a process is, as far as /proc shows."""
    return Process(pid, _read(f"/proc/{pid}/comm") or "?", _link(f"/proc/{pid}/exe"), _cgroup(pid))


def _cgroup(pid: int) -> str:
    for line in _read(f"/proc/{pid}/cgroup").split("\n"):
        if line.startswith("0::"):
            return line[3:]
    return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            return file.read(1 << 16).rstrip("\n")
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
