"""RawCall -> Call: the one place where recorded bytes become values.

Pure, and total: whatever the bytes say, a Call comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar, overload

from decoders.call import Call
from decoders.constructs import cs
from decoders.declare.structs import CStr, Log, Many, One, Ptr, Slot, Tail, Target, layout_of
from decoders.declare.syscalls import Syscall, syscall_of
from decoders.raw import ENTRY, EXIT, Cred, FdFact, RawCall
from decoders.records import NamedTuple
from decoders.values import (
    BEYOND_SIZE,
    EMPTY,
    NAMELESS,
    NOT_CAPTURED,
    NOT_WRITTEN,
    NULL,
    UNREADABLE,
    Absent,
    Array,
    Bytes,
    Changed,
    Fd,
    Int,
    Pointer,
    Struct,
    Text,
    Value,
)
from decoders.walk.follow import ITEM_LIMIT, Found, Node, View, args_view, follow, views_of
from decoders.walk.memory import Snapshot


class Facts(Protocol):
    """What the machine of the trace knew: live, or as the trace recorded it."""

    cpus: int

    def fact(self, kind: str, key: int) -> str | None:
        """The name behind a number, or None."""

    def newer(self, enum: str, value: int) -> str | None:
        """An enum value's name in that kernel's BTF, where our tables lack it."""


Made = TypeVar("Made", bound=Call)


class Env:
    """The world around one recorded call."""

    __slots__ = (
        "_cred", "_devices", "_entry", "_exit", "_facts", "arch", "asked", "cpus", "ret", "stage",
    )  # fmt: skip

    def __init__(self, raw: RawCall, facts: Facts) -> None:
        self._cred = raw.extra.cred
        self._devices = raw.extra.devices
        self._entry = {fact.fd: fact for fact in raw.fds if fact.stage == ENTRY}
        self._exit = {fact.fd: fact for fact in raw.fds if fact.stage == EXIT}
        self._facts = facts
        self.cpus = facts.cpus
        self.ret = raw.ret
        self.arch = raw.arch
        self.stage = ENTRY
        self.asked = False
        """Whether something else than the call's bytes had a say."""

    def fd(self, fd: int) -> FdFact | None:
        self.asked = True
        found = self._entry.get(fd)
        return self._exit.get(fd) if found is None and self.stage == EXIT else found

    def made(self, fd: int) -> FdFact | None:
        """What an fd is that the call returned."""
        return self._exit.get(fd)

    def fact(self, kind: str, key: int) -> str | None:
        self.asked = True
        if kind == "ifindex":
            # As it was in the stop: the number may mean another device by now, or elsewhere.
            known = self._devices.get(key)
            if known is not None:
                return known
        return self._facts.fact(kind, key)

    def cred(self) -> Cred | None:
        self.asked = True
        return self._cred

    def newer(self, enum: str, value: int) -> str | None:
        self.asked = True
        return self._facts.newer(enum, value)


@overload
def decode(raw: RawCall, facts: Facts) -> Call: ...


@overload
def decode(raw: RawCall, facts: Facts, make: type[Made]) -> Made: ...


def decode(raw: RawCall, facts: Facts, make: type[Call] = Call) -> Call:
    """Decodes one call.  ``make``: a class of the caller's that a Call is to be.

    Never raises: bytes that a declaration cannot take end in ``Call.problem``,
    with the argument registers as numbers.
    """
    syscall = syscall_of(raw.arch, raw.nr)
    try:
        return valued(raw, syscall, walked(raw, syscall, facts), make)
    except Exception as error:  # whatever it is, the call is worth more than the mistake
        names = [slot.name for slot in layout_of(syscall.args).slots]
        fields = tuple((name, Int(arg, 16)) for name, arg in zip(names, raw.args, strict=False))
        ret = None if raw.ret is None else Int(raw.ret)
        return make(raw, syscall, Struct(fields), ret, f"{type(error).__name__}: {error}")


class Walked(NamedTuple):
    """What a call's pointers led to at its entry and, where it returned, at its exit."""

    env: Env
    entry: Node
    leave: Node | None


def walked(raw: RawCall, syscall: Syscall, facts: Facts) -> Walked:
    """Follows a call's pointers through its chunks."""
    env = Env(raw, facts)
    view = args_view(layout_of(syscall.args), raw.args, env)
    before = [chunk for chunk in raw.chunks if chunk.stage == ENTRY]
    entry = follow(view, Snapshot(before), ENTRY)
    leave: Node | None = None
    if raw.ret is not None:
        env.stage = EXIT
        if len(before) < len(raw.chunks):
            after = Snapshot(chunk for chunk in raw.chunks if chunk.stage == EXIT)
            leave = follow(view, after, EXIT, raw.failed, entry)
    return Walked(env, entry, leave)


def valued(raw: RawCall, syscall: Syscall, found: Walked, make: type[Made]) -> Made:
    """Makes values of all that was found."""
    env, entry, leave = found
    decoder = _Decoder(raw, env)
    # What lies beyond the last argument is left over in the registers.
    args = Struct(
        tuple(
            pair for pair in decoder.fields(entry, leave, False) if pair[0] != "extra_data"
        )
    )
    ret: Value | None = None
    if raw.ret is not None:
        ret = Int(raw.ret)
        if not raw.failed and syscall.returns_fd(entry.view):
            ret = Fd(raw.ret, env.made(raw.ret))
    return make(raw, syscall, args, ret)


class _Decoder:
    """Makes values of the nodes of one call."""

    def __init__(self, raw: RawCall, env: Env) -> None:
        self.raw = raw
        self.env = env

    def fields(
        self, entry: Node | None, leave: Node | None, latest: bool
    ) -> list[tuple[str, Value]]:
        """The fields of a struct.

        ``latest``: the kernel wrote all of it, so what counts is its state at
        exit; else its state at entry, but for fields marked as written.
        """
        base = leave if latest and leave is not None else entry
        if base is None:
            base = leave
        assert base is not None
        view = base.view
        fields: list[tuple[str, Value]] = []
        available = len(view.data)
        for slot in view.layout.slots:
            if slot.offset >= available:
                reason = BEYOND_SIZE if view.wanted <= slot.offset else UNREADABLE
                fields.append((slot.name or "", Absent(reason)))
                break
            if slot.one_value:
                fields.append((slot.name, slot.field.value(view.raws[slot.index], view)))
                continue
            self._slot(slot, view, entry, leave, latest, fields)
        else:
            extra = view.data[view.layout.size :]
            if extra.strip(b"\0"):
                fields.append(("extra_data", Bytes(extra, len(extra))))
        if view.layout.ctype and unexplained(fields):
            from decoders.newer import explained

            known = self.env.fact(f"fields {view.layout.ctype.partition('.')[0]}", 0)
            if known:
                fields = explained(fields, view.layout, view.data, known)
            if unexplained(fields):
                from decoders.undeclared import named

                fields = named(fields, view.layout, view.data)
        return fields

    def _slot(
        self,
        slot: Slot,
        view: View,
        entry: Node | None,
        leave: Node | None,
        latest: bool,
        fields: list[tuple[str, Value]],
    ) -> None:
        kind = slot.kind
        raw = view.raws[slot.index]
        if slot.must_be_zero and not raw:
            return
        called = slot.called
        name = slot.name if called is None or not called.when(view) else called.other
        if kind == "ptr":
            fields.append((name, self._pointer(slot, entry, leave, latest)))
        elif kind in ("struct", "pick"):
            before = None if entry is None else entry.inner.get(slot.index)
            after = None if leave is None else leave.inner.get(slot.index)
            if (
                before is not None
                and after is not None
                and before.view.layout is not after.view.layout
            ):
                before = None
            if before is None and after is None:
                if kind == "pick":
                    declaration = slot.field.chosen(view)
                    if declaration is None:
                        if raw.strip(b"\0"):
                            fields.append(("extra_data", Bytes(raw, len(raw))))
                        return
                else:
                    declaration = slot.field
                layout = layout_of(declaration)
                size = slot.size if kind == "pick" else layout.size
                data = view.data[slot.offset : slot.offset + size]
                wanted = min(size, max(0, view.wanted - slot.offset))
                inner = View(layout, data, wanted, view, view.env)
                after_view = None
                if leave is not None and leave.view is not view and slot.offset < len(
                    leave.view.data
                ):
                    data = leave.view.data[slot.offset : slot.offset + size]
                    after_view = View(layout, data, wanted, leave.view, view.env)
                before = Node(inner)
                after = None if after_view is None else Node(after_view)
            members = self.fields(before, after, latest)
            if kind == "pick":
                fields.extend(members)
            else:
                fields.append((slot.name, Struct(tuple(members))))
        elif kind == "bits":
            fields.extend(slot.field.values(raw))
        elif kind == "skip":
            return
        elif kind == "pad":
            if raw.strip(b"\0"):
                fields.append((slot.name or "pad", Bytes(raw, len(raw))))
        else:
            value = slot.field.value(raw, view)
            if (
                slot.field.written
                and entry is not None
                and leave is not None
                and leave.view is not entry.view
                and slot.offset < len(leave.view.data)
            ):
                old, new = entry.view.raws[slot.index], leave.view.raws[slot.index]
                if old != new:
                    value = Changed(
                        slot.field.value(old, entry.view), slot.field.value(new, leave.view)
                    )
                elif latest:
                    value = slot.field.value(new, leave.view)
            fields.append((name, value))

    def _pointer(
        self, slot: Slot, entry: Node | None, leave: Node | None, latest: bool
    ) -> Value:
        holder = entry if entry is not None else leave
        assert holder is not None
        addr = holder.view.raws[slot.index]
        if addr == 0:
            return Absent(NULL)
        field: Ptr = slot.field
        before = None if entry is None else entry.found.get(slot.index)
        after = None if leave is None else leave.found.get(slot.index)
        scope = holder.view
        if isinstance(field.target, Log):
            head, before = before, None
            if head is not None and after is not None and leave is not None:
                was, now = head.data or b"", after.data or b""
                if field.target.untouched(was, now, leave.view):
                    return Pointer(addr, Absent(NOT_WRITTEN))
        if isinstance(field.target, One):
            return Pointer(addr, self._one(field, before, after, scope))
        if field.reads and field.writes and before is not None and after is not None:
            old = self._target(field.target, before, scope)
            later = scope if leave is None else leave.view
            new = self._target(field.target, after, later)
            if isinstance(new, Absent) or new == old:
                return Pointer(addr, old)
            return Pointer(addr, Changed(old, new))
        found = after if field.writes and after is not None else before
        if found is None:
            if field.writes and self.raw.ret is not None and (self.raw.failed or field.reads):
                return Pointer(addr, Absent(NOT_WRITTEN))
            if leave is None and self.raw.ret is not None and _is_empty(field.target, scope):
                return Pointer(addr, Absent(EMPTY))
            return Pointer(addr, Absent(NOT_CAPTURED))
        later = leave.view if found is after and leave is not None else scope
        return Pointer(addr, self._target(field.target, found, later))

    def _one(
        self, field: Ptr, before: Found | None, after: Found | None, scope: View
    ) -> Value:
        known = before or after
        if known is None:
            return Absent(NOT_WRITTEN if field.writes and self.raw.failed else NOT_CAPTURED)
        if known.data is None:
            return Absent(NOT_CAPTURED)
        if known.wanted <= 0:
            return Absent(EMPTY)
        if not known.data:
            return Absent(UNREADABLE)
        entry = before.inner if before is not None else None
        leave = after.inner if after is not None else None
        if entry is None and leave is None:
            return self._unknown(field.target, known, scope)
        if entry is not None and leave is not None and entry.view.layout is not leave.view.layout:
            entry = None
        fields = self.fields(entry, leave, field.writes)
        tail = field.target.tail if isinstance(field.target, One) else None
        if tail is not None:
            node = leave if leave is not None else entry
            assert node is not None
            fields = [pair for pair in fields if pair[0] != "extra_data"]
            if leave is None:
                reason = NOT_WRITTEN if self.raw.failed else NOT_CAPTURED
                fields.append((tail.name, Absent(reason)))
            else:
                fields.append((tail.name, _flexible(tail, node.view)))
        return Struct(tuple(fields))

    def _unknown(self, target: Target, known: Found, scope: View) -> Value:
        """A struct that no row describes: by our tables, the running kernel's BTF, or bytes."""
        assert known.data is not None
        if not isinstance(target, One) or target.unknown is None or not known.data:
            return Bytes(known.data, known.wanted)
        unknown = target.unknown
        number = unknown.number(scope)
        ours = unknown.names.get(number)
        word = self.env.newer(unknown.enum, number) if ours is None else ours
        found = None
        if ours is not None:
            from decoders.undeclared import struct_of

            found = struct_of(ours, unknown.union, _declared(target.item), known.data)
        elif word is not None:
            said = self.env.fact(f"fields {unknown.union}", 0)
            if said is not None:
                from decoders.newer import struct_for, unpacked

                found = struct_for(word, known.data, unpacked(said))
        return Bytes(known.data, known.wanted) if found is None else found

    def _target(self, target: Target, found: Found, scope: View) -> Value:
        """The value of anything but a single struct."""
        data = found.data
        if data is None:
            return Absent(NOT_CAPTURED)
        if found.wanted < 0 or (found.wanted == 0 and not isinstance(target, CStr)):
            return Absent(EMPTY)
        if not data and found.wanted:
            return Absent(UNREADABLE)
        if isinstance(target, Many):
            return self._many(target, found, data, scope)
        value = target.value(data, found.wanted, scope)
        if not (isinstance(value, Text) and found.inner):
            return value
        return value._replace(before=found.inner)

    def _many(self, target: Many, found: Found, data: bytes, scope: View) -> Value:
        step = target.step(scope)
        if not step:
            return Bytes(data, found.wanted)
        total = found.wanted // step
        if target.scalar and isinstance(target.item, Ptr):
            pointed = target.item.target
            items: list[Value] = [
                Pointer(inner.addr, self._target(pointed, inner, scope))
                if inner.addr
                else Absent(NULL)
                for inner in found.inner or ()
            ]
        elif target.scalar:
            usable = min(len(data) - len(data) % target.layout.size, ITEM_LIMIT * step)
            value = target.item.value
            items = [value(raw, scope) for (raw,) in target.layout.full.iter_unpack(data[:usable])]
        else:
            nodes = found.inner or [Node(view) for view in views_of(target, data, step, scope)]
            items = [Struct(tuple(self.fields(node, None, False))) for node in nodes]
        return Array(tuple(items), total)


def _declared(union: Any) -> Iterator[str]:
    """The names of the union's members that have rows."""
    return (row.subcons[0].name for row in union.rows.values())


def unexplained(fields: list[tuple[str, Value]]) -> bool:
    """Whether something is there that the declaration has no name for."""
    return any(
        isinstance(value, Bytes)
        if name in NAMELESS
        else name.startswith("__reserved") and isinstance(value, Int) and value.value
        for name, value in fields
    )


def _is_empty(target: Target, scope: View) -> bool:
    """Whether nothing stands there, so that nothing was copied."""
    if isinstance(target, CStr):
        return not target.most(scope)
    return target.size(scope) == 0


def _flexible(tail: Tail, view: View) -> Array:
    """The elements that follow a struct."""
    item = tail.item
    layout = layout_of(cs.Struct("item" / item))
    total = max(0, tail.count(view))
    data = view.data[view.layout.size :][: total * layout.size]
    usable = len(data) - len(data) % layout.size
    items = tuple(item.value(raw, view) for (raw,) in layout.full.iter_unpack(data[:usable]))
    return Array(items, total)
