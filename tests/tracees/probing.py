"""A program for the tests of feature probes: probes, and programs that look like them.

    python3 tests/tracees/probing.py SCENE

The shapes are those that the loaders send (see docs/probes.md), made here by hand.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "loaders"))

from _common import ATTACH, MAP, PROG, asm, call, returning, u32s, u64s

NOBODYS = 0xFFFFFFFF
MEMCG = asm.raw(0x85, imm=160) + asm.exit_()


def load(kind: str = "SOCKET_FILTER", insns: bytes = returning(0), **fields: Any) -> int:
    fields = {"license": b"GPL\0", **fields}
    made = call("PROG_LOAD", prog_type=PROG[kind], insns=insns, insn_cnt=len(insns) // 8, **fields)
    return int(made.ret)


def make(kind: str = "ARRAY", key: int = 4, value: int = 4, entries: int = 1, **fields: Any) -> int:
    made = call(
        "MAP_CREATE", map_type=MAP[kind], key_size=key, value_size=value, max_entries=entries,
        **fields,
    )  # fmt: skip
    return int(made.ret)


def refused(work: Any) -> None:
    with contextlib.suppress(OSError):
        work()


def company() -> None:
    """What libbpf begins with."""
    os.close(load(insns=MEMCG))


def first_program() -> None:
    """Somebody's first program, and its use later on."""
    prog = load()
    make("HASH", 4, 8, 16, map_name=b"mine")
    call("PROG_TEST_RUN", prog_fd=prog, data_in=bytes(64), data_size_in=64)


def first_program_with_company() -> None:
    """The same through libbpf's low-level calls."""
    company()
    prog = load()
    call("PROG_TEST_RUN", prog_fd=prog, data_in=bytes(64), data_size_in=64)


def kept_map() -> None:
    """A map like a probe's that stays open, and another one."""
    company()
    kept = make()
    make("HASH", 4, 8, 16, map_name=b"mine")
    call("MAP_UPDATE_ELEM", map_fd=kept, key=u32s(0), value=u64s(0))


def closed_map() -> None:
    """A map like a probe's that is closed unused, without company: cilium/ebpf's first."""
    os.close(make())
    os.close(make(map_name=b"feature_test"))
    make("HASH", 4, 8, 16, map_name=b"mine")


def cilium() -> None:
    """Probes of cilium/ebpf's."""
    os.close(make(map_name=b"feature_test"))
    os.close(make(map_name=b".test"))
    refused(lambda: make("ARRAY_OF_MAPS", inner_map_fd=NOBODYS))
    refused(lambda: call("LINK_CREATE", prog_fd=NOBODYS, target_fd=NOBODYS))
    refused(lambda: call("PROG_QUERY", target_fd=NOBODYS))
    os.close(load(insns=asm.raw(0x85, 0, 1, 0, 1) + asm.exit_() + returning(0)))
    refused(lambda: load(func_info_cnt=1, prog_btf_fd=NOBODYS))
    prog = load("KPROBE", prog_name=b"probe_kpm_link",
                expected_attach_type=ATTACH["TRACE_KPROBE_MULTI"])  # fmt: skip
    refused(lambda: call("LINK_CREATE", prog_fd=prog, attach_type=ATTACH["TRACE_KPROBE_MULTI"]))


def sleeper() -> None:
    """Probes, and then sleeps."""
    company()
    time.sleep(1.5)


def two_processes() -> None:
    """Probes of a parent and its child."""
    company()
    child = os.fork()
    if not child:
        os.close(make(map_name=b"libbpf_mmap", map_flags=1 << 10))
        os._exit(0)
    os.waitpid(child, 0)
    make("HASH", 4, 8, 16, map_name=b"mine")


SCENES = {
    scene.__name__: scene
    for scene in (
        first_program, first_program_with_company, kept_map, closed_map, cilium, sleeper,
        two_processes,
    )
}  # fmt: skip

if __name__ == "__main__":
    SCENES[sys.argv[1]]()
