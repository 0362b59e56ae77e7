"""``--style strace``: whose line it is, how processes begin and end, and the table of -c."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.render import strace
from bpftrace_sys.render.strace.summary import Count, table
from decoders.events import Exec, Exit, Fork, ProcessEvent, What
from decoders.raw import AUDIT_ARCH_I386
from tests.render.test_style_strace import bpf
from tests.support.needs import needs_tool
from tests.support.running import run_cli

FREEZE = b"\3\0\0\0"


class Lines:
    """A renderer into a file, or on a terminal, and what it wrote and said."""

    def __init__(self, name: str = "<stderr>", **manner: Any) -> None:
        self.out = io.StringIO()
        self.out.name = name  # type: ignore[misc]
        self.said: list[str] = []
        self.renderer = strace.StraceRenderer(
            self.out, strace.Manner(column=0, **manner), say=self.said.append
        )

    def event(self, what: What, tid: int = 7) -> None:
        self.renderer.process(ProcessEvent(what, 0, 7, tid))

    def take(self) -> list[str]:
        return self.out.getvalue().splitlines()


def test_a_thread_that_executes() -> None:
    """It has its process's id from then on, and says whose it was."""
    lines = Lines()
    lines.event(Fork(7, 8, "thread"))
    lines.event(Exit(), 7)
    lines.event(Exec(8))
    lines.renderer.call(bpf(22, FREEZE))
    lines.event(Exit(code=0))
    assert lines.take() == [
        "+++ superseded by execve in pid 8 +++", "bpf(BPF_MAP_FREEZE, {map_fd=3}, 4) = 0",
        "+++ exited with 0 +++",
    ]  # fmt: skip
    assert lines.said == ["Process 8 attached"]


def test_each_line_says_whose_it_is() -> None:
    """With -f and -o from the first one on; never in a file of one thread's."""
    for name, pids, line in (
        ("out", "all", "7     bpf("), ("<stderr>", "all", "[pid     7] bpf("),
        ("out", "", "bpf("), ("<stderr>", "", "bpf("), ("out.7", "none", "bpf("),
    ):  # fmt: skip
        lines = Lines(name, pids=pids)
        lines.renderer.call(bpf(22, FREEZE))
        assert lines.take()[0].startswith(line), (name, pids)


def test_32_bits() -> None:
    """It is said where a thread changes, and where it changes back."""
    lines = Lines()
    for arch in (None, AUDIT_ARCH_I386, AUDIT_ARCH_I386, None):
        call = bpf(22, FREEZE)
        if arch is not None:
            call.raw.arch = arch
        lines.renderer.call(call)
    assert lines.said == [
        "[ Process PID=7 runs in 32 bit mode. ]", "[ Process PID=7 runs in 64 bit mode. ]"
    ]  # fmt: skip


def test_table() -> None:
    """strace 7.2's, of these numbers."""
    counts = [
        Count("bpf", 145, 105, 784_000, 1_000, 50_000), Count("openat", 2, 0, 16_000, 8_000, 8_000)
    ]  # fmt: skip
    assert table(counts) == (
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 98.00    0.000784           5       145       105 bpf\n"
        "  2.00    0.000016           8         2           openat\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        "100.00    0.000800           5       147       105 total\n"
    )
    assert table(counts, ("calls", "name", "errors"), "name").splitlines()[:3] == [
        "    calls syscall             errors", "--------- ---------------- ---------",
        "      145 bpf                    105",
    ]  # fmt: skip
    assert table(counts, ("name", "max-time"), "max-time").splitlines()[2] == (
        "bpf              0.000050"
    )
    assert table(counts[::-1], by="nothing").splitlines()[2].endswith(" openat")
    assert table([Count("bpf", 1)]).splitlines()[2].startswith("  0.00    0.000000")


PROGRAM = """
import os, sys, threading
if sys.argv[1] == "thread":
    thread = threading.Thread(target=os.execv, args=("/usr/bin/true", ["true"]))
    thread.start()
    thread.join()
pid = os.fork()
if not pid:
    os._exit(3)
os.waitpid(pid, 0)
os.kill(os.getpid(), 15)
"""


def lines_of(text: str) -> list[str]:
    """Without signals on their way, and with processes numbered as they come."""
    names: dict[str, str] = {}
    found = []
    for line in text.splitlines():
        if "--- SIG" in line or "execve(" in line or "execve resumed" in line:
            continue
        found.append(
            re.sub(r"\b\d{2,}\b", lambda match: names.setdefault(match[0], f"P{len(names)}"), line)
        )
    return found


@pytest.mark.live
@pytest.mark.parametrize("what", ["thread", "fork"])
@pytest.mark.parametrize("options", [["-f"], ["-f", "-o"], []])
def test_beside_strace(what: str, options: list[str], tmp_path: Path) -> None:
    """The same lines of processes, in a file and on stderr."""
    needs_tool("strace")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    told = []
    for number, tracer in enumerate((["strace"], None)):
        out = tmp_path / str(number)
        words = [*options, *([str(out)] if "-o" in options else []), "-e", "trace=none"]
        command = [sys.executable, str(program), what]
        if tracer is None:
            done = run_cli("--style", "strace", *words, *command)
            stderr = done.stderr.replace("bpfstrace: ", "")
        else:
            words[-1] = "trace=execve"
            ran = subprocess.run(
                [*tracer, *words, *command], capture_output=True, text=True, check=False
            )
            stderr = re.sub(r"^\S*strace: ", "", ran.stderr, flags=re.M)
        told.append(lines_of(out.read_text() if "-o" in options else stderr))
    assert told[0] == told[1]
    assert any("exited with" in line or "killed by" in line for line in told[1])
