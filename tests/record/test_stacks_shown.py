"""-k: what is done with stacks: replay, loops, filters, damaged traces."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import TIMEOUT, environment, run_cli
from tests.support.schema import check
from tests.support.unwound import VARIANTS, built, frames_of

pytestmark = pytest.mark.usefixtures("needs_bpf")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stacks")


def test_replay_prints_the_same_stacks(folder: Path, traced: Any, tmp_path: Path) -> None:
    program = built(folder, "plain", *VARIANTS["plain"])
    ran = traced(["-k"], program, "deep", "large", "signalled")
    check(ran.lines)
    trace = str(tmp_path / "trace.jsonl")
    again = run_cli("replay", "-k", trace)
    assert (again.returncode, again.stdout) == (0, ran.text)
    assert " > " in ran.text
    without = run_cli("replay", trace)
    assert without.stdout == "".join(
        line for line in ran.text.splitlines(keepends=True) if not line.startswith(" > ")
    )
    second = tmp_path / "again.jsonl"
    run_cli("replay", "-o", os.devnull, "--json", str(second), trace)
    assert second.read_bytes() == Path(trace).read_bytes()


def test_a_trace_without_stacks_says_so(folder: Path, traced: Any, tmp_path: Path) -> None:
    program = built(folder, "plain", *VARIANTS["plain"])
    ran = traced([], program, "deep")
    assert all("stack" not in line for line in ran.calls())
    done = run_cli("replay", "-k", str(tmp_path / "trace.jsonl"))
    assert done.returncode == 0
    assert "holds no stacks: they are recorded with -k" in done.stderr


@pytest.mark.parametrize("json_too", [False, True])
def test_a_loop_has_the_stack_of_each_turn(json_too: bool, folder: Path, tmp_path: Path) -> None:
    """The same call with the same arguments, from two places in turn."""
    program = built(folder, "plain", *VARIANTS["plain"])
    out = tmp_path / "out.txt"
    more = ["--json", str(tmp_path / "out.jsonl")] if json_too else []
    done = run_cli("-k", "-o", str(out), *more, program, "looping")
    assert done.returncode == 0, done.stderr
    turns = re.findall(r"\((even|odd)\+0x", out.read_text())
    assert turns == ["even", "odd"] * 6


def test_filters_do_not_disturb(folder: Path, traced: Any) -> None:
    program = built(folder, "plain", *VARIANTS["plain"])
    ran = traced(["-k", "-z", "-e", "bpf=map_lookup_elem"], program, "looping", "deep")
    assert [stack[2] for stack in frames_of(ran)] == ["even", "odd"] * 6


def test_nothing_is_imported_without_k() -> None:
    script = (
        "import sys; from bpftrace_sys.cli.main import main; main(sys.argv[1:]);"
        "print([name for name in sys.modules if 'stack' in name and 'bpftrace' in name])"
    )
    loader = [sys.executable, "-m", "bpftrace_sys.hello"]
    for options, expected in (([], False), (["-k"], True)):
        done = subprocess.run(
            [sys.executable, "-c", script, "-q", "-o", os.devnull, *options, *loader],
            env=environment(), capture_output=True, text=True, timeout=TIMEOUT,
        )  # fmt: skip
        assert ("stacks" in done.stdout.splitlines()[-1]) is expected, done.stdout + done.stderr


@pytest.mark.parametrize(
    "damage",
    [
        {"stack": 5},
        {"stack": [5]},
        {"stack": [{}]},
        {"stack": [{"addr": 5}]},
        {"stack": [{"addr": "0x" + "f" * 100}]},
        {"stack": [{"addr": "0x1", "file": 1}]},
        {"stack": [{"addr": "0x1", "offset": "1"}]},
        {"stack": [], "stack_ended": 1},
        {"stack": [{"addr": "0x1"}] * 5000},
    ],
    ids=lambda damage: json.dumps(damage)[:40],
)
def test_a_damaged_stack_in_a_trace(damage: dict[str, Any], tmp_path: Path) -> None:
    lines = [
        {"type": "trace", "format": "bpfstrace", "version": 1, "bpfstrace": "0", "argv": [],
         "kernel": "", "machine": "", "cpus": 1, "start": 0, "pmu_types": {}, "options": {}},
        {"type": "syscall", "seq": 1, "time": 0, "duration": 0, "pid": 1, "tid": 1, "comm": "x",
         "syscall": "bpf", **damage, "args": {}, "ret": 0,
         "raw": {"arch": 3221225534, "nr": 321, "args": ["0x0"] * 6}},
    ]  # fmt: skip
    trace = tmp_path / "damaged.jsonl"
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run_cli("replay", "-k", str(trace))
    assert done.returncode == 2
    assert f"{trace}:2: " in done.stderr
    assert "Traceback" not in done.stderr


def test_names_in_a_trace_cannot_steer_a_terminal(tmp_path: Path) -> None:
    hostile = "\033]0;x\a\n > /bin/true(main+0x1) [0x1]\u202e"
    lines = [
        {"type": "trace", "format": "bpfstrace", "version": 1, "bpfstrace": "0", "argv": [],
         "kernel": "", "machine": "", "cpus": 1, "start": 0, "pmu_types": {}, "options": {}},
        {"type": "syscall", "seq": 1, "time": 0, "duration": 0, "pid": 1, "tid": 1, "comm": "x",
         "syscall": "bpf", "stack": [{"addr": "0x1", "file": hostile, "symbol": hostile,
                                      "offset": -1}], "stack_ended": hostile,
         "args": {}, "ret": 0, "raw": {"arch": 3221225534, "nr": 321, "args": ["0x0"] * 6}},
        {"type": "end", "status": {"code": 0}},
    ]  # fmt: skip
    trace = tmp_path / "hostile.jsonl"
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for style in ("bpfstrace", "strace"):
        done = run_cli("replay", "-q", "-k", "--style", style, str(trace))
        assert done.returncode == 0
        assert all(char not in done.stdout for char in "\033\a\u202e")
        assert len([line for line in done.stdout.splitlines() if line.startswith(" > ")]) == 2
