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
import sys
import zlib
from collections.abc import Iterator
from typing import IO, Any, Final

from bpftrace_sys.common.strict_json import once
from bpftrace_sys.trace.events import ending_of, event_of
from bpftrace_sys.trace.header import FORMAT, VERSION, Header
from bpftrace_sys.trace.items import End, Fact, Flush, Item, TraceError
from bpftrace_sys.trace.lines import _number, raw_call
from bpftrace_sys.trace.pieces import Pieces, unpack
from bpftrace_sys.trace.shapes import LineShapes
from bpftrace_sys.trace.writer import _zstandard
from decoders.raw import RawCall

LINE_LIMIT: Final = 128 << 20
"""Bytes of a line: a load of a million instructions with a log stays below."""
BRACKETS: Final = 4 << 20
"""Objects and lists in a line; each takes many times its two characters in memory."""
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
        self._file = self._open(path)
        pieces = self._pieces = Pieces()
        # Not of self: a cycle would keep the file open until the garbage is looked for.
        self._shapes = LineShapes(lambda value: unpack(value, pieces))
        first = self._text()
        if first is None:
            raise TraceError(self.path, 0, "empty: no trace was written here")
        self.header = self._header(self._parse(first))

    def _open(self, path: str) -> IO[bytes]:
        try:
            file: IO[bytes] = sys.stdin.buffer if path == "-" else open(path, "rb")  # noqa: SIM115
            if path != "-":
                self.position = file
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

    def _text(self) -> bytes | None:
        """The next line; None at the end of the file."""
        for _ in range(BLANK_LIMIT):
            self.line += 1
            try:
                text = self._file.readline(LINE_LIMIT)
            except EOFError:
                raise self._error("the compressed file ends in the middle: truncated") from None
            except (OSError, zlib.error, ValueError) as error:
                raise self._error(f"cannot be read: {error}") from None
            except Exception as error:  # zstandard's own error class
                if type(error).__name__ != "ZstdError":
                    raise
                raise self._error(f"cannot be unpacked: {error}") from None
            if not text:
                return None
            if len(text) >= LINE_LIMIT:
                raise self._error(f"a line of more than {LINE_LIMIT} bytes")
            if not text.isspace():
                return text
        raise self._error(f"more than {BLANK_LIMIT} blank lines")

    def _parse(self, text: bytes) -> dict[str, Any]:
        if text.count(b"{") + text.count(b"[") > BRACKETS:
            raise self._error(f"a line with more than {BRACKETS} objects and lists")
        try:
            line = _DECODER.decode(text.decode(json.detect_encoding(text), "surrogatepass"))
        except UnicodeDecodeError:
            raise self._error(f"not a {FORMAT} trace: not UTF-8") from None
        except RecursionError:
            raise self._error("nested too deeply") from None
        except ValueError as error:
            what = str(error)
            if self.line == 1 and not text.startswith(b'{"type":"trace"'):
                raise self._error(f"not a {FORMAT} trace: not JSON") from None
            if not text.endswith(b"\n"):
                raise self._error("the line ends in the middle: the trace is truncated") from None
            raise self._error(f"not JSON: {what}") from None
        if not isinstance(line, dict):
            raise self._error("not a JSON object")
        return line

    def _header(self, line: dict[str, Any]) -> Header:
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
        while True:
            text = self._text()
            if text is None:
                if not self.whole:
                    self.line = max(1, self.line - 1)
                    raise self._error(
                        "the trace ends without its end line: truncated, or still being written"
                    )
                return
            item: Item | None = self._shapes.read(text)
            if item is None:
                line = self._parse(text)
                try:
                    item = self._item(line)
                except (ValueError, TypeError, AttributeError, OverflowError) as error:
                    raise self._error(f"a damaged line: {error}") from None
                if isinstance(item, RawCall):
                    self._shapes.learn(text, item)
            if item is not None:
                yield item

    def _item(self, line: dict[str, Any]) -> Item | None:
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
            return Fact(
                str(line.get("kind")), _number(line.get("key"), "key"), str(line.get("name"))
            )
        if kind == "attachment":
            return Flush()
        if kind == "flush":
            return Flush(lull=True)
        if kind == "end":
            self.whole = True
            return End(ending_of(line))
        return None


_DECODER: Final = json.JSONDecoder(object_pairs_hook=once)
