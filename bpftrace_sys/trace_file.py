"""The trace file: one JSON object a line; writer and reader side by side.

Line types: ``trace`` (the header, first), ``fact``, ``syscall``, ``process``,
``attachment``, ``flush``, ``end`` (last).  Only ``raw`` of a syscall, facts, processes and
the header are read back: everything else in a line is decoded again from them.
Readers pass over line types and fields that they do not know.

Bytes in ``raw`` are base64; longer pieces are compressed where that helps, and
a piece that came before is a number that counts the longer pieces so far.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import os
import re
import sys
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final, TypeAlias

from bpftrace_sys.header import FORMAT, VERSION, Header
from bpftrace_sys.line_shapes import LineShapes
from decoders.events import ProcessEvent
from decoders.raw import ENTRY, EXIT, Chunk, FdFact, RawCall

NUMBERED: Final = 64
"""Bytes from which a piece is counted, so that it need not be written twice."""
COMPRESSED: Final = 256
"""Bytes from which compression is tried."""
REMEMBERED: Final = 64 << 20
"""Bytes of pieces that reader and writer remember; the oldest go first."""
OVERHEAD: Final = 256
"""What a piece counts for above its bytes: remembering it takes that much."""
LINE_LIMIT: Final = 128 << 20
"""Bytes of a line: a load of a million instructions with a log stays below."""
BRACKETS: Final = 4 << 20
"""Objects and lists in a line; each takes many times its two characters in memory."""
PIECE_LIMIT: Final = 64 << 20
CALL_LIMIT: Final = 256 << 20
"""Bytes that the pieces of one call may unpack to."""
BLANK_LIMIT: Final = 1000
"""Blank lines in a row that are passed over; a compressed file could hold billions."""


class TraceError(Exception):
    """A trace file that cannot be read on; says where and why."""

    def __init__(self, path: str, line: int, why: str) -> None:
        place = f"{path}:{line}" if line else path
        super().__init__(f"{place}: {why}")
        self.path = path
        self.line = line
        self.why = why


@dataclass(slots=True)
class Fact:
    """A name that only the machine of the trace knew."""

    kind: str
    key: int
    name: str


@dataclass(slots=True)
class Flush:
    """An attachment stood here: whatever the model held back came out at this point.

    ``idle``: a ``flush`` stood here: all that waited to be told was told.
    """

    idle: bool = False


@dataclass(slots=True)
class End:
    """The trace is whole."""

    status: dict[str, Any]


Item: TypeAlias = RawCall | ProcessEvent | Fact | Flush | End


class Pieces:
    """The numbered pieces so far; the same rule for writing and reading."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, int] = {}
        self._by_number: OrderedDict[int, bytes] = OrderedDict()
        """A piece, or where it need not be known again the digest and size of it."""
        self._size = 0
        self._next = 0

    def known(self, data: bytes) -> int | None:
        """The number of a piece that is still remembered (writing)."""
        return self._by_digest.get(_digest(data))

    def holds(self, number: int) -> bool:
        """Whether a piece is still remembered."""
        return number in self._by_number

    def piece(self, number: int) -> bytes:
        """The piece of a number; KeyError if there is none (reading)."""
        return self._by_number[number]

    def add(self, data: bytes, keep: bool) -> None:
        """Counts a piece.  ``keep``: its bytes are needed (reading)."""
        if keep:
            self._by_number[self._next] = data
        else:
            digest = _digest(data)
            self._by_digest[digest] = self._next
            self._by_number[self._next] = len(data).to_bytes(8, "little") + digest
        self._next += 1
        self._size += len(data) + OVERHEAD
        while self._size > REMEMBERED:
            number, old = self._by_number.popitem(last=False)
            if keep:
                self._size -= len(old) + OVERHEAD
                continue
            self._size -= int.from_bytes(old[:8], "little") + OVERHEAD
            if self._by_digest.get(old[8:]) == number:
                del self._by_digest[old[8:]]


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def pack(data: bytes, pieces: Pieces) -> Any:
    """Bytes as JSON: base64, {"z": ...} compressed, or the number of an earlier piece."""
    if len(data) >= NUMBERED:
        number = pieces.known(data)
        if number is not None:
            return number
        pieces.add(data, keep=False)
        if len(data) >= COMPRESSED:
            small = zlib.compress(data, 6)
            if len(small) < len(data) * 9 // 10:
                return {"z": base64.b64encode(small).decode("ascii")}
    return base64.b64encode(data).decode("ascii")


def unpack(value: Any, pieces: Pieces) -> bytes:
    """The bytes again; ValueError if that is not what they are."""
    if isinstance(value, int):
        try:
            return pieces.piece(value)
        except KeyError:
            raise ValueError(f"piece {value} of raw has not been seen") from None
    try:
        if isinstance(value, dict):
            packed = base64.b64decode(value["z"], validate=True)
            engine = zlib.decompressobj()
            data = engine.decompress(packed, PIECE_LIMIT)
            if engine.unconsumed_tail:
                raise ValueError(f"a piece of raw unpacks to more than {PIECE_LIMIT} bytes")
        elif isinstance(value, str):
            data = base64.b64decode(value, validate=True)
        else:
            raise ValueError("bytes of raw are neither text, number nor object")
    except (binascii.Error, zlib.error, KeyError, TypeError) as error:
        raise ValueError(f"bytes of raw cannot be unpacked: {error}") from None
    if len(data) >= NUMBERED:
        pieces.add(data, keep=True)
    return data


_STAGES: Final = ((ENTRY, "entry"), (EXIT, "exit"))


def raw_line(raw: RawCall, packed: Callable[[bytes], Any]) -> dict[str, Any]:
    """A RawCall as the ``raw`` field of its line; ``packed`` makes JSON of bytes."""
    line: dict[str, Any] = {
        "arch": raw.arch,
        "nr": raw.nr,
        "args": [f"{arg:#x}" for arg in raw.args],
    }
    for stage, name in _STAGES:
        chunks = [
            [f"{chunk.addr:#x}", packed(chunk.data)]
            + ([chunk.wanted] if chunk.wanted != len(chunk.data) else [])
            for chunk in raw.chunks
            if chunk.stage == stage
        ]
        if chunks:
            line[name] = chunks
    if raw.fds:
        line["fds"] = fds_line(raw)
    if not raw.watched_exit:
        line["watched_exit"] = False
    if raw.extra:
        line["extra"] = raw.extra
    return line


def fds_line(raw: RawCall) -> list[Any]:
    """What was known of a RawCall's fds, as ``raw.fds``."""
    return [[fact.fd, fact.stage, fact.kind, fact.info] for fact in raw.fds]


def _int(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{what} is not a number")
    return value


def _number(value: Any, what: str) -> int:
    if isinstance(value, str):
        return int(value, 16)
    return _int(value, what)


_TAG: Final = re.compile("[0-9a-f]{1,64}")


def _fd_fact(entry: Any) -> FdFact:
    """An fd of ``raw.fds``; what is shown without quotes has to look as the kernel writes it."""
    if not isinstance(entry, list) or len(entry) < 4:
        raise ValueError("an fd of raw is not [fd, stage, kind, info]")
    fd, stage, kind, info = entry[:4]
    if not isinstance(kind, str) or not isinstance(info, dict):
        raise ValueError("an fd of raw is not [fd, stage, kind, info]")
    for name, value in info.items():
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(f"{name[:40]!r} of an fd is neither number nor text")
    tag = info.get("prog_tag", "0")
    if not isinstance(tag, str) or not _TAG.fullmatch(tag):
        raise ValueError("the prog_tag of an fd is not in hex")
    return FdFact(_int(fd, "an fd"), _int(stage, "a stage"), kind, info)


def raw_call(line: dict[str, Any], pieces: Pieces) -> RawCall:
    """The RawCall of a syscall line; ValueError if it is not well formed."""
    raw = line.get("raw")
    if not isinstance(raw, dict):
        raise ValueError("a syscall without raw")
    chunks: list[Chunk] = []
    size = 0
    for stage, name in _STAGES:
        for entry in raw.get(name, ()):
            if not isinstance(entry, list) or len(entry) < 2:
                raise ValueError(f"a chunk of raw.{name} is not [address, bytes, ...]")
            data = unpack(entry[1], pieces)
            size += len(data)
            if size > CALL_LIMIT:
                raise ValueError(f"the raw of one call unpacks to more than {CALL_LIMIT} bytes")
            wanted = _int(entry[2], "a chunk's size") if len(entry) > 2 else len(data)
            chunks.append(Chunk(stage, _number(entry[0], "an address"), data, wanted))
    fds = [_fd_fact(entry) for entry in raw.get("fds", ())]
    args = raw.get("args")
    if not isinstance(args, list):
        raise ValueError("raw.args is not a list")
    ret = line.get("ret")
    failed = "errno" in line
    if ret is not None:
        ret = _int(ret, "ret")
        if failed:
            ret = -_int(line.get("errnum", 0), "errnum")
    duration = line.get("duration")
    extra = raw.get("extra")
    stack = None
    if "stack" in line:
        from bpftrace_sys.stacks.lines import stack_of

        stack = stack_of(line)
    return RawCall(
        seq=_int(line.get("seq"), "seq"),
        time=_int(line.get("time"), "time"),
        pid=_int(line.get("pid"), "pid"),
        tid=_int(line.get("tid"), "tid"),
        comm=str(line.get("comm", "")),
        arch=_int(raw.get("arch"), "raw.arch"),
        nr=_int(raw.get("nr"), "raw.nr"),
        args=tuple(_number(arg, "an argument") & 0xFFFFFFFFFFFFFFFF for arg in args[:6]),
        ret=ret,
        failed=failed,
        duration=None if duration is None else _int(duration, "duration"),
        chunks=chunks,
        fds=fds,
        watched_exit=bool(raw.get("watched_exit", True)),
        extra=extra if isinstance(extra, dict) else {},
        stack=stack,
    )


def event_line(event: ProcessEvent) -> dict[str, Any]:
    """A ProcessEvent as a line."""
    return {
        "type": "process",
        "event": event.what,
        "time": event.time,
        "pid": event.pid,
        "tid": event.tid,
        **event.details,
    }


def _event(line: dict[str, Any]) -> ProcessEvent:
    known = ("type", "event", "time", "pid", "tid")
    what = str(line.get("event"))
    details = {key: value for key, value in line.items() if key not in known}
    for key in ("child", "child_tid", "code", "signal", "former_tid"):
        if key in details:
            _int(details[key], key)
    if what == "fork" and not {"child", "child_tid"} <= details.keys():
        raise ValueError("a fork without child and child_tid")
    return ProcessEvent(
        what,
        _int(line.get("time"), "time"),
        _int(line.get("pid"), "pid"),
        _int(line.get("tid"), "tid"),
        details,
    )


# ------------------------------------------------------------------ writing


def dumps(line: Any) -> str:
    """One line of a trace, or a part of one, ASCII, without its newline."""
    return json.dumps(line, separators=(",", ":"))


def dumps_packed(data: bytes, pieces: Pieces) -> str:
    """What :func:`dumps` makes of packed bytes."""
    packed = pack(data, pieces)
    return f'"{packed}"' if isinstance(packed, str) else dumps(packed)


def open_for_writing(path: str) -> IO[str]:
    """A trace file, readable by its owner only: it holds the tracee's memory.

    ``-`` is stdout; names ending in .gz or .zst are compressed.  OSError as open().
    """
    if path == "-":
        return sys.stdout
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    raw = os.fdopen(fd, "wb")
    if path.endswith(".gz"):
        import gzip

        return io.TextIOWrapper(gzip.GzipFile("", "wb", 6, raw, 0), encoding="ascii")
    if path.endswith(".zst"):
        zstandard = _zstandard(path)
        return io.TextIOWrapper(
            zstandard.ZstdCompressor().stream_writer(raw, closefd=True), encoding="ascii"
        )
    return io.TextIOWrapper(raw, encoding="ascii", line_buffering=True)


def _zstandard(path: str) -> Any:
    try:
        import zstandard
    except ImportError:
        raise TraceError(
            path, 0, "zstd needs the package zstandard (pip install 'bpfstrace[zstd]')"
        ) from None
    return zstandard


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
        if kind == "process":
            return _event(line)
        if kind == "fact":
            return Fact(
                str(line.get("kind")), _number(line.get("key"), "key"), str(line.get("name"))
            )
        if kind == "attachment":
            return Flush()
        if kind == "flush":
            return Flush(idle=True)
        if kind == "end":
            self.whole = True
            status = line.get("status")
            return End(status if isinstance(status, dict) else {})
        return None


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError where a key stands twice (which of both would be meant?)."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key[:40]!r} stands twice in one object")
            seen.add(key)
    return found


_DECODER: Final = json.JSONDecoder(object_pairs_hook=once)
