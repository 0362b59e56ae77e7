"""Replay says what the live trace said; without privileges, and whatever the file holds."""

from __future__ import annotations

import contextlib
import copy
import gzip
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.cli import main as cli
from tests.support.running import FIXTURES, LOADERS, environment, run_cli
from tests.support.spoiling import spoil
from tests.support.terminal import commands, on_terminal

PYTHON = sys.executable
NOBODY = 65534
RECORDED = sorted(FIXTURES.glob("*/trace.jsonl.gz"))

NAMES = [
    "perf_link", "tcx", "raw_tracepoint", "uprobe_multi", "map_ops", "errors", "dup_fork_exec",
]  # fmt: skip
PROGRAMS = {
    "hello": [PYTHON, "-m", "bpftrace_sys.hello"],
    **{name: [PYTHON, str(LOADERS / f"{name}.py")] for name in NAMES},
}
OUTPUTS = {
    "default": [],
    "-v": ["-v"],
    "-q": ["-q"],
    "-s 5": ["-s", "5"],
    "--no-insns": ["--no-insns"],
    "-c": ["-c"],
    "-z": ["-z"],
    "--style strace": ["--style", "strace"],
}


# ------------------------------------------------------------------ the same as live


@pytest.mark.parametrize("name", PROGRAMS)
def test_text_and_json_of_replay_are_those_of_the_live_trace(
    name: str, needs_bpf: None, tmp_path: Path
) -> None:
    text, trace, again = tmp_path / "t.txt", tmp_path / "t.jsonl", tmp_path / "again.jsonl"
    live = run_cli("-f", "-o", str(text), "--json", str(trace), *PROGRAMS[name])
    assert live.returncode == 0, live.stderr
    assert "bpf(" in text.read_text()
    done = run_cli("replay", "--json", str(again), str(trace))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == text.read_text()
    assert again.read_text() == trace.read_text()


@pytest.mark.parametrize("options", OUTPUTS)
def test_every_output_option_works_live_and_in_replay(
    options: str, needs_bpf: None, tmp_path: Path
) -> None:
    text, again, trace = tmp_path / "t.txt", tmp_path / "again.txt", tmp_path / "t.jsonl"
    words = OUTPUTS[options]
    # The JSON of a filtered trace is filtered, so the filter is applied again, to the same effect.
    live = run_cli("-f", *words, "-o", str(text), "--json", str(trace), *PROGRAMS["hello"])
    assert live.returncode == 0, live.stderr
    # strace's style has ids on each line of a file, and only those that are needed elsewhere.
    done = run_cli("replay", *words, "-o", str(again), str(trace))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert again.read_text() == text.read_text()


def test_colours_of_replay_are_those_of_the_live_trace(needs_bpf: None, tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    env = environment(TERM="xterm-256color")
    del env["NO_COLOR"]
    main = [PYTHON, "-m", "bpftrace_sys"]
    quiet = ["sh", "-c", f"{' '.join(PROGRAMS['hello'])} >/dev/null"]
    code, live = on_terminal([*main, "-f", "--json", str(trace), *quiet], env=env)
    assert code == 0
    assert "\x1b[" in live
    code, replayed = on_terminal([*main, "replay", str(trace)], env=env)
    assert code == 0
    assert replayed == live


@pytest.mark.parametrize("trace", RECORDED, ids=lambda path: path.parent.name)
def test_recordings_replay_to_the_same_recording(trace: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    one = run_cli("replay", "--json", str(first), str(trace))
    two = run_cli("replay", "--json", str(second), str(first))
    assert (one.returncode, one.stderr) == (two.returncode, two.stderr) == (0, "")
    assert one.stdout == two.stdout
    assert first.read_bytes() == second.read_bytes()


# ------------------------------------------------------------------ anywhere

# Everything is imported before, since nobody may be unable to read where it is installed.
AS_NOBODY = f"""\
import gzip, importlib, os, pkgutil, sys
import bpftrace_sys, decoders
for package in (bpftrace_sys, decoders):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
from bpftrace_sys.cli.main import main
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
sys.exit(main(sys.argv[1:]))
"""


def test_replay_needs_no_privileges_and_reads_stdin() -> None:
    trace = FIXTURES / "bcc-kprobe-hello" / "trace.jsonl.gz"
    with trace.open("rb") as file:
        unprivileged = subprocess.run(
            [PYTHON, "-c", AS_NOBODY, "replay", "-"], stdin=file, capture_output=True,
            env=environment(), timeout=60, check=False, text=True,
        )  # fmt: skip
    assert (unprivileged.returncode, unprivileged.stderr) == (0, "")
    assert unprivileged.stdout == run_cli("replay", str(trace)).stdout != ""


def test_the_lessons_session() -> None:
    done = run_cli("replay", str(FIXTURES / "bcc-kprobe-hello" / "trace.jsonl.gz"))
    assert done.returncode == 0
    text = done.stdout
    assert "  0: (b7) r1 = 33 " in text
    assert " 10: (85) call bpf_trace_printk#6" in text
    assert "/* Hello, W */" in text
    assert "; int hello_world(void *ctx)" in text
    block = text[text.index("\nattached  hello_world") :].split("\n\n")[0]
    assert "tag 38dd440716c4900f) -> kprobe do_sys_openat2" in block
    steps = [line.split()[0] for line in block.strip().splitlines()[1:]]
    assert steps == ["load", "type", "event", "attach", "enable", "given"]
    given = "do_sys_openat2(int dfd, const char *filename, struct open_how *how)"
    assert f"given   long int {given}" in block


def test_a_reader_that_stops_reading_is_no_error() -> None:
    command = (
        f"{PYTHON} -m bpftrace_sys replay {FIXTURES}/libbpf-execsnoop/trace.jsonl.gz | head -n 1; "
        'echo "${PIPESTATUS[0]}"'
    )
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, env=environment(), timeout=60, check=False,
        text=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 2


# ------------------------------------------------------------------ a file that lies

class Screen(io.StringIO):
    """Says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("seed", range(12))
def test_spoiled_traces_neither_crash_nor_reach_the_terminal(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random.Random(seed)
    small = [path for path in RECORDED if path.stat().st_size < 8000]
    assert small
    whole = [
        json.loads(line) for line in gzip.decompress(source.choice(small).read_bytes()).splitlines()
    ]
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    path = tmp_path / "spoiled.jsonl"
    modes = [[], ["-v"], ["-c"], ["--style", "strace"], ["--json", os.devnull]]
    for _ in range(30):
        lines = copy.deepcopy(whole)
        for _ in range(source.choice([1, 1, 2, 4])):
            spoil(source.choice(lines), source)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        out, err = (Screen if source.random() < 0.5 else io.StringIO)(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main(["replay", *source.choice(modes), str(path)])
        assert code in (0, 2)
        assert (code == 2) == bool(err.getvalue())
        assert commands(out.getvalue() + err.getvalue()) == set()


# ------------------------------------------------------------------ a part of a trace


FILTERS: dict[str, tuple[list[str], Callable[[dict[str, Any]], bool]]] = {
    "calls": (["-e", "trace=ioctl"], lambda line: line["syscall"] == "ioctl"),
    "all calls but some": (
        ["-e", "trace=!openat,ioctl"], lambda line: line["syscall"] not in ("openat", "ioctl"),
    ),
    "commands": (
        ["-e", "trace=bpf", "-e", "bpf=prog_load"],
        lambda line: line["args"].get("cmd") == "BPF_PROG_LOAD",
    ),
    "commands and other calls": (
        ["-e", "bpf=map_create"],
        lambda line: line["syscall"] != "bpf" or line["args"].get("cmd") == "BPF_MAP_CREATE",
    ),
    "successful": (["-z"], lambda line: line["ret"] != -1),
    "failed": (["-Z"], lambda line: line["ret"] == -1),
}  # fmt: skip


@pytest.mark.parametrize("name", FILTERS)
def test_a_part_of_a_trace(name: str, tmp_path: Path) -> None:
    options, wanted = FILTERS[name]
    trace = str(FIXTURES / "bpftrace-tracepoint" / "trace.jsonl.gz")
    kept: list[list[dict[str, Any]]] = []
    for words in ([], options):
        file = tmp_path / "again.jsonl"
        done = run_cli("replay", "-q", "-v", *words, "--json", str(file), trace)
        assert (done.returncode, done.stderr) == (0, "")
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        marks = lines[0].get("options", lines[0]).get("narrowed", [])
        assert bool(marks) is bool(words)
        assert all(mark.startswith("replay -") for mark in marks)
        kept.append([line for line in lines if line["type"] == "syscall"])
        for line in kept[-1]:
            del line["raw"]  # which refers to lines before
    whole, part = kept
    assert part == [line for line in whole if wanted(line)]
    assert 0 < len(part) < len(whole)
    shown = sum(done.stdout.count(f"] {call}(") for call in {line["syscall"] for line in whole})
    assert shown == len(part)


def test_nothing_of_a_trace_can_be_made_to_fail() -> None:
    trace = str(FIXTURES / "bpftrace-tracepoint" / "trace.jsonl.gz")
    done = run_cli("replay", "-e", "inject=bpf:error=EPERM", trace)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "inject=" in done.stderr


def test_an_elf_object_is_not_read_as_instructions(tmp_path: Path) -> None:
    done = run_cli("disasm", PYTHON)
    assert (done.returncode, done.stdout) == (2, "")
    assert "ELF object" in done.stderr


@pytest.mark.parametrize(
    "options", [["-e", "trace=bpf"], ["-e", "bpf=prog_load"], ["-P", "/nowhere"], ["-Z"]]
)
def test_what_a_copy_leaves_out_is_not_denied(options: list[str], tmp_path: Path) -> None:
    """bcc-uprobe attaches with an ioctl: of a copy without that nobody knows."""
    whole, copy = FIXTURES / "bcc-uprobe" / "trace.jsonl.gz", tmp_path / "copy.jsonl"
    first = run_cli("replay", *options, "--json", str(copy), str(whole))
    assert "not attached" not in first.stdout
    assert "not seen attached" not in first.stdout
    text = run_cli("replay", str(copy)).stdout
    assert "not attached" not in text
    loads = sum('"cmd":"BPF_PROG_LOAD"' in line and '"prog_name":"goodbye"' in line
                for line in copy.read_text().splitlines())  # fmt: skip
    said = f"not seen attached (replay {' '.join(options)} leaves calls out)"
    seen = "\nattached  goodbye" in text  # its ioctl is in this copy
    assert seen is (options[-1] == "bpf=prog_load")
    assert text.count(said) == (0 if seen else 2 * loads)
    again = tmp_path / "again.jsonl"
    run_cli("replay", "--json", str(again), str(copy))
    assert again.read_text().partition("\n")[0] == copy.read_text().partition("\n")[0]


@pytest.mark.live
def test_a_trace_without_proc_says_so_and_denies_nothing(tmp_path: Path) -> None:
    """Without /proc no fd has a name; that it is not open does not follow."""
    trace = tmp_path / "t.jsonl"
    query = "PROG_QUERY of a pipe, and of an fd that nobody has"
    program = f"""
import ctypes, os, platform, struct
{query!r}
nr = {{"x86_64": 321, "aarch64": 280}}[platform.machine()]
libc = ctypes.CDLL(None)
for fd in (os.pipe()[0], 999):
    attr = ctypes.create_string_buffer(struct.pack("<IIIIQII", fd, 0, 0, 0, 0, 0, 0), 32)
    libc.syscall(nr, 16, attr, 32)
"""
    words = [sys.executable, "-m", "bpftrace_sys", "--json", str(trace), sys.executable, "-S", "-c",
             program]  # fmt: skip
    hidden = ["unshare", "-m", "sh", "-c", 'umount -l /proc && exec "$@"', "sh", *words]
    done = subprocess.run(hidden, capture_output=True, text=True, env=environment(), check=False)
    assert trace.exists(), done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "no /proc was there: what fds are, paths and capabilities were not seen"
    assert sum("-1 EBADF" in line for line in lines) == 2
    assert "is not open" not in done.stderr
    assert run_cli("replay", str(trace)).stdout == done.stderr
    seen = run_cli(*words[3:])
    assert "no /proc" not in seen.stderr
    assert seen.stderr.count("target_fd 999 is not open") == 1
