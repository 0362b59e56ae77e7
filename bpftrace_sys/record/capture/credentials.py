"""A thread's user ids, capabilities and namespaces, as a fact about a refused call."""

from __future__ import annotations

import os
from typing import Final

from decoders.raw import Cred

INIT_USER_NS: Final = 0xEFFFFFFD
"""The inode of the first user namespace (include/linux/proc_ns.h)."""


def credentials(tid: int) -> Cred:
    """What counts for permission."""
    found = Cred()
    try:
        with open(f"/proc/{tid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"Uid:"):
                    found = found._replace(uid=int(line.split()[2]))
                elif line.startswith(b"CapEff:"):
                    found = found._replace(eff=line[7:].strip().decode("ascii"))
                    break
        inode = os.stat(f"/proc/{tid}/ns/user").st_ino
    except (OSError, ValueError):
        return found
    return found if inode == INIT_USER_NS else found._replace(userns=inode)
