"""The arguments of a recorded call, down through its pointers, as values to issue it with.

The walk is the one of decoders/follow.py; what is added is what each field means to who
issues the call again: which fds, ids, names and addresses are other ones there.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from bpftrace_sys.export.reproduction import (
    Buffer,
    Chars,
    Handle,
    Looked,
    Nowhere,
    Number,
    Part,
    Value,
)
from decoders.declare.fields import FactField, FdField
from decoders.declare.perf_attr import PmuType
from decoders.declare.structs import Layout, Many, Ptr, Slot, layout_of
from decoders.formats import insn as isa
from decoders.raw import RawCall
from decoders.uapi import const
from decoders.values import Flags, Name
from decoders.walk import layouts, map_fds
from decoders.walk.follow import Found, Node, View

ROOM: Final = 4096
"""Bytes at least that the kernel gets where it writes: not every answer has a size."""
ROOM_LIMIT: Final = 1 << 30
"""A caller may claim that it has more room than a process can have."""
CLOSED: Final = 0x3FFFFFFF
"""An fd that nobody has open."""
IDS: Final = {"prog_id": "prog", "map_id": "map", "btf_id": "btf", "link_id": "link"}
"""Fields that name an object by its id."""
PERF_TYPE_MAX: Final = 6
"""From here on the types of PMUs are given out as they register."""


class UnknownFdError(Exception):
    """A call names an fd whose object the trace does not know; says which."""


class World(Protocol):
    """What a reproduction knows of the trace so far."""

    def fd(self, raw: RawCall, number: int, cgroup: bool) -> Value:
        """What an fd of a call is; UnknownFdError where nobody knows."""

    def by_id(self, kind: str, number: int) -> Handle | None:
        """An fd of the object with that id."""

    def is_tracee(self, pid: int) -> bool:
        """Whether that was one of the traced processes."""

    def name(self, label: str) -> str:
        """A name that nothing else has."""

    def listing(self) -> Callable[[int], str]:
        """How the instructions of the call at hand read, by pc."""


class Arguments:
    """Makes values of one call's arguments.

    ``used`` are the devices, files and pins that were met on the way, ``notes`` what the
    reader should know of them.
    """

    def __init__(self, raw: RawCall, command: str, world: World) -> None:
        self.raw = raw
        self.command = command
        self.world = world
        self.named: list[tuple[str, Value]] = []
        """Every value that stands for something, with its field's name."""

    # ------------------------------------------------------------ registers

    def registers(self, entry: Node, leave: Node | None) -> tuple[list[Value], list[str]]:
        """The six argument registers, and what they are called."""
        values: list[Value] = [Number(0)] * 6
        names = [""] * 6
        for part in self._parts(entry, leave, 0):
            if part.offset % 8 == 0 and part.offset < 48 and not isinstance(part.value, Chars):
                value = part.value
                if part.size == 4 and isinstance(value, Number) and value.value >> 31:
                    value = Number(value.value - (1 << 32))  # an int: the kernel extends it
                values[part.offset // 8] = value
                names[part.offset // 8] = part.note
        return values, names

    # ------------------------------------------------------------ structs

    def _parts(self, node: Node, leave: Node | None, base: int) -> Iterator[Part]:
        """The fields of a struct that are not zero."""
        view = node.view
        for slot in view.layout.slots:
            if slot.offset >= len(view.data):
                break
            called = slot.called
            name = slot.name if called is None or not called.when(view) else called.other
            if slot.kind in ("struct", "pick"):
                yield from self._inner(slot, node, leave, base)
            elif slot.kind == "pad":
                if any(view.raws[slot.index]):
                    yield Part(base + slot.offset, slot.size, Chars(view.raws[slot.index]), "pad")
            elif slot.kind != "skip":
                value = self._value(slot, name or "", node, leave)
                if value is not None:
                    note = f"{name}{_said(slot, view)}"
                    yield Part(base + slot.offset, slot.size, value, note)
        extra = view.data[view.layout.size :]
        if any(extra):
            yield Part(base + view.layout.size, len(extra), Chars(extra), "beyond what is declared")

    def _inner(self, slot: Slot, node: Node, leave: Node | None, base: int) -> Iterator[Part]:
        """The fields of a struct or union within a struct."""
        view = node.view
        inner = node.inner.get(slot.index)
        after = None if leave is None else leave.inner.get(slot.index)
        if after is not None and (inner is None or inner.view.layout is not after.view.layout):
            # What stands in the union, the kernel has said; its pointers it took from here.
            size = after.view.layout.size
            data = view.data[slot.offset : slot.offset + size]
            inner = Node(View(after.view.layout, data, size, view, view.env))
        if inner is None:
            data = view.data[slot.offset : slot.offset + slot.size]
            declared = slot.field if slot.kind == "struct" else slot.field.chosen(view)
            if declared is None:
                if any(data):
                    yield Part(base + slot.offset, len(data), Chars(data), slot.name or "")
                return
            layout: Layout = layout_of(declared)
            size = slot.size if slot.kind == "pick" else layout.size
            inner = Node(View(layout, data[:size], size, view, view.env))
        yield from self._parts(inner, after, base + slot.offset)

    def _value(self, slot: Slot, name: str, node: Node, leave: Node | None) -> Value | None:
        """The value of a field; None where it is zero, as the buffer is anyway."""
        view = node.view
        raw: Any = view.raws[slot.index]
        if slot.kind == "ptr":
            return self._pointer(slot.field, slot, name, node, leave) if raw else None
        if slot.kind == "fd":
            return self._fd(slot.visit, raw, name, view)
        if isinstance(raw, bytes):
            stripped = raw.rstrip(b"\0")
            return Chars(stripped) if stripped else None
        if not raw:
            return None
        value = self._known(slot, name, raw, view) or Number(raw & (1 << 8 * slot.size) - 1)
        if not isinstance(value, Number):
            self.named.append((name, value))
        return value

    def _known(self, slot: Slot, name: str, raw: int, view: View) -> Value | None:
        """What a number stands for, where it is another one elsewhere."""
        field = getattr(slot.field, "field", slot.field)
        if isinstance(field, FactField):
            known = field.ask(raw, view)
            return None if known is None else self._fact(field.kind, known, raw, view)
        if isinstance(field, PmuType) and raw >= PERF_TYPE_MAX:
            pmu = view.env.fact("pmu", raw)
            return None if pmu is None else Looked("pmu", (pmu,))
        kind = IDS.get(name)
        if kind is None and name == "relative_id":
            flags = view["attach_flags" if "attach_flags" in _names(view) else "flags"]
            kind = "link" if flags & const.BPF_F_LINK else "prog"
        if kind is not None:
            handle = self.world.by_id(kind, raw)
            return None if handle is None else Looked("ident", (handle,))
        if name in ("pid", "tid") and self.world.is_tracee(raw):
            return Looked("own_pid")
        if name == "fd" and self.command == "BPF_TASK_FD_QUERY":
            return self.world.fd(self.raw, raw, False)
        return None

    def _fact(self, kind: str, known: str, raw: int, view: View) -> Value | None:
        if kind == "ifindex":
            netkit = "NETKIT" in _attach_type(view)
            return Looked("device", (known, "netkit" if netkit else "veth"))
        if kind == "btf_vmlinux":
            return Looked("vmlinux_type", (known, raw))
        if kind == "tracepoint":
            return Looked("tracepoint", (known,))
        if kind == "ksym":
            return Looked("symbol", (known, raw))
        return None

    def _fd(self, field: FdField, raw: int, name: str, view: View) -> Value | None:
        if raw == 0 and field.optional:
            return None
        if raw < 0 or raw >= 1 << 31:
            return Number(raw & 0xFFFFFFFF)
        cgroup = "CGROUP" in _attach_type(view) or name in ("pid", "cgroup_fd")
        value = self.world.fd(self.raw, raw, cgroup)
        if self.command == "PERF_EVENT_IOC_SET_OUTPUT" and name == "arg" and not self.raw.failed:
            # perf_event_set_output() takes none that nobody has mapped.
            value = Looked("mapped", (value,)) if isinstance(value, Handle) else value
        self.named.append((name, value))
        return value

    # ------------------------------------------------------------ pointers

    def _pointer(
        self, field: Ptr, slot: Slot, name: str, node: Node, leave: Node | None
    ) -> Value:
        found = node.found.get(slot.index)
        after = None if leave is None else leave.found.get(slot.index)
        reads = field.reads or (field.reads_if is not None and field.reads_if(node.view))
        if found is None or not reads:  # of a log's buffer a little is kept as it was before
            return self._room(field, name, node.view, after)
        return self._found(field.target, found, after, name, node.view, field.writes)

    def _room(self, field: Ptr, name: str, view: View, after: Found | None) -> Value:
        """Where the kernel only writes."""
        unreadable = after is not None and not after.data and after.wanted > 0
        if unreadable or (self.raw.ret == -errno.EFAULT and not self._torn()):
            return Nowhere()  # all that it reads could be read
        target = field.target
        if isinstance(target, layouts.Log):
            size: int | None = target.room(view)
        else:
            size = target.most(view) if isinstance(target, layouts.CStr) else target.size(view)
        size = max(size or 0, ROOM, 0 if after is None else after.wanted)
        return Buffer(self.world.name(name), min(size, ROOM_LIMIT), filled=True)

    def _torn(self) -> bool:
        return any(
            len(chunk.data) < min(chunk.wanted, layouts.READ_LIMIT) for chunk in self.raw.chunks
        )

    def _found(
        self,
        target: layouts.Target,
        found: Found,
        after: Found | None,
        name: str,
        view: View,
        written: bool,
    ) -> Value:
        """What the kernel reads, and perhaps writes."""
        data = found.data
        if data is None or (not data and found.wanted > 0):
            return Nowhere()
        wanted = max(found.wanted, 0 if after is None else after.wanted, len(data))
        size = min(wanted, ROOM_LIMIT) if written else len(data)
        made = Buffer(self.world.name(name), size, data, filled=written)
        made.torn = len(data) < min(found.wanted, layouts.READ_LIMIT) and not isinstance(
            target, layouts.CStr
        )
        if isinstance(target, layouts.CStr):
            made.path = name == "pathname" and self.command in ("BPF_OBJ_PIN", "BPF_OBJ_GET")
            made.mounted = self.command == "BPF_OBJ_PIN" and not self.raw.failed
            made.parents = self.raw.ret not in (-errno.ENOENT, -errno.ENOTDIR)
            if len(data) >= found.wanted and not data.endswith(b"\0"):
                made.data = data + b"\0"
                made.size = len(made.data)
        elif isinstance(target, layouts.InsnArray):
            self._insns(made, data, view)
        elif isinstance(target, Many):
            made.parts = list(self._elements(target, found, name, view))
        elif isinstance(found.inner, Node):
            inner = after.inner if after is not None and isinstance(after.inner, Node) else None
            made.parts = list(self._parts(found.inner, inner, 0))
            made.data = b""
            made.size = max(made.size, min(found.wanted, 1 << 16))
            made.torn = made.torn and bool(data)
            if made.torn:
                made.size = len(data)
        elif isinstance(target, map_fds.ValueIn):
            made.parts = list(self._map_value(data, view))
        if made.path:
            self.named.append((name, made))
        return made

    def _elements(
        self, target: Many, found: Found, name: str, view: View
    ) -> Iterator[Part]:
        """What stands for something among the elements of an array."""
        data = found.data or b""
        size = target.layout.size
        if target.scalar and target.pointed is None:
            if not isinstance(target.item, FdField | FactField):
                return
            usable = data[: len(data) - len(data) % size]
            for index, (raw,) in enumerate(target.layout.full.iter_unpack(usable)):
                value: Value | None = None
                if isinstance(target.item, FdField):
                    value = self._fd(target.item, raw, name, view) if raw else None
                else:
                    known = target.item.ask(raw, view)
                    value = self._fact(target.item.kind, known, raw, view) if known else None
                if value is not None and not isinstance(value, Number):
                    yield Part(index * size, size, value)
            return
        step = target.step(view)
        for index, each in enumerate(found.inner or ()):
            if isinstance(each, Node):
                for part in self._parts(each, None, index * step):
                    if not isinstance(part.value, Number | Chars):
                        yield part
            elif each.addr:
                assert target.pointed is not None
                inner = self._found(target.pointed, each, None, name, view, False)
                yield Part(index * 8, 8, inner)

    def _map_value(self, data: bytes, view: View) -> Iterator[Part]:
        """The fds in the value of a map that holds objects."""
        kind = map_fds.map_type(view)
        places: list[tuple[int, int, int]] = []
        if kind in map_fds.FD_MAPS and len(data) >= 4:
            places = [(0, 4, int.from_bytes(data[:4], "little", signed=True))]
        elif kind in map_fds.PROG_AFTER and len(data) >= 8:
            places = [(4, 4, int.from_bytes(data[4:8], "little", signed=True))]
        elif kind == const.BPF_MAP_TYPE_STRUCT_OPS:
            places = [(at, 8, fd) for at, _, fd in map_fds.operations(data, view)]
        for at, size, fd in places:
            if fd > 0 or (fd == 0 and at == 0):
                value = self.world.fd(self.raw, fd, kind == const.BPF_MAP_TYPE_CGROUP_ARRAY)
                self.named.append(("value", value))
                yield Part(at, size, value)

    # ------------------------------------------------------------ instructions

    def _insns(self, made: Buffer, data: bytes, view: View) -> None:
        if len(data) <= isa.LISTED * isa.SLOT:
            text = self.world.listing()
            made.listing = [
                (data[insn.pc * 8 : (insn.pc + insn.slots) * 8].hex(), text(insn.pc))
                for insn in isa.insns(data)
            ]
        for insn in isa.naming(data):
            value: Value | None = None
            if insn.code == isa.LD_IMM64 and insn.src in (
                isa.PSEUDO_MAP_FD, isa.PSEUDO_MAP_VALUE,
            ):  # fmt: skip
                value = self._insn_fd(insn.imm)
            elif (insn.code == isa.LD_IMM64 and insn.src == isa.PSEUDO_BTF_ID) or (
                insn.code == isa.CALL_K and insn.src == isa.PSEUDO_KFUNC_CALL and not insn.off
            ):
                known = None if insn.next_imm else view.env.fact("btf_vmlinux", insn.imm)
                value = None if known is None else Looked("vmlinux_type", (known, insn.imm))
            if value is not None:
                made.parts.append(Part(insn.pc * 8 + 4, 4, value))

    def _insn_fd(self, number: int) -> Value | None:
        if number < 0:
            return None
        value = self.world.fd(self.raw, number, False)
        self.named.append(("insns", value))
        return value


def _names(view: View) -> dict[str, int]:
    found: dict[str, int] = view.layout.index
    return found


def _attach_type(view: View) -> str:
    """The attach type that stands in the struct around, by name; or nothing."""
    from decoders.uapi import names

    try:
        number = view["attach_type"]
    except KeyError:
        return ""
    return names.bpf_attach_type.get(number, "") if isinstance(number, int) else ""


def _said(slot: Slot, view: View) -> str:
    """How a field's number reads, where it has a name."""
    raw = view.raws[slot.index]
    if slot.kind == "bits":
        words = [
            name if value.value == 1 else f"{name}={value.value}"
            for name, value in slot.field.values(raw)
            if value.value
        ]
        return f" = {'|'.join(words)}" if words else ""
    if slot.kind in ("ptr", "fd") or isinstance(raw, bytes):
        return ""
    said = slot.field.value(raw, view)
    if isinstance(said, Name) and said.name:
        return f" = {said.name}"
    if isinstance(said, Flags) and said.names:
        return f" = {'|'.join(said.names)}"
    return ""
