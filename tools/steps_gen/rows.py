"""What a row is (struct row of record/ebpf/state.h), and the rows of a call."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from decoders.walk.layouts import READ_LIMIT, Layout

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


class Rows:
    """The rows of one call, before it and after it."""

    def __init__(self) -> None:
        self.entry: list[Row] = []
        self.exit: list[Row] = []
        self.conditions = 0
        """How many are open."""

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
        self.conditions += 1
        yield
        self.conditions -= 1
        for rows, mark in zip((self.entry, self.exit), marks, strict=True):
            if len(rows) == mark:
                del rows[mark - 1]
            else:
                rows[mark - 1] = replace(rows[mark - 1], slot=len(rows) - mark)
