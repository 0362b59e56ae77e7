"""The table of -c and -C, as strace prints it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bpftrace_sys.story.renderer import Renderer
from decoders.call import Call
from decoders.events import Ending
from decoders.records import NamedTuple, dataclass

if TYPE_CHECKING:
    from bpftrace_sys.render.output import TextOut

COLUMNS: Final = ("time-percent", "total-time", "avg-time", "calls", "errors", "name")
"""Those that are shown unless -U says otherwise."""


@dataclass(slots=True)
class Count:
    """The calls of one name; times in nanoseconds."""

    name: str
    calls: int = 0
    errors: int = 0
    time: int = 0
    shortest: int | None = None
    longest: int = 0

    def add(self, call: Call) -> None:
        """One more."""
        self.calls += 1
        self.errors += call.raw.failed
        spent = call.raw.duration
        if spent is None:
            return
        self.time += spent
        self.shortest = spent if self.shortest is None else min(self.shortest, spent)
        self.longest = max(self.longest, spent)

    @property
    def average(self) -> int:
        """Nanoseconds a call."""
        return self.time // self.calls if self.calls else 0


class Column(NamedTuple):
    """A column: its head, how wide it is at least, and what stands in it."""

    head: str
    width: int
    text: Callable[[Count, int], str]
    """Of a line, and the nanoseconds of all."""
    left: bool = False


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:.6f}"


def _percent(count: Count, whole: int) -> str:
    return f"{100 * count.time / whole if whole else 0:.2f}"


KNOWN: Final[dict[str, Column]] = {
    "time-percent": Column("% time", 6, _percent),
    "total-time": Column("seconds", 11, lambda count, _: _seconds(count.time)),
    "min-time": Column("shortest", 8, lambda count, _: _seconds(count.shortest or 0)),
    "max-time": Column("longest", 7, lambda count, _: _seconds(count.longest)),
    "avg-time": Column("usecs/call", 11, lambda count, _: str(count.average // 1000)),
    "calls": Column("calls", 9, lambda count, _: str(count.calls)),
    "errors": Column("errors", 9, lambda count, _: str(count.errors or "")),
    "name": Column("syscall", 16, lambda count, _: count.name, left=True),
}
"""By the words of -U. Widths are strace 7.2's (src/count.c)."""
SORTED: Final[dict[str, Callable[[Count], Any]]] = {
    "time-percent": lambda count: -count.time,
    "total-time": lambda count: -count.time,
    "min-time": lambda count: -(count.shortest or 0),
    "max-time": lambda count: -count.longest,
    "avg-time": lambda count: -count.average,
    "calls": lambda count: -count.calls,
    "errors": lambda count: -count.errors,
    "name": lambda count: count.name,
    "nothing": lambda count: 0,
}
"""By the words of -S."""


def table(
    counts: list[Count], columns: tuple[str, ...] = COLUMNS, by: str = "time-percent"
) -> str:
    """The lines of the table."""
    counts = sorted(counts, key=SORTED[by])
    total = Count("total")
    for count in counts:
        total.calls += count.calls
        total.errors += count.errors
        total.time += count.time
        if count.shortest is not None:
            total.shortest = min(count.shortest, total.shortest or count.shortest)
        total.longest = max(total.longest, count.longest)
    shown = [KNOWN[name] for name in columns]
    rows = [[column.text(count, total.time) for column in shown] for count in counts]
    last = ["100.00" if name == "time-percent" else KNOWN[name].text(total, total.time)
            for name in columns]  # fmt: skip
    widths = [
        max(column.width, *(len(row[at]) + column.left for row in (*rows, last)))
        for at, column in enumerate(shown)
    ]
    rule = " ".join("-" * width for width in widths)
    lines = [_line([column.head for column in shown], shown, widths), rule]
    lines += [_line(row, shown, widths) for row in rows]
    lines += [rule, _line(last, shown, widths)]
    return "".join(f"{line}\n" for line in lines)


def _line(texts: list[str], columns: list[Column], widths: list[int]) -> str:
    cells = [
        text if column.left and at == len(texts) - 1 else f"{text:{'<' if column.left else '>'}{w}}"
        for at, (text, column, w) in enumerate(zip(texts, columns, widths, strict=True))
    ]
    return " ".join(cells)


class StraceSummary(Renderer):
    """Counts calls, and prints the table at the end."""

    def __init__(self, out: TextOut, columns: tuple[str, ...] = (), by: str = "") -> None:
        """``columns``: words of KNOWN, none for the usual ones; ``by``: of SORTED, or empty."""
        self.out = out
        self.columns = columns or COLUMNS
        self.by = by or "time-percent"
        self._counts: dict[str, Count] = {}

    def call(self, call: Call) -> None:
        name = call.syscall.name
        count = self._counts.get(name)
        if count is None:
            count = self._counts[name] = Count(name)
        count.add(call)

    def end(self, ending: Ending) -> None:
        if self._counts:
            self.out.write(table(list(self._counts.values()), self.columns, self.by))
