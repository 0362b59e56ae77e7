"""Canonical replay: the same text for the same doings, whatever the machine made of them."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bpftrace_sys.compare.canonical.text import stable
from bpftrace_sys.render.canonical import CanonicalRenderer
from bpftrace_sys.story.whole_trace import read
from tests.support.needs import needs_tool
from tests.support.rewriting import (
    as_of_another_day,
    each,
    is_bpf,
    recording,
    repeated,
    rewritten,
    with_attr,
)
from tests.support.running import FIXTURES, LOADERS, ROOT, environment, run_cli

NAMES = sorted(path.parent.name for path in FIXTURES.glob("*/trace.jsonl.gz"))


def canonical(path: Path, verbose: bool = False) -> str:
    """The text of a whole trace."""
    out = io.StringIO()
    read(str(path), lambda model: CanonicalRenderer(out, model, verbose))
    return out.getvalue()


@pytest.mark.parametrize(
    "name",
    ["bcc-kprobe-hello", "bcc-uprobe", "bpftrace-tracepoint", "bpftrace-uprobe", "eperm",
     "i386-tracee", "verifier-reject", "xdp-link"],
)  # fmt: skip
def test_pids_ids_addresses_and_times_do_not_show(name: str, tmp_path: Path) -> None:
    first = recording(name)
    second = rewritten(first, tmp_path / "second.jsonl", as_of_another_day)
    assert canonical(first) == canonical(second)
    assert canonical(first, verbose=True) == canonical(second, verbose=True)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_text_that_names_objects(name: str) -> None:
    text = canonical(recording(name))
    assert "\0" not in text
    assert "\x1b" not in text
    assert text.startswith("canonical trace, version 1\nargv: ")
    assert text.endswith("\nthe trace is whole\n")
    assert " id=" not in text


def test_the_lessons_program() -> None:
    text = canonical(recording("bcc-kprobe-hello"))
    assert "bpf PROG_LOAD = prog hello_world\n" in text
    assert "    prog_btf_fd: btf of hello_world\n" in text
    assert (
        "        ; int hello_world(void *ctx)\n"
        "        (b7) r1 = 33\n"
    ) in text
    assert (
        "attached prog hello_world -> kprobe do_sys_openat2 (the kprobe PMU): "
        "load type event attach enable\n"
    ) in text


def test_the_command_prints_it() -> None:
    path = recording("bpftool-loadall")
    for options, verbose in (((), False), (("-v",), True)):
        done = run_cli("replay", "--canonical", *options, str(path))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == canonical(path, verbose)


def test_a_change_shows(tmp_path: Path) -> None:
    first = recording("bpftool-loadall")
    second = rewritten(
        first,
        tmp_path / "second.jsonl",
        each(lambda raw: with_attr(raw, 12, b"\x20") if is_bpf(raw, 0) else raw),
    )
    old, new = canonical(first).splitlines(), canonical(second).splitlines()
    changed = [pair for pair in zip(old, new, strict=True) if pair[0] != pair[1]]
    assert ("    max_entries: 16", "    max_entries: 32") in changed
    assert all(one.startswith("    max_entries: ") for one, _ in changed)


def test_what_maps_hold_is_left_out_without_v() -> None:
    path = recording("bpftool-loadall")
    assert "reads map packets\n" in canonical(path)
    assert "MAP_LOOKUP_ELEM" not in canonical(path)
    assert "MAP_LOOKUP_ELEM" in canonical(path, verbose=True)


def test_loops_are_folded(tmp_path: Path) -> None:
    first = recording("bpftool-loadall")
    many = repeated(first, tmp_path / "many.jsonl", {1, 4}, 50)
    assert canonical(first) == canonical(many)


def test_a_truncated_trace_says_so(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jsonl"
    run_cli("replay", "-o", os.devnull, "--json", str(whole), str(recording("bcc-kprobe-hello")))
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(b"".join(whole.read_bytes().splitlines(keepends=True)[:-4]))
    done = run_cli("replay", "--canonical", str(cut))
    assert done.returncode == 2
    assert "bpf PROG_LOAD = prog hello_world\n" in done.stdout
    assert done.stdout.endswith("\nthe trace is not whole\n")
    assert "without its end line" in done.stderr


def test_names_of_the_tracees_own() -> None:
    pids = {1234, 64, 386}
    assert stable("/sys/fs/bpf/tool.1234", pids) == "/sys/fs/bpf/tool.PID"
    assert stable("/sys/fs/bpf/tool12345", pids) == "/sys/fs/bpf/tool12345"
    assert stable("/lib/x86_64/i386", pids) == "/lib/x86_64/i386"
    assert stable("/proc/99/root") == "/proc/PID/root"
    assert stable("/tmp/tmpa1b2c3d4/x") == "/tmp/tmpNAME/x"
    assert stable("/tmp/temporary") == "/tmp/temporary"
    assert stable("socket socket:[4711]") == "socket socket:[inode]"


# ------------------------------------------------------------------ recorded live


def twice(tmp_path: Path, *program: str) -> list[Path]:
    """Two recordings of a program."""
    paths = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    for path in paths:
        done = run_cli("-f", "-q", "-o", os.devnull, "--json", str(path), *program)
        assert done.returncode == 0, done.stderr
    return paths


@pytest.mark.parametrize(
    "loader",
    ["map_ops", "perf_link", "scm_rights", "freplace", "ids", "struct_ops", "xdp_link"],
)
def test_two_recordings_give_the_same_text(loader: str, needs_bpf: None, tmp_path: Path) -> None:
    first, second = twice(tmp_path, sys.executable, str(LOADERS / f"{loader}.py"))
    assert first.read_bytes() != second.read_bytes()
    assert canonical(first) == canonical(second)
    if loader not in ("map_ops", "ids"):  # the order of a hash, the ids of the machine
        assert canonical(first, verbose=True) == canonical(second, verbose=True)


def test_processes_stand_in_the_order_of_their_birth(needs_bpf: None, tmp_path: Path) -> None:
    # Two at a time: who of them is first is up to the scheduler.
    script = f"{sys.executable} {LOADERS}/map_ops.py & {sys.executable} {LOADERS}/tcx.py & wait"
    first, second = twice(tmp_path, "sh", "-c", script)
    text = canonical(first)
    assert text == canonical(second)
    assert text.index("\nprocess 1.1 ") < text.index("\nprocess 1.2 ")


# ------------------------------------------------------------------ git


def test_gits_textconv(tmp_path: Path) -> None:
    # As docs/format.md tells it.
    needs_tool("git")
    env = environment(HOME=str(tmp_path), GIT_CONFIG_NOSYSTEM="1", GIT_PAGER="cat")
    for role in ("AUTHOR", "COMMITTER"):
        env[f"GIT_{role}_NAME"] = "somebody"
        env[f"GIT_{role}_EMAIL"] = "somebody@example.org"
    repository = tmp_path / "repository"

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(repository), *words], env=env, capture_output=True, text=True,
            check=True, timeout=60,
        )  # fmt: skip
        return done.stdout

    recipe = (ROOT / "docs" / "format.md").read_text()
    attributes = next(line.strip() for line in recipe.splitlines() if "diff=bpfstrace" in line)
    command = next(line.strip() for line in recipe.splitlines() if "textconv" in line
                   and line.strip().startswith("git config"))  # fmt: skip
    words = command.split(None, 3)
    assert words[:2] == ["git", "config"]
    converter = words[3].strip("'\"")
    assert converter.startswith("bpfstrace ")

    repository.mkdir()
    git("init", "-q")
    ours = f"{sys.executable} -m bpftrace_sys {converter.removeprefix('bpfstrace ')}"
    git("config", words[2], ours)
    (repository / ".gitattributes").write_text(attributes + "\n")
    trace = repository / "loader.jsonl.gz"
    shutil.copy(recording("bpftool-loadall-o1"), trace)
    git("add", ".")
    git("commit", "-q", "-m", "clang -O1")
    shutil.copy(recording("bpftool-loadall"), trace)
    shown = git("diff", "--", "loader.jsonl.gz")
    body = [line for line in shown.splitlines() if re.match(r"[+-](?![+-]{2} )", line)]
    assert "+        (79) r3 = *(u64 *)(r0 +0)" in body
    assert "-        (79) r2 = *(u64 *)(r0 +0)" in body
    assert 8 < len(body) < 40
    # Another recording of the same doings is no difference to look at.
    shutil.copy(recording("bcc-uprobe"), trace)
    git("commit", "-q", "-a", "-m", "another")
    again = rewritten(recording("bcc-uprobe"), tmp_path / "again.jsonl", as_of_another_day)
    shutil.copy(again, trace)
    assert git("status", "--short") != ""
    assert "@@" not in git("diff", "--", "loader.jsonl.gz")


# ------------------------------------------------------------------ memory

_MEASURE = (
    "import sys\n"
    "from bpftrace_sys.cli.main import main\n"
    "code = main(sys.argv[1:])\n"
    # Not ru_maxrss, which counts what there was before execve: all of pytest.
    "sys.stderr.write(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])\n"
    "sys.exit(code)\n"
)


def peak(*words: str) -> int:
    """KiB that a command took at most."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *words], env=environment(), check=False,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stderr)


@pytest.mark.parametrize("command", [["replay", "--canonical"], ["replay", "-q"]])
def test_memory_does_not_grow_with_the_length(command: list[str], tmp_path: Path) -> None:
    source = recording("bpftool-loadall")
    short = repeated(source, tmp_path / "short.jsonl", {1, 4}, 100)
    long = repeated(source, tmp_path / "long.jsonl", {1, 4}, 2000)
    # 300 and 6,000 calls; kept as they are decoded, they would take some 20 MiB.
    assert peak(*command, str(long)) - peak(*command, str(short)) < 4096
