"""Report pages in Chromium without a window: they work, say nothing on the console, are inert."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Browser
from tests.support.hostile import hostile, looped
from tests.support.needs import needs_tool
from tests.support.pages import NAMES, Parsed, gathered, written
from tests.support.rewriting import recording
from tests.support.running import run_cli

READY = "document.documentElement.dataset.ready"
SHOWN = "[...document.querySelectorAll('#list .call')].map(row => row.id)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    needs_tool("chromedriver")
    with Browser() as found:
        yield found


def load(browser: Browser, path: Path, text: str, more: str = "") -> None:
    """A page, ready to be used."""
    file = path / "page.html"
    file.write_text(text, encoding="utf-8", errors="backslashreplace")
    browser.load(file, more)
    browser.until(READY)


def found(browser: Browser) -> str:
    """What stands beside the search."""
    return str(browser.js("return document.getElementById('found').textContent"))


def search(browser: Browser, query: str) -> str:
    """Types a query; what stands beside it."""
    browser.js(
        "const q = document.getElementById('q'); q.value = arguments[0];"
        "document.getElementById('found').textContent = '';"
        "q.dispatchEvent(new Event('input'))",
        query,
    )
    browser.until("document.getElementById('found').textContent")
    return found(browser)


def test_a_redacted_trace(browser: Browser, tmp_path: Path) -> None:
    """Nothing on the console; what has names is found, and what had a stand-in is not."""
    for name in ("bcc-kprobe-hello", "verifier-reject"):
        out, page = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.html"
        assert run_cli("redact", str(recording(name)), "-o", str(out)).returncode == 0
        assert run_cli("report", str(out), "-o", str(page)).returncode == 0
        browser.load(page)
        browser.until(READY)
        assert browser.log() == []
        query = "obj:hello_world" if name == "bcc-kprobe-hello" else "is:failed"
        assert not search(browser, query).startswith("0 ")
        assert browser.js("return document.querySelectorAll('.entry.prog').length") > 0
        text = browser.js("return document.documentElement.innerHTML")
        assert "do_unlinkat" not in text
        assert "R0 invalid mem access" not in text
        assert "Redacted (values, strings, paths, argv, host): stand-ins are in the place" in text


@pytest.mark.parametrize("name", NAMES)
def test_every_recording(browser: Browser, name: str, tmp_path: Path) -> None:
    report = gathered(recording(name)).report
    load(browser, tmp_path, written(recording(name)))
    # Everything unfolds, and nothing of it complains.
    browser.js(
        "for (const kind of ['.run', '.call', '.entry', '.log'])"
        "  for (const one of document.querySelectorAll(kind)) one.open = true"
    )
    browser.until("!document.querySelector('.call[open]:not(:has(.body))')")
    number = len(report.rows)
    assert found(browser) == f"{number} call{'' if number == 1 else 's'}"
    listed = sum(len(program.rows) for program in report.programs)
    assert browser.js("return document.querySelectorAll('.code .i[id]').length") == listed
    bars = browser.js("return document.querySelectorAll('#lanes .bar').length")
    assert 0 < bars <= number
    # No two page_objects have one anchor, and it is not wider than the window.
    ids = browser.js("return [...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(ids) == len(set(ids))
    there = "document.querySelector('.graph')", "document.querySelector('.outline')"
    for width in (1280, 400):
        browser.size(width, 900)
        assert browser.js("return document.documentElement.scrollWidth") <= width
        # What hangs together is a picture, or a list where that has no room.
        if report.programs:
            shown = [browser.js(f"return {one}.checkVisibility()") for one in there]
            assert shown == [width == 1280, width == 400]
        # No number is broken.
        assert browser.js(
            "const range = document.createRange();"
            "return [...document.querySelectorAll('#counts td.number')].every(cell =>"
            "  { range.selectNodeContents(cell); return range.getClientRects().length < 2; })"
        )
    if report.programs:
        drawn, listed_ones = (
            set(browser.js(f"return [...{one}.querySelectorAll('a')].map("
                           "one => one.getAttribute('href'))")) for one in there
        )  # fmt: skip
        assert drawn == listed_ones
    browser.size(1280, 900)
    assert browser.log() == []


def test_search(browser: Browser, tmp_path: Path) -> None:
    rows = gathered(recording("libbpf-execsnoop")).report.rows
    load(browser, tmp_path, written(recording("libbpf-execsnoop")), "?q=cmd:openat")
    commands = gathered(recording("libbpf-execsnoop")).report.commands
    openat = [row for row in rows if commands[row.command] == "openat"]
    assert found(browser) == f"{len(openat)} of {len(rows)}"
    assert browser.js(f"return {SHOWN}") == [f"call-{row.seq}" for row in openat]
    assert search(browser, "EVENTS sys_enter_execve/id").startswith("1 of")
    assert browser.js("return document.querySelectorAll('#list mark').length") >= 2
    assert "?q=EVENTS%20sys_enter_execve%2Fid" in browser.js("return location.href")
    assert search(browser, "obj:execs is:failed") == f"0 of {len(rows)}"
    assert "No call is like that" in browser.js("return document.body.textContent")
    assert search(browser, "cmd:prog_load -is:probe") == f"2 of {len(rows)}"
    # The boxes write the same words, and a process that made all calls has all.
    browser.js(
        "const box = document.getElementById('by-command'); box.value = 'bpf_map_freeze';"
        "box.dispatchEvent(new Event('change'))"
    )
    assert found(browser) == f"1 of {len(rows)}"
    assert browser.js("return document.getElementById('q').value") == "-is:probe cmd:bpf_map_freeze"
    assert search(browser, "") == f"{len(rows)} calls"
    assert browser.log() == []


def test_anchors(browser: Browser, tmp_path: Path) -> None:
    text = written(recording("libbpf-execsnoop"))
    # One of many feature probes: their line unfolds.
    rows = gathered(recording("libbpf-execsnoop")).report.rows
    probe = next(row.seq for row in rows if row.group)
    load(browser, tmp_path, text, f"#call-{probe}")
    browser.until(f"document.getElementById('call-{probe}')?.open")
    assert browser.js(f"return document.getElementById('call-{probe}').closest('.run').open")
    [program] = [one for one in gathered(recording("libbpf-execsnoop")).report.programs
                 if "exit" in one.name]  # fmt: skip
    browser.js("location.hash = arguments[0]", f"{program.anchor}-pc-60")
    browser.until(f"document.getElementById('{program.anchor}-pc-60')?.classList.contains('flash')")
    assert browser.js(f"return document.getElementById('{program.anchor}').open")
    inside = browser.js(
        "const at = document.getElementById(arguments[0]).getBoundingClientRect();"
        "return at.top > 0 && at.bottom < innerHeight", f"{program.anchor}-pc-60",
    )  # fmt: skip
    assert inside
    assert browser.log() == []


def test_jumps_and_the_refused_instruction(browser: Browser, tmp_path: Path) -> None:
    report = gathered(recording("verifier-reject")).report
    anchor = report.programs[0].anchor
    load(browser, tmp_path, written(recording("verifier-reject")))
    after = browser.js(
        "const line = document.getElementById(arguments[0]);"
        "return [line.classList.contains('rejected'), line.nextSibling.textContent]",
        f"{anchor}-pc-7",
    )
    assert after[0]
    assert "R0 invalid mem access 'map_value_or_null'" in after[1]
    beside = browser.js(
        "return document.getElementById(arguments[0]).closest('.group').querySelector('.src')"
        ".textContent",
        f"{anchor}-pc-7",
    )
    assert beside == "20*count += 1;"
    load(browser, tmp_path, written(recording("libbpf-opensnoop")))
    browser.js("document.querySelectorAll('.entry.prog').forEach(one => one.open = true)")
    browser.until("document.querySelector('.jumps path')")
    lit = browser.js(
        "const line = document.querySelector('.i[data-to]');"
        "line.dispatchEvent(new PointerEvent('pointerover', {bubbles: true}));"
        "const goal = line.id.replace(/\\d+$/, line.dataset.to);"
        "return document.getElementById(goal).classList.contains('lit')"
    )
    assert lit


def test_a_loop_is_folded(browser: Browser, tmp_path: Path) -> None:
    text = written(looped(tmp_path / "loop.jsonl", 400, kinds=1))
    load(browser, tmp_path, text)
    runs = browser.js("return [...document.querySelectorAll('#list > .chunk > .run')]"
                      ".map(run => run.querySelector('summary').textContent)")  # fmt: skip
    [run] = [line for line in runs if "BPF_MAP_UPDATE_ELEM" in line]
    assert re.fullmatch(r"BPF_MAP_UPDATE_ELEM . 3\d\d on map [\w.]+ id=\d+: .*", run)
    assert browser.js("return document.querySelectorAll('#list .call').length") < 100
    # A call inside unfolds it, and a search finds them one by one.
    browser.js("location.hash = 'call-390'")
    browser.until("document.getElementById('call-390')?.open")
    assert search(browser, "seq:390") == "1 of 400"
    assert browser.log() == []


def test_timeline(browser: Browser, tmp_path: Path) -> None:
    report = gathered(recording("libbpf-tcpconnect")).report
    load(browser, tmp_path, written(recording("libbpf-tcpconnect")))
    bars = "document.querySelectorAll('#lanes .bar').length"
    whole = browser.js(f"return {bars}")
    # A bar for each call, but for what would be drawn over another.
    assert len(report.rows) * 0.8 < whole <= len(report.rows)
    assert browser.js("return document.querySelectorAll('#lanes .gap').length") > 3
    drag = (
        "const box = document.getElementById('lanes'), at = box.getBoundingClientRect();"
        "const event = (name, x) => new PointerEvent(name, {bubbles: true, button: 0,"
        "  clientX: at.left + x, clientY: at.top + 40});"
        "box.dispatchEvent(event('pointerdown', 500));"
        "box.dispatchEvent(event('pointermove', 640));"
        "window.dispatchEvent(event('pointerup', 640));"
    )
    browser.js(drag)
    assert 0 < browser.js(f"return {bars}") < whole / 2
    browser.js("document.getElementById('lanes').dispatchEvent(new MouseEvent('dblclick'))")
    assert browser.js(f"return {bars}") == whole
    told = browser.js(
        "const bar = document.querySelectorAll('#lanes .bar')[arguments[0]];"
        "bar.dispatchEvent(new PointerEvent('pointermove', {bubbles: true}));"
        "return [bar.dataset.at, document.getElementById('tip').textContent]", whole - 1,
    )  # fmt: skip
    row = report.rows[int(told[0])]
    assert told[1].startswith(f"{report.commands[row.command]} = {row.result}")
    assert f"#{row.seq} " in told[1]
    # Beside a thin bar is near enough; a gap says how long nothing happened.
    def under(query: str, x: str) -> tuple[dict[str, str], str]:
        return tuple(browser.js(
            "const one = document.querySelector(arguments[0]);"
            "one.scrollIntoView({block: 'center'});"
            f"const box = one.getBoundingClientRect(), clientX = {x};"
            "const clientY = box.top + Math.min(box.height / 2, 40);"
            "document.elementFromPoint(clientX, clientY).dispatchEvent("
            "  new PointerEvent('pointermove', {bubbles: true, clientX, clientY}));"
            "return [{...one.dataset}, document.getElementById('tip').textContent]", query,
        ))  # fmt: skip

    bar, tip = under("#lanes .bar", "box.left - 3")
    assert f"#{report.rows[int(bar['at'])].seq} " in tip
    axis = Parsed(browser.js("return document.documentElement.outerHTML")).json("d-trace")["axis"]
    widest = max(end - begin for begin, end, _ in axis[1::2])
    _, tip = under(f"#lanes .gap[data-gap='{widest}']", "box.left + box.width / 2")
    assert tip == f"{widest / 1e9:.2f} s without a call"
    # A click leads to the call.
    browser.js(
        "const bar = document.querySelectorAll('#lanes .bar')[arguments[0]];"
        "bar.dispatchEvent(new PointerEvent('pointerdown', {bubbles: true, button: 0}));"
        "bar.dispatchEvent(new PointerEvent('pointerup', {bubbles: true, button: 0}))", whole - 1,
    )  # fmt: skip
    browser.until(f"document.getElementById('call-{row.seq}')?.open")
    assert browser.log() == []


def test_keys(browser: Browser, tmp_path: Path) -> None:
    load(browser, tmp_path, written(recording("verifier-reject")))

    def press(key: str) -> None:
        browser.js("document.body.dispatchEvent(new KeyboardEvent('keydown', "
                   "{key: arguments[0], bubbles: true}))", key)  # fmt: skip

    press("n")
    assert browser.js("return document.querySelector('.call.at').id") == "call-16"
    press("n")
    assert browser.js("return document.querySelector('.call.at').id") == "call-17"
    press("k")
    assert browser.js("return document.querySelector('.call.at').id") == "call-16"
    press("/")
    assert browser.js("return document.activeElement.id") == "q"
    browser.js("document.activeElement.blur()")
    press("?")
    assert "search calls" in browser.js("return document.querySelector('dialog').textContent")
    browser.js("document.querySelector('dialog').close()")
    browser.until("!document.querySelector('dialog')")  # keys are its own as long as it is there
    before = browser.js("return getComputedStyle(document.body).backgroundColor")
    press("t")
    assert browser.js("return getComputedStyle(document.body).backgroundColor") != before
    browser.js("localStorage.clear()")
    assert browser.log() == []


def test_hostile_names(browser: Browser, tmp_path: Path) -> None:
    load(browser, tmp_path, written(hostile(tmp_path / "hostile.jsonl")))
    browser.js(
        "for (const kind of ['.run', '.call', '.entry', '.log'])"
        "  for (const one of document.querySelectorAll(kind)) one.open = true;"
        "for (const one of document.querySelectorAll('#lanes .bar'))"
        "  one.dispatchEvent(new PointerEvent('pointermove', {bubbles: true}))"
    )
    browser.until("document.querySelector('.call .body')")
    assert search(browser, "<script> onerror='").endswith(" of 17")
    assert not found(browser).startswith("0 ")
    assert browser.js("return document.querySelector('#list').textContent.includes('<script>')")
    # Nothing ran, and nothing became an element.
    assert browser.js("return window.pwned === undefined")
    assert not browser.js("return document.querySelectorAll('img, svg[onload], body > p').length")
    assert browser.js("return document.querySelectorAll('script:not([type])').length") == 1
    assert browser.log() == []
    assert browser.js("return document.documentElement.scrollWidth") <= 1280


def test_policy_holds(browser: Browser, tmp_path: Path) -> None:
    # Should markup slip through after all, the browser would not run it.
    text = written(recording("bcc-kprobe-hello"))
    evil = "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>"
    load(browser, tmp_path, text.replace("<main>", f"<main>{evil}", 1))
    assert browser.js("return window.pwned === undefined")
    assert sum("Content Security Policy" in line for line in browser.log()) >= 2
    thrown = browser.js(
        "try { document.body.innerHTML = '<b>x</b>' } catch (error) { return error.name }"
    )
    assert thrown == "TypeError"  # trusted types: no string becomes markup
    browser.log()


def test_ten_thousand_calls_open(browser: Browser, ten_thousand: Any, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(ten_thousand.text, encoding="utf-8")
    times = []
    for _ in range(3):
        browser.load(file)
        browser.until(READY)
        times.append(browser.js(
            "const e = performance.getEntriesByType('navigation')[0];"
            "return e.loadEventEnd - e.responseStart"
        ))
    # A second on an idle machine; this one may be busy and slow.
    assert min(times) < 4000
    assert found(browser) == "10,000 calls"
    assert browser.js("return document.querySelectorAll('*').length") < 8000
    browser.js("location.hash = 'call-9876'")
    browser.until("document.getElementById('call-9876')?.open")
    assert search(browser, "cmd:update seq:9876 -zebra").endswith("of 10,000")
    assert browser.log() == []


def test_on_paper(browser: Browser, tmp_path: Path) -> None:
    load(browser, tmp_path, written(recording("verifier-reject")))
    browser.js("document.querySelectorAll('.entry').forEach(one => one.open = false)")
    browser.js("document.getElementById('keys').click()")  # is not printed
    paper = browser.printed()
    assert paper.startswith(b"%PDF-")
    browser.devtools("Emulation.setEmulatedMedia", media="print")
    assert not browser.js("return document.querySelector('dialog').checkVisibility()")
    browser.devtools("Emulation.setEmulatedMedia", media="")
    browser.js("document.querySelector('dialog').close()")
    # What was folded is unfolded for paper.
    assert browser.js("return document.querySelector('.entry.prog').open")
    assert browser.log() == []


COUNTING = """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)

def bpf(cmd, attr):
    buffer = ctypes.create_string_buffer(attr)
    return libc.syscall({nr}, cmd, buffer, len(attr))

fd = bpf(0, struct.pack("<5I", 2, 4, 8, 4, 0))  # an array
key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(8)
for number in (3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8):
    value.raw = struct.pack("<Q", number)
    attr = struct.pack("<IIQQQ", fd, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
    bpf(2, attr)
bpf(1, attr)
key.raw = struct.pack("<I", 9)
bpf(1, attr)
"""


def test_values_over_time(browser: Browser, needs_bpf: None, tmp_path: Path) -> None:
    number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
    out = tmp_path / "live.html"
    run_cli("-q", "-o", "/dev/null", "--report", str(out), sys.executable, "-c",
            COUNTING.replace("{nr}", str(number)))  # fmt: skip
    load(browser, tmp_path, out.read_text())
    browser.js("document.querySelector('.entry.map').open = true")
    keys = browser.js(
        "return [...document.querySelectorAll('.values tbody tr')]"
        ".map(row => row.cells[0].textContent)"
    )
    assert keys == ["[00 00 00 00]", "[09 00 00 00]"]
    title = browser.js("return document.querySelector('.spark title').textContent")
    assert title == "13 values between 1 and 9"
    # The middle is folded, and unfolds.
    items = "[...document.querySelectorAll('.values tr:first-child li')]"
    assert browser.js(f"return {items}.length") == 9
    browser.js("document.querySelector('.values li button').click()")
    told = browser.js(f"return {items}.map(one => one.textContent)")
    assert len(told) == 13
    assert [line.split(" ms ")[1] for line in told] == [
        *(f"set [{number:02x} 00 00 00 00 00 00 00]  {number}"
          for number in (3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8)),
        "read [08 00 00 00 00 00 00 00]  8",
    ]  # fmt: skip
    assert "not there" in browser.js("return document.querySelector('.values').textContent")
    assert browser.log() == []
