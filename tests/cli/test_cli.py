"""The command line: every option, and what is shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from bpftrace_sys import __version__
from bpftrace_sys.cli.options import OPTIONS, UsageError, parse
from tests.support.asking import ASKS, PYTHON, run, script
from tests.support.running import ROOT, environment, run_cli

# ------------------------------------------------------------------ help and usage


def test_help_names_every_option_and_shows_examples() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for option in OPTIONS:
        assert f"--{option.long}" in done.stdout
    assert "examples:" in done.stdout
    assert "  replay  " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


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
    "-e signals": (["-e", "signal=SIGINT", "true"], "is for --style strace"),
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


def unbroken(text: str) -> list[str]:
    """Lines, with what long ones were broken into joined again."""
    return text.replace("\n        ", " ").splitlines()


def shown(*options: str) -> list[str]:
    """What was shown of ASKS, from its first bpf() or open on."""
    done = run("-q", *options, PYTHON, "-S", "-c", ASKS, stdin=subprocess.DEVNULL)
    assert done.returncode == 0
    found = []
    for line in unbroken(done.stderr):
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
    lines = unbroken(done.stderr)
    line = next(line for line in lines if str(path) in line)
    assert f'openat(AT_FDCWD, "{path}", O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0640) = ' in line
    assert "0640" not in next(line for line in lines if "O_RDONLY" in line)


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


# ------------------------------------------------------------------ why a program did not start


def test_a_file_here_is_not_what_path_was_asked_for(tmp_path: Path) -> None:
    script = tmp_path / "no-such-tool"
    script.write_text("#!/bin/nosuch\n")
    script.chmod(0o755)
    done = run_cli("no-such-tool", cwd=tmp_path, env=environment(PYTHONPATH=str(ROOT)))
    assert done.returncode == 127
    assert done.stderr == "bpfstrace: no-such-tool: no such program in PATH\n"


def test_a_carriage_return_behind_the_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "crlf"
    script.write_bytes(b"#!/bin/sh\r\necho hi\r\n")
    script.chmod(0o755)
    done = run_cli(str(script))
    assert done.returncode == 127
    assert "its #! line ends in a carriage return" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be another user")
def test_a_user_that_is_not_there() -> None:
    done = run_cli("-u", "no-such-user", "true")
    assert (done.returncode, done.stderr) == (125, "bpfstrace: no such user: no-such-user\n")
