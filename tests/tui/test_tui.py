"""The browser in the terminal: what it shows of recordings, and the ways between panes."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path

import pytest

import bpftrace_sys
from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.render.html.painting import unmarked
from bpftrace_sys.trace.reader import Reader
from bpftrace_sys.tui.app import Browser
from bpftrace_sys.tui.details import Details
from bpftrace_sys.tui.entries import entries, tie_groups
from bpftrace_sys.tui.keys import key_rows
from bpftrace_sys.tui.live import LiveBrowser
from bpftrace_sys.tui.painted import Palette, wrapped
from bpftrace_sys.tui.panes import ListPane
from bpftrace_sys.tui.reading import FileReading
from tests.support.browsing import NARROW, WIDE, Browsing, browse
from tests.support.hostile import looped
from tests.support.rewriting import recording
from tests.support.running import FIXTURES, ROOT, run_cli
from tests.support.terminal import commands

NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/trace.jsonl.gz"))
EXECSNOOP = recording("libbpf-execsnoop")


async def _nothing(_: Browsing) -> None:
    pass


@pytest.mark.parametrize("name", NAMES)
def test_all_of_a_recording_is_listed(name: str) -> None:
    """Against the API, which reads the same trace on a way of its own."""
    trace = bpftrace_sys.open_trace(recording(name))
    reader = Reader(str(recording(name)))
    reading = FileReading(reader)
    while reading.read(60):
        pass
    results = [
        (call.seq, call.errno or ("?" if call.result is None else str(call.result)))
        for call in trace
    ]
    assert [(row.seq, row.result) for row in reading.book.rows] == results
    reading.book.fresh()
    listed = entries(reading.book.report)
    loads = {entry.program.seq for entry in listed if entry.program}
    loads |= {seq for entry in listed if entry.program for seq in entry.program.attempts}
    assert {program.seq for program in trace.programs if program.seq} <= loads
    assert sum(entry.kind == "map" for entry in listed) >= len(trace.maps)
    details = Details(reading.book)
    for entry in listed:
        assert list(details.entry(entry))
    for group in tie_groups(reading.book.report):
        assert list(details.attachment(group))
    for row in reading.book.rows:
        assert list(details.call(row))
    assert not reading.faults
    assert not reading.damage


def test_details_follow_the_cursor_and_lead_on() -> None:
    """From a call to its object, to the object's making, and back."""
    trace = bpftrace_sys.open_trace(EXECSNOOP)
    attach = next(iter(trace.calls("link_create", failed=False)))

    async def script(open_browser: Browsing) -> None:
        app = open_browser.app
        await open_browser.keys("f")
        await open_browser.type(f"seq:{attach.seq}")
        assert app.calls.count == 1
        assert open_browser.detail().startswith(f"#{attach.seq} ")
        # The link is made here; the program is one of the others.
        await open_browser.keys("m")
        choices = app.screen.query_one("#choice", ListPane)
        lines = [unmarked(choices.painted(at)) for at in range(choices.count)]
        at = next(at for at, line in enumerate(lines) if " prog " in f" {line}")
        await open_browser.keys(*["j"] * at, "enter")
        row = app.calls.row
        assert row is not None
        made = next(call for call in trace if call.seq == row.seq)
        assert made.command == "BPF_PROG_LOAD"
        assert str(row.seq) in lines[at]
        assert not app.calls.sieve, "the filter kept it out, and went"
        # Back is the filter and the call.
        await open_browser.keys("b")
        assert app.calls.sieve.text == f"seq:{attach.seq}"
        row = app.calls.row
        assert row is not None
        assert row.seq == attach.seq

    browse(EXECSNOOP, script)


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_all_of_a_line_is_seen(size: tuple[int, int]) -> None:
    """Wrapped details fit into their pane, scrollbar or not; so do the keys."""

    async def script(open_browser: Browsing) -> None:
        app = open_browser.app
        await open_browser.keys("2")
        for at in range(min(app.objects.count, 4)):
            await open_browser.go(app.objects, at)
            room = app.detail.scrollable_content_region.width
            assert max(len(line) for line in open_browser.lines(app.detail)) <= room
        await open_browser.keys("question_mark")
        keys = app.screen.query_one("#choice", ListPane)
        room = keys.scrollable_content_region.width
        assert max(len(line) for line in open_browser.lines(keys)) <= room

    browse(EXECSNOOP, script, size)


def test_from_a_map_to_its_uses() -> None:
    """The calls with an fd of the map, or whose program was loaded with it."""
    trace = bpftrace_sys.open_trace(EXECSNOOP)
    events = trace.maps["events"]
    updates = {
        call.seq for call in trace
        if any(fact.id == events.id and fact.kind == "map" for fact in call._call.raw.fds)
    }  # fmt: skip

    async def script(open_browser: Browsing) -> None:
        app = open_browser.app
        await open_browser.keys("2")
        at = next(
            at for at, line in enumerate(open_browser.lines(app.objects))
            if line.startswith("map") and f" {events.id} " in line
        )  # fmt: skip
        await open_browser.go(app.objects, at)
        assert "perf_event_array" in open_browser.detail()
        await open_browser.keys("u")
        assert {app.book.rows[place].seq for place in app.calls.places()} == updates
        assert app.focused is app.calls
        await open_browser.keys("m", "2", "m")
        row = app.calls.row
        assert row is not None
        assert row.seq == events.seq

    browse(EXECSNOOP, script)
    assert updates


def test_filters_are_those_of_the_api() -> None:
    path = recording("verifier-reject")
    trace = bpftrace_sys.open_trace(path)
    expected = {
        "cmd:prog_load": {call.seq for call in trace.calls("prog_load")},
        "-cmd:prog_load": {call.seq for call in trace if call.command != "BPF_PROG_LOAD"},
        "ret:eacces": {call.seq for call in trace if call.errno == errno_name(13)},
        f"pid:{next(iter(trace)).pid} seq:3": {3},
        "forgetful": {call.seq for call in trace if "forgetful" in json.dumps(call.json)},
        "is:failed": {call.seq for call in trace.calls(failed=True, probes=False)},
        "nothing of this": set(),
    }  # fmt: skip

    async def script(open_browser: Browsing) -> None:
        app = open_browser.app
        for words, seqs in expected.items():
            app.set_filter(words)
            await open_browser.settled()
            found = {app.book.rows[place].seq for place in app.calls.places()}
            if words == "forgetful":
                assert found <= seqs, words
                assert found, words
            else:
                assert found == seqs, words
        await open_browser.keys("escape")
        assert not app.calls.sieve
        await open_browser.keys("x")
        assert app.calls.count == len(expected["is:failed"])
        await open_browser.keys("x", "p")
        # What is known at the end: a call may turn out to be none, or one.
        assert app.calls.count == sum(not call.is_probe for call in list(trace))
        assert "of" in str(app.calls.border_subtitle)

    browse(path, script, filter="ret:EACCES")
    first = browse(path, _nothing, filter="ret:EACCES")
    assert first.calls.count == len(expected["ret:eacces"])


def test_search_goes_round() -> None:
    async def script(open_browser: Browsing) -> None:
        app = open_browser.app
        found = []
        await open_browser.keys("slash")
        await open_browser.type("link_create")
        seqs = [call.seq for call in bpftrace_sys.open_trace(EXECSNOOP).calls("link_create")]
        for _ in range(len(seqs) + 1):
            row = app.calls.row
            assert row is not None
            found.append(row.seq)
            await open_browser.keys("n")
        assert sorted(found[:-1]) == seqs
        assert found[-1] == found[0]
        await open_browser.keys("N")
        row = app.calls.row
        assert row is not None
        assert row.seq == found[0]
        await open_browser.keys("slash")
        await open_browser.type("nothing of this")
        assert app.calls.row == row
        assert [note.message for note in app._notifications] == [
            "nothing holds 'nothing of this' here"
        ]
        # In the details it is their text that is searched.
        await open_browser.keys("4", "slash")
        await open_browser.type("target_fd")
        line = app.detail.line
        assert line is not None
        assert "target_fd" in line.text

    browse(EXECSNOOP, script)


def test_a_refused_program_shows_why_and_where() -> None:
    refusal = bpftrace_sys.open_trace(recording("verifier-reject")).refusals[0]

    async def script(open_browser: Browsing) -> None:
        app = open_browser.app
        await open_browser.keys("2")
        entry = app.objects.entry
        assert entry is not None
        assert entry.program is not None
        assert entry.program.error == refusal.errno
        text = open_browser.detail()
        marked = next(line for line in text.split("\n") if line.startswith("X"))
        assert entry.program.rejected is not None
        assert f"{entry.program.rejected}:" in marked
        assert "invalid mem access" in text
        await open_browser.keys("m")
        row = app.calls.row
        assert row is not None
        assert row.seq == refusal.seq

    browse(recording("verifier-reject"), script)


def test_attachments_lead_to_their_steps() -> None:
    trace = bpftrace_sys.open_trace(recording("bcc-kprobe-hello"))
    told = trace.attachments[0]

    async def script(open_browser: Browsing) -> None:
        app = open_browser.app
        await open_browser.keys("3")
        assert told.target in unmarked(app.ties.painted(0))
        text = open_browser.detail()
        assert all(f"#{seq} " in text for seq in told.calls)
        await open_browser.keys("enter")
        assert app.focused is app.detail
        lines = open_browser.lines(app.detail)
        at = next(at for at, line in enumerate(lines) if f"#{told.calls[-1]} " in line)
        await open_browser.go(app.detail, at)
        await open_browser.keys("enter")
        row = app.calls.row
        assert row is not None
        assert row.seq == told.calls[-1]

    browse(recording("bcc-kprobe-hello"), script)


def test_a_narrow_terminal_shows_a_list_and_details() -> None:
    async def script(open_browser: Browsing) -> None:
        app = open_browser.app
        assert [pane.id for pane in app.panes() if pane.region.height] == ["calls", "details"]
        await open_browser.keys("tab")
        assert [pane.id for pane in app.panes() if pane.region.height] == ["objects", "details"]
        screen = open_browser.screen()
        assert len(screen) == 24
        assert all(len(line) <= 80 for line in screen)
        assert "quit" in screen[-1]
        await open_browser.keys("z")
        assert [pane.id for pane in app.panes() if pane.region.height] == ["objects"]
        await open_browser.keys("escape", "4", "z")
        assert [pane.id for pane in app.panes() if pane.region.height] == ["details"]
        await open_browser.resize(*WIDE)
        await open_browser.keys("escape")
        assert all(pane.region.height > 3 for pane in app.panes())

    browse(EXECSNOOP, script, size=NARROW)


def test_copies_are_text() -> None:
    async def script(open_browser: Browsing) -> None:
        app = open_browser.app
        await open_browser.keys("y")
        assert app.clipboard.startswith("bpf(BPF_PROG_LOAD, {")
        assert not commands(app.clipboard)
        await open_browser.keys("Y")
        assert app.clipboard.startswith("#1 ")

    browse(EXECSNOOP, script)


def test_an_export_is_a_trace(tmp_path: Path) -> None:
    """Of the calls that are shown and those that made what they use, each as it was."""
    target = tmp_path / "part.jsonl"
    trace = bpftrace_sys.open_trace(EXECSNOOP)
    whole = {call.seq: call.json for call in trace}
    updates = {call.seq for call in trace.calls("map_update_elem")}

    async def script(open_browser: Browsing) -> None:
        await open_browser.keys("f")
        await open_browser.type("cmd:map_update")
        await open_browser.keys("e")
        await open_browser.type(str(target))
        await open_browser.exported()

    browse(EXECSNOOP, script)
    part = bpftrace_sys.open_trace(target)
    calls = {call.seq: call for call in part}
    assert updates <= calls.keys()
    assert {call.command for seq, call in calls.items() if seq not in updates} <= {
        "BPF_MAP_CREATE", "BPF_BTF_LOAD", "perf_event_open"
    }
    for seq, call in calls.items():
        assert call.json["args"] == whole[seq]["args"]
    assert part.maps.names == [
        found.name for found in trace.maps if found.seq in calls
    ]
    assert target.stat().st_mode & 0o777 == 0o600
    assert run_cli("replay", str(target)).returncode == 0
    # It is not the whole trace, and nobody takes it for one.
    assert run_cli("diff", str(EXECSNOOP), str(target)).returncode == 2


def test_an_export_that_fails_says_so(tmp_path: Path) -> None:
    said: list[str] = []

    async def script(open_browser: Browsing) -> None:
        app = open_browser.app
        await open_browser.keys("e")
        await open_browser.type(str(tmp_path / "none" / "x"))
        await open_browser.exported()
        said.extend(note.message for note in app._notifications)

    browse(EXECSNOOP, script)
    assert any("cannot write" in text and "No such file" in text for text in said)


def test_a_damaged_trace_shows_what_stood_before(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    with gzip.open(EXECSNOOP, "rb") as file:
        data = file.read()
    path.write_bytes(data[: len(data) // 2])

    target = tmp_path / "part.jsonl"

    async def script(open_browser: Browsing) -> None:
        assert "damaged" in open_browser.screen()[0]
        # A part of it is whole, and says why there is no more; so it is while a program runs.
        await open_browser.keys("e")
        await open_browser.type(str(target))
        await open_browser.exported()

    app = browse(path, script)
    part = bpftrace_sys.open_trace(target)
    assert [call.seq for call in part] == [row.seq for row in app.book.rows]
    assert json.loads(target.read_text().splitlines()[-1])["type"] == "end"
    assert app.reading.damage
    assert 0 < app.calls.count < 53


def test_many_calls_are_listed_while_they_are_read(tmp_path: Path) -> None:
    """No widget a row: of a long list the lines are made that are seen."""
    path = looped(tmp_path / "looped.jsonl", 500, kinds=1)
    app = browse(path, _long)
    assert len(app.book.rows) == 500
    assert len(list(app.query("*"))) < 40


async def _long(open_browser: Browsing) -> None:
    app = open_browser.app
    await open_browser.keys("G")
    row = app.calls.row
    assert app.calls.cursor == 499
    assert row is not None
    assert row.subject
    assert str(row.seq) in "\n".join(open_browser.screen())
    app.set_filter(f"seq:{row.seq - 7}")
    await open_browser.settled()
    assert app.calls.count == 1
    assert open_browser.detail().startswith(f"#{row.seq - 7} ")


def test_the_screen_is_there_before_the_trace_is_read(tmp_path: Path) -> None:
    path = looped(tmp_path / "looped.jsonl", 300, kinds=1)
    seen: list[int] = []

    class Slow(Browser):
        def show(self) -> None:
            super().show()
            seen.append(len(self.book.rows))

    async def run() -> None:
        reader = Reader(str(path))
        reading = FileReading(reader)
        app = Slow(reading, str(path))
        # A slice ends at its first look at the clock, and what is there is shown.
        app.slice = app.pause = 0.0
        async with app.run_test():
            await app.settled.wait()

    asyncio.run(run())
    assert seen[-1] == 300
    assert len(set(seen)) > 5


def test_text_is_wrapped_by_cells() -> None:
    palette = Palette(["why"])
    text = "\ue001" + "名前 " * 40 + "\ue0ff end"
    lines = list(wrapped(text, 20, 4))
    shown = ["".join(segment.text for segment in palette.segments(line)) for line in lines]
    from rich.cells import cell_len

    assert max(map(cell_len, shown)) <= 20
    assert "".join(shown).replace(" ", "") == "名前" * 40 + "end"
    assert all(line.startswith("    ") for line in shown[1:])
    assert palette.segments("a\x1b[2Jb\ue0fe")[0].text == "a\\x1b[2Jb"


# ------------------------------------------------------------ documents


def test_all_keys_are_documented() -> None:
    """docs/tui.md and ``?`` name the same keys, those of the bindings."""
    text = (ROOT / "docs" / "tui.md").read_text()
    lines = text.partition("## Keys")[2].partition("## ")[0].split("\n")
    documented = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("| `")
    ]
    rows = dict(key_rows(*LiveBrowser.KEYED))
    assert {words[0].replace("`", ""): words[1].replace("`", "") for words in documented} == rows
