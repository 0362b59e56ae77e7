"""PROG_TEST_RUN: a packet in and out, with a context, repeated; and a program of type SYSCALL."""

import struct

from _common import Kit, asm, buffer, call, returning, run

XDP_PASS = 2
R0, R1, R2, R3, R4 = asm.R0, asm.R1, asm.R2, asm.R3, asm.R4
PACKET = bytes(range(64))


def first_byte(value: int) -> bytes:
    """XDP: write ``value`` over the packet's first byte."""
    return (
        asm.load("u32", R2, R1, 0) + asm.load("u32", R3, R1, 4)  # data, data_end
        + asm.mov_reg(R4, R2) + asm.alu("add", R4, 1)
        + asm.jmp_reg("jgt", R4, R3, 1)
        + asm.store_imm("u8", R2, 0, value)
        + returning(XDP_PASS)
    )  # fmt: skip


def work(kit: Kit) -> None:
    xdp = kit.prog("XDP", first_byte(0xAA), "first_byte")
    out = buffer(256)
    reply = call(
        "PROG_TEST_RUN", prog_fd=xdp, data_in=PACKET, data_size_in=len(PACKET),
        data_out=out, data_size_out=len(out), repeat=10,
    )  # fmt: skip
    data = out.raw[: reply["data_size_out"]]
    kit.say(xdp={"retval": reply["retval"], "first": data[0], "size": len(data),
                 "rest_is_same": data[1:] == PACKET[1:]})  # fmt: skip

    short = buffer(16)
    with kit.may_be_refused("data_out too small"):
        call("PROG_TEST_RUN", prog_fd=xdp, data_in=PACKET, data_size_in=len(PACKET),
             data_out=short, data_size_out=len(short))  # fmt: skip

    # __sk_buff.mark is at 8, priority at 32: what the program writes comes out in ctx_out.
    classifier = kit.prog(
        "SCHED_CLS",
        asm.load("u32", R0, R1, 32) + asm.mov(R2, 7) + asm.store("u32", R1, 8, R2) + asm.exit_(),
        "marks",
    )
    context, context_out = bytearray(192), buffer(192)
    struct.pack_into("<I", context, 32, 5)
    reply = call(
        "PROG_TEST_RUN", prog_fd=classifier, data_in=PACKET, data_size_in=len(PACKET),
        ctx_in=bytes(context), ctx_size_in=len(context),
        ctx_out=context_out, ctx_size_out=len(context_out),
    )  # fmt: skip
    mark = struct.unpack_from("<I", context_out.raw, 8)[0]
    kit.say(sched_cls={"retval": reply["retval"], "mark": mark})

    syscall = kit.prog(
        "SYSCALL",
        asm.load("u64", R0, R1, 0) + asm.alu("add", R0, 1) + asm.store("u64", R1, 0, R0)
        + asm.exit_(),
        "adds_one", prog_flags=1 << 4,  # BPF_F_SLEEPABLE
    )  # fmt: skip
    number = buffer(8)
    number[:] = struct.pack("<Q", 41)
    reply = call("PROG_TEST_RUN", prog_fd=syscall, ctx_in=number, ctx_size_in=8)
    kit.say(syscall={"retval": reply["retval"], "ctx": struct.unpack("<Q", number.raw)[0]})


run(work)
