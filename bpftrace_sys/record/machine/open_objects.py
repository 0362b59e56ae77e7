"""What can be told of an object by somebody's fd, where its id may not be asked."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Final

from bpftrace_sys.record.machine import bpf
from bpftrace_sys.record.machine.fds import FdLookup
from bpftrace_sys.record.machine.object_info import info_of, link_way
from bpftrace_sys.record.machine.processes import Open
from bpftrace_sys.trace.kernel_fields import Info
from decoders.raw import FdFact
from decoders.uapi import names


def by_fd(opened: Open) -> Info:
    """What can be told of an object by a process's fd: its info, or else what fdinfo has."""
    with contextlib.suppress(OSError, ValueError), contextlib.closing(FdLookup()) as lookup:
        copy = lookup.duplicate(opened.tid, opened.fact.fd)
        try:
            return info_of(opened.fact.kind, copy)
        finally:
            os.close(copy)
    return from_fdinfo(opened.fact)


RENAMED: Final = {
    "prog_type": "type", "prog_tag": "tag", "map_type": "type", "link_type": "type",
}  # fmt: skip
LEFT_OUT: Final = frozenset({"prog_jited", "map_id", "btf_id", "link_id"})
OLD_WORDS: Final = {"perf": "perf_event"}
"""fdinfo's word for a link's type, where it is older than the others'."""


def from_fdinfo(fact: FdFact) -> Info:
    """fdinfo in the words of bpf_*_info."""
    found = Info()
    for name, value in fact.info.items():
        if name in LEFT_OUT or (name == "prog_id" and fact.kind == "prog") or value == 0:
            continue
        found[RENAMED.get(name, name)] = value
    if fact.kind == "link" and "type" in found:
        word = OLD_WORDS.get(str(found["type"]), str(found["type"]))
        numbers = {link_way(number): number for number in names.bpf_link_type}
        found["type"] = numbers.get(word, word)
    return found


def event_info(opened: Open) -> Info:
    """What is known of a perf event: what BPF_TASK_FD_QUERY tells, and where it is open."""
    info = Info(
        (name, value)
        for name, value in opened.fact.info.items()
        if name not in ("path", "perf_event_id") and value
    )
    if not info.get("attached_prog") and program_unnamed(opened):
        info["program"] = "perf_event"
    info |= {"pid": opened.pid, "fd": opened.fact.fd}
    return info


def program_unnamed(opened: Open) -> bool:
    """Whether a perf event has a program of the type perf_event, whose id the kernel does not tell.

    bpf_get_perf_event_info() has ENOENT for none, EOPNOTSUPP for one of that type.
    """
    try:
        bpf.query_task_fd(opened.tid, opened.fact.fd)
    except OSError as error:
        return error.errno == errno.EOPNOTSUPP
    return False
