"""A process's cgroup, by its id or its number; and which container that is."""

from __future__ import annotations

import contextlib
import os
import re
import time
from itertools import islice
from typing import Final

_CONTAINER: Final = re.compile(r"(?:^|[/:-])([0-9a-f]{64}|[0-9a-f]{32})(?:\.scope)?(?=/|$)")
"""Docker, containerd, CRI-O and podman name a container's cgroup by its id: ``docker-ID.scope``,
``cri-containerd-ID.scope``, ``libpod-ID.scope``, or just ``ID``."""

PAUSE: Final = 1.0
"""Seconds between two searches."""
FOLDERS: Final = 4_096
"""Cgroups that are looked at in one."""


def mounts() -> list[str]:
    """Where cgroup2 is mounted."""
    found = []
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                if after.startswith("cgroup2 "):
                    found.append(before.split()[4])
    except OSError:
        pass
    return found


def root_of(path: str) -> str | None:
    """The mount point of cgroup2 below which a path is."""
    real = os.path.realpath(path)
    for root in mounts():
        if real == root or real.startswith(root.rstrip("/") + "/"):
            return root
    return None


def cgroup_of(pid: int) -> str | None:
    """The path of a process's cgroup in cgroup2; of cgroup1 the longest. None: it is gone."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
    unified = [line[2] for line in lines if len(line) == 3 and line[0] == "0"]
    if unified and unified[0] not in ("", "/"):
        return unified[0]
    others = [line[2] for line in lines if len(line) == 3]
    return max(others, key=len, default=None)


class Cgroups:
    """Paths of cgroups by their ids: a cgroup mostly outlives the processes in it."""

    def __init__(self) -> None:
        self._paths: dict[int, str] = {}
        self._looked = 0.0

    def path(self, cgroup_id: int) -> str | None:
        """The path below the mount of cgroup2; None where there is none of that id."""
        if cgroup_id not in self._paths and time.monotonic() - self._looked > PAUSE:
            self._paths.clear()
            for root in mounts()[:1]:
                for folder, _, _ in islice(os.walk(root), FOLDERS):
                    with contextlib.suppress(OSError):
                        inode = os.stat(folder).st_ino
                        self._paths[inode] = folder.removeprefix(root) or "/"
            self._looked = time.monotonic()
        return self._paths.get(cgroup_id)


def container(cgroup: str) -> str | None:
    """The id of the container that a cgroup's path names; None where it names none."""
    found = _CONTAINER.findall(cgroup)
    return found[-1] if found else None
