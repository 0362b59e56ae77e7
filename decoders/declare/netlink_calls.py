"""Calls on netlink sockets: imported when one of them is decoded (SYSCALLS of syscalls.py)."""

from __future__ import annotations

from typing import Any, Final

from decoders.constructs import cs
from decoders.declare.fields import S32, U32, U64, X32, X64, Skip, this
from decoders.declare.netlink import Messages
from decoders.declare.registers import FD_ARG, Syscall, half
from decoders.declare.structs import Blob, In, Many, One, Out, Pick, Ptr
from decoders.walk import measures


# Only on route netlink sockets, with -e trace=netlink.
def _pointer(target: Any, way: str, wide: bool) -> Any:
    return Ptr(target, way, subcon=cs.Int64ul if wide else cs.Int32ul)


def _msghdr(way: str, wide: bool) -> Any:
    """struct user_msghdr and its iovecs, of either word size (include/linux/socket.h)."""
    word = U64 if wide else U32
    pad = ["_" / Skip(4)] if wide else []
    length = this.len if way == "in" else measures.received
    iovec = cs.Struct("base" / _pointer(Messages(length), way, wide), "len" / word)
    # What is received lands in the first buffer: nobody splits netlink messages.
    iov = Many(iovec, measures.iov_count) if way == "in" else One(iovec)
    return cs.Struct(
        "name" / _pointer(Blob(measures.name_size), way, wide),
        "namelen" / U32,
        *pad,
        "iov" / _pointer(iov, "in", wide),
        "iovlen" / word,
        "control" / (X64 if wide else X32),
        "controllen" / word,
        "flags" / X32,
        *pad,
    )


def _message_call(way: str) -> Any:
    rows = {wide: cs.Struct("msg" / In(One(_msghdr(way, wide)))) for wide in (True, False)}
    return cs.Struct(
        *half("fd", FD_ARG),
        "msg" / Pick(measures.is_wide, rows),
        *half("flags", X32),
    )


SENDTO = cs.Struct(
    *half("fd", FD_ARG),
    "buf" / In(Messages(this.len)),
    "len" / U64,
    *half("flags", X32),
    "addr" / In(Blob(measures.address_size)),
    *half("addrlen", S32),
)
RECVFROM = cs.Struct(
    *half("fd", FD_ARG),
    "buf" / Out(Messages(measures.received)),
    "len" / U64,
    *half("flags", X32),
    "addr" / X64,
    "addrlen" / X64,
)

CALLS: Final = (
    Syscall("sendto", SENDTO),
    Syscall("sendmsg", _message_call("in")),
    Syscall("recvfrom", RECVFROM),
    Syscall("recvmsg", _message_call("out")),
)
