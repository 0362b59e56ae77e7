"""Options that strace's users reach for, on real programs."""

from __future__ import annotations

import errno
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
from bpftrace_sys.cli.options import UsageError, parse
from bpftrace_sys.cli.settings import TRACED
from bpftrace_sys.cli.unsupported import UNSUPPORTED
from bpftrace_sys.record.capture import inject
from tests.support.needs import needs_tool
from tests.support.running import environment, run_cli

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


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ("-t", r"^\d\d:\d\d:\d\d bpf\(.*\) += "),
        ("--absolute-timestamps=unix,ms", r"^\d{10}\.\d{3} bpf\(.*\) += "),
        ("-r", r"^ {5}0\.\d{6} bpf\(.*\) += "),
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


def test_append(tmp_path: Path) -> None:
    """-A leaves what stands in the file, and what is written to it meanwhile."""
    text = tmp_path / "text"
    text.write_text("before\n")
    for options in (["-A", "-o", str(text)], ["--output-append-mode", f"--output={text}"]):
        lines(*options)
    assert text.read_text().startswith("before\n")
    assert text.read_text().count(CALL) == 6
    lines("-o", str(text))
    assert text.read_text().count(CALL) == 3


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


@pytest.mark.parametrize("names", sorted(UNSUPPORTED))
def test_what_is_not_supported_is_refused_by_name(names: str) -> None:
    for flag in names.split(", "):
        for words in ([flag], [f"{flag}=x"] if flag.startswith("--") else [f"{flag}x"]):
            with pytest.raises(UsageError, match=f"^{flag} is not supported: "):
                parse([*words, "true"], "live")
    done = run_cli(names.split(", ")[0], "true")
    assert done.returncode == 2
    assert " is not supported: " in done.stderr


STRACE: dict[str, dict[str, object]] = {
    "-A -o x": {"append": True, "output": "x"},
    "--output-append-mode --output=x": {"append": True, "output": "x"},
    "-C": {},
    "--summary": {},
    "-w": {},
    "--summary-wall-clock": {},
    "--seccomp-bpf": {"seccomp": True},
    "-c": {"counts": True},
    "--summary-only": {"counts": True},
    "-D": {"background": 1},
    "-DDD": {"background": 3},
    "--daemonize": {"background": 1},
    "--daemonize=grandchild": {"background": 1},
    "--daemonize=pgroup": {"background": 2},
    "--daemonize=pgrp": {"background": 2},
    "--daemonize=session": {"background": 3},
    "-f": {"follow": True, "split": False},
    "--follow-forks": {"follow": True, "split": False},
    "-ff -o x": {"follow": True, "split": True},
    "--follow-forks --output-separately -o x": {"follow": True, "split": True},
    "-I 2": {"interruptible": 2},
    "--interruptible=anywhere": {"interruptible": 1},
    "--interruptible waiting": {"interruptible": 2},
    "-I never": {"interruptible": 3},
    "--interruptible=never_tstp": {"interruptible": 4},
    "--env=A=1 --env A": {"environment": {"A": None}},
    "-E A=1 -E B=2 -E A=3": {"environment": {"A": "3", "B": "2"}},
    "--user=nobody": {"user": "nobody"},
    "--argv0=x": {"argv0": "x"},
    "--trace=bpf": {"traced": ("bpf",)},
    "--trace=all": {"explicit": frozenset({*TRACED})},
    "-e trace=!openat,ioctl": {"traced": ("bpf", "perf_event_open", "setsockopt")},
    "-e trace=bpf,?openat2": {"traced": ("bpf",), "explicit": frozenset({"bpf"})},
    "-e signal=none": {},
    "--signal=none": {},
    "--status=failed": {"statuses": frozenset({"failed"})},
    "-e status=!failed": {"statuses": frozenset({"successful", "unfinished"})},
    "-e status=all": {"statuses": frozenset({"successful", "failed", "unfinished"})},
    "--trace-path=/x -P /y": {"paths": ("/x", "/y")},
    "--successful-only": {"succeeded": True},
    "--failed-only": {"succeeded": False},
    "--failing-only": {"succeeded": False},
    "--columns 60 --style strace": {"column": 60},
    "--columns=60 --style=strace": {"column": 60},
    "--abbrev=none": {"verbose": True},
    "-e abbrev=none": {"verbose": True},
    "-e abbrev=all": {"verbose": False},
    "-e verbose=all": {"verbose": True},
    "--verbose=all": {"verbose": True},
    "--no-abbrev": {"verbose": True},
    "-q": {"quiet": True},
    "-qqq": {"quiet": True},
    "--quiet": {"quiet": True},
    "--quiet=attach,personality": {"quiet": False},
    "--quiet=attach,personality,exit": {"quiet": True},
    "-e quiet=all": {"quiet": True},
    "--silence=exit": {"quiet": True},
    "--decode-fds": {},
    "-yy": {},
    "--decode-fds=all": {},
    "-e decode-fds=path,dev,pidfd,socket": {},
    "-Y": {"comms": True},
    "--decode-pids=comm": {"comms": True},
    "-e decode-pids=comm": {"comms": True},
    "-t": {"times": "time.s"},
    "-tt": {"times": "time.us"},
    "-ttt": {"times": "unix.us"},
    "--absolute-timestamps": {"times": "time.s"},
    "--timestamps=unix": {"times": "unix.s"},
    "--absolute-timestamps=unix,us": {"times": "unix.us"},
    "--absolute-timestamps=format:time,precision:ms": {"times": "time.ms"},
    "--absolute-timestamps=ns": {"times": "time.ns"},
    "--absolute-timestamps=none": {"times": ""},
    "-r": {"times": "relative.us"},
    "--relative-timestamps": {"times": "relative.us"},
    "--relative-timestamps=ms": {"times": "relative.ms"},
    "-T": {"spent": "us"},
    "--syscall-times=ns": {"spent": "ns"},
    "--string-limit=9": {"string_limit": 9},
    "--attach=1,2 -p 3": {"pids": (1, 2, 3)},
    "-p 1\t2\n3": {"pids": (1, 2, 3)},
    "--kill-on-exit": {"kill": True},
}
"""What strace takes, and what it is taken for here."""


@pytest.mark.parametrize("line", STRACE)
def test_what_strace_takes_is_taken(line: str) -> None:
    settings = parse([*line.split(" "), "true"], "live")
    assert settings.args == ["true"]
    assert {name: getattr(settings, name) for name in STRACE[line]} == STRACE[line]


def test_rules_for_several_calls_and_faults() -> None:
    rules = parse(["-e", "inject=bpf(map_*,prog_load),ioctl:error=EPERM", "x"], "live").injections
    assert [rule.syscall for rule in rules] == ["bpf", "ioctl"]
    assert {rule.ret for rule in rules} == {-errno.EPERM}
    [rule] = parse(["--fault=bpf:when=2", "x"], "live").injections
    assert (rule.ret, rule.when.first) == (-errno.ENOSYS, 2)
    [rule] = parse(["-e", "fault=bpf:error=EBUSY", "x"], "live").injections
    assert rule.ret == -errno.EBUSY


SENTENCES = {
    "-e raw=bpf": "-e raw= is not supported: ",
    "-e read=3": "-e read= is not supported: ",
    "-e w=all": "-e w= is not supported: ",
    "-e kvm=vcpu": "-e kvm= is not supported: ",
    "-e signal=SIGINT": "signals are not shown",
    "--signal=all": "signals are not shown",
    "-e verbose=none": "always decoded",
    "-e abbrev=bpf": "all calls are folded, or none",
    "-e decode-pids=pidns": "own PID namespace",
    "-e decode-fds=none": "cannot be left out",
    "-e status=detached": "'unfinished' here",
    "-e status=frob": "'frob' is none of successful, failed, unfinished",
    "-e trace=%file": "'%file' is none of bpf, ",
    "-e trace=!all": "leaves no system call",
    "-e inject=bpf:signal=SIGUSR1": "signal= is not supported: no signals are sent",
    "-e inject=bpf:delay_enter=1": "delay_enter= is not supported",
    "-I 5": "1 (anywhere), 2 (waiting)",
    "--daemonize=forever": "grandchild, pgroup or session",
    "--syscall-times=weeks": "the precisions s, ms, us and ns",
    "-tttt": "one is enough",
    "-t -r": "one is enough",
    "--columns 60": "--style strace",
    "-a 60": "--columns 60",
    "-a": "-a watches everybody",
    "-a -p 1": "those of -p as well",
    "-a --engine ptrace": "-a needs --engine bpf",
    "--engine gdb": "ptrace or bpf",
    "--ring 8M": "--ring is for --engine bpf, or -a",
    "--engine bpf --ring lots": "takes a size, as 64M",
    "--engine bpf --ring 2G": "goes up to 1G",
    "-A": "-A needs -o FILE",
    "-c -ff -o x": "cannot be split",
    "-p 1 -D": "with -p there is none",
    "-p 1 -u root": "-u is for a program to run; with -p there is none",
    "-p 1 -E A=1": "-E is for a program to run; with -p there is none",
    "-p 1 --argv0 x": "--argv0 is for a program to run; with -p there is none",
    "-p 1 --same-cpu": "--same-cpu is for a program to run; with -p there is none",
    "-p 1 --kill-on-exit": "--kill-on-exit is for a program to run; with -p there is none",
}


@pytest.mark.parametrize("line", SENTENCES)
def test_what_is_refused_is_refused_in_words(line: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse([*line.split(" "), "true"], "live")
    assert SENTENCES[line] in str(raised.value)


def test_no_option_of_strace_is_unknown() -> None:
    """Whatever the installed strace's help names is taken, or refused with a reason."""
    needs_tool("strace")
    told = subprocess.run(["strace", "--help"], capture_output=True, text=True, check=True).stdout
    flags = set(re.findall(r"^ +(-\w)\b|(--[a-z][a-z0-9-]+)", told, re.M))
    flags = {short or long for short, long in flags}
    assert len(flags) > 60
    unknown = []
    for flag in sorted(flags - {"--help", "-h"}):
        for words in ([flag], [flag, "1"]):
            try:
                parse([*words, "true"], "live")
            except UsageError as error:
                if "not recognized" in str(error):
                    unknown.append(flag)
    assert not unknown


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
