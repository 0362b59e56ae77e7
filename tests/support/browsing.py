"""A trace in the browser of ``bpfstrace tui``, with keys pressed and nothing waited for by time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from textual.pilot import Pilot
from textual.widgets import Input

from bpftrace_sys.render.html.painting import unmarked
from bpftrace_sys.trace.reader import Reader
from bpftrace_sys.tui.app import Browser
from bpftrace_sys.tui.panes import Pane
from bpftrace_sys.tui.reading import FileReading

WIDE = (120, 40)
NARROW = (80, 24)


class Browsing:
    """An open browser."""

    def __init__(self, app: Browser, pilot: Pilot[None]) -> None:
        self.app = app
        self._pilot = pilot

    async def keys(self, *keys: str) -> None:
        """Presses keys, and waits until all that they lead to has happened."""
        for key in keys:
            await self._pilot.press(key)
            await self.settled()

    async def go(self, pane: Pane, at: int) -> None:
        """The cursor of a pane goes to a line."""
        pane.go(at)
        await self._pilot.pause()

    async def type(self, text: str) -> None:
        """Answers the question that is asked."""
        self.app.query_one("#answer", Input).value = text
        await self.keys("enter")

    async def settled(self) -> None:
        """Until all is read, sifted and shown, and what was searched is found."""
        await self.app.settled.wait()
        await self._done("search")
        await self._pilot.pause()

    async def exported(self) -> None:
        """Until an export has been written."""
        await self._done("export")
        await self.settled()

    async def _done(self, name: str) -> None:
        workers = self.app.workers
        busy = [worker for worker in workers if worker.name == name]
        if busy:
            await workers.wait_for_complete(busy)

    async def resize(self, width: int, height: int) -> None:
        """Another size of the terminal."""
        await self._pilot.resize_terminal(width, height)
        await self.settled()

    def lines(self, pane: Pane) -> list[str]:
        """What stands in a pane, as text."""
        return [unmarked(pane.painted(at)).rstrip() for at in range(pane.count)]

    def screen(self) -> list[str]:
        """What stands on the screen."""
        app = self.app
        lines = app.screen._compositor.render_strips()
        return [strip.text for strip in lines]

    def detail(self) -> str:
        """All details as text."""
        return self.app.detail.whole()


Script = Callable[[Browsing], Awaitable[None]]


def browse(path: Path, script: Script, size: tuple[int, int] = WIDE, filter: str = "") -> Browser:
    """Opens a trace, runs a script, and gives what was open."""

    async def run() -> Browser:
        reader = Reader(str(path))
        reading = FileReading(reader)
        app = Browser(reading, str(path), filter)
        async with app.run_test(size=size) as pilot:
            open_browser = Browsing(app, pilot)
            await open_browser.settled()
            await script(open_browser)
        return app

    return asyncio.run(run())
