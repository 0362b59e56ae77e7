"""The ptrace requests that python-ptrace lacks, on its libc handle and with its errors.

python-ptrace gives the binding: the loaded libc, the request constants, the
mapping of a failed request to :class:`PtraceError`, register access, signal
names. This module adds SEIZE and what came with it. Importing it takes some
20 ms, nearly all of them python-ptrace's, so the engine does so while its first
tracee sets itself up.

Constants: include/uapi/linux/ptrace.h (Linux 6.18).
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ptrace import PtraceError
from ptrace.binding.func import (
    NT_PRSTATUS,
    PTRACE_CONT,
    PTRACE_DETACH,
    PTRACE_EVENT_CLONE,
    PTRACE_EVENT_EXEC,
    PTRACE_EVENT_FORK,
    PTRACE_EVENT_VFORK,
    PTRACE_GETEVENTMSG,
    PTRACE_GETREGSET,
    PTRACE_GETSIGINFO,
    PTRACE_O_TRACECLONE,
    PTRACE_O_TRACEEXEC,
    PTRACE_O_TRACEFORK,
    PTRACE_O_TRACESYSGOOD,
    PTRACE_O_TRACEVFORK,
    PTRACE_PEEKDATA,
    PTRACE_SETOPTIONS,
    PTRACE_SETREGSET,
    PTRACE_SYSCALL,
    THREAD_TRACE_FLAGS,
    ptrace,
    ptrace_getregs,
    ptrace_setregs,
)
from ptrace.ctypes_libc import libc
from ptrace.signames import signalName

__all__ = [
    "PTRACE_CONT",
    "PTRACE_DETACH",
    "PTRACE_EVENT_CLONE",
    "PTRACE_EVENT_EXEC",
    "PTRACE_EVENT_FORK",
    "PTRACE_EVENT_SECCOMP",
    "PTRACE_EVENT_STOP",
    "PTRACE_EVENT_VFORK",
    "PTRACE_LISTEN",
    "PTRACE_O_EXITKILL",
    "PTRACE_O_TRACECLONE",
    "PTRACE_O_TRACEEXEC",
    "PTRACE_O_TRACEFORK",
    "PTRACE_O_TRACESECCOMP",
    "PTRACE_O_TRACESYSGOOD",
    "PTRACE_O_TRACEVFORK",
    "PTRACE_PEEKDATA",
    "PTRACE_SYSCALL",
    "PTRACE_GET_SYSCALL_INFO",
    "SECCOMP_STOP",
    "SYSCALL_STOP",
    "WALL",
    "PtraceError",
    "Hot",
    "SyscallInfo",
    "bind_hot",
    "detach",
    "geteventmsg",
    "interrupt",
    "libc",
    "listen",
    "peek",
    "ptrace_getregs",
    "ptrace_setregs",
    "resume",
    "seize",
    "set_return",
    "setoptions",
    "sigcode",
    "signalName",
    "skip_syscall",
    "syscall_info",
]

PTRACE_SEIZE: Final = 0x4206
PTRACE_INTERRUPT: Final = 0x4207
PTRACE_LISTEN: Final = 0x4208
PTRACE_GET_SYSCALL_INFO: Final = 0x420E

PTRACE_EVENT_SECCOMP: Final = 7
PTRACE_EVENT_STOP: Final = 128

PTRACE_O_TRACESECCOMP: Final = 1 << PTRACE_EVENT_SECCOMP
PTRACE_O_EXITKILL: Final = 1 << 20

PTRACE_SYSCALL_INFO_NONE: Final = 0
PTRACE_SYSCALL_INFO_ENTRY: Final = 1
PTRACE_SYSCALL_INFO_EXIT: Final = 2
PTRACE_SYSCALL_INFO_SECCOMP: Final = 3

WALL: Final[int] = THREAD_TRACE_FLAGS
"""__WALL for waitpid(2): children of every kind, so that threads count too."""

# Wait statuses of the two hot stops: signal << 8 | 0x7f, event << 16.
SYSCALL_STOP: Final = (5 | 0x80) << 8 | 0x7F
SECCOMP_STOP: Final = PTRACE_EVENT_SECCOMP << 16 | 5 << 8 | 0x7F

# struct ptrace_syscall_info: op, arch, instruction_pointer, stack_pointer, then
# a union: entry {nr, args[6]}, exit {rval, is_error}, seccomp {nr, args[6], ret_data}.
_INFO: Final = struct.Struct("=B3xIQQ7QI4x")
_EXIT: Final = struct.Struct("=B3xIQQqB")


class SyscallInfo(NamedTuple):
    """PTRACE_GET_SYSCALL_INFO's answer; which fields count depends on ``op``."""

    op: int
    arch: int
    ip: int
    sp: int
    nr: int
    args: tuple[int, ...]
    ret_data: int


# The hot path's functions: of python-ptrace's own libc handle, but without release
# of the GIL, copying of errno, and conversion by argument types, which together
# cost more than the system call. Pointers and longs are therefore passed as
# ready-made ctypes objects; a bare int is passed as a C int.
_fast: Final = ctypes.PyDLL(libc._name, handle=libc._handle)

_resume: Final[Any] = _fast["ptrace"]
_NOTHING: Final = ctypes.c_ulong(0)
_SIGNALS: Final = tuple(ctypes.c_ulong(number) for number in range(128))


def resume(request: int, tid: int, signal: int = 0) -> int:
    """A request that lets a stopped tracee go: PTRACE_CONT, _SYSCALL or _LISTEN, with
    the signal to deliver (0 to 127). 0, or -1 on failure, with no exception: a
    tracee that was killed in its stop (ESRCH) is nothing to talk about."""
    result: int = _resume(request, tid, _NOTHING, _SIGNALS[signal])
    return result


_info_buffer: Final = ctypes.create_string_buffer(_INFO.size)
_info_view: Final = memoryview(_info_buffer)


class Hot(NamedTuple):
    """The requests of the hot path, as bare as they get. All share one buffer."""

    fetch: Callable[[int, int, ctypes.c_ulong, ctypes.c_void_p], int]
    """``fetch(GET_INFO, tid, size, buffer)``: PTRACE_GET_SYSCALL_INFO; bytes that
    there were, or -1."""
    size: ctypes.c_ulong
    buffer: ctypes.c_void_p
    entry: Callable[[], tuple[int, ...]]
    """(op, arch, ip, sp, nr, arg0..arg5, ret_data) of what was fetched."""
    exit: Callable[[], tuple[int, ...]]
    """(op, arch, ip, sp, rval, is_error) of what was fetched."""
    resume: Callable[[int, int, ctypes.c_ulong, ctypes.c_ulong], int]
    """``resume(request, tid, nothing, nothing)``: 0, or -1."""
    nothing: ctypes.c_ulong


def bind_hot() -> Hot:
    """The functions and constant arguments for a loop's local variables."""
    return Hot(
        _resume,
        ctypes.c_ulong(_INFO.size),
        ctypes.c_void_p(ctypes.addressof(_info_buffer)),
        functools.partial(_INFO.unpack_from, _info_view),
        functools.partial(_EXIT.unpack_from, _info_view),
        _resume,
        _NOTHING,
    )


def syscall_info(tid: int) -> SyscallInfo:
    """PTRACE_GET_SYSCALL_INFO (Linux 5.3). Raises PtraceError (errno EIO before
    Linux 5.3, ESRCH where the tracee is not in a stop)."""
    buffer = ctypes.create_string_buffer(_INFO.size)
    ptrace(PTRACE_GET_SYSCALL_INFO, tid, len(buffer), ctypes.addressof(buffer))
    op, arch, ip, sp, nr, *args, ret_data = _INFO.unpack(buffer.raw)
    return SyscallInfo(op, arch, ip, sp, nr, tuple(args), ret_data)


def seize(tid: int, options: int) -> None:
    """PTRACE_SEIZE: trace without stopping, PTRACE_O_* in one go. Raises PtraceError."""
    ptrace(PTRACE_SEIZE, tid, 0, options)


def interrupt(tid: int) -> None:
    """PTRACE_INTERRUPT: make a seized tracee stop soon. Raises PtraceError."""
    ptrace(PTRACE_INTERRUPT, tid)


def listen(tid: int) -> None:
    """PTRACE_LISTEN: leave it in its group-stop, but hear of what comes. Raises PtraceError."""
    ptrace(PTRACE_LISTEN, tid)


def detach(tid: int, signal: int = 0) -> None:
    """PTRACE_DETACH, delivering ``signal``. Raises PtraceError."""
    ptrace(PTRACE_DETACH, tid, 0, signal)


def setoptions(tid: int, options: int) -> None:
    """PTRACE_SETOPTIONS. Raises PtraceError."""
    ptrace(PTRACE_SETOPTIONS, tid, 0, options)


def geteventmsg(tid: int) -> int:
    """PTRACE_GETEVENTMSG: an unsigned long (python-ptrace's own gives it room for
    an int only). Raises PtraceError."""
    message = ctypes.c_ulong()
    ptrace(PTRACE_GETEVENTMSG, tid, 0, ctypes.addressof(message))
    return message.value


_SKIPPED: Final = 0xFFFFFFFFFFFFFFFF
_NT_ARM_SYSTEM_CALL: Final = 0x404


def skip_syscall(tid: int) -> bool:
    """In a stop before a call is executed: make it not be executed. False: refused."""
    try:
        if os.uname().machine == "aarch64":
            number = ctypes.c_int(-1)
            vector = (ctypes.c_ulong * 2)(ctypes.addressof(number), 4)
            ptrace(PTRACE_SETREGSET, tid, _NT_ARM_SYSTEM_CALL, ctypes.addressof(vector))
        else:
            registers = ptrace_getregs(tid)
            registers.orig_rax = _SKIPPED
            ptrace_setregs(tid, registers)
    except PtraceError:
        return False
    return True


def set_return(tid: int, ret: int) -> bool:
    """In a stop after a call: make it return ``ret`` (signed). False: refused."""
    value = ret & 0xFFFFFFFFFFFFFFFF
    try:
        if os.uname().machine == "aarch64":
            # struct user_pt_regs: regs[31], sp, pc, pstate
            registers = (ctypes.c_uint64 * 34)()
            vector = (ctypes.c_ulong * 2)(ctypes.addressof(registers), ctypes.sizeof(registers))
            ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, ctypes.addressof(vector))
            registers[0] = value
            ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, ctypes.addressof(vector))
        else:
            saved = ptrace_getregs(tid)
            saved.rax = value
            ptrace_setregs(tid, saved)
    except PtraceError:
        return False
    return True


def sigcode(tid: int) -> int:
    """The si_code of the signal of this stop. Raises PtraceError."""
    info = (ctypes.c_int * 32)()  # siginfo_t is 128 bytes; si_signo, si_errno, si_code lead
    ptrace(PTRACE_GETSIGINFO, tid, 0, ctypes.addressof(info))
    return info[2]


def peek(tid: int, addr: int) -> bytes | None:
    """PTRACE_PEEKDATA: the word at an aligned address, None where unreadable."""
    word = ctypes.c_ulong()
    # The kernel's own request stores through data; glibc's wrapper returns the
    # word instead, so -1 has to be told from an error by errno.
    function: Any = libc["ptrace"]
    function.restype = ctypes.c_long
    ctypes.set_errno(0)
    value = function(PTRACE_PEEKDATA, tid, ctypes.c_ulong(addr), ctypes.byref(word))
    if value == -1 and ctypes.get_errno() != 0:
        return None
    return struct.pack("=q", value)
