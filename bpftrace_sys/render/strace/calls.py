"""The system calls, argument by argument, and their results."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from typing import Final

from bpftrace_sys.render.strace.call_memory import Frame, PendingError
from bpftrace_sys.render.strace.fd_text import fd_text
from bpftrace_sys.render.strace.line import Line
from bpftrace_sys.render.strace.manner import Manner
from bpftrace_sys.render.strace.quoting import address, hexa, quoted, s32
from bpftrace_sys.render.strace.rows import IOCTLS, PAGE, PERF_BITS, ROWS
from decoders.call import Call
from decoders.declare import perf_attr
from decoders.declare.structs import layout_of
from decoders.raw import ENTRY, FdFact
from decoders.uapi import const, names, perf, system
from decoders.values import Name
from decoders.walk.measures import PERF_ATTR_SIZE_VER0
from decoders.walk.memory import Snapshot

_OPEN_ORDER: Final = (
    "O_CREAT O_EXCL O_NOCTTY O_TRUNC O_APPEND O_NONBLOCK O_SYNC O_DSYNC O_DIRECT O_LARGEFILE"
    " O_NOFOLLOW O_NOATIME O_CLOEXEC O_PATH O_TMPFILE O_DIRECTORY FASYNC"
)
_RESTARTS: Final = {
    512: "To be restarted if SA_RESTART is set",
    513: "To be restarted",
    514: "To be restarted if no handler",
    516: "Interrupted by signal",
}
_ERRNO: Final = {35: "EDEADLK", 95: "EOPNOTSUPP"}
"""Of two names for a number, strace's."""


def _bpf(line: Line) -> None:
    cmd, addr, size = line.args[0] & 0xFFFFFFFF, line.args[1], line.args[2] & 0xFFFFFFFF
    # 7.2 knows no common attributes: with their bit it is an unknown command.
    bit = 0 if line.names.exact else const.BPF_COMMON_ATTRS
    number = cmd & ~bit
    name = names.bpf_cmd.get(number)
    known = line.call.args.get("cmd")
    line.arg("cmd").append(
        line.names.xval(
            cmd, names.bpf_cmd, "BPF_???", known.name if isinstance(known, Name) else None
        )
    )
    key = "" if name is None else name.removeprefix("BPF_")
    _attr(line, "attr", "attr", key, addr, size)
    if cmd != number and name is not None:
        addr, size = line.args[3], line.args[4] & 0xFFFFFFFF
        _attr(line, "common_attr", "attr_common", "COMMON_ATTR", addr, size)


def _attr(line: Line, arg: str, path: str, row: str, addr: int, size: int) -> None:
    """A struct and its size, which are two arguments."""
    out = line.arg(arg)
    frame = line.frame((path,), addr, size) if 0 < size <= PAGE and row in ROWS else None
    if frame is None:
        out.append(address(addr))
    else:
        line.struct(row, frame)
    line.arg("size").append(str(size))


_PERF_SIZE: Final = layout_of(perf_attr.PERF_ATTR).size
_ABBREVIATED: Final = 48
"""Bytes of perf_event_attr that strace reads without -v: up to wakeup_events."""


def _perf_attr(line: Line, path: tuple[str, ...], addr: int) -> Frame | None:
    head = line.before.read(addr, 8) if addr and line.decoded else None
    if head is None or len(head) < 8:
        return None
    claimed = int.from_bytes(head[4:], "little")
    size = min(claimed, _PERF_SIZE) or PERF_ATTR_SIZE_VER0
    if size < PERF_ATTR_SIZE_VER0:
        return None
    data = line.before.read(addr, size) or b""
    if len(data) < size:
        return None
    if not line.verbose:
        size = _ABBREVIATED
        data = data[:size]
    return Frame(path, size, data, data if line.after is not None else None)


def _perf_event_open(line: Line) -> None:
    pid, cpu, group = (s32(arg) for arg in line.args[1:4])
    out = line.arg("attr")
    frame = _perf_attr(line, ("attr",), line.args[0])
    if frame is None:
        out.append(address(line.args[0]))
    else:
        line.exit()
        _print_perf_attr(line, frame)
    line.arg("pid").append(str(pid))
    line.arg("cpu").append(str(cpu))
    line.arg("group_fd").append(line.fd(group))
    line.arg("flags").append(
        line.names.flags(line.args[4], perf.perf_event_open_flags, "PERF_FLAG_???")
    )


def _print_perf_attr(line: Line, frame: Frame) -> None:
    """The attr; without -v only those of its bits that are set."""
    kept = len(line.out)
    line.struct("PERF_ATTR", frame)
    if not line.verbose:
        text = "".join(line.out[kept:])
        del line.out[kept:]
        for name in PERF_BITS:
            if name not in ("precise_ip", "__reserved_1"):
                text = text.replace(f", {name}=0", "")
        line.out.append(text)


def _ioctl(line: Line) -> None:
    fd, request, arg = s32(line.args[0]), line.args[1] & 0xFFFFFFFF, line.args[2]
    known = line.call.args.get("request")
    name = known.name if isinstance(known, Name) else None
    line.arg("fd").append(line.fd(fd))
    line.arg("op").append(line.names.named(hexa(request), name or _ioc(request)))
    kind = IOCTLS.get(name or "", "x")
    if kind == "number_out":
        line.exit()
    out = line.arg("argp")
    if kind == "group":
        table = perf.perf_event_ioc_flags
        out.append(line.names.flags(arg & 0xFFFFFFFF, table, "PERF_IOC_FLAG_???"))
    elif kind == "d":
        out.append(str(s32(arg)))
    elif kind == "fd":
        out.append(line.fd(s32(arg)))
    elif kind == "u":
        out.append(str(arg))
    elif kind == "filter":
        out.append(line.text(arg, PAGE, line.before))
    elif kind == "query":
        _query_bpf(line, arg)
    elif kind == "attr":
        frame = _perf_attr(line, ("arg",), arg)
        if frame is None:
            out.append(address(arg))
        else:
            _print_perf_attr(line, frame)
    elif kind in ("number", "number_out"):
        memory = line.before if kind == "number" else None if line.failed else line.after
        data = memory.read(arg, 8) if memory is not None and arg and line.decoded else None
        whole = data is not None and len(data) == 8
        number = int.from_bytes(data or b"", "little")
        out.append(f"[{number}]" if whole else address(arg))
    else:
        out.append(hexa(arg))


def _ioc(request: int) -> str:
    """A request that has no name, as its parts."""
    ways = {0: "_IOC_NONE", 1: "_IOC_WRITE", 2: "_IOC_READ", 3: "_IOC_READ|_IOC_WRITE"}
    kind, number, size = request >> 8 & 0xFF, request & 0xFF, request >> 16 & 0x3FFF
    return f"_IOC({ways[request >> 30]}, {hexa(kind)}, {hexa(number)}, {hexa(size)})"


def _query_bpf(line: Line, arg: int) -> None:
    head = line.before.read(arg, 4) if arg and line.decoded else None
    if head is None or len(head) < 4:
        line.out.append(address(arg))
        return
    line.out.append(f"{{ids_len={int.from_bytes(head, 'little')}, ")
    after = line.exit().read(arg, 8)
    if line.failed or after is None or len(after) < 8:
        line.out.append("...}")
        return
    count = int.from_bytes(after[4:], "little")
    line.out.append(f"prog_cnt={count}, ids={_ids(line, arg + 8, count)}}}")


def _ids(line: Line, addr: int, count: int) -> str:
    data = line.exit().read(addr, 4 * count) or b""
    if count and len(data) < 4:
        return address(addr)
    ids = [str(number) for (number,) in struct.iter_unpack("<I", data[: len(data) & ~3])]
    if not line.verbose and len(ids) > line.limit:
        ids = [*ids[: line.limit], "..."]
    elif len(ids) < count:
        ids.append(f"... /* {addr + 4 * len(ids):#x} */")
    return f"[{', '.join(ids)}]"


def _openat(line: Line) -> None:
    dirfd, bits = s32(line.args[0]), line.args[2] & 0xFFFFFFFF
    known = line.call.args.get("flags")
    found = list(getattr(known, "names", ()))
    rest = getattr(known, "rest", bits)
    # The access mode, which is in no order, comes first.
    shown = sorted(found, key=lambda name: f" {_OPEN_ORDER} ".find(f" {name} "))
    if rest & 3 == 3:
        shown.insert(0, "O_ACCMODE")
        rest &= ~3
    if rest:
        shown.append(hexa(rest))
    line.arg("dirfd").append(line.dirfd(dirfd))
    line.arg("pathname").append(line.path(line.args[1]))
    line.arg("flags").append(line.names.named(hexa(bits), "|".join(shown)))
    if line.call.args.get("mode") is not None:
        line.arg("mode").append(f"{line.args[3] & 0xFFFF:#05o}".replace("0o", "0"))


def _setsockopt(line: Line) -> None:
    fd, level, option, addr, size = line.args[0], *line.args[1:5]
    line.arg("fd").append(line.fd(s32(fd)))
    for name, number in (("level", level), ("optname", option)):
        value = line.call.args.get(name)
        text = hexa(number & 0xFFFFFFFF)
        if isinstance(value, Name) and value.name:
            text = line.names.named(text, value.name)
        line.arg(name).append(text)
    size = s32(size)
    line.arg("optval").append(
        line.data(addr, size, line.before, quoted) if size >= 0 else address(addr)
    )
    line.arg("optlen").append(str(size))


def _write(line: Line) -> None:
    fd, addr, size = line.args[:3]
    line.arg("fd").append(line.fd(s32(fd)))
    line.arg("buf").append(line.data(addr, size, line.before, quoted))
    line.arg("count").append(str(size))


def _close(line: Line) -> None:
    line.arg("fd").append(line.fd(s32(line.args[0])))


CALLS: Final[dict[str, Callable[[Line], None]]] = {
    "bpf": _bpf,
    "perf_event_open": _perf_event_open,
    "ioctl": _ioctl,
    "openat": _openat,
    "setsockopt": _setsockopt,
    "write": _write,
    "close": _close,
}
ARGUMENTS: Final = {
    "bpf": 3, "perf_event_open": 5, "ioctl": 3, "openat": 4, "setsockopt": 5, "write": 3,
    "close": 1,
}  # fmt: skip
"""How many arguments strace prints as numbers."""
AS_NUMBERS: Final = frozenset({"sendto", "sendmsg", "recvfrom", "recvmsg"})
"""Calls without a row: the arguments are shown as they are in the registers."""


ALL: Final = (1 << 64) - 1
UNFINISHED: Final = " <unfinished ...>"
DETACHED: Final = " <detached ...>"


def call_words(call: Call, manner: Manner, apart: bool = False) -> tuple[str, bool]:
    """A call up to its closing parenthesis, as far as it is known; whether that is all of it.

    ``apart``: what is known at the entry is printed ahead of the rest, as it then is; so the
    text of a call that has not returned is how that of the whole call begins.
    """
    line = Line(call, manner, apart)
    name = call.syscall.name
    line.out.append(f"{name}(")
    show = None if name in manner.raw else CALLS.get(name)
    try:
        if show is None:
            line.out.append(", ".join(hexa(arg) for arg in line.args[: ARGUMENTS.get(name, 6)]))
        else:
            show(line)
    except PendingError:
        return "".join(line.out), False
    return "".join([*line.out, *line.changes]), True


def call_line(call: Call, manner: Manner, prefix: str = "") -> str:
    """A call as one line, without its newline.

    ``prefix`` comes before the name of the call and counts as part of the line.
    """
    text, whole = call_words(call, manner)
    if call.raw.extra.detached:
        return f"{prefix}{text}{DETACHED}"
    text = f"{prefix}{text}{'' if whole else UNFINISHED}) "
    return f"{text:<{max(0, manner.column)}}= {outcome(call, manner)}"


def outcome(call: Call, manner: Manner) -> str:
    """What stands behind the ``=``."""
    ret = result(call, hexa if call.syscall.name in manner.raw else str)
    injected = " (INJECTED)" if call.raw.extra.injected else ""
    fact = _result_fd(call, manner) if manner.fds else None
    return f"{ret}{'' if fact is None else fd_text(fact, manner.fds)}{injected}"


def _result_fd(call: Call, manner: Manner) -> FdFact | None:
    """What a call's result is, where that is taken for an fd."""
    if not manner.release or call.syscall.name != "bpf":
        return call.result_fd
    if call.raw.failed or call.raw.ret is None or not _is_fd(call):
        return None
    return call.result_fd or call.fd(call.raw.ret)


def _is_fd(call: Call) -> bool:
    """Whether strace takes a call's result for an fd: of bpf where it has decoded the attr."""
    if call.syscall.name != "bpf":
        return call.syscall.name in ("perf_event_open", "openat")
    addr, size = call.raw.args[1], call.raw.args[2] & 0xFFFFFFFF
    if call.command not in FDS_7_2 or not 0 < size <= PAGE:
        return False
    before = Snapshot(chunk for chunk in call.raw.chunks if chunk.stage == ENTRY)
    return len(before.read(addr, size) or b"") == size


FDS_7_2: Final = frozenset(f"BPF_{name}" for name in (
    "MAP_CREATE", "PROG_LOAD", "OBJ_PIN", "OBJ_GET", "PROG_GET_FD_BY_ID", "MAP_GET_FD_BY_ID",
    "BTF_LOAD", "BTF_GET_FD_BY_ID", "LINK_CREATE", "LINK_GET_FD_BY_ID", "ENABLE_STATS",
    "ITER_CREATE", "PROG_BIND_MAP", "TOKEN_CREATE",
))  # fmt: skip
"""Commands whose result strace 7.2 takes for an fd, which of two of them is none (src/bpf.c)."""


def result(call: Call, show: Callable[[int], str] = str) -> str:
    """The result, with the name and meaning of an error; ``?`` where there was none."""
    ret = call.raw.ret
    if ret is None:
        return "?"
    if call.raw.extra.as_value:
        return show(ret if show is str and _is_fd(call) else ret & ALL)
    if not call.raw.failed:
        return show(ret)
    number = -ret
    kernel = system.kernel_errno.get(number)
    if number in _RESTARTS:
        return f"? {kernel} ({_RESTARTS[number]})"
    name = _ERRNO.get(number) or errno.errorcode.get(number) or kernel
    return f"-1 {name} ({os.strerror(number)})" if name else f"-1 (errno {number})"
