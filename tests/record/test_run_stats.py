"""--stats: runs and their time, against what the kernel tells a program that asks it itself."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bpftrace_sys.record.ebpf.engine import Wanted, Watch
from bpftrace_sys.record.ebpf.held_runs import HeldRuns
from bpftrace_sys.record.machine import bpf
from tests.support import bpf_asm as asm
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
WAITS = """
import ctypes, struct, sys
from tests.support import bpf_asm as asm
prog = asm.prog_load(asm.mov(0, 0) + asm.exit_(), "socket_filter", name=b"counted")
packet = ctypes.create_string_buffer(64)
for times in (1000, 700):
    info = ctypes.create_string_buffer(232)
    attr = struct.pack("<IIIIQQII", prog.fd, 0, 64, 0, ctypes.addressof(packet), 0, times, 0)
    asm.bpf(10, attr + bytes(48))
    asm.bpf(15, struct.pack("<IIQ", prog.fd, len(info), ctypes.addressof(info)))
    print(struct.unpack_from("<Q", info, 200)[0], flush=True)
    sys.stdin.readline()
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


@pytest.mark.parametrize("engine", ["ptrace", "bpf"])
def test_with_p_only_the_runs_of_the_trace_count(engine: str, tmp_path: Path) -> None:
    """A program that is attached all the time, and runs before and while we look."""
    script = tmp_path / "runs.py"
    script.write_text(WAITS)
    held = bpf_stats()  # so that there is something from before
    try:
        with subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=environment(), cwd=ROOT,
        ) as program:  # fmt: skip
            assert program.stdin is not None
            assert program.stdout is not None
            assert program.stdout.readline() == "1000\n"
            text = tmp_path / "trace.txt"
            with subprocess.Popen(
                [sys.executable, "-m", "bpftrace_sys", "--engine", engine, "--stats",
                 "-o", str(text), "-p", str(program.pid)],
                env=environment(), cwd=ROOT,
            ) as tracer:  # fmt: skip
                until = time.monotonic() + 60
                while "holds" not in (text.read_text() if text.exists() else ""):
                    assert time.monotonic() < until
                    time.sleep(0.1)
                program.stdin.write("go\n")
                program.stdin.flush()
                assert program.stdout.readline() == "1700\n"
                program.stdin.close()
                tracer.wait(60)
    finally:
        os.close(held)
    said = text.read_text()
    title = next(line for line in said.splitlines() if line.startswith("programs"))
    (row,) = tables_of(said.replace(title, "programs"))["programs"]
    assert row["runs"] == "700"


def test_by_ebpf_a_program_is_held_until_it_was_counted() -> None:
    """Its last runs count, too; then it is gone, though the trace goes on."""
    engine = Watch(Wanted(everybody=False, ring=1 << 16))
    engine.open()
    runs = HeldRuns(engine.holders, engine.before["prog"])
    try:
        packet = ctypes.create_string_buffer(64)
        with asm.prog_load(asm.mov(0, 0) + asm.exit_(), "socket_filter") as prog:
            number = asm.prog_info(prog.fd).id
            assert engine.holders(prog.fd) == 1
            run = struct.pack("<IIIIQQII", prog.fd, 0, 64, 0, ctypes.addressof(packet), 0, 300, 0)
            asm.bpf(10, run + bytes(48))
            runs.add(number)
            assert engine.holders(prog.fd) == 2
            runs.look()
            assert runs.runs(number) is not None
            asm.bpf(10, run + bytes(48))
        runs.look()
        assert str(runs.runs(number)).split()[0] == "600"
        deadline = time.monotonic() + 20  # the kernel frees it a while after
        while bpf.info("prog", number) is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert str(runs.runs(number)).split()[0] == "600"
        assert engine.holders(sys.stderr.fileno()) == 0
    finally:
        runs.close()
        engine.close()


def test_by_ebpf_what_we_hold_is_not_said_to_be_left(tmp_path: Path) -> None:
    script = tmp_path / "waits.py"
    script.write_text(WAITS)
    text = tmp_path / "trace.txt"
    with subprocess.Popen(
        [sys.executable, "-m", "bpftrace_sys", "--engine", "bpf", "--stats", "-o", str(text),
         sys.executable, str(script)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), cwd=ROOT,
    ) as tracer:  # fmt: skip
        assert tracer.stdin is not None
        assert tracer.stdout is not None
        assert tracer.stdout.readline() == "1000\n"
        until = time.monotonic() + 60
        while "BPF_PROG_LOAD" not in text.read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        tracer.communicate("go\n\n", timeout=60)
    said = text.read_text()
    title = next(line for line in said.splitlines() if line.startswith("programs"))
    (row,) = tables_of(said.replace(title, "programs"))["programs"]
    assert row["runs"] == "1700"
    assert "left behind" not in said


def bpf_stats() -> int:
    return asm.bpf(32, struct.pack("<I", 0))


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
