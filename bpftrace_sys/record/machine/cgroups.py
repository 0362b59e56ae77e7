"""Programs on cgroups: a walk over the unified hierarchy, asking each cgroup for each hook."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Final

from bpftrace_sys.record.files.mounts import mounts
from bpftrace_sys.record.machine.prog_query import Query
from bpftrace_sys.trace.inventory import Place
from bpftrace_sys.trace.kernel_fields import Info
from decoders.records import dataclass, field
from decoders.uapi import names

CGROUPS: Final = 1 << 17
"""Cgroups that are looked at."""
HOOKS: Final = tuple(
    number
    for number, name in names.bpf_attach_type.items()
    if "CGROUP" in name and name != "BPF_CGROUP_ITER"
)
"""Attach types of cgroups: BPF_CGROUP_* and BPF_LSM_CGROUP."""
INIT_CGROUP_NS: Final = 0xEFFFFFFB
"""The inode of the first cgroup namespace (PROC_CGROUP_INIT_INO, include/linux/proc_ns.h)."""


@dataclass(slots=True)
class Cgroups:
    """What was found, and what could not be looked at."""

    paths: dict[int, str] = field(default_factory=dict)
    """A cgroup's id (its folder's inode) -> its folder."""
    progs: list[tuple[int, Place]] = field(default_factory=list)
    """(program's id, where)."""
    denied: int = 0
    """Cgroups that we may not ask about."""
    error: int = 0
    """Why, as an errno."""
    mounted: bool = False
    partial: bool = False
    """We are in a cgroup namespace: what is outside is not shown to us."""
    cut: bool = False


def cgroups(ask: bool = True) -> Cgroups:
    """Looks at all cgroups; ``ask``: also for what is attached to them."""
    found = Cgroups()
    try:
        top = next((mount.path for mount in mounts() if mount.kind == "cgroup2"), None)
        found.partial = os.stat("/proc/self/ns/cgroup").st_ino != INIT_CGROUP_NS
    except OSError:
        return found
    if top is None:
        return found
    found.mounted = True
    query = Query()
    hooks = list(HOOKS)
    for path, inode in _folders(top):
        if len(found.paths) >= CGROUPS:
            found.cut = True
            break
        found.paths[inode] = path
        if ask:
            _ask(path, inode, query, hooks, found)
    return found


def _ask(path: str, inode: int, query: Query, hooks: list[int], found: Cgroups) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        found.denied += 1
        found.error = error.errno or 0
        return
    try:
        for hook in list(hooks):
            try:
                answer = query(fd, hook)
            except OSError as error:
                if error.errno == errno.EINVAL:  # this kernel has no such hook
                    hooks.remove(hook)
                    continue
                found.denied += 1
                found.error = error.errno or 0
                return
            for prog in answer.prog_ids:
                info = Info({"cgroup_id": inode, "attach_type": hook, "path": path})
                if answer.attach_flags:
                    info["attach_flags"] = answer.attach_flags
                found.progs.append((prog, Place("cgroup", info)))
    finally:
        os.close(fd)


def _folders(top: str) -> Iterator[tuple[str, int]]:
    """Each folder and its inode, those above first."""
    try:
        todo = [(top, os.stat(top).st_ino)]
    except OSError:
        return
    while todo:
        path, inode = todo.pop()
        yield path, inode
        try:
            with os.scandir(path) as entries:
                inside = [
                    (entry.path, entry.inode())
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False)
                ]
        except OSError:
            continue
        todo += sorted(inside, reverse=True)
