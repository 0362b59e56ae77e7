"""The command line: every option, exit codes, failures; and that a tracee does not notice."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys import __version__
from bpftrace_sys.cli.options import OPTIONS, UsageError, parse
from tests.support.running import environment, run_cli

PYTHON = sys.executable
NOBODY = 65534

# bpf(PROG_GET_NEXT_ID) and bpf(MAP_GET_NEXT_ID), which nobody needs a right to be refused;
# an openat of a dull path and of a telling one; a dull ioctl and a perf ioctl.
ASKS = """\
import ctypes, os, platform
libc = ctypes.CDLL(None)
bpf = {"x86_64": 321, "aarch64": 280}[platform.machine()]
attr = ctypes.create_string_buffer(64)
libc.syscall(bpf, 11, attr, 16)
libc.syscall(bpf, 12, attr, 16)
os.close(os.open("/dev/null", os.O_RDONLY))
try:
    os.close(os.open("/sys/fs/bpf/nowhere", os.O_RDONLY))
except OSError:
    pass
libc.ioctl(0, 0x5401, attr)
libc.ioctl(0, 0x2400, 0)
"""


def run(*words: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """bpfstrace, which never shows a traceback."""
    done = run_cli(*words, **kwargs)
    assert "Traceback" not in done.stderr
    return done


def plain(*words: str, **kwargs: Any) -> subprocess.CompletedProcess[bytes]:
    """A program without bpfstrace."""
    return subprocess.run(words, capture_output=True, timeout=60, check=False, **kwargs)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that others can read, too."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder.parent != folder:
            folder.chmod(folder.stat().st_mode | 0o055)
    return tmp_path


def script(folder: Path, name: str, text: str, mode: int = 0o755) -> Path:
    """A file to execute."""
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return path


# ------------------------------------------------------------------ help and usage


def test_help_names_every_option_and_shows_examples() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for option in OPTIONS:
        assert f"--{option.long}" in done.stdout
    assert "examples:" in done.stdout
    assert "bpfstrace replay" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version(flag: str) -> None:
    assert run(flag).stdout == f"bpfstrace {__version__}\n"


BAD = {
    "unknown long": (["--bogus", "true"], "--bogus"),
    "unknown short": (["-0", "true"], "-0"),
    "no program": ([], "no program"),
    "only options": (["-f", "-q"], "no program"),
    "-e without": (["-e"], "-e"),
    "-e unknown call": (["-e", "trace=execve", "true"], "execve"),
    "-e one of two unknown": (["-e", "trace=bpf,close", "true"], "close"),
    "-e none": (["-e", "trace=", "true"], "names no system call"),
    "-e only commas": (["-e", "trace=,,", "true"], "names no system call"),
    "-e other key": (["-e", "colour=none", "true"], "colour"),
    "-e signals": (["-e", "signal=SIGINT", "true"], "signals are not shown"),
    "-s word": (["-s", "many", "true"], "-s"),
    "-s negative": (["-s", "-5", "true"], "-s"),
    "-s superscript": (["-s", "²", "true"], "-s"),
    "-o without": (["-o"], "-o"),
    "argument to a flag": (["--quiet=yes", "true"], "quiet"),
    "replay nothing": (["replay"], "one trace file"),
    "replay two": (["replay", "a", "b"], "one trace file"),
    "replay -f": (["replay", "-f", "a"], "-f"),
    "disasm nothing": (["disasm"], "disasm"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_usage_is_said_and_is_2(name: str) -> None:
    words, hint = BAD[name]
    done = run(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert hint in done.stderr.splitlines()[0]
    assert "--help" in done.stderr


def test_options_after_the_program_are_its_own(tmp_path: Path) -> None:
    done = run("-q", "echo", "-v", "--json", "x", "-o", "y", "--help", cwd=tmp_path)
    assert done.stdout == "-v --json x -o y --help\n"
    assert not list(tmp_path.iterdir())


def test_two_dashes_end_the_options() -> None:
    assert run("-q", "--", "echo", "-q", "x").stdout == "-q x\n"


def test_a_program_called_replay_can_be_traced(place: Path) -> None:
    script(place, "replay", "#!/bin/sh\necho I am a program: $1\nexit 3\n")
    env = environment(PATH=f"{place}:{os.environ['PATH']}")
    for words in (["--", "replay", "x"], ["-q", "replay", "x"], ["-f", "--", "replay", "x"]):
        done = run(*words, env=env)
        assert (done.returncode, done.stdout) == (3, "I am a program: x\n")


def test_a_first_word_replay_is_the_subcommand(place: Path) -> None:
    script(place, "replay", "#!/bin/sh\necho I am a program\n")
    done = run("replay", "none.jsonl", env=environment(PATH=f"{place}:{os.environ['PATH']}"))
    assert done.returncode == 2
    assert "none.jsonl: No such file or directory" in done.stderr


@pytest.mark.parametrize(
    ("words", "traced", "explicit"),
    [
        ([], "bpf perf_event_open ioctl openat setsockopt", ""),
        (["-e", "trace=bpf"], "bpf", "bpf"),
        (["-e", "bpf"], "bpf", "bpf"),
        (["-etrace=openat,bpf"], "bpf openat", "bpf openat"),
        (["--expr=trace=ioctl"], "ioctl", "ioctl"),
        (["-e", "trace=bpf,bpf"], "bpf", "bpf"),
        (["-e", "t=perf_event_open"], "perf_event_open", "perf_event_open"),
    ],
)
def test_expressions(words: list[str], traced: str, explicit: str) -> None:
    settings = parse([*words, "true"], "live")
    assert settings.traced == tuple(traced.split())
    assert settings.explicit == set(explicit.split())
    assert settings.args == ["true"]


def test_long_options_may_be_shortened_while_clear() -> None:
    assert parse(["--verb", "true"], "live").verbose
    with pytest.raises(UsageError, match="not a unique prefix"):
        parse(["--s", "true"], "live")


# ------------------------------------------------------------------ what is shown



INTERESTING = [
    "bpf BPF_PROG_GET_NEXT_ID",
    "bpf BPF_MAP_GET_NEXT_ID",
    'openat "/sys/fs/bpf/nowhere"',
    "ioctl 0</dev/null> PERF_EVENT_IOC_ENABLE",
]


def shown(*options: str) -> list[str]:
    """What was shown of ASKS, from its first bpf() or open on."""
    done = run("-q", *options, PYTHON, "-S", "-c", ASKS, stdin=subprocess.DEVNULL)
    assert done.returncode == 0
    found = []
    for line in done.stderr.splitlines():
        if line.startswith("  why: "):
            continue
        match = re.match(r"\[\d+\] (\w+)\((?:AT_FDCWD, )?([^,)]*)(?:, (\w+))?", line)
        assert match, line
        name, first, second = match.groups()
        found.append(f"{name} {first}" + (f" {second}" if name == "ioctl" else ""))
    return found


def test_by_default_only_what_belongs_to_bpf_is_shown() -> None:
    assert shown() == INTERESTING


def test_without_seccomp_the_same_is_shown() -> None:
    assert shown("--no-seccomp") == INTERESTING


@pytest.mark.parametrize("call", ["bpf", "openat", "ioctl", "perf_event_open"])
def test_a_subset_shows_nothing_else(call: str) -> None:
    found = shown("-e", f"trace={call}")
    assert {line.split()[0] for line in found} == ({call} if call != "perf_event_open" else set())


@pytest.mark.parametrize("seccomp", [[], ["--no-seccomp"]])
def test_calls_that_are_named_are_all_shown(seccomp: list[str]) -> None:
    found = shown("-e", "trace=openat,ioctl", *seccomp)
    assert 'openat "/dev/null"' in found
    assert 'openat "/sys/fs/bpf/nowhere"' in found
    assert any("0x5401" in line or "TCGETS" in line for line in found)
    assert "ioctl 0</dev/null> PERF_EVENT_IOC_ENABLE" in found
    assert not any(line.startswith("bpf") for line in found)


def test_naming_one_call_leaves_the_other_as_it_was() -> None:
    found = shown("-e", "trace=openat")
    assert 'openat "/dev/null"' in found
    assert not any(line.startswith("ioctl") for line in found)


def test_openat_shows_path_flags_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "new"
    program = f"import os; os.open({str(path)!r}, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)"
    done = run("-q", "-e", "trace=openat", PYTHON, "-c", program)
    line = next(line for line in done.stderr.splitlines() if str(path) in line)
    assert f'openat(AT_FDCWD, "{path}", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0640) = ' in line
    assert "0640" not in next(line for line in done.stderr.splitlines() if "O_RDONLY" in line)


def test_quiet_says_nothing_of_ends() -> None:
    assert run("-q", "true").stderr == ""
    assert re.fullmatch(r"\[\d+\] \+\+\+ exited with 0 \+\+\+\n", run("true").stderr)


def test_the_string_limit_cuts_strings_but_no_paths() -> None:
    program = ASKS.replace("nowhere", "n" * 100)
    done = run("-s", "3", PYTHON, "-c", program)
    assert "n" * 100 in done.stderr


def test_text_goes_to_a_file_and_json_to_another(tmp_path: Path) -> None:
    text, trace = tmp_path / "t.txt", tmp_path / "t.jsonl"
    done = run("-o", str(text), "--json", str(trace), PYTHON, "-c", ASKS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "BPF_PROG_GET_NEXT_ID" in text.read_text()
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    assert (lines[0]["type"], lines[-1]["type"]) == ("trace", "end")
    # The trace holds the tracee's memory, so it is for its owner only.
    assert trace.stat().st_mode & 0o077 == 0


def test_json_dash_is_stdout_and_text_stays_on_stderr() -> None:
    done = run("--json", "-", PYTHON, "-c", ASKS)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["args"]["cmd"] for line in lines if line.get("syscall") == "bpf"] == [
        "BPF_PROG_GET_NEXT_ID",
        "BPF_MAP_GET_NEXT_ID",
    ]
    assert "bpf(BPF_PROG_GET_NEXT_ID" in done.stderr


# ------------------------------------------------------------------ failures


def test_not_found() -> None:
    done = run("no-such-program-at-all")
    assert done.returncode == 127
    assert done.stderr == "bpfstrace: no-such-program-at-all: no such program in PATH\n"
    done = run("./no-such-program")
    assert done.returncode == 127
    assert done.stderr == "bpfstrace: ./no-such-program: no such program\n"
    assert run("/etc/passwd/x").returncode == 127
    assert run("").returncode == 127


def test_not_executable(place: Path) -> None:
    script(place, "data", "just text\n", 0o644)
    done = run("./data", cwd=place)
    assert done.returncode == 126
    assert done.stderr.startswith("bpfstrace: ./data: Permission denied")
    done = run(".", cwd=place)
    assert (done.returncode, done.stderr) == (126, "bpfstrace: .: is a directory\n")
    done = run(str(place))
    assert (done.returncode, done.stderr) == (126, f"bpfstrace: {place}: is a directory\n")


def test_a_script_without_its_first_line(place: Path) -> None:
    script(place, "hello.py", "print('hello')\n")
    script(place, "other", "echo hello\n")
    done = run("./hello.py", cwd=place)
    assert done.returncode == 126
    assert done.stderr == (
        "bpfstrace: Exec format error: hello.py has no #! line; "
        "try: bpfstrace python3 hello.py\n"
    )
    done = run("./other", cwd=place)
    assert done.returncode == 126
    assert done.stderr == "bpfstrace: Exec format error: other has no #! line\n"
    # What it advises works.
    assert run("-q", "python3", "hello.py", cwd=place).stdout == "hello\n"


def test_a_program_for_another_machine(place: Path) -> None:
    elf = bytearray(Path("/bin/true").read_bytes())
    elf[18:20] = struct.pack("<H", 8)  # e_machine: MIPS
    (place / "mips").write_bytes(elf)
    (place / "mips").chmod(0o755)
    done = run(str(place / "mips"))
    assert done.returncode == 126
    assert "Exec format error" in done.stderr
    assert "#!" not in done.stderr


def test_an_interpreter_that_is_not_there(place: Path) -> None:
    script(place, "odd", "#!/opt/no/such/python9 -x\n")
    done = run(str(place / "odd"))
    assert done.returncode == 127
    assert "#! line names /opt/no/such/python9" in done.stderr


@pytest.mark.parametrize("option", ["-o", "--json"])
@pytest.mark.parametrize(
    ("path", "why"), [("/nonexistent/file", "No such file"), ("/", "Is a directory")]
)
def test_output_that_cannot_be_opened(option: str, path: str, why: str, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    done = run(option, path, "touch", str(witness))
    assert done.returncode == 125
    assert done.stderr.startswith(f"bpfstrace: cannot write {path}: {why}")
    assert not witness.exists()


@pytest.mark.parametrize("option", ["-o", "--json"])
def test_output_that_fills_up_is_told_and_the_tracee_goes_on(option: str, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    program = ASKS + f"open({str(witness)!r}, 'w').close()"
    done = run(option, "/dev/full", PYTHON, "-c", program)
    assert done.returncode == 125
    assert "output to /dev/full was lost: No space left on device" in done.stderr
    assert witness.exists()


def test_a_pipe_that_closes_does_not_stop_the_tracee(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    program = ASKS * 200 + f"open({str(witness)!r}, 'w').close()"
    words = [PYTHON, "-m", "bpftrace_sys", "--json", "-", "-o", os.devnull, PYTHON, "-c", program]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as traced:
        assert traced.stdout is not None
        assert traced.stderr is not None
        traced.stdout.readline()
        traced.stdout.close()
        stderr = traced.stderr.read().decode()
        assert traced.wait(60) != 0
    assert witness.exists()
    assert "Traceback" not in stderr


def forbidding_ptrace() -> str:
    """Python that installs a seccomp filter under which ptrace(2) fails, and executes argv."""
    number = {"x86_64": 101, "aarch64": 117}[os.uname().machine]
    return (
        "import ctypes, os, struct, sys\n"
        f"rows = [(0x20, 0, 0, 0), (0x15, 0, 1, {number}), (6, 0, 0, 0x50001), "
        "(6, 0, 0, 0x7FFF0000)]\n"
        "code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *r) for r in rows))\n"
        "prog = struct.pack('HxxxxxxQ', len(rows), ctypes.addressof(code))\n"
        "libc = ctypes.CDLL(None)\n"
        "assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, prog, 0, 0) == 0\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )


@pytest.mark.parametrize("options", [[], ["--no-seccomp"], ["-f"]])
def test_where_ptrace_is_forbidden(options: list[str], tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    done = plain(
        PYTHON, "-c", forbidding_ptrace(), PYTHON, "-m", "bpftrace_sys", *options,
        "touch", str(witness), env=environment(),
    )  # fmt: skip
    stderr = done.stderr.decode()
    assert done.returncode == 125
    assert stderr.startswith("bpfstrace: ptrace is not permitted here: Operation not permitted")
    assert "container" in stderr
    assert stderr.count("\n") == 1
    assert not witness.exists()


def test_under_another_tracer(tmp_path: Path) -> None:
    """Who follows us has what we start before we could have it."""
    witness = tmp_path / "ran"
    for options, code in ((["-f"], 125), ([], 0)):
        outer = [PYTHON, "-m", "bpftrace_sys", *options, "-o", os.devnull]
        done = plain(
            *outer, PYTHON, "-m", "bpftrace_sys", "-q", "touch", str(witness), env=environment()
        )
        assert done.returncode == code
        assert witness.exists() is (code == 0)
        said = [line for line in done.stderr.decode().splitlines() if "not permitted here" in line]
        assert len(said) == (code != 0)
        assert all(re.search(r"\(\S+ \(\d+\) traces bpfstrace and", line) for line in said)


as_nobody = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become nobody")

# Everything is imported before, since nobody may be unable to read where it is installed;
# and a process that changed its user may not be traced, nor its children before their execve.
AS_NOBODY = f"""\
import ctypes, importlib, os, pkgutil, sys
import bpftrace_sys, decoders
for package in (bpftrace_sys, decoders):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
from bpftrace_sys.cli.main import main
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0  # PR_SET_DUMPABLE
sys.exit(main(sys.argv[1:]))
"""


def nobody(*words: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """bpfstrace as a user without rights."""
    done = subprocess.run(
        [PYTHON, "-c", AS_NOBODY, *words],
        capture_output=True, text=True, timeout=60, check=False, env=environment(), **kwargs,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


@as_nobody
@pytest.mark.parametrize("options", [[], ["--no-seccomp"]])
def test_without_privileges_the_refusals_are_shown(options: list[str]) -> None:
    done = nobody("-q", *options, "/usr/bin/python3", "-c", ASKS)
    assert done.returncode == 0
    assert re.search(r"bpf\(BPF_PROG_GET_NEXT_ID, .*\) = -1 EPERM \(Operation not permitted\)",
                     done.stderr)


@as_nobody
def test_a_program_that_may_be_executed_but_not_read(place: Path) -> None:
    # The kernel lets nobody look into such a process: what stands there is said to be
    # unreadable, and its own work goes on.
    copy = place / "python"
    copy.write_bytes(Path("/usr/bin/python3").resolve().read_bytes())
    copy.chmod(0o711)
    done = nobody(str(copy), "-S", "-c", ASKS + "print('done')")
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "bpf(BPF_PROG_GET_NEXT_ID, " in done.stderr
    assert "unreadable address" in done.stderr


# ------------------------------------------------------------------ transparency

ENDS = {
    "true": ["true"],
    "false": ["false"],
    "exit 7": ["sh", "-c", "exit 7"],
    "exit 255": ["sh", "-c", "exit 255"],
    "pipeline": ["sh", "-c", "printf 'b\\na\\n' | sort | tr a-z A-Z; exit 5"],
    "broken pipe": ["sh", "-c", "yes | head -n 2"],
    "TERM": ["sh", "-c", "echo before; kill -TERM $$; echo after"],
    "KILL": ["sh", "-c", "echo before; kill -KILL $$; echo after"],
    "SEGV": ["sh", "-c", "echo before; kill -SEGV $$; echo after"],
    "INT": ["sh", "-c", "kill -INT $$"],
    "PIPE": ["sh", "-c", "kill -PIPE $$"],
    "real-time signal": ["sh", "-c", "kill -40 $$"],
    "real fault": [PYTHON, "-c", "import ctypes; ctypes.string_at(0)"],
    "abort": [PYTHON, "-c", "import os; os.abort()"],
    "child dies": ["sh", "-c", "sh -c 'kill -KILL $$'; echo $?"],
    "handled": ["sh", "-c", "trap 'echo got it; exit 4' USR1; kill -USR1 $$; sleep 5"],
    "ignored": ["sh", "-c", "trap '' TERM; kill -TERM $$; echo alive"],
    "both streams": ["sh", "-c", "echo out; echo err >&2; exit 1"],
    "binary": [PYTHON, "-c", "import os; os.write(1, bytes(range(256)))"],
    "signal state": [
        "sh", "-c", "grep -E '^(SigBlk|SigIgn|SigCgt|NoNewPrivs)' /proc/self/status; umask",
    ],
    "environment": [
        PYTHON, "-S", "-c", "import os; print(sorted(k for k in os.environ if k != '_'))",
    ],
    "descriptors": ["sh", "-c", "ls /proc/$$/fd"],
    "stdin": ["sh", "-c", "read a; cat; echo first $a"],
}  # fmt: skip
MODES = {
    "": [],
    "-f": ["-f"],
    "--no-seccomp": ["--no-seccomp"],
    "-f --no-seccomp": ["-f", "--no-seccomp"],
}
SEVERAL = ("exit 7", "pipeline", "TERM", "KILL", "SEGV", "child dies", "handled", "stdin")
"""What is tried without the filter, too."""


@pytest.mark.parametrize(
    ("end", "mode"),
    [(end, mode) for end in ENDS for mode in MODES if "no" not in mode or end in SEVERAL],
)
def test_a_tracee_does_not_notice(end: str, mode: str, tmp_path: Path) -> None:
    env = environment()
    text = tmp_path / "text"
    given = {"input": b"one\ntwo\nthree\n", "env": env}
    alone = plain(*ENDS[end], **given)
    traced = plain(
        PYTHON, "-m", "bpftrace_sys", *MODES[mode], "-o", str(text), *ENDS[end], **given
    )
    if end == "signal state" and os.geteuid() != 0:
        pytest.skip("without CAP_SYS_ADMIN a filter needs no_new_privs, which shows")
    assert traced.returncode == alone.returncode
    assert traced.stdout == alone.stdout
    assert traced.stderr == alone.stderr
    last = text.read_text().splitlines()[-1]
    if alone.returncode < 0:
        try:
            name = signal.Signals(-alone.returncode).name
        except ValueError:
            name = f"signal {-alone.returncode}"
        assert f"+++ killed by {name}" in last
    else:
        assert last.endswith(f"+++ exited with {alone.returncode} +++")


@pytest.mark.parametrize("everybody", [True, False])
def test_a_signal_from_outside_reaches_the_tracee(everybody: bool) -> None:
    program = (
        "import os, signal, time; signal.signal(15, lambda *_: os._exit(9)); "
        "print('up', flush=True); [time.sleep(0.1) for _ in range(300)]"
    )
    words = [PYTHON, "-m", "bpftrace_sys", "-q", PYTHON, "-S", "-c", program]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        start_new_session=True,
    ) as traced:  # fmt: skip
        assert traced.stdout is not None
        assert traced.stdout.readline() == b"up\n"
        # To everybody, as timeout(1) does; or to bpfstrace, which hands it on.
        (os.killpg if everybody else os.kill)(traced.pid, signal.SIGTERM)
        assert traced.wait(20) == 9


def test_a_child_that_is_not_followed_lives_on(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    started = time.monotonic()
    done = run("-q", "sh", "-c", f"(sleep 1; echo later > {witness}) >/dev/null 2>&1 & exit 6")
    assert done.returncode == 6
    for _ in range(100):
        if witness.exists():
            break
        time.sleep(0.05)
    assert witness.exists(), time.monotonic() - started


def test_forks_are_followed_with_f_only() -> None:
    command = f"{PYTHON} -c '{ASKS}'"
    alone = run("-q", "sh", "-c", f"{command.replace('nowhere', 'x')}; true")
    followed = run("-q", "-f", "sh", "-c", f"{command.replace('nowhere', 'x')}; true")
    assert "BPF_PROG_GET_NEXT_ID" not in alone.stderr
    assert "BPF_PROG_GET_NEXT_ID" in followed.stderr
