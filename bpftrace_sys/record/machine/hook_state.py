"""What stands at a hook where something was just refused: asked in the exit stop of that call.

Afterwards it may be otherwise: the caller ends, and its links with it.
"""

from __future__ import annotations

import os
from typing import Final

from bpftrace_sys.record.machine.netdev import IFLA_XDP, in_netns, link_attributes
from bpftrace_sys.record.machine.network import xdp_programs
from bpftrace_sys.record.machine.prog_query import Query
from decoders.formats.netlink import attributes
from decoders.uapi import const, names

LEVELS: Final = 64
"""Cgroups above each other that are looked at."""
MPROG: Final = frozenset(
    {
        const.BPF_TCX_INGRESS,
        const.BPF_TCX_EGRESS,
        const.BPF_NETKIT_PRIMARY,
        const.BPF_NETKIT_PEER,
    }
)


def state(tid: int, attach_type: int, target: int, folder: int | None) -> str | None:
    """What is attached where a thread wanted to attach; None where nobody can tell.

    ``target``: the ifindex, in the thread's network namespace; ``folder``: an fd of the cgroup.
    """
    try:
        if attach_type == const.BPF_XDP:
            return in_netns(tid, lambda: of_xdp(target))
        if attach_type in MPROG:
            return in_netns(tid, lambda: of_mprog(target, attach_type))
        name = names.bpf_attach_type.get(attach_type, "")
        if folder is not None and (name.startswith("BPF_CGROUP_") or name == "BPF_LSM_CGROUP"):
            return of_cgroups(folder, attach_type)
    except OSError:
        pass
    return None


def progs_in(found: str, attach_type: int) -> list[int]:
    """The ids of the programs that an answer of :func:`state` names."""
    if attach_type == const.BPF_XDP:
        texts = [word.partition(":")[2] for word in found.split()]
    elif attach_type in MPROG:
        texts = found.partition(" ")[2].split(",")
    else:
        texts = [text for line in found.splitlines() for text in line.split(" ")[2].split(",")]
    return [int(text) for text in texts if text]


def of_cgroups(folder: int, attach_type: int) -> str:
    """What is attached to a cgroup and to those above: ``LEVEL FLAGS IDS PATH``, a line each.

    Level 0 is the cgroup itself; those with nothing attached have no line. Raises OSError.
    """
    query = Query()
    lines = []
    here = os.dup(folder)
    try:
        for level in range(LEVELS):
            found = query(here, attach_type)
            if found.prog_ids:
                ids = ",".join(map(str, found.prog_ids))
                path = os.readlink(f"/proc/self/fd/{here}")
                lines.append(f"{level} {found.attach_flags} {ids} {path}")
            above = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
            outside = os.fstat(above).st_dev != os.fstat(here).st_dev
            os.close(here)
            here = above
            if outside:
                break
    finally:
        os.close(here)
    return "\n".join(lines)


def of_mprog(ifindex: int, attach_type: int) -> str | None:
    """``REVISION IDS``: which programs a device's hook has, in order."""
    try:
        found = Query()(ifindex, attach_type, links=True)
    except OSError:
        return None
    return f"{found.revision} {','.join(map(str, found.prog_ids))}"


def of_xdp(ifindex: int) -> str | None:
    """The XDP programs of a device, by mode: ``skb:12 drv:13``."""
    found = link_attributes(ifindex)
    if found is None:
        return None
    nested = dict(attributes(found)).get(IFLA_XDP, b"")
    return " ".join(f"{mode}:{prog}" for mode, prog in xdp_programs(nested))
