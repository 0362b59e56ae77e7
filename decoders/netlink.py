"""Route netlink messages, as far as BPF is concerned: XDP and tc programs, and answers.

Headers and the attributes that carry a program's fd are declared here, so that a
stop can record what those fds are; all other attributes are left to whoever wants
to decode them (bpftrace_sys/netlink.py).  Layouts: include/uapi/linux/netlink.h,
rtnetlink.h, if_link.h, pkt_cls.h and tc_act/tc_bpf.h of Linux 7.1.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from decoders.declare import Blob, Expr, Scope, flags
from decoders.values import Array, Bytes, Fd, Flags, Int, Name, Text, Value
from decoders.values import Struct as Fields

MESSAGE_LIMIT: Final = 1 << 20
"""Bytes that are copied of one buffer; a kernel's own limit is a socket's buffer."""
MESSAGES: Final = 4096

HEADER: Final = struct.Struct("<IHHII")
_LINK: Final = struct.Struct("<BxHiII")
_TC: Final = struct.Struct("<BxxxiIII")
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_SETLINK = 16, 19
RTM_NEWQDISC, RTM_DELQDISC = 36, 37
RTM_NEWTFILTER, RTM_DELTFILTER = 44, 45
NLM_F_ACK, NLM_F_CAPPED, NLM_F_ACK_TLVS = 4, 0x100, 0x200
NESTED: Final = 0x7FFF
"""Type of an attribute without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""

IFLA_IFNAME, IFLA_XDP = 3, 43
IFLA_XDP_FD, IFLA_XDP_FLAGS, IFLA_XDP_EXPECTED_FD = 1, 3, 8
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_BPF_FD, TCA_BPF_NAME, TCA_BPF_FLAGS = 6, 7, 8
TCA_ACT_BPF_FD, TCA_ACT_BPF_NAME = 5, 6
ACTIONS: Final = {"bpf": 1, "flower": 3, "u32": 7, "matchall": 2, "basic": 3}
"""By a classifier's kind: the option that holds its actions."""

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


class Message(NamedTuple):
    """A message: header fields, and what follows them."""

    length: int
    type: int
    flags: int
    seq: int
    port: int
    body: bytes


def messages(data: bytes) -> Iterator[Message]:
    """The messages in a buffer; ends where a length makes no sense."""
    at = 0
    for _ in range(MESSAGES):
        if at + HEADER.size > len(data):
            return
        length, kind, bits, seq, port = HEADER.unpack_from(data, at)
        if length < HEADER.size:
            return
        yield Message(length, kind, bits, seq, port, data[at + HEADER.size : at + length])
        at += (length + 3) & ~3


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of each attribute; ends where a length makes no sense."""
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("<HH", data, at)
        if length < 4 or at + length > len(data):
            return
        yield kind & NESTED, data[at + 4 : at + length]
        at += (length + 3) & ~3


def attribute(data: bytes, kind: int) -> bytes | None:
    """The payload of the last attribute of a type, as the kernel's parser takes it."""
    found = None
    for each, payload in attributes(data):
        if each == kind:
            found = payload
    return found


def _number(data: bytes | None, signed: bool = False) -> int | None:
    if data is None or len(data) < 4:
        return None
    return int.from_bytes(data[:4], "little", signed=signed)


def _text(data: bytes | None) -> bytes:
    return b"" if data is None else data.partition(b"\0")[0]


def ifindex_of(message: Message) -> int:
    """The interface that a message is about; 0 where it names none."""
    group = message.type >> 2
    if group == RTM_NEWLINK >> 2 or RTM_NEWQDISC >> 2 <= group <= RTM_NEWTFILTER >> 2:
        return _number(message.body[4:8], signed=True) or 0
    return 0


class Request(NamedTuple):
    """What a message asks of BPF: a program (its fd, -1 to detach) and where to."""

    what: str
    """xdp, tc or action."""
    message: Message
    fd: int | None
    """None where the message names no program (a filter is deleted by its place)."""
    ifindex: int
    device: bytes = b""
    """Given instead of an ifindex."""
    flags: int = 0
    expected: int | None = None
    """IFLA_XDP_EXPECTED_FD: the program that is to be replaced."""
    parent: int = 0
    info: int = 0
    """tcm_info: priority << 16 | protocol."""
    name: bytes = b""


def request(message: Message) -> Iterator[Request]:
    """What a message asks of BPF."""
    if message.type in (RTM_NEWLINK, RTM_SETLINK) and len(message.body) >= _LINK.size:
        _, _, ifindex, _, _ = _LINK.unpack_from(message.body)
        rest = message.body[_LINK.size :]
        xdp = attribute(rest, IFLA_XDP)
        fd = None if xdp is None else _number(attribute(xdp, IFLA_XDP_FD), signed=True)
        if xdp is not None and fd is not None:
            yield Request(
                "xdp",
                message,
                fd,
                ifindex,
                _text(attribute(rest, IFLA_IFNAME)),
                _number(attribute(xdp, IFLA_XDP_FLAGS)) or 0,
                _number(attribute(xdp, IFLA_XDP_EXPECTED_FD), signed=True),
            )
    elif (
        message.type in (RTM_NEWTFILTER, RTM_DELTFILTER, RTM_DELQDISC)
        and len(message.body) >= _TC.size
    ):
        _, ifindex, _, parent, info = _TC.unpack_from(message.body)
        rest = message.body[_TC.size :]
        kind = _text(attribute(rest, TCA_KIND)).decode("ascii", "replace")
        options = attribute(rest, TCA_OPTIONS) or b""
        fd = _number(attribute(options, TCA_BPF_FD), signed=True) if kind == "bpf" else None
        where = {"ifindex": ifindex, "parent": parent, "info": info}
        if message.type != RTM_NEWTFILTER or fd is not None:
            name = _text(attribute(options, TCA_BPF_NAME)) if kind == "bpf" else b""
            yield Request("tc", message, fd, name=name, **where)
        for action in attributes(attribute(options, ACTIONS.get(kind, -1)) or b""):
            inner = attribute(action[1], TCA_OPTIONS) or b""
            fd = _number(attribute(inner, TCA_ACT_BPF_FD), signed=True)
            if fd is not None and _text(attribute(action[1], TCA_KIND)) == b"bpf":
                name = _text(attribute(inner, TCA_ACT_BPF_NAME))
                yield Request("action", message, fd, name=name, **where)


def requests(data: bytes) -> Iterator[Request]:
    """What the messages of a buffer ask of BPF."""
    for message in messages(data):
        yield from request(message)


class Answer(NamedTuple):
    """The kernel's answer to a request: 0 or an errno, and its words if it has any."""

    seq: int
    error: int
    text: bytes


def answers(data: bytes) -> Iterator[Answer]:
    """The NLMSG_ERRORs (an error of 0 is the acknowledgement) of a buffer."""
    for message in messages(data):
        if message.type == NLMSG_ERROR and len(message.body) >= 4:
            error = _number(message.body, signed=True) or 0
            yield Answer(message.seq, -error, _words(message))


def _words(message: Message) -> bytes:
    """NLMSGERR_ATTR_MSG of the extended acknowledgement."""
    if not message.flags & NLM_F_ACK_TLVS or len(message.body) < 4 + HEADER.size:
        return b""
    length = HEADER.unpack_from(message.body, 4)[0]
    skip = HEADER.size if message.flags & NLM_F_CAPPED else max(length, HEADER.size)
    return _text(attribute(message.body[4 + ((skip + 3) & ~3) :], 1))


# ---------------------------------------------------------------- values


def parent_name(parent: int) -> str | None:
    """ingress or egress of clsact, or ``1:0``."""
    return {0xFFFFFFF1: "clsact", 0xFFFFFFF2: "ingress", 0xFFFFFFF3: "egress"}.get(parent)


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
