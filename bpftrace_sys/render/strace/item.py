"""What a format gets: a field that is about to be printed, and the struct around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Final

from bpftrace_sys.render.strace.call_memory import CallMemory, Frame
from bpftrace_sys.render.strace.constants import Constants
from bpftrace_sys.render.strace.places import Place
from bpftrace_sys.render.strace.quoting import address
from decoders.records import NamedTuple
from decoders.walk.memory import Snapshot

ELEMENTS: Final = 1 << 16
"""Elements of an array that are written; strace writes a million instructions in one line, too,
but bit by bit."""
BATCH: Final = 4_096
"""Elements that are joined at a time: so they are not all there one by one."""


class Item(NamedTuple):
    """A field that is about to be printed."""

    line: CallMemory
    frame: Frame
    name: str
    place: Place
    value: int
    late: bool
    """Printed at the exit."""
    memory: Snapshot | None
    many: int | None
    """What its length says; None if its row names none."""
    inner: Callable[[str, Frame], str]
    """The text of a struct that the field leads to, by the name of its row."""

    @property
    def names(self) -> Constants:
        """How numbers with names are printed."""
        return self.line.names

    def raw(self) -> bytes:
        """The bytes of the field."""
        frame = self.frame
        data = frame.after if self.late and frame.after is not None else frame.before
        return data[self.place.offset : self.place.end].ljust(self.place.size, b"\0")

    def decoded(self) -> Any:
        """The field's value as the decoder has it: with names that our tables lack."""
        return self.line.call.attr(*self.frame.path, *self.name.split("."))

    def array(
        self, size: int, show: Callable[[bytes], Iterable[str]], most: int | None = None
    ) -> str:
        """``count`` elements of ``size`` bytes behind the pointer, ``most`` of them; without -v
        no more than the string limit."""
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
        whole = min(len(data) // size, ELEMENTS)
        if not self.line.verbose and self.many > self.line.limit:
            most = self.line.limit if most is None else min(self.line.limit, most)
        if most is not None and whole > most:
            return f"[{', '.join([*show(data[: most * size]), '...'])}]"
        elements = iter(show(data[: whole * size]))
        shown = []
        while some := ", ".join(islice(elements, BATCH)):
            shown.append(some)
        if whole < self.many:
            shown.append(f"... /* {self.value + whole * size:#x} */")
        return f"[{', '.join(shown)}]"
