"""--stats: runs and their time, against what the kernel tells a program that asks it itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bpftool_view import tables_of
from tests.support.running import ROOT, environment, run_cli

# Loads a program, runs it so often by BPF_PROG_TEST_RUN, and prints what the kernel counted.
RUNS = """
import ctypes, json, os, struct, sys
from tests.support import bpf_asm as asm
times, how = int(sys.argv[1]), sys.argv[2]
prog = asm.prog_load(asm.mov(0, 0) + asm.exit_(), "socket_filter", name=b"counted")
packet = ctypes.create_string_buffer(64)
at = ctypes.addressof(packet)
attr = struct.pack("<IIIIQQII", prog.fd, 0, 64, 0, at, 0, times, 0)
asm.bpf(10, attr + bytes(48))
info = ctypes.create_string_buffer(232)
asm.bpf(15, struct.pack("<IIQ", prog.fd, len(info), ctypes.addressof(info)))
ns, count = struct.unpack_from("<QQ", info, 192)
print(json.dumps({"count": count, "ns": ns}))
if how == "leave":
    os._exit(0)
"""
pytestmark = pytest.mark.usefixtures("needs_bpf")


def counted(tmp_path: Path, *options: str) -> tuple[dict[str, int], dict[str, str], Path]:
    """What the kernel told the program, our row of it, and the trace."""
    script = tmp_path / "runs.py"
    script.write_text(RUNS)
    trace, text = tmp_path / "trace.jsonl", tmp_path / "trace.txt"
    done = run_cli(
        *options, "-o", str(text), "--json", str(trace),
        sys.executable, str(script), "2500", "leave",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = text.read_text()
    title = next((line for line in said.splitlines() if line.startswith("programs")), "")
    (row,) = tables_of(said.replace(title, "programs"))["programs"]
    return json.loads(done.stdout), row, trace


def test_runs_are_the_kernels(tmp_path: Path) -> None:
    theirs, row, trace = counted(tmp_path, "--stats")
    assert theirs["count"] == 2500
    assert int(row["runs"]) == theirs["count"]
    assert int(row["ns a run"]) == round(theirs["ns"] / theirs["count"])
    (fact,) = [
        line
        for line in map(json.loads, trace.read_text().splitlines())
        if line["type"] == "fact" and line["kind"] == "runs"
    ]
    assert fact["name"].split()[:2] == [str(theirs["count"]), str(theirs["ns"])]
    again = run_cli("replay", str(trace)).stdout
    assert again == (tmp_path / "trace.txt").read_text()


def test_without_it_the_table_has_no_such_column(tmp_path: Path) -> None:
    _, row, trace = counted(tmp_path)
    assert "runs" not in row
    assert '"kind":"runs"' not in trace.read_text()


def test_where_the_kernel_refuses_the_trace_goes_on() -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    done = subprocess.run(
        ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin",
         sys.executable, "-m", "bpftrace_sys", "--stats", "true"],
        capture_output=True, text=True, env=environment(), cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0
    assert re.search(r"--stats: the kernel counts no runs for us: .*CAP_SYS_ADMIN", done.stderr)


def test_it_is_no_option_of_replay() -> None:
    done = run_cli("replay", "--stats", os.devnull)
    assert done.returncode == 2
    assert "--stats" in done.stderr
