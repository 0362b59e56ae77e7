"""The table of -c and -C, as strace prints it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from bpftrace_sys.story.renderer import Renderer
from decoders.call import Call
from decoders.events import Ending
from decoders.raw import AUDIT_ARCH_I386
from decoders.records import NamedTuple, dataclass, field

if TYPE_CHECKING:
    from bpftrace_sys.render.output import TextOut

COLUMNS: Final = ("time-percent", "total-time", "avg-time", "calls", "errors", "name")
"""Those that are shown unless -U says otherwise."""
OTHERS: Final = {AUDIT_ARCH_I386: "32 bit"}
"""Architectures that have a table of their own, and what strace calls them."""


@dataclass(slots=True)
class Spent:
    """Times of some calls, in nanoseconds."""

    total: int = 0
    shortest: int | None = None
    longest: int = 0

    def add(self, time: int) -> None:
        """One more."""
        self.total += time
        self.shortest = time if self.shortest is None else min(self.shortest, time)
        self.longest = max(self.longest, time)

    def average(self, calls: int) -> int:
        """To the nearest nanosecond."""
        return (self.total + calls // 2) // calls if calls else 0


@dataclass(slots=True)
class Count:
    """The calls of one name."""

    name: str
    number: int = 0
    """Of the system call."""
    calls: int = 0
    errors: int = 0
    time: Spent = field(default_factory=Spent)
    """Of the CPU in the kernel, or with -w as on the wall."""
    wall: Spent = field(default_factory=Spent)
    """From a call's beginning to its end."""


class Column(NamedTuple):
    """A column: its head, how wide it is at least, and what stands in it."""

    head: str
    width: int
    text: Callable[[Count, float], str]
    """Of a line, and the seconds of all."""
    left: bool = False


def _seconds(nanoseconds: int | None) -> str:
    return f"{(nanoseconds or 0) / 1e9:.6f}"


def _percent(count: Count, whole: float) -> str:
    seconds = 100.0 * (count.time.total / 1e9)
    return f"{seconds / whole if seconds else 0:.2f}"


def _average(spent: Spent, calls: int) -> str:
    return str(int(spent.average(calls) / 1e9 * 1e6))


KNOWN: Final[dict[str, Column]] = {
    "time-percent": Column("% time", 6, _percent),
    "total-time": Column("seconds", 11, lambda count, _: _seconds(count.time.total)),
    "min-time": Column("shortest", 8, lambda count, _: _seconds(count.time.shortest)),
    "max-time": Column("longest", 7, lambda count, _: _seconds(count.time.longest)),
    "avg-time": Column("usecs/call", 11, lambda count, _: _average(count.time, count.calls)),
    "calls": Column("calls", 9, lambda count, _: str(count.calls)),
    "errors": Column("errors", 9, lambda count, _: str(count.errors or "")),
    "name": Column("syscall", 16, lambda count, _: count.name, left=True),
    "wall-total": Column("wall-total", 11, lambda count, _: _seconds(count.wall.total)),
    "wall-min": Column("wall-min", 8, lambda count, _: _seconds(count.wall.shortest)),
    "wall-max": Column("wall-max", 8, lambda count, _: _seconds(count.wall.longest)),
    "wall-avg": Column("wall-avg", 11, lambda count, _: _average(count.wall, count.calls)),
}
"""By the words of -U. Widths are strace 7.2's (src/count.c)."""
SORTED: Final[dict[str, Callable[[Count], Any]]] = {
    "time-percent": lambda count: -count.time.total,
    "total-time": lambda count: -count.time.total,
    "min-time": lambda count: -(count.time.shortest or 0),
    "max-time": lambda count: -count.time.longest,
    "avg-time": lambda count: -count.time.average(count.calls),
    "calls": lambda count: -count.calls,
    "errors": lambda count: -count.errors,
    "name": lambda count: count.name,
    "wall-total": lambda count: -count.wall.total,
    "wall-min": lambda count: -(count.wall.shortest or 0),
    "wall-max": lambda count: -count.wall.longest,
    "wall-avg": lambda count: -count.wall.average(count.calls),
    "nothing": lambda count: 0,
}
"""By the words of -S; what is equal stands in the order of the calls' numbers."""


def table(
    counts: list[Count], columns: tuple[str, ...] = COLUMNS, by: str = "time-percent"
) -> str:
    """The lines of the table."""
    counts = sorted(sorted(counts, key=lambda count: count.number), key=SORTED[by])
    total = Count("total")
    for count in counts:
        total.calls += count.calls
        total.errors += count.errors
        for whole, part in ((total.time, count.time), (total.wall, count.wall)):
            whole.total += part.total
            if part.shortest is not None:
                shortest = whole.shortest
                whole.shortest = part.shortest if shortest is None else min(shortest, part.shortest)
            whole.longest = max(whole.longest, part.longest)
    seconds = total.time.total / 1e9
    shown = [KNOWN[name] for name in columns]
    rows = [[column.text(count, seconds) for column in shown] for count in counts]
    last = [_total(name, total, seconds) for name in columns]
    widths = [
        max(column.width, *(len(row[at]) + column.left for row in (*rows, last)))
        for at, column in enumerate(shown)
    ]
    rule = " ".join("-" * width for width in widths)
    lines = [_line([column.head for column in shown], shown, widths), rule]
    lines += [_line(row, shown, widths) for row in rows]
    lines += [rule, _line(last, shown, widths)]
    return "".join(f"{line}\n" for line in lines)


def _total(name: str, total: Count, seconds: float) -> str:
    if name == "time-percent":
        return "100.00"
    if name in ("avg-time", "wall-avg"):
        spent = total.time if name == "avg-time" else total.wall
        return str(int(spent.total / 1e9 / total.calls * 1e6))
    return KNOWN[name].text(total, seconds)


def _line(texts: list[str], columns: list[Column], widths: list[int]) -> str:
    cells = [
        text if column.left and at == len(texts) - 1 else f"{text:{'<' if column.left else '>'}{w}}"
        for at, (text, column, w) in enumerate(zip(texts, columns, widths, strict=True))
    ]
    return " ".join(cells)


class StraceSummary(Renderer):
    """Counts calls, and prints the table at the end; one for each architecture that there is."""

    def __init__(
        self,
        out: TextOut,
        columns: tuple[str, ...] = (),
        by: str = "",
        *,
        wall: bool = False,
        overhead: int = 0,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """``columns``: words of KNOWN, none for the usual ones; ``by``: of SORTED, or empty;
        ``wall``: times are not the CPU's; ``overhead``: nanoseconds that are taken off each."""
        self.out = out
        self.columns = columns or COLUMNS
        self.by = by or "time-percent"
        self.wall = wall
        self.overhead = overhead
        self.say = say
        self._counts: dict[int, dict[int, Count]] = {}
        """By the architecture and the number of the call."""
        self._unknown = False

    def call(self, call: Call) -> None:
        raw = call.raw
        if raw.ret is None:
            return  # one that never returned counts for nothing
        arch = raw.arch if raw.arch in OTHERS else 0
        counts = self._counts.setdefault(arch, {})
        count = counts.get(raw.nr)
        if count is None:
            count = counts[raw.nr] = Count(call.syscall.name, raw.nr)
        count.calls += 1
        count.errors += raw.failed and not raw.extra.as_value
        spent = raw.duration
        if spent is not None:
            count.wall.add(max(0, spent - self.overhead))
        if not self.wall:
            self._unknown = self._unknown or raw.extra.cpu is None
            spent = spent if raw.extra.cpu is None else raw.extra.cpu
        if spent is not None:
            count.time.add(max(0, spent - self.overhead))

    def end(self, ending: Ending) -> None:
        for arch in sorted(self._counts):
            if arch:
                self.out.write(f"System call usage summary for {OTHERS[arch]} mode:\n")
            self.out.write(table(list(self._counts[arch].values()), self.columns, self.by))
        if self._unknown and self.say is not None:
            self.say(
                "CPU times of calls are known where ptrace has seen them for -c or -C of --style "
                "strace; the times here are from a call's beginning to its end, as with -w"
            )
