"""The trace file: one JSON object a line; writer and reader side by side.

Line types: ``trace`` (the header, first), ``fact``, ``syscall``, ``running``, ``process``,
``attachment``, ``flush``, ``end`` (last).  Only ``raw`` of a syscall, facts, processes and
the header are read back: everything else in a line is decoded again from them.
Readers pass over line types and fields that they do not know.

Bytes in ``raw`` are base64; longer pieces are compressed where that helps, and
a piece that came before is a number that counts the longer pieces so far.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, Final

from bpftrace_sys.common.strict_json import once
from bpftrace_sys.trace.events import ending_of, event_of
from bpftrace_sys.trace.facts import TEXT_LIMIT, too_long
from bpftrace_sys.trace.header import FORMAT, VERSION, Header
from bpftrace_sys.trace.items import End, Fact, Flush, Item, TraceError
from bpftrace_sys.trace.lines import _number, raw_call
from bpftrace_sys.trace.pieces import Pieces, unpack
from bpftrace_sys.trace.shapes import LineShapes
from bpftrace_sys.trace.writer import _zstandard
from decoders.loop_calls import TOGETHER, in_strands
from decoders.raw import RawCall

if TYPE_CHECKING:
    from decoders.loop_calls import Round, Rounds

LINE_LIMIT: Final = 128 << 20
"""Bytes of a line: a load of a million instructions with a log stays below."""
NOT_ASCII: Final = 16 << 20
"""Bytes of a line that is not ASCII, as ours are: each letter may take four in memory."""
PIECE: Final = 1 << 20
"""Bytes of a line that are read at a time."""
BRACKETS: Final = 1 << 20
"""Objects and lists in a line; each takes many times its two characters in memory."""
VALUES: Final = 2 << 20
"""Values in a line; so does each number."""
KEYS: Final = 256 << 10
"""Names of values in a line; they take most."""
ROWS: Final = 4 << 20
"""Instructions of listings in a line, which are not read back: the above does not count them."""
SMALL: Final = 256 << 10
"""Bytes of a line that cannot hold too much."""
BLANK_LIMIT: Final = 1000
"""Blank lines in a row that are passed over; a compressed file could hold billions."""


# ------------------------------------------------------------------ writing


# ------------------------------------------------------------------ reading


class _Unpacked(io.RawIOBase):
    """A zstd file, unpacked up to the last byte that a truncated one still gives.

    zstandard's own reader keeps back up to a block (128 KiB) at an unexpected end.
    """

    PIECE: Final = 1024
    """Packed bytes that are unpacked at once: 128 KiB for each 4 of them at worst."""

    def __init__(self, file: IO[bytes], unpacker: Any) -> None:
        self._file = file
        self._unpacker = unpacker
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any) -> int:
        while not self._ready and not self._unpacker.eof:
            piece = self._file.read(self.PIECE)
            if not piece:
                break
            self._ready = memoryview(self._unpacker.decompress(piece))
        size = min(len(room), len(self._ready))
        room[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


class Reader:
    """Streams a trace.  Raises TraceError where it cannot go on.

    ``header`` is there as soon as the Reader is; iterate for the items.
    """

    def __init__(self, path: str) -> None:
        self.path = "<stdin>" if path == "-" else path
        self.line = 0
        self.whole = False
        self.position: IO[bytes] | None = None
        self._is_file = False
        self._file = self._open(path)
        pieces = self._pieces = Pieces()
        # Not of self: a cycle would keep the file open until the garbage is looked for.
        self._shapes = LineShapes(lambda value: unpack(value, pieces))
        self._line: bytes | bytearray = b""
        """The line that is read; put away once it is text."""
        if not self._next():
            raise TraceError(self.path, 0, "empty: no trace was written here")
        self.header = self._header(self._parse())

    def _open(self, path: str) -> IO[bytes]:
        try:
            file: IO[bytes] = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115
            if path != "-":
                self.position = file
                self._is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            head = file.peek(4)[:4]  # type: ignore[attr-defined]
        except OSError as error:
            raise TraceError(self.path, 0, error.strerror or str(error)) from None
        if head[:2] == b"\x1f\x8b":
            import gzip

            return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
        if head == b"\x28\xb5\x2f\xfd":
            unpacker = _zstandard(self.path).ZstdDecompressor().decompressobj()
            return io.BufferedReader(_Unpacked(file, unpacker), 1 << 17)
        return file

    def _next(self) -> bool:
        """Reads the next line; False at the end of the file."""
        for _ in range(BLANK_LIMIT):
            self.line += 1
            try:
                text = self._read()
            except EOFError:
                raise self._error("the compressed file ends in the middle: truncated") from None
            except (OSError, zlib.error, ValueError) as error:
                raise self._error(f"cannot be read: {error}") from None
            except Exception as error:  # zstandard's own error class
                if type(error).__name__ != "ZstdError":
                    raise
                raise self._error(f"cannot be unpacked: {error}") from None
            if not text:
                return False
            if not text.isspace():
                self._line = text
                return True
        raise self._error(f"more than {BLANK_LIMIT} blank lines")

    def _read(self) -> bytes | bytearray:
        """A line as it comes; empty at the end of the file."""
        text = self._file.readline(PIECE)
        if len(text) < PIECE or text.endswith(b"\n"):
            return text
        long = bytearray(text)
        while text and not text.endswith(b"\n"):
            text = self._file.readline(PIECE)
            long += text
            if len(long) >= LINE_LIMIT:
                raise self._error(f"a line of more than {LINE_LIMIT} bytes")
        if len(long) > NOT_ASCII and not long.isascii():
            raise self._error(f"a line of more than {NOT_ASCII} bytes that are not ASCII")
        return long

    def _parse(self) -> dict[str, object]:
        """The object of the line that was read, without the lines of listings."""
        text = self._line
        if len(text) > SMALL and _too_much(text):
            raise self._error(
                f"a line with more than {BRACKETS} objects and lists, {VALUES} values or {KEYS} "
                "names of values"
            )
        begins = bytes(text[:16])
        whole = text.endswith(b"\n")
        try:
            decoded = text.decode(json.detect_encoding(text), "surrogatepass")
            if len(text) > PIECE:
                # Neither what was read nor what is made of it is to be there twice.
                self._line = text = b""
            line = _DECODER.decode(decoded)
        except UnicodeDecodeError:
            raise self._error(f"not a {FORMAT} trace: not UTF-8") from None
        except RecursionError:
            raise self._error("nested too deeply") from None
        except ValueError as error:
            what = str(error)
            if self.line == 1 and begins != b'{"type":"trace",':
                raise self._error(f"not a {FORMAT} trace: not JSON") from None
            if not whole:
                raise self._error("the line ends in the middle: the trace is truncated") from None
            raise self._error(f"not JSON: {what}") from None
        if not isinstance(line, dict):
            raise self._error("not a JSON object")
        return line

    def _header(self, line: dict[str, object]) -> Header:
        if line.get("format") != FORMAT or line.get("type") != "trace":
            raise self._error(f"not a {FORMAT} trace: its first line is not our header")
        version = line.get("version")
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            raise self._error("the header names no version of the format")
        if version > VERSION:
            raise self._error(
                f"written in version {version} of the format; this bpfstrace reads up to "
                f"version {VERSION}: use a newer bpfstrace"
            )
        argv, pmus = line.get("argv"), line.get("pmu_types")
        cpus, start, options = line.get("cpus"), line.get("start"), line.get("options")
        known = {"type", "format", "version", "bpfstrace", *Header.__slots__}
        return Header(
            argv=[str(word) for word in argv] if isinstance(argv, list) else [],
            kernel=str(line.get("kernel", "")),
            host=str(line.get("host", "")),
            machine=str(line.get("machine", "")),
            cpus=min(max(cpus, 1), 1 << 16) if isinstance(cpus, int) else 1,
            pmu_types={
                str(name): number
                for name, number in (pmus.items() if isinstance(pmus, dict) else ())
                if isinstance(number, int)
            },
            start=start if isinstance(start, int) else 0,
            options=options if isinstance(options, dict) else {},
            version=str(line.get("bpfstrace", "")),
            extra={key: value for key, value in line.items() if key not in known},
        )

    def _error(self, why: str) -> TraceError:
        return TraceError(self.path, self.line, why)

    def __iter__(self) -> Iterator[Item]:
        # Rounds only come where they are asked for.
        return self._items(False)  # type: ignore[return-value]

    def together(self) -> Iterator[Item | Rounds]:
        """The items, those calls of a loop that come one after the other together.

        Not of a pipe: it may be quiet after any line, which is not to be kept back.
        """
        rounds: list[Round] = []
        try:
            for item in self._items(self._is_file):
                if type(item) is tuple:
                    rounds.append(item)  # type: ignore[arg-type]
                    if len(rounds) < TOGETHER:
                        continue
                if rounds:
                    yield in_strands(rounds)
                    rounds = []
                if type(item) is not tuple:
                    yield item  # type: ignore[misc]
        except TraceError:
            if rounds:
                yield in_strands(rounds)
            raise
        if rounds:
            yield in_strands(rounds)

    def _items(self, together: bool) -> Iterator[Item | Round]:
        known = self._shapes.round if together else self._shapes.read
        while True:
            if not self._next():
                if not self.whole:
                    self.line = max(1, self.line - 1)
                    raise self._error(
                        "the trace ends without its end line: truncated, or still being written"
                    )
                return
            item = known(self._line) or self._held()
            if item is not None:
                yield item

    def _held(self) -> Item | None:
        """What the line that was read holds; None where it is one that we pass over."""
        line = self._parse()
        try:
            item = self._item(line)
        except (ValueError, TypeError, AttributeError, OverflowError) as error:
            raise self._error(f"a damaged line: {error}") from None
        if isinstance(item, RawCall):
            self._shapes.learn(self._line, item)
        return item

    def _item(self, line: dict[str, object]) -> Item | None:
        kind = line.get("type")
        if kind == "syscall":
            return raw_call(line, self._pieces)
        if kind == "running":
            from bpftrace_sys.trace.running import Running

            return Running.of(raw_call(line, Pieces()))
        if kind == "process":
            return event_of(line)
        if kind == "kernel_view":
            from bpftrace_sys.trace.kernel_view import view_of

            return view_of(line, lambda value: unpack(value, self._pieces))
        if kind in ("object", "unseen"):
            from bpftrace_sys.trace.inventory import state_of, unseen_of

            return state_of(line) if kind == "object" else unseen_of(line)
        if kind == "fact":
            return _fact(line)
        if kind == "attachment":
            return Flush()
        if kind == "flush":
            return Flush(lull=True)
        if kind == "end":
            self.whole = True
            return End(ending_of(line))
        return None


def _fact(line: dict[str, object]) -> Fact:
    """The Fact of a line; ValueError if it is longer than any that is recorded."""
    kind, name = str(line.get("kind")), str(line.get("name"))
    if len(kind) > TEXT_LIMIT or too_long(kind, name):
        raise ValueError(f"a fact of {len(kind) + len(name)} letters")
    return Fact(kind, _number(line.get("key"), "key"), name)


_ROWS: Final = frozenset({"pc", "offset", "what"})
"""What an instruction of a listing begins with: as loaded, native, and what became of it."""
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_ROW: Final = rb'\{ ?"(?:%b)" ?:[^"{}]{0,512}+(?:%b[^"{}]{0,512}+){0,16}+\}' % (
    "|".join(sorted(_ROWS)).encode(), _STRING
)  # fmt: skip
_PASSED: Final = re.compile(rb"(?:%b,? ?)++|%b" % (_ROW, _STRING), re.DOTALL)
"""Instructions of a listing, or a string."""


class _Outline:
    """What a line holds, counted."""

    def __init__(self) -> None:
        self.brackets = self.commas = self.colons = 0

    def count(self, text: bytes | bytearray, start: int, end: int) -> None:
        """Counts a part of it."""
        self.brackets += text.count(b"{", start, end) + text.count(b"[", start, end)
        self.commas += text.count(b",", start, end)
        self.colons += text.count(b":", start, end)

    def too_much(self) -> bool:
        """Whether that would take too much memory."""
        return self.brackets > BRACKETS or self.commas > VALUES or self.colons > KEYS


def _too_much(text: bytes | bytearray) -> bool:
    """Whether what a line holds would take too much memory; what is in strings does not count."""
    whole = _Outline()
    whole.count(text, 0, len(text))
    if not whole.too_much():
        return False
    outline = _Outline()
    at = rows = 0
    for passed in _PASSED.finditer(text):
        start, end = passed.span()
        outline.count(text, at, start)
        if text[start] == ord("{"):
            rows += text.count(b"{", start, end)
        if outline.too_much() or rows > ROWS:
            return True
        at = end
    outline.count(text, at, len(text))
    return outline.too_much()


def _kept(pairs: list[tuple[str, object]]) -> dict[str, object] | None:
    """An object of a line; None for a listing's instruction, which is made anew of ``raw``."""
    return None if pairs and pairs[0][0] in _ROWS else once(pairs)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_kept)
