"""Route netlink messages: headers, attributes, requests and answers."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from decoders.records import NamedTuple

MESSAGES: Final = 4096
LOOKED_AT: Final = 1 << 18
"""Bytes of a buffer; a message is no longer than SO_SNDBUF (net.core.wmem_max, 208 KiB)."""
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
TCA_BPF_FD, TCA_BPF_NAME = 6, 7
TCA_ACT_BPF_FD, TCA_ACT_BPF_NAME = 5, 6
ACTIONS: Final = {"bpf": 1, "flower": 3, "u32": 7, "matchall": 2, "basic": 3}
"""By a classifier's kind: the option that holds its actions."""


class Message(NamedTuple):
    """A message: header fields, and what follows them."""

    length: int
    type: int
    flags: int
    seq: int
    port: int
    body: bytes


def messages(data: bytes) -> Iterator[Message]:
    """The messages in a buffer; ends where a length makes no sense, or where it is too long."""
    data = data[:LOOKED_AT]
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


def parent_name(parent: int) -> str | None:
    """ingress or egress of clsact, or ``1:0``."""
    return {0xFFFFFFF1: "clsact", 0xFFFFFFF2: "ingress", 0xFFFFFFF3: "egress"}.get(parent)
