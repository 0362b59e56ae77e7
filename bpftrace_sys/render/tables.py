"""The ledger's tables: aligned; coloured on a terminal, plain in a pipe.

rich draws them where there are colours and a width to fit; a pipe gets plain
columns that never wrap, so that awk and diff can read them.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Final

from bpftrace_sys.render.left_alone import left_alone_line
from bpftrace_sys.render.style import columns_of, wants_colour
from bpftrace_sys.render.watching import lost_words
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import NotedCall
from bpftrace_sys.story.renderer import Renderer, Template
from bpftrace_sys.story.summary import Count, Counts, Table, counted, tables
from decoders.events import Lost, ProcessEvent

if TYPE_CHECKING:

    from bpftrace_sys.render.output import TextOut
    from bpftrace_sys.story.refusals import RefusedPrograms
    from bpftrace_sys.trace.header import Header
    from decoders.events import Ending
    from decoders.loop_calls import Strand

GAP: Final = 2
MIDDLE: Final = 16
"""Columns in which a folded path still tells something."""


def plain_lines(table: Table) -> list[str]:
    """A table without colours: title, heads, rows."""
    widths = [
        max(len(column), *(len(row[index]) for row in table.rows))
        for index, column in enumerate(table.columns)
    ]
    lines = [table.title]
    for row in (table.columns, *table.rows):
        cells = [
            cell.rjust(width) if column in table.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, table.columns, strict=True)
        ]
        lines.append((" " * GAP + (" " * GAP).join(cells)).rstrip())
    return lines


def narrow_lines(table: Table, width: int) -> list[str]:
    """A table for a terminal that it does not fit: what does not, stands below its row."""
    widths = [
        max(len(column), *(len(row[index]) for row in table.rows))
        for index, column in enumerate(table.columns)
    ]
    fitting = len(widths)
    while fitting > 1 and GAP + sum(widths[:fitting]) + GAP * (fitting - 1) > width:
        fitting -= 1
    columns = table.columns[:fitting]
    head = Table(table.title, columns, [row[:fitting] for row in table.rows], table.right)
    title, heads, *lines = plain_lines(head)
    told = [title[:width], heads[:width]]
    for row, line in zip(table.rows, lines, strict=True):
        told += _wrapped(line, width, drop_whitespace=False) if len(line) > width else [line]
        rest = list(zip(table.columns[fitting:], row[fitting:], strict=True))
        apart = "; " if any(", " in cell for _, cell in rest) else ", "
        text = apart.join(
            cell if cell.startswith(("not ", "(")) else f"{column} {cell}"
            for column, cell in rest
            if cell
        )
        told += _wrapped(
            text, width, initial_indent=" " * 3 * GAP, subsequent_indent=" " * 4 * GAP
        )
    return told


def _wrapped(text: str, width: int, **options: Any) -> list[str]:
    """Lines of a text; a path that no line holds loses its middle, and none is broken."""
    room = width - len(options.get("subsequent_indent", ""))
    words = (
        folded(word, room) if "/" in word and len(word) > room > MIDDLE else word
        for word in text.split(" ")
    )
    import textwrap

    return textwrap.wrap(" ".join(words), width, break_on_hyphens=False, **options)


def folded(word: str, room: int) -> str:
    """Begin and end of a word, as much as there is room for."""
    head = (room - 1) // 2
    return f"{word[:head]}\u2026{word[head + 1 - room :]}"


def uncoloured(table: Table, stream: Any) -> list[str]:
    """A table for a pipe or file, or for a terminal without colours."""
    lines = plain_lines(table)
    width = columns_of(stream)
    return narrow_lines(table, width) if 0 < width < max(map(len, lines)) else lines


def draw(table: Table, stream: Any) -> None:
    """A coloured table, by rich; on a terminal, below its rows what is too wide for it."""
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    widest = max(len(line) for line in plain_lines(table))
    # Whether there are colours is decided; the environment has been asked.
    console = Console(
        file=stream,
        highlight=False,
        # With both, rich does not take a dumb terminal for one of 80 columns.
        width=columns_of(stream) or widest + GAP,
        height=25,
        force_terminal=True,
        color_system="256",
        no_color=False,
    )
    if widest > console.width:
        title, heads, *rows = narrow_lines(table, console.width)
        console.print(Text(title, "bold"), Text(heads, "bold"), sep="\n")
        for line in rows:
            console.print(Text(line), soft_wrap=True)
        return
    drawn = Drawn(
        title=table.title,
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 0, 0, GAP),
    )
    for column in table.columns:
        drawn.add_column(
            column, justify="right" if column in table.right else "left", no_wrap=True
        )
    for row in table.rows:
        # Text, not str: names of the tracee's are no markup.
        drawn.add_row(*(Text(cell) for cell in row))
    console.print(drawn)


class Counted(Template):
    """The template (repeats.py) of a renderer that only counts."""

    __slots__ = ("_count",)

    def __init__(self, count: Count) -> None:
        self._count = count

    def told(self, strand: Strand) -> None:
        self._count.calls += strand.size
        self._count.errors += strand.size * strand.like.failed
        self._count.nanoseconds += sum(filter(None, strand.durations))


class LedgerRenderer(Renderer):
    """Says nothing until the end, then the tables.

    ``always``: even for a trace in which no BPF object was made (-c).
    """

    has_templates = True

    def __init__(
        self, out: TextOut, stream: IO[str], model: Model, always: bool, colour: str = "auto"
    ) -> None:
        self.out = out
        self.colour = colour
        self.stream = stream
        self.model = model
        self.always = always
        self.counts = Counts()
        self.refused_programs: RefusedPrograms | None = None
        """Once a program was refused."""
        self.lost = Lost()
        """What an eBPF engine's ring had no room for."""
        self._program = True

    def header(self, header: Header) -> None:
        self._program = bool(header.argv)

    def call(self, call: NotedCall) -> None:
        """Counted."""
        self.counts.call(call)
        if call.command.startswith("BPF_PROG_LOAD"):
            if self.refused_programs is None and call.raw.failed:
                from bpftrace_sys.story.refusals import RefusedPrograms

                self.refused_programs = RefusedPrograms(self.model)
            if self.refused_programs is not None:
                self.refused_programs.call(call)

    def again(self, call: NotedCall, before: NotedCall) -> None:
        self.counts.call(call)
        if self.refused_programs is not None and call.command.startswith("BPF_PROG_LOAD"):
            self.refused_programs.again(call, before)

    def template(self, call: NotedCall) -> Counted:
        """Counts calls like this one."""
        return Counted(self.counts.of(call))

    def process(self, event: ProcessEvent) -> None:
        """Counts what was lost."""
        if isinstance(event.what, Lost):
            self.lost = self.lost.plus(event.what)

    def end(self, ending: Ending) -> None:
        """The tables."""
        made = any(found.call is not None for found in self.model.objects.values())
        refused = None if self.refused_programs is None else self.refused_programs.table()
        made = made or bool(refused and refused.rows)
        if self.always or made or self.lost or counted(self.model):
            self._tables(refused)
        if ending.left_alone:
            line = left_alone_line(ending.left_alone, self._program, made)
            self.out.write(f"{line}\n" if line else "")
        self.out.flush()

    def _tables(self, refused: Table | None) -> None:
        colours = wants_colour(self.stream, self.colour)
        for table in tables(self.model, self.counts, refused):
            self.out.write("\n")
            if colours:
                self.out.flush()
                draw(table, self.stream)
            else:
                self.out.write("\n".join(uncoloured(table, self.stream)) + "\n")
        if self.lost:
            self.out.write(f"\nlost: {lost_words(self.lost)}: these tables are not whole\n")
