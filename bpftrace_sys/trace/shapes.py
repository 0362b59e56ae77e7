"""Reading loops: lines like an earlier one but for seq, times and data are not parsed again.

A line that has been parsed is cut where such a line may differ; one that has the
same text between the cuts says the same, but for what stands there.  Whatever
differs elsewhere is parsed, and what is read is the same either way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from decoders.loop_calls import may_repeat
from decoders.raw import NOTHING, Chunk, RawCall

if TYPE_CHECKING:
    from decoders.loop_calls import Round

REMEMBERED: Final = 256
"""Calls that were seen, of which those that come again are learned."""
SHAPES: Final = 16
"""Lines that are known at a time; each is tried."""
ATTEMPTS: Final = 3
"""How often a call is learned whose lines do not match what was learned of them."""
LONGEST: Final = 1 << 14
"""Bytes of a line that is worth remembering."""
_NUMBER: Final = rb"(0|[1-9][0-9]{0,18})"
_HEAD: Final = re.compile(
    rb'\{"type":"syscall","seq":%b,"time":%b,"duration":%b,' % ((_NUMBER,) * 3)
)
_HEX: Final = re.compile(rb'(?<="hex":")[0-9a-f]+(?=")')
"""Data in ``args``; in a text of the tracee's these quotes would be escaped."""
_RAW: Final = b',"raw":'
_HOLE: Final = "\0"

Unpack = Callable[[Any], bytes]
"""Bytes of ``raw`` as they stand in JSON -> the bytes; ValueError if that is not what they are."""


class _Shape:
    """The text of lines that are alike, from behind their head on, and the first one's call."""

    __slots__ = ("_first", "_last", "_numbers", "_parts", "_repeats", "_sizes", "_skipped")

    def __init__(
        self, first: RawCall, parts: list[bytes], skipped: int, numbers: list[int | None]
    ) -> None:
        self._first = first
        *self._parts, self._last = parts
        self._skipped = skipped
        """How many of the holes are in ``args``, which is not read."""
        self._numbers = numbers
        """For each chunk the piece that it is, or None where it stands in a hole."""
        self._repeats = may_repeat(first)
        """Whether others may be rounds of the first."""
        self._sizes = [len(chunk.data) for chunk in first.chunks]

    def filled(self, text: bytes, at: int) -> list[bytes] | None:
        """What stands in the holes; None where anything else differs."""
        fill = []
        for part in self._parts:
            if not text.startswith(part, at):
                return None
            at += len(part)
            end = text.find(b'"', at)
            if end < 0:
                return None
            fill.append(text[at:end])
            at = end
        if text[at:] != self._last:
            return None
        for word in fill[: self._skipped]:
            if not word.isalnum():
                return None
        for word in fill[self._skipped :]:
            if b"\\" in word:
                return None  # JSON would have another word for it
        return fill[self._skipped :]

    def call(
        self, fill: list[bytes], head: re.Match[bytes], unpack: Unpack, together: bool
    ) -> RawCall | Round:
        """The call of a line, ``together`` as a round of the first one if it may be; ValueError
        where its data cannot be unpacked."""
        first = self._first
        left = iter(fill)
        pieces = [
            unpack(next(left).decode("ascii") if number is None else number)
            for number in self._numbers
        ]
        seq, time, duration = map(int, head.groups())
        attr, *data = pieces
        whole = together and [len(piece) for piece in pieces] == self._sizes
        if whole and self._repeats and attr == first.chunks[0].data:
            return first, seq, time, duration, tuple(data)
        chunks = [
            Chunk(stage, addr, piece, len(piece))
            for (stage, addr, _, _), piece in zip(first.chunks, pieces, strict=True)
        ]
        return RawCall(
            seq, time, first.pid, first.tid, first.comm, first.arch, first.nr, first.args,
            first.ret, first.failed, duration, chunks, list(first.fds), first.watched_exit,
        )  # fmt: skip


class LineShapes:
    """The lines of a trace that were seen more than once."""

    def __init__(self, unpack: Unpack) -> None:
        self._unpack = unpack
        self._seen: dict[Any, int] = {}
        self._shapes: list[_Shape] = []

    def read(self, text: bytes | bytearray) -> RawCall | None:
        """The call of a line like one before; None: it has to be parsed."""
        return self._found(text, False)  # type: ignore[return-value]

    def round(self, text: bytes | bytearray) -> RawCall | Round | None:
        """The same, as a round of that one where it may be."""
        return self._found(text, True)

    def _found(self, text: bytes | bytearray, together: bool) -> RawCall | Round | None:
        if not self._shapes:
            return None
        if not isinstance(text, bytes):
            return None  # a long one
        head = _HEAD.match(text)
        if head is None:
            return None
        for shape in self._shapes:
            fill = shape.filled(text, head.end())
            if fill is not None:
                try:
                    return shape.call(fill, head, self._unpack, together)
                except ValueError:
                    return None  # parsing finds it as well, and says it
        return None

    def learn(self, text: bytes | bytearray, raw: RawCall) -> None:
        """Takes a parsed line for a model, when a call like it has been there before."""
        if raw.extra != NOTHING or raw.stack is not None or not raw.chunks:
            return
        if not isinstance(text, bytes) or len(text) > LONGEST or not _HEAD.match(text):
            return
        places = tuple((chunk.stage, chunk.addr, len(chunk.data)) for chunk in raw.chunks)
        ids = tuple(fact.id for fact in raw.fds)
        key = (raw.tid, raw.args, raw.ret, raw.chunks[0].data, places, ids)
        times = self._seen.get(key, 0)
        if len(self._seen) >= REMEMBERED:
            self._seen.clear()
        self._seen[key] = times + 1
        if 0 < times <= ATTEMPTS:
            shape = _shape(text, raw)
            if shape is not None:
                self._shapes.insert(0, shape)
                del self._shapes[SHAPES:]


def _shape(text: bytes, raw: RawCall) -> _Shape | None:
    """None for a line that is not as we write it."""
    head = _HEAD.match(text)
    at = text.rfind(_RAW)
    if head is None or at < 0:
        return None
    # What is left after the last ``raw`` closes one brace more than it opens: so it is the line's.
    rest = b"{" + text[at + 1 :]
    try:
        line = json.loads(rest)
    except ValueError:
        return None
    if [*line] != ["raw"] or _dumps(line) + b"\n" != rest:
        return None
    entries = [*line["raw"].get("entry", ()), *line["raw"].get("exit", ())]
    if any(len(entry) != 2 or isinstance(entry[1], dict) for entry in entries):
        return None
    numbers = [entry[1] if isinstance(entry[1], int) else None for entry in entries]
    for entry, number in zip(entries, numbers, strict=True):
        if number is None:
            entry[1] = _HOLE
    begin, *parts = _dumps(line).split(_dumps(_HOLE)[1:-1])
    if len(parts) != numbers.count(None) or not parts:
        return None
    parts[-1] += b"\n"
    *middle, before = _HEX.split(text[head.end() : at])
    found = [*middle, before + b"," + begin[1:], *parts]
    shape = _Shape(raw, found, len(middle), numbers)
    return shape if shape.filled(text, head.end()) is not None else None


def _dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
