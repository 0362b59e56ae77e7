"""Which files of its start the tracer keeps: those that it writes to.

A program under bpfstrace has the files that bpfstrace was started with, and bpfstrace has
them, too. While the tracer keeps one, the other end of a pipe does not learn that the program
has closed it: `x=$(bpfstrace -D ...)` would wait for the tracer, not for the program.
"""

from __future__ import annotations

import os

from bpftrace_sys.common.light import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection


def let_go(writes: Collection[int]) -> None:
    """To be called when the program has its own. ``writes``: fds that are written to; stderr is
    kept, too, for messages. stdin and stdout become /dev/null, so that nothing else will ever
    have their numbers; what else we were started with is closed."""
    keeps = {2, *writes}
    with suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in {0, 1} - keeps:
            os.dup2(null, fd)
        if null > 2:
            os.close(null)
        for name in os.listdir("/proc/self/fd"):
            # Whatever we open is closed by an execve, as what we were started with was not.
            with suppress(OSError):
                fd = int(name)
                if fd > 2 and fd not in keeps and os.get_inheritable(fd):
                    os.close(fd)
