"""-e kernel= by the eBPF engine: what a program became, or that it was gone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.support.bpftool_view import bpftool
from tests.support.needs import needs_tool
from tests.support.running import environment, run_cli
from tests.support.updates import UPDATES, lines_of

LOADS = UPDATES + """
# r1 = 0 ll; r0 = r1; exit
insns = struct.pack("<BBhiBBhiBBhiBBhi", 0x18, 1, 0, 7, 0, 0, 0, 0, 0xbf, 0x10, 0, 0, 0x95, 0, 0, 0)
room = ctypes.create_string_buffer(insns, len(insns))
licence = ctypes.create_string_buffer(b"GPL")
def load():
    attr = struct.pack("<IIQQ", 1, 4, ctypes.addressof(room), ctypes.addressof(licence))
    fd = bpf(5, attr.ljust(72, b"\\0"))
    assert fd >= 0
    return fd
"""


def test_a_program_that_stays_is_shown_as_bpftool_shows_it(
    tmp_path: Path, needs_bpf: None
) -> None:
    needs_tool("bpftool")
    trace = tmp_path / "trace.jsonl"
    script = LOADS + "load(); sys.stdin.read()"
    watching = subprocess.Popen(
        [sys.executable, "-m", "bpftrace_sys", "--engine", "bpf", "-e", "kernel=xlated,map",
         "-o", "/dev/null", "--json", str(trace), sys.executable, "-c", script],
        stdin=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (trace.exists() and '"kernel_view"' in trace.read_text().rpartition("\n")[0]):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        lines = [json.loads(line) for line in trace.read_text().split("\n")[:-1]]
        (view,) = [line for line in lines if line["type"] == "kernel_view"]
        dump = bpftool("prog", "dump", "xlated", "id", str(view["prog"]["id"]))
    finally:
        watching.communicate(b"", timeout=60)
    assert watching.returncode == 0
    assert [row["text"] for row in view["xlated"]] == [row["disasm"] for row in dump]
    assert len(view["xlated"]) == 3
    text = run_cli("replay", "-q", "-e", "kernel=map", str(trace)).stdout
    assert "unchanged   /* a copy was loaded to learn this" in text


def test_one_that_is_gone_is_said_to_be(tmp_path: Path, needs_bpf: None) -> None:
    """Each of a hundred, closed at once, has a view, or why it has none."""
    trace = tmp_path / "trace.jsonl"
    done = run_cli(
        "--engine", "bpf", "-q", "-e", "kernel=xlated", "-e", "bpf=prog_load", "--json", str(trace),
        sys.executable, "-c", LOADS + "for _ in range(100): os.close(load())",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = lines_of(trace)
    loads = [line["seq"] for line in lines if line["type"] == "syscall"]
    views = [line for line in lines if line["type"] == "kernel_view"]
    assert len(loads) == 100
    assert [line["seq"] for line in views] == loads
    missing = [line["problem"] for line in views if "problem" in line]
    assert set(missing) <= {"it was gone when it was asked for"}
    assert done.stderr.count("was gone when it was asked for") == len(missing)
