"""Seccomp's strict mode, in place of the kernel's, which refuses it to whoever has a filter.

A tracee that carries our filter would be told EINVAL where without us it would be confined
to read, write, exit and sigreturn (__secure_computing_strict() in kernel/seccomp.c). So the
call is said to have worked, each later call stops, and one that is not allowed is the end of
the process. Two things are not as with the kernel's: it ends whole, where of several threads
one would; and the time stamp counter can still be read.
"""

from __future__ import annotations

import os
import signal

from decoders import arch as arches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from bpftrace_sys.record.ptrace.tracee import Tracee

_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_STRICT: Final = 1

# read, write, exit, sigreturn; on x86-64 also uretprobe and uprobe, which are the kernel's own.
_ALLOWED: Final = {
    arches.AUDIT_ARCH_X86_64: frozenset({0, 1, 60, 15, 335, 336}),
    arches.AUDIT_ARCH_I386: frozenset({3, 4, 1, 119}),
    arches.AUDIT_ARCH_AARCH64: frozenset({63, 64, 93, 139}),
}


def is_wanted(called: str, args: Sequence[int]) -> bool:
    """Whether this prctl or seccomp asks for strict mode, and would get it."""
    if called == "prctl":
        return args[0] & 0xFFFFFFFF == _PR_SET_SECCOMP and args[1] == _SECCOMP_MODE_STRICT
    # SECCOMP_SET_MODE_STRICT takes neither flags nor an argument.
    return args[0] & 0xFFFFFFFF == 0 and args[1] & 0xFFFFFFFF == 0 and args[2] == 0


def hindered_by_us(tracee: Tracee) -> bool:
    """Whether it is our filter alone that stands in the way."""
    from bpftrace_sys.record.ptrace.refusals import status_number

    if tracee.attached or status_number(tracee.tid, "Seccomp") != 2:
        return False
    # Seccomp_filters is of Linux 5.9. Before, who has one of its own stops at every call.
    filters = status_number(tracee.tid, "Seccomp_filters")
    if filters is None:
        return not tracee.every_call
    return filters == (status_number(os.getpid(), "Seccomp_filters") or 0) + 1


def confine(tracee: Tracee, arch: int, nr: int) -> None:
    """At the entry of a call of a tracee in strict mode."""
    if nr not in _ALLOWED.get(arch, ()):
        os.kill(tracee.pid, signal.SIGKILL)
