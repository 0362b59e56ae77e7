"""Walks in a line: the numbers are those of the trace, and -v shows each call."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import record

from bpftrace_sys.cli.main import main
from tests.support.needs import needs_tool
from tests.support.running import FIXTURES, LOADERS, environment


def replayed(trace: Path, *options: str) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        assert main(["replay", "-q", *options, str(trace)]) == 0
    return out.getvalue()


def commands(trace: Path, *wanted: str) -> list[dict[str, Any]]:
    """The calls of these commands, as JSON tells of them."""
    done = subprocess.run(
        [sys.executable, "-m", "bpftrace_sys", "replay", "-q", "-o", os.devnull,
         "--json", "/dev/stdout", str(trace)],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    lines = map(json.loads, done.stdout.splitlines())
    return [line for line in lines if line.get("args", {}).get("cmd") in wanted]


def recorded(name: str) -> Path:
    return FIXTURES / name / record.TRACE


def test_entries_that_were_read() -> None:
    trace = recorded("bpftrace-tracepoint")
    reads = commands(trace, "BPF_MAP_LOOKUP_ELEM")
    count = len(commands(trace, "BPF_MAP_GET_NEXT_KEY")) + len(reads)
    there = sum(line["ret"] == 0 for line in reads)
    text = replayed(trace)
    assert f"read {there} entries of AT_, {len(reads) - there} key not there ({count} calls" in text
    assert "LOOKUP_ELEM" not in text
    assert "GET_NEXT_KEY" not in text
    whole = replayed(trace, "-v")
    assert whole.count("bpf(BPF_MAP_LOOKUP_ELEM") == len(reads)
    assert "calls, -v shows them" not in whole
    named = replayed(trace, "-e", "bpf=BPF_MAP_LOOKUP_ELEM,BPF_MAP_GET_NEXT_KEY")
    assert named.count("bpf(BPF_MAP_LOOKUP_ELEM") == len(reads)


def test_objects_that_were_looked_through() -> None:
    trace = recorded("perf-record")
    (last,) = [
        line for line in commands(trace, "BPF_PROG_GET_NEXT_ID") if line.get("errno") == "ENOENT"
    ]
    mine = [
        line
        for line in commands(trace, "BPF_PROG_GET_FD_BY_ID", "BPF_BTF_GET_FD_BY_ID")
        if line["tid"] == last["tid"] and line["seq"] < last["seq"]
    ]
    progs = {line["args"]["attr"].get("prog_id") for line in mine} - {None}
    btfs = {line["args"]["attr"].get("btf_id") for line in mine} - {None}
    assert (len(mine), len(progs), len(btfs)) == (4, 2, 1)
    text = replayed(trace)
    assert "looked through 2 programs, 1 BTF (15 calls, -v shows them)" in text
    assert text.count("GET_FD_BY_ID") == 1  # another thread's own
    assert "looked through" not in replayed(trace, "-v")


@pytest.mark.usefixtures("needs_bpf")
def test_fds_that_were_queried(tmp_path: Path) -> None:
    needs_tool("bpftool")
    fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
    trace = tmp_path / "trace"
    subprocess.run(
        [sys.executable, "-m", "bpftrace_sys", "-q", "-o", os.devnull, "--json", str(trace),
         "bpftool", "perf", "show"],
        stdout=subprocess.DEVNULL, check=True, env=environment(),
    )  # fmt: skip
    for fd in fds:
        os.close(fd)
    calls = commands(trace, "BPF_TASK_FD_QUERY")
    none = [line for line in calls if line.get("errno") in ("ENOENT", "EBADF", "ENOTSUPP")]
    assert len(none) > len(fds)
    lines = [line for line in replayed(trace).splitlines() if " queried, none has BPF" in line]
    said = sum(int(line.split()[1].replace(",", "")) for line in lines)
    alone = replayed(trace).count("bpf(BPF_TASK_FD_QUERY")
    found = sum(line["ret"] == 0 for line in calls)
    assert len(none) - (alone - found) == said
    assert len(lines) <= found + 1


def test_a_listing_stands_once() -> None:
    trace = recorded("aarch64-cgroup")
    loads = [line for line in commands(trace, "BPF_PROG_LOAD") if line["ret"] != -1]
    text = replayed(trace)
    again = text.count("insns=/* as prog egress id=2 */")
    assert again > 1
    assert replayed(trace, "-v").count("insns=[") == text.count("insns=[") + again
    assert len({line["fd"]["id"] for line in loads}) > again


TWICE = """
import os, sys
sys.path.insert(0, sys.argv[1])
from _common import MAP, PROG, asm, call
def load(*fds):
    insns = b"".join(asm.ld_imm64(1, fd, 1) for fd in fds) + asm.mov(0, 0) + asm.exit_()
    call("PROG_LOAD", prog_type=PROG["SOCKET_FILTER"], insns=insns, insn_cnt=len(insns) // 8,
         license=b"GPL\\0", prog_name=b"twice")
def make(name):
    return call("MAP_CREATE", map_type=MAP["ARRAY"], key_size=4, value_size=4, max_entries=1,
                map_name=name).ret
one, two = make(b"one"), make(b"two")
load(one, two)
load(one, two)
load(os.dup(one), os.dup(two))
load(two, one)
"""


@pytest.mark.live
def test_a_listing_whose_maps_have_other_fds(needs_bpf: None, tmp_path: Path) -> None:
    """It stands once; the tag is the same with other maps in their places: that one is shown."""
    trace = tmp_path / "trace.jsonl"
    subprocess.run(
        [sys.executable, "-m", "bpftrace_sys", "-q", "-o", os.devnull, "--json", str(trace),
         sys.executable, "-c", TWICE, str(LOADERS)],
        check=True, env=environment(),
    )  # fmt: skip
    loads = commands(trace, "BPF_PROG_LOAD")
    assert len(loads) == 4
    assert len({line["fd"]["tag"] for line in loads}) == 1
    found = re.findall(r"insns=(?:\[|/\* (.*?) id=\d+(.*?) \*/)", replayed(trace))
    assert found == [
        ("", ""), ("as prog twice", ""), ("as prog twice", ", its maps by other fds"), ("", "")
    ]  # fmt: skip


def in_json(trace: Path) -> list[dict[str, Any]]:
    """All calls, as JSON tells of them."""
    done = subprocess.run(
        [sys.executable, "-m", "bpftrace_sys", "replay", "-q", "-o", os.devnull,
         "--json", "/dev/stdout", str(trace)],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    lines = map(json.loads, done.stdout.splitlines())
    return [line for line in lines if line["type"] == "syscall"]


@pytest.mark.parametrize("name", ["perf-record", "bpftrace-tracepoint"])
def test_json_has_all_calls_of_a_walk_and_marks_them(name: str) -> None:
    trace = recorded(name)
    calls = in_json(trace)
    runs: list[list[dict[str, Any]]] = []
    before = None
    for line in calls:
        walk = line.get("walk")
        used = None if walk is None else line["args"]["attr"].get("map_fd")
        this = None if walk is None else (walk, line["tid"], used)
        if this is not None and this == before:
            runs[-1].append(line)
        elif this is not None:
            runs.append([line])
        before = this
    # What the text tells in lines are the runs of more than eight, to the call.
    told = re.findall(r"\((\d+) calls, -v shows them\)", replayed(trace))
    assert [int(count) for count in told] == [len(run) for run in runs if len(run) > 8]
    assert told
    # Nobody else is marked: all of them look only.
    looks = ("_GET_NEXT_ID", "_GET_FD_BY_ID", "_LOOKUP_ELEM", "_GET_NEXT_KEY", "INFO_BY_FD")
    for run in runs:
        assert all(line["args"]["cmd"].endswith(looks) for line in run)
