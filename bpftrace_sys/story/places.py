"""Where in a program's source an instruction comes from, as its BTF says."""

from __future__ import annotations

from bpftrace_sys.story.listing import listing_of
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import NotedCall
from decoders.records import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """An instruction, and what of its source BTF holds; all of that may be missing."""

    pc: int
    insn: str
    """The instruction, with its comment."""
    file: str = ""
    """As the compiler was given it, mostly relative to where that ran."""
    line: int = 0
    column: int = 0
    """Both from 1; 0 where the compiler did not say."""
    source: str = ""
    """The line itself."""
    function: str = ""
    """The prototype of the function around."""

    @property
    def where(self) -> str:
        """``bad.bpf.c:11:8``; empty where no file or line is known."""
        return f"{self.file}:{self.line}:{self.column}" if self.file and self.line else ""


def place_of(call: NotedCall, model: Model, pc: int) -> Place | None:
    """The place of an instruction of a PROG_LOAD; None where the trace lacks it."""
    listing = listing_of(call, model)
    row = None
    source = where = function = None
    for line in listing.lines if listing is not None else ():
        if line.pc > pc:
            break
        row = line
        if line.source is not None:
            source, where = line.source, line.where
        if line.function is not None:
            function = line.function
    if row is None or row.pc != pc:
        return None
    insn = row.text if row.comment is None else f"{row.text}   /* {row.comment} */"
    file, line_number, column = _split(where or "")
    return Place(pc, insn, file, line_number, column, source or "", function or "")


def _split(where: str) -> tuple[str, int, int]:
    """A listing's ``file:line:column``; a file's name may hold colons of its own."""
    rest, _, column = where.rpartition(":")
    file, _, line = rest.rpartition(":")
    if not line.isdecimal() or not column.isdecimal():
        return "", 0, 0
    return file, int(line), int(column)
