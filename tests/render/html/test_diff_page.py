"""Diff pages: they say what the JSON of the same diff says, and are as inert as reports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.render.html import diff_page
from tests.render.html.test_browser import browser as browser
from tests.render.html.test_browser import load
from tests.support.browser import Browser
from tests.support.hostile import hostile
from tests.support.pages import Parsed, assert_inert
from tests.support.rewriting import recording
from tests.support.running import run_cli

PAIRS = [
    ("bpftool-loadall-o1", "bpftool-loadall"),
    ("libbpf-opensnoop", "libbpf-execsnoop"),
    ("bcc-kprobe-hello", "bcc-tracepoint"),
    ("xdp-attach", "xdp-link"),
    ("kcm", "kcm"),
]


def compared(a: Path, b: Path, out: Path) -> dict[str, Any]:
    """Writes the page; the JSON that was printed beside it."""
    done = run_cli("diff", "--json", "--report", str(out), str(a), str(b))
    assert done.returncode in (0, 1), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if found["same"] else 1)
    return found


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])
def test_pairs_of_recordings(a: str, b: str, browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    told = compared(recording(a), recording(b), out)
    assert out.stat().st_mode & 0o777 == 0o600
    text = out.read_text()
    parsed = Parsed(text)
    assert_inert(text, parsed)
    load(browser, tmp_path, text)

    def texts(query: str) -> list[str]:
        found: list[str] = browser.js(
            "return [...document.querySelectorAll(arguments[0])].map(one => one.textContent)", query
        )
        return found

    names = [f"{line['name']}" for line in told["objects"]]
    assert texts(".entry > summary b") == names
    lines = [row for line in told["objects"] for hunk in line.get("insns", {}).get("hunks", ())
             for row in hunk]  # fmt: skip
    for op, side, query in (("-", "a", ".sides .del:has(.pc)"), ("+", "b", ".sides .add:has(.pc)")):
        wanted = sorted(f"{row[side]}{row['text']}" for row in lines if row["op"] == op)
        assert sorted(texts(query)) == wanted
    assert len(texts("#attachments li")) == len(told["attachments"])
    assert len(texts("#probes li")) == len(told["probes"])
    assert len(texts("#calls li")) == len(told["calls"])
    assert told["summary"] in texts(".verdict")[0]
    assert (texts("h1") == ["The same"]) == told["same"]
    # Both columns begin beside each other.
    assert browser.js(
        "return [...document.querySelectorAll('.sides')].every(box =>"
        "  box.querySelectorAll('.del, .add, .void, .same').length % 2 === 0)"
    )
    # Not by colour alone.
    for query, mark in ((".sides .del", "\N{MINUS SIGN}"), (".sides .add", "+")):
        assert browser.js(
            "return [...document.querySelectorAll(arguments[0])].every(one =>"
            "  getComputedStyle(one, '::before').content === arguments[1])", query, f'"{mark}"'
        )  # fmt: skip
    for width in (1280, 400):
        browser.size(width, 900)
        assert browser.js("return document.documentElement.scrollWidth") <= width
    browser.size(1280, 900)
    assert browser.log() == []


def test_instructions_side_by_side(browser: Browser, tmp_path: Path) -> None:
    """Those of one opcode beside each other, in colours, with what differs in them."""
    out = tmp_path / "out.html"
    compared(recording("bpftool-loadall-o1"), recording("bpftool-loadall"), out)
    browser.load(out)
    cells = browser.js(
        "return [...document.querySelectorAll('.sides .del, .sides .add, .sides .void')].map(one =>"
        "  [one.textContent, ...['.differs', '.p-register', '.p-constant, .p-target'].map(kind =>"
        "    [...one.querySelectorAll(kind)].map(part => part.textContent))])"
    )
    rows = list(zip(cells[::2], cells[1::2], strict=True))
    void = ["", [], [], []]
    assert rows[:4] == [
        (void, ["11(61) r2 = *(u32 *)(r6 +0)", [], ["r2", "r6"], ["+0"]]),
        (["11(61) r1 = *(u32 *)(r6 +0)", [], ["r1", "r6"], ["+0"]], void),
        (["12(79) r2 = *(u64 *)(r0 +0)", ["r2"], ["r2", "r0"], ["+0"]],
         ["12(79) r3 = *(u64 *)(r0 +0)", ["r3"], ["r3", "r0"], ["+0"]]),
        (["13(0f) r2 += r1", ["r2", "r1"], ["r2", "r1"], []],
         ["13(0f) r3 += r2", ["r3", "r2"], ["r3", "r2"], []]),
    ]  # fmt: skip
    for one, other in rows:
        if one[0] and other[0]:
            assert re.search(r"\(..\)", one[0])[0] == re.search(r"\(..\)", other[0])[0]  # type: ignore[index]
    assert browser.log() == []


def test_hostile_names(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    compared(recording("verifier-reject"), hostile(tmp_path / "hostile.jsonl"), out)
    text = out.read_text()
    assert_inert(text, Parsed(text))
    assert "<script>window.pwned" not in text
    load(browser, tmp_path, text)
    browser.js("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.js("return window.pwned === undefined")
    assert browser.log() == []


def test_more_than_a_page_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bpftrace_sys.cli.diff import main

    monkeypatch.setattr(diff_page, "ROWS", 5)
    monkeypatch.setattr(diff_page, "ENTRIES", 3)
    out = tmp_path / "out.html"
    main(["-q", "--report", str(out), str(recording("libbpf-opensnoop")),
          str(recording("libbpf-execsnoop"))])  # fmt: skip
    text = out.read_text()
    assert re.search(r"\d+ more are not on this page", text)
    main(["-q", "--report", str(out), str(recording("bpftool-loadall-o1")),
          str(recording("bpftool-loadall"))])  # fmt: skip
    assert "more differs here than is on this page" in out.read_text()


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    same = str(recording("kcm"))
    done = run_cli("diff", "--report", str(tmp_path / "no" / "page"), same, same)
    assert done.returncode == 125
    assert "cannot write" in done.stderr
