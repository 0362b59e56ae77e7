"""The lines of a trace file: calls and events, to JSON and back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from bpftrace_sys.trace.pieces import Pieces, unpack
from decoders.events import ProcessEvent
from decoders.raw import ENTRY, EXIT, Chunk, FdFact, RawCall

CALL_LIMIT: Final = 256 << 20
"""Bytes that the pieces of one call may unpack to."""
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
    if not kind.isidentifier() or not kind.isascii() or len(kind) > 32:
        raise ValueError("the kind of an fd is no word")
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
        from bpftrace_sys.trace.stacks import stack_of

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
