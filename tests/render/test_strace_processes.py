"""``--style strace``: whose line it is, how processes begin and end, and the table of -c."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.export.redaction import _numbers_of
from bpftrace_sys.render import strace
from bpftrace_sys.render.strace.signals import signal_line
from bpftrace_sys.trace.events import event_line, event_of
from decoders.events import Exec, Exit, Fork, ProcessEvent, Signal, What
from decoders.raw import AUDIT_ARCH_I386
from tests.render.test_style_strace import bpf
from tests.support.needs import needs_tool
from tests.support.running import TRACEES, environment, run_cli

FREEZE = b"\3\0\0\0"
URETPROBE = "syscall_0x14f("
"""Where somebody on this machine probes a library; older straces have no name for it."""


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
    """It is said where a thread changes, and where it changes back; a child is as its parent."""
    lines = Lines()

    def call(arch: int | None, tid: int = 7) -> None:
        told = bpf(22, FREEZE)
        told.raw.arch, told.raw.tid = arch or told.raw.arch, tid
        lines.renderer.call(told)

    for arch in (None, AUDIT_ARCH_I386, AUDIT_ARCH_I386):
        call(arch)
    lines.event(Fork(8, 8, "fork"))
    call(AUDIT_ARCH_I386, 8)
    lines.event(Exit(code=0), 8)
    call(None)
    assert [line for line in lines.take() if "mode" in line] == [
        "[ Process PID=7 runs in 32 bit mode. ]", "[ Process PID=7 runs in 64 bit mode. ]"
    ]  # fmt: skip
    lines = Lines()
    lines.renderer.silent = frozenset({"personality"})
    call(AUDIT_ARCH_I386)
    assert len(lines.take()) == 1


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
    """Without calls, and with processes numbered as they come."""
    names: dict[str, str] = {}
    found = []
    for line in text.splitlines():
        if "execve(" in line or "execve resumed" in line or URETPROBE in line:
            continue

        def numbered(match: re.Match[str]) -> str:
            return names.setdefault(match[0], f"P{len(names)}")

        found.append(re.sub(r"\b\d{2,}\b", numbered, line))
    return found


def signals_of(text: str) -> list[str]:
    """The lines, without what differs from run to run."""
    lines = [line for line in text.splitlines() if "exec" not in line and URETPROBE not in line]
    lines = [re.sub(r"\b\d{4,7}\b", "PID", line) for line in lines]
    return sorted(re.sub(r"(si_[us]time)=\d+", r"\1=T", line) for line in lines)


@pytest.mark.live
def test_signals_beside_strace(tmp_path: Path) -> None:
    """Each signal with what comes with it, in both; none where none is wanted."""
    needs_tool("strace")
    program = [sys.executable, str(TRACEES / "signals.py")]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    done = run_cli("--style", "strace", "-f", "-e", "trace=none", "-o", str(ours), *program)
    assert done.returncode == 0, done.stderr
    subprocess.run(
        ["strace", "-f", "-e", "trace=execve", "-o", str(theirs), *program],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert signals_of(ours.read_text()) == signals_of(theirs.read_text())
    text = ours.read_text()
    assert text.count("--- SIG") > 12
    assert "--- stopped by SIGSTOP ---" in text
    words = ["--style", "strace", "-f", "-e", "trace=none", "-e", "signal=alrm,usr1"]
    done = run_cli(*words, "-o", str(ours), *program)
    assert set(re.findall(r"--- (SIG\w+)", ours.read_text())) == {"SIGALRM", "SIGUSR1"}
    done = run_cli(*words[:-1], "signal=none", "-o", str(ours), "--json", "-", *program)
    assert "---" not in ours.read_text()
    assert '"event":"signal"' not in done.stdout


def test_signals_are_replayed(tmp_path: Path) -> None:
    """They stand in the trace; redacted, without addresses."""
    told = Signal(11, struct.pack("<3iIQ", 11, 0, 1, 0, 0x1234).ljust(48, b"\0").hex())
    line = "--- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=0x1234} ---"
    event = ProcessEvent(told, 5, 7, 7)
    assert event_of(event_line(event)) == event
    assert signal_line(told, strace.Manner().names) == line
    redacted = _numbers_of(told)
    assert isinstance(redacted, Signal)
    assert signal_line(redacted, strace.Manner().names) == "--- SIGSEGV ---"
    raw = strace.Manner(constants="raw").names
    assert signal_line(told, raw) == line.replace("=SIGSEGV", "=11").replace("SEGV_MAPERR", "0x1")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ((7, 0, 4, 0, 0x2000, 12),
         "SIGBUS, si_code=BUS_MCEERR_AR, si_addr=0x2000, si_addr_lsb=0xc"),
        ((11, 0, 3, 0, 1, 0, 2, 3),
         "SIGSEGV, si_code=SEGV_BNDERR, si_addr=0x1, si_lower=0x2, si_upper=0x3"),
        ((11, 0, 4, 0, 0, 0, 5), "SIGSEGV, si_code=SEGV_PKUERR, si_addr=NULL, si_pkey=5"),
        ((5, 0, 6, 0, 16, 32, 1 << 32 | 1), "SIGTRAP, si_code=TRAP_PERF, si_addr=0x10, "
         "si_perf_data=0x20, si_perf_type=PERF_TYPE_SOFTWARE, si_perf_flags=TRAP_PERF_FLAG_ASYNC"),
        ((31, 0, 1, 0, 0x4000, 0xC000003E << 32 | 321), "SIGSYS, si_code=SYS_SECCOMP, "
         "si_call_addr=0x4000, si_syscall=__NR_bpf, si_arch=AUDIT_ARCH_X86_64"),
        ((29, 0, 1, 0, 65, 4), "SIGIO, si_code=POLL_IN, si_band=65, si_fd=4"),
        ((14, 0, -2, 0, 2, 7), "SIGALRM, si_code=SI_TIMER, si_timerid=0x2, si_overrun=0, "
         "si_int=7, si_ptr=0x7"),
        ((10, 22, 99, 0, 0), "SIGUSR1, si_code=0x63, si_errno=EINVAL"),
    ],
)  # fmt: skip
def test_what_comes_with_a_signal(fields: tuple[int, ...], text: str) -> None:
    """From include/uapi/asm-generic/siginfo.h; in strace 7.2's order."""
    info = struct.pack("<3iI", *fields[:4]) + b"".join(
        struct.pack("<Q", number) for number in fields[4:]
    )
    line = signal_line(Signal(fields[0], info.ljust(48, b"\0").hex()), strace.Manner().names)
    assert line.partition("{si_signo=")[2].removesuffix("} ---") == text


@pytest.mark.parametrize("info", ["", "zz", "00", "ff" * 48, "ff" * 4000])
def test_hostile_signals(info: str) -> None:
    """No info of a trace makes it raise, or is long."""
    for number in (0, 5, 11, 17, 29, 31, 64, 1 << 40, -1):
        line = signal_line(Signal(number, info), strace.Manner().names)
        assert line.startswith("--- ")
        assert len(line) < 400


def both(tmp_path: Path, words: list[str], program: list[str]) -> tuple[list[str], list[str]]:
    """What bpfstrace and strace print, to stderr and (``-o``) to a file, processes numbered."""
    told = []
    for name, tracer in {
        "bpfstrace": [sys.executable, "-m", "bpftrace_sys", "--no-config", "--style", "strace"],
        "strace": ["strace"],
    }.items():
        out = tmp_path / name
        to = ["-o", str(out)] if "-o" in words else []
        options = [word for word in words if word != "-o"]
        ran = subprocess.run(
            [*tracer, *to, *options, *program],
            capture_output=True, text=True, check=False, env=environment(),
        )  # fmt: skip
        stderr = re.sub(rf"^\S*{name}: (WARNING: Proper.*\n)?", "", ran.stderr, flags=re.M)
        # Of which program an id is, differs; and 6.1 has next_id as passed, too.
        text = re.sub(r"\(BPF_.*", "", stderr + (out.read_text() if to else ""))
        told.append(lines_of(text))
    return told[0], told[1]


@pytest.mark.live
@pytest.mark.parametrize(
    "options",
    [["-q"], ["-qq"], ["-qqq"], ["--quiet"], ["--quiet=exit"], ["-e", "quiet=superseded,attach"],
     ["-o", "--quiet=none"], ["-q", "-e", "signal=!chld,term"]],
    ids=" ".join,
)  # fmt: skip
def test_quiet_beside_strace(options: list[str], tmp_path: Path) -> None:
    """-q is about attaching only, here, too; -qq about ends, -qqq about all."""
    needs_tool("strace")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    words = [*options, "-f", "-e", "trace=none"]
    ours, theirs = both(tmp_path, words, [sys.executable, str(program), "fork"])
    assert ours == theirs
    assert ("signal" in str(options)) is not any("SIGTERM" in line for line in theirs)
    if options == ["-q"]:  # and where a thread executes
        ours, theirs = both(tmp_path, words, [sys.executable, str(program), "thread"])
        assert ours == theirs
        assert "+++ superseded by execve in pid P1 +++" in [re.sub("P.", "P1", x) for x in theirs]


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program of 32 bits, which needs no libraries."""
    path = tmp_path_factory.mktemp("narrow") / "program"
    clang = [
        "clang", "-m32", "-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-pie",
        "-fno-stack-protector", "-o", str(path), str(TRACEES / "stacks" / "i386.c"),
    ]  # fmt: skip
    if os.uname().machine != "x86_64" or subprocess.run(clang, check=False).returncode:
        pytest.skip("needs clang -m32 on x86-64")
    return str(path)


@pytest.mark.live
@pytest.mark.parametrize(
    "options", [[], ["-f"], ["-f", "-o"], ["-f", "-o", "--quiet=none"], ["-q"]],
    ids=" ".join,
)  # fmt: skip
def test_32_bits_beside_strace(options: list[str], narrow: str, tmp_path: Path) -> None:
    """A line of the output, as strace's, with whose it is; a 64-bit shell is its parent."""
    needs_tool("strace")
    program = ["sh", "-c", f"{narrow}; :"] if "-f" in options else [narrow]
    ours, theirs = both(tmp_path, [*options, "-e", "trace=bpf"], program)
    assert ours == theirs
    said = any(" bit mode. ]" in line for line in theirs)
    assert said is (options not in (["-q"], ["-f", "-o"]))


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
