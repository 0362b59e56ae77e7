"""The highest ids of BPF objects at a moment: what has a greater one is younger.

The kernel gives ids in ascending order (idr_alloc_cyclic; a counter for perf
events), so one number a kind tells objects from before a trace from those that
were made during it.  Stands
alone and imports next to nothing: it is asked before the tracee starts.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from decoders import arch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

GET_NEXT_ID: Final = {"prog": 11, "map": 12, "btf": 23, "link": 31}
"""BPF_PROG_GET_NEXT_ID and so on (include/uapi/linux/bpf.h)."""
_PERF_EVENT_IOC_ID: Final = 0x80082407
_LIMIT: Final = (1 << 31) - 1


def highest() -> dict[str, int]:
    """The highest id of each kind, 0 where there is none.

    Empty where we may not ask; without a kind that this kernel does not know.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    number = arch.number(arch.of_machine()[0], "bpf")
    attr = (ctypes.c_uint32 * 3)()
    room = ctypes.c_uint32(ctypes.sizeof(attr))
    found = {}
    for kind, command in GET_NEXT_ID.items():
        low, high = 0, _LIMIT
        # Is there an id above `middle`?  What the kernel says is the lowest such.
        middle = 0
        while low < high:
            attr[0], attr[1], attr[2] = middle, 0, 0
            if libc.syscall(number, command, attr, room) == 0:
                low = attr[1]
            elif ctypes.get_errno() == 2:  # ENOENT: none above
                high = middle
            else:
                low = -1
                break
            middle = (low + high) // 2
        if low >= 0:
            found[kind] = low
    event = _perf_event(libc)
    if event:
        found["perf_event"] = event
    return found


def _perf_event(libc: ctypes.CDLL) -> int:
    """The id of a perf event that counts nothing, made and closed; 0 where we may not."""
    # PERF_TYPE_SOFTWARE, PERF_ATTR_SIZE_VER0, PERF_COUNT_SW_DUMMY; disabled, exclude_kernel.
    attr = struct.pack("<IIQQQQQ16x", 1, 64, 9, 0, 0, 0, 1 | 1 << 5)
    number = arch.number(arch.of_machine()[0], "perf_event_open")
    # Of a CPU: an event of a task would make the scheduler look after it.
    fd = libc.syscall(number, attr, -1, 0, -1, 8)
    if fd < 0:
        return 0
    answer = bytearray(8)
    try:
        fcntl.ioctl(fd, _PERF_EVENT_IOC_ID, answer)
    except OSError:
        return 0
    finally:
        os.close(fd)
    return int.from_bytes(answer, "little")
