"""Why something on the machine could not be seen, and what would help, in a sentence."""

from __future__ import annotations

import errno
import os
from typing import Final

from bpftrace_sys.trace.inventory import Unseen

INIT_PID_NS: Final = 0xEFFFFFFC
"""The inode of the first pid namespace (PROC_PID_INIT_INO, include/linux/proc_ns.h)."""
NAMES: Final = {"prog": "programs", "map": "maps", "link": "links", "btf": "BTF"}
SINCE: Final = {"btf": "4.18", "link": "5.8"}
"""The kernels from which on objects of a kind are listed by id."""
REFUSED: Final = frozenset({errno.EPERM, errno.EACCES})


def because(number: int, needs: str = "root") -> str:
    """An errno in words, and what it takes where we may not."""
    text = os.strerror(number)
    return f"{text}: it takes {needs}" if number in REFUSED else text


def kind_unlisted(kind: str, number: int) -> Unseen:
    """The kernel does not list objects of a kind to us."""
    if number == errno.EINVAL:
        return Unseen(NAMES[kind], f"this kernel does not list them (Linux {SINCE[kind]} does)")
    return Unseen(f"{NAMES[kind]} of others", because(number, "CAP_SYS_ADMIN to list them by id"))


def processes_refused(count: int) -> Unseen:
    """Processes whose fds we may not see."""
    what = "processes" if count != 1 else "process"
    why = "another user's: it takes root" if os.geteuid() else "we may not, though we are root"
    return Unseen(f"what {count} {what} have open", why, count)


def beyond_the_namespace() -> Unseen | None:
    """Processes outside of our pid namespace, if there may be any."""
    try:
        if os.stat("/proc/self/ns/pid").st_ino == INIT_PID_NS:
            return None
    except OSError:
        return None
    return Unseen("processes outside of this pid namespace", "/proc shows those in it only")


def gone(kind: str, count: int) -> Unseen:
    """Objects that were there when listed, and were not when asked for."""
    return Unseen(f"{count} {NAMES[kind]}", "gone before we had looked", count)
