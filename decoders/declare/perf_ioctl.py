"""ioctl(2): one row per PERF_EVENT_IOC_*, and the others that take BPF fds.

From include/uapi/linux/perf_event.h, if_tun.h, kcm.h and perf_ioctl() in
kernel/events/core.c.
"""

from __future__ import annotations

from typing import Any, Final

from decoders.constructs import cs
from decoders.declare.bpf_fields import TOO_SMALL
from decoders.declare.fields import S32, U32, U64, X64, FdField, Field, FlagSet, Skip, Written
from decoders.declare.perf_attr import PERF_ATTR_POINTER
from decoders.declare.structs import CStr, In, InOut, One, Out, Tail, kernel
from decoders.records import NamedTuple
from decoders.uapi import perf, system
from decoders.walk.measures import query_bpf_size

QUERY_BPF = kernel(
    "perf_event_query_bpf", cs.Struct("ids_len" / U32, "prog_cnt" / Written(U32))
)
FD_ARG = FdField(cs.Int32sl)
KCM_ATTACH = kernel("kcm_attach", cs.Struct("fd" / FD_ARG, "bpf_fd" / FD_ARG))
KCM_UNATTACH = kernel("kcm_unattach", cs.Struct("fd" / FD_ARG))
GROUP = FlagSet(cs.Int32ul, perf.perf_event_ioc_flags, "PERF_IOC_FLAG")
FD_POINTER = In(One(cs.Struct("fd" / FdField(cs.Int32sl))))


def arg(field: Field, name: str = "arg") -> Any:
    """The third argument as 4 bytes of its register."""
    return cs.Struct(name / field, "_" / Skip(4))


class Request(NamedTuple):
    """An ioctl request: what its argument is."""

    arg: Any


REQUESTS: Final[dict[str, Request]] = {
    "PERF_EVENT_IOC_ENABLE": Request(arg(GROUP)),
    "PERF_EVENT_IOC_DISABLE": Request(arg(GROUP)),
    "PERF_EVENT_IOC_REFRESH": Request(arg(S32)),
    "PERF_EVENT_IOC_RESET": Request(arg(GROUP)),
    "PERF_EVENT_IOC_PERIOD": Request(
        cs.Struct("arg" / In(One(cs.Struct("period" / U64))))
    ),
    "PERF_EVENT_IOC_SET_OUTPUT": Request(arg(FD_ARG)),
    "PERF_EVENT_IOC_SET_FILTER": Request(cs.Struct("arg" / In(CStr(4096)))),
    "PERF_EVENT_IOC_ID": Request(cs.Struct("arg" / Out(One(cs.Struct("id" / U64))))),
    "PERF_EVENT_IOC_SET_BPF": Request(arg(FD_ARG)),
    "PERF_EVENT_IOC_PAUSE_OUTPUT": Request(arg(U32)),
    "PERF_EVENT_IOC_QUERY_BPF": Request(
        cs.Struct(
            "arg"
            / InOut(
                One(
                    QUERY_BPF,
                    peek=query_bpf_size,
                    tail=Tail("ids", U32, lambda view: min(view["ids_len"], view["prog_cnt"])),
                ),
                always=TOO_SMALL,
            )
        )
    ),
    "PERF_EVENT_IOC_MODIFY_ATTRIBUTES": Request(cs.Struct("arg" / In(PERF_ATTR_POINTER))),
    "TUNSETSTEERINGEBPF": Request(cs.Struct("arg" / FD_POINTER)),
    "TUNSETFILTEREBPF": Request(cs.Struct("arg" / FD_POINTER)),
    "SIOCKCMATTACH": Request(
        cs.Struct("arg" / In(One(KCM_ATTACH)))
    ),
    "SIOCKCMUNATTACH": Request(cs.Struct("arg" / In(One(KCM_UNATTACH)))),
    "SIOCKCMCLONE": Request(cs.Struct("arg" / Out(One(cs.Struct("fd" / FD_ARG))))),
}
"""By name."""

NAMES: Final[dict[int, str]] = {
    **perf.perf_event_ioc_compat32,
    **perf.perf_event_ioc,
    **system.tun_ioctl,
    **system.kcm_ioctl,
}
"""Request number -> name, of both pointer sizes (no number means two things)."""

ROWS: Final[dict[int, Any]] = {
    number: REQUESTS[name].arg for number, name in NAMES.items() if name in REQUESTS
}
ANY_ARG = cs.Struct("arg" / X64)
"""The argument of a request that has no row."""
