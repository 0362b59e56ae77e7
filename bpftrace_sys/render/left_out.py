"""Which fields of a struct the text leaves out: zeros that mean nothing there."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.story.objects import NotedCall
from decoders.call import inner_value, number_of
from decoders.uapi import const
from decoders.values import (
    BEYOND_SIZE,
    NULL,
    Absent,
    Bytes,
    Fd,
    Flags,
    Int,
    Name,
    Struct,
    Text,
    Value,
)

MEANINGFUL_ZERO: Final = frozenset({"probe_offset", "retval", "key_size", "fd"})
"""Fields whose zero says something, so it is not folded."""
OF_MAPS: Final = frozenset({const.BPF_MAP_TYPE_ARRAY_OF_MAPS, const.BPF_MAP_TYPE_HASH_OF_MAPS})
TAKEN: Final[dict[str, tuple[str, ...]]] = {
    "inner_map_fd": ("map_type",),
    "replace_bpf_fd": ("attach_flags", "flags"),
    "old_prog_fd": ("flags",),
    "old_map_fd": ("flags",),
    "relative_fd": ("attach_flags", "flags"),
}
"""Fds of which 0 is one only where another field says so; there the kernel takes stdin for it
(map_in_map.c, cgroup.c, mprog.c of kernel/bpf). By name, the fields that may say so."""
NAMED_ZERO: Final = frozenset({"config", "attach_type"})
"""The same where the zero has a name: PERF_COUNT_SW_CPU_CLOCK, BPF_CGROUP_INET_INGRESS."""
LISTED: Final = frozenset(
    {
        "func_info_rec_size",
        "func_info",
        "func_info_cnt",
        "line_info_rec_size",
        "line_info",
        "line_info_cnt",
    }
)
"""Fields of a PROG_LOAD that its listing shows; in full with -v only."""


def left_in(struct: Struct, call: NotedCall | None) -> tuple[list[tuple[str, Value]], bool]:
    """The fields of a struct that say something, and whether there are others."""
    shown = [
        (name, value)
        for index, (name, value) in enumerate(struct.fields)
        if not _is_beyond(value) and not _idle(struct, call, index, name, value)
    ]
    return shown, len(shown) < sum(not _is_beyond(value) for _, value in struct.fields)


def _is_beyond(value: Value) -> bool:
    return isinstance(value, Absent) and value.reason == BEYOND_SIZE


def _idle(struct: Struct, call: NotedCall | None, index: int, name: str, value: Value) -> bool:
    """Whether a field says nothing."""
    if name in TAKEN and number_of(value) == 0:
        return not _taken(struct, call, name)
    if index == 0:
        return False
    inner = inner_value(value)
    if isinstance(inner, Struct) and inner.fields and inner.fields[0][0] in TAKEN:
        return all(_idle(inner, call, at, *field) for at, field in enumerate(inner.fields))
    if name in LISTED and call is not None and call.command.startswith("BPF_PROG_LOAD"):
        return True
    return is_zero(name, value)


def _taken(struct: Struct, call: NotedCall | None, name: str) -> bool:
    """Whether the kernel takes 0 for an fd here."""
    fields = dict(struct.fields)
    for other in TAKEN[name]:
        number = number_of(fields.get(other))
        if number is None and call is not None:
            number = call.number("attr", "link_create", other)
        if number is not None and takes(name, number):
            return True
    return False


def takes(name: str, other: int) -> bool:
    """Whether the kernel looks at an fd of TAKEN, by the field that decides it."""
    if name == "inner_map_fd":
        return other in OF_MAPS
    return bool(other & (const.BPF_F_LINK if name == "relative_fd" else const.BPF_F_REPLACE))


def is_zero(name: str, value: Value) -> bool:
    """Whether a field may be folded: zero, and zero means nothing there."""
    kind = type(value)
    if kind is Int or kind is Name:
        zero: bool = value.value == 0  # type: ignore[union-attr]
    elif isinstance(value, Flags):
        zero = value.value == 0 and not (value.names and name == "flags")
    elif isinstance(value, Fd):
        zero = value.value == 0 and value.fact is None
    elif isinstance(value, Text):
        zero = not value.data
    elif isinstance(value, Bytes):
        zero = not value.data.strip(b"\0")
    else:
        zero = isinstance(value, Absent) and value.reason in (NULL, BEYOND_SIZE)
    if kind is Name and name in NAMED_ZERO and value.name:  # type: ignore[union-attr]
        return False
    return zero and name not in MEANINGFUL_ZERO
