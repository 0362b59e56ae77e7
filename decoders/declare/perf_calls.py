"""perf_event_open and ioctl: imported when one of them is decoded (SYSCALLS of syscalls.py)."""

from __future__ import annotations

from typing import Final

from decoders.constructs import cs
from decoders.declare import perf_ioctl
from decoders.declare.fields import S32, FlagSet, Named, this
from decoders.declare.perf_attr import PERF_ATTR_POINTER
from decoders.declare.registers import FD_ARG, Syscall, half
from decoders.declare.structs import In, Pick
from decoders.uapi import perf
from decoders.walk import measures

PERF_EVENT_OPEN = cs.Struct(
    "attr" / In(PERF_ATTR_POINTER),
    "who"
    / Pick(
        measures.is_cgroup,
        {True: cs.Struct(*half("pid", FD_ARG)), False: cs.Struct(*half("pid", S32))},
    ),
    *half("cpu", S32),
    *half("group_fd", FD_ARG),
    "flags" / FlagSet(cs.Int64ul, perf.perf_event_open_flags, "PERF_FLAG"),
)

IOCTL = cs.Struct(
    *half("fd", FD_ARG),
    *half("request", Named(cs.Int32ul, perf_ioctl.NAMES)),
    "arg" / Pick(this.request, perf_ioctl.ROWS, default=perf_ioctl.ANY_ARG),
)

CALLS: Final = (
    Syscall("perf_event_open", PERF_EVENT_OPEN, True),
    Syscall("ioctl", IOCTL, False, "request"),
)
