"""Mounted file systems, as /proc/PID/mountinfo shows them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_OCTAL: Final = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mount: the device's number, what part of the file system, where, and what kind."""

    device: str
    root: str
    path: str
    kind: str


def mounts(pid: int | None = None) -> list[Mount]:
    """The mounts that a process sees (None: we); raises OSError."""
    found = []
    with open(f"/proc/{pid or 'self'}/mountinfo", "rb") as file:
        for line in file:
            # proc(5): id parent major:minor root path options ... - kind source options
            head, _, tail = line.partition(b" - ")
            words, kind = head.split(), tail.split()
            if len(words) >= 5 and kind:
                found.append(Mount(*map(_unescaped, (words[2], words[3], words[4], kind[0]))))
    return found


def _unescaped(word: bytes) -> str:
    text = _OCTAL.sub(lambda found: bytes([int(found[1], 8) & 255]), word)
    return text.decode("utf-8", "surrogateescape")
