"""What a socket is, asked of the kernel by its inode: protocol, addresses, peer.

By NETLINK_SOCK_DIAG (include/uapi/linux/sock_diag.h, inet_diag.h, unix_diag.h, netlink_diag.h), in
the network namespace of the calling thread; told in strace's words, as ``TCP:[127.0.0.1:80]``.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Final

from decoders.formats.netlink import NLMSG_DONE, NLMSG_ERROR, Message, attributes, messages
from decoders.records import NamedTuple

NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
NLM_F_REQUEST, NLM_F_DUMP = 1, 0x300
NDIAG_PROTO_ALL: Final = 0xFF
UDIAG_SHOW_NAME, UDIAG_SHOW_PEER = 1, 4
UNIX_DIAG_NAME, UNIX_DIAG_PEER = 0, 2
ALL: Final = 0xFFFFFFFF
UNIX_PATH: Final = 108
PATIENCE: Final = 0.25
"""Seconds for a list of all sockets of a protocol: somebody stands in a stop."""
KNOWN: Final = 1024
"""Sockets that are remembered."""

NETLINK: Final = dict(enumerate((
    "ROUTE", "UNUSED", "USERSOCK", "FIREWALL", "SOCK_DIAG", "NFLOG", "XFRM", "SELINUX", "ISCSI",
    "AUDIT", "FIB_LOOKUP", "CONNECTOR", "NETFILTER", "IP6_FW", "DNRTMSG", "KOBJECT_UEVENT",
    "GENERIC",
))) | {18: "SCSITRANSPORT", 19: "ECRYPTFS", 20: "RDMA", 21: "CRYPTO", 22: "SMC"}  # fmt: skip
"""Protocols of include/uapi/linux/netlink.h."""


class Told(NamedTuple):
    """What a socket is."""

    words: str
    """Addresses, or inodes of it and its peer: ``127.0.0.1:80->127.0.0.1:4711``."""
    path: str = ""
    """Of a unix socket its name; behind an @ one that is none of a file."""


class Protocol(NamedTuple):
    """How sockets of a protocol are asked for."""

    family: int
    number: int = 0


INET, INET6 = int(socket.AF_INET), int(socket.AF_INET6)
PROTOCOLS: Final = {
    name + end: Protocol(family, number)
    for end, family in (("", INET), ("v6", INET6))
    for name, number in {
        "TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP, "UDPLITE": socket.IPPROTO_UDPLITE,
        "DCCP": 33, "SCTP": socket.IPPROTO_SCTP, "L2TP/IP": 115,
        "PING": socket.IPPROTO_ICMP, "RAW": socket.IPPROTO_RAW,
    }.items()
} | {
    "UNIX": Protocol(socket.AF_UNIX), "UNIX-STREAM": Protocol(socket.AF_UNIX),
    "NETLINK": Protocol(socket.AF_NETLINK),
}  # fmt: skip
"""By what the socket's own file says of it (system.sockprotoname: struct proto of net/)."""


class SockDiag:
    """Asks, and remembers what no longer changes; or all, as strace does (``stale``)."""

    def __init__(self, stale: bool = False) -> None:
        self.stale = stale
        self._known: dict[int, Told] = {}

    def told(self, path: str, link: str) -> Told | None:
        """Of a socket's fd (``/proc/TID/fd/N``), which reads ``link``, with its protocol's name
        in ``words``; None: nothing is known."""
        if not (link.startswith("socket:[") and link.endswith("]")) or not link[8:-1].isdecimal():
            return None
        inode = int(link[8:-1])
        known = self._known.get(inode)
        if known is not None:
            return known
        try:
            name = os.getxattr(path, "system.sockprotoname").rstrip(b"\0").decode("ascii")
        except (OSError, ValueError):
            return None
        protocol = PROTOCOLS.get(name)
        if protocol is None:
            return None
        try:
            found = _asked(protocol, inode)
        except OSError:
            found = None
        told = Told(f"{name}:[{inode}]")
        if found is not None:
            told = found._replace(words=f"{name}:[{found.words}]")
            if self.stale or "->" in told.words:
                if len(self._known) >= KNOWN:
                    self._known.clear()
                self._known[inode] = told
        return told


def _asked(protocol: Protocol, inode: int) -> Told | None:
    family = protocol.family
    found: Iterator[Told | None]
    if family == socket.AF_UNIX:
        show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER
        body = struct.pack("<BBHIIIII", family, 0, 0, ALL, inode, show, ALL, ALL)
        found = (_unix(answer.body, inode) for answer in _answers(body, 0))
    elif family == socket.AF_NETLINK:
        body = struct.pack("<BBHIIII", family, NDIAG_PROTO_ALL, 0, 0, 0, 0, 0)
        found = (_netlink(answer.body, inode) for answer in _answers(body, NLM_F_DUMP))
    else:
        body = struct.pack("<BBBxI48x", family, protocol.number, 0, ALL)
        found = (_inet(answer.body, inode) for answer in _answers(body, NLM_F_DUMP))
    return next((told for told in found if told is not None), None)


def _answers(body: bytes, flags: int) -> Iterator[Message]:
    """The answers to a question, as long as we have patience."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, NETLINK_SOCK_DIAG) as asking:
        head = struct.pack(
            "<IHHII", 16 + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | flags, 1, 0
        )
        asking.settimeout(PATIENCE)
        asking.send(head + body)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for message in messages(asking.recv(1 << 16)):
                if message.type in (NLMSG_DONE, NLMSG_ERROR):
                    return
                if message.type == SOCK_DIAG_BY_FAMILY:
                    yield message
            if not flags:
                return


def _inet(body: bytes, inode: int) -> Told | None:
    """struct inet_diag_msg."""
    if len(body) < 72 or int.from_bytes(body[68:72], "little") != inode:
        return None
    family = body[0]
    size = {INET: 4, INET6: 16}.get(family)
    if size is None:
        return None
    ports = struct.unpack_from(">HH", body, 4)
    source, target = body[8 : 8 + size], body[24 : 24 + size]
    text = _address(family, source, ports[0])
    if ports[1] or any(target):
        text += f"->{_address(family, target, ports[1])}"
    return Told(text)


def _address(family: int, address: bytes, port: int) -> str:
    text = socket.inet_ntop(family, address)
    return f"[{text}]:{port}" if family == INET6 else f"{text}:{port}"


def _unix(body: bytes, inode: int) -> Told | None:
    """struct unix_diag_msg: the inode, and then that of the peer, and the name."""
    if len(body) < 16 or body[0] != socket.AF_UNIX:
        return None
    if int.from_bytes(body[4:8], "little") != inode:
        return None
    peer, name = 0, b""
    for kind, value in attributes(body[16:]):
        if kind == UNIX_DIAG_NAME and not name:
            name = value[:UNIX_PATH]
        elif kind == UNIX_DIAG_PEER and len(value) >= 4:
            peer = int.from_bytes(value[:4], "little")
    if not peer and not name:
        return None
    # A name that begins with NUL is none of a file.
    at = "@" if name[:1] == b"\0" else ""
    return Told(f"{inode}->{peer}" if peer else f"{inode}", at + os.fsdecode(name[bool(at):]))


def _netlink(body: bytes, inode: int) -> Told | None:
    """struct netlink_diag_msg."""
    if len(body) < 28 or body[0] != socket.AF_NETLINK:
        return None
    if int.from_bytes(body[16:20], "little") != inode:
        return None
    name = NETLINK.get(body[2])
    if name is None:
        return Told(str(body[2]))
    return Told(f"{name}:{int.from_bytes(body[4:8], 'little')}")
