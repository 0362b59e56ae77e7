"""System call numbers and sizes of the architectures that a tracee may use.

The numbers are facts from the kernel's ``arch/x86/entry/syscalls/*.tbl`` and
``include/uapi/asm-generic/unistd.h`` (Linux 6.18); tests compare them with the
headers of the machine they run on.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

AUDIT_ARCH_X86_64: Final = 0xC000003E  # include/uapi/linux/audit.h
AUDIT_ARCH_I386: Final = 0x40000003
AUDIT_ARCH_AARCH64: Final = 0xC00000B7

X32_BIT: Final = 0x40000000
"""Set in ``nr`` of a call through the x32 ABI, whose arch is AUDIT_ARCH_X86_64
(__X32_SYSCALL_BIT, arch/x86/include/uapi/asm/unistd.h). Such calls pass 32-bit
pointers in 64-bit registers; nothing here decodes them."""

NAMES: Final[dict[int, str]] = {
    AUDIT_ARCH_X86_64: "x86_64",
    AUDIT_ARCH_I386: "i386",
    AUDIT_ARCH_AARCH64: "aarch64",
}

POINTER_SIZE: Final[dict[int, int]] = {
    AUDIT_ARCH_X86_64: 8,
    AUDIT_ARCH_I386: 4,
    AUDIT_ARCH_AARCH64: 8,
}
"""Bytes of a pointer, and of ``long``, in the ABI of a call."""

_MACHINES: Final[dict[str, tuple[int, ...]]] = {
    "x86_64": (AUDIT_ARCH_X86_64, AUDIT_ARCH_I386),
    "aarch64": (AUDIT_ARCH_AARCH64,),
}

NETLINK_CALLS: Final = ("sendto", "sendmsg", "recvfrom", "recvmsg")
"""System calls that netlink is spoken with."""

# One row a call: name, x86-64, i386, aarch64, x32 (without X32_BIT, where that
# differs from x86-64). None: the architecture has no such call.
_TABLE: Final[tuple[tuple[str, int | None, int | None, int | None, int | None], ...]] = (
    ("read", 0, 3, 63, None),
    ("write", 1, 4, 64, None),
    ("open", 2, 5, None, None),
    ("close", 3, 6, 57, None),
    ("mmap", 9, 90, 222, None),
    ("mmap2", None, 192, None, None),
    ("ioctl", 16, 54, 29, 514),
    ("pread64", 17, 180, 67, None),
    ("pwrite64", 18, 181, 68, None),
    ("readv", 19, 145, 65, 515),
    ("writev", 20, 146, 66, 516),
    ("dup", 32, 41, 23, None),
    ("dup2", 33, 63, None, None),
    ("getpid", 39, 20, 172, None),
    ("socket", 41, 359, 198, None),
    ("connect", 42, 362, 203, None),
    ("sendto", 44, 369, 206, None),
    ("recvfrom", 45, 371, 207, 517),
    ("sendmsg", 46, 370, 211, 518),
    ("recvmsg", 47, 372, 212, 519),
    ("bind", 49, 361, 200, None),
    ("setsockopt", 54, 366, 208, 541),
    ("getsockopt", 55, 365, 209, 542),
    ("socketcall", None, 102, None, None),
    ("clone", 56, 120, 220, None),
    ("fork", 57, 2, None, None),
    ("vfork", 58, 190, None, None),
    ("execve", 59, 11, 221, 520),
    ("fcntl", 72, 55, 25, None),
    ("fcntl64", None, 221, None, None),
    ("rename", 82, 38, None, None),
    ("mkdir", 83, 39, None, None),
    ("creat", 85, 8, None, None),
    ("unlink", 87, 10, None, None),
    ("ptrace", 101, 26, 117, 521),
    ("prctl", 157, 172, 167, None),
    ("setrlimit", 160, 75, 164, None),
    ("mount", 165, 21, 40, None),
    ("umount2", 166, 52, 39, None),
    ("openat", 257, 295, 56, None),
    ("mkdirat", 258, 296, 34, None),
    ("unlinkat", 263, 301, 35, None),
    ("dup3", 292, 330, 24, None),
    ("perf_event_open", 298, 336, 241, None),
    ("prlimit64", 302, 340, 261, None),
    ("sendmmsg", 307, 345, 269, 538),
    ("setns", 308, 346, 268, None),
    ("kcmp", 312, 349, 272, None),
    ("finit_module", 313, 350, 273, None),
    ("seccomp", 317, 354, 277, None),
    ("userfaultfd", 323, 374, 282, None),
    ("memfd_create", 319, 356, 279, None),
    ("bpf", 321, 357, 280, None),
    ("execveat", 322, 358, 281, 545),
    ("move_mount", 429, 429, 429, None),
    ("fsopen", 430, 430, 430, None),
    ("fsconfig", 431, 431, 431, None),
    ("fsmount", 432, 432, 432, None),
    ("clone3", 435, 435, 435, None),
    ("close_range", 436, 436, 436, None),
    ("openat2", 437, 437, 437, None),
    ("pidfd_getfd", 438, 438, 438, None),
)


def _build() -> dict[int, dict[str, int]]:
    numbers: dict[int, dict[str, int]] = {arch: {} for arch in NAMES}
    for name, x86_64, i386, aarch64, _ in _TABLE:
        for arch, nr in (
            (AUDIT_ARCH_X86_64, x86_64),
            (AUDIT_ARCH_I386, i386),
            (AUDIT_ARCH_AARCH64, aarch64),
        ):
            if nr is not None:
                numbers[arch][name] = nr
    return numbers


NUMBERS: Final[dict[int, dict[str, int]]] = _build()
"""AUDIT_ARCH_* -> call's name -> number."""

X32_NUMBERS: Final[dict[str, int]] = {
    name: X32_BIT | (x86_64 if x32 is None else x32)
    for name, x86_64, _, _, x32 in _TABLE
    if x86_64 is not None
}
"""Call's name -> number in the x32 ABI, X32_BIT included."""

_BY_NUMBER: Final[dict[int, dict[int, str]]] = {
    arch: {nr: name for name, nr in table.items()} for arch, table in NUMBERS.items()
}


def number(arch: int, name: str) -> int | None:
    """The number of call ``name``, None where ``arch`` or the call is not known."""
    table = NUMBERS.get(arch)
    return None if table is None else table.get(name)


def name(arch: int, nr: int) -> str | None:
    """The name of call ``nr`` of ``arch``; None where not in our table, and for
    every x32 call (see :func:`is_x32`)."""
    table = _BY_NUMBER.get(arch)
    return None if table is None else table.get(nr)


def is_x32(arch: int, nr: int) -> bool:
    """Whether a call of AUDIT_ARCH_X86_64 came through the x32 ABI."""
    return arch == AUDIT_ARCH_X86_64 and nr & X32_BIT != 0 and nr < 1 << 32


def known_names() -> frozenset[str]:
    """All calls that can be named in a stop filter."""
    return frozenset(row[0] for row in _TABLE)


def of_machine(machine: str | None = None) -> tuple[int, ...]:
    """The AUDIT_ARCH_* values that processes of ``machine`` (as in uname -m,
    this one if None) may use, native first; () where we know nothing of it."""
    return _MACHINES.get(os.uname().machine if machine is None else machine, ())
