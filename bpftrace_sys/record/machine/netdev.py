"""Questions about network devices, in the network namespace of a tracee."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from decoders.formats.netlink import attributes

Answer = TypeVar("Answer")

CLONE_NEWNET: Final = 0x40000000
NETLINK_ROUTE: Final = 0
RTM_NEWLINK, RTM_GETLINK, NLM_F_REQUEST = 16, 18, 1
IFLA_XDP: Final = 43
IFLA_XDP_ATTACHED: Final = 2
XDP_MODES: Final = {1: "drv", 2: "skb", 3: "hw", 4: "multi"}
"""XDP_ATTACHED_* (include/uapi/linux/if_link.h)."""


def in_netns(pid: int, ask: Callable[[], Answer | None]) -> Answer | None:
    """What ``ask`` says in the network namespace of a process; None where that is gone.

    A namespace is a thread's own, so a thread of ours goes there and ends.
    """
    try:
        theirs = os.stat(f"/proc/{pid or 'self'}/ns/net").st_ino
        if theirs == os.stat("/proc/self/ns/net").st_ino:
            return ask()
    except OSError:
        return None
    found: list[Answer | None] = []

    def go() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            if libc.setns(fd, CLONE_NEWNET) == 0:
                found.append(ask())
        finally:
            os.close(fd)

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    return found[0] if found else None


def ifname(ifindex: int) -> str | None:
    """The name of an interface, or None."""
    try:
        return socket.if_indextoname(ifindex)
    except (OSError, OverflowError):
        return None


def link_attributes(ifindex: int) -> bytes | None:
    """What RTM_GETLINK says of an interface: its attributes; None where it says nothing."""
    request = struct.pack("<IHHII", 32, RTM_GETLINK, NLM_F_REQUEST, 1, 0)
    request += struct.pack("<BxHiII", 0, 0, ifindex, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as route:
            route.settimeout(1)
            route.send(request)
            answer = route.recv(1 << 16)
    except (OSError, struct.error):
        return None
    if len(answer) < 32 or struct.unpack_from("<H", answer, 4)[0] != RTM_NEWLINK:
        return None
    return answer[32:]


def xdp_mode(ifindex: int) -> str | None:
    """How the XDP program of an interface runs: drv, skb, hw or multi; None where is none."""
    for kind, nested in attributes(link_attributes(ifindex) or b""):
        if kind == IFLA_XDP:
            for inner, value in attributes(nested):
                if inner == IFLA_XDP_ATTACHED and value:
                    return XDP_MODES.get(value[0])
    return None
