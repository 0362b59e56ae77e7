"""What a format gets: a field that is about to be printed, and the struct around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from bpftrace_sys.render.strace.places import Place
from bpftrace_sys.render.strace.quoting import address
from decoders.walk.memory import Snapshot

if TYPE_CHECKING:
    from bpftrace_sys.render.strace.line import Line

class PendingError(Exception):
    """What comes next is printed at the exit, which never came."""


class Item(NamedTuple):
    """A field that is about to be printed."""

    line: Line
    frame: Frame
    name: str
    place: Place
    value: int
    late: bool
    """Printed at the exit."""
    memory: Snapshot | None
    many: int | None
    """What its length says; None if its row names none."""

    def raw(self) -> bytes:
        """The bytes of the field."""
        frame = self.frame
        data = frame.after if self.late and frame.after is not None else frame.before
        return data[self.place.offset : self.place.end].ljust(self.place.size, b"\0")

    def decoded(self) -> Any:
        """The field's value as the decoder has it: with names that our tables lack."""
        return self.line.call.attr(*self.frame.path, *self.name.split("."))

    def array(self, size: int, show: Callable[[bytes], Iterable[str]]) -> str:
        """``count`` elements of ``size`` bytes behind the pointer."""
        if not self.value:
            return "NULL"
        if not self.many:
            return "[]"
        data = None
        # What a failed call should have written is not worth strace's reading.
        if self.memory is not None and not (self.late and self.line.failed):
            data = self.memory.read(self.value, self.many * size)
        if not data or len(data) < size:
            return address(self.value)
        whole = len(data) // size
        shown = list(show(data[: whole * size]))
        if whole < self.many:
            shown.append(f"... /* {self.value + whole * size:#x} */")
        return f"[{', '.join(shown)}]"


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
