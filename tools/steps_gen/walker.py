"""Goes over layouts as follow() does, and makes rows of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from decoders.uapi import const
from decoders.walk import measures as m
from decoders.walk.layouts import CStr, InsnArray, Layout, Many, One, Pointer, Union
from decoders.walk.map_fds import FD_MAPS, PROG_AFTER, ValueIn
from decoders.walk.table import WALKS
from steps_gen.measures import SELECTED, length
from steps_gen.rows import (
    AGAIN,
    ALWAYS,
    LOOK_AGAIN,
    MAP_TYPE,
    OPEN,
    OPTIONAL,
    RET,
    SLOTS,
    SMALLER,
    Field,
    GenerateError,
    Length,
    Places,
    Row,
    Rows,
    Test,
    one_of,
)

CALLS: Final = ("perf_event_open", "ioctl", "openat", "setsockopt")
"""Besides bpf."""
STRUCT_OPS: Final = frozenset({const.BPF_MAP_TYPE_STRUCT_OPS})


def errors(pointer: Pointer) -> int:
    """After which failures the kernel has written there, as bits."""
    if isinstance(pointer.always, bool):
        return ALWAYS if pointer.always else 0
    return sum(1 << error for error in pointer.always if error < 32)


class Walker:
    """Goes over a layout as follow() does, and makes rows of it."""

    def __init__(self) -> None:
        self.rows = Rows()
        self._last: list[Row] = []
        """What leads to values that may be fds, of calls that do so on no condition."""

    def finish(self) -> None:
        """Rows that most calls have no use for stand last, behind one condition."""
        for row in self._last:
            self._values(row)

    def layout(
        self, layout: Layout, base: int, parent: Places | None, depth: int, again: bool = False,
        end: int = 0,
    ) -> None:  # fmt: skip
        """``again``: at the exit the struct is read once more, to AGAIN behind."""
        places = Places(layout, base, parent)
        # Fds first: how long other things are, may depend on what they are.
        for slot in sorted(layout.followed, key=lambda slot: slot.kind != "fd"):
            at = base + slot.offset
            visit = slot.visit
            if slot.kind == "fd":
                flags = OPTIONAL if visit.optional else 0
                self.rows.add(0, Row("IDENTIFY", flags, at=at))
            elif slot.kind == "asked":
                self.rows.add(0, Row("ASK", at=at))
                self.rows.add(1, Row("ASK", at=at + AGAIN if again else at))
            elif slot.kind == "struct":
                self.layout(visit, at, places, depth, again)
            elif slot.kind == "pick":
                self.union(visit, at, places, depth, again)
            else:
                self.pointer(visit, at, places, depth, again)

    def union(self, union: Union, at: int, places: Places, depth: int, again: bool) -> None:
        """Each member, on its condition."""
        members = [
            (key, layout)
            for key, layout in (*union.rows.items(), (None, union.default))
            if layout is not None and layout.followed
        ]
        if not members:
            return
        select = SELECTED.get(union.key)
        if select is None:
            name = getattr(union.key, "__name__", union.key)
            raise GenerateError(f"the selector {name} has no row in SELECTED")
        for key, layout in members:
            test = select(key, places)
            if test is False:
                continue
            with self.rows.when(test):
                self.layout(layout, at, places, depth, again)
            self._name_pmu(key)

    def _name_pmu(self, key: Any) -> None:
        for rows in (self.rows.entry, self.rows.exit):
            for index, row in enumerate(rows):
                if row.pmu == "?":
                    rows[index] = replace(row, pmu=str(key))

    def pointer(self, pointer: Pointer, at: int, places: Places, depth: int, again: bool) -> None:
        """What a pointer leads to: read before, written after, or both."""
        target = pointer.target
        if isinstance(target, One):
            self.one(pointer, target, at, places, depth, again)
            return
        op = "COPY"
        if isinstance(target, CStr):
            op, size = "COPY_STR", length(target.limit, places)
        elif isinstance(target, InsnArray):
            size = self.insns(target, places)
        elif isinstance(target, Many):
            size = self.many(target, places)
        else:
            size = length(getattr(target, "length", None), places)
        row = Row(
            op, at=at, length=size.length, by=size.by, scale=size.scale, limit=size.limit
        )
        if pointer.reads:
            self.rows.add(0, row)
            self.inside(target, row)
        if pointer.reads_if is not None:
            if pointer.reads_if is not m.is_bloom_filter:
                raise GenerateError(f"reads_if {pointer.reads_if}")
            bloom = Test("IS", MAP_TYPE, ALWAYS, const.BPF_MAP_TYPE_BLOOM_FILTER)
            with self.rows.when(bloom):
                self.rows.add(0, row)
        if pointer.writes:
            # Of a string the caller's room is the limit: the kernel writes its whole length.
            flags = SMALLER if again and op != "COPY_STR" else 0
            if getattr(target, "open_end", False):
                flags |= OPEN
            self.rows.add(1, replace(row, flags=flags, kept=errors(pointer)))

    @staticmethod
    def insns(target: InsnArray, places: Places) -> Length:
        """Instructions; a count that was made of a length in bytes is that length again."""
        if target.count is m.xlated_count:
            return Length("FIELD", places["xlated_prog_len"].at, 1)
        if target.count is m.insns_accepted:
            return Length("LOADED", places["insn_cnt"].at, places["prog_flags"].at)
        return length(target.count, places, 8)

    @staticmethod
    def many(target: Many, places: Places) -> Length:
        """An array; its records are as long as the caller says, where he says it."""
        found = length(target.count, places, target.layout.size)
        if target.stride is None or isinstance(target.stride, int):
            return found
        stride = target.stride(places)
        if found.length != "FIELD" or not isinstance(stride, Field):
            raise GenerateError("an array whose records have no field for their size")
        return replace(found, length="FIELDS", scale=stride.at)

    def inside(self, target: Any, row: Row) -> None:
        """What is in the bytes that a row copies: fds, pointers to strings."""
        if isinstance(target, InsnArray) and target.maps:
            self.rows.add(0, replace(row, op="INSNS"))
        elif isinstance(target, Many) and target.are_fds:
            self.rows.add(0, replace(row, op="FD_ARRAY"))
        elif isinstance(target, Many) and target.pointed is not None:
            self.rows.add(0, replace(row, op="STRINGS"))
        elif isinstance(target, Many) and target.layout.followed:
            raise GenerateError("an array of structs that lead further")
        elif isinstance(target, ValueIn):
            if self.rows.conditions:
                self._values(row)
            else:
                self._last.append(row)

    def _values(self, row: Row) -> None:
        """What may be fds in a map's value."""
        with self.rows.when(one_of(MAP_TYPE, FD_MAPS | frozenset(PROG_AFTER) | STRUCT_OPS)):
            for kinds, op, by, flags in (
                (FD_MAPS, "VALUE_FD", 0, 0),
                (frozenset(PROG_AFTER), "VALUE_FD", 4, OPTIONAL),
                (STRUCT_OPS, "VALUE_FDS", 0, 0),
            ):
                with self.rows.when(one_of(MAP_TYPE, kinds)):
                    if op == "VALUE_FD":
                        self.rows.add(0, Row(op, flags, at=row.at, by=by))
                    else:
                        self.rows.add(0, replace(row, op=op))

    def one(
        self, pointer: Pointer, target: One, at: int, places: Places, depth: int, again: bool
    ) -> None:
        """A struct behind a pointer: kept, for what its fields say of others."""
        if depth >= len(SLOTS):
            raise GenerateError("structs that lead to structs that lead to structs")
        slot = SLOTS[depth]
        if target.peek is not None:
            size = length(target.peek, places)
        elif target.length is not None:
            size = length(target.length, places)
            size = replace(size, limit=min(size.limit, target.limit))
        else:
            inner = target.inner
            if isinstance(inner, Union):
                raise GenerateError("a union whose size nobody says")
            size = Length(limit=inner.size)
        row = Row(
            "FETCH", at=at, slot=slot, length=size.length, by=size.by, scale=size.scale,
            limit=size.limit,
        )  # fmt: skip
        look = replace(
            row, slot=slot + AGAIN, flags=LOOK_AGAIN | (SMALLER if again else 0), kept=ALWAYS
        )
        reads = pointer.reads or pointer.reads_if is not None
        if reads:
            self.rows.add(0, row)
        inner = target.inner
        written = False
        if pointer.writes:
            self.rows.add(1, replace(look, kept=errors(pointer)))
            written = True
        elif isinstance(inner, Layout) and inner.written:
            written = not target.rewritten
            if target.rewritten:
                # Written only where the call fails with one of these errors.
                for error in sorted(target.rewritten):
                    failed = Test("IS", RET, ALWAYS, -error & ALWAYS)
                    with self.rows.when(failed):
                        self.rows.add(1, look)
            else:
                self.rows.add(1, look)
        elif isinstance(inner, Union) and pointer.reads:
            # Of bpf_attr: which of them the kernel writes into, each command says.
            written = any(one is not None and one.written for one in inner.rows.values())
            if written:
                self.rows.add(1, look)
        if isinstance(inner, Union):
            self.union(inner, slot, places, depth + 1, written)
        elif reads:
            self.layout(inner, slot, places, depth + 1, written)
        elif any(one.kind == "fd" for one in inner.followed):
            for one in inner.followed:
                self.rows.add(1, Row("IDENTIFY", at=slot + AGAIN + one.offset))


def bpf_commands(
    walk: tuple[Layout, frozenset[int] | bool] | None = None,
) -> dict[int, Rows]:
    """The rows of each command of bpf(2); that of -1 is for commands nobody knows."""
    args, made = walk or WALKS["bpf"]
    attr, common = args.followed
    union = attr.visit.target.inner
    found: dict[int, Rows] = {}
    for command, layout in (*union.rows.items(), (-1, None)):
        walker = Walker()
        # The attr of this command alone, as its caller's size cuts it.
        one = One(layout or Layout("<", ()), attr.visit.target.length, 4096)
        pointer = Pointer(one, "in")
        places = Places(args, 0)
        walker.one(pointer, one, attr.offset, places, 0, False)
        walker.union(common.visit, common.offset, places, 1, False)
        walker.finish()
        if command in made:  # type: ignore[operator]
            walker.rows.add(1, Row("IDENTIFY", at=RET))
        found[command] = walker.rows
    return found


def other_calls() -> dict[str, Rows]:
    """The rows of the other calls; of ioctl those that every request has."""
    found = {}
    for name in CALLS:
        args, made = WALKS[name]
        walker = Walker()
        if name == "ioctl":
            fd, _ = args.followed
            walker.rows.add(0, Row("IDENTIFY", at=fd.offset))
        else:
            walker.layout(args, 0, None, 0)
        if made:
            walker.rows.add(1, Row("IDENTIFY", at=RET))
        found[name] = walker.rows
    return found


def ioctl_requests() -> dict[int, Rows]:
    """The rows of each request."""
    args, _ = WALKS["ioctl"]
    fd, arg = args.followed
    found = {}
    for request, layout in arg.visit.rows.items():
        walker = Walker()
        walker.rows.add(0, Row("IDENTIFY", at=fd.offset))
        walker.layout(layout, arg.offset, Places(args, 0), 0)
        found[request] = walker.rows
    return found
