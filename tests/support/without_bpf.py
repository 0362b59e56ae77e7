"""Takes bpf(2), perf_event_open(2) and ptrace(2) away from this process and its children."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from typing import Final

NUMBERS: Final = {"x86_64": (321, 298, 101), "aarch64": (280, 241, 117)}
"""bpf, perf_event_open and ptrace: asm/unistd_64.h, asm-generic/unistd.h."""
LD_NR: Final = (0x20, 0, 0, 0)  # BPF_LD|BPF_W|BPF_ABS: nr of struct seccomp_data
EQUAL: Final = 0x15  # BPF_JMP|BPF_JEQ|BPF_K
RETURN: Final = 0x06  # BPF_RET|BPF_K
REFUSE: Final = 0x00050000 | errno.EPERM  # SECCOMP_RET_ERRNO
ALLOW: Final = 0x7FFF0000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


def give_up_bpf() -> None:
    """Each of the three calls fails with EPERM from now on, for good. Raises OSError."""
    numbers = NUMBERS[platform.machine()]
    code = [LD_NR]
    code += [(EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    code += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
    filters = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *each) for each in code))
    program = struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(filters))
    libc = ctypes.CDLL(None, use_errno=True)
    for step in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(program), 0, 0),
    ):
        if libc.prctl(*step) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
