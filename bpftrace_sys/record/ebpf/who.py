"""Who a process is: what its kernel's record lacks is read from /proc while it is there."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from bpftrace_sys.record.ebpf.cgroups import cgroup_of, container
from bpftrace_sys.record.ebpf.records import Who


def details(who: Who) -> dict[str, Any]:
    """Of a ProcessEvent ``who``: comm, argv, uid, parent, cgroup_id; and where it could be
    read in time exe, cgroup, container."""
    found: dict[str, Any] = {
        "comm": who.comm,
        "argv": list(who.argv),
        "uid": who.uid,
        "parent": who.parent,
        "cgroup_id": who.cgroup,
    }
    with contextlib.suppress(OSError):
        found["exe"] = os.readlink(f"/proc/{who.pid}/exe")
    cgroup = cgroup_of(who.pid)
    if cgroup is not None:
        found["cgroup"] = cgroup
        inside = container(cgroup)
        if inside is not None:
            found["container"] = inside
    return found
