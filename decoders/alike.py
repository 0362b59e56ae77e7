"""Loads that differ from each other in their instructions: of each only these are decoded.

Feature probes are thousands of PROG_LOADs that have their attr in common. Where nothing but the
call's own bytes had a say in its values, another load with the same attr has the same values, but
for its instructions, its log and its result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from decoders.call import Call
from decoders.declare.structs import Log, Target
from decoders.declare.syscalls import Syscall, syscall_of
from decoders.decode import Env, Facts, Made, Walked, decode, valued, walked
from decoders.loop_calls import NUMBERS
from decoders.raw import ENTRY, EXIT, Chunk, RawCall
from decoders.uapi import const
from decoders.values import NOT_WRITTEN, Absent, Changed, Fd, Insns, Int, Pointer, Struct, Value
from decoders.walk.follow import Node

if TYPE_CHECKING:
    from decoders.walk.follow import View

FAMILIES: Final = 16
"""Families that are remembered; then all are forgotten."""
MOST: Final = 1 << 16
"""Bytes of a call that founds one."""

Key = tuple[int, int, tuple[int, ...]]
"""Architecture, number and arguments of a call."""


class Decoder:
    """``decode.decode`` for the calls of a trace in order."""

    def __init__(self) -> None:
        self._families: dict[Key, Family] = {}

    def decode(self, raw: RawCall, facts: Facts, make: type[Made]) -> Made:
        """Decodes one call, as ``decode`` does."""
        args = raw.args
        if not args or args[0] != const.BPF_PROG_LOAD or (raw.arch, raw.nr) not in NUMBERS:
            return decode(raw, facts, make)
        key = (raw.arch, raw.nr, args)
        family = self._families.get(key)
        if family is not None:
            call = family.take(raw, facts, make)
            if call is not None:
                return call
        syscall = syscall_of(raw.arch, raw.nr)
        try:
            found = walked(raw, syscall, facts)
            call = valued(raw, syscall, found, make)
        except Exception:  # whatever it is: decode() says it
            return decode(raw, facts, make)
        if not found.env.asked:
            self._found(key, call, found)
        return call

    def _found(self, key: Key, call: Call, found: Walked) -> None:
        family = founded(call, found)
        if family is None:
            return
        if len(self._families) >= FAMILIES:
            self._families.clear()
        self._families[key] = family


class Part:
    """A field that is decoded of each call: where it stands, and which chunks tell it."""

    __slots__ = ("addr", "at", "chunk", "first", "head", "most", "name", "target", "view")

    def __init__(
        self, name: str, at: int, value: Pointer, target: Target, view: View, chunk: int, head: int
    ) -> None:
        """``value``: that of the first call."""
        self.name = name
        self.at = at
        """Among the fields of the attr."""
        self.addr = value.addr
        self.target = target
        self.view = view
        """The attr, at the stage at which the field is read."""
        self.first = value.value if isinstance(value.value, Insns) else None
        """Instructions of the first call: others are as many."""
        self.chunk = chunk
        """Among the call's chunks."""
        self.head = head
        """Of a log: the chunk of what stood there before; -1 for none."""
        self.most = target.most(view) if isinstance(target, Log) else 0
        """Bytes of a log that are kept."""

    def value(self, data: bytes) -> tuple[str, Pointer]:
        """The field, where that stands behind it, whole."""
        first = self.first
        value = (
            self.target.value(data, len(data), self.view)
            if first is None
            else Insns(data, first.total, first.unread, first.why)
        )
        return self.name, Pointer(self.addr, value)

    def log(self, chunks: list[Chunk]) -> tuple[str, Pointer] | None:
        """The field of a log; None where what it says is not plain."""
        data = chunks[self.chunk].data
        assert isinstance(self.target, Log)
        if data.find(b"\0") != len(data) - 1 or len(data) > self.most:
            return None
        text = data[:-1]
        if self.head >= 0 and self.target.untouched(chunks[self.head].data, text, self.view):
            return self.name, Pointer(self.addr, Absent(NOT_WRITTEN))
        return self.value(text)


class Family:
    """Loads with the same attr."""

    __slots__ = (
        "_addr", "_args", "_at", "_attr", "_chunks", "_code", "_command", "_log", "_loose",
        "_syscall",
    )  # fmt: skip

    def __init__(
        self, call: Call, addr: int, attr: Struct, code: Part | None, log: Part | None
    ) -> None:
        """``attr``: what stands at ``addr``."""
        self._chunks = call.raw.chunks
        self._syscall: Syscall = call.syscall
        self._command = call.command
        self._args = call.args.fields
        self._at = [name for name, _ in self._args].index("attr")
        self._addr = addr
        self._attr = attr
        self._code = code
        self._log = log
        self._loose = [] if code is None else [code.chunk]
        """Chunks that may be others."""
        if log is not None:
            self._loose += [log.chunk, log.head]

    def take(self, raw: RawCall, facts: Facts, make: type[Made]) -> Made | None:
        """Decodes a call; None: it is none of these."""
        chunks = raw.chunks
        if len(chunks) != len(self._chunks) or raw.ret is None:
            return None
        code, log = self._code, self._log
        loose = self._loose
        for index, (chunk, known) in enumerate(zip(chunks, self._chunks, strict=True)):
            if chunk is known or chunk == known:
                continue
            if index not in loose or chunk.stage != known.stage or chunk.addr != known.addr:
                return None
            if len(chunk.data) != chunk.wanted:
                return None
            if chunk.wanted != known.wanted and (log is None or index != log.chunk):
                return None
        fields = list(self._attr.fields)
        if code is not None:
            fields[code.at] = code.value(chunks[code.chunk].data)
        if log is not None:
            said = log.log(chunks)
            if said is None:
                return None
            fields[log.at] = said
        args = list(self._args)
        attr = Struct(tuple(fields), self._attr.ctype)
        args[self._at] = ("attr", Pointer(self._addr, attr))
        ret: Value = Int(raw.ret)
        if not raw.failed:
            ret = Fd(raw.ret, Env(raw, facts).made(raw.ret))
        return make(raw, self._syscall, Struct(tuple(args)), ret, None, self._command)


def founded(call: Call, found: Walked) -> Family | None:
    """A family for loads like one in whose values only its own bytes had a say; None where what
    differs might change more than it says itself."""
    raw, leave = call.raw, found.leave
    places = [(chunk.stage, chunk.addr) for chunk in raw.chunks]
    if leave is None or len(set(places)) < len(places):
        return None
    if sum(len(chunk.data) for chunk in raw.chunks) > MOST:
        return None
    before, after = _attr_of(found.entry), _attr_of(leave)
    pointer = call.args.get("attr")
    if before is None or after is None or before.view["fd_array"]:
        return None
    if not isinstance(pointer, Pointer) or not isinstance(pointer.value, Struct):
        return None
    # Each read has a chunk of its own, so that what stands in others changes nothing in it.
    reads = [(ENTRY, raw.args[1]), (EXIT, raw.args[1])]
    reads += [(ENTRY, one.addr) for one in before.found.values() if one.wanted >= 0]
    reads += [(EXIT, one.addr) for one in after.found.values() if one.wanted >= 0]
    if any(read not in places for read in reads):
        return None
    slots = {slot.name: slot for slot in before.view.layout.slots}
    names = [name for name, _ in pointer.value.fields]
    parts: list[Part | None] = []
    for name, node, stage in (("insns", before, ENTRY), ("log_buf", after, EXIT)):
        slot = slots[name]
        one = node.found.get(slot.index)
        parts.append(None)
        if one is None or one.wanted < 0:
            if one is None and before.view[name]:
                return None
            continue
        head = before.found.get(slot.index) if stage == EXIT else None
        chunk, was = places.index((stage, one.addr)), -1
        if head is not None:
            was = places.index((ENTRY, head.addr))
            if head.data != raw.chunks[was].data or head.wanted != len(head.data):
                return None
        if stage == ENTRY and (one.data != raw.chunks[chunk].data or one.wanted != len(one.data)):
            return None
        if one.inner:
            return None
        at = names.index(name)
        value = pointer.value.fields[at][1]
        if isinstance(value, Changed):
            value = value.after
        if not isinstance(value, Pointer) or value.addr != one.addr:
            return None
        parts[-1] = Part(name, at, value, slot.field.target, node.view, chunk, was)
    return Family(call, pointer.addr, pointer.value, *parts)


def _attr_of(args: Node) -> Node | None:
    """The attr that the arguments point at."""
    found = args.found.get(args.view.layout.index["attr"])
    return found.inner if found is not None and isinstance(found.inner, Node) else None
