"""Loads programs to be traced: those of bpf_programs.py, and some that the verifier rewrites.

``python -m tests.tracees.kernel_view_programs [--wait FILE]`` prints {name: program id} as JSON
when all are loaded, and holds them until FILE is there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack

from tests.support import bpf_asm as asm
from tests.support.bpf_asm import R0, R1, R2, R3, R6, R7, R10
from tests.support.bpf_programs import PROGRAMS, RETURN, Kit, Program


def _dead(_: Kit) -> bytes:
    """Two instructions that nothing reaches, and a branch that is never taken."""
    return (
        asm.mov(R6, 7)
        + asm.jmp("jeq", R6, 7, 2)  # always
        + asm.mov(R0, 1)
        + asm.exit_()
        + RETURN
    )


def _ctx_xdp(_: Kit) -> bytes:
    """Loads of data and data_end, which become loads of struct xdp_buff."""
    return (
        asm.load("u32", R2, R1, 0)
        + asm.load("u32", R3, R1, 4)
        + asm.load("u32", R0, R1, 12)  # ingress_ifindex: three loads
        + asm.mov(R0, 2)
        + asm.exit_()
    )


def _ctx_skb(_: Kit) -> bytes:
    """A load of __sk_buff.len, and one of protocol, which grows by a byte swap."""
    return asm.load("u32", R2, R1, 0) + asm.load("u32", R3, R1, 16) + RETURN


def _lookup(kit: Kit) -> bytes:
    """A lookup in an array, which the verifier writes out in place."""
    return (
        asm.store_imm("u32", R10, -4, 0)
        + asm.mov_reg(R2, R10)
        + asm.alu("add", R2, -4)
        + asm.ld_imm64(R1, kit.array, asm.MAP_FD)
        + asm.call(1)
        + asm.jmp("jeq", R0, 0, 1)
        + asm.load("u64", R1, R0, 0)
        + RETURN
    )


def _ctx_moved(kit: Kit) -> bytes:
    """Loads through moved registers, behind a call and behind a join, among loads of a map."""
    return (
        asm.mov_reg(R6, R1)
        + asm.mov_reg(R7, R6)
        + asm.store_imm("u32", R10, -4, 0)
        + asm.mov_reg(R2, R10)
        + asm.alu("add", R2, -4)
        + asm.ld_imm64(R1, kit.hash, asm.MAP_FD)
        + asm.call(1)
        + asm.jmp("jeq", R0, 0, 3)
        + asm.load("u64", R1, R0, 0)  # of the map
        + asm.load("u32", R1, R7, 0)  # of the context
        + asm.mov_reg(R7, R6)
        + asm.load("u32", R2, R7, 0)
        + asm.load("u32", R3, R6, 8)
        + RETURN
    )


REWRITTEN = [
    Program("ctx_moved", _ctx_moved),
    Program("dead_code", _dead),
    Program("ctx_xdp", _ctx_xdp, "xdp"),
    Program("ctx_skb", _ctx_skb),
    Program("array_lookup", _lookup),
]
ALL = [*(program for program in PROGRAMS if program.accepted), *REWRITTEN]


def main() -> None:
    """Loads and holds."""
    wait = sys.argv[2] if len(sys.argv) > 2 else ""
    with ExitStack() as stack:
        ids = {}
        for program in ALL:
            kit = Kit(stack)
            try:
                insns = program.build(kit)
            except (OSError, KeyError):
                continue  # this kernel lacks what it needs
            made = stack.enter_context(
                asm.prog_load(
                    insns, program.prog_type, name=program.name.encode()[:15],
                    btf_fd=kit.btf_fd, func_info=kit.func_info, fd_array=kit.fd_array,
                )
            )  # fmt: skip
            if made.fd >= 0:
                ids[program.name] = asm.prog_info(made.fd).id
        print(json.dumps({"pid": os.getpid(), "ids": ids}), flush=True)
        while wait and not os.path.exists(wait):
            time.sleep(0.02)


if __name__ == "__main__":
    main()
