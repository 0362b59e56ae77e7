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

from bpftrace_sys import inject
from bpftrace_sys.options import UNSUPPORTED, UsageError, bpf_commands, parse
from tests.conftest import environment, run_cli

# Asks for the first program's id three times: a bpf(2) call that needs nothing.
ASK = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
for _ in range(3):
    ret = libc.syscall(BPF, 11, ctypes.create_string_buffer(12), 12)
    print(ret, ctypes.get_errno() if ret < 0 else 0, flush=True)
"""
CALL = "bpf(BPF_PROG_GET_NEXT_ID"

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
        (["-r"], r"^\[\d+\]  {4}0\.\d{6} bpf"),
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


def test_a_file_a_thread(tmp_path: Path) -> None:
    base = tmp_path / "out"
    script = f"{sys.executable} -c '{ASK}'; true"
    done = run_cli("-ff", "-e", "trace=bpf", "-o", str(base), "sh", "-c", f"({script}); {script}")
    assert done.returncode == 0, done.stderr
    files = sorted(tmp_path.glob("out.*"))
    assert len(files) == 2
    for file in files:
        tid = file.name.rpartition(".")[2]
        text = file.read_text()
        assert text.count(CALL) == 3
        assert set(re.findall(r"^\[(\d+)\]", text, re.M)) == {tid}
    refused = run_cli("-ff", "true")
    assert refused.returncode == 2
    assert "-ff needs -o FILE" in refused.stderr


def test_a_file_a_thread_in_strace_s_style(tmp_path: Path) -> None:
    base = tmp_path / "out"
    done = run_cli(
        "-ff", "--style", "strace", "-e", "trace=bpf", "-o", str(base), sys.executable, "-c", ASK
    )
    assert done.returncode == 0, done.stderr
    [file] = tmp_path.glob("out.*")
    assert file.read_text().count("bpf(BPF_PROG_GET_NEXT_ID, {start_id=0, ") == 3


def test_status_selects() -> None:
    counts = {
        status: len(lines("-e", f"status={status}", "-e", "inject=bpf:error=EPERM:when=2")[0])
        for status in ("successful", "failed", "unfinished")
    }
    # On a machine without programs the asking itself fails; then all three do.
    assert counts["failed"] in (1, 3)
    assert counts["successful"] == 3 - counts["failed"]
    assert counts["unfinished"] == 0


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


@pytest.mark.parametrize(
    "rule",
    ["bpf", "bpf:error=EFOO", "bpf:when=0:error=EPERM", "write:error=EPERM", "bpf:frob=1",
     "ioctl(prog_load):error=EPERM", "bpf(frobnicate):error=EPERM", "bpf:retval=-1"],
)
def test_a_bad_rule_is_named(rule: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(["-e", f"inject={rule}", "true"], "live")
    assert rule.split(":")[0].split("(")[0] in str(raised.value)


def test_when() -> None:
    def hits(text: str) -> list[int]:
        chosen = inject.when(text)
        return [count for count in range(1, 10) if chosen.wants(count)]

    assert hits("3") == [3]
    assert hits("3+") == [3, 4, 5, 6, 7, 8, 9]
    assert hits("3+4") == [3, 7]
    assert hits("2..5") == [2, 3, 4, 5]
    assert hits("2..7+2") == [2, 4, 6]


def test_commands() -> None:
    assert bpf_commands(("prog_load", "map_*", "!map_freeze")) >= {5, 0, 1, 2}
    assert 22 not in bpf_commands(("map_*", "!map_freeze"))
    assert 5 not in bpf_commands(("!prog_load",))
    assert 0 in bpf_commands(("!prog_load",))
    assert bpf_commands(("BPF_PROG_RUN",)) == {10}
    with pytest.raises(UsageError, match="no such bpf command"):
        bpf_commands(("frobnicate",))


@pytest.mark.parametrize("letter", sorted(UNSUPPORTED))
def test_what_is_not_supported_is_refused_by_name(letter: str) -> None:
    done = run_cli(f"-{letter}", "true")
    assert done.returncode == 2
    assert f"-{letter} is not supported: " in done.stderr


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
                deadline = time.monotonic() + 20
                while time.monotonic() < deadline:
                    if trace.exists() and trace.read_text().count("GET_NEXT_ID") > 20:
                        break
                    time.sleep(0.05)
                tracer.send_signal(signal.SIGINT)
                code = tracer.wait(20)
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
    assert code in (0, -signal.SIGINT, 130)


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
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and text.read_text().count(CALL) < 3:
        time.sleep(0.05)
    assert text.read_text().count(CALL) == 3
