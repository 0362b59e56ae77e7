"""What the panes show, gathered as for the report page, with the rows of all calls in a file."""

from __future__ import annotations

from collections import deque
from typing import Final

from bpftrace_sys.render.html.gather import RECENT, Gather
from bpftrace_sys.render.html.records import CallRow
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import NotedCall, Object
from bpftrace_sys.tui.rows import Rows

WIDTH: Final = 76
"""Columns for which the text of calls is laid out: what a pane has on the narrowest terminal."""
MAKERS: Final = 100_000
"""Calls that made something and are remembered by their number."""


class Book(Gather):
    """A Gather that keeps rows in :attr:`rows`; ``report.rows`` stays empty."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.text.options.width = WIDTH
        self.rows = Rows()
        self.by_seq: dict[int, int] = {}
        """Places of rows whose calls made something, loaded or attached: what is jumped to."""
        self._recent: deque[CallRow] = deque(maxlen=RECENT)

    def has_room(self) -> bool:
        return not self.rows.full

    def keep(self, row: CallRow) -> int:
        self._recent.append(row)
        self.rows.append(row)
        return len(self.rows) - 1

    def listed_at(self, place: int) -> CallRow:
        return self.rows[place]

    def put(self, place: int, row: CallRow) -> None:
        self.rows.replace(place, row)

    def recent(self, seq: int) -> CallRow | None:
        return next((row for row in reversed(self._recent) if row.seq == seq), None)

    def call(self, call: NotedCall) -> None:
        before = len(self.rows)
        super().call(call)
        if len(self.rows) > before and len(self.by_seq) < MAKERS:
            self.by_seq[call.raw.seq] = before

    @property
    def decided(self) -> int:
        """How many rows are as they will stay: of those behind it may turn out what they are."""
        return min((place for place, _ in self._maybe if place is not None),
                   default=len(self.rows))  # fmt: skip

    def lull(self) -> None:
        """Nothing came for a while: what may be probes is told as far as it is known."""
        self.settle()

    def fresh(self) -> None:
        """Names and numbers as they are known by now: a trace that goes on has no end yet."""
        self.programs.finish()
        self.maps.finish()

    def made_by(self, number: int) -> int | None:
        """The number (seq) of the call that made an object; None: the trace did not see it."""
        found: Object = self.page_objects.objects[number]
        return None if found.call is None else found.call.raw.seq

    def with_makers(self, seqs: set[int]) -> set[int]:
        """These calls, those that made the objects that they are about, and so on."""
        found: set[int] = set()
        todo = set(seqs)
        while todo:
            seq = todo.pop()
            found.add(seq)
            place = self.by_seq.get(seq)
            for number in () if place is None else self.rows[place].things:
                made = self.made_by(number)
                if made is not None and made not in found:
                    todo.add(made)
        return found

    def place(self, seq: int) -> int | None:
        """Where the row of a call stands; None: it has none."""
        known = self.by_seq.get(seq)
        if known is not None:
            return known
        return next((at for at, row in enumerate(self.rows) if row.seq == seq), None)

