"""Functions of ELF files by file offset, for uprobes."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from bpftrace_sys.record.files.tracee_files import Base, TraceeFiles
from bpftrace_sys.record.stacks.files import MappedFile

FILES: Final = 64
"""Files that are remembered; then all are forgotten."""


class Symbols:
    """Remembers what files hold."""

    def __init__(self, files: TraceeFiles) -> None:
        self._looking = files
        self._files: dict[tuple[Base, str], MappedFile | None] = {}

    def executable(self, pid: int, path: str, offset: int) -> bool | None:
        """Whether an offset is within a segment of code; None where that is not known."""
        file = self._of(pid, path)
        return None if file is None else file.executable(offset)

    def at(self, pid: int, path: str, offset: int) -> str | None:
        """``readline`` or ``readline+0x10``; None where no function covers the offset."""
        file = self._of(pid, path)
        return None if file is None else _function(file, offset)

    def _of(self, pid: int, path: str) -> MappedFile | None:
        """The file of a path: a process's, whatever we have there; ours once that is gone."""
        if not path.startswith("/"):
            return None
        return self._file(Base.of(os.getpid() if _gone(pid) else pid), path)

    def _file(self, base: Base, path: str) -> MappedFile | None:
        key = (base, path)
        if key not in self._files:
            if len(self._files) >= FILES:
                self._files.clear()
            self._files[key] = None
            with contextlib.suppress(OSError, ValueError):
                self._files[key] = MappedFile(self._looking.regular(base, path))
        return self._files[key]


def _gone(pid: int) -> bool:
    """Whether nobody can say any more what a process saw; asks no file system."""
    try:
        os.readlink(f"/proc/{pid}/root")
    except OSError:
        return True
    return False


def _function(file: MappedFile, offset: int) -> str | None:
    found = file.symbol(offset, False)
    if found is None:
        return None
    name, distance = found
    # Of libc's getpid the other name, __getpid, is the global one, and nobody's word for it.
    plainest = min(file.names(offset - distance), key=_underscores, default=name)
    if _underscores(plainest) < _underscores(name):
        name = plainest
    return name + (f"+{distance:#x}" if distance else "")


def _underscores(name: str) -> int:
    return len(name) - len(name.lstrip("_"))
