"""A call and the tracee's memory around it: structs, strings and data, within strace's limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bpftrace_sys.render.strace.fd_text import fd_text
from bpftrace_sys.render.strace.manner import Manner
from bpftrace_sys.render.strace.quoting import address, quoted
from decoders.call import Call
from decoders.raw import ENTRY, EXIT
from decoders.records import NamedTuple
from decoders.uapi import const
from decoders.walk.memory import Snapshot

PATH_MAX: Final = 4096


class PendingError(Exception):
    """What comes next is printed at the exit, which never came."""


class Frame(NamedTuple):
    """A struct at entry and at exit."""

    path: tuple[str, ...]
    """Of the struct, in ``Call.args``."""
    size: int
    """What the caller says that it is."""
    before: bytes
    after: bytes | None
    """None: the call has not returned."""
    late: bool = False
    """strace prints all of it at the exit."""


class CallMemory:
    """What is known of a call: its arguments, and memory at entry and at exit."""

    def __init__(self, call: Call, manner: Manner) -> None:
        self.call = call
        self.manner = manner
        self.names = manner.names
        self.limit = manner.string_limit
        self.verbose = manner.verbose or call.syscall.name in manner.unabbreviated
        self.decoded = call.syscall.name not in manner.undecoded
        """Whether structures are more than their address."""
        raw = call.raw
        self.failed: bool = raw.failed and not raw.extra.as_value
        self.before = Snapshot(chunk for chunk in raw.chunks if chunk.stage == ENTRY)
        self.after = (
            Snapshot(chunk for chunk in raw.chunks if chunk.stage == EXIT)
            if raw.ret is not None
            else None
        )
        self.args = (*raw.args, 0, 0, 0, 0, 0, 0)[:6]

    def exit(self) -> Snapshot:
        """Memory at exit."""
        if self.after is None:
            raise PendingError
        return self.after

    def fd(self, number: int) -> str:
        """An fd, with what it is where that is asked for."""
        text = str(number)
        if not self.manner.fds or number < 0:
            return text
        fact = self.call.fd(number)
        if fact is self.call.result_fd:
            fact = None  # which it has only become in this call
        return text + ("" if fact is None else fd_text(fact, self.manner.fds))

    def dirfd(self, number: int) -> str:
        """An fd of a folder, which may be AT_FDCWD."""
        if number != const.AT_FDCWD:
            return self.fd(number)
        text = self.names.named(str(number), "AT_FDCWD")
        fact = self.call.fd(number) if self.manner.fds else None
        return text + ("" if fact is None else fd_text(fact, self.manner.fds))

    def frame(self, path: tuple[str, ...], addr: int, size: int) -> Frame | None:
        """A struct of the tracee's; None where it cannot be read."""
        before = self.before.read(addr, size) if addr and self.decoded else None
        if before is None or len(before) < size:
            return None
        after: bytes | None = before
        if self.after is None:
            after = None
        else:
            written = self.after.read(addr, size)
            if written is not None and len(written) == size:
                after = written
        return Frame(path, size, before, after)

    def text(self, addr: int, most: int | None, memory: Snapshot | None) -> str:
        """A C string of at most ``most`` bytes, cut at the string limit."""
        if not addr:
            return "NULL"
        if memory is None:
            return address(addr)
        asked = self.limit + 1 if most is None else min(self.limit + 1, most)
        answer = memory.cstr(addr, asked) if asked else (b"", True)
        if answer is None:
            return address(addr)
        data, ended = answer
        if not ended and len(data) < asked:
            return address(addr)
        return quoted(data[: self.limit]) + ("" if ended else "...")

    def data(
        self, addr: int, size: int, memory: Snapshot | None, quote: Callable[[bytes], str]
    ) -> str:
        """``size`` bytes, cut at the string limit."""
        if not addr:
            return "NULL"
        if not size:
            return '""'
        wanted = min(size, self.limit + 1)
        found = None if memory is None else memory.read(addr, wanted)
        if found is None or len(found) < wanted:
            return address(addr)
        return quote(found[: self.limit]) + ("..." if size > self.limit else "")

    def path(self, addr: int) -> str:
        """A path name, whole."""
        if not addr:
            return "NULL"
        answer = self.before.cstr(addr, PATH_MAX)
        if answer is None:
            return address(addr)
        data, ended = answer
        if not ended and len(data) < PATH_MAX:
            return address(addr)
        return quoted(data) if ended else quoted(data[: PATH_MAX - 1]) + "..."
