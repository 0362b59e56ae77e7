"""What has run out, in words: memory, file descriptors, threads."""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LOST: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Of who writes: no room, or no disk."""
ROOM: Final = 8 << 20
"""Bytes that any one import may take."""


def shortage(error: BaseException) -> str | None:
    """The sentence that an exception stands for; None where nothing has run out."""
    if isinstance(error, MemoryError):
        return _limited("no memory is left", "RLIMIT_AS", "ulimit -v", 1024)
    if isinstance(error, OSError):
        if error.errno == errno.EMFILE:
            return _limited("no file descriptor is left", "RLIMIT_NOFILE", "ulimit -n", 1)
        if error.errno == errno.ENFILE:
            return "no file descriptor is left on this machine (fs.file-max)"
        if error.errno in LOST and error.filename is None:
            return f"output was lost: {error.strerror}"
        if error.errno == errno.ENOMEM:
            return _limited("no memory is left", "RLIMIT_AS", "ulimit -v", 1024)
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return _limited("no thread can be started", "RLIMIT_NPROC", "ulimit -u", 1)
    return None


def _limited(text: str, limit: str, command: str, unit: int) -> str:
    try:
        import resource

        number = resource.getrlimit(getattr(resource, limit))[0]
    except (ImportError, OSError, ValueError, MemoryError):
        return text
    unlimited = number == resource.RLIM_INFINITY
    return text if unlimited else f"{text} (`{command}` is {number // unit})"


def see_that_there_is_room() -> None:
    """Raises MemoryError where an import might end in one.

    Where memory runs out in the middle of an import, CPython (3.11) may not come out of it: it
    unwinds for ever. No page of what is asked for is touched: malloc() would clear it.
    """
    try:
        import mmap

        mmap.mmap(-1, ROOM, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (ImportError, OSError):
        raise MemoryError from None
