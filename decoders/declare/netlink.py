"""Route netlink messages, as far as BPF is concerned: XDP and tc programs, and answers.

Headers and the attributes that carry a program's fd are declared here, so that a
stop can record what those fds are; all other attributes are left to whoever wants
to decode them (bpftrace_sys/story/netlink_values.py).  Layouts: include/uapi/linux/netlink.h,
rtnetlink.h, if_link.h, pkt_cls.h and tc_act/tc_bpf.h of Linux 7.1.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import Any, Final

from decoders.declare.fields import flags
from decoders.declare.structs import Blob, Expr
from decoders.formats.netlink import (
    _LINK,
    _TC,
    NLMSG_ERROR,
    RTM_NEWLINK,
    RTM_NEWQDISC,
    RTM_NEWTFILTER,
    Message,
    Request,
    _number,
    _words,
    ifindex_of,
    messages,
    parent_name,
    request,
    requests,
)
from decoders.values import Array, Bytes, Fd, Flags, Int, Name, Text, Value
from decoders.values import Struct as Fields
from decoders.walk.scope import Scope

MESSAGE_LIMIT: Final = 1 << 20
"""Bytes that are copied of one buffer; a kernel's own limit is a socket's buffer."""


TYPES: Final = {
    1: "NLMSG_NOOP", 2: "NLMSG_ERROR", 3: "NLMSG_DONE", 4: "NLMSG_OVERRUN",
    **{
        number + at: f"RTM_{verb}{what}"
        for number, what in (
            (16, "LINK"), (20, "ADDR"), (24, "ROUTE"), (28, "NEIGH"), (32, "RULE"),
            (36, "QDISC"), (40, "TCLASS"), (44, "TFILTER"), (48, "ACTION"), (88, "NSID"),
            (92, "STATS"), (100, "CHAIN"),
        )
        for at, verb in enumerate(("NEW", "DEL", "GET", "SET"))
    },
}  # fmt: skip
_COMMON: Final = {
    1: "NLM_F_REQUEST", 2: "NLM_F_MULTI", 4: "NLM_F_ACK", 8: "NLM_F_ECHO",
    0x10: "NLM_F_DUMP_INTR", 0x20: "NLM_F_DUMP_FILTERED",
}  # fmt: skip
_GET: Final = {
    **_COMMON, 0x300: "NLM_F_DUMP", 0x100: "NLM_F_ROOT", 0x200: "NLM_F_MATCH", 0x400: "NLM_F_ATOMIC"
}  # fmt: skip
_NEW: Final = {
    **_COMMON, 0x100: "NLM_F_REPLACE", 0x200: "NLM_F_EXCL", 0x400: "NLM_F_CREATE",
    0x800: "NLM_F_APPEND",
}  # fmt: skip
_DEL: Final = {**_COMMON, 0x100: "NLM_F_NONREC", 0x200: "NLM_F_BULK"}
_ACK: Final = {**_COMMON, 0x100: "NLM_F_CAPPED", 0x200: "NLM_F_ACK_TLVS"}
_BY_VERB: Final = (_NEW, _DEL, _GET, _NEW)
XDP_FLAGS: Final = {
    1: "XDP_FLAGS_UPDATE_IF_NOEXIST", 2: "XDP_FLAGS_SKB_MODE", 4: "XDP_FLAGS_DRV_MODE",
    8: "XDP_FLAGS_HW_MODE", 16: "XDP_FLAGS_REPLACE",
}  # fmt: skip


# ---------------------------------------------------------------- values


def _fd(fd: int, scope: Scope) -> Fd:
    return Fd(fd, scope.env.fd(fd) if fd >= 0 else None)


def _header(message: Message) -> list[tuple[str, Value]]:
    table = _COMMON
    if message.type >= 16:
        table = _BY_VERB[message.type & 3]
    elif message.type == NLMSG_ERROR:
        table = _ACK
    bits: Flags = flags(message.flags, table, "NLM_F")
    return [
        ("nlmsg_len", Int(message.length)),
        ("nlmsg_type", Name(message.type, TYPES.get(message.type), "nlmsg_type")),
        ("nlmsg_flags", bits),
        ("nlmsg_seq", Int(message.seq)),
        ("nlmsg_pid", Int(message.port)),
    ]


def _device(ifindex: int, scope: Scope) -> Int:
    return Int(ifindex, 10, scope.env.fact("ifindex", ifindex) if ifindex > 0 else None)


def value(message: Message, scope: Scope) -> Fields:
    """A message as a struct: header, fixed fields, and the attributes that concern BPF."""
    fields = _header(message)
    body = message.body
    rest = body
    if message.type >> 2 == RTM_NEWLINK >> 2 and len(body) >= _LINK.size:
        family, kind, ifindex, bits, change = _LINK.unpack_from(body)
        fields += [
            ("ifi_family", Int(family)), ("ifi_type", Int(kind)),
            ("ifi_index", _device(ifindex, scope)),
            ("ifi_flags", Int(bits, 16)), ("ifi_change", Int(change, 16)),
        ]  # fmt: skip
        rest = body[_LINK.size :]
    elif RTM_NEWQDISC >> 2 <= message.type >> 2 <= RTM_NEWTFILTER >> 2 and len(body) >= _TC.size:
        family, ifindex, handle, parent, info = _TC.unpack_from(body)
        fields += [
            ("tcm_family", Int(family)), ("tcm_ifindex", _device(ifindex, scope)),
            ("tcm_handle", Int(handle, 16)), ("tcm_parent", Int(parent, 16, parent_name(parent))),
            ("tcm_info", Int(info, 16)),
        ]  # fmt: skip
        rest = body[_TC.size :]
    elif message.type == NLMSG_ERROR and len(body) >= 4:
        error = _number(body, signed=True) or 0
        word = errno.errorcode.get(-error)
        fields.append(("error", Name(error, f"-{word}") if word else Int(error)))
        words = _words(message)
        if words:
            fields.append(("msg", Text(words)))
        return Fields(tuple(fields))
    known = [pair for each in request(message) for pair in _known(each, scope)]
    if rest:
        fields.append(("attrs", Bytes(rest, len(rest), Fields(tuple(known)) if known else None)))
    return Fields(tuple(fields))


def _known(asked: Request, scope: Scope) -> list[tuple[str, Value]]:
    """The attributes of a request by their names."""
    if asked.what == "xdp":
        inner: list[tuple[str, Value]] = [
            ("IFLA_XDP_FD", _fd(-1 if asked.fd is None else asked.fd, scope)),
            ("IFLA_XDP_FLAGS", flags(asked.flags, XDP_FLAGS, "XDP_FLAGS")),
        ]
        if asked.expected is not None:
            inner.append(("IFLA_XDP_EXPECTED_FD", _fd(asked.expected, scope)))
        return [("IFLA_XDP", Fields(tuple(inner)))]
    if asked.fd is None:
        return []
    prefix = "TCA_BPF" if asked.what == "tc" else "TCA_ACT_BPF"
    return [
        ("TCA_OPTIONS", Fields((
            (f"{prefix}_FD", _fd(asked.fd, scope)), (f"{prefix}_NAME", Text(asked.name)),
        )))
    ]  # fmt: skip


class Messages(Blob):
    """A buffer of messages."""

    def __init__(self, length: Expr) -> None:
        super().__init__(length)

    def size(self, scope: Scope) -> int | None:
        return min(super().size(scope) or 0, MESSAGE_LIMIT)

    def fds(self, data: bytes, scope: Scope) -> Iterable[int]:
        # In the stop, while it is to be had: what is called so, and how XDP runs there after.
        for message in messages(data):
            ifindex = ifindex_of(message)
            if ifindex > 0:
                scope.env.fact("ifindex", ifindex)
        for each in requests(data):
            if each.what == "xdp" and each.ifindex > 0:
                scope.env.fact("xdp_mode", each.ifindex)
            for fd in (each.fd, each.expected):
                if fd is not None and fd >= 0:
                    yield fd

    def value(self, data: bytes, wanted: int, scope: Any) -> Value:
        found = tuple(value(message, scope) for message in messages(data))
        return Bytes(data, wanted, Array(found, len(found)) if found else None)
