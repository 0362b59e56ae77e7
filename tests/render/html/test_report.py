"""Report pages without a browser: what is in the file, bounds, hostile names, the command line."""

from __future__ import annotations

import contextlib
import html
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.render.html import records
from bpftrace_sys.render.html.axis import axis
from bpftrace_sys.render.html.document import read_part
from bpftrace_sys.render.html.markup import UNSEEN, data, element, joined
from bpftrace_sys.render.html.page import page
from bpftrace_sys.render.html.painting import unmarked
from bpftrace_sys.render.html.records import Report
from bpftrace_sys.story.summary import programs
from decoders.events import Ending
from tests.support.hostile import MARKUP, hostile, looped
from tests.support.needs import needs_tool
from tests.support.pages import NAMES, Parsed, assert_inert, gathered, lines_of, written
from tests.support.rewriting import recording
from tests.support.running import FIXTURES, environment, run_cli

# ------------------------------------------------------------ elements


def test_text_is_never_markup() -> None:
    made = element("p", {"title": f"\"'{MARKUP}"}, MARKUP, element("b", {}, "<&>"), None)
    parsed = Parsed(made.text)
    assert parsed.tags == ["p", "b"]
    assert parsed.attributes == {"title"}
    assert "\u202e" not in joined("a\u202eb\x1b").text


def test_data_cannot_end_its_block() -> None:
    value = ["</script><script>alert(1)</script>", "<!--", "a&b", "\u2028\u202e\x00\ud800"]
    made = data("d", value).text
    assert made.count("<") == 2
    assert "<!--" not in made
    inside = Parsed(made).json("d")
    assert inside[:3] == value[:3]
    assert not UNSEEN.search(made)


def test_no_markup_is_made_elsewhere() -> None:
    # What makes Markup out of a str is in one module, where a look shows what it is made of.
    for path in (Path(page.__code__.co_filename).parent).glob("*.py"):
        source = path.read_text()
        if path.name != "markup.py":
            assert not re.search(r"\bMarkup\(", source), path
    for name in ("base.js", "calls.js", "maps.js", "programs.js", "start.js", "timeline.js"):
        script = read_part(name)
        for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(",
                     "Function(", "setTimeout(\"", "javascript:", "fetch(", "XMLHttp"):  # fmt: skip
            assert word not in script, (name, word)


# ------------------------------------------------------------ pages of recordings


@pytest.mark.parametrize("name", NAMES)
def test_every_recording(name: str) -> None:
    found = gathered(recording(name))
    text = "".join(page(found.report, found.marks.names))
    parsed = Parsed(text)
    # Calls and objects are those that replay tells of.
    lines = [json.loads(line) for line in lines_of(recording(name))]
    calls = [line for line in lines if line["type"] == "syscall"]
    rows = parsed.json("d-calls") if calls else []
    assert [row[0] for row in rows] == [line["seq"] for line in calls]
    for row, line in zip(rows, calls, strict=True):
        if line["ret"] is None:
            assert row[6] == "?"
        elif "errnum" in line:
            assert row[6] == errno_name(line["errnum"])
            assert row[5] & records.FAILED
        else:
            assert row[6] == str(line["ret"])
    # Each load that is no feature probe has its listing, as long as the recording's.
    probes = {row[0] for row in rows if row[11]}
    loads = {
        line["seq"]: len(insns["value"])
        for line in calls
        if str(line["args"].get("cmd", "")).startswith("BPF_PROG_LOAD")
        and line["seq"] not in probes
        and line["ret"] is not None
        and "value" in (insns := line["args"]["attr"]["insns"])
    }
    shown = {program.seq: len(program.rows) for program in found.report.programs if program.seq}
    attempts = {seq for program in found.report.programs for seq in program.attempts}
    assert shown.keys() | attempts == loads.keys()
    assert shown == {seq: loads[seq] for seq in shown}
    # What became of each is what the text's table of programs says.
    table = {(row[0], row[2]): row[-1] for row in programs(found.model).rows}
    for program in found.report.programs:
        if program.seq and not program.error:
            assert program.fate == table[program.name, str(program.id or "")]
    # Anchors are unique, and what leads somewhere on the page does so.
    assert len(parsed.ids) == len(set(parsed.ids))
    seqs = {f"#call-{row[0]}" for row in rows}
    for link in parsed.links:
        if link.startswith("#call-"):
            assert link in seqs, link
        elif "-pc-" in link:
            anchor, _, pc = link[1:].rpartition("-pc-")
            assert int(pc) in [row[0] for row in parsed.json(f"d-{anchor}")["rows"]], link
        elif link != "#" and not link.startswith("?"):
            assert link[1:] in parsed.ids, link
    assert_inert(text, parsed)


def test_hostile_names(tmp_path: Path) -> None:
    text = written(hostile(tmp_path / "hostile.jsonl"))
    parsed = Parsed(text)
    assert_inert(text, parsed)
    assert "pwned" in text  # they are there, as text
    assert "<script>window.pwned" not in text
    assert len(re.search(r"<title>(.*?)</title>", text, re.S)[1]) < 1000  # type: ignore[index]


def test_what_came_of_it_in_a_sentence() -> None:
    for name, sentence in (
        ("xdp-attach", "Loaded 1 program; not seen attached (netlink is not traced)."),
        ("bcc-kprobe-hello", "Loaded 1 program and attached it."),
        ("eperm", "EPERM: a socket_filter program needs CAP_BPF (or CAP_SYS_ADMIN), which the "
                  "caller lacks; kernel.unprivileged_bpf_disabled is set."),
        ("verifier-reject", "R0 invalid mem access 'map_value_or_null'."),
    ):  # fmt: skip
        said = re.search(r'<p class="verdict">(.*?)</p>', written(recording(name)))
        assert said is not None
        assert sentence in html.unescape(re.sub("<[^>]+>", "", said[1])), name


def test_a_refused_program_in_one_place() -> None:
    report = gathered(recording("verifier-reject")).report
    [program] = report.programs
    assert (program.name, program.error, program.attempts) == ("forgetful", "EACCES", [16])
    assert program.rejected == 7
    assert program.said == "R0 invalid mem access 'map_value_or_null'"
    assert "map_value_or_null" in program.state
    assert [row.text for row in program.rows if row.pc == 7] == ["(79) r1 = *(u64 *)(r0 +0)"]
    assert program.log.endswith("mark_read 0")
    assert [report.page_objects[number].name for number in program.maps] == ["counts"]
    assert program.helpers == [("bpf_map_lookup_elem", [6])]


def test_jumps_lead_to_instructions() -> None:
    report = gathered(recording("libbpf-execsnoop")).report
    rows = report.programs[0].rows
    pcs = {row.pc for row in rows}
    jumps = {row.pc: row.target for row in rows if row.target is not None}
    assert len(jumps) > 100
    assert set(jumps.values()) <= pcs
    # As the text has it, which counts from the next instruction.
    for row in rows:
        found = re.search(r"goto pc([+-]\d+)$", row.text)
        assert (row.pc in jumps) == (found is not None)
        if found:
            assert jumps[row.pc] == row.pc + 1 + int(found[1])


def test_values_of_a_map_over_time(tmp_path: Path) -> None:
    report = gathered(looped(tmp_path / "loop.jsonl", 2000)).report
    found = max(report.maps, key=lambda one: len(one.events) + one.more)
    assert len(found.events) == records.EVENTS
    assert found.more > 500
    assert {event.what for event in found.events} <= {"set", "delete"}


# ------------------------------------------------------------ bounds


def test_ten_thousand_calls(ten_thousand: Any) -> None:
    assert len(Parsed(ten_thousand.text).json("d-calls")) == 10_000
    assert len(ten_thousand.text) < 8 << 20
    # Two seconds on an idle machine; this one may be busy and slow.
    assert ten_thousand.spent < 8


def test_more_than_a_page_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ROWS", 100), ("OBJECTS", 12), ("EVENTS", 3), ("LISTINGS", 100),
                        ("BTF_TEXT", 10), ("ROWS_BEYOND", 5)):  # fmt: skip
        monkeypatch.setattr(records, name, value)
    report = gathered(looped(tmp_path / "loop.jsonl", 3000)).report
    assert report.calls == 3000
    assert len(report.rows) <= 105
    assert report.unlisted == 3000 - len(report.rows)
    assert len(report.page_objects) == 12
    assert report.page_objects_left_out > 0
    assert len(report.cut) == 2
    assert sum(bool(program.rows) for program in report.programs) == 1
    text = "".join(page(report, []))
    assert "are counted, not listed" in text
    assert "more instructions are not on this page" in text


def test_a_text_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "CALL", 100)
    report = gathered(recording("bcc-kprobe-hello")).report
    assert max(len(row.text) for row in report.rows) < 110


def test_gaps_are_compressed() -> None:
    second = 10**9
    segments = axis([(0, 1000), (5000, 6000), (second, second + 500), (second + 500, second + 600)])
    assert [(begin, end) for begin, end, _ in segments[::2]] == [
        (0, 1000), (5000, 6000), (second, second + 600)
    ]  # fmt: skip
    assert [width for _, _, width in segments[::2]] == [1000, 1000, 600]
    assert all(width < 200 for _, _, width in segments[1::2])
    assert axis([]) == []
    assert axis([(5, 5)]) == [(5, 5, 1.0)]
    many = axis((at * 1_000_000, at * 1_000_000 + 10) for at in range(5000))
    assert len(many) < 200


# ------------------------------------------------------------ the command line


@pytest.mark.live
def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = run_cli("report", str(recording("bcc-kprobe-hello")), "-o", str(out))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert out.stat().st_mode & 0o777 == 0o600
    assert out.read_text() == written(recording("bcc-kprobe-hello"))
    piped = run_cli("report", str(recording("bcc-kprobe-hello")))
    assert piped.stdout == out.read_text()


@pytest.mark.live
def test_replay_makes_the_same_page(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = run_cli("replay", "-q", "--report", str(out), str(recording("bpftool-loadall")))
    assert done.returncode == 0
    assert "BPF_PROG_LOAD" in done.stdout
    assert out.read_text() == written(recording("bpftool-loadall"))


def test_a_trace_without_its_end(tmp_path: Path) -> None:
    path, out = tmp_path / "cut.jsonl", tmp_path / "page.html"
    path.write_text("".join(lines_of(recording("bcc-kprobe-hello"))[:-3]))
    done = run_cli("report", str(path), "-o", str(out))
    assert done.returncode == 2
    assert "the page shows what stood before" in done.stderr
    assert "The trace ends before its end." in out.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report"], "report takes one trace file"),
        (["report", "a", "b"], "report takes one trace file"),
        (["report", "/nowhere", "-o", "x"], "/nowhere"),
        (["report", "--what", "x"], "option --what not recognized"),
    ],
)
def test_wrong_arguments(words: list[str], said: str, tmp_path: Path) -> None:
    done = run_cli(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    done = run_cli("report", str(recording("kcm")), "-o", str(tmp_path / "no" / "page.html"))
    assert done.returncode == 125
    assert "cannot write" in done.stderr


def test_live(needs_bpf: None, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = run_cli("-f", "-q", "-o", str(tmp_path / "text"), "--report", str(out),
                   sys.executable, "-m", "bpftrace_sys.hello")  # fmt: skip
    assert done.returncode == 0
    parsed = Parsed(out.read_text())
    assert "BPF_PROG_LOAD" in parsed.json("d-trace")["commands"]
    assert any(anchor.startswith("prog-") for anchor in parsed.ids)


@pytest.mark.live
def test_live_without_a_call(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = run_cli("-q", "--report", str(out), "true")
    assert done.returncode == 0
    assert "Made no call that was traced." in out.read_text()


def test_a_page_needs_its_folder_before_the_program_runs(tmp_path: Path) -> None:
    done = run_cli("--report", str(tmp_path / "no" / "x"), "touch", str(tmp_path / "ran"))
    assert done.returncode == 125
    assert "cannot write" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_nothing_of_it_is_imported_without_it() -> None:
    source = (
        "import sys; from bpftrace_sys.cli.main import main\n"
        f"main(['replay', '-q', '-o', '/dev/null', {str(recording('kcm'))!r}])\n"
        "assert not [name for name in sys.modules if 'render.html' in name]\n"
    )
    subprocess.run([sys.executable, "-c", source], check=True, cwd=FIXTURES.parent)


def test_report_is_a_record() -> None:
    # A trace of nothing has a page, too.
    assert "Made no call" in "".join(page(Report(ending=Ending(0)), []))




def test_the_kernels_view_beside_the_instructions(needs_bpf: None, tmp_path: Path) -> None:
    trace, out = tmp_path / "trace.jsonl", tmp_path / "page.html"
    done = run_cli(
        "-q", "-e", "kernel=xlated,jited,map", "-o", "/dev/null", "--json", str(trace),
        "--report", str(out), sys.executable, "-m", "tests.tracees.kernel_view_programs",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    views = {}
    for line in map(json.loads, trace.read_text().splitlines()):
        if line["type"] == "kernel_view":
            views[line["seq"]] = line
    found = gathered(trace)
    assert "".join(page(found.report, found.marks.names)) == out.read_text()
    sides = {one.seq: one.kernel for one in found.report.programs if one.kernel is not None}
    assert sides.keys() == views.keys()
    mapped = 0
    for seq, side in sides.items():
        assert side is not None
        fates = views[seq].get("map")
        if not fates:
            assert len(side.translated) == len(views[seq]["xlated"])
            continue
        mapped += 1
        assert [row.fate for row in side.rows] == [fate["what"] for fate in fates]
        assert sum(side.fates.values()) == len(fates)
        # Where native code jumps to is one of the places that stand beside it.
        code = [line for row in side.rows for line in row.native]
        places = {line.offset for line in code}
        jumps = [re.match(r"j\w+ +0x([0-9a-f]+)$", unmarked(line.text)) for line in code]
        assert {jump[1] for jump in jumps if jump} <= places
    assert mapped


def test_what_programs_are_given_and_how_often_they_ran(
    needs_bpf: None, tracefs: Path, tmp_path: Path
) -> None:
    needs_tool("opensnoop")
    trace = tmp_path / "trace.jsonl"
    # How it ends depends on whether its last poll was interrupted.
    run_cli("-f", "-q", "--stats", "-o", "/dev/null", "--json", str(trace), "opensnoop", "-d", "1")
    report = gathered(trace).report
    text = run_cli("replay", "-q", "-v", str(trace)).stdout
    told = [line.removeprefix("  given   ") for line in text.splitlines()
            if line.startswith("  given   ")]  # fmt: skip
    assert told
    assert [tie.given for tie in report.ties if tie.given] == told
    reads = {
        (int(found[1]), found[2])
        for found in re.finditer(r"^ {2,6}(\d+):  (\S.*)$", text, re.M)
    }
    assert reads
    assert {(pc, what) for one in report.programs for pc, what in one.reads.items()} == reads
    table = run_cli("replay", "-c", str(trace)).stdout.partition("\nmaps")[0]
    rows = [line.split() for line in table.splitlines()]
    counts = [int(row[6]) for row in rows if len(row) > 6 and row[2].isdecimal()]
    assert counts
    assert [one.runs[0] for one in report.programs if one.runs is not None] == counts


def test_what_was_there_before(needs_bpf: None, tracefs: Path, tmp_path: Path) -> None:
    needs_tool("opensnoop")
    trace = tmp_path / "trace.jsonl"
    with subprocess.Popen(["opensnoop", "-d", "120"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as loader:  # fmt: skip
        try:
            waited_for(lambda: _held(loader.pid) >= 8)  # four programs and their links
            tracer = subprocess.Popen(
                [sys.executable, "-m", "bpftrace_sys", "-q", "-p", str(loader.pid), "-o",
                 "/dev/null", "--json", str(trace)], env=environment(),
            )  # fmt: skip
            waited_for(lambda: trace.exists() and "sys_exit_openat" in trace.read_text())
        finally:
            loader.terminate()
        tracer.wait(60)
    report = gathered(trace).report
    assert report.holders == [f"opensnoop ({loader.pid})"]
    assert len(report.programs) == 4
    assert {program.origin for program in report.programs} == {"before"}
    assert {tie.target for tie in report.ties if tie.verb == records.BEFORE} == {
        f"tracepoint syscalls:sys_{way}_{call}"
        for way in ("enter", "exit") for call in ("open", "openat")
    }  # fmt: skip
    assert all(program.maps for program in report.programs)
    text = "".join(page(report, []))
    assert f"attached to opensnoop ({loader.pid})" in text
    assert "4 programs were there before" in text


def _held(pid: int) -> int:
    """How many programs and links a process has open."""
    found = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found += str(path.readlink()) in ("anon_inode:bpf-prog", "anon_inode:bpf_link")
    return found


def waited_for(condition: Callable[[], bool]) -> None:
    """Returns as soon as something is true."""
    due = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < due
        time.sleep(0.02)
