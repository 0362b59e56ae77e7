"""Small files of /proc and /sys, read with a bound; and what they say of a process."""

from __future__ import annotations

import os

from decoders.events import Exec


def read_text(path: str, limit: int = 1 << 16) -> str | None:
    """A small file of the kernel's, or None."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return None


def status(task: int | str) -> dict[str, str]:
    """The fields of /proc/TASK/status; ``task`` may be PID/task/TID.  OSError where it is gone."""
    # In one read: all of it is of one moment.
    with open(f"/proc/{task}/status", "rb", buffering=0) as file:
        text = file.read(1 << 17).decode("utf-8", "replace")
    # Not splitlines(): a thread's name may hold what that takes for the end of a line.
    fields = (line.partition(":") for line in text.split("\n"))
    return {name: value.strip() for name, _, value in fields}


def _read(path: str, limit: int) -> bytes:
    """A file of /proc, as open() would cost more than the reading. OSError where it is gone."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = b""
        while len(found) < limit and (piece := os.read(fd, limit - len(found))):
            found += piece
        return found
    finally:
        os.close(fd)


def cgroup_of(pid: int) -> str | None:
    """The path of a process's cgroup in cgroup2; of cgroup1 the longest. None: it is gone."""
    try:
        text = os.fsdecode(_read(f"/proc/{pid}/cgroup", 1 << 16))
    except OSError:
        return None
    lines = [line.split(":", 2) for line in text.split("\n")]
    unified = [line[2] for line in lines if len(line) == 3 and line[0] == "0"]
    if unified and unified[0] not in ("", "/"):
        return unified[0]
    others = [line[2] for line in lines if len(line) == 3]
    return max(others, key=len, default=None)


ARGV_LIMIT = 512
"""Bytes of a process's arguments that are kept."""


def argv_of(data: bytes) -> tuple[str, ...]:
    """The words of what stands in memory, or in /proc/PID/cmdline."""
    data = data[:ARGV_LIMIT].rstrip(b"\0")
    return tuple(os.fsdecode(word) for word in data.split(b"\0")) if data else ()


def executed(pid: int, former_tid: int | None) -> Exec:
    """What a process runs since its execve, in whose stop it is; what cannot be read is left
    out."""
    path, argv, uid = "", None, None
    try:
        path = os.readlink(f"/proc/{pid}/exe")
        argv = argv_of(_read(f"/proc/{pid}/cmdline", ARGV_LIMIT))
        # The real one comes first; newlines of a name are escaped there.
        _, _, rest = _read(f"/proc/{pid}/status", 1 << 17).partition(b"\nUid:\t")
        uid = int(rest.split(None, 1)[0])
    except (OSError, ValueError, IndexError):
        pass
    return Exec(former_tid, path, argv, uid, cgroup_of(pid))


def process_of(tid: int) -> int:
    """The process of a thread.  OSError where it is gone."""
    return int(status(tid)["Tgid"])
