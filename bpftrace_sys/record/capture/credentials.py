"""A thread's user ids, capabilities and namespaces, as a fact about a refused call."""

from __future__ import annotations

import os
from typing import Final

INIT_USER_NS: Final = 0xEFFFFFFD
"""The inode of the first user namespace (include/linux/proc_ns.h)."""


def credentials(tid: int) -> dict[str, object]:
    """What counts for permission: ``eff`` (CapEff in hex), ``uid`` (the effective
    one), ``userns`` if not the first one."""
    found: dict[str, object] = {}
    try:
        with open(f"/proc/{tid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Uid:"):
                    found["uid"] = int(line.split()[2])
                elif line.startswith(b"CapEff:"):
                    found["eff"] = line[7:].strip().decode("ascii")
                    break
        inode = os.stat(f"/proc/{tid}/ns/user").st_ino
    except (OSError, ValueError):
        return found
    if inode != INIT_USER_NS:
        found["userns"] = inode
    return found
