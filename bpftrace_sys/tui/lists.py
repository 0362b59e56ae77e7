"""The three lists: calls, objects, attachments."""

from __future__ import annotations

import time
from array import array
from typing import Final

from rich.cells import cell_len

from bpftrace_sys.render.html import records
from bpftrace_sys.render.html.records import CallRow
from bpftrace_sys.tui.book import Book
from bpftrace_sys.tui.details import Details
from bpftrace_sys.tui.entries import WORDS, Entry, TieGroup, entries, targets, tie_groups
from bpftrace_sys.tui.painted import Palette
from bpftrace_sys.tui.panes import Pane
from bpftrace_sys.tui.query import Query

CLOCK: Final = 64
"""Rows between two looks at the clock."""
NAMES: Final = ((70, 15), (90, 18), (1 << 16, 24))
"""Columns of a command in a list that is narrower than this."""
SHORT: Final = ("BPF_", "PERF_EVENT_IOC_")
"""What commands begin with, and are listed without."""


def fitted(text: str, width: int, right: bool = False) -> str:
    """A text in just so many cells."""
    size = cell_len(text)
    while size > width:
        text = text[: -max((size - width) // 2, 1)]
        size = cell_len(text)
    gap = " " * (width - size)
    return gap + text if right else text + gap


class CallsPane(Pane):
    """The calls that the filter lets through."""

    def __init__(self, palette: Palette, id: str, details: Details) -> None:
        super().__init__(palette, id)
        self.book: Book = details.book
        self._paint = details.paint
        self.sieve = Query("", self.book.report)
        self._found = array("I")
        """Places of rows, where there is a filter."""
        self._tested = 0
        """Rows that were held against the filter."""
        self._wanted: int | None = None
        """A place that the cursor goes to once its row was found."""

    # ------------------------------------------------------------ the filter

    def filter(self, text: str) -> None:
        """Only calls that match; the cursor stays on its call if that is one of them."""
        self._wanted = self.place if self.count else None
        self.sieve = Query(text, self.book.report)
        self._found, self._tested = array("I"), 0
        if not self.sieve and self._wanted is not None:
            self.cursor, self._wanted = self._wanted, None
        else:
            self.cursor = 0
        self.scroll_to(y=0, animate=False, immediate=True)
        self.fresh()
        self._show_cursor()

    def sift(self, seconds: float) -> bool:
        """Holds rows against the filter, for so long at most; whether any were."""
        last = self.book.decided
        if not self.sieve or self._tested >= last:
            return False
        until = time.monotonic() + seconds
        for at in range(self._tested, last):
            if self.sieve(self.book.rows[at]):
                if at == self._wanted:
                    self.cursor, self._wanted = len(self._found), None
                self._found.append(at)
            self._tested = at + 1
            if at % CLOCK == 0 and time.monotonic() >= until:
                break
        return True

    @property
    def sifted(self) -> bool:
        """All rows were held against the filter."""
        return not self.sieve or self._tested >= self.book.decided

    def places(self) -> list[int]:
        """The rows that are let through."""
        return list(self._found) if self.sieve else list(range(len(self.book.rows)))

    # ------------------------------------------------------------ as a Pane

    @property
    def count(self) -> int:
        return len(self._found) if self.sieve else len(self.book.rows)

    def _place(self, at: int) -> int:
        return self._found[at] if self.sieve else at

    @property
    def place(self) -> int | None:
        """The place of the row under the cursor."""
        return self._place(self.cursor) if self.cursor < self.count else None

    @property
    def row(self) -> CallRow | None:
        """The row under the cursor."""
        place = self.place
        return None if place is None else self.book.rows[place]

    def show_place(self, place: int) -> bool:
        """The cursor goes to a row; False: the filter keeps it out."""
        if not self.sieve:
            self.go(place)
            return True
        if place in self._found:
            self.go(self._found.index(place))
            return True
        return False

    def plain(self, at: int) -> str:
        return self.sieve.text_of(self.book.rows[self._place(at)])

    def painted(self, at: int) -> str:
        row = self.book.rows[self._place(at)]
        report, paint = self.book.report, self._paint
        width = self.scrollable_content_region.width
        command = report.commands[row.command]
        for head in SHORT:
            command = command.removeprefix(head)
        seq = f"{row.seq:>5} "
        when = f"{(row.time - (report.first or 0)) / 1e9:8.3f} " if width >= 56 else ""
        who = ""
        if width >= 90 and len(report.threads) > 1:
            thread = report.threads[row.thread]
            who = fitted(f"{thread.comm} {thread.tid}", 16) + " "
        result = row.result
        name = fitted(command, next(size for most, size in NAMES if width < most)) + " "
        room = width - len(seq) - len(when) - cell_len(who) - cell_len(name) - len(result) - 1
        about = fitted(row.subject, max(room, 0))
        if row.group:
            return paint("comment", f"{seq}{when}{who}{name}{about} {result}")
        failed = row.flags & records.FAILED
        made = row.flags & records.MADE
        return (
            paint("comment", f"{seq}{when}{who}")
            + paint("error" if failed else "name", name)
            + paint("object" if made else "number", about)
            + " "
            + paint("error" if failed else "number", result)
        )


class ObjectsPane(Pane):
    """Programs, maps, links, BTF, perf events."""

    def __init__(self, palette: Palette, id: str, details: Details) -> None:
        super().__init__(palette, id)
        self.details = details
        self.entries: list[Entry] = []
        self._targets: dict[int, list[str]] = {}

    def renew(self) -> None:
        """The list as it is by now; the cursor stays on its object, or at the top."""
        before = self.entry if self.cursor else None
        report = self.details.report
        self.entries, self._targets = entries(report), targets(report)
        if before is not None:
            keys = [entry.key for entry in self.entries]
            self.cursor = keys.index(before.key) if before.key in keys else self.cursor
        self.fresh()

    @property
    def count(self) -> int:
        return len(self.entries)

    @property
    def entry(self) -> Entry | None:
        """The object under the cursor."""
        return self.entries[self.cursor] if self.cursor < len(self.entries) else None

    def show_thing(self, number: int) -> bool:
        """The cursor goes to an object; False: it is not listed."""
        for at, entry in enumerate(self.entries):
            if entry.thing == number:
                self.go(at)
                return True
        return False

    def painted(self, at: int) -> str:
        entry = self.entries[at]
        report, paint = self.details.report, self.details.paint
        width = self.scrollable_content_region.width
        kind = fitted(WORDS.get(entry.kind, entry.kind), 6)
        program = entry.program
        if program is not None:
            number = "" if program.id is None else str(program.id)
            name, about = program.name, program.kind
            told = ", ".join(self._targets.get(entry.thing, ())) if entry.thing is not None else ""
            if program.error:
                told = program.error
        else:
            assert entry.thing is not None
            thing = report.page_objects[entry.thing]
            known = self.details.book.page_objects.objects[entry.thing]
            number = "" if known.id is None else str(known.id)
            name, told, about = thing.name or "(anonymous)", "", ""
            if thing.kind != "map":
                # Links and events are known by what they are on.
                label = thing.label.removeprefix(f"{thing.kind} ").replace(f"id={known.id} ", "")
                name = label if thing.kind in ("link", "perf_event") else thing.name
            else:
                found = next((one for one in report.maps if one.thing == entry.thing), None)
                about = "" if found is None else found.kind
                told = f"{found.operations:,} operations" if found and found.operations else ""
        head = paint("comment", kind) + fitted(number, 6, right=True) + " "
        room = max(width - 13, 8)
        if not about and not told:
            return head + paint("object", fitted(name, room))
        named = fitted(name, max(room * 2 // 5, 8))
        rest = fitted(f"{about}  {told}" if about and told else about or told, room * 3 // 5 - 1)
        style = "error" if program is not None and program.error else "comment"
        return head + paint("object", named) + " " + paint(style, rest)


class TiesPane(Pane):
    """Attachments in order, those of several CPUs as one."""

    def __init__(self, palette: Palette, id: str, details: Details) -> None:
        super().__init__(palette, id)
        self.details = details
        self.groups: list[TieGroup] = []

    def renew(self) -> None:
        """The list as it is by now."""
        self.groups = tie_groups(self.details.report)
        self.fresh()

    @property
    def count(self) -> int:
        return len(self.groups)

    @property
    def group(self) -> TieGroup | None:
        """The attachment under the cursor."""
        return self.groups[self.cursor] if self.cursor < len(self.groups) else None

    def painted(self, at: int) -> str:
        group, paint = self.groups[at], self.details.paint
        tie = group.tie
        gone = tie.verb in ("detached", "disabled")
        often = f" x{group.often}" if group.often > 1 else ""
        return (
            paint("detached" if gone else "attached", fitted(tie.verb, 9))
            + paint("object", tie.who)
            + f" {'-x' if tie.verb == 'detached' else '->'} {tie.target}{often}"
        )
