"""A thread's user ids, capabilities and namespaces, as a fact about a refused call."""

from __future__ import annotations

import os
from typing import Final

from bpftrace_sys.record.proc import status
from decoders.raw import Cred

INIT_USER_NS: Final = 0xEFFFFFFD
"""The inode of the first user namespace (include/linux/proc_ns.h)."""


def credentials(tid: int) -> Cred:
    """What counts for permission."""
    found = Cred()
    try:
        fields = status(tid)
        found = Cred(int(fields["Uid"].split()[1]), fields["CapEff"])
        inode = os.stat(f"/proc/{tid}/ns/user").st_ino
    except (OSError, LookupError, ValueError):
        return found
    return found if inode == INIT_USER_NS else found._replace(userns=inode)
