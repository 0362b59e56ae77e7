"""A process's cgroup, by its id or its number; and which container that is."""

from __future__ import annotations

import os
import re
import time
from typing import Final

from bpftrace_sys.record.files.mounts import mounts
from bpftrace_sys.record.machine.cgroups import cgroups

_CONTAINER: Final = re.compile(r"(?:^|[/:-])([0-9a-f]{64}|[0-9a-f]{32})(?:\.scope)?(?=/|$)")
"""Docker, containerd, CRI-O and podman name a container's cgroup by its id: ``docker-ID.scope``,
``cri-containerd-ID.scope``, ``libpod-ID.scope``, or just ``ID``."""
PAUSE: Final = 1.0
"""Seconds between two searches."""


def root_of(path: str) -> str | None:
    """The mount point of cgroup2 below which a path is; raises OSError."""
    real = os.path.realpath(path)
    for mount in mounts():
        root = mount.path
        if mount.kind == "cgroup2" and (real == root or real.startswith(root.rstrip("/") + "/")):
            return root
    return None


class Cgroups:
    """Paths of cgroups by their ids: a cgroup mostly outlives the processes in it."""

    def __init__(self) -> None:
        self._paths: dict[int, str] = {}
        self._looked = 0.0

    def path(self, cgroup_id: int) -> str | None:
        """The path below the mount of cgroup2; None where there is none of that id."""
        if cgroup_id not in self._paths and time.monotonic() - self._looked > PAUSE:
            found = cgroups(ask=False).paths
            top = min(found.values(), key=len, default="")
            self._paths = {
                inode: path.removeprefix(top) or "/" for inode, path in found.items()
            }
            self._looked = time.monotonic()
        return self._paths.get(cgroup_id)


def container(cgroup: str) -> str | None:
    """The id of the container that a cgroup's path names; None where it names none."""
    found = _CONTAINER.findall(cgroup)
    return found[-1] if found else None
