"""A tracee: calls whose names and fields ``older.py`` does not know."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "loaders"))

from _common import Kit, call, returning, syscall

kit = Kit()
kit.map("RINGBUF", 0, 0, 4096, "ring")
kit.map("ARRAY", 4, 8, 1, "mapped", map_flags=0x400)
kit.map("BLOOM_FILTER", 0, 8, 4, "bloom", map_extra=3)
call("ENABLE_STATS", type=0)
with kit.may_be_refused("type of stats"):
    call("ENABLE_STATS", type=77)
kit.prog("SOCKET_FILTER", returning(0), "verified")
attr = bytearray(128)
struct.pack_into("<IIQ", attr, 0, 1, 128, 9)
struct.pack_into("<Q", attr, 24, 1 << 20 | 1)
struct.pack_into("<Q", attr, 40, 1 << 0 | 1 << 36 | 1 << 37)
struct.pack_into("<Q", attr, 120, 0xABCDEF)
with kit.may_be_refused("sigtrap"):
    syscall("perf_event_open", bytes(attr), 0, -1, -1, 8)
print(json.dumps({**kit.facts, "refused": kit.refused}))
