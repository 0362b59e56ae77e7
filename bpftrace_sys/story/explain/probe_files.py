"""Refusals of writes to tracefs's uprobe_events, kprobe_events and dynamic_events.

What the kernel has to say stands in tracefs's error_log, with the line and where in it.
"""

from __future__ import annotations

import errno
import re
from typing import Final

from bpftrace_sys.story.explain.failure import Failure
from bpftrace_sys.story.objects import text_of

FILES: Final = ("uprobe_events", "kprobe_events", "dynamic_events")
LONGEST: Final = 4096
"""Bytes of a line that the kernel reads (WRITE_BUFSIZE)."""
LINES: Final = 16
"""Lines of a write that are looked at."""
_GONE: Final = r"-:(\S+)$"
_UPROBE: Final = r"[pr](?::\S+)?\s+(\S+)"


def probe_file(failure: Failure) -> list[str]:
    """What error_log says of a line; else what is wrong with it before the kernel logs."""
    fact = failure.call.fact("fd")
    path = "" if fact is None else str(fact.info.get("path", ""))
    name = path.rpartition("/")[2]
    if name not in FILES:
        return []
    lines = [line.strip() for line in text_of(failure.call.args.get("buf")).splitlines()]
    for line in lines[:LINES]:
        if line and len(line) < LONGEST:
            said = failure.now(f"error_log {line}") or _unlogged(failure, name, line)
            if said:
                return said.splitlines()[:1] + _where(line, said)
    return []


def _where(line: str, said: str) -> list[str]:
    """The whole line, and the place in it that the kernel points to."""
    column = said.partition("\n")[2]
    at = int(column) if column.isdecimal() and len(column) < 5 else None
    return [line] if at is None or at > len(line) else [line, " " * at + "^"]


def _unlogged(failure: Failure, name: str, line: str) -> str:
    gone = re.match(_GONE, line)
    if gone and failure.errno == errno.ENOENT:
        return f"there is no event {gone[1]}"
    found = re.match(_UPROBE, line) if name == "uprobe_events" else None
    if found and failure.errno == errno.EINVAL:
        offset = found[1].rpartition(":")[2]
        if ":" not in found[1] or not offset[:1].isdigit():
            return f"{found[1]} is not a path, a colon and a number"
    return ""
