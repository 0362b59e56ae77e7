"""/tmp/perf-PID.map: names that a JIT gives to its code.

Lines of ``START SIZE NAME``, numbers in hex (tools/perf/Documentation/jit-interface.txt).
Python writes one with -X perf (3.12).
"""

from __future__ import annotations

import contextlib
import os
import re
from bisect import bisect_right
from typing import Final

from bpftrace_sys.record.files.tracee_files import Base, opened
from bpftrace_sys.record.files.walk import Place, beside, walk
from bpftrace_sys.record.proc import status

SIZE_LIMIT: Final = 16 << 20
LINES: Final = 1 << 18
_LINE: Final = re.compile(rb"^([0-9a-f]{1,16}) ([0-9a-f]{1,16}) ([^\n]{1,1024})", re.M | re.I)


class PerfMap:
    """The map of a process; where it has grown, what is new is read."""

    def __init__(self, tid: int) -> None:
        self._tid = tid
        self._fd = -1
        self._done = 0
        self._found: dict[int, tuple[int, bytes]] = {}
        self._starts: list[int] = []
        self._rows: list[tuple[int, int, bytes]] = []
        self._folder: Place | None = None
        with contextlib.suppress(OSError):
            base = Base.of(tid)
            self._folder = walk(tid, base.root, base.cwd, "/tmp")
        self.open()

    def open(self) -> None:
        """Opens the map, if it is there by now; it may be gone with the process later.

        In a stop: where /tmp is on a file system that may not answer, there is no map.
        """
        if self._fd >= 0 or self._folder is None or not self._folder.answers:
            return
        with contextlib.suppress(OSError):
            name = f"perf-{_inner(self._tid)}.map".encode()
            with beside(self._folder, name) as place:
                found = os.fstat(place.fd)
                # In a folder where everybody may write: somebody else's file says nothing.
                if found.st_uid in (0, os.stat(f"/proc/{self._tid}").st_uid):
                    self._fd = opened(place)

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def at(self, addr: int) -> tuple[str, int] | None:
        """The function at an address of the process, and how far into it."""
        self.open()
        self._read()
        index = bisect_right(self._starts, addr) - 1
        if index < 0:
            return None
        start, size, name = self._rows[index]
        if addr >= start + size:
            return None
        return name.decode("utf-8", "backslashreplace"), addr - start

    def _read(self) -> None:
        if self._fd < 0:
            return
        data = b""
        with contextlib.suppress(OSError):
            data = os.pread(self._fd, max(SIZE_LIMIT - self._done, 0), self._done)
        # What follows the last line feed is not whole yet.
        data = data[: data.rfind(b"\n") + 1]
        if not data:
            return
        self._done += len(data)
        for match in _LINE.finditer(data):
            if len(self._found) >= LINES:
                break
            # Of two that begin at one place, the later one is the living.
            self._found[int(match[1], 16)] = int(match[2], 16), match[3]
        self._rows = [(start, *self._found[start]) for start in sorted(self._found)]
        self._starts = [start for start, _, _ in self._rows]


def _inner(tid: int) -> int:
    """The id of a thread's process in its own PID namespace: the one in the file's name."""
    inner = status(tid).get("NStgid", "").split()
    return int(inner[-1]) if inner else tid
