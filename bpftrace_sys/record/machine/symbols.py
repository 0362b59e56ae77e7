"""Functions of ELF files by file offset, for uprobes."""

from __future__ import annotations

import contextlib
from typing import Final

from bpftrace_sys.record.stacks.elf_image import InFile
from bpftrace_sys.record.stacks.files import MappedFile, open_regular

FILES: Final = 64
"""Files that are remembered; then all are forgotten."""


class Symbols:
    """Remembers what files hold."""

    def __init__(self) -> None:
        self._files: dict[str, MappedFile | None] = {}

    def executable(self, path: str, offset: int) -> bool | None:
        """Whether an offset is within a segment of code; None where that is not known."""
        file = self._file(path)
        return None if file is None else file.executable(offset)

    def _file(self, path: str) -> MappedFile | None:
        if path not in self._files:
            if len(self._files) >= FILES:
                self._files.clear()
            self._files[path] = None
            with contextlib.suppress(OSError, ValueError):
                self._files[path] = MappedFile(InFile(open_regular(path)))
        return self._files[path]

    def at(self, path: str, offset: int) -> str | None:
        """``readline`` or ``readline+0x10``; None where no function covers the offset."""
        file = self._file(path)
        found = None if file is None else file.symbol(offset, False)
        if file is None or found is None:
            return None
        name, distance = found
        # Of libc's getpid the other name, __getpid, is the global one, and nobody's word for it.
        plainest = min(file.names(offset - distance), key=_underscores, default=name)
        if _underscores(plainest) < _underscores(name):
            name = plainest
        return name + (f"+{distance:#x}" if distance else "")


def _underscores(name: str) -> int:
    return len(name) - len(name.lstrip("_"))
