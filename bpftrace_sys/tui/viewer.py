"""The screen: panes, how they are laid out, how they fill while a trace is read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Final

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.geometry import Size
from textual.widgets import Footer, Input, Static

from bpftrace_sys.common import BpfstraceError
from bpftrace_sys.common.escape import printable
from bpftrace_sys.render.html.head import attached_to
from bpftrace_sys.render.html.quantities import count
from bpftrace_sys.tui.details import Details, Line
from bpftrace_sys.tui.lists import CallsPane, ObjectsPane, TiesPane
from bpftrace_sys.tui.painted import Palette
from bpftrace_sys.tui.panes import DetailPane, Pane
from bpftrace_sys.tui.reading import Reading
from decoders.events import Ending

SLICE: Final = 0.03
"""Seconds of reading between two looks at the keyboard."""
SHOWN: Final = 0.25
"""Seconds between two changes of the lists while reading."""
WIDE: Final = 110
"""Columns from which on lists and details stand beside each other."""
TALL: Final = 30
TITLES: Final = {"calls": "1 Calls", "objects": "2 Objects", "ties": "3 Attachments",
                 "details": "4 Details", "output": "5 Output"}  # fmt: skip


class Viewer(App[None]):
    """Shows a trace that is being read; what keys do, a Browser adds."""

    TITLE = "bpfstrace"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #title { height: 1; background: $panel; color: $text; padding: 0 1; }
    #body { layout: horizontal; height: 1fr; }
    #lists { width: 1fr; height: 100%; }
    #details { width: 1fr; height: 100%; }
    #calls { height: 5fr; }
    #objects { height: 3fr; }
    #ties { height: 2fr; }
    .narrow #body { layout: vertical; }
    .narrow #lists { width: 100%; height: 2fr; }
    .narrow #details { width: 100%; height: 3fr; }
    .narrow #lists Pane { display: none; height: 1fr; }
    .narrow #lists Pane.active { display: block; }
    .zoomed #lists { display: none; }
    .zoomed-list #details { display: none; }
    .zoomed-list #lists Pane { display: none; }
    .zoomed-list #lists Pane.active { display: block; height: 1fr; }
    #ask { display: none; height: 1; }
    #ask.open { display: block; }
    #ask Static { width: auto; padding: 0 1; background: $accent; color: $text; }
    #ask Input { width: 1fr; border: none; height: 1; padding: 0 1; }
    """
    def __init__(self, reading: Reading, path: str, filter: str = "") -> None:
        super().__init__()
        self.animation_level = "none"
        self.reading = reading
        self.path = path
        """The trace's file, to be read again for an export."""
        self.book = reading.book
        self.details = Details(self.book)
        palette = Palette(self.book.marks.names)
        self.calls = CallsPane(palette, "calls", self.details)
        self.objects = ObjectsPane(palette, "objects", self.details)
        self.ties = TiesPane(palette, "ties", self.details)
        self.detail = DetailPane(palette, "details")
        self.palette = palette
        self.about = ""
        """What is traced, until the trace says it."""
        self.trouble = ""
        """Why it had to end."""
        self.settled = asyncio.Event()
        """All that is there was read, sifted and shown."""
        self._first_filter = filter
        self._wake = asyncio.Event()
        self._shown_from: Pane = self.calls
        """The list whose line the details are of."""
        self._told_of: tuple[str, object] | None = None
        """What the details are of."""
        self.slice, self.pause = SLICE, SHOWN
        self._due = 0.0

    # ------------------------------------------------------------ layout

    def compose(self) -> ComposeResult:
        """Title, lists, details, a line for questions, keys."""
        yield Static(id="title", markup=False)
        with Container(id="body"):
            with Vertical(id="lists"):
                yield from self.lists()
            yield self.detail
        with Horizontal(id="ask"):
            yield Static(id="what", markup=False)
            yield Input(id="answer")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        """Begins to read."""
        for pane in self.panes():
            pane.border_title = TITLES[str(pane.id)]
        self.calls.add_class("active")
        self.calls.focus()
        if self._first_filter:
            self.calls.filter(self._first_filter)
        self._arrange(self.size)
        self.run_worker(self._work(), exit_on_error=True)

    def on_resize(self, event: events.Resize) -> None:
        """Beside each other, or one above the other."""
        self._arrange(event.size)

    def _arrange(self, size: Size) -> None:
        self.screen.set_class(size.width < WIDE or size.height < TALL, "narrow")
        self._name_panes()

    def _name_panes(self) -> None:
        narrow = self.screen.has_class("narrow")
        others = " · ".join(TITLES[str(pane.id)] for pane in self.lists())
        for pane in self.lists():
            name = TITLES[str(pane.id)]
            pane.border_title = others.replace(name, name.upper()) if narrow else name

    def lists(self) -> Sequence[Pane]:
        """What stands beside or above the details."""
        return (self.calls, self.objects, self.ties)

    def panes(self) -> Sequence[Pane]:
        """In the order of their numbers."""
        return (self.calls, self.objects, self.ties, self.detail)

    def told(self, pane: Pane) -> bool:
        """Whether the details are of what the cursor of a pane is on."""
        return pane is self.calls or pane is self.objects or pane is self.ties

    # ------------------------------------------------------------ reading

    async def _work(self) -> None:
        """Reads and sifts a little at a time, and shows it."""
        fresh = True
        while True:
            try:
                busy = self.reading.read(self.slice)
            except BpfstraceError as error:
                self.trouble = str(error)
                self.exit(return_code=2)
                return
            busy = self.calls.sift(self.slice) or busy
            now = time.monotonic()
            fresh = fresh or busy
            if fresh and (not busy or now >= self._due):
                self._due = now + self.pause
                self.show()
                fresh = False
            if busy:
                await asyncio.sleep(0)
                continue
            self.settled.set()
            self._wake.clear()
            await self._wait()
            self.settled.clear()

    async def _wait(self) -> None:
        """Until there may be something to do."""
        await self._wake.wait()

    def wake(self) -> None:
        """There is something to do."""
        self.settled.clear()
        self._wake.set()

    def show(self) -> None:
        """The lists as they are by now."""
        self.book.fresh()
        self.objects.renew()
        self.ties.renew()
        self.calls.fresh()
        self._tell()
        if self._subject() != self._told_of:
            self.show_details()

    def _tell(self) -> None:
        """The title, and how much is in each list."""
        report = self.book.report
        head = report.argv or self.about or attached_to(report)
        words = [self.state(), count(report.calls, "call")]
        if report.failed:
            words.append(f"{report.failed:,} failed")
        told = " · ".join(word for word in words if word)
        room = self.size.width - len(told) - 5
        if len(head) > room:
            head = head[: max(room - 3, 0)] + "..."
        title = Text.assemble((head, "bold"), "  ", (told, "dim"))
        self.query_one("#title", Static).update(title)
        filtered = f"{self.calls.count:,} of {len(self.book.rows):,}"
        self.calls.border_subtitle = filtered if self.calls.sieve else f"{self.calls.count:,}"
        self.objects.border_subtitle = f"{self.objects.count:,}"
        self.ties.border_subtitle = f"{self.ties.count:,}"

    def state(self) -> str:
        """How far the trace is."""
        reading = self.reading
        if not reading.done:
            part = reading.part
            return "reading" if part is None else f"reading {part:.0%}"
        if reading.damage:
            return "damaged: what stood before is shown"
        return ended(self.book.report.ending)

    # ------------------------------------------------------------ details

    def on_pane_moved(self, message: Pane.Moved) -> None:
        """The details are those of the line under the cursor of a list."""
        if self.told(message.pane):
            self._shown_from = message.pane
            self.show_details()

    def on_descendant_focus(self) -> None:
        """The list that was gone to tells its details."""
        pane = self.focused
        if isinstance(pane, Pane) and pane is not self.detail and pane in self.panes():
            if pane is not self._shown_from and self.told(pane):
                self._shown_from = pane
                self.show_details()
            for other in self.panes():
                other.set_class(other is pane, "active")

    def show_details(self, stay: bool = False) -> None:
        """Of what the list's cursor is on."""
        self._told_of = self._subject()
        self.detail.show(self._lines(), stay)

    def _subject(self) -> tuple[str, object]:
        """What the cursor of the list is on."""
        pane = self._shown_from
        if pane is self.objects:
            return "object", self.objects.entry and self.objects.entry.key
        if pane is self.ties:
            return "tie", self.ties.cursor if self.ties.count else None
        return "call", self.calls.place

    def _lines(self) -> Iterator[Line]:
        pane = self._shown_from
        if pane is self.objects and self.objects.entry is not None:
            return self.details.entry(self.objects.entry)
        if pane is self.ties and self.ties.group is not None:
            return self.details.attachment(self.ties.group)
        row = self.calls.row if pane is self.calls else None
        return iter(()) if row is None else self.details.call(row)

    # ------------------------------------------------------------ faults

    def _fatal_error(self) -> None:
        """Nothing of a fault's surroundings is printed; the fault is said afterwards."""
        self._close_messages_no_wait()

    @property
    def fault(self) -> BaseException | None:
        """What nobody foresaw."""
        return self._exception


def ended(ending: Ending | None) -> str:
    """How a program ended, in words."""
    if ending is None:
        return ""
    if ending.error:
        return f"ended: {printable(ending.error)[:200]}"
    if ending.signal is not None:
        return f"ended by signal {ending.signal}"
    return "ended" if ending.code is None else f"exited with {ending.code}"
