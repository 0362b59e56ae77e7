"""The ptrace requests of the loop, bare: what every trace needs from its first stop on.

python-ptrace has the rest (registers, words of memory; see registers.py). It is not
imported here, since that takes longer than a short program runs: these few requests
are bound to libc directly, and fail with OSError. Tests hold the numbers against
python-ptrace's.

Constants: include/uapi/linux/ptrace.h (Linux 6.18).
"""

from __future__ import annotations

import ctypes
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

PTRACE_CONT: Final = 7
PTRACE_DETACH: Final = 17
PTRACE_SYSCALL: Final = 24
PTRACE_GETEVENTMSG: Final = 0x4201
PTRACE_GETSIGINFO: Final = 0x4202
PTRACE_SEIZE: Final = 0x4206
PTRACE_INTERRUPT: Final = 0x4207
PTRACE_LISTEN: Final = 0x4208
PTRACE_SECCOMP_GET_FILTER: Final = 0x420C
PTRACE_GET_SYSCALL_INFO: Final = 0x420E

PTRACE_EVENT_FORK: Final = 1
PTRACE_EVENT_VFORK: Final = 2
PTRACE_EVENT_CLONE: Final = 3
PTRACE_EVENT_EXEC: Final = 4
PTRACE_EVENT_EXIT: Final = 6
PTRACE_EVENT_SECCOMP: Final = 7
PTRACE_EVENT_STOP: Final = 128

PTRACE_O_TRACESYSGOOD: Final = 1
PTRACE_O_TRACEFORK: Final = 1 << PTRACE_EVENT_FORK
PTRACE_O_TRACEVFORK: Final = 1 << PTRACE_EVENT_VFORK
PTRACE_O_TRACECLONE: Final = 1 << PTRACE_EVENT_CLONE
PTRACE_O_TRACEEXEC: Final = 1 << PTRACE_EVENT_EXEC
PTRACE_O_TRACEEXIT: Final = 1 << PTRACE_EVENT_EXIT
PTRACE_O_TRACESECCOMP: Final = 1 << PTRACE_EVENT_SECCOMP
PTRACE_O_EXITKILL: Final = 1 << 20

WALL: Final = 0x40000000
"""__WALL for waitpid(2): children of every kind, so that threads count too."""

# Wait statuses of the two hot stops: signal << 8 | 0x7f, event << 16.
SYSCALL_STOP: Final = (5 | 0x80) << 8 | 0x7F
SECCOMP_STOP: Final = PTRACE_EVENT_SECCOMP << 16 | 5 << 8 | 0x7F

# struct ptrace_syscall_info: op, arch, instruction_pointer, stack_pointer, then
# a union: entry {nr, args[6]}, exit {rval, is_error}, seccomp {nr, args[6], ret_data}.
_INFO: Final = struct.Struct("=B3xIQQ7QI4x")
_EXIT: Final = struct.Struct("=B3xIQQqB")

_libc: Final = ctypes.CDLL(None, use_errno=True)
_request: Final[Any] = _libc["ptrace"]
_request.restype = ctypes.c_long
# The hot path's function: without release of the GIL, copying of errno, and conversion
# by argument types, which together cost more than the system call. Pointers and longs
# are therefore passed as ready-made ctypes objects; a bare int is passed as a C int.
_resume: Final[Any] = ctypes.PyDLL(None)["ptrace"]
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
_info_size: Final = ctypes.c_ulong(_INFO.size)
_info_address: Final = ctypes.c_void_p(ctypes.addressof(_info_buffer))



def bind_hot() -> tuple[
    Callable[[int, int, ctypes.c_ulong, ctypes.c_void_p], int],
    ctypes.c_ulong,
    ctypes.c_void_p,
    Callable[[Any], tuple[int, ...]],
    Callable[[Any], tuple[int, ...]],
    memoryview,
    Callable[[int, int, ctypes.c_ulong, ctypes.c_ulong], int],
    ctypes.c_ulong,
]:
    """The requests of the hot path for a loop's local variables; all share one buffer.

    ``fetch, size, address, entry, exit, buffer, resume, nothing``:
    ``fetch(PTRACE_GET_SYSCALL_INFO, tid, size, address)`` returns the bytes that there
    were, or -1; ``entry(buffer)`` is (op, arch, ip, sp, nr, arg0..arg5, ret_data) of
    what was fetched, ``exit(buffer)`` (op, arch, ip, sp, rval, is_error);
    ``resume(request, tid, nothing, nothing)`` is 0, or -1.
    """
    return (
        _resume, _info_size, _info_address, _INFO.unpack_from, _EXIT.unpack_from, _info_view,
        _resume, _NOTHING,
    )  # fmt: skip


def _call(request: int, tid: int, data: int = 0, addr: int = 0) -> int:
    result: int = _request(request, tid, ctypes.c_ulong(addr), ctypes.c_ulong(data))
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def syscall_info(tid: int) -> tuple[int, ...]:
    """PTRACE_GET_SYSCALL_INFO (Linux 5.3): (op, arch, ip, sp, nr, arg0..arg5, ret_data),
    of which ``op`` says what counts. Raises OSError (EIO before Linux 5.3, ESRCH where
    the tracee is not in a stop)."""
    _call(PTRACE_GET_SYSCALL_INFO, tid, ctypes.addressof(_info_buffer), _INFO.size)
    return _INFO.unpack_from(_info_view)


def seize(tid: int, options: int) -> None:
    """PTRACE_SEIZE: trace without stopping, PTRACE_O_* in one go. Raises OSError."""
    _call(PTRACE_SEIZE, tid, options)


def interrupt(tid: int) -> None:
    """PTRACE_INTERRUPT: make a seized tracee stop soon. Raises OSError."""
    _call(PTRACE_INTERRUPT, tid)


def detach(tid: int, signal: int = 0) -> None:
    """PTRACE_DETACH, delivering ``signal``. Raises OSError."""
    _call(PTRACE_DETACH, tid, signal)


def geteventmsg(tid: int) -> int:
    """PTRACE_GETEVENTMSG: an unsigned long. Raises OSError."""
    message = ctypes.c_ulong()
    _call(PTRACE_GETEVENTMSG, tid, ctypes.addressof(message))
    return message.value


def siginfo(tid: int) -> tuple[int, int, int]:
    """PTRACE_GETSIGINFO: the signal of this stop, its si_code, and who sent it (si_pid, which
    means something for codes up to 0 only). Raises OSError."""
    # siginfo_t is 128 bytes: si_signo, si_errno, si_code, and after padding si_pid.
    info = (ctypes.c_int * 32)()
    _call(PTRACE_GETSIGINFO, tid, ctypes.addressof(info))
    return info[0], info[2], info[4]


def siginfo_bytes(tid: int) -> bytes:
    """The same as it stands in memory: 128 bytes. Raises OSError."""
    info = ctypes.create_string_buffer(128)
    _call(PTRACE_GETSIGINFO, tid, ctypes.addressof(info))
    return info.raw


def seccomp_filter(tid: int, index: int) -> bytes:
    """PTRACE_SECCOMP_GET_FILTER: a filter of the tracee, as struct sock_filter[]; 0 is the one
    that was installed last. Raises OSError (ENOENT: there are not so many)."""
    count = _call(PTRACE_SECCOMP_GET_FILTER, tid, 0, index)
    room = ctypes.create_string_buffer(8 * count)
    _call(PTRACE_SECCOMP_GET_FILTER, tid, ctypes.addressof(room), index)
    return room.raw
