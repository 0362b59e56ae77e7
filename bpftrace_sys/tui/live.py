"""The browser while the program runs: its terminal in a pane, and what becomes of it at the end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Sequence
from typing import ClassVar, Final

from textual import events
from textual.binding import Binding, BindingType

from bpftrace_sys.tui.app import Browser
from bpftrace_sys.tui.dialogs import Question
from bpftrace_sys.tui.keeper import Kept
from bpftrace_sys.tui.painted import Palette
from bpftrace_sys.tui.panes import Pane
from bpftrace_sys.tui.reading import LiveReading
from bpftrace_sys.tui.typescript import Typescript

OFTEN: Final = 0.1
"""Seconds between two looks at the trace, when nothing else happens."""
MESSAGES: Final = 64
"""Messages of the keeper that are taken at once: the keyboard is to have its turn."""
LEAVE: Final = "ctrl+right_square_bracket"
"""Ends typing, as in telnet."""
KEYS: Final = {
    "enter": b"\r", "backspace": b"\x7f", "tab": b"\t", "escape": b"\x1b", "delete": b"\x1b[3~",
    "up": b"\x1b[A", "down": b"\x1b[B", "right": b"\x1b[C", "left": b"\x1b[D",
    "home": b"\x1b[H", "end": b"\x1b[F",
}  # fmt: skip
"""Keys that are no characters, as terminals send them."""


class OutputPane(Pane):
    """What the program writes; keys go to it while one types."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "type", "type"),
    ]
    MARKED = False

    def __init__(self, palette: Palette, id: str, kept: Kept) -> None:
        super().__init__(palette, id)
        self.script = Typescript()
        self.typing = False
        self.following = True
        self._kept = kept

    @property
    def count(self) -> int:
        return len(self.script.lines)

    def painted(self, at: int) -> str:
        return self.script.lines[at]

    def on_resize(self) -> None:
        """The program's terminal is as large; textual calls a Pane's own after this one."""
        region = self.scrollable_content_region
        if region.height:
            self.script.columns = region.width
            self._kept.size(region.height, region.width)

    def action_type(self) -> None:
        """Keys go to the program from now on."""
        self.typing = True
        self.border_subtitle = "typing to the program, Ctrl-] ends"
        self.app.refresh_bindings()

    def stop_typing(self) -> None:
        """Keys are ours again."""
        self.typing = False
        self.border_subtitle = ""
        self.app.refresh_bindings()

    def on_blur(self) -> None:
        """Who goes elsewhere types no longer."""
        self.stop_typing()

    def on_key(self, event: events.Key) -> None:
        """A key for the program."""
        if not self.typing:
            return
        event.stop()
        event.prevent_default()
        if event.key == LEAVE:
            self.stop_typing()
            return
        data = KEYS.get(event.key)
        if data is None and event.character:
            data = event.character.encode("utf-8", "replace")
        if data:
            self._kept.type(data)

    def on_paste(self, event: events.Paste) -> None:
        """Text for the program."""
        if self.typing:
            event.stop()
            self._kept.type(event.text.encode("utf-8", "replace"))


class LiveBrowser(Browser):
    """Shows a trace while it is made."""

    CSS = Browser.CSS + """
    #output { height: 3fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("5", "pane('output')", "the program's output", show=False),
    ]

    def __init__(
        self, kept: Kept, path: str, about: str, attached: bool = False, filter: str = ""
    ) -> None:
        """``about``: what is traced. ``attached``: it was there before (-p), and is let go."""
        self.live = LiveReading(path)
        super().__init__(self.live, path, filter)
        self.kept = kept
        self.about = about
        self.output = OutputPane(self.palette, "output", kept)
        self.left_running = False
        """Somebody went, and let it run."""
        self.let_go = False
        """Somebody detached from what was there before."""
        self._attached = attached
        self._going = False
        """Somebody wants to go when it has ended."""
        self.calls.following = True

    def lists(self) -> Sequence[Pane]:
        return (*super().lists(), self.output)

    def panes(self) -> Sequence[Pane]:
        return (*super().panes(), self.output)

    def on_mount(self) -> None:
        """Hears the keeper; textual calls a Viewer's own after this one."""
        asyncio.get_running_loop().add_reader(self.kept.connection, self._hear)

    def on_unmount(self) -> None:
        """Nobody hears the keeper any more."""
        self._deaf()

    def _deaf(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            asyncio.get_running_loop().remove_reader(self.kept.connection)

    def _hear(self) -> None:
        """What the program wrote, and that it has ended."""
        before = self.kept.status
        wrote = False
        for _ in range(MESSAGES):
            data = self.kept.receive()
            if data is None:
                self._deaf()
                break
            if not data:
                break
            self.output.script.feed(data)
            wrote = True
        if wrote:
            self.output.fresh()
        if before is None and self.kept.status is not None:
            self.live.over = True
            self.wake()

    async def _wait(self) -> None:
        if self.reading.done:
            if self._going:
                self.exit()
            await self._wake.wait()
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), OFTEN)

    def show(self) -> None:
        """What is told of an object changes, too, while one looks at it."""
        super().show()
        if self._shown_from is self.objects and self.focused is not self.detail:
            self.show_details(stay=True)

    def state(self) -> str:
        """How far the program is."""
        if self.reading.done and not self.reading.damage:
            return super().state()
        if not self.reading.done:
            return "ending" if self._going else "running"
        return self.reading.damage

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if self.output.typing and self.focused is self.output:
            return False
        return super().check_action(action, parameters)

    async def action_quit(self) -> None:
        """Asks what is to become of a program that runs."""
        if self.reading.done:
            self.exit()
            return
        again = self._going
        if self._attached:
            text = f"{self.about} is traced.\n\nd  detach from it, and go\nEsc  stay"
            keys = "d"
        else:
            text = (
                f"{self.about} runs.\n\n"
                "d  go, and let it run: it is traced until it ends\n"
                f"e  end it{' (asked for already)' if again else ''}: SIGTERM, and go when it has\n"
                "k  kill it, and go\nEsc  stay"
            )
            keys = "dek"
        self.push_screen(Question(text, keys), self._quit)

    def _quit(self, answer: str | None) -> None:
        if answer == "d" and not self._attached:
            self.left_running = True
            self.exit()
        elif answer == "d":
            self._going = self.let_go = True
            self.kept.signal(signal.SIGINT)
        elif answer == "e":
            self._going = True
            self.kept.end()
        elif answer == "k":
            self._going = True
            self.kept.kill()
        self.wake()


LiveBrowser.KEYED = (Browser, LiveBrowser, OutputPane, Pane)
