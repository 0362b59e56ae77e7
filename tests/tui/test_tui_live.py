"""The browser while a program runs: its terminal, the trace as it grows, and who ends whom."""

from __future__ import annotations

import gzip
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import bpftrace_sys
from bpftrace_sys.trace.growing import Growing, begun
from bpftrace_sys.trace.items import TraceError
from bpftrace_sys.tui.keeper import Kept, keep
from bpftrace_sys.tui.typescript import LINES, Typescript
from tests.support.rewriting import items, recording
from tests.support.running import run_cli
from tests.support.terminal import commands
from tests.support.tmux import PATIENCE, Tmux

pytestmark = pytest.mark.live


def until(done: Callable[[], object]) -> None:
    """Waits for something that happens in another process, which tells nobody."""
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


# ------------------------------------------------------------ the trace as it grows


def test_a_growing_trace_is_read_as_the_whole_one(tmp_path: Path) -> None:
    """However the pieces lie in which it comes."""
    _, whole = items(recording("bcc-kprobe-hello"))
    with gzip.open(recording("bcc-kprobe-hello"), "rb") as file:
        data = file.read()
    path = tmp_path / "growing.jsonl"
    found = []
    reader = None
    with path.open("wb", buffering=0) as out:
        for at in range(0, len(data), 997):
            out.write(data[at : at + 997])
            if reader is None and begun(str(path)):
                reader = Growing(str(path))
                with pytest.raises(TraceError, match="without its end line"):
                    reader.finish()
            if reader is not None:
                found += list(reader.ready())
    assert reader is not None
    reader.finish()
    assert found == whole


# ------------------------------------------------------------ lines of a terminal


LETTERS = (
    b"plain\r\nover\rOV\r\nback\b\bCK\r\ta\tb\r\n\x1b[1;31mred\x1b[0m \x1b]0;title\x07x\r\n"
    b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\r\n\x1b(Bset\r\nclear me\r\x1b[Kno\r\n"
    + b"w" * 70 + b"\r\n" + "näme\r\n".encode() + b"end"
)  # fmt: skip


def test_lines_are_those_of_a_terminal(tmp_path: Path) -> None:
    """tmux shows the same."""
    script = Typescript()
    script.columns = 60
    for at in range(len(LETTERS)):
        script.feed(LETTERS[at : at + 1])
    file = tmp_path / "letters"
    file.write_bytes(LETTERS)
    with Tmux(60, 30, tmp_path) as terminal:
        terminal.shell(f"clear; cat {file}; cat")
        screen = terminal.until("end")
    assert [line.rstrip() for line in script.lines] == [
        line.rstrip() for line in screen[: len(script.lines)]
    ]


def test_lines_are_bounded_and_printable() -> None:
    script = Typescript()
    script.feed(b"\x1b]2;never ended " + b"x" * 1_000_000)
    script.feed(b"\x07")
    script.feed(b"\xff\x00\x07\x9b2J\xe2\x80\xae|\n" * (LINES + 10))
    assert len(script.lines) == LINES
    assert script.dropped
    assert not commands("\n".join(script.lines))
    script.feed(b"\t" * 100_000)
    script.feed(b"y" * 100_000)
    assert max(map(len, script.lines)) <= script.columns


# ------------------------------------------------------------ the keeper


def talk(kept: Kept, wanted: bytes = b"") -> bytes:
    """What the program writes, up to these bytes; else to the tracer's end."""
    found = b""
    poll = select.poll()
    poll.register(kept.connection, select.POLLIN)
    while kept.status is None if not wanted else wanted not in found:
        assert poll.poll(PATIENCE * 1000)
        data = kept.receive()
        if data is None:
            break
        found += data
    return found


def shell(text: str) -> Callable[[], int]:
    """In the tracer's place a shell."""
    return lambda: subprocess.call(["sh", "-c", text])


def test_a_program_has_a_terminal() -> None:
    kept = keep(shell("tty >&2 && stty size && read x && echo got $x $TERM; exit 3"), 7, 58)
    assert b"7 58" in talk(kept, b"7 58")
    kept.size(30, 100)
    kept.type("wörd\r".encode())
    assert "got wörd dumb".encode() in talk(kept)
    assert kept.status is not None
    assert os.waitstatus_to_exitcode(kept.status) == 3
    os.waitpid(kept.pid, 0)


def test_interrupts_are_the_terminals() -> None:
    """Ctrl-C ends what runs in front, as on any terminal, and not the keeper."""
    kept = keep(shell("trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 1; done"),
                24, 80)  # fmt: skip
    talk(kept, b"ready")
    kept.type(b"\x03")
    talk(kept)
    os.waitpid(kept.pid, 0)


def test_who_writes_more_than_is_read_waits_and_loses_nothing() -> None:
    kept = keep(shell("seq 200000"), 24, 80)
    found = talk(kept)
    while (more := kept.receive()) is not None:
        found += more
        if not more:
            select.select([kept.connection], [], [], PATIENCE)
    assert found.split()[-1] == b"200000"
    assert len(found.split()) == 200_000


def test_a_browser_that_dies_ends_no_program(tmp_path: Path) -> None:
    """The terminal stays, and what is written there is read by somebody."""
    done = tmp_path / "done"
    kept = keep(shell(f"echo ready; seq 100000; echo fine > {done}"), 24, 80)
    talk(kept, b"ready")
    kept.connection.close()
    until(done.exists)
    assert os.waitpid(kept.pid, 0)[1] == 0


def test_ends_that_are_asked_for() -> None:
    kept = keep(shell("echo ready; exec sleep 1000"), 24, 80)
    talk(kept, b"ready")
    kept.kill()
    talk(kept)
    assert kept.status == signal.SIGKILL
    assert os.waitpid(kept.pid, 0)[1] == signal.SIGKILL


# ------------------------------------------------------------ all of it


HELLO = [sys.executable, "-m", "bpftrace_sys.hello"]


def test_a_program_is_shown_while_it_runs(tmp_path: Path, needs_bpf: None) -> None:
    trace = tmp_path / "t.jsonl"
    with Tmux(120, 40, tmp_path) as terminal:
        terminal.run("--tui", "-f", "--json", str(trace), "sh", "-c",
                     f"read x; {' '.join(HELLO)}; echo $x done; read x; exit 7")  # fmt: skip
        terminal.until("running", "0 calls", "5 Output")
        terminal.keys("5")
        terminal.until("i type")
        terminal.keys("i")
        terminal.until("typing to the program")
        terminal.keys("w", "e", "q", "Enter")
        screen = terminal.until("weq done", "PROG_LOAD", "running")
        assert any(line.startswith("│prog") for line in screen)
        terminal.keys("Enter")
        screen = terminal.until("exited with 7")
        count = sum(1 for _ in bpftrace_sys.open_trace(trace))
        assert f"{count} calls" in screen[0]
        terminal.keys("C-]")
        terminal.until("i type")
        terminal.keys("q")
        terminal.until("code 7")
    assert run_cli("replay", str(trace)).returncode == 0


def _pid(path: Path) -> int:
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return ") Z " not in file.read()
    except OSError:
        return False


SLEEPS = "echo $$ > {}; exec sleep 1000"


def test_who_goes_says_what_becomes_of_the_program(tmp_path: Path) -> None:
    with Tmux(100, 30, tmp_path) as terminal:
        pid_file = tmp_path / "ended"
        terminal.run("--tui", "sh", "-c", SLEEPS.format(pid_file))
        pid = _pid(pid_file)
        terminal.until("running")
        terminal.keys("q")
        terminal.until("SIGTERM")
        terminal.keys("e")
        terminal.until("code 143")
        assert not _alive(pid)
        assert not list(tmp_path.glob("bpfstrace-tui-*")), "the trace was nobody's"

        pid_file = tmp_path / "left"
        terminal.run("--tui", "sh", "-c", SLEEPS.format(pid_file))
        pid = _pid(pid_file)
        terminal.until("running")
        terminal.keys("q")
        terminal.until("let it run")
        terminal.keys("d")
        terminal.until("goes on, and is traced to", "code 0")
        assert _alive(pid)
        os.kill(pid, signal.SIGKILL)
        [trace] = tmp_path.glob("bpfstrace-tui-*/trace.jsonl")
        until(lambda: '"end"' in trace.read_text())


def test_a_browser_that_is_killed_ends_no_program(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with Tmux(100, 30, tmp_path) as terminal:
        terminal.run("--tui", "sh", "-c", SLEEPS.format(pid_file))
        pid = _pid(pid_file)
        terminal.until("running")
        terminal.kill("bpftrace_sys")
        terminal.until("code 137")
        assert _alive(pid)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not _alive(pid))


def test_attached_processes_are_let_go(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "1000"]) as process, Tmux(80, 24, tmp_path) as terminal:
        terminal.run("--tui", "-p", str(process.pid))
        terminal.until(f"process {process.pid}", "running")
        status = Path(f"/proc/{process.pid}/status")
        until(lambda: "TracerPid:\t0" not in status.read_text())
        terminal.keys("q")
        terminal.until("detach")
        terminal.keys("d")
        terminal.until("code 0")
        assert "TracerPid:\t0" in status.read_text()
        assert process.poll() is None
        process.kill()


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with Tmux(80, 24, tmp_path) as terminal:
        terminal.run("--tui", "/none/of/this")
        terminal.until("ended", "none/of/this")
        terminal.keys("4")
        terminal.keys("q")
        terminal.until("code 127")


@pytest.mark.parametrize("words", [
    ["-D"], ["--json", "-"], ["--json", "x.gz"], ["-o", "-"], ["--report", "-"],
])  # fmt: skip
def test_what_does_not_go_with_it(words: list[str]) -> None:
    ran = run_cli("--tui", *words, "true")
    assert ran.returncode == 2
    assert "--tui" in ran.stderr


def test_without_a_terminal_nothing_is_started(tmp_path: Path) -> None:
    made = tmp_path / "made"
    ran = run_cli("--tui", "touch", str(made), stdin=subprocess.DEVNULL)
    assert ran.returncode == 2
    assert ran.stderr == "bpfstrace: --tui: it is drawn on a terminal, and stdout is none\n"
    assert not made.exists()
