"""Attempts at one load: the same again, right after it failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.story.notes import Retry
from bpftrace_sys.story.objects import NotedCall, text_of
from decoders.call import Call, inner_value
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


@dataclass(slots=True)
class _Attempt:
    identity: Any
    first: Call
    last: Call
    count: int = 1


class Retries:
    """Recognises the attempts at one load: the same again, right after it failed.

    Notes a Retry with each.
    """

    def __init__(self) -> None:
        self._failed: dict[tuple[int, str], _Attempt] = {}

    def watch(self, call: NotedCall) -> None:
        """A call, in order."""
        fields = TOLD.get(call.command)
        if fields is None or call.raw.ret is None:
            return
        key = (call.raw.pid, call.command)
        attempt = self._failed.pop(key, None)
        identity = _identity(call)
        if identity is None:
            return
        if attempt is not None and attempt.identity == identity and _same_name(attempt.last, call):
            attempt.count += 1
            last = attempt.last
            call.notes.retry = Retry(
                attempt.count,
                attempt.first.raw.seq,
                last.raw.seq,
                errno_name(-(last.raw.ret or 0)),
                _changed(last, call, fields),
            )
        else:
            attempt = _Attempt(identity, call, call)
        attempt.last = call
        if call.raw.failed:
            self._failed[key] = attempt


    def again(self, call: NotedCall) -> Retry:
        """A call that equals the last one of its process and command, which failed, in all."""
        attempt = self._failed[call.raw.pid, call.command]
        attempt.count += 1
        last, attempt.last = attempt.last.raw, call
        name = errno_name(-(last.ret or 0))
        return Retry(attempt.count, attempt.first.raw.seq, last.seq, name, {})


def _same_name(before: Call, call: Call) -> bool:
    """The same name, or none any more, as for a kernel that knows no names."""
    for field in ("prog_name", "map_name"):
        name = text_of(call.attr("attr", field))
        if name and name != text_of(before.attr("attr", field)):
            return False
    return True


def _identity(call: Call) -> Any:
    """What makes two loads attempts at one: what is loaded, not how."""
    if call.command == "BPF_PROG_LOAD":
        insns = inner_value(call.attr("attr", "insns"))
        if not isinstance(insns, Insns) or not insns.data:
            return None
        return ("prog", call.number("attr", "prog_type"), insns.data)
    if call.command == "BPF_BTF_LOAD":
        blob = inner_value(call.attr("attr", "btf"))
        return ("btf", blob.data) if isinstance(blob, Bytes) and blob.data else None
    return tuple(call.number("attr", name) for name in ("map_type", "key_size", "value_size"))


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


def _changed(before: Call, call: Call, fields: Sequence[str]) -> dict[str, tuple[str, str]]:
    changed = {}
    for field in fields:
        old, new = _short(before, field), _short(call, field)
        if old != new and {old, new} != {"none", "0"} and {old, new} != {"none", '""'}:
            changed[field] = (old, new)
    return changed
