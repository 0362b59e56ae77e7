"""Loops take short cuts in capture and in text; what comes out must be the same."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment, run_cli

LOOP = """
import ctypes, struct, sys
sys.path.insert(0, {root!r})
libc = ctypes.CDLL(None, use_errno=True)
def bpf(cmd, data):
    attr = ctypes.create_string_buffer(data, len(data))
    return libc.syscall(321, cmd, attr, len(data))
fd = bpf(0, struct.pack("<5I8x16s20x", 1, 4, 8, 64, 0, b"loop"))
key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(8)
attr = ctypes.create_string_buffer(
    struct.pack("<I4xQQQ", fd, ctypes.addressof(key), ctypes.addressof(value), 0), 32)
for number in range(60):
    key.raw = struct.pack("<I", number)
    value.raw = b"text\\0\\0\\0\\0" if number % 20 == 7 else struct.pack("<Q", number * number)
    libc.syscall(321, 2, attr, 32)
for number in range(80):  # the last twenty are not there
    key.raw = struct.pack("<I", number)
    value.raw = bytes(8)
    libc.syscall(321, 1, attr, 32)
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
