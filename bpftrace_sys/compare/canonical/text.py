"""Texts without what differs from run to run, and references to objects in them.

An object is ``ref(number)`` until it has its name.  Text of the tracee's cannot hold
one: it has no control characters left (see ``escaped``).
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final

from bpftrace_sys.story.targets import printable
from decoders.digests import sha256_of

LINES_LIMIT: Final = 100_000
"""Lines of a log that are kept."""
BYTES_SHOWN: Final = 64
"""Longer bytes are shown by size and hash."""

_REF: Final = re.compile("\0([0-9]+)\0")


def ref(number: int) -> str:
    """A reference to an object, in a text."""
    return f"\0{number}\0"


def refs(text: str) -> list[int]:
    """The objects that a text speaks of."""
    return [int(number) for number in _REF.findall(text)]


def escaped(text: str) -> str:
    """The tracee's text on one line, with nothing that a terminal obeys."""
    return printable(text)


_STABLE: Final = (
    (re.compile(r"/proc/\d+"), "/proc/PID"),
    (re.compile(r"\b(socket|pipe|anon_inode|mnt|net|pid|user|cgroup):\[\d+\]"), r"\1:[inode]"),
    (re.compile(r"\b(prog|map|btf|link|BTF) id \d+"), r"\1"),
    (re.compile(r"\bid=\d+"), ""),
    (re.compile(r"\bfd \d+"), "fd"),
    # What Python's tempfile and mktemp(1) call their files.
    (re.compile(r"(?<=/)tmp(?:[a-z0-9_]{8}|\.[A-Za-z0-9]{10})(?![\w.])"), "tmpNAME"),
    # Probes that loaders define through tracefs carry their pid.
    (re.compile(r"\b((?:libbpf|bcc|bpftrace)_)\d+(?!\d)"), r"\1PID"),
)
_NUMBER: Final = re.compile(r"(?<![0-9A-Za-z])[1-9][0-9]{2,9}(?![0-9A-Za-z])")
"""A number that stands by itself.  Of three digits at least: x86_64 is no pid."""


def stable(text: str, pids: Container[int] = ()) -> str:
    """A path or target without the ids, fds and inodes in it, nor those ``pids``."""
    for pattern, to in _STABLE:
        text = pattern.sub(to, text)
    if pids:
        # Programs name what they make after themselves: /sys/fs/bpf/tool.1234
        text = _NUMBER.sub(
            lambda found: "PID" if int(found[0]) in pids else found[0], text
        )
    return text.rstrip()


_LOG_TIME: Final = re.compile(rb"verification time \d+ usec")


def log_lines(data: bytes) -> list[str]:
    """A verifier's log, without its times."""
    text = _LOG_TIME.sub(b"verification time", data).decode("utf-8", "backslashreplace")
    lines = text.removesuffix("\n").split("\n", LINES_LIMIT)
    rest = lines.pop() if len(lines) > LINES_LIMIT else None
    found = [escaped(line.replace("\t", "    ")) for line in lines]
    if rest is not None:
        found.append(f"... {rest.count(chr(10)) + 1} more lines, which are not compared")
    return found if text else []


def digest(data: bytes) -> str:
    """Bytes in hex; of many, the size and a hash."""
    if len(data) <= BYTES_SHOWN:
        return data.hex(" ") or "(empty)"
    return f"{len(data)} bytes, sha256 {sha256_of(data).hex()[:32]}"
