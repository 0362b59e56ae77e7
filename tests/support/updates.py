"""A program that makes a map and updates it some times; and a trace's lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

UPDATES = """
import ctypes, os, struct, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
nr = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
def bpf(cmd, attr):
    room = ctypes.create_string_buffer(attr, len(attr))
    return libc.syscall(nr, cmd, room, len(attr))
def work(count):
    table = bpf(0, struct.pack("<4I", 2, 4, 8, 4).ljust(72, b"\\0"))
    key, value = ctypes.create_string_buffer(4), ctypes.create_string_buffer(8)
    attr = struct.pack("<IIQQQ", table, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
    for _ in range(count):
        assert bpf(2, attr) == 0
    os.close(table)
"""
"""A map is made, and updated some times."""


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
