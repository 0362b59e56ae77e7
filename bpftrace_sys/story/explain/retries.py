"""Attempts at one load: the same again, right after it failed."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.story.notes import Retry
from bpftrace_sys.story.objects import NotedCall, text_of
from decoders.call import Call, inner_value
from decoders.digests import short_of
from decoders.records import dataclass
from decoders.values import Absent, Bytes, Changed, Flags, Insns, Int, Name, Text

TOLD: Final = {
    "BPF_PROG_LOAD": (
        "log_level",
        "log_size",
        "prog_name",
        "prog_btf_fd",
        "func_info_cnt",
        "line_info_cnt",
        "kern_version",
        "prog_flags",
        "expected_attach_type",
        "attach_btf_id",
        "attach_prog_fd",
        "license",
    ),
    "BPF_BTF_LOAD": ("btf_log_level", "btf_log_size"),
    "BPF_MAP_CREATE": (
        "map_name",
        "btf_fd",
        "btf_key_type_id",
        "btf_value_type_id",
        "map_flags",
        "max_entries",
    ),
}
"""Commands that loaders try again, and the fields in which an attempt may differ."""


PROCESSES: Final = 1_024
"""Processes and commands of which the last failure is remembered."""


@dataclass(slots=True)
class _Attempt:
    """What is remembered of a load that failed: not the call, which may hold a million
    instructions."""

    identity: Any
    names: tuple[str, ...]
    words: dict[str, str]
    """By field of TOLD: what stood there."""
    first: int
    """seq of the first attempt, and of the last one."""
    last: int
    ret: int
    count: int = 1


class Retries:
    """Recognises the attempts at one load: the same again, right after it failed.

    Notes a Retry with each.
    """

    def __init__(self) -> None:
        self._failed: OrderedDict[tuple[int, str], _Attempt] = OrderedDict()

    def watch(self, call: NotedCall) -> None:
        """A call, in order."""
        fields = TOLD.get(call.command)
        raw = call.raw
        if fields is None or raw.ret is None:
            return
        key = (raw.pid, call.command)
        before = self._failed.pop(key, None)
        if before is None and not raw.failed:
            return
        identity = _identity(call)
        if identity is None:
            return
        names = tuple(text_of(call.attr("attr", field)) for field in ("prog_name", "map_name"))
        words = {field: _short(call, field) for field in fields}
        attempt = _Attempt(identity, names, words, raw.seq, raw.seq, raw.ret)
        if before is not None and before.identity == identity and _same_name(before.names, names):
            attempt.first, attempt.count = before.first, before.count + 1
            call.notes.retry = Retry(
                attempt.count,
                attempt.first,
                before.last,
                errno_name(-before.ret),
                _changed(before.words, words),
            )
        if raw.failed:
            self._failed[key] = attempt
            if len(self._failed) > PROCESSES:
                self._failed.popitem(last=False)

    def again(self, call: NotedCall) -> Retry:
        """A call that equals the last one of its process and command, which failed, in all."""
        attempt = self._failed[call.raw.pid, call.command]
        attempt.count += 1
        last, attempt.last = attempt.last, call.raw.seq
        return Retry(attempt.count, attempt.first, last, errno_name(-attempt.ret), {})


def _same_name(before: tuple[str, ...], now: tuple[str, ...]) -> bool:
    """The same name, or none any more, as for a kernel that knows no names."""
    return all(not name or name == other for name, other in zip(now, before, strict=True))


def _identity(call: Call) -> Any:
    """What makes two loads attempts at one: what is loaded, not how."""
    if call.command == "BPF_PROG_LOAD":
        insns = inner_value(call.attr("attr", "insns"))
        if not isinstance(insns, Insns) or not insns.data:
            return None
        return ("prog", call.number("attr", "prog_type"), insns.total, _digest(insns.data))
    if call.command == "BPF_BTF_LOAD":
        blob = inner_value(call.attr("attr", "btf"))
        return ("btf", _digest(blob.data)) if isinstance(blob, Bytes) and blob.data else None
    return tuple(call.number("attr", name) for name in ("map_type", "key_size", "value_size"))


def _digest(data: bytes) -> bytes:
    return short_of(data)


def _short(call: Call, field: str) -> str:
    value = call.attr("attr", field)
    if isinstance(value, Changed):
        value = value.before
    inner = inner_value(value)
    if inner is None or isinstance(inner, Absent):
        return "none"
    if isinstance(inner, Text):
        return f'"{text_of(inner)}"'
    if isinstance(inner, Name):
        return inner.name or str(inner.value)
    if isinstance(inner, Flags):
        words = [*inner.names, *([hex(inner.rest)] if inner.rest else [])]
        return "|".join(words) or "0"
    number = getattr(inner, "value", None)
    if field.endswith("log_size") and isinstance(number, int):
        return _bytes(number)
    if isinstance(inner, Int) and inner.note and inner.note.startswith("KERNEL_VERSION"):
        return inner.note
    return str(number)


def _bytes(number: int) -> str:
    for shift, unit in ((20, "MiB"), (10, "KiB")):
        if number and not number & ((1 << shift) - 1):
            return f"{number >> shift} {unit}"
    return str(number)


def _changed(before: dict[str, str], now: dict[str, str]) -> dict[str, tuple[str, str]]:
    changed = {}
    for field, new in now.items():
        old = before[field]
        if old != new and {old, new} != {"none", "0"} and {old, new} != {"none", '""'}:
            changed[field] = (old, new)
    return changed
