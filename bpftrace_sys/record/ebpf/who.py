"""Who a process is: what the kernel's record lacks is looked up while it is there."""

from __future__ import annotations

from typing import Any

from bpftrace_sys.record.ebpf.cgroups import Cgroups, cgroup_of, container
from bpftrace_sys.record.ebpf.records import Who


def details(who: Who, cgroups: Cgroups) -> dict[str, Any]:
    """Of a ProcessEvent ``who``: comm, exe, argv, uid, parent, cgroup_id; and where they are
    known cgroup, container."""
    found: dict[str, Any] = {
        "comm": who.comm,
        "argv": list(who.argv),
        "uid": who.uid,
        "parent": who.parent,
        "cgroup_id": who.cgroup,
    }
    if who.exe:
        found["exe"] = who.exe
    # By its process where that is still there: it knows cgroup1, too.
    cgroup = cgroup_of(who.pid) or cgroups.path(who.cgroup)
    if cgroup is not None:
        found["cgroup"] = cgroup
        inside = container(cgroup)
        if inside is not None:
            found["container"] = inside
    return found
