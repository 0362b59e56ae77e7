"""What strace has and bpfstrace has not: refused by name, with what to use instead."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

UNSUPPORTED: Final = {
    "-b, --detach-on": "tracees are never let go before they end; -p and Ctrl-C detach",
    "-F": "strace has deprecated it; -f follows forks",
    "-i, --instruction-pointer": "instruction pointers are not shown",
    "-n, --syscall-number": "system calls are named, not numbered; --json has both",
    "-x, --strings-in-hex": "bytes that are no text are in hex already",
    "--read": "data that is read is not dumped; strace -e read= does that",
    "--write": "data that is written is not dumped; strace -e write= does that",
    "--kvm": "bpfstrace knows nothing of KVM; strace -e kvm=vcpu does",
    "--trace-fds": "calls are not chosen by their fds; -P PATH and -e prog=NAME choose",
    "--pidns-translation": "ids are shown as bpfstrace's own PID namespace has them",
    "--namespace": "namespaces are not shown",
    "--secontext": "SELinux contexts are not shown",
    "--tips": "there are none; docs/usage.md has what there is to know",
}
"""Options, as ``-LETTER, --NAME``; ``--NAME=SET`` is also ``-e NAME=SET``."""

QUALIFIERS: Final = {
    short: f"--{long}"
    for long, shorts in {
        "read": ("read", "reads", "r"),
        "write": ("write", "writes", "w"),
        "kvm": ("kvm",),
        "trace-fds": ("trace-fds", "trace-fd", "fds", "fd"),
        "namespace": ("namespace",),
        "secontext": ("secontext",),
    }.items()
    for short in shorts
}
"""Of -e KEY=: the options above that they stand for."""


def why(flag: str) -> str | None:
    """The message for an option of this table, by its short or long flag, which may be cut
    short; None for any other."""
    for names, reason in UNSUPPORTED.items():
        for name in names.split(", "):
            if name == flag or (len(flag) > 3 and name.startswith(flag)):
                return f"{flag} is not supported: {reason}"
    return None
