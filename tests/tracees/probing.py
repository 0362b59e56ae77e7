"""A program for the tests of feature probes: probes, and programs that look like them.

    python3 tests/tracees/probing.py SCENE

The shapes are those that the loaders send (see docs/probes.md), made here by hand.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent / "loaders"))

from _common import ATTACH, MAP, PROG, asm, call, returning, u32s, u64s

NOBODYS = 0xFFFFFFFF
MEMCG = asm.raw(0x85, imm=160) + asm.exit_()


TYPED = asm.raw(0x18) + bytes(8) + asm.exit_()
"""r0 = 0 ll; exit."""


def blob(strings: bytes, *types: bytes) -> bytes:
    """BTF of these types."""
    size = sum(map(len, types))
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, size, size, len(strings)) + (
        b"".join(types) + strings
    )


EXTENSION = blob(
    b"\0a\0xdp_md\0ctx\0",
    u32s(1, 12 << 24 | 1, 5),  # a(), global
    u32s(0, 1 << 24, 0, 0),  # what it returns
    u32s(3, 4 << 24, 0),  # struct xdp_md
    u32s(0, 2 << 24, 3),
    u32s(0, 13 << 24 | 1, 2, 10, 4),  # (struct xdp_md *ctx)
)
DISPATCHER = blob(
    b"\0int\0xdp_dispatcher\0xdp_pass\0.rodata\0conf\0",
    u32s(1, 1 << 24, 4, 1 << 24 | 32),
    u32s(0, 13 << 24, 1),
    u32s(5, 12 << 24 | 1, 2),
    u32s(20, 12 << 24 | 1, 2),
    u32s(37, 14 << 24, 1, 0),  # int conf
    u32s(29, 15 << 24 | 1, 4, 5, 0, 4),
)
"""As much of xdp-dispatcher.o's as there need be."""


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


def cilium_types() -> None:
    """cilium/ebpf's features, one a process: nothing but one program is loaded. LIRC is refused
    where the kernel has no remote controls."""
    for kind in ("LWT_IN", "LIRC_MODE2", "SYSCALL"):
        child = os.fork()
        if not child:
            with contextlib.suppress(OSError):
                os.close(load(kind, TYPED, prog_flags=(1 << 4) * (kind == "SYSCALL")))
            os._exit(0)
        os.waitpid(child, 0)


def like_cilium() -> None:
    """Instructions like cilium/ebpf's, which are run."""
    prog = load(insns=TYPED)
    call("PROG_TEST_RUN", prog_fd=prog, data_in=bytes(64), data_size_in=64)


def cilium_more() -> None:
    """What cilium/ebpf 0.20 asks for by more than one call: runs, ids of maps, extensions."""
    prog = load(insns=TYPED, license=b"MIT\0")
    call("PROG_TEST_RUN", prog_fd=prog, data_in=bytes(15), data_size_in=15)
    os.close(prog)
    prog = load(insns=TYPED, license=b"MIT\0")
    info = bytearray(232)
    info[52:56] = u32s(1)  # nr_map_ids
    call("OBJ_GET_INFO_BY_FD", bpf_fd=prog, info=bytes(info), info_len=len(info))
    os.close(prog)
    made = call("BTF_LOAD", btf=EXTENSION, btf_size=len(EXTENSION))
    func = {"prog_btf_fd": made.ret, "func_info_rec_size": 8, "func_info_cnt": 1,
            "func_info": u32s(0, 1), "license": b"\0"}  # fmt: skip
    target = load("XDP", **func)
    refused(lambda: load("EXT", attach_prog_fd=target, attach_btf_id=1, **func))


def dispatcher(magic: int, flags: int = 0) -> None:
    """libxdp loads xdp-dispatcher.o, to see what can be done or to stay, and closes it."""
    fds = [call("BTF_LOAD", btf=DISPATCHER, btf_size=len(DISPATCHER)).ret]
    rodata = make(key=4, value=4, map_name=b"xdp_disp.rodata", map_flags=1 << 7, btf_fd=fds[0],
                  btf_value_type_id=6)  # fmt: skip
    call("MAP_UPDATE_ELEM", map_fd=rodata, key=u32s(0), value=u32s(magic))
    call("MAP_FREEZE", map_fd=rodata)
    func = {"prog_btf_fd": fds[0], "func_info_rec_size": 8, "func_info_cnt": 1}
    fds += [rodata, load("XDP", prog_name=b"xdp_dispatcher", func_info=u32s(0, 3), **func)]
    call("PROG_BIND_MAP", prog_fd=fds[-1], map_fd=rodata)
    fds.append(
        load("XDP", returning(2), prog_name=b"xdp_pass", func_info=u32s(0, 4), prog_flags=flags,
             **func)
    )  # fmt: skip
    call("OBJ_GET_INFO_BY_FD", bpf_fd=fds[-1], info=bytes(232), info_len=232)
    for fd in fds:
        os.close(fd)


def libxdp() -> None:
    """Fragments, then the object that is to replace a function, then the real one."""
    dispatcher(0, 1 << 5)
    dispatcher(0)
    dispatcher(236)


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
        first_program, first_program_with_company, kept_map, closed_map, cilium, cilium_types,
        like_cilium, cilium_more, libxdp, sleeper, two_processes,
    )
}  # fmt: skip

if __name__ == "__main__":
    SCENES[sys.argv[1]]()
