"""A decoded call: what every later stage takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from decoders.raw import EXIT, FdFact, RawCall
from decoders.records import dataclass
from decoders.values import Changed, Fd, Pointer, Struct, Value

if TYPE_CHECKING:
    from decoders.declare.syscalls import Syscall


@dataclass(slots=True)
class Call:
    """A decoded call.  Frozen by convention: renderers only read it."""

    raw: RawCall
    syscall: Syscall
    args: Struct
    ret: Value | None
    """None: never returned, or not watched."""
    problem: str | None = None
    """A mistake of ours while decoding: the raw bytes are still there."""
    _command: str | None = None

    @property
    def command(self) -> str:
        """The bpf command's or ioctl request's name, or the syscall's own."""
        known = self._command
        if known is None:
            known = self._command = self.syscall.command(self.args)
        return known

    def attr(self, *path: str) -> Value | None:
        """A value by its path below the args, through pointers; None if not there."""
        value: Value | None = self.args
        for name in path:
            value = inner_value(value)
            if not isinstance(value, Struct):
                return None
            value = value.get(name)
        return value

    def number(self, *path: str) -> int | None:
        """The number at a path (the later one where it changed), or None."""
        return number_of(self.attr(*path))

    def fact(self, *path: str) -> FdFact | None:
        """What the fd at a path is."""
        value = self.attr(*path)
        return value.fact if isinstance(value, Fd) else None

    def fd(self, fd: int) -> FdFact | None:
        """What an fd was when the call was made; after it where only that is known."""
        for fact in self.raw.fds:
            if fact.fd == fd:
                return fact
        return None

    @property
    def result_fd(self) -> FdFact | None:
        """What the fd is that the call returned."""
        raw = self.raw
        if raw.ret is None or raw.failed:
            return None
        for fact in reversed(raw.fds):
            if fact.fd == raw.ret and fact.stage == EXIT:
                return fact
        return None


def number_of(value: Value | None) -> int | None:
    """A value's number (the later one where it changed), or None."""
    if isinstance(value, Changed):
        value = value.after
    if isinstance(value, Pointer):
        return value.addr
    number = getattr(value, "value", None)
    return number if isinstance(number, int) else None


def inner_value(value: Value | None) -> Value | None:
    """A value without its pointer and its past."""
    while isinstance(value, _OUTER):
        value = value.value if isinstance(value, Pointer) else value.after
    return value


_OUTER: Final = (Pointer, Changed)
"""Made once: ``Pointer | Changed`` is made anew each time that it is reached."""
