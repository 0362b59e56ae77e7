"""Small files of /proc and /sys, read with a bound."""

from __future__ import annotations


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


def process_of(tid: int) -> int:
    """The process of a thread.  OSError where it is gone."""
    return int(status(tid)["Tgid"])
