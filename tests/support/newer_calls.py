"""A trace of a kernel that there is not: calls with what ``newer_tables.py`` adds to the tables.

    python newer_calls.py TRACE       with the packages of such a copy first in PYTHONPATH
"""

from __future__ import annotations

import struct
import sys
from itertools import count
from pathlib import Path
from typing import Any, Final

from bpftrace_sys.trace.header import Header
from bpftrace_sys.trace.items import End
from decoders import arch as arches
from decoders.events import Ending
from decoders.raw import AUDIT_ARCH_X86_64, RawCall
from decoders.uapi import const
from decoders.uapi.layouts import SIZES
from tests.support.by_hand import Room, built
from tests.support.made_up import record
from tests.support.newer_tables import IOCTL_NUMBER
from tests.support.rewriting import save

MAP, PROG, LINK, EVENT = 3, 4, 5, 6
FDS: Final[dict[int, tuple[str, dict[str, Any]]]] = {
    MAP: ("map", {"map_id": 1, "map_type": 36, "key_size": 4, "value_size": 8, "max_entries": 4}),
    PROG: ("prog", {"prog_id": 7, "prog_type": 33, "prog_tag": "00" * 8}),
    LINK: ("link", {"link_id": 5, "link_type": "oracle", "prog_id": 7, "prog_tag": "00" * 8}),
    EVENT: ("perf_event", {"path": "anon_inode:[perf_event]"}),
}
INSNS: Final = b"\x85\0\0\0" + struct.pack("<I", 212) + b"\x95" + bytes(7)


def calls() -> list[RawCall]:
    """Each new thing in use, and the old commands beside it."""
    numbers = count(1)
    found: list[RawCall] = []

    def made(name: str, args: tuple[int, ...], room: Room, ret: int, after: Room) -> None:
        nr = arches.number(AUDIT_ARCH_X86_64, name)
        known = dict(FDS)
        if ret < min(FDS):
            known.pop(ret, None)
        raw = record(AUDIT_ARCH_X86_64, nr, args, room.memory(), after.memory(), ret, known)
        seq = next(numbers)
        found.append(raw.replace(seq=seq, time=raw.time + seq * 1_000_000))

    def bpf(command: str, attr: bytes, room: Room, ret: int = 0, after: bytes = b"") -> None:
        addr = room.put(attr)
        later = Room()
        later.regions = {**room.regions, addr: after or attr}
        number = getattr(const, f"BPF_{command}")
        made("bpf", (number, addr, len(attr), 0, 0, 0), room, ret, later)

    def info(fd: int, kind: str, before: bytes = b"", **fields: int) -> None:
        room = Room()
        size = SIZES[f"bpf_{kind}_info"]
        at = room.put(bytes(size))
        attr = room.put(struct.pack("<IIQ", fd, size, at))
        later = Room()
        later.regions = {**room.regions, at: built(f"bpf_{kind}_info", **fields)}
        made("bpf", (const.BPF_OBJ_GET_INFO_BY_FD, attr, 16, 0, 0, 0), room, 0, later)

    room = Room()
    create = {"map_type": 36, "key_size": 4, "value_size": 8, "max_entries": 4}
    bpf("MAP_CREATE", built("bpf_attr.MAP_CREATE", map_name=b"strip", **create), room, MAP)
    room = Room()
    load = built(
        "bpf_attr.PROG_LOAD", room, prog_type=33, insn_cnt=2, insns=INSNS, license=b"GPL\0",
        prog_name=b"pythia", expected_attach_type=62, omen=77,
    )  # fmt: skip
    bpf("PROG_LOAD", load, room, PROG)
    room = Room()
    oracle = struct.pack("<IIIIQ", PROG, 0, 62, 0, 0x5EED)
    bpf("LINK_CREATE", oracle, room, LINK)
    attach = built("bpf_attr.PROG_ATTACH", target_fd=9, attach_bpf_fd=PROG, attach_type=62)
    bpf("PROG_ATTACH", attach, Room(), 0)
    bpf("PROG_ATTACH", attach, Room(), -22)
    invert = built("bpf_attr.map_invert", map_fd=MAP, flags=1, mirror=0xABC)
    bpf("MAP_INVERT", invert, Room(), 0)
    bpf("MAP_INVERT", invert, Room(), -22)
    info(MAP, "map", type=36, id=1, sides=1)
    info(PROG, "prog", type=33, id=7, omens=3)
    info(LINK, "link", type=16, id=5, prog_id=7, oracle__riddle=0x5EED)
    room = Room()
    at = room.put(struct.pack("<Q", 42))
    made("ioctl", (EVENT, IOCTL_NUMBER, at, 0, 0, 0), room, 0, room)
    room = Room()
    element = built("bpf_attr.MAP_*_ELEM", room, map_fd=MAP, key=b"abcd", value=b"abcdefgh")
    bpf("MAP_UPDATE_ELEM", element, room, 0)
    return found


if __name__ == "__main__":
    header = Header(["oracle"], "99.0", "x86_64", 4, {"kprobe": 6}, 1_700_000_000_000_000_000)
    save(Path(sys.argv[1]), header, [*calls(), End(Ending(code=0))])
