#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Makes the pictures of docs/gallery.md from the fixtures.

    tools/gallery.py            all of them, into docs/gallery/
    tools/gallery.py NAME...    these
    tools/gallery.py --list     their names

Text is what bpfstrace prints on a terminal, as SVG; so is the browser in it, by textual. Pages are
opened in Chromium without a window (Debian's chromium and chromium-driver). Nothing is drawn by
hand, so run it again when output or page have changed, and look at what came of it. A picture takes
some seconds.

Exit code: 0, 1 when the pictures are larger than they may be together, 2 for a wrong name.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import venv_python  # noqa: E402

venv_python.needs("rich", "construct")

from rich._export_format import CONSOLE_SVG_FORMAT  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.terminal_theme import TerminalTheme  # noqa: E402
from rich.text import Text  # noqa: E402

from tests.support.browser import Browser  # noqa: E402
from tests.support.browsing import Browsing, browse  # noqa: E402
from tests.support.running import run_cli  # noqa: E402
from tests.support.terminal import on_terminal  # noqa: E402

PICTURES = REPO / "docs" / "gallery"
LIMIT = 1_500_000
"""Bytes of all pictures together: they are cloned with the source."""
COLUMNS = 100
PAD = 10
"""Pixels around what is pictured of a page."""
THEME = TerminalTheme(
    (15, 19, 24),
    (223, 230, 238),
    [(40, 48, 58), (255, 138, 128), (101, 209, 154), (220, 191, 115),
     (125, 177, 255), (201, 162, 245), (116, 199, 232), (223, 230, 238)],
    [(125, 138, 153), (255, 138, 128), (101, 209, 154), (232, 182, 89),
     (125, 177, 255), (201, 162, 245), (116, 199, 232), (255, 255, 255)],
)  # fmt: skip
"""The colours of the page in the dark."""
# rich would fetch a font; a picture in a page may fetch nothing.
SVG = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.S).replace(
    "Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono"
)


class Told(NamedTuple):
    """A text picture: what is typed, and from which line to which (patterns; empty: all)."""

    name: str
    title: str
    words: tuple[str, ...]
    begin: str = ""
    end: str = ""


class Shown(NamedTuple):
    """A picture of a page: which trace (two: what differs), what of it, how wide."""

    name: str
    traces: tuple[str, ...]
    query: str
    """What of the page, as a CSS selector; several are one rectangle around all."""
    width: int = 1120
    anchor: str = ""
    dark: bool = False
    prepare: str = ""
    """Script that unfolds something."""


class Browsed(NamedTuple):
    """A picture of the browser in the terminal: which trace, how large, which keys were pressed."""

    name: str
    title: str
    trace: str
    size: tuple[int, int]
    keys: tuple[str, ...]


ROWS: tuple[Told | Shown | Browsed, ...] = (
    Told("text-listing", "bpfstrace -f ./hello.py", ("replay", "-q", "bcc-kprobe-hello"),
         r"bpf\(BPF_PROG_LOAD, \{", r"= 4<prog hello_world"),
    Told("text-attach", "bpfstrace -f ./hello.py", ("replay", "-q", "bcc-kprobe-hello"),
         r"^attached", r"^  given"),
    Told("text-refused", "bpfstrace bpftool prog load reject.o /sys/fs/bpf/reject",
         ("replay", "-q", "verifier-reject"), r"log_buf=\"\"\"", r"^ +with R0"),
    Told("text-tables", "bpfstrace -f -c tcpconnect", ("replay", "-c", "libbpf-tcpconnect")),
    Told("text-diff", "bpfstrace diff old.jsonl.gz new.jsonl.gz",
         ("diff", "bpftool-loadall-o1", "bpftool-loadall")),
    Shown("page-head", ("libbpf-tcpconnect",), ".lead, #graph, #timeline"),
    Shown("page-program", ("bcc-kprobe-hello",), ".entry.prog"),
    Shown("page-refused", ("verifier-reject",), ".entry.prog"),
    Shown("page-attachments", ("bcc-kprobe-hello",), "#attachments"),
    Shown("page-jumps", ("libbpf-opensnoop",), ".entry.prog", dark=True),
    Shown("page-calls", ("libbpf-tcpconnect",), "#calls", anchor="?q=obj:events", prepare=
          "document.querySelectorAll('#list .call')[4].open = true"),
    Shown("page-diff", ("bpftool-loadall-o1", "bpftool-loadall"), "main"),
    Shown("page-narrow", ("verifier-reject",), ".lead, #graph, #timeline, .entry.prog", width=400,
          dark=True),
    Browsed("tui-panes", "bpfstrace tui trace.jsonl.gz", "libbpf-tcpconnect", (124, 36),
            ("2", "down")),
)  # fmt: skip
HEIGHT = 1100
"""Pixels of a page that are pictured at most."""


def trace(name: str) -> str:
    """A fixture's recording."""
    return str(REPO / "fixtures" / name / "trace.jsonl.gz")


def told(row: Told) -> str:
    """What a command prints on a terminal, as SVG."""
    fixtures = {path.name for path in (REPO / "fixtures").iterdir()}
    words = [trace(word) if word in fixtures else word for word in row.words]
    env = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(REPO)}
    env.pop("NO_COLOR", None)
    _, text = on_terminal(
        [sys.executable, "-m", "bpftrace_sys", *words], columns=COLUMNS, env=env
    )
    text = text.replace(f"{REPO}/fixtures/", "")
    lines = list(_between(text.rstrip("\n").split("\n"), row.begin, row.end))
    width = max(len(re.sub("\x1b\\[[0-9;]*m", "", line)) for line in lines)
    console = Console(record=True, width=width + 1, file=io.StringIO())
    # The last line's descenders would be cut off.
    console.print(Text.from_ansi("\n".join([*lines, ""])))
    return console.export_svg(
        title=row.title, theme=THEME, code_format=SVG, unique_id=row.name
    )


def _between(lines: list[str], begin: str, end: str) -> Iterator[str]:
    """Lines from one that matches to one that matches."""
    plain = [re.sub("\x1b\\[[0-9;]*m", "", line) for line in lines]
    first = next((at for at, line in enumerate(plain) if re.search(begin, line)), 0) if begin else 0
    # A call of the same kind may come before the one that ends as wanted.
    if end:
        last = next((at for at in range(first, len(plain)) if re.search(end, plain[at])), first)
        if begin:
            first = max(at for at in range(first, last + 1) if re.search(begin, plain[at]))
        yield from lines[first : last + 1]
    else:
        yield from lines[first:]


def browsed(row: Browsed) -> str:
    """The browser in the terminal, as SVG."""
    found: list[str] = []

    async def script(open_browser: Browsing) -> None:
        await open_browser.keys(*row.keys)
        found.append(open_browser.app.export_screenshot(title=row.title, simplify=True))

    browse(Path(trace(row.trace)), script, row.size)
    # textual's frame fetches a font, too, and numbers its parts by chance.
    text = re.sub(r"@font-face \{.*?\}", "", found[0], flags=re.S)
    text = text.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")
    return re.sub(r"terminal-\d+", row.name, text)


def shown(row: Shown, browser: Browser, folder: Path) -> bytes:
    """A part of a page, as PNG."""
    page = folder / "page.html"
    command = ["report", "-o"] if len(row.traces) == 1 else ["diff", "-q", "--report"]
    run_cli(*command, str(page), *map(trace, row.traces), cwd=REPO)
    browser.size(row.width, 1000)
    browser.scheme("dark" if row.dark else "light")
    browser.load(page, row.anchor)
    browser.until("document.documentElement.dataset.ready")
    if row.prepare:
        browser.js(row.prepare)
    # What is above the window is drawn later than what is in it.
    whole = int(browser.js("return document.documentElement.scrollHeight"))
    browser.size(row.width, min(whole, 12_000))
    browser.js("return new Promise(done => setTimeout(done, 400))")
    left, top, right, bottom = browser.js(
        "const boxes = [...document.querySelectorAll(arguments[0])].slice(0, 4)"
        ".map(one => one.getBoundingClientRect());"
        "return [Math.min(...boxes.map(b => b.left)), Math.min(...boxes.map(b => b.top)),"
        "        Math.max(...boxes.map(b => b.right)), Math.max(...boxes.map(b => b.bottom))]"
        ".map((at, side) => at + (side < 2 ? scrollX : scrollY) * (side % 2))",
        row.query,
    )
    clip = {
        "x": max(0, left - PAD),
        "y": max(0, top - PAD),
        "width": min(row.width, right - left + 2 * PAD),
        "height": min(HEIGHT, bottom - top + 2 * PAD),
        "scale": 1,
    }
    found = browser.devtools(
        "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True
    )
    return base64.b64decode(found["data"])


def main() -> int:
    """Makes the pictures; returns the exit code."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args()
    if given.list:
        print("\n".join(names))
        return 0
    wrong = set(given.names) - set(names)
    if wrong:
        print(f"gallery: no picture is called {', '.join(sorted(wrong))}", file=sys.stderr)
        return 2
    PICTURES.mkdir(exist_ok=True)
    wanted = [row for row in ROWS if not given.names or row.name in given.names]
    for row in wanted:
        if not isinstance(row, Shown):
            text = told(row) if isinstance(row, Told) else browsed(row)
            (PICTURES / f"{row.name}.svg").write_text(text, encoding="utf-8")
    pages = [row for row in wanted if isinstance(row, Shown)]
    if pages:
        with Browser() as browser, tempfile.TemporaryDirectory() as folder:
            for page in pages:
                (PICTURES / f"{page.name}.png").write_bytes(shown(page, browser, Path(folder)))
    size = sum(path.stat().st_size for path in PICTURES.iterdir())
    print(f"gallery: {len(wanted)} pictures, {size:,} bytes together")
    return 1 if size > LIMIT else 0


if __name__ == "__main__":
    raise SystemExit(main())
