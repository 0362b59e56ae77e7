"""What tracing begins with where more is asked for than to run a program: -p, --same-cpu."""

from __future__ import annotations

import os

from bpftrace_sys.record.ptrace.errors import AttachError
from bpftrace_sys.render.output import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from bpftrace_sys.record.ptrace.engine import Engine


def attach(engine: Engine, pids: Sequence[int], alone: bool) -> None:
    """Attaches to those that are there, and says why not to the others. Raises AttachError
    where none is left and there is nothing else to trace (``alone``)."""
    for index, pid in enumerate(pids, 1):
        try:
            engine.attach(pid)
        except AttachError as error:
            if alone and index == len(pids) and not engine.tracees:
                raise
            complain(str(error))


def bind_to_this_cpu() -> None:
    """From now on this process, and those that it starts, stay on the CPU that it runs on."""
    with open("/proc/self/stat", "rb", buffering=0) as file:
        # proc(5): the 39th field; the second one's parenthesis may hold anything.
        cpu = int(file.read(4096).rpartition(b")")[2].split()[36])
    try:
        os.sched_setaffinity(0, {cpu})
    except OSError as error:
        complain(f"--same-cpu: cannot bind to CPU {cpu}: {error.strerror}; goes on without")
