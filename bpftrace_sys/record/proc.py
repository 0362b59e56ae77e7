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


def cgroup_of(pid: int) -> str | None:
    """The path of a process's cgroup in cgroup2; of cgroup1 the longest. None: it is gone."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
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
    found = Exec(former_tid)
    try:
        found = found._replace(path=os.readlink(f"/proc/{pid}/exe"))
        with open(f"/proc/{pid}/cmdline", "rb", buffering=0) as file:
            found = found._replace(argv=argv_of(file.read(ARGV_LIMIT)))
        found = found._replace(uid=int(status(pid)["Uid"].split()[0]))
    except (OSError, KeyError, ValueError, IndexError):
        pass
    return found._replace(cgroup=cgroup_of(pid))


def process_of(tid: int) -> int:
    """The process of a thread.  OSError where it is gone."""
    return int(status(tid)["Tgid"])
