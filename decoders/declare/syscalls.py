"""The traced system calls: one row each, over their argument registers.

The registers are six u64, so a call's arguments are a struct of 48 bytes, and
its pointers are followed like any other struct's.  An ``int`` argument is the
low half of its register.
"""

from __future__ import annotations

from typing import Any, Final

from decoders import arch as arches
from decoders.constructs import cs
from decoders.declare import bpf_attr, perf_ioctl
from decoders.declare.fields import (
    S32,
    U32,
    U64,
    X32,
    X64,
    FdField,
    Field,
    FlagSet,
    Named,
    Num,
    Skip,
    flags,
    this,
)
from decoders.declare.netlink import Messages
from decoders.declare.perf_attr import PERF_ATTR_POINTER
from decoders.declare.structs import Blob, Chunked, CStr, In, Many, One, Out, Pick, Ptr
from decoders.raw import AUDIT_ARCH_AARCH64
from decoders.records import dataclass
from decoders.uapi import const, names, perf, system
from decoders.values import Flags, Name, Struct, Value
from decoders.walk import measures
from decoders.walk.scope import Scope


def half(name: str, field: Field) -> tuple[Any, Any]:
    """An int argument: 4 bytes of an 8-byte register."""
    return name / field, "_" / Skip(4)


class DirFd(FdField):
    """An fd of a directory, or AT_FDCWD."""

    def value(self, raw: Any, scope: Scope) -> Value:
        if raw == const.AT_FDCWD:
            return Name(raw, "AT_FDCWD")
        return super().value(raw, scope)


class OpenFlags(Field):
    """flags of open(2): the access mode is a number among bits, and bits differ by CPU."""

    def value(self, raw: Any, scope: Scope) -> Value:
        arm = scope.env.arch == AUDIT_ARCH_AARCH64
        bits = flags(raw & ~const.O_ACCMODE, system.o_flags_arm64 if arm else system.o_flags)
        mode = system.o_accmode.get(raw & const.O_ACCMODE)
        if mode is None:
            return Flags(raw, bits.names, bits.rest | const.O_ACCMODE, "O")
        return Flags(raw, (mode, *bits.names), bits.rest, "O")


class Command(Field):
    """cmd of bpf(2), with or without BPF_COMMON_ATTRS."""

    def value(self, raw: Any, scope: Scope) -> Value:
        number = raw & ~const.BPF_COMMON_ATTRS
        name = names.bpf_cmd.get(number)
        newer = False
        if name is None:
            name = scope.env.newer("bpf_cmd", number)
            newer = name is not None
        if name is not None and raw != number:
            name += "|BPF_COMMON_ATTRS"
        return Name(raw, name, "bpf_cmd", newer)


FD_ARG = FdField(cs.Int32sl)
OPEN_FLAGS = OpenFlags(cs.Int32ul)
MODE = Num(cs.Int32ul, 8)


MODE_ARG = Pick(measures.wants_mode, {True: cs.Struct(*half("mode", MODE))}, size=8)

BPF = cs.Struct(
    *half("cmd", Command(cs.Int32ul)),
    "attr" / In(One(bpf_attr.ATTR, size=this.size, unknown=bpf_attr.UNKNOWN_COMMAND)),
    *half("size", U32),
    "common"
    / Pick(
        measures.has_common,
        {
            True: cs.Struct(
                "attr_common" / In(One(bpf_attr.COMMON_ATTR, size=this.size_common)),
                *half("size_common", U32),
            )
        },
        size=16,
    ),
)

PERF_EVENT_OPEN = cs.Struct(
    "attr" / In(PERF_ATTR_POINTER),
    "who"
    / Pick(
        measures.is_cgroup,
        {True: cs.Struct(*half("pid", FD_ARG)), False: cs.Struct(*half("pid", S32))},
    ),
    *half("cpu", S32),
    *half("group_fd", FD_ARG),
    "flags" / FlagSet(cs.Int64ul, perf.perf_event_open_flags, "PERF_FLAG"),
)

IOCTL = cs.Struct(
    *half("fd", FD_ARG),
    *half("request", Named(cs.Int32ul, perf_ioctl.NAMES)),
    "arg" / Pick(this.request, perf_ioctl.ROWS, default=perf_ioctl.ANY_ARG),
)

OPENAT = cs.Struct(
    *half("dirfd", DirFd(cs.Int32sl)),
    "pathname" / In(CStr(4096)),
    *half("flags", OPEN_FLAGS),
    "mode" / MODE_ARG,
)


SETSOCKOPT = cs.Struct(
    *half("fd", FD_ARG),
    *half("level", Named(cs.Int32sl, {measures.SOL_SOCKET: "SOL_SOCKET"})),
    *half("optname", Named(cs.Int32sl, system.so_filter)),
    "optval"
    / Pick(
        measures.socket_option,
        {
            "fd": cs.Struct("optval" / In(One(cs.Struct("fd" / FD_ARG), size=this.optlen))),
            "bytes": cs.Struct("optval" / In(Blob(measures.option_size))),
        },
    ),
    *half("optlen", S32),
)

# Only of files that define probes (kprobe_events and the like), while they are open.
WRITE = cs.Struct(
    *half("fd", FD_ARG),
    "buf" / In(Chunked(measures.written_size)),
    "count" / U64,
)
CLOSE = cs.Struct(*half("fd", FD_ARG))


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


@dataclass(frozen=True, slots=True)
class Syscall:
    """A traced call: its name, its arguments' declaration, what it returns."""

    name: str
    args: Any
    returns: frozenset[int] | bool = False
    """Whether a successful result is an fd; or the commands whose result is one."""
    label: str | None = None
    """The argument that says what the call does: bpf's cmd, ioctl's request."""

    def returns_fd(self, args: Scope) -> bool:
        """Whether the result of a call with these raw arguments is an fd."""
        if isinstance(self.returns, bool):
            return self.returns
        return measures.command(args) in self.returns

    def command(self, args: Struct) -> str:
        """The name by which to speak of a call with these arguments."""
        if self.label is not None:
            value = args.get(self.label)
            if isinstance(value, Name) and value.name is not None:
                return value.name
        return self.name


FD_COMMANDS: Final = frozenset(
    number for number, row in bpf_attr.COMMANDS.items() if row.returns_fd
)
"""Commands of bpf(2) that return an fd."""

SYSCALLS: Final[dict[str, Syscall]] = {
    row.name: row
    for row in (
        Syscall("bpf", BPF, FD_COMMANDS, "cmd"),
        Syscall("perf_event_open", PERF_EVENT_OPEN, True),
        Syscall("ioctl", IOCTL, False, "request"),
        Syscall("openat", OPENAT, True),
        Syscall("setsockopt", SETSOCKOPT),
        Syscall("write", WRITE),
        Syscall("close", CLOSE),
        Syscall("sendto", SENDTO),
        Syscall("sendmsg", _message_call("in")),
        Syscall("recvfrom", RECVFROM),
        Syscall("recvmsg", _message_call("out")),
    )
}
"""By name."""

UNKNOWN = Syscall(
    "syscall", cs.Struct(*(f"arg{index}" / X64 for index in range(6)))
)


def syscall_of(arch: int, nr: int) -> Syscall:
    """The row of a call, or UNKNOWN."""
    name = arches.name(arch, nr)
    return SYSCALLS.get(name, UNKNOWN) if name is not None else UNKNOWN

