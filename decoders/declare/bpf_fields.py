"""Fields and helpers that several structs of the bpf UAPI share."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, Final

from decoders.constructs import cs
from decoders.declare.fields import (
    U32,
    FactField,
    FdField,
    FlagSet,
    Named,
    NotedField,
    Num,
    Written,
)
from decoders.declare.structs import Pick, kernel
from decoders.uapi import names
from decoders.walk.measures import by_ifindex

FD = FdField(cs.Int32sl)
"""The UAPI has __u32 for fds; who passes -1 means -1."""
OPT_FD = FdField(cs.Int32sl, optional=True)
IFINDEX = FactField(cs.Int32ul, "ifindex")
OUT_U32 = Written(Num(cs.Int32ul))
OUT_U64 = Written(Num(cs.Int64ul))
ATTACH_TYPE = Named(cs.Int32ul, names.bpf_attach_type, "bpf_attach_type")
TOO_SMALL: Final = frozenset({errno.ENOSPC})
"""Where the kernel fails with one of these, it has filled what room it was given."""

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


def relative(named_by_id: Callable[[Any], bool]) -> Any:
    """relative_fd or relative_id."""
    return Pick(
        named_by_id,
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

