"""The system calls, argument by argument, and their results."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from typing import Final

from bpftrace_sys.render.strace.call_memory import Frame, PendingError
from bpftrace_sys.render.strace.line import Line
from bpftrace_sys.render.strace.quoting import address, flags, hexa, quoted, s32
from bpftrace_sys.render.strace.rows import IOCTLS, PAGE, PERF_BITS, ROWS
from decoders.call import Call
from decoders.declare import perf_attr
from decoders.declare.structs import layout_of
from decoders.uapi import const, names, perf, system
from decoders.values import Name
from decoders.walk.measures import PERF_ATTR_SIZE_VER0

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
    out = line.out
    cmd, addr, size = line.args[0] & 0xFFFFFFFF, line.args[1], line.args[2] & 0xFFFFFFFF
    number = cmd & ~const.BPF_COMMON_ATTRS
    name = names.bpf_cmd.get(number)
    known = line.call.args.get("cmd")
    shown = known.name if isinstance(known, Name) else names.bpf_cmd.get(cmd)
    out.append(f"{shown or f'{hexa(cmd)} /* BPF_??? */'}, ")
    key = "" if name is None else name.removeprefix("BPF_")
    frame = line.frame(("attr",), addr, size) if 0 < size <= PAGE and key in ROWS else None
    if frame is None:
        out.append(address(addr))
    else:
        line.struct(key, frame)
    out.append(f", {size}")
    if cmd != number and name is not None:
        addr, size = line.args[3], line.args[4] & 0xFFFFFFFF
        out.append(", ")
        frame = line.frame(("attr_common",), addr, size) if 0 < size <= PAGE else None
        if frame is None:
            out.append(address(addr))
        else:
            line.struct("COMMON_ATTR", frame)
        out.append(f", {size}")


_PERF_SIZE: Final = layout_of(perf_attr.PERF_ATTR).size
_ABBREVIATED: Final = 48
"""Bytes of perf_event_attr that strace reads without -v: up to wakeup_events."""


def _perf_attr(line: Line, path: tuple[str, ...], addr: int) -> Frame | None:
    head = line.before.read(addr, 8) if addr else None
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
    frame = _perf_attr(line, ("attr",), line.args[0])
    if frame is None:
        line.out.append(address(line.args[0]))
    else:
        line.exit()
        _print_perf_attr(line, frame)
    bits = flags(line.args[4], perf.perf_event_open_flags, "PERF_FLAG_???")
    line.out.append(f", {pid}, {cpu}, {group}, {bits}")


def _print_perf_attr(line: Line, frame: Frame) -> None:
    """The attr; without -v only those of its bits that are set."""
    kept = len(line.out)
    line.struct("PERF_ATTR", frame)
    if not line.verbose:
        text = "".join(line.out[kept:])
        del line.out[kept:]
        for name in PERF_BITS:
            if name != "precise_ip":
                text = text.replace(f", {name}=0", "")
        line.out.append(text)


def _ioctl(line: Line) -> None:
    fd, request, arg = s32(line.args[0]), line.args[1] & 0xFFFFFFFF, line.args[2]
    known = line.call.args.get("request")
    name = known.name if isinstance(known, Name) else None
    line.out.append(f"{fd}, {name or _ioc(request)}, ")
    kind = IOCTLS.get(name or "", "x")
    if kind == "group":
        table = perf.perf_event_ioc_flags
        line.out.append(flags(arg & 0xFFFFFFFF, table, "PERF_IOC_FLAG_???"))
    elif kind == "d":
        line.out.append(str(s32(arg)))
    elif kind == "u":
        line.out.append(str(arg))
    elif kind == "filter":
        line.out.append(line.text(arg, PAGE, line.before))
    elif kind == "query":
        _query_bpf(line, arg)
    elif kind == "attr":
        frame = _perf_attr(line, ("arg",), arg)
        if frame is None:
            line.out.append(address(arg))
        else:
            _print_perf_attr(line, frame)
    elif kind in ("number", "number_out"):
        if kind == "number_out" and line.after is None:
            line.out[-1] = line.out[-1].removesuffix(", ")
            raise PendingError
        memory = line.before if kind == "number" else None if line.failed else line.after
        data = memory.read(arg, 8) if memory is not None and arg else None
        whole = data is not None and len(data) == 8
        number = int.from_bytes(data or b"", "little")
        line.out.append(f"[{number}]" if whole else address(arg))
    else:
        line.out.append(hexa(arg))


def _ioc(request: int) -> str:
    """A request that has no name, as its parts."""
    ways = {0: "_IOC_NONE", 1: "_IOC_WRITE", 2: "_IOC_READ", 3: "_IOC_READ|_IOC_WRITE"}
    kind, number, size = request >> 8 & 0xFF, request & 0xFF, request >> 16 & 0x3FFF
    return f"_IOC({ways[request >> 30]}, {hexa(kind)}, {hexa(number)}, {hexa(size)})"


def _query_bpf(line: Line, arg: int) -> None:
    head = line.before.read(arg, 4) if arg else None
    if head is None or len(head) < 4:
        line.out.append(address(arg))
        return
    line.out.append(f"{{ids_len={int.from_bytes(head, 'little')}, ")
    after = line.exit().read(arg, 8)
    if line.failed or after is None or len(after) < 8:
        line.out.append("...}")
        return
    count = int.from_bytes(after[4:], "little")
    data = line.exit().read(arg + 8, 4 * count) or b""
    ids = [str(number) for (number,) in struct.iter_unpack("<I", data[: len(data) & ~3])]
    line.out.append(f"prog_cnt={count}, ids=[{', '.join(ids)}]}}")


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
    where = "AT_FDCWD" if dirfd == const.AT_FDCWD else str(dirfd)
    line.out.append(f"{where}, {line.path(line.args[1])}, {'|'.join(shown)}")
    if line.call.args.get("mode") is not None:
        line.out.append(f", {line.args[3] & 0xFFFF:#05o}".replace("0o", "0"))


def _setsockopt(line: Line) -> None:
    fd, level, option, addr, size = line.args[0], *line.args[1:5]
    known = [line.call.args.get(name) for name in ("level", "optname")]
    shown = [
        value.name if isinstance(value, Name) and value.name else hexa(number & 0xFFFFFFFF)
        for value, number in zip(known, (level, option), strict=True)
    ]
    size = s32(size)
    line.out.append(f"{s32(fd)}, {', '.join(shown)}, ")
    line.out.append(line.data(addr, size, line.before, quoted) if size >= 0 else address(addr))
    line.out.append(f", {size}")


def _write(line: Line) -> None:
    fd, addr, size = line.args[:3]
    line.out.append(f"{s32(fd)}, {line.data(addr, size, line.before, quoted)}, {size}")


CALLS: Final[dict[str, Callable[[Line], None]]] = {
    "bpf": _bpf,
    "perf_event_open": _perf_event_open,
    "ioctl": _ioctl,
    "openat": _openat,
    "setsockopt": _setsockopt,
    "write": _write,
    "close": lambda line: line.out.append(str(s32(line.args[0]))),
}
AS_NUMBERS: Final = frozenset({"sendto", "sendmsg", "recvfrom", "recvmsg"})
"""Calls without a row: the arguments are shown as they are in the registers."""


UNFINISHED: Final = " <unfinished ...>"


def call_words(
    call: Call, string_limit: int = 32, verbose: bool = True, apart: bool = False
) -> tuple[str, bool]:
    """A call up to its closing parenthesis, as far as it is known; whether that is all of it.

    ``apart``: what is known at the entry is printed ahead of the rest, as it then is; so the
    text of a call that has not returned is how that of the whole call begins.
    """
    line = Line(call, string_limit, verbose, apart)
    name = call.syscall.name
    line.out.append(f"{name}(")
    show = CALLS.get(name)
    try:
        if show is None:
            line.out.append(", ".join(hexa(arg) for arg in line.args))
        else:
            show(line)
    except PendingError:
        return "".join(line.out), False
    return "".join([*line.out, *line.changes]), True


def call_line(
    call: Call,
    *,
    prefix: str = "",
    column: int = 40,
    string_limit: int = 32,
    verbose: bool = True,
) -> str:
    """A call as one line, without its newline.

    ``prefix`` comes before the name of the call and counts as part of the line;
    ``column`` is where ``=`` and the result stand at the earliest (strace's
    -a), ``string_limit`` the most bytes of a string that are printed (-s);
    ``verbose`` False leaves out what strace leaves out without -v.
    """
    text, whole = call_words(call, string_limit, verbose)
    text = f"{prefix}{text}{'' if whole else UNFINISHED}) "
    return f"{text:<{max(0, column)}}= {result(call)}"


def result(call: Call) -> str:
    """The result, with the name and meaning of an error; ``?`` where there was none."""
    ret = call.raw.ret
    if ret is None:
        return "?"
    if not call.raw.failed:
        return str(ret)
    number = -ret
    kernel = system.kernel_errno.get(number)
    if number in _RESTARTS:
        return f"? {kernel} ({_RESTARTS[number]})"
    name = _ERRNO.get(number) or errno.errorcode.get(number) or kernel
    return f"-1 {name} ({os.strerror(number)})" if name else f"-1 (errno {number})"
