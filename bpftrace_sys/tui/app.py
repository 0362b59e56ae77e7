"""The browser: what keys do, and the ways from one pane to the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar, Final

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.widgets import Input, Static

from bpftrace_sys.common import BpfstraceError
from bpftrace_sys.common.escape import printable
from bpftrace_sys.render.html.quantities import count
from bpftrace_sys.tui.dialogs import Choice
from bpftrace_sys.tui.keys import key_lines
from bpftrace_sys.tui.panes import Pane
from bpftrace_sys.tui.reading import Reading
from bpftrace_sys.tui.saving import save
from bpftrace_sys.tui.viewer import Viewer
from decoders.records import NamedTuple

BACK: Final = 256
"""Places that are remembered."""


class Spot(NamedTuple):
    """Where somebody was."""

    pane: str
    filter: str
    cursors: tuple[int, ...]


class Browser(Viewer):
    """A Viewer with keys."""

    KEYED: ClassVar[tuple[type[DOMNode], ...]] = ()
    """Whose keys ``?`` lists."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "keys", "keys", key_display="?"),
        Binding("slash", "search", "search", key_display="/"),
        Binding("n", "again(1)", "the next that was searched", show=False),
        Binding("N", "again(-1)", "the one before that was searched", show=False),
        Binding("f", "filter", "filter"),
        Binding("x", "failed", "only calls that failed, or all", show=False),
        Binding("p", "probes", "without feature probes, or with them", show=False),
        Binding("m", "making", "making"),
        Binding("o", "object", "object"),
        Binding("u", "uses", "uses"),
        Binding("b,backspace", "return", "back"),
        Binding("e", "export", "export"),
        Binding("y", "copy", "copy the line, or the call as text", show=False),
        Binding("Y", "copy_all", "copy all details", show=False),
        Binding("z", "zoom", "zoom", show=False),
        Binding("tab", "next(1)", "the next pane", show=False, priority=True),
        Binding("shift+tab", "next(-1)", "the pane before", show=False, priority=True),
        Binding("1", "pane('calls')", "calls", show=False),
        Binding("2", "pane('objects')", "objects", show=False),
        Binding("3", "pane('ties')", "attachments", show=False),
        Binding("4", "pane('details')", "details", show=False),
        Binding("escape", "leave", "out of details, zoom, filter", show=False),
        Binding("q", "quit", "quit"),
        Binding("ctrl+q,ctrl+c", "quit", "quit", show=False),
    ]

    def __init__(self, reading: Reading, path: str, filter: str = "") -> None:
        super().__init__(reading, path, filter)
        self._spots: list[Spot] = []
        self._searched = ""
        self._asked: Callable[[str], None] | None = None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys are letters while a question is asked."""
        asked = self.query("#ask.open")
        return action in ("leave", "quit") or not asked

    # ------------------------------------------------------------ ways

    def on_pane_chosen(self, message: Pane.Chosen) -> None:
        """Into the details; from there where the line leads."""
        if message.pane is not self.detail:
            if self.told(message.pane):
                self.action_pane("details")
            return
        line = self.detail.line
        if line is None or (line.seq is None and line.thing is None):
            self.say("this line leads nowhere; lines with an object or a call's number do")
        elif line.seq is not None:
            self.to_call(line.seq)
        elif line.thing is not None:
            self.to_thing(line.thing)

    def say(self, text: str) -> None:
        """A message for a moment."""
        self.notify(printable(text), markup=False)

    def _spot(self) -> Spot:
        pane = self.focused
        name = str(pane.id) if isinstance(pane, Pane) else "calls"
        cursors = tuple(one.cursor for one in (self.calls, self.objects, self.ties))
        return Spot(name, self.calls.sieve.text, cursors)

    def _remember(self) -> None:
        self._spots = [*self._spots[1 - BACK :], self._spot()]

    def to_call(self, seq: int) -> None:
        """To a call, by its number."""
        place = self.book.place(seq)
        if place is None:
            self.say(f"call #{seq} is not listed")
            return
        self._remember()
        if not self.calls.show_place(place):
            self.calls.filter("")
            self.calls.show_place(place)
            self.say("the filter is off: it kept this call out")
        self.action_pane("calls")
        self._tell()

    def to_thing(self, number: int) -> None:
        """To an object, by its number."""
        self._remember()
        if not self.objects.show_thing(number):
            self.say("this object has no entry")
            return
        self.action_pane("objects")

    def _things(self) -> list[int]:
        """The objects that the line under the cursor is about."""
        if self.focused is self.detail and self.detail.line is not None:
            line = self.detail.line
            if line.thing is not None:
                return [line.thing]
        pane = self._shown_from
        if pane is self.objects and self.objects.entry is not None:
            thing = self.objects.entry.thing
            return [] if thing is None else [thing]
        if pane is self.ties and self.ties.group is not None:
            tie = self.ties.group.tie
            return [thing for thing in (tie.prog, tie.link) if thing is not None]
        row = self.calls.row if pane is self.calls else None
        return [] if row is None else row.things

    def _with_thing(self, then: Callable[[int], None]) -> None:
        """Does something with the object, or the one that is chosen."""
        things = self._things()
        if not things:
            self.say("no object is known here")
        elif len(things) == 1:
            then(things[0])
        else:
            lines = [
                f" {self.details.thing(number)}   {self.details.maker(number)}"
                for number in things
            ]

            def chosen(at: int | None) -> None:
                if at is not None:
                    then(things[at])

            self.push_screen(Choice(self.palette, "which of them?", lines), chosen)

    def action_making(self) -> None:
        """To the call that made the object."""
        entry = self.objects.entry if self._shown_from is self.objects else None
        if entry is not None and entry.thing is None and entry.program is not None:
            self.to_call(entry.program.seq)
            return

        def made(number: int) -> None:
            seq = self.book.made_by(number)
            if seq is None:
                self.say(self.details.maker(number))
            else:
                self.to_call(seq)

        self._with_thing(made)

    def action_object(self) -> None:
        """To the object in its list."""
        self._with_thing(self.to_thing)

    def action_uses(self) -> None:
        """The calls that have to do with the object."""

        def uses(number: int) -> None:
            self._remember()
            self.set_filter(f"obj:{self.book.report.page_objects[number].anchor}")
            self.action_pane("calls")

        self._with_thing(uses)

    def action_return(self) -> None:
        """To where somebody was before the last jump."""
        if not self._spots:
            self.say("there is no way back from here")
            return
        spot = self._spots.pop()
        if spot.filter != self.calls.sieve.text:
            self.set_filter(spot.filter)
            self.calls.sift(60)
        for pane, at in zip((self.calls, self.objects, self.ties), spot.cursors, strict=True):
            pane.go(at, tell=False)
        self.action_pane("calls" if spot.pane == "details" else spot.pane)
        self.show_details()

    # ------------------------------------------------------------ panes

    def action_pane(self, name: str) -> None:
        """To a pane."""
        pane = next(one for one in self.panes() if one.id == name)
        if pane is not self.detail:
            for other in self.panes():
                other.set_class(other is pane, "active")
        self.screen.remove_class("zoomed" if pane is not self.detail else "zoomed-list")
        pane.focus()

    def action_next(self, by: int) -> None:
        """To the next pane, or the one before."""
        names = [str(pane.id) for pane in self.panes()]
        focused = str(self.focused.id) if self.focused is not None else "calls"
        at = names.index(focused) if focused in names else 0
        self.action_pane(names[(at + by) % len(names)])

    def action_zoom(self) -> None:
        """The pane alone, or all."""
        name = "zoomed" if self.focused is self.detail else "zoomed-list"
        self.screen.toggle_class(name)

    def action_leave(self) -> None:
        """Out of what one is in."""
        if self.query_one("#ask").has_class("open"):
            self._close_ask()
        elif self.screen.has_class("zoomed") or self.screen.has_class("zoomed-list"):
            self.screen.remove_class("zoomed", "zoomed-list")
        elif self.focused is self.detail:
            self.action_pane(str(self._shown_from.id))
        elif self.calls.sieve:
            self.set_filter("")

    def action_keys(self) -> None:
        """The keys."""
        lines = [f" {text}" for text in key_lines(self.details.paint, self.KEYED)]
        self.push_screen(Choice(self.palette, "keys (Esc closes)", lines))

    # ------------------------------------------------------------ questions

    def ask(self, what: str, text: str, then: Callable[[str], None]) -> None:
        """Asks for a line of text."""
        self._asked = then
        self.query_one("#what", Static).update(Text(what))
        answer = self.query_one("#answer", Input)
        answer.value = text
        self.query_one("#ask").add_class("open")
        answer.focus()

    def _close_ask(self) -> None:
        self.query_one("#ask").remove_class("open")
        self._asked = None
        pane = self._shown_from if self._shown_from.display else self.detail
        pane.focus()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """The answer."""
        then = self._asked
        self._close_ask()
        if then is not None:
            then(message.value)

    def action_search(self) -> None:
        """Asks for what is searched in the pane."""
        pane = self.focused if isinstance(self.focused, Pane) else self._shown_from

        def search(text: str) -> None:
            self._searched = text
            self.action_pane(str(pane.id))
            self._seek(pane, 1)

        self.ask("search", "", search)

    def action_again(self, way: int) -> None:
        """The next that was searched."""
        pane = self.focused if isinstance(self.focused, Pane) else self._shown_from
        self._seek(pane, way)

    def _seek(self, pane: Pane, way: int) -> None:
        if self._searched:
            work = self._seeking(pane, self._searched, way)
            self.run_worker(work, "search", group="search", exclusive=True)

    async def _seeking(self, pane: Pane, text: str, way: int) -> None:
        """A search through many lines, in which keys are still heard: another one ends it."""
        for found in pane.seek(text, way):
            if found:
                return
            await asyncio.sleep(0)
        self.say(f"nothing holds {text!r} here")

    def action_filter(self) -> None:
        """Asks for words that calls have to match."""
        self.ask("filter", self.calls.sieve.text, self.set_filter)

    def set_filter(self, text: str) -> None:
        """Only calls that match."""
        self.calls.filter(text)
        self.wake()

    def _toggle(self, word: str) -> None:
        words = self.calls.sieve.text.split()
        words = [one for one in words if one != word] if word in words else [*words, word]
        self.set_filter(" ".join(words))
        self.action_pane("calls")

    def action_failed(self) -> None:
        """Only those that failed, or all."""
        self._toggle("is:failed")

    def action_probes(self) -> None:
        """Without feature probes, or with them."""
        self._toggle("-is:probe")

    # ------------------------------------------------------------ out of here

    def action_copy(self) -> None:
        """The line as text; of a call all its lines."""
        pane = self.focused
        if not isinstance(pane, Pane) or not pane.count:
            return
        row = self.calls.row if pane is self.calls else None
        text = pane.plain(pane.cursor) if row is None else self.details.as_text(row)
        self._copy(text)

    def action_copy_all(self) -> None:
        """All details as text."""
        self._copy(self.detail.whole())

    def _copy(self, text: str) -> None:
        self.copy_to_clipboard(text)
        lines = count(text.count("\n") + 1, "line")
        self.say(f"{lines} given to the terminal's clipboard")

    def action_export(self) -> None:
        """Writes calls as a trace of their own."""
        seqs = self._chosen()

        def write(output: str) -> None:
            if output.strip():
                self.run_worker(lambda: self._export(seqs, output.strip()), "export", thread=True)

        self.ask(f"{count(len(seqs), 'call')} as a trace to", "", write)

    def _chosen(self) -> set[int]:
        """The calls of the pane: those the filter lets through, or of the object or attachment;
        and those that made what they use."""
        rows = self.book.rows
        pane = self._shown_from
        if pane is self.ties and self.ties.group is not None:
            found = {seq for _, _, seq in self.ties.group.tie.steps}
        elif pane is self.objects and self.objects.entry is not None:
            entry = self.objects.entry
            found = {row.seq for row in rows if entry.thing in row.things}
            if entry.program is not None and entry.program.seq:
                found |= {entry.program.seq, *entry.program.attempts}
        else:
            found = {rows[place].seq for place in self.calls.places()}
        return self.book.with_makers(found)

    def _export(self, seqs: set[int], output: str) -> None:
        try:
            done = save(self.path, seqs, output)
        except (BpfstraceError, OSError) as error:
            self.call_from_thread(self.say, str(error))
            return
        self.call_from_thread(self.say, f"{count(done, 'call')} written to {output}")


Browser.KEYED = (Browser, Pane)
