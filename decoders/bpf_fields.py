"""Fields and helpers that several structs of the bpf UAPI share."""

from __future__ import annotations

import errno
from typing import Any, Final

import construct as cs

from decoders.declare import (
    U32,
    FactField,
    FdField,
    FlagSet,
    Named,
    NotedField,
    Num,
    Pick,
    Scope,
    Written,
    kernel,
)
from decoders.uapi import const, names

FD = FdField(cs.Int32ul)
OPT_FD = FdField(cs.Int32ul, optional=True)
OPT_SFD = FdField(cs.Int32sl, optional=True)
IFINDEX = FactField(cs.Int32ul, "ifindex")
OUT_U32 = Written(Num(cs.Int32ul))
OUT_U64 = Written(Num(cs.Int64ul))
ATTACH_TYPE = Named(cs.Int32ul, names.bpf_attach_type, "bpf_attach_type")
LOG_LIMIT: Final = 16 << 20
IDS_LIMIT: Final = 1 << 16
TOO_SMALL: Final = frozenset({errno.ENOSPC})
"""Where the kernel fails with one of these, it has filled what room it was given."""

MPROG: Final = frozenset(
    {
        const.BPF_TCX_INGRESS,
        const.BPF_TCX_EGRESS,
        const.BPF_NETKIT_PRIMARY,
        const.BPF_NETKIT_PEER,
    }
)
"""Attach types of kernel/bpf/mprog.c, where several programs stand in an order."""

ATTACH_BY_IFINDEX: Final = frozenset({const.BPF_XDP, *MPROG})
"""Attach types whose target is a network device."""


def by_ifindex(scope: Scope) -> bool:
    """Whether the target of an attach, query or link is a network device."""
    return scope["attach_type"] in ATTACH_BY_IFINDEX


TARGET = Pick(
    by_ifindex,
    {
        True: cs.Struct("target_ifindex" / IFINDEX),
        False: cs.Struct("target_fd" / FD),
    },
)

LINK_TARGET = Pick(
    by_ifindex,
    {
        True: cs.Struct("target_ifindex" / IFINDEX),
        False: cs.Struct("target_fd" / OPT_FD),
    },
)
"""As TARGET; 0 for the many links that have their target elsewhere."""


def relative(flags: str) -> Any:
    """relative_fd or relative_id, which BPF_F_ID in the field ``flags`` tells apart."""
    return Pick(
        lambda scope: bool(scope[flags] & const.BPF_F_ID),
        {True: cs.Struct("relative_id" / U32), False: cs.Struct("relative_fd" / OPT_FD)},
    )


ATTACH_FLAGS = FlagSet(cs.Int32ul, names.attach_flags, "BPF_F")

FUNC_INFO = kernel("bpf_func_info", cs.Struct("insn_off" / U32, "type_id" / U32))
LINE_INFO = kernel(
    "bpf_line_info",
    cs.Struct(
        "insn_off" / U32,
        "file_name_off" / U32,
        "line_off" / U32,
        "line_col"
        / NotedField(cs.Int32ul, lambda value, _: f"line {value >> 10}, column {value & 0x3FF}"),
    ),
)
CORE_RELO = kernel(
    "bpf_core_relo",
    cs.Struct(
        "insn_off" / U32,
        "type_id" / U32,
        "access_str_off" / U32,
        "kind" / Named(cs.Int32ul, names.bpf_core_relo_kind, "bpf_core_relo_kind"),
    ),
)

