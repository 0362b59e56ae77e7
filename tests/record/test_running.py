"""Calls that have begun and not returned: said while they run, cut where others come between."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.needs import needs_tool
from tests.support.running import TIMEOUT, TRACEES, environment, run_cli
from tests.support.schema import check

OPENAT = ["-f", "-e", "trace=openat"]


def told(text: str) -> list[tuple[int, str]]:
    """The lines of a trace of waiting.py from ``begin`` on: whose (threads by their order), what.

    When a thread is over depends on the scheduler, as does what a tracer sees of one that is
    killed in a call; signals are not ours.
    """
    threads: dict[str, int] = {}
    found = []
    for line in text[text.index('openat(AT_FDCWD, "begin"') :].splitlines():
        match = re.fullmatch(r"(?:(\d+) +)?(.*)", line)
        assert match is not None
        # strace says whose from the first line on.
        who = threads.setdefault(match[1] or "the first", len(threads)) if match[1] else 0
        if match[1] and len(threads) == 1:
            who = threads[match[1]] = 0
        if not match[2].startswith(("+++", "---")) and not match[2].endswith("= ?"):
            found.append((who, re.sub(r"task/\d+/", "task/TID/", re.sub(" +", " ", match[2]))))
    return found


def test_cut_as_strace_cuts(tmp_path: Path) -> None:
    """Where another thread's line comes between, and nowhere else; the same in replay."""
    needs_tool("strace")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = [sys.executable, str(TRACEES / "waiting.py"), str(fifo)]
    theirs, ours, trace = (tmp_path / name for name in ("strace", "ours", "trace.jsonl"))
    subprocess.run(
        ["strace", "-o", theirs, *OPENAT, *program], check=True, timeout=TIMEOUT, env=environment()
    )
    style = ["--style", "strace"]
    done = run_cli(*style, "-o", str(ours), "--json", str(trace), *OPENAT, *program)
    assert done.returncode == 0, done.stderr
    lines = told(ours.read_text())
    assert lines == told(theirs.read_text())
    words = [line for _, line in lines]
    assert sum(line.endswith("<unfinished ...>") for line in words) == 4
    assert sum(line.startswith("<... openat resumed>") for line in words) == 3
    again = run_cli("replay", *style, "-o", str(tmp_path / "again"), str(trace))
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "again").read_text() == ours.read_text()
    check([json.loads(line) for line in trace.read_text().splitlines()])


def read_until(terminal: int, what: str) -> str:
    """What comes from a terminal, up to and with that."""
    data = b""
    while what.encode() not in data:
        data += os.read(terminal, 1 << 16)
    return data.decode()


def rest_of(terminal: int) -> str:
    """What comes until nobody has the terminal open any more."""
    data = b""
    try:
        while piece := os.read(terminal, 1 << 16):
            data += piece
    except OSError:  # EIO
        pass
    return data.decode()


def test_said_on_a_terminal(tmp_path: Path) -> None:
    """After a second, and taken away; the trace has it, too, and a strace-style replay of that
    shows the beginning of the line."""
    fifo, trace = tmp_path / "fifo", tmp_path / "trace.jsonl"
    os.mkfifo(fifo)
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "bpftrace_sys", "--json", str(trace), *OPENAT]
    env = environment(TERM="xterm")
    with subprocess.Popen([*words, "cat", str(fifo)], stderr=theirs, env=env) as traced:
        os.close(theirs)
        said = read_until(ours, "running for 2 s")
        running = [line for line in trace.read_text().splitlines() if '"running"' in line]
        fifo.write_bytes(b"")
        after = rest_of(ours)
        assert traced.wait(TIMEOUT) == 0
    os.close(ours)
    (line,) = [json.loads(line) for line in running]
    assert line["args"]["pathname"]["value"] == str(fifo)
    waits = f"\r[{line['tid']}] openat(...) ... running for 1 s\x1b[K"
    assert said.count(waits) == 1
    assert after.startswith("\r\x1b[K"), after
    assert after.count(str(fifo)) == 1
    assert "running" not in after
    check([json.loads(line) for line in trace.read_text().splitlines()])
    again = run_cli("replay", "--style", "strace", str(trace))
    whole = f'openat(AT_FDCWD, "{fifo}", O_RDONLY) = 3'
    assert [line for line in again.stdout.splitlines() if str(fifo) in line] == [whole]
    # Told while it ran, and not known yet how it ends: the line has no end.
    cut = tmp_path / "cut.jsonl"
    lines = trace.read_text().splitlines(keepends=True)
    cut.write_text("".join(lines[: lines.index(running[0] + "\n") + 1]))
    again = run_cli("replay", "--style", "strace", str(cut))
    assert again.stdout.endswith(f'openat(AT_FDCWD, "{fifo}", O_RDONLY <unfinished ...>\n')


@pytest.mark.parametrize("options", [[], ["--style", "strace", "-ff"]])
def test_told_only_where_it_is_shown(options: list[str], tmp_path: Path) -> None:
    """Other ways of telling a call of others' do not double the calls that overlap."""
    fifo, trace = tmp_path / "fifo", tmp_path / "trace.jsonl"
    os.mkfifo(fifo)
    program = [sys.executable, str(TRACEES / "waiting.py"), str(fifo)]
    run_cli("-o", str(tmp_path / "text"), "--json", str(trace), *options, *OPENAT, *program)
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    slow = {line["seq"] for line in lines if (line.get("duration") or 0) >= 1_000_000_000}
    told_of = {line["seq"] for line in lines if line["type"] == "running"}
    assert told_of <= slow  # a machine may be as slow as that
