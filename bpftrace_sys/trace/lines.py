"""The lines of a trace file: calls and events, to JSON and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from bpftrace_sys.trace.pieces import CALL_LIMIT, Pieces, unpack
from decoders.raw import ENTRY, EXIT, NOTHING, Chunk, Cred, Extra, FdFact, RawCall
from decoders.walk.layouts import READ_LIMIT

COMM_LIMIT: Final = 64 << 10
"""Letters of a thread's name; the kernel's have 15."""

_STAGES: Final = ((ENTRY, "entry"), (EXIT, "exit"))


def raw_line(raw: RawCall, packed: Callable[[bytes], Any]) -> dict[str, object]:
    """A RawCall as the ``raw`` field of its line; ``packed`` makes JSON of bytes."""
    line: dict[str, object] = {
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
    if raw.extra != NOTHING:
        line["extra"] = extra_line(raw.extra)
    return line


def extra_line(extra: Extra) -> dict[str, object]:
    """What else was seen of a call, as ``raw.extra``: what is not there was not seen."""
    cred = extra.cred
    known = {
        "ifindex": {str(number): name for number, name in extra.devices.items()},
        "xdp_mode": {str(number): mode for number, mode in extra.xdp_modes.items()},
        "injected": extra.injected,
        "as_value": extra.as_value,
        "detached": extra.detached,
        "problem": extra.problem,
        "lost": extra.lost,
        "late": list(extra.late),
    }
    line = {name: value for name, value in known.items() if value}
    if extra.cpu is not None:
        line["cpu"] = extra.cpu
    if cred is not None:
        line["cred"] = {
            name: value for name, value in cred._asdict().items() if value is not None
        }
    return {**line, **extra.other}


def extra_of(line: object) -> Extra:
    """``raw.extra`` of a call; what is not as we write it stays as it is, and says nothing."""
    if not line or not isinstance(line, dict):
        return NOTHING
    other = dict(line)
    late, lost, cpu = line.get("late"), line.get("lost"), line.get("cpu")
    extra = NOTHING._replace(
        devices=_numbered(line.get("ifindex")),
        xdp_modes=_numbered(line.get("xdp_mode")),
        injected=line.get("injected") is True,
        as_value=line.get("as_value") is True,
        detached=line.get("detached") is True,
        cred=_cred(line.get("cred")),
        problem=_text_or_none(line.get("problem")),
        lost=lost if isinstance(lost, int) and not isinstance(lost, bool) else 0,
        cpu=cpu if isinstance(cpu, int) and not isinstance(cpu, bool) and cpu >= 0 else None,
        late=tuple(late) if isinstance(late, list) and _all_text(late) else (),
    )
    for name, value in extra_line(extra).items():
        if line[name] == value:
            del other[name]
    return extra._replace(other=other) if other else extra


def _numbered(found: object) -> dict[int, str]:
    """Texts by numbers: an object of JSON has only texts for keys."""
    if not isinstance(found, dict) or not _all_text(found.values()):
        return {}
    if not all(key.isascii() and key.isdecimal() and len(key) <= 10 for key in found):
        return {}
    return {int(key): text for key, text in found.items()}


def _cred(found: object) -> Cred | None:
    if not isinstance(found, dict):
        return None
    uid, userns = found.get("uid"), found.get("userns")
    return Cred(
        uid if isinstance(uid, int) and not isinstance(uid, bool) else None,
        _text_or_none(found.get("eff")),
        userns if isinstance(userns, int) and not isinstance(userns, bool) else None,
    )


def _text_or_none(found: object) -> str | None:
    return found if isinstance(found, str) else None


def _all_text(found: Iterable[Any]) -> bool:
    return all(isinstance(each, str) for each in found)


def fds_line(raw: RawCall) -> list[object]:
    """What was known of a RawCall's fds, as ``raw.fds``."""
    return [[fact.fd, fact.stage, fact.kind, fact.info] for fact in raw.fds]


def _int(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{what} is not a number")
    return value


def _number(value: object, what: str) -> int:
    if isinstance(value, str):
        return int(value, 16)
    return _int(value, what)


_TAG: Final = re.compile("[0-9a-f]{1,64}")
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")
"""A kind, a link's type: what the kernel or we wrote, and what is shown as it stands."""


def _fd_fact(entry: object) -> FdFact:
    """An fd of ``raw.fds``; what is shown without quotes has to look as the kernel writes it."""
    if not isinstance(entry, list) or len(entry) < 4:
        raise ValueError("an fd of raw is not [fd, stage, kind, info]")
    fd, stage, kind, info = entry[:4]
    if not isinstance(kind, str) or not isinstance(info, dict):
        raise ValueError("an fd of raw is not [fd, stage, kind, info]")
    if not _WORD.fullmatch(kind):
        raise ValueError("the kind of an fd is not a word")
    for name in ("link_type", "fd_type"):
        word = info.get(name, "x")
        if isinstance(word, str) and not _WORD.fullmatch(word):
            raise ValueError(f"the {name} of an fd is not a word")
    for name, value in info.items():
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(f"{name[:40]!r} of an fd is neither number nor text")
    tag = info.get("prog_tag", "0")
    if not isinstance(tag, str) or not _TAG.fullmatch(tag):
        raise ValueError("the prog_tag of an fd is not in hex")
    return FdFact(_int(fd, "an fd"), _int(stage, "a stage"), kind, info)


def _comm(value: object) -> str:
    comm = str(value)
    if len(comm) > COMM_LIMIT:
        raise ValueError(f"a comm of {len(comm)} letters")
    return comm


def raw_call(line: dict[str, object], pieces: Pieces) -> RawCall:
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
            if len(data) > READ_LIMIT:
                raise ValueError(f"a chunk of raw.{name} has more than {READ_LIMIT} bytes")
            if size > CALL_LIMIT:
                raise ValueError(f"the raw of one call unpacks to more than {CALL_LIMIT} bytes")
            wanted = _int(entry[2], "a chunk's size") if len(entry) > 2 else len(data)
            chunks.append(Chunk(stage, _number(entry[0], "an address"), data, wanted))
    fds = [_fd_fact(entry) for entry in raw.get("fds", ())]
    args = raw.get("args")
    if not isinstance(args, list) or len(args) != 6:
        raise ValueError("raw.args is not a list of six")
    ret = line.get("ret")
    failed = "errno" in line
    if ret is not None:
        ret = _int(ret, "ret")
        if failed:
            ret = -_int(line.get("errnum", 0), "errnum")
    duration = line.get("duration")
    stack = None
    if "stack" in line:
        from bpftrace_sys.trace.stacks import stack_of

        stack = stack_of(line)
    return RawCall(
        seq=_int(line.get("seq"), "seq"),
        time=_int(line.get("time"), "time"),
        pid=_int(line.get("pid"), "pid"),
        tid=_int(line.get("tid"), "tid"),
        comm=_comm(line.get("comm", "")),
        arch=_int(raw.get("arch"), "raw.arch"),
        nr=_int(raw.get("nr"), "raw.nr"),
        args=tuple(_number(arg, "an argument") & 0xFFFFFFFFFFFFFFFF for arg in args),
        ret=ret,
        failed=failed,
        duration=None if duration is None else _int(duration, "duration"),
        chunks=chunks,
        fds=fds,
        watched_exit=bool(raw.get("watched_exit", True)),
        extra=extra_of(raw.get("extra")),
        stack=stack,
    )
