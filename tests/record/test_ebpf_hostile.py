"""Tracees that lie to the eBPF engine, or change what it reads."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.support.running import run_cli
from tests.support.schema import check
from tests.support.updates import UPDATES, lines_of

pytestmark = pytest.mark.usefixtures("needs_bpf")


def test_memory_that_changes_during_the_call(tmp_path: Path) -> None:
    """What a later row goes by is what was sent: one reading of the attr."""
    script = UPDATES + (
        "table = bpf(0, struct.pack('<4I', 2, 4, 8, 4).ljust(72, b'\\0'))\n"
        "key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(8)\n"
        "good = struct.pack('<IIQQQ', table, 0, *map(ctypes.addressof, (key, value)), 0)\n"
        "bad = struct.pack('<IIQQQ', 0x7fffffff, 0, 0xffffffffffff0000, 1, 0)\n"
        "attr = ctypes.create_string_buffer(good, 32)\n"
        "stop = False\n"
        "def change():\n"
        "    while not stop:\n"
        "        ctypes.memmove(attr, bad, 32); ctypes.memmove(attr, good, 32)\n"
        "thread = threading.Thread(target=change); thread.start()\n"
        "for _ in range(2000): libc.syscall(nr, 2, attr, 32)\n"
        "stop = True; thread.join()\n"
    )
    trace = tmp_path / "trace.jsonl"
    ran = run_cli(
        "--engine", "bpf", "-f", "-q", "-o", "/dev/null", "--json", str(trace),
        sys.executable, "-c", script,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = lines_of(trace)
    check(lines[:100])
    updates = [
        line for line in lines
        if line["type"] == "syscall" and line["args"]["cmd"] == "BPF_MAP_UPDATE_ELEM"
    ]  # fmt: skip
    assert len(updates) == 2000
    assert not [line for line in updates if "problem" in line]


def test_counts_that_lie(tmp_path: Path) -> None:
    """Sizes of gigabytes, pointers to nowhere and to read-only pages: bounded, and all told."""
    script = UPDATES + (
        "for cmd in range(40):\n"
        "    for word in (0, 1, 0xffffffff, 0x7fffffffffffffff, 0xffffffffffffffff):\n"
        "        libc.syscall(nr, cmd, ctypes.c_void_p(word), 0xffffffff)\n"
        "        libc.syscall(nr, cmd, ctypes.c_void_p(word), 64)\n"
        "        bpf(cmd, struct.pack('<Q', word) * 18)\n"
    )
    trace = tmp_path / "trace.jsonl"
    began = time.monotonic()
    ran = run_cli(
        "--engine", "bpf", "-q", "-o", "/dev/null", "--json", str(trace), "-e", "trace=bpf",
        sys.executable, "-c", script,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert time.monotonic() - began < 60
    lines = lines_of(trace)
    check(lines)
    assert len([line for line in lines if line["type"] == "syscall"]) == 40 * 5 * 3


def test_a_page_that_nobody_has_touched(tmp_path: Path) -> None:
    """Nor the kernel, which refuses the flags first: not captured. Where no memory is:
    unreadable."""
    script = UPDATES + (
        "import mmap\n"
        "untouched = mmap.mmap(-1, 8192)\n"
        "addr = ctypes.addressof(ctypes.c_char.from_buffer(untouched))\n"
        "for where in (addr, 0x1000):\n"
        "    bpf(5, struct.pack('<IIQQIIQII', 1, 4, where, 0, 0, 0, 0, 0, 0xffffffff))\n"
    )
    trace = tmp_path / "trace.jsonl"
    run_cli("--engine", "bpf", "-q", "-o", "/dev/null", "--json", str(trace),
            "-e", "bpf=prog_load", sys.executable, "-c", script)  # fmt: skip
    insns = [
        line["args"]["attr"]["insns"] for line in lines_of(trace)
        if line["type"] == "syscall" and line["syscall"] == "bpf"
    ]  # fmt: skip
    assert [one["absent"] for one in insns] == ["not captured", "unreadable address"]


def test_a_page_that_the_kernel_reads_in(tmp_path: Path) -> None:
    """It is read when the call is over; the call says so."""
    code = tmp_path / "insns"
    code.write_bytes(bytes.fromhex("b700000000000000 9500000000000000").ljust(4096, b"\0"))
    script = UPDATES + (
        "import mmap\n"
        f"file = open({str(code)!r}, 'r+b')\n"
        "page = mmap.mmap(file.fileno(), 4096, mmap.MAP_PRIVATE)\n"
        "addr = ctypes.addressof(ctypes.c_char.from_buffer(page))\n"
        "gpl = ctypes.create_string_buffer(b'GPL')\n"
        "bpf(5, struct.pack('<IIQQ', 1, 2, addr, ctypes.addressof(gpl)).ljust(48, b'\\0'))\n"
        "print(hex(addr))\n"
    )
    trace = tmp_path / "trace.jsonl"
    ran = run_cli("--engine", "bpf", "-q", "-o", "/dev/null", "--json", str(trace),
                  "-e", "bpf=prog_load", sys.executable, "-c", script)  # fmt: skip
    (load,) = [
        line for line in lines_of(trace)
        if line["type"] == "syscall" and line["syscall"] == "bpf"
    ]  # fmt: skip
    insns = load["args"]["attr"]["insns"]
    assert insns["addr"] == ran.stdout.strip()
    assert [one["text"] for one in insns["value"]] == ["(b7) r0 = 0", "(95) exit"]
    assert load["raw"]["extra"]["late"] == [insns["addr"]]


def test_an_fd_that_is_closed_at_once(tmp_path: Path) -> None:
    """What it was is known all the same: the kernel's program looked during the call."""
    script = UPDATES + "for _ in range(200): work(1)\n"
    out = tmp_path / "out.txt"
    ran = run_cli("--engine", "bpf", "-q", "-o", str(out), sys.executable, "-c", script)
    assert ran.returncode == 0, ran.stderr
    text = out.read_text()
    assert text.count("map_fd=") == 200
    assert "map_fd=3<map (anonymous) id=" in text or text.count("<map") >= 200
