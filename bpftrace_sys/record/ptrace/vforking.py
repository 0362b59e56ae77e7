"""Signals that a traced process does not notice while it waits for the child of a vfork.

Untraced it dies of them at once: the kernel makes a SIGKILL of a signal whose default action
is to end the process, and a vfork's wait ends with nothing else. Of a traced process's signals
it makes none, for the tracer is to hear of them first (complete_signal() in kernel/signal.c).
"""

from __future__ import annotations

import os

from bpftrace_sys.record.proc import status
from decoders import arch as arches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_WAITS: Final = frozenset(
    numbers[name]
    for numbers in arches.NUMBERS.values()
    for name in ("vfork", "clone", "clone3")
    if name in numbers
)


def is_deaf(pid: int, number: int) -> bool:
    """Whether all threads of a process wait so, and none blocks, ignores or handles the signal,
    whose default action is to end it."""
    try:
        tids = os.listdir(f"/proc/{pid}/task")
        return all(_waits(f"{pid}/task/{tid}", number) for tid in tids)
    except (OSError, ValueError, LookupError):
        return False  # it has ended, or we may not know


def _waits(task: str, number: int) -> bool:
    fields = status(task)
    if not fields["State"].startswith("D"):
        return False
    bit = 1 << (number - 1)
    if any(int(fields[name], 16) & bit for name in ("SigBlk", "SigIgn", "SigCgt")):
        return False
    with open(f"/proc/{task}/syscall", "rb", buffering=0) as file:
        return int(file.read(64).split()[0]) & ~arches.X32_BIT in _WAITS
