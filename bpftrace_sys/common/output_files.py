"""Opening files to write to, where others may have been before.

A trace holds a program's memory, and a tracer is mostly root: neither must go where another user
has put a link, a pipe or a file of their own.  Names of outputs can be guessed (``-ff`` appends a
number), and /tmp is everybody's.  So a file is made for its owner alone; one that is there already
has to be ours wherever others can put files; and a link is followed only where nobody else could
have put it.
"""

from __future__ import annotations

import errno
import os
import stat

from decoders import BpfstraceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

class OutputError(BpfstraceError):
    """An output that cannot be opened, or did not arrive; says which and why."""


_WRITE: Final = os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY


def create(path: str, append: bool = False, mode: int = 0o600) -> int:
    """An fd to write a file with, begun anew unless ``append``; ``mode`` is of one that is made.

    OSError where that is impossible or not safe; its ``strerror`` says why in words.
    """
    more = os.O_APPEND if append else 0
    try:
        return os.open(path, _WRITE | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | more, mode)
    except FileExistsError:
        pass
    there = os.lstat(path)
    safe = _folder_is_safe(os.path.dirname(path) or ".")
    if stat.S_ISLNK(there.st_mode):
        if not safe and not _ours(there):
            raise OSError(errno.EPERM, f"it is a link that uid {there.st_uid} has made")
        if not safe and not _everybodys_only(os.path.dirname(path) or "."):
            raise OSError(errno.EPERM, "it is a link in a folder where others could exchange it")
        # Of our making: where it leads was our wish, and need not be there yet.
        return _opened(path, os.O_CREAT | more, append, True)
    return _opened(path, os.O_NOFOLLOW | more, append, safe)


def _opened(path: str, flags: int, append: bool, safe: bool) -> int:
    """What is there already; cut only when it is known whose it is."""
    fd = os.open(path, _WRITE | flags, 0o600)
    try:
        found = os.fstat(fd)
        if not safe:
            _check(found)
        if stat.S_ISREG(found.st_mode) and not append:
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check(found: os.stat_result) -> None:
    """Of a file where others can put files."""
    if not _ours(found):
        raise OSError(errno.EPERM, f"it belongs to uid {found.st_uid}, as others' files may here")
    if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        raise OSError(errno.EPERM, "it has another name, which another user may have given it")


def _ours(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid()


def _folder_is_safe(folder: str) -> bool:
    """Whether nobody but us and root can put something there."""
    found = os.stat(folder)
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & stat.S_IWOTH


def _everybodys_only(folder: str) -> bool:
    """Whether others can put things there, but not take ours away: /tmp."""
    found = os.stat(folder)
    return found.st_uid in (0, os.geteuid()) and bool(found.st_mode & stat.S_ISVTX)


def readable_by_others(fd: int) -> str | None:
    """The mode of a plain file of ours that others may read; None where they may not."""
    found = os.fstat(fd)
    mode = stat.S_IMODE(found.st_mode)
    open_to_all = stat.S_ISREG(found.st_mode) and _ours(found) and mode & 0o044
    return f"{mode:03o}" if open_to_all else None
