"""How a field can be printed, by the name that rows give."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

from bpftrace_sys.render.strace.call_memory import Frame
from bpftrace_sys.render.strace.instructions import instructions
from bpftrace_sys.render.strace.item import Item
from bpftrace_sys.render.strace.places import places_of
from bpftrace_sys.render.strace.quoting import address, hex_quoted, hexa, quoted, s32
from bpftrace_sys.render.strace.rows import DEFAULTS, PAGE
from decoders.formats import insn
from decoders.raw import AUDIT_ARCH_I386
from decoders.uapi import names, perf, system
from decoders.values import Flags, Int, Name

_PRECISE: Final = (
    "arbitrary skid",
    "constant skid",
    "requested to have 0 skid",
    "must have 0 skid",
)
MOST_INSNS: Final = 4096
"""BPF_MAXINSNS: of so many instructions strace prints the text."""
# strace knows one set of attach flags, of file flags and of elem flags, from which each of
# these commands takes what it can use.
_FILE_FLAGS: Final = {
    **names.file_flags,
    **{bit: name for bit, name in names.map_flags.items() if bit >= 1 << 15},
}
_ELEM_FLAGS: Final = dict(sorted(names.map_elem_flags.items(), reverse=True))
_LOOKUP_FLAGS: Final = {bit: name for bit, name in _ELEM_FLAGS.items() if not bit & 3}


def _xval(item: Item) -> str:
    field = item.place.field
    value = item.value
    name = None
    if value not in field.table and field.enum:
        known = item.decoded()
        if isinstance(known, Name) and known.value == value:
            name = known.name
    return item.names.xval(
        value, field.table, DEFAULTS.get(field.enum, f"{field.enum}_???"), name
    )


def _attach_type(item: Item) -> str:
    # Of a struct_ops program it is a member's number.
    if not item.names.exact and isinstance(item.decoded(), Int):
        return str(item.value)
    return item.names.xval(item.value, names.bpf_attach_type, "BPF_???")


def _flags(item: Item) -> str:
    field = item.place.field
    if item.value and not item.late:
        known = item.decoded()
        if isinstance(known, Flags) and known.newer and known.value == item.value:
            return item.names.flags(item.value, field.table, "", known.names, known.rest)
    return item.names.flags(item.value, field.table, f"{field.enum}_???")


def _ifindex(item: Item) -> str:
    known = item.decoded() if item.value else None
    if isinstance(known, Int) and known.note is not None and known.value == item.value:
        name = quoted(known.note.encode("utf-8", "surrogateescape"))
        return item.names.named(str(item.value), f"if_nametoindex({name})")
    return str(item.value)


def _kernel_version(item: Item) -> str:
    value = item.value
    text = f"KERNEL_VERSION({value >> 16}, {value >> 8 & 0xFF}, {value & 0xFF})"
    return item.names.named(hexa(value), text)


def _load_time(item: Item) -> str:
    known = item.decoded()
    if not isinstance(known, Int) or known.note is None or item.names.style == "raw":
        return str(item.value)
    at = datetime.fromisoformat(known.note).astimezone()
    return f"{item.value} /* {at:%Y-%m-%dT%H:%M:%S%z} */"


def _chars(item: Item) -> str:
    data = item.raw()
    size = item.place.size
    if not item.frame.late:
        size = min(size, item.frame.size - item.place.offset)
    text, end, _ = data[:size].partition(b"\0")
    return quoted(text) if end else quoted(text[: size - 1]) + "..."


def _raw(item: Item) -> str:
    return hex_quoted(item.raw())


def _dev(item: Item) -> str:
    text = f"makedev({hexa(os.major(item.value))}, {hexa(os.minor(item.value))})"
    return item.names.named(hexa(item.value), text)


def _u64(item: Item) -> str:
    text = str(item.value)
    return item.names.named(text, "UINT64_MAX") if item.value == (1 << 64) - 1 else text


def _id(item: Item) -> str:
    return "-1" if item.value == 0xFFFFFFFF else str(item.value)


def _numa(item: Item) -> str:
    # strace says so with the number, lest somebody looks for the name in a header of the kernel's.
    named = item.value == 0xFFFFFFFF and item.names.style != "raw"
    return f"{item.value} /* NUMA_NO_NODE */" if named else str(item.value)


def _insns(item: Item) -> str:
    if not item.line.verbose:
        return address(item.value)
    names = item.names
    return item.array(
        insn.SLOT, lambda data: instructions(data, names), MOST_INSNS if names.exact else None
    )


def _unpacked(code: str, show: Callable[[int], str]) -> Callable[[bytes], Iterable[str]]:
    return lambda data: (show(number) for (number,) in struct.iter_unpack(code, data))


def _numbers(code: str, show: Callable[[int], str]) -> Callable[[Item], str]:
    size, elements = struct.calcsize(code), _unpacked(code, show)
    return lambda item: item.array(size, elements)


def _strings(item: Item) -> str:
    code = "<I" if item.line.call.raw.arch == AUDIT_ARCH_I386 else "<Q"
    text = item.line.text
    return item.array(
        struct.calcsize(code), _unpacked(code, lambda addr: text(addr, None, item.memory))
    )


def _attach(item: Item) -> str:
    return item.names.flags(item.value, names.attach_flags, "BPF_F_???")


def _attaches(item: Item) -> str:
    show = item.names
    return item.array(
        4, _unpacked("<I", lambda value: show.flags(value, names.attach_flags, "BPF_F_???"))
    )


def _iter(item: Item) -> str:
    if not item.value:
        return "NULL"
    if not item.many:
        return "[]"
    # strace takes the length, which counts bytes, for a number of elements.
    one = item if item.names.exact else item._replace(many=1)
    return one.array(
        4, _unpacked("<i", lambda fd: f"{{map={{map_fd={item.line.fd(fd)}}}}}")
    )


def _info(item: Item) -> str:
    line, frame = item.line, item.frame
    assert frame.after is not None
    places = places_of("OBJ_GET_INFO_BY_FD")
    fact = line.call.fd(places["info.bpf_fd"].number(frame.before))
    row = {"prog": "PROG_INFO", "map": "MAP_INFO"}.get("" if fact is None else fact.kind)
    old = places["info.info_len"].number(frame.before)
    size = places["info.info_len"].number(frame.after)
    if row is None or not line.verbose or not 0 < size <= PAGE:
        return address(item.value)
    after = line.exit().read(item.value, size)
    before = line.before.read(item.value, old) or b""
    if after is None or len(after) < size:
        # Nothing is copied at the exit of a call that failed.
        if len(before) < size:
            return address(item.value)
        after = before[:size]
    path = (*frame.path, "info", "info")
    return item.inner(row, Frame(path, size, before, after, True))


def _attr_size(item: Item) -> str:
    def size(value: int) -> str:
        return item.names.xval(value, perf.perf_attr_size, "PERF_ATTR_SIZE_???")

    text = size(item.value)
    line = item.line
    if not line.failed or line.call.raw.ret != -errno.E2BIG:
        return text
    # The kernel says which size it would have taken.
    addr = line.args[0 if line.call.syscall.name == "perf_event_open" else 2]
    data = None if line.after is None else line.after.read(addr, 8)
    if data is None or len(data) < 8:
        return f"{text} => ???"
    return f"{text} => {size(int.from_bytes(data[4:], 'little'))}"


def _config(item: Item) -> str:
    value = item.value
    low, pmu = value & 0xFFFFFFFF, value >> 32
    xval = item.names.xval
    parts = [f"{pmu:#x}<<32"] if pmu else []
    name = perf.perf_type_id.get(places_of("PERF_ATTR")["type"].number(item.frame.before))
    if name == "PERF_TYPE_HARDWARE":
        return "|".join((*parts, xval(low, perf.perf_hw_id, "PERF_COUNT_HW_???")))
    if name == "PERF_TYPE_SOFTWARE":
        return xval(value, perf.perf_sw_ids, "PERF_COUNT_SW_???")
    if name == "PERF_TYPE_TRACEPOINT":
        return str(value)
    if name != "PERF_TYPE_HW_CACHE":
        return hexa(value)
    if low >> 24:
        parts.append(f"{low >> 24:#x}<<24")
    for shift, table, default in (
        (16, perf.perf_hw_cache_op_result_id, "PERF_COUNT_HW_CACHE_RESULT_???"),
        (8, perf.perf_hw_cache_op_id, "PERF_COUNT_HW_CACHE_OP_???"),
        (0, perf.perf_hw_cache_id, "PERF_COUNT_HW_CACHE_???"),
    ):
        text = xval(low >> shift & 0xFF, table, default)
        parts.append(f"{text}<<{shift}" if shift else text)
    return "|".join(parts)


def _reserved(item: Item) -> str:
    # strace counts the bits of aux_action from the end of the struct's version 6.
    if item.name == "__reserved_3":
        return f"{hexa(item.value)} /* Bits 931..959 */" if item.value else ""
    value, first = item.value, item.place.shift
    if item.names.exact:
        # Of the bits that have names now, the last that 7.2 has one for is sigtrap.
        first = places_of("PERF_ATTR")["sigtrap"].shift + 1
        value = int.from_bytes(item.raw(), "little") >> first
    return f"{hexa(value)} /* Bits 63..{first} */" if value else ""


def _stream(item: Item) -> str:
    # strace prints the buffer, we what was read into it.
    if not item.names.exact:
        if item.line.failed:
            return address(item.value)
        item = item._replace(many=max(0, item.line.call.raw.ret or 0))
    return FORMATS["bytes"](item)


def _max_stack(item: Item) -> str:
    rest = item.frame.before[item.place.end : item.place.end + 2].ljust(2, b"\0")
    number = int.from_bytes(rest, "little")
    return f"{item.value} /* bytes 110..111: {number:#x} */" if number else str(item.value)


def _bp_type(item: Item) -> str:
    known = {key: name for key, name in perf.hw_breakpoint_type.items() if key <= 4}
    invalid = item.value <= 7
    return item.names.xval(
        item.value, known, f"HW_BREAKPOINT_{'INVALID' if invalid else '???'}"
    )


FORMATS: Final[dict[str, Callable[[Item], str]]] = {
    "u": lambda item: str(item.value),
    "d": lambda item: str(s32(item.value)),
    "x": lambda item: hexa(item.value),
    "fd": lambda item: item.line.fd(s32(item.value)),
    "dirfd": lambda item: item.line.dirfd(s32(item.value)),
    "addr": lambda item: address(item.value),
    "u64": _u64,
    "id": _id,
    "xval": _xval,
    "attach_type": _attach_type,
    "flags": _flags,
    "attach": _attach,
    "elem": lambda item: item.names.flags(item.value, _ELEM_FLAGS, "BPF_???"),
    "lookup": lambda item: item.names.flags(item.value, _LOOKUP_FLAGS, "BPF_???"),
    "file": lambda item: item.names.flags(item.value, _FILE_FLAGS, "BPF_F_???"),
    "ifindex": _ifindex,
    "kernel_version": _kernel_version,
    "load_time": _load_time,
    "chars": _chars,
    "raw": _raw,
    "dev": _dev,
    "numa": _numa,
    "path": lambda item: item.line.path(item.value),
    "text": lambda item: item.line.text(item.value, item.many, item.memory),
    "name128": lambda item: item.line.text(item.value, 128, item.memory),
    "bytes": lambda item: item.line.data(item.value, item.many or 0, item.memory, quoted),
    "stream": _stream,
    "hex": lambda item: item.line.data(item.value, item.many or 0, item.memory, hex_quoted),
    "us": _numbers("<I", str),
    "xs": _numbers("<Q", hexa),
    "attaches": _attaches,
    "strings": _strings,
    "insns": _insns,
    "iter": _iter,
    "info": _info,
    "attr_type": lambda item: item.names.xval(item.value, perf.perf_type_id, "PERF_TYPE_???"),
    "attr_size": _attr_size,
    "clock": lambda item: item.names.xval(item.value, system.clockid, "CLOCK_???"),
    "config": _config,
    "precise": lambda item: f"{item.value} /* {_PRECISE[item.value & 3]} */",
    "reserved": _reserved,
    "max_stack": _max_stack,
    "bp_type": _bp_type,
}
"""How a field can be printed."""
