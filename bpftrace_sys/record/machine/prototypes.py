"""Declarations of kernel functions and tracepoints, out of the kernel's BTF and tracefs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from bpftrace_sys.record.proc import read_text
from decoders.formats.btf import Btf
from decoders.formats.btf_c import c_type, func_prototype
from decoders.formats.btf_types import Kind, Param

HANDS_ON: Final = "__bpf_trace_"
"""The function that hands a tracepoint's arguments to programs; the typedef lacks their names."""
TYPEDEF: Final = "btf_trace_"
_FIELD: Final = re.compile(r"field:([^;]+);\s*offset:(\d+);\s*size:(\d+);")


class Prototypes:
    """Looks into vmlinux's BTF."""

    def __init__(self, vmlinux: Btf) -> None:
        self._btf = vmlinux

    def of_type(self, type_id: int) -> str | None:
        """What attach_btf_id names: a function, or a tracepoint's typedef."""
        if self._btf.kind(type_id) == Kind.TYPEDEF:
            return self.tracepoint(self._btf.name(type_id).removeprefix(TYPEDEF))
        return func_prototype(self._btf, type_id)

    def function(self, name: str) -> str | None:
        """``int do_sys_openat2(int dfd, const char *filename, struct open_how *how)``."""
        found = self._btf.find(name, Kind.FUNC)
        return None if found is None else func_prototype(self._btf, found.id)

    def tracepoint(self, name: str) -> str | None:
        """``sched_switch(bool preempt, struct task_struct *prev, ...)``: what programs get.

        Tracepoints of one event class share the function that has the names; those that do
        have types only.
        """
        found = self._btf.find(HANDS_ON + name, Kind.FUNC)
        proto = None if found is None else self._btf.resolve(found.type)
        if proto is None:
            found = self._btf.find(TYPEDEF + name, Kind.TYPEDEF)
            pointer = None if found is None else self._btf.resolve(found.id)
            proto = None if pointer is None else self._btf.resolve(pointer.type)
        if proto is None or proto.kind != Kind.FUNC_PROTO:
            return None
        # The first is the tracepoint's own.
        return _called(self._btf, name, proto.params[1:])

    def member(self, type_id: int, index: int) -> str | None:
        """What a member of a struct_ops is: ``ssthresh(struct sock *)``."""
        struct = self._btf.resolve(type_id)
        if struct is None or not 0 <= index < len(struct.members):
            return None
        member = struct.members[index]
        pointer = self._btf.resolve(member.type)
        proto = self._btf.resolve(pointer.type) if pointer and pointer.kind == Kind.PTR else None
        if proto is None or proto.kind != Kind.FUNC_PROTO:
            return None
        return _called(self._btf, member.name, proto.params)


def _called(btf: Btf, name: str, params: Sequence[Param]) -> str:
    words = [c_type(btf, param.type, param.name) for param in params]
    return f"{name}({', '.join(words) or 'void'})"


def tracepoint_fields(roots: tuple[str, ...], tracepoint: str) -> str | None:
    """The fields of ``CATEGORY:NAME``: ``int dfd@16+8;...``, without those that all have."""
    category, _, name = tracepoint.partition(":")
    if not category or not name or "/" in tracepoint:
        return None
    for root in roots:
        text = read_text(f"{root}/events/{category}/{name}/format")
        if text is not None:
            return ";".join(
                f"{field}@{offset}+{size}"
                for field, offset, size in _FIELD.findall(text)
                if " common_" not in field
            )
    return None
