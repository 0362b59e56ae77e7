"""Who holds a BPF object: processes with an fd of it, and pins."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

from bpftrace_sys.record.files.walk import walk
from bpftrace_sys.record.machine.bpf import bpf
from bpftrace_sys.record.machine.fds import FdLookup
from decoders.raw import FdFact
from decoders.uapi import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


SCANNED: Final = 1 << 16


def holders(but: int) -> dict[tuple[str, int], list[tuple[int, str]]]:
    """Who has which BPF objects open: by (kind, id), (pid, comm) of each process but one.

    Looks at no more than SCANNED fds.
    """
    from bpftrace_sys.record.machine.processes import scan

    found: dict[tuple[str, int], list[tuple[int, str]]] = {}
    seen = scan(but=but, events=False, where=False, limit=SCANNED)
    for each in seen.opens:
        if each.fact.id is not None:
            known = found.setdefault((each.fact.kind, each.fact.id), [])
            if not known or known[-1][0] != each.pid:
                known.append((each.pid, seen.processes[each.pid].comm))
    return found


def fact_once(tid: int, fd: int, stage: int) -> FdFact | None:
    """Like FdLookup.fact, keeping nothing."""
    lookup = FdLookup()
    with contextlib.closing(lookup):
        return lookup.fact(tid, fd, stage)


def pinned(path: str) -> tuple[str, int] | None:
    """Kind and id of what is pinned at a path, None where nothing is that we can see."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    attr = ctypes.create_string_buffer(struct.pack("<QII", ctypes.addressof(name), 0, 0), 16)
    try:
        fd = bpf(const.BPF_OBJ_GET, attr)
    except OSError:
        return None
    try:
        fact = fact_once(os.getpid(), fd, 0)
    finally:
        os.close(fd)
    return None if fact is None or fact.id is None else (fact.kind, fact.id)


def is_pinned(path: str, kind: str, number: int) -> bool:
    """Whether an object is pinned at a path, as we see it, that a program may have chosen."""
    pid = os.getpid()
    root = f"/proc/{pid}/root"
    try:
        with walk(pid, root, f"/proc/{pid}/cwd", path) as place:
            return place.answers and pinned(place.link) == (kind, number)
    except (OSError, ValueError):
        return False
