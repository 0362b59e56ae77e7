"""Loops take short cuts in capture and in text; what comes out must be the same."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.support.running import ROOT, environment, run_cli

LOOP = """
import ctypes, os, struct, sys
sys.path.insert(0, {root!r})
libc = ctypes.CDLL(None, use_errno=True)
BPF = {{"x86_64": 321, "aarch64": 280}}[os.uname().machine]
def bpf(cmd, data):
    attr = ctypes.create_string_buffer(data, len(data))
    return libc.syscall(BPF, cmd, attr, len(data))
fd = bpf(0, struct.pack("<5I8x16s20x", 1, 4, 8, 64, 0, b"loop"))
key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(8)
attr = ctypes.create_string_buffer(
    struct.pack("<I4xQQQ", fd, ctypes.addressof(key), ctypes.addressof(value), 0), 32)
for number in range(60):
    key.raw = struct.pack("<I", number)
    value.raw = b"text\\0\\0\\0\\0" if number % 20 == 7 else struct.pack("<Q", number * number)
    libc.syscall(BPF, 2, attr, 32)
for number in range(80):  # the last twenty are not there
    key.raw = struct.pack("<I", number)
    value.raw = bytes(8)
    libc.syscall(BPF, 1, attr, 32)
"""

pytestmark = pytest.mark.usefixtures("needs_bpf")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the text and the JSON of a program that fills and reads a map."""
    folder = tmp_path_factory.mktemp("loop")
    program = LOOP.format(root=str(ROOT))
    text = str(folder / "alone.txt")
    done = run_cli("-e", "trace=bpf", "-o", text, sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    done = run_cli(
        "-e", "trace=bpf", "-o", str(folder / "both.txt"), "--json", str(folder / "t.jsonl"),
        sys.executable, "-c", program, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_every_key_and_value_is_the_program_s_own(recorded: Path) -> None:
    lines = [json.loads(line) for line in (recorded / "t.jsonl").read_text().splitlines()]
    calls = [line for line in lines if line["type"] == "syscall"]
    updates = [line for line in calls if line["args"]["cmd"] == "BPF_MAP_UPDATE_ELEM"]
    lookups = [line for line in calls if line["args"]["cmd"] == "BPF_MAP_LOOKUP_ELEM"]
    assert (len(updates), len(lookups)) == (60, 80)
    for number, line in enumerate(updates):
        expected = (number * number).to_bytes(8, "little")
        if number % 20 == 7:
            expected = b"text\0\0\0\0"
        assert line["args"]["attr"]["key"]["value"]["hex"] == number.to_bytes(4, "little").hex()
        assert line["args"]["attr"]["value"]["value"]["hex"] == expected.hex()
    for number, line in enumerate(lookups):
        assert line["args"]["attr"]["key"]["value"]["hex"] == number.to_bytes(4, "little").hex()
        if number < 60:
            expected = updates[number]["args"]["attr"]["value"]["value"]["hex"]
            assert line["args"]["attr"]["value"]["value"]["hex"] == expected
        else:
            assert line["errno"] == "ENOENT"
            assert line["args"]["attr"]["value"]["absent"] == "not written"


def masked(text: str) -> str:
    """Without what differs between two runs: process ids, map ids, addresses, times."""
    text = re.sub(r"^\[\d+\]", "[N]", text, flags=re.M)
    text = re.sub(r"id=\d+|0x[0-9a-f]{8,}", "ID", text)
    return text.partition("\nmaps\n")[0]


def test_the_short_cut_prints_what_the_long_way_prints(recorded: Path) -> None:
    alone = (recorded / "alone.txt").read_text()
    both = (recorded / "both.txt").read_text()
    assert alone.count("BPF_MAP_UPDATE_ELEM") >= 60
    assert masked(alone) == masked(both)
    # The same trace replayed with the short cut (text alone) and without it.
    trace = str(recorded / "t.jsonl")
    short = run_cli("replay", trace)
    long = run_cli("replay", "--json", "/dev/null", "-o", str(recorded / "long.txt"), trace)
    assert short.returncode == long.returncode == 0
    assert short.stdout == (recorded / "long.txt").read_text() == both


def test_the_ledger_counts_the_short_cut_s_calls(recorded: Path) -> None:
    text = (recorded / "alone.txt").read_text()
    assert re.search(r"loop +hash +\d+ +4 +8 +64 +140$", text, re.M), text[-900:]
    assert re.search(r"bpf +BPF_MAP_UPDATE_ELEM +60 ", text)
    assert re.search(r"bpf +BPF_MAP_LOOKUP_ELEM +80 +20 ", text)


DEVMAP = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def bpf(cmd, data):
    attr = ctypes.create_string_buffer(data, len(data))
    return libc.syscall(321, cmd, attr, len(data))
insns = ctypes.create_string_buffer(bytes.fromhex("b7000000020000009500000000000000"), 16)
licence = ctypes.create_string_buffer(b"GPL")
# BPF_PROG_TYPE_XDP, BPF_XDP_DEVMAP
prog = bpf(5, struct.pack("<IIQQ16x4xI16s4xI", 6, 2, ctypes.addressof(insns),
    ctypes.addressof(licence), 0, b"behind", 33))
fd = bpf(0, struct.pack("<5I8x16s20x", 14, 4, 8, 64, 0, b"devices"))
key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(8)
attr = ctypes.create_string_buffer(
    struct.pack("<I4xQQQ", fd, ctypes.addressof(key), ctypes.addressof(value), 0), 32)
for number in range(8):
    key.raw = struct.pack("<I", number)
    value.raw = struct.pack("<II", 1, prog if number == 6 else 0)
    if libc.syscall(321, 2, attr, 32): sys.exit(f"update {number}: {ctypes.get_errno()}")
"""


def test_a_program_that_comes_late_in_a_loop_is_known(tmp_path: Path) -> None:
    """A plan copies, and asks nothing: maps whose values name fds are not for it."""
    out = tmp_path / "out"
    done = run_cli("-e", "trace=bpf", "-o", str(out), sys.executable, "-c", DEVMAP)
    assert done.returncode == 0, done.stderr
    updates = out.read_text().split("bpf(BPF_MAP_UPDATE_ELEM, {")[1:]
    named = [bool(re.search(r"bpf_prog\.fd=\d+<prog behind id=\d+>", text)) for text in updates]
    assert named == [False] * 6 + [True, False]


TRIE = """
import ctypes, struct
libc = ctypes.CDLL(None)
def bpf(cmd, data):
    attr = ctypes.create_string_buffer(data, len(data))
    return libc.syscall(321, cmd, attr, len(data))
fd = bpf(0, struct.pack("<5I8x16s20x", 11, 8, 8, 4096, 1, b"trie"))  # BPF_F_NO_PREALLOC
key, value = ctypes.create_string_buffer(8), ctypes.create_string_buffer(8)
attr = ctypes.create_string_buffer(
    struct.pack("<I4xQQQ", fd, ctypes.addressof(key), ctypes.addressof(value), 0), 32)
for number in range(200):
    key.raw = struct.pack("<II", 32, number << 8)
    value.raw = struct.pack("<Q", number)
    libc.syscall(321, 2, attr, 32)
"""


def test_a_map_that_grows_is_a_loop_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fdinfo changes with the elements; every key and value is there, and its size then."""
    done = run_cli(
        "-e", "trace=bpf", "--json", str(tmp_path / "t.jsonl"), sys.executable, "-c", TRIE
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    updates = [
        line for line in lines
        if line["type"] == "syscall" and line["args"]["cmd"] == "BPF_MAP_UPDATE_ELEM"
    ]  # fmt: skip
    hexes = [line["args"]["attr"]["value"]["value"]["hex"] for line in updates]
    assert hexes == [number.to_bytes(8, "little").hex() for number in range(200)]
    sizes = [line["raw"]["fds"][0][3]["memlock"] for line in updates]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 1
