"""--stats: how often programs ran, and for how long, while they were traced.

The kernel counts while somebody has an fd of BPF_ENABLE_STATS; for all programs of the machine,
which makes each run some 20 ns slower.  What it counted of a program is gone with it, and nothing
tells when that will be.  So it is looked at some times a second; behind each request to a perf
event, which may have disabled one; when a thread of a tracee is about to end and its fds are still
open (PTRACE_EVENT_EXIT); and at the end of the trace.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time
from typing import TYPE_CHECKING, Final

from bpftrace_sys.record.machine import bpf
from decoders.formats.prog_info import ProgInfo
from decoders.uapi import const

if TYPE_CHECKING:
    from bpftrace_sys.record.machine.fds import FdLookup
    from bpftrace_sys.record.ptrace.tracee import Tracee
    from decoders.raw import RawCall

OFTEN: Final = 0.1
"""Seconds between two looks."""
LOOKED_AT: Final = 4096
"""Programs that are looked at; those that were seen first, and are not gone."""


class RunStats:
    """Turns counting on, and remembers what was counted last of each program."""

    def __init__(self) -> None:
        """OSError where the kernel does not let us (it needs CAP_SYS_ADMIN, Linux 5.8)."""
        attr = ctypes.create_string_buffer(struct.pack("<I", const.BPF_STATS_RUN_TIME), 4)
        self._fd = bpf.bpf(const.BPF_ENABLE_STATS, attr)
        os.set_inheritable(self._fd, False)
        self._progs: dict[int, str] = {}
        """By id: runs, nanoseconds and misses, as the fact has them; empty: not looked at yet."""
        self._before: dict[int, tuple[int, int, int]] = {}
        """The same of programs that were there before, from earlier countings."""
        self._there: set[int] = set()
        """Those that were not gone when last looked at."""
        self._looked = 0.0

    def add(self, prog_id: int) -> None:
        """A program that was there already: what it ran before does not count."""
        if prog_id in self._progs:
            return
        if len(self._progs) >= LOOKED_AT:
            gone = next((number for number in self._progs if number not in self._there), None)
            if gone is not None:
                del self._progs[gone]
                self._before.pop(gone, None)
        if len(self._progs) < LOOKED_AT:
            self._progs[prog_id] = ""
            self._there.add(prog_id)
            self._before[prog_id] = _counted(prog_id) or (0, 0, 0)

    def returned(self, raw: RawCall, lookup: FdLookup) -> None:
        """In the exit stop of a bpf() or ioctl() that succeeded: which programs there are."""
        for fact in raw.fds:
            if fact.kind == "perf_event":
                self.look()
            elif fact.kind == "prog" and fact.id is not None:
                self.add(fact.id)

    def soon(self) -> bool:
        """Nothing: it looks in the stops, and between them now and then."""
        return False

    def leaving(self, tracee: Tracee) -> None:
        """A thread is about to end; its process's fds may be closed with it."""
        self.look()

    def look(self, pause: float = 0) -> None:
        """Looks at all that are there, unless it did within the last ``pause`` seconds."""
        if self.due(pause):
            self._looked = time.monotonic()
            for number in list(self._there):
                self.runs(number)

    def due(self, pause: float) -> bool:
        """Whether it did not look for so many seconds."""
        return time.monotonic() - self._looked >= pause

    def runs(self, prog_id: int) -> str | None:
        """``RUNS NANOSECONDS MISSES`` of a program, as it was last looked at; None: never."""
        found = _counted(prog_id)
        if found is not None:
            before = self._before.get(prog_id, (0, 0, 0))
            less = (now - then for now, then in zip(found, before, strict=True))
            self._progs[prog_id] = " ".join(map(str, less))
        else:
            self._there.discard(prog_id)
        return self._progs.get(prog_id) or None

    def finish(self) -> None:
        """The trace ends: from now on nobody has to be there because of us."""

    def close(self) -> None:
        """Counting ends, unless others have it on."""
        os.close(self._fd)


def _counted(prog_id: int) -> tuple[int, int, int] | None:
    """Runs, nanoseconds and misses that the kernel counted of a program; None: it is gone."""
    data = bpf.info("prog", prog_id)
    if data is None:
        return None
    info = ProgInfo(data, {})
    return info.run_cnt, info.run_time_ns, info.recursion_misses
