"""Help, man pages and completions: made of one table, and taken by man and by real shells."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bpftrace_sys import __version__
from bpftrace_sys.cli import commands
from bpftrace_sys.cli.main import COMMANDS
from bpftrace_sys.cli.options import GROUPS, OPTIONS
from tests.support.differences import MAP_CREATE
from tests.support.needs import needs_tool
from tests.support.rewriting import U32, each, is_bpf, recording, rewritten, with_attr
from tests.support.running import ROOT, run_cli

pytestmark = pytest.mark.offline

SHARE = ROOT / "share"
BASH = SHARE / "bash-completion" / "completions" / "bpfstrace"
ZSH = SHARE / "zsh" / "site-functions"
FISH = SHARE / "fish" / "vendor_completions.d" / "bpfstrace.fish"
PAGES = sorted((SHARE / "man" / "man1").glob("*.1"))


def test_what_is_made_of_the_tables_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "gen_manual.py", "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_rows_and_subcommands_are_the_same() -> None:
    assert sorted(commands.BY_NAME) == sorted(COMMANDS)
    assert len(PAGES) == len(COMMANDS) + 1
    assert {option.group for option in OPTIONS} == set(GROUPS)
    assert all(row.help and not row.help.endswith(".") for row in OPTIONS)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_of_everything_fits_a_terminal(name: str) -> None:
    """Both ways to ask say the same, below 80 columns, and name every option."""
    told = run_cli("--help", *([name] if name else []))
    assert (told.returncode, told.stderr) == (0, "")
    assert max(map(len, told.stdout.splitlines())) <= 80
    if name:
        assert run_cli(name, "--help").stdout == told.stdout
        assert told.stdout.startswith(f"usage: bpfstrace {name}")
        for flag in commands.BY_NAME[name].flags:
            assert f"--{flag.long}" in told.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_man_takes_the_pages(page: Path) -> None:
    needs_tool("man")
    needs_tool("mandoc")
    man = subprocess.run(
        ["man", "--warnings", "-l", str(page)],
        capture_output=True, text=True, check=True, env={**os.environ, "MANWIDTH": "78"},
    )  # fmt: skip
    assert man.stderr == ""
    text = re.sub(r".\x08", "", man.stdout)
    assert "EXIT STATUS" in text
    assert max(map(len, text.splitlines())) <= 80
    lint = subprocess.run(
        ["mandoc", "-Tlint", "-W", "warning", str(page)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (lint.returncode, lint.stdout) == (0, "")


def test_the_main_page_names_every_option() -> None:
    text = (SHARE / "man" / "man1" / "bpfstrace.1").read_text().replace("\\-", "-")
    assert f"bpfstrace {__version__}" in text
    for option in OPTIONS:
        assert f"--{option.long}\\fR" in text


SLIPS = {
    "an option": (["--jsn", "x", "true"], "--jsn not recognized; did you mean --json?"),
    "a subcommand": (["replya", "x"], "did you mean bpfstrace replay?"),
    "help of one": (["--help", "rport"], "did you mean report?"),
    "its option": (["diff", "--ignor", "x", "a", "b"], "No such file"),
    "its option, not a prefix": (["diff", "--ignroe", "x", "a"], "did you mean --ignore?"),
    "a command": (["-e", "bpf=prog_laod", "true"], "did you mean prog_load?"),
    "a call": (["-e", "trace=perf_evnt_open", "true"], "did you mean perf_event_open?"),
    "a class": (["-e", "trace=netlnk", "true"], "did you mean netlink?"),
    "a key": (["-e", "statsu=failed", "true"], "did you mean status?"),
    "a status": (["-e", "status=faild", "true"], "did you mean failed?"),
    "a call to fail": (["-e", "inject=opnat:error=EPERM", "true"], "did you mean openat?"),
    "a part": (["diff", "--only", "prog", "a", "b"], "did you mean progs?"),
}


A_PROGRAM = "a subcommand"
"""The slip that can only be answered once no program of that name was found: by tracing it."""


@pytest.mark.parametrize(
    "what",
    [pytest.param(what, marks=pytest.mark.live if what == A_PROGRAM else ()) for what in SLIPS],
)
def test_slips_are_answered_with_what_may_be_meant(what: str) -> None:
    words, expected = SLIPS[what]
    done = run_cli(*words)
    assert done.returncode in (2, 127)
    assert expected in done.stderr


def test_nothing_is_suggested_where_nothing_is_like_it() -> None:
    for words in (["--zzzzzz", "true"], ["-e", "bpf=frobnicate", "true"], [f"--{'json' * 5000}"]):
        assert "did you mean" not in run_cli(*words).stderr


def test_a_field_to_ignore_that_is_none(tmp_path: Path) -> None:
    """Only where a field of a like name was compared: else nothing is known against it."""
    first, other = str(recording("bpftool-loadall")), tmp_path / "other.jsonl"
    rewritten(
        Path(first), other,
        each(lambda raw: with_attr(raw, 12, U32(99)) if is_bpf(raw, MAP_CREATE) else raw),
    )  # fmt: skip
    slip = run_cli("diff", first, str(other), "--ignore", "max_entires")
    assert "no field of that name was compared; did you mean max_entries?" in slip.stderr
    assert run_cli("diff", first, str(other), "--ignore", "max_entries").stderr == ""


# ---------------------------------------------------------------- shells

COMPLETED = {
    "options of tracing": ("bpfstrace --fol", "--follow-forks"),
    "behind an option": ("bpfstrace -f --jso", "--json"),
    "a choice": ("bpfstrace --engine pt", "ptrace"),
    "subcommands": ("bpfstrace perfe", "perfetto"),
    "options of a subcommand": ("bpfstrace diff --stri", "--strict"),
    "files of a subcommand": ("bpfstrace replay trace_", "trace_of_it.jsonl"),
    "programs": ("bpfstrace -f bpfstrace_trac", "bpfstrace_traceable"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a trace and, in ``bin``, a program."""
    (tmp_path / "trace_of_it.jsonl").touch()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "bpfstrace_traceable"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "bin" / "bpfstrace").symlink_to(program)
    return tmp_path


def env(folder: Path) -> dict[str, str]:
    return {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder),
            "TERM": "dumb", "XDG_CONFIG_HOME": str(folder), "ZDOTDIR": str(folder)}  # fmt: skip


@pytest.mark.parametrize("what", COMPLETED)
def test_fish_completes(what: str, folder: Path) -> None:
    needs_tool("fish")
    line, expected = COMPLETED[what]
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {FISH}; complete -C '{line}'"],
        capture_output=True, text=True, check=True, cwd=folder, env=env(folder),
    )  # fmt: skip
    assert done.stderr == ""
    assert expected in [answer.split("\t")[0] for answer in done.stdout.splitlines()]


def typed(shell: list[str], setup: str, line: str, expected: str, folder: Path) -> str:
    """What a shell on a terminal shows after ``line`` and a tab; waits for what is expected."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(shell[0], shell, {**env(folder), "PS1": "> "})
    shown = ""
    try:
        os.write(terminal, f"{setup}; echo rea''dy\n".encode())
        for wanted, then in (("ready", f"{line}\t"), (expected, "")):
            until = time.monotonic() + 20
            at = len(shown)
            while wanted not in shown[at:].replace("\r", "") and time.monotonic() < until:
                if select.select([terminal], [], [], 0.2)[0]:
                    shown += os.read(terminal, 65536).decode("utf-8", "replace")
            os.write(terminal, then.encode())
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)
    return shown[at:]


@pytest.mark.parametrize("what", COMPLETED)
def test_bash_completes(what: str, folder: Path) -> None:
    needs_tool("bash")
    line, expected = COMPLETED[what]
    shell = ["bash", "--norc", "--noprofile", "-i"]
    setup = f"bind 'set bell-style none'; source {BASH}"
    assert expected in typed(shell, setup, line, expected, folder)


@pytest.mark.parametrize("what", COMPLETED)
def test_zsh_completes(what: str, folder: Path) -> None:
    needs_tool("zsh")
    line, expected = COMPLETED[what]
    setup = f"fpath=({ZSH} $fpath); autoload -Uz compinit; compinit -u -D"
    assert expected in typed(["zsh", "-f", "-i"], setup, line, expected, folder)
