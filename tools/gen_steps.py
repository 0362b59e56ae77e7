#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Makes bpftrace_sys/record/ebpf/steps.py: the walk over a call's memory as rows.

    tools/gen_steps.py            write it
    tools/gen_steps.py --check    write nothing; exit with 1 if anything would change

The source is decoders/walk/table.py, which follow() walks in Python; the eBPF engine's programs
interpret the rows instead (record/ebpf/walk.h). They may copy more than follow() would read, where
what decides is not known in the kernel, but never less. A length or a selector of
decoders/walk/measures.py that is not in the tables here is an error. It takes a second.

Exit code: 0, 1 (--check: would change), 2 (a walk that no rows can do).
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

REPO: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

from decoders.uapi import const, names, perf, system  # noqa: E402
from decoders.walk import measures as m  # noqa: E402
from decoders.walk.layouts import (  # noqa: E402
    READ_LIMIT,
    CStr,
    InsnArray,
    Layout,
    Many,
    One,
    Pointer,
    Union,
)
from decoders.walk.map_fds import FD_MAPS, PROG_AFTER, ValueIn  # noqa: E402
from decoders.walk.table import WALKS  # noqa: E402

TARGET: Final = REPO / "bpftrace_sys" / "record" / "ebpf" / "steps.py"
CALLS: Final = ("perf_event_open", "ioctl", "openat", "setsockopt")
"""Besides bpf."""

# struct places of record/ebpf/state.h
RET: Final = 48
FD_KIND: Final = 56
MAP_TYPE: Final = 60
LINK_TYPE: Final = 72
SLOTS: Final = (256, 512)
"""Where the first struct is kept that arguments point at, and one that this points at."""
SLOT: Final = 256
AGAIN: Final = 1024
OPS: Final = (
    "IF", "COPY", "COPY_STR", "FETCH", "IDENTIFY", "FD_ARRAY", "STRINGS", "INSNS",
    "VALUE_FD", "VALUE_FDS", "ASK",
)  # fmt: skip
LENGTHS: Final = (
    "FIXED", "FIELD", "FIELDS", "KEY", "VALUE", "CURSOR", "FD_SLOTS", "PERF_ATTR",
    "PERF_QUERY", "RESULT", "SIGNED", "LOADED",
)  # fmt: skip
TESTS: Final = ("IS", "ONE_OF", "IS_NOT", "NONE_OF")
OPTIONAL, SMALLER, OPEN, LOOK_AGAIN = 1, 2, 4, 8
ALWAYS: Final = 0xFFFFFFFF
FD_KINDS: Final = {"map": 1, "prog": 2, "link": 3, "btf": 4, "perf_event": 5, "token": 6}
STRUCT_OPS: Final = frozenset({const.BPF_MAP_TYPE_STRUCT_OPS})
E2BIG: Final = 7


class GenerateError(Exception):
    """A walk that the rows cannot do."""


@dataclass(frozen=True)
class Test:
    """A condition on the u32 at a place."""

    test: str
    at: int
    mask: int
    value: int = 0

    @property
    def negated(self) -> Test:
        """The contrary."""
        other = {"IS": "IS_NOT", "ONE_OF": "NONE_OF", "IS_NOT": "IS", "NONE_OF": "ONE_OF"}
        return replace(self, test=other[self.test])


def one_of(at: int, numbers: frozenset[int]) -> Test:
    """Whether the number at a place is in a set of numbers below 64."""
    word = sum(1 << number for number in numbers)
    return Test("ONE_OF", at, word & 0xFFFFFFFF, word >> 32)


@dataclass(frozen=True)
class Row:
    """As struct row; ``pmu``: the name of the PMU whose type the value is, on this machine."""

    op: str
    flags: int = 0
    length: str = "FIXED"
    test: str = "IS"
    at: int = 0
    by: int = 0
    slot: int = 0
    scale: int = 0
    limit: int = 0
    mask: int = 0
    value: int = 0
    kept: int = 0
    pmu: str = ""

    def packed(self) -> tuple[int, ...]:
        """The numbers, in the order of the struct's members."""
        return (
            OPS.index(self.op), self.flags, LENGTHS.index(self.length), TESTS.index(self.test),
            self.at, self.by, self.slot, 0,
            self.scale, self.limit, self.mask, self.value, self.kept,
        )  # fmt: skip


@dataclass(frozen=True)
class Length:
    """How long what a pointer leads to is."""

    length: str = "FIXED"
    by: int = 0
    scale: int = 0
    limit: int = READ_LIMIT


@dataclass(frozen=True)
class Field:
    """What an expression that names a field comes to."""

    at: int


def offsets(layout: Layout) -> list[int]:
    """Where each raw field of a layout begins."""
    found, at = [], 0
    for count, code in re.findall(r"(\d*)([a-zA-Z])", layout.full.format):
        for _ in range(1 if code == "s" else int(count or 1)):
            found.append(at)
            at += struct.calcsize("<" + (count + code if code == "s" else code))
    return found


class Places:
    """A scope that answers with the places of fields rather than with their values."""

    def __init__(self, layout: Layout, base: int, parent: Places | None = None) -> None:
        self.layout = layout
        self._base = base
        self._offsets = offsets(layout)
        self._parent = parent

    def __getitem__(self, name: str) -> Field:
        index = self.layout.index.get(name)
        if index is not None and name != "_":
            return Field(self._base + self._offsets[index])
        if self._parent is None:
            raise GenerateError(f"no field {name}")
        return self._parent[name]


# ---------------------------------------------------------------- lengths


def _bits(numbers: frozenset[int]) -> int:
    return sum(1 << number for number in numbers)


LENGTH_OF: Final[dict[Callable[..., Any], Callable[[Places], Length]]] = {
    m.key_size: lambda p: Length("KEY"),
    m.value_size: lambda p: Length("VALUE"),
    m.keys_size: lambda p: Length("KEY", p["count"].at),
    m.values_size: lambda p: Length("VALUE", p["count"].at),
    m.cursor_size: lambda p: Length("CURSOR", 0, _bits(m.HASH_MAPS)),
    m.log_size: lambda p: Length("FIELD", p["log_size"].at, 1),
    m.btf_log_size: lambda p: Length("FIELD", p["btf_log_size"].at, 1),
    m.task_name_size: lambda p: Length("FIELD", p["buf_len"].at, 1, 4096),
    m.fd_array_count: lambda p: Length("FD_SLOTS", p["fd_array_cnt"].at),
    m.stream_size: lambda p: Length("RESULT", p["stream_buf_len"].at),
    m.option_size: lambda p: Length("SIGNED", p["optlen"].at, 0, 4096),
    m.written_size: lambda p: Length("FIELD", p["count"].at, 1, 1 << 16),
    m.attr_size: lambda p: Length("PERF_ATTR", 0, 0, 4096),
    m.query_bpf_size: lambda p: Length("PERF_QUERY", 0, 0, 4096),
}


def length(expr: Any, places: Places, each: int = 1) -> Length:
    """The length of ``expr`` things of ``each`` bytes."""
    if isinstance(expr, int):
        return Length(limit=min(expr * each, READ_LIMIT))
    known = LENGTH_OF.get(expr)
    if known is not None:
        found = known(places)
        if each not in (1, found.scale) and found.length != "FD_SLOTS":
            raise GenerateError(f"{expr.__name__} times {each}")
        return found
    if getattr(expr, "__module__", "") == m.__name__:
        raise GenerateError(f"the length {expr.__name__} has no row in LENGTH_OF")
    field = expr(places)
    if not isinstance(field, Field):
        raise GenerateError(f"the length {expr} is not a field")
    return Length("FIELD", field.at, each)


# ---------------------------------------------------------------- selectors


def _flag(name: str, flag: int) -> Callable[[Any, Places], Test | bool]:
    def test(key: Any, places: Places) -> Test:
        found = Test("IS", places[name].at, flag, flag)
        return found if key else found.negated

    return test


def _by_ifindex(key: Any, places: Places) -> Test:
    found = one_of(places["attach_type"].at, m.ATTACH_BY_IFINDEX)
    return found if key else found.negated


def _variant(key: Any, places: Places) -> Test | bool:
    if key == m.EXT or key is None:
        return False  # nothing to follow there
    numbers = frozenset(
        number
        for number, name in names.bpf_attach_type.items()
        if (name == key if key != "cgroup" else "CGROUP" in name)
    )
    return one_of(places["attach_type"].at, numbers) if numbers else False


def _link_type(key: Any, places: Places) -> Test | bool:
    for number, name in names.bpf_link_type.items():
        if name == f"BPF_LINK_TYPE_{key}":
            return Test("IS", LINK_TYPE, ALWAYS, number)
    return False


def _pmu(key: Any, places: Places) -> Test | bool:
    for number, name in perf.perf_type_id.items():
        if name == f"PERF_TYPE_{str(key).upper()}":
            return Test("IS", places["type"].at, ALWAYS, number)
    return Test("PMU", places["type"].at, ALWAYS) if key is not None else False


def _option(key: Any, places: Places) -> Test:
    numbers = frozenset(number for number, name in system.so_filter.items() if name in m.SO_FD)
    found = one_of(places["optname"].at, numbers)
    return found if key == "fd" else found.negated


def _any(key: Any, places: Places) -> bool:
    return True


SELECTED: Final[dict[Callable[..., Any], Callable[[Any, Places], Test | bool]]] = {
    m.has_path_fd: _flag("file_flags", const.BPF_F_PATH_FD),
    m.replaces_by_id: _flag("attach_flags", const.BPF_F_ID),
    m.is_id: _flag("flags", const.BPF_F_ID),
    m.is_path_fd: _flag("flags", const.BPF_F_UPROBE_MULTI_PATH_FD),
    m.is_cgroup: _flag("flags", const.PERF_FLAG_PID_CGROUP),
    m.has_common: _flag("cmd", const.BPF_COMMON_ATTRS),
    m.by_ifindex: _by_ifindex,
    m.variant: _variant,
    m.fd_kind: lambda key, places: Test("IS", FD_KIND, ALWAYS, FD_KINDS[key]),
    m.link_type: _link_type,
    m.pmu: _pmu,
    m.second: _pmu,
    m.socket_option: _option,
    # What decides is not known in the kernel: all that may stand there is taken.
    m.iter_target: _any,
    m.perf_link_type: _any,
}
"""What selects a union's member: of a key the condition; True: always; False: never."""


# ---------------------------------------------------------------- rows


class Rows:
    """The rows of one call, before it and after it."""

    def __init__(self) -> None:
        self.entry: list[Row] = []
        self.exit: list[Row] = []

    def add(self, stage: int, row: Row) -> None:
        """One more; a second one that does the same on the same condition is left out."""
        rows = self.exit if stage else self.entry
        since = max((at for at, one in enumerate(rows) if one.op == "IF"), default=-1)
        if row not in rows[since + 1 :]:
            rows.append(row)

    @contextmanager
    def when(self, test: Test | bool) -> Iterator[None]:
        """The rows that follow run only on this condition."""
        if isinstance(test, bool):
            yield
            return
        pmu = test.test == "PMU"
        marks = []
        for rows in (self.entry, self.exit):
            rows.append(
                Row("IF", test="IS" if pmu else test.test, at=test.at, mask=test.mask,
                    value=test.value, pmu="?" if pmu else "")
            )  # fmt: skip
            marks.append(len(rows))
        yield
        for rows, mark in zip((self.entry, self.exit), marks, strict=True):
            if len(rows) == mark:
                del rows[mark - 1]
            else:
                rows[mark - 1] = replace(rows[mark - 1], slot=len(rows) - mark)


def errors(pointer: Pointer) -> int:
    """After which failures the kernel has written there, as bits."""
    if isinstance(pointer.always, bool):
        return ALWAYS if pointer.always else 0
    return sum(1 << error for error in pointer.always if error < 32)


class Walker:
    """Goes over a layout as follow() does, and makes rows of it."""

    def __init__(self) -> None:
        self.rows = Rows()

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


HEAD: Final = '''"""What the eBPF engine's programs copy of each call, as rows that they interpret.

Generated by tools/gen_steps.py from decoders/walk/table.py; do not edit.
"""

from __future__ import annotations

from typing import Final

ROWS: Final[tuple[tuple[int, ...], ...]] = (
'''


def generated() -> str:
    """The module's text."""
    lines = [HEAD]
    pmus: dict[int, str] = {}
    known: dict[tuple[Row, ...], int] = {}
    count = 0

    def put(rows: list[Row]) -> tuple[int, int]:
        nonlocal count
        key = tuple(rows)
        if key not in known:
            known[key] = count
            for row in rows:
                if row.pmu:
                    pmus[count] = row.pmu
                lines.append(f"    {row.packed()!r},  # {count} {row.op}\n")
                count += 1
        return known[key], len(rows)

    def table(title: str, kind: str, rows: Mapping[Any, Rows], doc: str) -> str:
        text = [f"{title}: Final[dict[{kind}, tuple[int, int, int, int]]] = {{\n"]
        for key, one in rows.items():
            shown = f'"{key}"' if isinstance(key, str) else key
            text.append(f"    {shown}: {(*put(one.entry), *put(one.exit))!r},\n")
        return "".join([*text, f'}}\n"""{doc}"""\n'])

    tables = [
        table("COMMANDS", "int", bpf_commands(),
              "By command of bpf(2), -1 any other: first row and number of rows at the entry,\\n"
              "the same at the exit.".replace("\\n", "\n")),
        table("CALLS", "str", other_calls(), "The same of other calls."),
        table("REQUESTS", "int", ioctl_requests(), "The same by request of ioctl(2)."),
    ]  # fmt: skip
    lines.append(")\n" + '"""struct row of record/ebpf/state.h."""\n')
    lines += tables
    lines.append(f"PMUS: Final[dict[int, str]] = {pmus!r}\n".replace("'", '"'))
    lines.append('"""Rows whose value is the type of a PMU, numbered by each machine itself."""\n')
    return "".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    try:
        text = generated()
    except GenerateError as error:
        print(f"gen_steps: {error}", file=sys.stderr)
        return 2
    if options.check:
        return int(not TARGET.exists() or TARGET.read_text() != text)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
