"""Loads that are tried again are copied by plan; what the trace has is what the program passed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.running import run_cli

PROGRAM = """
import ctypes, json, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
attr = ctypes.create_string_buffer(128)
insns = ctypes.create_string_buffer(24)
license = ctypes.create_string_buffer(b"GPL", 16)
log = ctypes.create_string_buffer(4096)
told = []

def load(times, first, imm, name=b"again", word=b"GPL", level=1):
    # first: r0 = IMM, or r0 = r3, which the verifier refuses.
    insns.raw = first + struct.pack("<BBhi", 0xB7, 6, 0, imm) + b"\\x95" + bytes(7)
    license.raw = word.ljust(16, b"\\0")
    attr.raw = struct.pack("<IIQQIIQII16s", 1, 3, ctypes.addressof(insns),
        ctypes.addressof(license), level, 4096 if level else 0,
        ctypes.addressof(log) if level else 0, 0, 0, name).ljust(128, b"\\0")
    for _ in range(times):
        ctypes.memset(log, 0, 4096)
        fd = libc.syscall(BPF, 5, attr, 128)
        told.append([fd >= 0, imm, name.decode(), word.decode(), log.value.decode()])
        if fd >= 0:
            os.close(fd)

BAD, GOOD = struct.pack("<BBhi", 0xBF, 0x30, 0, 0), struct.pack("<BBhi", 0xB7, 0, 0, 0)
load(4, BAD, 1)
load(3, BAD, 2)
load(2, BAD, 1)
load(3, GOOD, 1, level=0)
load(3, BAD, 1, name=b"other")
load(3, BAD, 1, word=b"MIT")
load(1, GOOD, 1, level=2)
load(2, BAD, 1, level=2)
load(2, BAD, 1)
print(json.dumps(told))
"""

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("needs_bpf")]


def loads(trace: Path) -> list[Any]:
    """What a trace says of each PROG_LOAD."""
    found = []
    for line in map(json.loads, trace.read_text().splitlines()):
        if line["type"] != "syscall" or line["args"].get("cmd") != "BPF_PROG_LOAD":
            continue
        attr = line["args"]["attr"]
        log = attr["log_buf"]
        log = log.get("after", log) if isinstance(log, dict) else None
        text = log["value"] if isinstance(log, dict) and "value" in log else ""
        found.append([line["ret"] >= 0, attr, text])
    return found


def test_each_attempt_is_what_the_program_passed(tmp_path: Path) -> None:
    trace, text = tmp_path / "t.jsonl", tmp_path / "t.txt"
    done = run_cli(
        "-e", "trace=bpf", "--json", str(trace), "-o", str(text), sys.executable, "-c", PROGRAM
    )
    assert done.returncode == 0, done.stderr
    told, found = json.loads(done.stdout), loads(trace)
    assert len(told) == len(found) == 23
    for (succeeded, imm, name, word, log), (fine, attr, text_of_log) in zip(
        told, found, strict=True
    ):
        assert fine == succeeded
        assert attr["prog_name"] == name
        assert attr["license"]["value"] == word
        assert f"r6 = {imm}" in json.dumps(attr["insns"])
        assert (log or "") == (text_of_log or ""), attr["log_buf"]
    replayed = run_cli("replay", str(trace))
    assert replayed.returncode == 0, replayed.stderr
    assert replayed.stdout == text.read_text()
