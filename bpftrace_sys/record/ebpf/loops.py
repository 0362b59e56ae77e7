"""Calls of loops in the ring: read as what differs from an earlier one, without being taken apart.

A program that fills or dumps a map makes the same few calls thousands of times. Their records in
the ring are the same, byte for byte, but for numbers, times, and the data behind the attr's
pointers: these are cut out of a record whose other bytes are those of an earlier one.
"""

from __future__ import annotations

import operator
import struct
from typing import TYPE_CHECKING, Final

from bpftrace_sys.record.ebpf.layout import DATA, FD, HEADER, PIECE
from bpftrace_sys.record.ebpf.ring import HEAD
from decoders.loop_calls import Strand, may_repeat
from decoders.raw import ENTRY, EXIT

if TYPE_CHECKING:
    from decoders.loop_calls import Round
    from decoders.raw import RawCall

COMMON: Final = struct.calcsize("<IIQQQ")
"""Where in a call's header begins what the calls of a loop have in common: who, what, result."""
REMEMBERED: Final = 256
"""Headers; a program has few loops."""
MODELS: Final = 4
"""Calls with one header, but other attrs: a loop may use a few buffers in turn."""
FEW: Final = 16
"""Records that are read at once when a loop begins."""
TOGETHER: Final = 512
"""The most that are."""
HOPELESS: Final = 64
"""Calls with one header of which none was like another: no more of them are taken for models."""


class Model:
    """A call, and where in its record stands what others like it have of their own."""

    __slots__ = ("_call", "_form", "_many", "_offset", "_same")

    def __init__(self, call: RawCall, form: struct.Struct, buffer: memoryview, at: int) -> None:
        self._call = call
        self._form = form
        self._same, (_, began, _), _ = _parts(form, buffer, at)
        self._offset = call.time - began
        self._many: struct.Struct | None = None
        """The same with what the ring has between records."""

    def round(self, buffer: memoryview, at: int) -> Round | None:
        """What a record with the same header has of its own; None where more than that differs."""
        same, (number, began, ended), data = _parts(self._form, buffer, at)
        if same != self._same:
            return None
        return (self._call, number, began + self._offset, ended - began, data)

    def strand(self, records: memoryview) -> Strand | None:
        """The same of records of one size, from the first on as far as they are rounds; None
        where the first two are not. ``records``: with their heads, in the ring."""
        if self._many is None:
            pad = -self._form.size & 7
            self._many = struct.Struct(f"<{HEAD}x{self._form.format[1:]}{pad}x")
        columns = list(zip(*self._many.iter_unpack(records), strict=True))
        first, numbers, began, ended, *parts = columns
        count = len(first)
        for column, same in zip((first, *parts[::2]), self._same, strict=True):
            if column.count(same) != len(column):
                count = min(count, next(at for at, one in enumerate(column) if one != same))
        if count < 2:
            return None
        offset = self._offset
        strand = Strand(
            self._call, numbers, [time + offset for time in began],
            list(map(operator.sub, ended, began)), tuple(parts[1::2]),
        )  # fmt: skip
        return strand if count == len(first) else strand.part(0, count)


def _parts(
    form: struct.Struct, buffer: memoryview, at: int
) -> tuple[tuple[bytes, ...], tuple[int, int, int], tuple[bytes, ...]]:
    """What is the same in all records of a loop; number, beginning and end; data."""
    first, number, began, ended, *parts = form.unpack_from(buffer, at)
    return (first, *parts[::2]), (number, began, ended), tuple(parts[1::2])


def _form(buffer: memoryview, at: int) -> struct.Struct | None:
    """How a record is cut: what is the same and what is not, in turn. None: it is no loop's, or
    not all of the call."""
    *_, apart, _, area, _, _ = HEADER.unpack_from(buffer, at)
    if apart:
        return None  # some of it came ahead
    size = HEADER.size
    same, form = size - COMMON, "<8sQQQ"
    place, attr = size, True
    while place < size + area:
        _, wanted, got, kind, stage = PIECE.unpack_from(buffer, at + place)
        pad = -got & 7
        place += PIECE.size + got + pad
        if kind == DATA and (got != wanted or stage not in (ENTRY, EXIT)):
            return None
        if kind == FD or (kind == DATA and attr):
            attr = attr and kind == FD
            same += PIECE.size + got + pad
        elif kind == DATA:
            # What stands in the padding is left from other calls.
            form += f"{same + PIECE.size}s{got}s{pad}x"
            same = 0
        else:
            return None
    return struct.Struct(f"{form}{same}s")


def _alike(buffer: memoryview, at: int, size: int, most: int) -> memoryview:
    """The records from one on that have its size, with their heads: up to ``most``. Their heads
    are read before anything else of them is: with those they are whole."""
    step = size + HEAD + 7 & ~7
    start = at - HEAD
    form = f"<I{step - 4}x"
    heads = [head for (head,) in struct.iter_unpack(form, buffer[start : start + most * step])]
    if heads.count(size) != len(heads):
        most = next(number for number, head in enumerate(heads) if head != size)
    return buffer[start : start + most * step]


class Loop:
    """Calls with one header."""

    __slots__ = ("misses", "models")

    def __init__(self) -> None:
        self.models: list[Model] = []
        """The newest first."""
        self.misses = 0
        """Calls that fitted none, since one did."""


class RingLoops:
    """The models of a trace's calls."""

    def __init__(self) -> None:
        self._loops: dict[bytes, Loop] = {}
        """By the headers of calls that were seen."""
        self._last: Model | None = None
        """What the call before was a round of."""
        self._ahead = 1
        """How many like it may follow: as many as there were, and as many again."""

    def rounds(self, buffer: memoryview, at: int, size: int, room: int) -> Round | Strand | None:
        """A call's record as a round of one that is known, or with those behind it, in ``room``
        bytes, as several; None: it has to be taken apart."""
        loop = self._loops.get(bytes(buffer[at + COMMON : at + HEADER.size]))
        if loop is None:
            return None
        for model in loop.models:
            again = model is self._last
            many = min(self._ahead, (room + HEAD) // (size + HEAD + 7 & ~7)) if again else 1
            if many > 1:
                strand = model.strand(_alike(buffer, at, size, many))
                if strand is not None:
                    loop.misses = 0
                    self._ahead = min(2 * strand.size, TOGETHER)
                    return strand
            found = model.round(buffer, at)
            if found is not None:
                loop.misses = 0
                self._last = model
                self._ahead = FEW if again else 1
                return found
        return None

    def learn(self, raw: RawCall, buffer: memoryview, at: int) -> None:
        """Takes a call for a model when one with its header comes for the second time."""
        if not may_repeat(raw):
            return
        header = bytes(buffer[at + COMMON : at + HEADER.size])
        loop = self._loops.get(header)
        if loop is None:
            if len(self._loops) >= REMEMBERED:
                self._loops.clear()
            self._loops[header] = Loop()
            return
        loop.misses += 1
        if loop.misses > HOPELESS:
            loop.models.clear()
            return
        form = _form(buffer, at)
        if form is not None:
            loop.models.insert(0, Model(raw, form, buffer, at))
            del loop.models[MODELS:]
