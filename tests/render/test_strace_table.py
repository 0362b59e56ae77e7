"""``--style strace`` -c, -C, -w, -O, -S and -U: strace's table."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bpftrace_sys.cli.options import UsageError, parse
from bpftrace_sys.render.strace.summary import KNOWN, SORTED, Count, Spent, table
from tests.support.needs import needs_tool
from tests.support.running import environment, run_cli

COUNTS = [
    Count("bpf", 321, 145, 105, Spent(784_000, 1_000, 50_000), Spent(9_000_000, 50_000, 2_000_000)),
    Count("openat", 257, 2, 0, Spent(16_000, 8_000, 8_000), Spent(20_000_000_000, 0, 20 * 10**9)),
    Count("ioctl", 16, 2, 2, Spent(), Spent()),
]


def test_table() -> None:
    """strace 7.2's, of these numbers."""
    assert table(COUNTS[:2]) == (
        "% time     seconds  usecs/call     calls    errors syscall\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        " 98.00    0.000784           5       145       105 bpf\n"
        "  2.00    0.000016           8         2           openat\n"
        "------ ----------- ----------- --------- --------- ----------------\n"
        "100.00    0.000800           5       147       105 total\n"
    )
    assert table(COUNTS[:2], ("calls", "name", "errors"), "name").splitlines()[:3] == [
        "    calls syscall             errors", "--------- ---------------- ---------",
        "      145 bpf                    105",
    ]  # fmt: skip
    assert table(COUNTS, ("name", "max-time"), "max-time").splitlines()[2] == (
        "bpf              0.000050"
    )
    # In the order of their numbers where nothing else says one.
    names = [line.split()[-1] for line in table(COUNTS, by="nothing").splitlines()[2:5]]
    assert names == ["ioctl", "openat", "bpf"]
    assert table([Count("bpf", 1, 1)]).splitlines()[2].startswith("  0.00    0.000000")
    columns = ("wall-total", "wall-min", "wall-max", "wall-avg", "name")
    assert table(COUNTS, columns, "wall-avg") == (
        " wall-total wall-min  wall-max    wall-avg syscall\n"
        "----------- -------- --------- ----------- ----------------\n"
        "  20.000000 0.000000 20.000000    10000000 openat\n"
        "   0.009000 0.000050  0.002000          62 bpf\n"
        "   0.000000 0.000000  0.000000           0 ioctl\n"
        "----------- -------- --------- ----------- ----------------\n"
        "  20.009000 0.000000 20.000000      134288 total\n"
    )


WORK = r"""
import ctypes, errno, os, struct, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]

def bpf(command, attr):
    return libc.syscall(BPF, command, ctypes.create_string_buffer(attr, len(attr)), len(attr))

insns = ctypes.create_string_buffer(struct.pack("<BBhi", 0xB7, 0, 0, 0) + b"\x95" + bytes(7))
licence = ctypes.create_string_buffer(b"GPL")
at = ctypes.addressof
prog = bpf(5, struct.pack("<2I2Q2IQ", 1, 2, at(insns), at(licence), 0, 0, 0))
for _ in range(3):
    bpf(99, bytes(4))
if sys.argv[1:] == ["slow"]:
    packet = ctypes.create_string_buffer(64)
    bpf(10, struct.pack("<4I2Q2I", prog, 0, 64, 0, at(packet), 0, 20_000_000, 0))
    fifo = sys.argv[0] + ".fifo"
    os.mkfifo(fifo)
    later = subprocess.Popen(["sh", "-c", f'sleep 0.4; : < "$0"', fifo])
    open(fifo, "wb").close()
    later.wait()
"""


@pytest.fixture
def work(tmp_path: Path) -> list[str]:
    path = tmp_path / "work.py"
    path.write_text(WORK)
    return [sys.executable, str(path)]


@pytest.mark.live
@pytest.mark.parametrize(
    "options",
    [["-c", "-U", "calls,name,errors", "-S", "calls"], ["-C", "-U", "name,calls", "-S", "name"],
     ["-c", "-f", "-S", "errors", "-U", "errors,calls"], ["-c", "-w", "-U", "count,syscall"]],
    ids=" ".join,
)  # fmt: skip
def test_beside_strace(options: list[str], work: list[str], needs_bpf: None) -> None:
    """The same calls, errors, order and widths."""
    needs_tool("strace")
    words = ["-e", "trace=bpf,openat", *options]
    ours = run_cli("--style", "strace", *words, *work).stderr
    theirs = subprocess.run(
        ["strace", *words, *work],
        capture_output=True, text=True, check=False, env=environment(),
    ).stderr  # fmt: skip
    rows = [
        list(itertools.dropwhile(lambda line: "syscall" not in line, text.splitlines()))
        for text in (ours, theirs)
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) >= 5


@pytest.mark.live
def test_times(work: list[str], needs_bpf: None, tmp_path: Path) -> None:
    """The CPU's, unless -w is given: of a call that computes much, of one that only waits little.
    A trace has them, too; what has been taken off is less."""

    def seconds(text: str) -> dict[str, float]:
        rows = [line.split() for line in text.splitlines()[2:] if "---" not in line]
        return {row[-1]: float(row[1]) for row in rows}

    trace = tmp_path / "trace.jsonl"
    words = ["--style", "strace", "-e", "trace=bpf,openat"]
    done = run_cli(*words, "-c", "--json", str(trace), *work, "slow")
    cpu = seconds(done.stderr)
    assert cpu["bpf"] > 0.02, done.stderr
    assert cpu["openat"] < 0.2
    assert seconds(run_cli("replay", "--style", "strace", "-c", str(trace)).stdout) == cpu
    wall = seconds(run_cli("replay", *words[:2], "-c", "-w", str(trace)).stdout)
    assert wall["openat"] > 0.3
    assert wall["bpf"] > 0.02
    less = seconds(run_cli("replay", *words[:2], "-c", "-w", "-O", "100ms", str(trace)).stdout)
    assert less["openat"] == pytest.approx(wall["openat"] - 0.1, abs=0.1)
    # Where nobody has looked, times are those on the wall, and that is said.
    plain = tmp_path / "plain.jsonl"
    run_cli("-q", "-o", os.devnull, "--json", str(plain), *work)
    done = run_cli("replay", *words[:2], "-c", str(plain))
    assert "CPU times of calls are known where" in done.stderr
    assert re.search(r"^100\.00", done.stdout, re.M)


@pytest.mark.offline
@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("5us", 5_000), ("12", 12_000), ("1.5ms", 1_500_000), ("3ns", 3), ("0.25s", 250_000_000),
     ("1e3", 1_000_000)],
)  # fmt: skip
def test_overhead(text: str, nanoseconds: int) -> None:
    """strace's parse_ts() (src/util.c)."""
    assert parse(["--style", "strace", "-c", "-O", text, "x"], "live").overhead == nanoseconds


@pytest.mark.offline
@pytest.mark.parametrize("text", ["", "us", "-5", "5 us", "1h", "1e99s", "9" * 30])
def test_no_overhead(text: str) -> None:
    with pytest.raises(UsageError, match="-O"):
        parse(["--style", "strace", "-c", "-O", text, "x"], "live")


@pytest.mark.offline
def test_every_column_has_an_order() -> None:
    assert set(SORTED) == {*KNOWN, "nothing"}
    for name in SORTED:
        assert table(COUNTS, tuple(KNOWN), name).count("\n") == 7
