"""Functions of ELF files by file offset, for uprobes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
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
        for file in self._of(pid, path):
            found = file.executable(offset)
            if found is not None:
                return found
        return None

    def at(self, pid: int, path: str, offset: int) -> str | None:
        """``readline`` or ``readline+0x10``; None where no function covers the offset."""
        found = (_function(file, offset) for file in self._of(pid, path))
        return next((name for name in found if name is not None), None)

    def _of(self, pid: int, path: str) -> Iterator[MappedFile]:
        """The files of a path: a process's, and ours. It may see others than we do."""
        for each in (pid, os.getpid()) if path.startswith("/") else ():
            file = self._file(Base.of(each), path)
            if file is not None:
                yield file

    def _file(self, base: Base, path: str) -> MappedFile | None:
        key = (base, path)
        if key not in self._files:
            if len(self._files) >= FILES:
                self._files.clear()
            self._files[key] = None
            with contextlib.suppress(OSError, ValueError):
                self._files[key] = MappedFile(self._looking.regular(base, path))
        return self._files[key]


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
