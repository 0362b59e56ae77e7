"""bpfstrace dump: which program is meant, and that it is that one's code; bpftool says which."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.bpftool_view import bpftool
from tests.support.needs import needs_tool
from tests.support.running import LOADERS, alive, run_cli, without_capabilities

pytestmark = pytest.mark.usefixtures("needs_bpf")


def lines_of(*words: str) -> list[dict[str, Any]]:
    done = run_cli("dump", "--json", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_by_id_name_and_pin_it_is_bpftools(tmp_path: Path) -> None:
    needs_tool("bpftool")
    with alive("pin", tmp_path) as facts:
        (prog,) = facts["progs"]
        folder = f"/proc/{facts['pid']}/root{facts['bpffs']}"
        theirs = bpftool("prog", "dump", "xlated", "id", str(prog["id"]), "opcodes")
        for word in (str(prog["id"]), f"{folder}/link"):
            state, view = lines_of(word)
            assert state["object"]["id"] == view["prog"]["id"] == prog["id"]
            assert len(view["xlated"]) == len(theirs)
            texts = [line["text"].split(") ", 1)[1] for line in view["xlated"]]
            assert texts == [entry["disasm"].split(") ", 1)[1] for entry in theirs]
        wrong = run_cli("dump", f"{folder}/map")
        assert (wrong.returncode, wrong.stdout) == (1, "")
        assert "a map is pinned there" in wrong.stderr


def test_text_says_whose_it_is(tmp_path: Path) -> None:
    with alive("tail_calls", tmp_path) as facts:
        prog = facts["progs"][1]
        done = run_cli("dump", str(prog["id"]))
    assert (done.returncode, done.stderr) == (0, "")
    head = done.stdout.splitlines()
    assert head[0] == f"prog first id={prog['id']} tag={prog['tag']}"
    assert f"  attached  tail call 0 of map jumps id={facts['maps'][0]['id']}" in head
    assert any(line.startswith(f"  held by   {facts['pid']} (") for line in head)
    assert f"translated  first id={prog['id']}, 6 instructions" in head


def test_what_it_is_given_is_said(tmp_path: Path, tracefs: Path) -> None:
    with alive("tracepoint_perf", tmp_path) as facts:
        done = run_cli("dump", str(facts["progs"][0]["id"]))
    assert "  attached  tracepoint syscalls:sys_enter_getpgid" in done.stdout.splitlines()
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("  given"))
    assert "pid_t pid" in line


def test_native_code_is_the_programs(tmp_path: Path) -> None:
    with alive("tail_calls", tmp_path) as facts:
        prog = facts["progs"][0]
        _, view = lines_of("--jited", str(prog["id"]))
        text = run_cli("dump", "--jited", "--intel", str(prog["id"])).stdout
    if not view.get("jited"):
        pytest.skip("; ".join(view.get("remarks", ["no native code"])))
    (function,) = view["jited"]
    assert sum(len(line["hex"]) // 2 for line in function["insns"]) <= function["size"]
    assert function["symbol"] == f"bpf_prog_{prog['tag']}_entry"
    assert "xlated" not in view
    assert f"native code  entry id={prog['id']}" in text
    assert "translated" not in text


def test_two_of_a_name_are_not_guessed_at(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(LOADERS)!r})\n"
        "from _common import *\n"
        "kit = Kit()\n"
        f"name = 'twins{os.getpid()}'\n"
        "for value in (1, 2): kit.prog('SOCKET_FILTER', returning(value), name)\n"
        "print(json.dumps([prog['id'] for prog in kit.facts['progs']]), flush=True)\n"
        "sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", "import json\n" + script], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        ids = json.loads(process.stdout.readline())
        done = run_cli("dump", f"twins{os.getpid()}")
        process.communicate("\n")
    assert done.returncode == 1
    assert "2 programs are called" in done.stderr
    assert all(f"{number} ({process.pid} (" in done.stderr for number in ids)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["no-such-program"], 1, "no program is called no-such-program"),
        (["2000000001"], 1, "no program has the id 2000000001"),
        (["/etc/passwd"], 1, "no BPF object is pinned there"),
        (["/sys/fs/bpf/none/such"], 1, "nothing is there"),
        (["./\x1b[31m"], 1, "nothing is there"),
        ([], 2, "one ID, NAME or PIN"),
        (["1", "2"], 2, "one ID, NAME or PIN"),
        (["-0", "/dev/sda"], 2, "bpfstrace -- dump -0 /dev/sda"),
    ],
)
def test_what_is_not_there_is_said(words: list[str], code: int, said: str) -> None:
    done = run_cli("dump", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr


def test_without_capabilities(tmp_path: Path) -> None:
    """Programs of others may not be had; that is said, and not that there is none."""
    needs_tool("setpriv")
    with alive("tail_calls", tmp_path) as facts:
        done = without_capabilities("dump", str(facts["progs"][0]["id"]))
    assert (done.returncode, done.stdout) == (1, "")
    assert "that we may see" in done.stderr


def test_help() -> None:
    done = run_cli("dump", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: bpfstrace dump")
