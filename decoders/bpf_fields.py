"""Fields and helpers that several structs of the bpf UAPI share."""

from __future__ import annotations

from typing import Any, Final

import construct as cs

from decoders.declare import U32, FactField, FdField, FlagSet, Named, Num, Pick, Scope, Written
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

ATTACH_BY_IFINDEX: Final = frozenset(
    {
        const.BPF_XDP,
        const.BPF_TCX_INGRESS,
        const.BPF_TCX_EGRESS,
        const.BPF_NETKIT_PRIMARY,
        const.BPF_NETKIT_PEER,
    }
)
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
