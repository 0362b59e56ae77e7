"""What happens to processes, and how a trace ends, to JSON and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from decoders.events import NAMES, Ending, LeftAlone, Lost, Other, ProcessEvent, What, event_name
from decoders.records import NamedTuple

COMMON: Final = ("type", "event", "time", "pid", "tid")


def event_line(event: ProcessEvent) -> dict[str, object]:
    """A ProcessEvent as a line."""
    return {
        "type": "process",
        "event": event_name(event.what),
        "time": event.time,
        "pid": event.pid,
        "tid": event.tid,
        **_fields(event.what),
    }


def _fields(what: What) -> Mapping[str, object]:
    """Those that say something: of what was lost each, of others what is known."""
    if isinstance(what, Other):
        return what.fields
    fields = what._asdict()
    if isinstance(what, Lost):
        return fields
    return {
        name: list(said) if isinstance(said, tuple) else said
        for name, said in fields.items()
        if said is not None and said is not False and said != ""
    }


def event_of(line: Mapping[str, object]) -> ProcessEvent:
    """The ProcessEvent of a line; ValueError where a field is of another kind."""
    return ProcessEvent(
        _what(line),
        _number(line.get("time"), "time"),
        _number(line.get("pid"), "pid"),
        _number(line.get("tid"), "tid"),
    )


def _what(line: Mapping[str, object]) -> What:
    kind = _KINDS.get(str(line.get("event")))
    if kind is None:
        return Other(
            str(line.get("event")),
            {name: said for name, said in line.items() if name not in COMMON},
        )
    for name in kind.needed:
        if name not in line:
            raise ValueError(f"a {line['event']} without {name}")
    said = {
        name: _READERS[name](line[name], name)
        for name in kind.fields
        if line.get(name) is not None
    }
    return kind.made(**said)


def _number(found: object, name: str) -> int:
    if isinstance(found, bool) or not isinstance(found, int):
        raise ValueError(f"{name} is not a number")
    return found


def _text(found: object, name: str) -> str:
    if not isinstance(found, str):
        raise ValueError(f"{name} is not a string")
    return found


def _words(found: object, name: str) -> tuple[str, ...]:
    if not isinstance(found, list):
        raise ValueError(f"{name} is not a list")
    return tuple(_text(word, f"a word of {name}") for word in found)


def _flag(found: object, name: str) -> bool:
    if not isinstance(found, bool):
        raise ValueError(f"{name} is neither true nor false")
    return found


_READERS: Final[Mapping[str, Callable[[object, str], object]]] = {
    **dict.fromkeys(("child", "child_tid", "former_tid", "code", "signal"), _number),
    **dict.fromkeys(("uid", "parent", "cgroup_id", "calls", "pieces", "events"), _number),
    **dict.fromkeys(("how", "comm", "exe", "path", "cgroup", "container", "info"), _text),
    "argv": _words,
    "core": _flag,
    "stopped": _flag,
}


class _Kind(NamedTuple):
    made: Callable[..., What]
    fields: tuple[str, ...]
    needed: tuple[str, ...]
    """Those without a default."""


_KINDS: Final = {
    name: _Kind(
        known,
        known._fields,
        tuple(field for field in known._fields if field not in known._field_defaults),
    )
    for known, name in NAMES.items()
}


def ending_line(ending: Ending) -> dict[str, object]:
    """The last line: the trace is whole."""
    status: dict[str, object] = {}
    if ending.code is not None:
        status["code"] = ending.code
    if ending.signal is not None:
        status["signal"] = ending.signal
    if ending.error:
        status["error"] = ending.error
    if ending.lost:
        status["lost"] = ending.lost._asdict()
    if ending.rotated:
        status["rotated"] = True
    if ending.left_alone:
        left = ending.left_alone._asdict()
        status["left_alone"] = {name: count for name, count in left.items() if count is not None}
    return {"type": "end", "status": status}


def ending_of(line: Mapping[str, object]) -> Ending:
    """How a trace ended, of its last line; what is of another kind there was not said."""
    status = line.get("status")
    if not isinstance(status, dict):
        return Ending()
    code, number, lost = status.get("code"), status.get("signal"), status.get("lost")
    left = status.get("left_alone")
    return Ending(
        code=code if isinstance(code, int) else None,
        signal=number if isinstance(number, int) else None,
        error=str(status.get("error", "")),
        lost=_lost(lost) if isinstance(lost, dict) else None,
        rotated=status.get("rotated") is True,
        left_alone=_left_alone(left) if isinstance(left, dict) else None,
    )


def _lost(found: Mapping[str, object]) -> Lost:
    calls, pieces, events = (
        _number(found.get(name, 0), f"lost {name}") for name in Lost._fields
    )
    return Lost(calls, pieces, events)


def _left_alone(found: Mapping[str, object]) -> LeftAlone:
    processes, threads = (
        _number(found.get(name, 0), f"left_alone {name}") for name in ("processes", "threads")
    )
    calls = found.get("calls")
    return LeftAlone(processes, threads, None if calls is None else _number(calls, "calls"))
