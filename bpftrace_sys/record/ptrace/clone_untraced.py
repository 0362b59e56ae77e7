"""CLONE_UNTRACED, taken out of a clone or clone3 while the kernel looks at it.

A child that is started with that flag no tracer gets. But it inherits our seccomp filter,
and what that hands to a tracer fails with ENOSYS where there is none: the program would
break because of us, and unseen. Nothing but tracing depends on the flag (kernel_clone() in
kernel/fork.c), so without it the child is what it would have been. Caller and child find
their registers and memory as they left them.
"""

from __future__ import annotations

import struct

from decoders.arch import AUDIT_ARCH_AARCH64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from bpftrace_sys.record.ptrace.memory import LiveMemory

CLONE_VM: Final = 0x00000100
CLONE_UNTRACED: Final = 0x00800000
_FLAGS: Final = struct.Struct("<Q")  # struct clone_args begins with __aligned_u64 flags


class Cleared:
    """What a call's flags were, and where."""

    __slots__ = ("_address", "_arch", "_flags")

    def __init__(self, arch: int, flags: int, address: int | None) -> None:
        self._arch = arch
        self._flags = flags
        self._address = address  # of struct clone_args; None: in the first argument

    def put_back(self, tid: int, child: bool) -> None:
        """In a stop after the call: as it was."""
        from bpftrace_sys.record.ptrace.registers import poke, set_first_argument

        if self._address is None:
            if self._arch != AUDIT_ARCH_AARCH64:  # there the result is in that register now
                set_first_argument(tid, self._arch, self._flags)
        elif not child or not self._flags & CLONE_VM:
            # Memory that both have is the caller's to put back: once it has returned, it
            # may have something else there.
            poke(tid, self._address, _FLAGS.pack(self._flags))


def asked_for(memory: LiveMemory, called: str, args: Sequence[int]) -> bool:
    """Whether this call of clone or clone3 has the flag."""
    return bool(flags_of(memory, called, args) & CLONE_UNTRACED)


def clear(
    tid: int, arch: int, memory: LiveMemory, called: str, args: Sequence[int]
) -> Cleared | None:
    """In the stop before such a call: take it out. None: the kernel does not let us."""
    from bpftrace_sys.record.ptrace.registers import poke, set_first_argument

    flags = flags_of(memory, called, args)
    wanted = flags & ~CLONE_UNTRACED
    if called == "clone":
        done = set_first_argument(tid, arch, wanted)
        return Cleared(arch, flags, None) if done else None
    done = poke(tid, args[0], _FLAGS.pack(wanted))
    return Cleared(arch, flags, args[0]) if done else None


def flags_of(memory: LiveMemory, called: str, args: Sequence[int]) -> int:
    """The flags of a clone or clone3 that begins; 0 where they cannot be read."""
    if called == "clone":
        return args[0]
    data = memory.read(args[0], _FLAGS.size)
    # Too short, and the kernel fails the call.
    return int(_FLAGS.unpack(data)[0]) if len(data) == _FLAGS.size else 0
