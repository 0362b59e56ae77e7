"""Who a process is: what the kernel's record lacks is looked up while it is there."""

from __future__ import annotations

from bpftrace_sys.record.ebpf.cgroups import Cgroups, container
from bpftrace_sys.record.ebpf.records import WhoRecord
from bpftrace_sys.record.proc import cgroup_of
from decoders.events import Who


def who_is(record: WhoRecord, cgroups: Cgroups) -> Who:
    """What the record says, and the cgroup where it is known."""
    # By its process where that is still there: it knows cgroup1, too.
    cgroup = cgroup_of(record.pid) or cgroups.path(record.cgroup)
    return Who(
        comm=record.comm,
        argv=record.argv,
        uid=record.uid,
        parent=record.parent,
        cgroup_id=record.cgroup,
        exe=record.exe or None,
        cgroup=cgroup,
        container=None if cgroup is None else container(cgroup),
    )
