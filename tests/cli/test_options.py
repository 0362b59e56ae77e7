"""Options that strace's users reach for, on real programs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bpftrace_sys.cli.expressions import bpf_commands
from bpftrace_sys.cli.options import UsageError
from tests.support.asking import ASK, CALL
from tests.support.running import environment, run_cli

pytestmark = pytest.mark.usefixtures("needs_bpf")


def lines(*options: str) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """The lines of the calls of ASK."""
    done = run_cli("-e", "trace=bpf", *options, sys.executable, "-c", ASK)
    return [line for line in done.stderr.splitlines() if CALL in line], done


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (["-t"], r"^\[\d+\] \d\d:\d\d:\d\d bpf"),
        (["-tt"], r"^\[\d+\] \d\d:\d\d:\d\d\.\d{6} bpf"),
        (["-t", "-t", "-t"], r"^\[\d+\] \d{10}\.\d{6} bpf"),
        (["-r", "-t"], r"^\[\d+\] \d\d:\d\d:\d\d \(\+ {5}0\.\d{6}\) bpf"),
        (["-r"], r"^\[\d+\]  {5}0\.\d{6} bpf"),
        (["-Y"], r"^\[\d+<python[^>]*>\] bpf"),
        ([], r"^\[\d+\] bpf"),
    ],
)
def test_what_stands_before_a_call(options: list[str], pattern: str) -> None:
    found, done = lines(*options)
    assert len(found) == 3, done.stderr
    assert all(re.match(pattern, line) for line in found), found


def test_the_times_are_the_calls(tmp_path: Path) -> None:
    before = time.time()
    found, _ = lines("-ttt")
    after = time.time()
    stamps = [float(line.split()[1]) for line in found]
    assert before <= stamps[0] <= stamps[1] <= stamps[2] <= after


def test_time_spent() -> None:
    done = run_cli("-T", "-e", "trace=bpf", sys.executable, "-c", ASK)
    assert len(re.findall(r"<0\.\d{6}>$", done.stderr, re.M)) >= 2


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ("-t", r"^\d\d:\d\d:\d\d bpf\(.*\) += "),
        ("--absolute-timestamps=unix,ms", r"^\d{10}\.\d{3} bpf\(.*\) += "),
        ("-r", r"^ {5}0\.\d{6} bpf\(.*\) += "),
        ("-ttt -r", r"^\d{10}\.\d{6} \(\+ {5}0\.\d{6}\) bpf\(.*\) += "),
        ("-T", r"^bpf\(.*\) += .* <0\.\d{6}>$"),
        ("--syscall-times=ns", r"^bpf\(.*\) += .* <0\.\d{9}>$"),
        ("-f -Y", r"^\[pid +\d+<python[^>]*>\] bpf\(.*\) += "),
    ],
)
def test_times_and_names_in_strace_s_style(options: str, pattern: str) -> None:
    script = "import os, time\nif not os.fork(): time.sleep(60)\n" if "-f" in options else ""
    done = run_cli(
        "--style", "strace", "-e", "trace=bpf", *options.split(), sys.executable, "-c",
        script + ASK + "os.kill(0, 15)\n" * bool(script), start_new_session=True,
    )  # fmt: skip
    found = [line for line in done.stderr.splitlines() if CALL in line]
    assert len(found) == 3, done.stderr
    assert all(re.match(pattern, line) for line in found), found


def test_status_selects() -> None:
    # There is a map then, whatever others do.
    makes_one = (
        "attr = struct.pack('=4I', 2, 4, 4, 1) + bytes(60)\n"  # an array
        "assert libc.syscall(BPF, 0, attr, len(attr)) > 0\n"
    )
    script = ASK.replace("for _", f"{makes_one}for _").replace("11,", "12,")
    counts = {}
    for status in ("successful", "failed", "unfinished"):
        done = run_cli(
            "-e", "trace=bpf", "-e", f"status={status}", "-e", "inject=bpf:error=EPERM:when=2",
            sys.executable, "-c", f"import struct{script}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        counts[status] = done.stderr.count("bpf(BPF_MAP_GET_NEXT_ID")
    assert counts == {"successful": 2, "failed": 1, "unfinished": 0}


@pytest.mark.parametrize(
    ("when", "hit"), [("", "123"), (":when=2", "2"), (":when=2+", "23"), (":when=1+2", "13")]
)
def test_inject_fails_calls_without_executing_them(when: str, hit: str) -> None:
    found, done = lines("-e", f"inject=bpf(prog_get_*):error=EXDEV{when}")
    said = done.stdout.split("\n")
    for number in range(1, 4):
        injected = str(number) in hit
        assert (said[number - 1] == "-1 18") is injected, done.stdout
    text = done.stderr
    assert text.count("(INJECTED)") == len(hit)
    assert text.count("EXDEV") == len(hit)
    assert len(found) == 3


def test_inject_by_name_and_value(tmp_path: Path) -> None:
    hello = [sys.executable, "-m", "bpftrace_sys.hello"]
    done = run_cli("-f", "-e", "inject=bpf(prog_load,name=hello*):error=EACCES", *hello)
    assert done.returncode == 1
    assert "EACCES" in done.stdout + done.stderr
    other = run_cli("-f", "-e", "inject=bpf(prog_load,name=other):error=EACCES", *hello)
    assert other.returncode == 0, other.stderr
    _, value = lines("-e", "inject=bpf:retval=77:when=1")
    assert value.stdout.startswith("77 0")


def test_a_returned_error_is_one() -> None:
    _, done = lines("-e", "inject=bpf:retval=-7:when=2")
    assert done.stdout.splitlines()[1] == "-1 7"
    assert "= -1 E2BIG (Argument list too long) (INJECTED)" in done.stderr


def test_commands() -> None:
    assert bpf_commands(("prog_load", "map_*", "!map_freeze")) >= {5, 0, 1, 2}
    assert 22 not in bpf_commands(("map_*", "!map_freeze"))
    assert 5 not in bpf_commands(("!prog_load",))
    assert 0 in bpf_commands(("!prog_load",))
    assert bpf_commands(("BPF_PROG_RUN",)) == {10}
    with pytest.raises(UsageError, match="no such bpf command"):
        bpf_commands(("frobnicate",))


def test_user_environment_and_name(tmp_path: Path) -> None:
    script = 'echo "$(id -un) $0 $FOO ${HOME-none}"'
    done = run_cli(
        "-q", "-u", "nobody", "-E", "FOO=a b", "-E", "HOME", "--argv0", "me",
        "sh", "-c", script, env=environment(HOME="/root"),
    )  # fmt: skip
    assert done.stdout.split()[0] == "nobody"
    assert "a b none" in done.stdout
    shown = run_cli("-q", "--argv0", "other", "cat", "/proc/self/cmdline")
    assert shown.stdout.startswith("other\0")
    nameless = run_cli("-q", "--argv0=", "cat", "/proc/self/cmdline")
    assert nameless.stdout == "\0/proc/self/cmdline\0"
    ids = run_cli("-q", "-u", "12345:54321", "id")
    assert ids.stdout == "uid=12345 gid=54321 groups=54321\n"
    assert "no such ids" in run_cli("-u", "1:99999999999", "true").stderr
    gone = run_cli("-u", "nobody-at-all", "true")
    assert gone.returncode != 0
    assert "nobody-at-all" in gone.stderr
    assert "Traceback" not in gone.stderr


def test_attach_and_leave(tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    forever = ASK.replace("range(3)", "iter(int, 1)").replace("import ", "import time, ", 1)
    forever = forever.replace("    ret", "    time.sleep(0.01); ret")
    with subprocess.Popen([sys.executable, "-c", forever], stdout=subprocess.DEVNULL) as target:
        try:
            with subprocess.Popen(
                [sys.executable, "-m", "bpftrace_sys", "-q", "-o", str(tmp_path / "t.txt"),
                 "--json", str(trace), "-p", str(target.pid)],
                env=environment(),
            ) as tracer:  # fmt: skip
                deadline = time.monotonic() + 60
                while time.monotonic() < deadline:
                    if trace.exists() and trace.read_text().count("GET_NEXT_ID") > 20:
                        break
                    time.sleep(0.05)
                tracer.send_signal(signal.SIGINT)
                code = tracer.wait(60)
            assert target.poll() is None, "the program was harmed"
            with open(f"/proc/{target.pid}/status") as status:
                assert re.search(r"^TracerPid:\s+0$", status.read(), re.M)
            with open(f"/proc/{target.pid}/stat") as stat:
                assert stat.read().rpartition(")")[2].split()[0] in "SR"
        finally:
            target.kill()
    found = [json.loads(line) for line in trace.read_text().splitlines()]
    assert found[-1]["type"] == "end"
    pids = {line["pid"] for line in found if line["type"] == "syscall"}
    assert pids == {target.pid}
    assert code == -signal.SIGINT


def test_attach_that_cannot_be(tmp_path: Path) -> None:
    missing = run_cli("-p", "4194303")
    assert missing.returncode == 125
    assert "no process 4194303" in missing.stderr
    bad = run_cli("-p", "x")
    assert bad.returncode == 2
    assert "takes process ids" in bad.stderr


def test_tracer_in_the_background(tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    script = f"echo $PPID; exec {sys.executable} -c '{ASK}'"
    done = run_cli("-D", "-q", "-e", "trace=bpf", "-o", str(text), "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == str(os.getpid()), "the program is our own child"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and text.read_text().count(CALL) < 3:
        time.sleep(0.05)
    assert text.read_text().count(CALL) == 3


def test_same_cpu() -> None:
    """The program and its children see one CPU with the option, and all without."""
    mine = len(os.sched_getaffinity(0))
    if mine < 2:
        pytest.skip("one CPU only")
    seen = [sys.executable, "-S", "-E", "-c", "import os; print(len(os.sched_getaffinity(0)))"]
    script = ["sh", "-c", '"$@"; "$@"', "sh", *seen]
    for options in ([], ["-f"]):
        assert run_cli("-q", *options, *script).stdout.split() == [str(mine)] * 2
        assert run_cli("-q", *options, "--same-cpu", *script).stdout.split() == ["1"] * 2


def test_one_cpu_is_not_spun_on() -> None:
    """Where the tracee needs our CPU, polling for its next stop would keep it from that."""
    from bpftrace_sys.record.ptrace.pace import Pace

    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert Pace().polls == 0
    finally:
        os.sched_setaffinity(0, allowed)
    assert Pace().polls > 0 or len(allowed) == 1
