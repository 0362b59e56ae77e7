"""What lies in a trace: the browser shows it, and nothing of it steers a terminal."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
from rich.segment import Segment

from bpftrace_sys.trace.items import TraceError
from bpftrace_sys.trace.reader import Reader
from bpftrace_sys.tui.app import Browser
from bpftrace_sys.tui.details import Details
from bpftrace_sys.tui.entries import entries, tie_groups
from bpftrace_sys.tui.painted import Palette, wrapped
from bpftrace_sys.tui.panes import Pane
from bpftrace_sys.tui.reading import FileReading
from bpftrace_sys.tui.viewer import ended
from decoders.raw import RawCall
from decoders.records import replace
from tests.support.browsing import NARROW, WIDE, Browsing, browse
from tests.support.hostile import BIDI, MARKUP, hostile
from tests.support.rewriting import items, recording, save
from tests.support.running import ROOT
from tests.support.spoiling import spoil
from tests.support.terminal import commands


def _hostile_trace(path: Path) -> Path:
    """Names that steer a terminal, or are markup for rich and textual."""
    header, found = items(hostile(path))
    escape = "\x1b]0;pwned\x07\x1b[2J"
    words = f"[bold red]x[/][@click=app.quit]y[/]{escape}{BIDI}"
    header = replace(header, argv=[words, *header.argv], host=words)
    changed = [
        item.replace(comm=f"{words}c") if isinstance(item, RawCall) else item
        for item in found
    ]  # fmt: skip
    return save(path, header, changed)


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_hostile_names_are_inert(tmp_path: Path, size: tuple[int, int]) -> None:
    path = _hostile_trace(tmp_path / "hostile.jsonl")

    async def script(open_browser: Browsing) -> None:
        app = open_browser.app
        assert "[bold red]x" in "\n".join(open_browser.screen()), "as it stands, not as markup"
        for key in ("1", "2", "3"):
            await open_browser.keys(key)
            _look_around(app)
            await open_browser.settled()
            assert not commands("\n".join(open_browser.screen()))
        await open_browser.keys("1", "y")
        assert not commands(app.clipboard)
        await open_browser.keys("m", "escape")

    browse(path, script, size=size)
    assert MARKUP


def _look_around(app: Browser) -> None:
    """Goes down a list, and looks at all that is shown on the way."""
    pane = app.focused
    assert isinstance(pane, Pane)
    for line in range(min(pane.count, 8)):
        pane.go(line, tell=False)
        app.show_details()
        for shown in (pane, app.detail):
            for y in range(shown.size.height):
                _inert(list(shown.render_line(y)))
        for at in range(app.detail.count):
            _inert(app.palette.segments(app.detail.painted(at)))


def _inert(segments: list[Segment]) -> None:
    for segment in segments:
        assert segment.text.isprintable(), segment.text
        assert segment.control is None
        if segment.style is not None:
            assert segment.style.link is None
            assert "@click" not in segment.style.meta


LONG = {"extract_same_names.jsonl.gz", "diff_unnamed_a.jsonl.gz", "diff_unnamed_b.jsonl.gz"}
"""Thousands of the same refusal, for extract and diff: here they would only take long."""


@pytest.mark.parametrize("name", sorted(
    {path.name for path in (ROOT / "tests" / "hostile").glob("*.jsonl*")} - LONG))  # fmt: skip
def test_hostile_recordings_open(name: str) -> None:
    async def script(open_browser: Browsing) -> None:
        app = open_browser.app
        for key in ("1", "2", "3"):
            await open_browser.keys(key)
            _look_around(app)
        await open_browser.keys("4", "G")
        assert not commands("\n".join(open_browser.screen()))

    app = browse(ROOT / "tests" / "hostile" / name, script)
    assert not app.reading.faults
    assert not app.trouble


@pytest.mark.parametrize("name", ["verifier-reject", "bcc-kprobe-hello"])
def test_spoiled_lines_are_told_and_inert(name: str, tmp_path: Path) -> None:
    """Values that lie in any line, the header's and the end's, too."""
    dice = random.Random(name)
    with gzip.open(recording(name), "rt") as file:
        lines = [json.loads(line) for line in file]
    palette = Palette([])
    read = 0
    for _ in range(60):
        spoiled = json.loads(json.dumps(lines))
        for _ in range(dice.choice((1, 1, 3))):
            spoil(dice.choice(spoiled), dice)
        path = tmp_path / "spoiled.jsonl"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in spoiled))
        try:
            reading = FileReading(Reader(str(path)))
        except TraceError:
            continue
        while reading.read(60):
            pass
        read += len(reading.book.rows)
        assert not reading.faults
        book, details = reading.book, Details(reading.book)
        book.fresh()
        told = [line for entry in entries(book.report) for line in details.entry(entry)]
        told += [line for group in tie_groups(book.report) for line in details.attachment(group)]
        told += [line for row in book.rows for line in details.call(row)]
        for line in told:
            for piece in wrapped(line.text, 40, line.indent):
                _inert(palette.segments(piece))
        assert not commands(ended(book.report.ending))
    assert read > 10 * sum(line["type"] == "syscall" for line in lines)
