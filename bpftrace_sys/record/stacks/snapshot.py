"""What is copied in a stop, for a stack to be unwound later."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from ptrace import PtraceError
from ptrace.binding.func import NT_PRSTATUS, PTRACE_GETREGSET, ptrace

from bpftrace_sys.record.stacks.machine import Machine, machine_of
from bpftrace_sys.record.stacks.perf_map import PerfMap
from bpftrace_sys.record.stacks.regions import MemoryMap
from decoders.records import NamedTuple

if TYPE_CHECKING:
    from bpftrace_sys.record.ptrace.engine import Tracee
    from bpftrace_sys.record.ptrace.memory import LiveMemory
    from bpftrace_sys.record.stacks.files import Files

STACK_COPIED: Final = 64 << 10
"""Bytes of stack from the stack pointer upwards."""
PIECES: Final = 4
"""Pieces of stack: a handler on a stack of its own interrupts another stack."""
MAPS_LIMIT: Final = 8 << 20
"""Bytes of /proc/PID/maps: 65,530 mappings, vm.max_map_count's default."""
MAPS_KEPT: Final = 32 << 20
"""Bytes of it that are remembered of all processes."""
VDSO_LIMIT: Final = 64 << 10
CODE_LIMIT: Final = 256 << 10
"""Bytes of code of no file that are copied when the memory map has changed."""
CODE_SEEN: Final = 64
"""Bytes of it that are looked at."""
PROCESSES: Final = 64
"""Processes whose last memory map is remembered, and whose perf map is open."""


class Process(NamedTuple):
    """A process as it was at a call."""

    tid: int
    """A thread of it: its leader may have ended, and then shows neither map nor files."""
    map: MemoryMap
    vdso: bytes
    jit: PerfMap | None
    """Where there is code of no file."""
    code: tuple[tuple[int, bytes], ...] = ()
    """That code, or the beginning of it."""

    def code_at(self, addr: int) -> bytes:
        """Instructions at an address of code of no file."""
        for at, data in self.code:
            if at <= addr < at + len(data):
                return data[addr - at : addr - at + CODE_SEEN]
        return b""


class Snapshot(NamedTuple):
    """A thread in the stop of a call's entry."""

    machine: Machine
    registers: bytes
    pieces: tuple[tuple[int, bytes], ...]
    """Copied stack: addresses and bytes; that of the stack pointer first."""
    process: Process


class Copier:
    """Makes snapshots.  To be used in stops: it copies, and opens what may be gone later."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._known: OrderedDict[int, Process] = OrderedDict()
        """The last of each process, by pid."""
        self._kept = 0
        self.map_size = 0
        """Bytes of the memory map in the last snapshot."""
        self._buffer = ctypes.create_string_buffer(1024)
        self._vector = (ctypes.c_ulong * 2)()

    def copy(self, tracee: Tracee) -> Snapshot | None:
        """None where the thread is gone, or of an unknown kind."""
        self._vector[0] = ctypes.addressof(self._buffer)
        self._vector[1] = len(self._buffer)
        try:
            ptrace(PTRACE_GETREGSET, tracee.tid, NT_PRSTATUS, ctypes.addressof(self._vector))
        except PtraceError:
            return None
        size = self._vector[1]
        machine = machine_of(size)
        if machine is None:
            return None
        registers = self._buffer.raw[:size]
        sp = machine.registers(registers)[machine.sp]
        pieces = _pieces(machine, sp, tracee.memory)
        return Snapshot(machine, registers, pieces, self._process(tracee))

    def _process(self, tracee: Tracee) -> Process:
        """The memory map of this moment.

        It is read in each stop, since nothing tells cheaply whether it has changed;
        where it has not, it is the very same object as before.
        """
        pid, tid, memory = tracee.pid, tracee.tid, tracee.memory
        text = _read(f"/proc/{tid}/maps", MAPS_LIMIT)
        self.map_size = len(text)
        known = self._known.get(pid)
        if known is not None and known.map.text == text:
            self._known.move_to_end(pid)
            if known.jit is not None:
                known.jit.open()
            return known
        new = MemoryMap(text)
        vdso = next((region for region in new.regions if region.path == b"[vdso]"), None)
        image = b""
        if vdso is not None:
            image = memory.read(vdso.start, min(vdso.end - vdso.start, VDSO_LIMIT))
        jit = None if known is None else known.jit
        if jit is None and new.has_own_code:
            jit = PerfMap(tid)
        code = _own_code(new, memory) if jit is not None else ()
        found = self._known[pid] = Process(tid, new, image, jit, code)
        self._kept += len(text) - (0 if known is None else len(known.map.text))
        while len(self._known) > PROCESSES or (self._kept > MAPS_KEPT and len(self._known) > 1):
            self._kept -= len(self._known.popitem(last=False)[1].map.text)
        # The process, or its mount namespace, may be gone when the stack is unwound.
        self._files.hold(tid, new)
        return found


def _own_code(map_: MemoryMap, memory: LiveMemory) -> tuple[tuple[int, bytes], ...]:
    """The code of no file, as far as the limit goes."""
    found: list[tuple[int, bytes]] = []
    left = CODE_LIMIT
    for region in map_.regions:
        if not region.path and left > 0:
            data = memory.read(region.start, min(region.end - region.start, left))
            left -= len(data)
            found.append((region.start, data))
    return tuple(found)


def _pieces(machine: Machine, sp: int, memory: LiveMemory) -> tuple[tuple[int, bytes], ...]:
    start = max(sp - machine.red_zone, 0)
    pieces = [(start, memory.read(start, STACK_COPIED + machine.red_zone))]
    for _, piece in pieces:
        for other in machine.interrupted_stacks(piece):
            if len(pieces) == PIECES:
                return tuple(pieces)
            if any(at <= other < at + len(data) for at, data in pieces):
                continue
            data = memory.read(other, STACK_COPIED)
            if data:
                pieces.append((other, data))
    return tuple(pieces)


def _read(path: str, limit: int) -> bytes:
    """A file of /proc; what could be read of it."""
    parts: list[bytes] = []
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while limit > 0:
                # The kernel gives a page at a time, whatever is asked for.
                part = os.read(fd, min(limit, 1 << 16))
                if not part:
                    break
                parts.append(part)
                limit -= len(part)
        finally:
            os.close(fd)
    return b"".join(parts)
