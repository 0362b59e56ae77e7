"""The traced system calls: one row each, over their argument registers.

The registers are six u64, so a call's arguments are a struct of 48 bytes, and
its pointers are followed like any other struct's.  An ``int`` argument is the
low half of its register.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

from decoders import arch as arches
from decoders.constructs import cs
from decoders.declare import bpf_attr
from decoders.declare.fields import (
    S32,
    U32,
    U64,
    X64,
    FdField,
    Field,
    Named,
    Num,
    flags,
    this,
)
from decoders.declare.registers import FD_ARG, half
from decoders.declare.registers import Syscall as Syscall
from decoders.declare.structs import Blob, Chunked, CStr, In, One, Pick
from decoders.raw import AUDIT_ARCH_AARCH64
from decoders.uapi import const, names, system
from decoders.values import Flags, Name, Value
from decoders.walk import measures
from decoders.walk.scope import Scope


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


FD_COMMANDS: Final = frozenset(
    number for number, row in bpf_attr.COMMANDS.items() if row.returns_fd
)
"""Commands of bpf(2) that return an fd."""

LATE: Final = {
    "perf_event_open": "perf_calls", "ioctl": "perf_calls",
    "sendto": "netlink_calls", "sendmsg": "netlink_calls",
    "recvfrom": "netlink_calls", "recvmsg": "netlink_calls",
}  # fmt: skip
"""Calls whose declarations are imported when they are asked for: most traces have none of them."""


class _Syscalls(Mapping[str, Syscall]):
    """The rows by name."""

    def __init__(self, rows: Iterable[Syscall]) -> None:
        self._rows = {row.name: row for row in rows}

    def __getitem__(self, name: str) -> Syscall:
        if name not in self._rows and name in LATE:
            late: Iterable[Syscall] = import_module(f"decoders.declare.{LATE[name]}").CALLS
            self._rows.update({row.name: row for row in late})
        return self._rows[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._rows, **LATE})

    def __len__(self) -> int:
        return len({**self._rows, **LATE})


SYSCALLS: Final = _Syscalls(
    (
        Syscall("bpf", BPF, FD_COMMANDS, "cmd"),
        Syscall("openat", OPENAT, True),
        Syscall("setsockopt", SETSOCKOPT),
        Syscall("write", WRITE),
        Syscall("close", CLOSE),
    )
)

UNKNOWN = Syscall(
    "syscall", cs.Struct(*(f"arg{index}" / X64 for index in range(6)))
)


@lru_cache(maxsize=256)
def syscall_of(arch: int, nr: int) -> Syscall:
    """The row of a call, or UNKNOWN."""
    name = arches.name(arch, nr)
    return SYSCALLS.get(name, UNKNOWN) if name is not None else UNKNOWN

