"""Which of the tracer's own signals a spawned process gets by itself.

``kill -- -PGID``, timeout(1) and a shell's ``kill %1`` signal a whole process group: the
tracer and its tracees each get the signal once. What was sent to the tracer alone is
passed on; what reaches the tracee by itself must not be, or it would come twice.

A signal to a group is sent by the kernel to one member after the other, while it holds
tasklist_lock for reading. So once we had that lock for writing, the tracee has the signal
if it was among those meant: it is pending, or in the stop before its delivery. If we are
told of that stop before we look at our own signals, we look at them then, before it ends.
"""

from __future__ import annotations

import os

from bpftrace_sys.common.light import suppress
from bpftrace_sys.record.ptrace import requests as px

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def comes_by_itself(pid: int, tids: Iterable[int], number: int, sender: int) -> bool:
    """Whether what the tracer got from ``sender`` has been sent to the process ``pid`` as
    well, which has the threads ``tids``, and is not delivered yet."""
    barrier()
    # In this order: a signal goes from pending to the stop at once, under a lock that
    # the reading of what is pending takes, too.
    return _pending(pid, number) or any(_stopped_for(tid, number, sender) for tid in tids)


def barrier() -> None:
    """Returns when no signal to a process group is half sent."""
    # setpgid takes tasklist_lock for writing before all else, and changes nothing here:
    # it fails for the leader of a session, and is no news for others.
    with suppress(OSError):
        os.setpgid(0, os.getpgrp())


def _pending(pid: int, number: int) -> bool:
    from bpftrace_sys.record.proc import status

    try:
        pending = status(pid)["ShdPnd"]
    except (OSError, LookupError):
        return False
    return bool(int(pending, 16) >> (number - 1) & 1)


def _stopped_for(tid: int, number: int, sender: int) -> bool:
    try:
        what, _, who = px.siginfo(tid)
    except OSError:
        return False  # it runs, or has ended
    return what == number and who == sender
