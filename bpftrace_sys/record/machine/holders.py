"""Who holds a BPF object: processes with an fd of it, and pins."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct

from bpftrace_sys.record.machine.bpf import bpf
from bpftrace_sys.record.machine.fds import FdLookup
from decoders.raw import FdFact
from decoders.uapi import const

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


_BPF_LINKS: Final = ("anon_inode:bpf", "anon_inode:[bpf")
"""How the links of BPF fds read: bpf-prog, bpf-map, bpf_link, [bpf_link]."""
SCANNED: Final = 1 << 16


def holders(but: int) -> dict[tuple[str, int], list[tuple[int, str]]]:
    """Who has which BPF objects open: by (kind, id), (pid, comm) of each process but one.

    Looks at no more than SCANNED fds.
    """
    found: dict[tuple[str, int], list[tuple[int, str]]] = {}
    left = SCANNED
    lookup = FdLookup(max_open=1)
    with contextlib.closing(lookup):
        for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
            try:
                fds = os.listdir(f"/proc/{pid}/fd") if pid != but else []
            except OSError:
                continue
            for fd in fds[:left]:
                left -= 1
                fact = _bpf_fact(lookup, pid, int(fd))
                if fact is not None and fact.id is not None:
                    known = found.setdefault((fact.kind, fact.id), [])
                    if not known or known[-1][0] != pid:
                        known.append((pid, _comm(pid)))
    return found


def _bpf_fact(lookup: FdLookup, pid: int, fd: int) -> FdFact | None:
    try:
        if not os.readlink(f"/proc/{pid}/fd/{fd}").startswith(_BPF_LINKS):
            return None
    except OSError:
        return None
    return lookup.fact(pid, fd, 0)


def _comm(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="backslashreplace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return "?"


def fact_once(tid: int, fd: int, stage: int) -> FdFact | None:
    """Like FdLookup.fact, keeping nothing."""
    lookup = FdLookup()
    with contextlib.closing(lookup):
        return lookup.fact(tid, fd, stage)


def pinned(path: str) -> tuple[str, int] | None:
    """Kind and id of what is pinned at a path, None where nothing is that we can see."""
    from bpftrace_sys.record.machine.holders import fact_once

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
