"""A live tracee's memory, read in its stops with process_vm_readv(2).

Where that is refused (EPERM, ENOSYS: some sandboxes), /proc/TID/mem is read, and
where that cannot be opened either, single words with PTRACE_PEEKDATA. What is read
again and again is read from /proc/TID/mem, too, for that is cheaper (see span()).
"""

from __future__ import annotations

import ctypes
import errno
import os
from itertools import accumulate

from bpftrace_sys.common.light import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

    from bpftrace_sys.record.ptrace.careful import CarefulReader

PAGE: Final = os.sysconf("SC_PAGESIZE")
MAX_READ: Final = 64 << 20
"""No read returns more bytes than this, whatever a tracee claims."""

_PIECE: Final = 1 << 18  # bytes a system call; a multiple of every page size in use
_SMALL: Final = 1 << 16  # bytes that the shared buffer always has
_PAGES_A_CALL: Final = 64
_RANGES: Final = 64
_MAX_PEEK: Final = 1 << 16
_CSTR_FIRST: Final = 256
_SPAN: Final = 4096  # bytes from the first to the last of ranges that are read in one go
_KEPT_OPEN: Final = 32  # files /proc/TID/mem for span()
_OFTEN: Final = 16  # glances of a process that are worth one

# The top byte of an aarch64 address may be a tag that the hardware ignores.
_ADDRESS_BITS: Final = (1 << 56) - 1 if os.uname().machine == "aarch64" else (1 << 64) - 1
_USER_END: Final = 1 << 63


# Two bindings of the same function: the usual one, which tells errno, and for the
# usual case one that skips everything that costs more than the system call does
# (releasing the GIL, copying errno, converting arguments by declared types). A
# bare int is passed as a C int; everything wider as a ready-made ctypes object.
_readv: Final[Any] = ctypes.CDLL(None, use_errno=True)["process_vm_readv"]
_readv.argtypes = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
)
_readv.restype = ctypes.c_ssize_t
_fast_readv: Final[Any] = ctypes.PyDLL(None)["process_vm_readv"]

# One thread reads at a time (the tracer's), so buffers are shared by all tracees.
_buffer = ctypes.create_string_buffer(_SMALL)
_view = memoryview(_buffer).cast("B")
_local = (ctypes.c_ulong * 2)(ctypes.addressof(_buffer), 0)
_local_address: Final = ctypes.addressof(_local)
_remote = (ctypes.c_ulong * (2 * max(_PAGES_A_CALL, _RANGES) + 2))()
_remote_address: Final = ctypes.addressof(_remote)
_local_object: Final = ctypes.c_void_p(_local_address)
_remote_object: Final = ctypes.c_void_p(_remote_address)
_ONE: Final = ctypes.c_ulong(1)
_ZERO: Final = ctypes.c_ulong(0)


def _reserve(size: int) -> None:
    """Grow the shared buffer once to the piece size, when something big is read."""
    global _buffer, _view
    if len(_view) < size:
        _buffer = ctypes.create_string_buffer(_PIECE)
        _view = memoryview(_buffer).cast("B")
        _local[0] = ctypes.addressof(_buffer)


class Ranges:
    """Ranges of memory that are read together again and again, laid out once."""

    __slots__ = ("address", "array", "count", "places", "size", "span", "start")

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        ranges = [(addr & _ADDRESS_BITS, size) for addr, size in ranges]
        words = [word for each in ranges for word in each]
        self.array = (ctypes.c_ulong * len(words))(*words)
        self.address = ctypes.c_void_p(ctypes.addressof(self.array))
        self.count = ctypes.c_ulong(len(ranges))
        self.size = sum(size for _, size in ranges)
        self.start = min(addr for addr, _ in ranges)
        span = max(addr + size for addr, size in ranges) - self.start
        self.span = span if span <= _SPAN else 0
        """Bytes from the first to the last, gaps included; 0: they are far from each other."""
        ends = accumulate(size for _, size in ranges)
        self.places = [
            slice(addr - self.start, addr - self.start + size) if self.span
            else slice(end - size, end)
            for (addr, size), end in zip(ranges, ends, strict=True)
        ]  # fmt: skip
        """Where each stands in what :meth:`LiveMemory.span` and, without one, gather() returns."""

    @staticmethod
    def possible(ranges: Sequence[tuple[int, int]]) -> bool:
        """Whether :meth:`LiveMemory.gather` takes these."""
        return (
            0 < len(ranges) <= _RANGES
            and all(size > 0 and addr & _ADDRESS_BITS < _USER_END for addr, size in ranges)
            and sum(size for _, size in ranges) <= _SMALL
        )


class LiveMemory:
    """Memory of one thread's process (see decoders.walk.memory.Memory). Never raises.

    Short where memory is unmapped or the process is gone; at most MAX_READ bytes.
    """

    __slots__ = ("_file", "_glances", "_mem", "_slow", "careful", "tid")

    kept_open = 0
    """Files that are open for span(), of all tracees."""

    def __init__(self, tid: int) -> None:
        self.tid = tid
        self.careful = False
        """Some of its pages may never come; see be_careful()."""
        self._slow = False
        self._mem: int | None = None
        self._glances = 0
        """How often that was asked for which no file was opened."""
        self._file: int | None = None
        """/proc/TID/mem for span(); None: not open yet, -1: it cannot be had."""

    def read(self, addr: int, size: int) -> bytes:
        """All leading readable bytes of ``size`` at ``addr``."""
        addr &= _ADDRESS_BITS
        if size <= 0 or addr >= _USER_END:
            return b""
        if size <= _SMALL and not self._slow:
            # The usual case: one range, all of it there.
            _local[1] = size
            _remote[0] = addr
            _remote[1] = size
            if _fast_readv(self.tid, _local_object, _ONE, _remote_object, _ONE, _ZERO) == size:
                return _view[:size].tobytes()
        size = min(size, MAX_READ, _USER_END - addr)
        if size <= _PIECE:
            return self._piece(addr, size)
        pieces: list[bytes] = []
        end = addr + size
        while addr < end:
            wanted = min(end - addr, _PIECE)
            piece = self._piece(addr, wanted)
            pieces.append(piece)
            addr += len(piece)
            if len(piece) < wanted:
                break
        return b"".join(pieces)

    def cstr(self, addr: int, limit: int) -> bytes:
        """A C string without its NUL, or the first ``limit`` bytes of it; ends
        early where memory does. Looks at no more than ``limit + 1`` bytes."""
        limit = min(limit, MAX_READ - 1)
        if limit < 0:
            return b""
        left = limit + 1
        # Most strings are short: one small read that ends within the page.
        step = min(left, _CSTR_FIRST, PAGE - addr % PAGE)
        pieces: list[bytes] = []
        while left > 0:
            piece = self.read(addr, step)
            end = piece.find(b"\0")
            if end >= 0:
                pieces.append(piece[:end])
                break
            pieces.append(piece)
            if len(piece) < step:
                break
            addr += step
            left -= step
            step = min(left, max(PAGE, min(16 * step, _SMALL)) - addr % PAGE)
        return b"".join(pieces)[:limit]

    def gather(self, ranges: Ranges) -> bytes | None:
        """All the bytes of some ranges, one after the other; None where not all can be read."""
        if self._slow:
            return None
        size = _local[1] = ranges.size
        got = _fast_readv(self.tid, _local_object, _ONE, ranges.address, ranges.count, _ZERO)
        return _view[:size].tobytes() if got == size else None

    def span(self, addr: int, size: int) -> bytes | None:
        """All the bytes of a range; None where not all can be read.

        A third of what :meth:`gather` takes: the file is the memory's, so nobody looks again for
        the process, nor whether we may. But it also shows pages that the process itself has no
        right to read (FOLL_FORCE), so the kernel may refuse a call for what is read here.
        """
        file = self._file
        try:
            data = os.pread(self._open() if file is None else file, size, addr & _ADDRESS_BITS)
        except OSError:
            return None
        return data if len(data) == size else None

    def glance(self, addr: int, size: int) -> bytes | None:
        """As :meth:`span`, of a process of which it is asked often; else None."""
        if self._file is None and self._glances < _OFTEN:
            self._glances += 1
            return None
        return self.span(addr, size) if addr < _USER_END else None

    def _open(self) -> int:
        """The file for :meth:`span`; -1: there is none."""
        self._file = -1
        if not self._slow and LiveMemory.kept_open < _KEPT_OPEN:
            with suppress(OSError):
                self._file = os.open(f"/proc/{self.tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
                LiveMemory.kept_open += 1
        return self._file

    def be_careful(self) -> None:
        """From now on no read waits for long for a page (see careful.py)."""
        self.close()
        self.careful = self._slow = True

    def close(self) -> None:
        """Give back what is open; to be called when the memory is another, after an execve."""
        if self._file is not None:
            if self._file >= 0:
                os.close(self._file)
                LiveMemory.kept_open -= 1
            self._file = None
        if self._mem is not None:
            with suppress(OSError):
                os.close(self._mem)
            self._mem = None

    def _piece(self, addr: int, size: int) -> bytes:
        """Page by page, since a range that is partly unmapped may be refused whole."""
        if self._slow:
            return self._fallback(addr, size)
        _reserve(size)
        done = 0
        while done < size:
            filled = 0
            count = 0
            while done + filled < size and count < _PAGES_A_CALL:
                at = addr + done + filled
                step = min(PAGE - at % PAGE, size - done - filled)
                _remote[2 * count] = at
                _remote[2 * count + 1] = step
                filled += step
                count += 1
            _local[0] = ctypes.addressof(_buffer) + done
            _local[1] = filled
            got = _readv(self.tid, _local_address, 1, _remote_address, count, 0)
            _local[0] = ctypes.addressof(_buffer)
            if got < 0 and ctypes.get_errno() in (errno.EPERM, errno.ENOSYS):
                self._slow = True
                return _view[:done].tobytes() + self._fallback(addr + done, size - done)
            done += max(got, 0)
            if got < filled:
                break
        return _view[:done].tobytes()

    def _fallback(self, addr: int, size: int) -> bytes:
        if self.careful:
            return _carefully(self.tid, addr, size)
        if self._mem is None:
            try:
                self._mem = os.open(f"/proc/{self.tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return self._peek(addr, min(size, _MAX_PEEK))
        pieces: list[bytes] = []
        end = addr + size
        fresh = True
        while addr < end:
            step = min(end - addr, PAGE - addr % PAGE)
            try:
                piece = os.pread(self._mem, step, addr)
            except OSError:
                piece = b""
            pieces.append(piece)
            if not piece and fresh:
                # An execve since we opened it: the file is of the old image.
                self.close()
                fresh = False
                try:
                    self._mem = os.open(f"/proc/{self.tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
                except OSError:
                    break
                continue
            fresh = False
            if len(piece) < step:
                break
            addr += step
        return b"".join(pieces)

    def _peek(self, addr: int, size: int) -> bytes:
        from bpftrace_sys.record.ptrace.registers import peek

        word = 8
        start = addr - addr % word
        pieces: list[bytes] = []
        for at in range(start, addr + size, word):
            piece = peek(self.tid, at)
            if piece is None:
                break
            pieces.append(piece)
        return b"".join(pieces)[addr - start : addr - start + size]


def _carefully(tid: int, addr: int, size: int) -> bytes:
    global _reader
    if _reader is None:
        from bpftrace_sys.record.ptrace.careful import CarefulReader

        _reader = CarefulReader(_readv)
    pieces: list[bytes] = []
    end = addr + size
    while addr < end:
        step = min(end - addr, PAGE - addr % PAGE)
        piece = _reader.page(tid, addr, step)
        pieces.append(piece)
        addr += step
        if len(piece) < step:
            break
    return b"".join(pieces)


_reader: CarefulReader | None = None
