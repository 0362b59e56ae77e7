"""EFAULT: pointers that led nowhere."""

from __future__ import annotations

from bpftrace_sys.story.explain.failure import Failure
from decoders.commands import KEYED
from decoders.values import (
    UNREADABLE,
    Absent,
    Bytes,
    Insns,
    Pointer,
    Text,
    below,
)


def unreadable(failure: Failure) -> list[str]:
    """Pointers that led nowhere."""
    call = failure.call
    attr = call.args.get("attr")
    if isinstance(attr, Pointer) and isinstance(attr.value, Absent):
        if attr.value.reason == UNREADABLE:
            return [f"the attr itself, at {attr.addr:#x}, cannot be read"]
        return []
    found = [
        f"{name} points to {pointer.addr:#x}, which cannot be read"
        for name, pointer in below(call.args)
        if isinstance(pointer, Pointer) and _leads_nowhere(pointer)
    ]
    if not found and failure.command in KEYED:
        for name in ("key", "value"):
            value = call.attr("attr", name)
            if isinstance(value, Absent) and value.reason == "null":
                return [f"{name} is NULL"]
    if not found and failure.command == "BPF_PROG_LOAD":
        found = [
            f"{name} is NULL"
            for name in ("insns", "license")
            if isinstance(call.attr("attr", name), Absent)
        ]
    return found




def _leads_nowhere(pointer: Pointer) -> bool:
    value = pointer.value
    if isinstance(value, Absent):
        return value.reason == UNREADABLE
    if isinstance(value, Bytes):
        return len(value.data) < value.wanted
    if isinstance(value, Insns):
        return len(value.data) < value.total * 8
    return isinstance(value, Text) and not value.data and not value.whole
