"""The ledger's tables: aligned; coloured on a terminal, plain in a pipe.

rich draws them where there are colours and a width to fit; a pipe gets plain
columns that never wrap, so that awk and diff can read them.
"""

from __future__ import annotations

from typing import IO, Any, Final

from bpftrace_sys.attach import Attachment
from bpftrace_sys.header import Header
from bpftrace_sys.ledger import Counts, Table, tables
from bpftrace_sys.model import Model
from bpftrace_sys.render.style import wants_colour
from decoders.call import Call
from decoders.events import ProcessEvent

GAP: Final = 2


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


def draw(table: Table, stream: Any) -> None:
    """A table on a terminal, by rich."""
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(title=table.title, title_justify="left", title_style="bold", box=None)
    for column in table.columns:
        drawn.add_column(
            column, justify="right" if column in table.right else "left", overflow="fold"
        )
    for row in table.rows:
        # Text, not str: names of the tracee's are no markup.
        drawn.add_row(*(Text(cell) for cell in row))
    Console(file=stream, highlight=False).print(drawn)


class LedgerRenderer:
    """Says nothing until the end, then the tables.

    ``always``: even for a trace in which no BPF object was made (-c).
    """

    def __init__(self, out: IO[str], stream: IO[str], model: Model, always: bool) -> None:
        self.out = out
        self.stream = stream
        self.model = model
        self.always = always
        self.counts = Counts()

    def header(self, header: Header) -> None:
        """Nothing."""

    def fact(self, kind: str, key: int, name: str) -> None:
        """Nothing."""

    def call(self, call: Call) -> None:
        """Counted."""
        self.counts.call(call)

    def attachment(self, told: Attachment) -> None:
        """The model has it."""

    def process(self, event: ProcessEvent) -> None:
        """Nothing."""

    def end(self, status: dict[str, Any]) -> None:
        """The tables."""
        made = any(found.call is not None for found in self.model.objects.values())
        if not (self.always or made):
            return
        colours = wants_colour(self.stream)
        for table in tables(self.model, self.counts):
            self.out.write("\n")
            if colours:
                self.out.flush()
                draw(table, self.stream)
            else:
                self.out.write("\n".join(plain_lines(table)) + "\n")
        self.out.flush()
