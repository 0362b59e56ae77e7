"""Iterators: one over this task, one over a map's elements; LINK_CREATE, ITER_CREATE, read."""

import os
import struct

from _common import Kit, asm, call, returning, run, u32s, u64s


def seq_write(text: bytes) -> bytes:
    """bpf_seq_write(ctx->meta->seq, text, its length); at most 8 bytes."""
    r1, r2, r3, r10 = asm.R1, asm.R2, asm.R3, asm.R10
    return (
        asm.load("u64", r1, r1, 0)  # ctx->meta
        + asm.load("u64", r1, r1, 0)  # meta->seq
        + asm.ld_imm64(r2, struct.unpack("<Q", text.ljust(8, b"\0"))[0])
        + asm.store("u64", r10, -8, r2)
        + asm.mov_reg(r2, r10) + asm.alu("add", r2, -8)
        + asm.mov(r3, len(text))
        + asm.call(127)
    )  # fmt: skip


def work(kit: Kit) -> None:
    hooks = asm.vmlinux_ids("func")

    def iterate(target: str, name: str, info: bytes, insns: bytes = b"") -> str:
        prog = kit.prog(
            "TRACING", insns + returning(0), name, "TRACE_ITER",
            attach_btf_id=hooks[f"bpf_iter_{target}"],
        )  # fmt: skip
        link = kit.link("TRACE_ITER", prog, extra="iter", iter_info=info, iter_info_len=len(info))
        with os.fdopen(call("ITER_CREATE", link_fd=link).ret, "rb") as lines:
            return lines.read().decode()

    said = iterate("task", "each_task", u32s(os.getpid(), 0, 0), seq_write(b"task\n"))
    table = kit.map("HASH", 4, 8, 4, "table")
    call("MAP_UPDATE_ELEM", map_fd=table, key=u32s(7), value=u64s(49))
    kit.say(
        task=said,  # once for the task, once for the end
        map_elem=iterate("bpf_map_elem", "each_elem", u32s(table), seq_write(b"elem\n")),
    )


run(work)
