"""PROG_STREAM_READ_BY_FD: what a program printed to its streams, if there is a kfunc to print."""

import ctypes

from _common import Kit, asm, buffer, call, errno_name, returning, run, u32s

STDOUT, STDERR = 1, 2
BPF_F_RDONLY_PROG = 1 << 7
FORMAT = b"hello, stream\n\0"
R1, R2, R3, R4, R5, R10 = asm.R1, asm.R2, asm.R3, asm.R4, asm.R5, asm.R10
KFUNCS = ("bpf_stream_vprintk_impl", "bpf_stream_vprintk")


def work(kit: Kit) -> None:
    functions = asm.vmlinux_ids("func")
    kfunc = next((functions[name] for name in KFUNCS if name in functions), None)
    if kfunc is not None:
        text = kit.map("ARRAY", 4, 16, 1, "format", map_flags=BPF_F_RDONLY_PROG)
        call("MAP_UPDATE_ELEM", map_fd=text, key=u32s(0), value=FORMAT.ljust(16, b"\0"))
        call("MAP_FREEZE", map_fd=text)
        prints = (
            asm.mov(R1, STDOUT) + asm.ld_imm64(R2, text, asm.MAP_VALUE, high=0)
            + asm.store_imm("u64", R10, -8, 0)  # one argument, which the format does not use
            + asm.mov_reg(R3, R10) + asm.alu("add", R3, -8) + asm.mov(R4, 8)
            + asm.mov(R5, 0)
            + asm.call(kfunc, asm.CALL_KFUNC)
        )  # fmt: skip
        prog = kit.prog("SYSCALL", prints + asm.exit_(), "prints", prog_flags=1 << 4)
        # 0, or an errno: on some machines the kernel finds no memory for the text (ENOMEM).
        result = ctypes.c_int32(call("PROG_TEST_RUN", prog_fd=prog)["retval"]).value
        kit.say(printed=errno_name(-result) if result else 0)
    else:
        prog = kit.prog("SOCKET_FILTER", returning(0), "silent")
    said = buffer(64)
    size = call("PROG_STREAM_READ_BY_FD", stream_buf=said, stream_buf_len=64, stream_id=STDOUT,
                prog_fd=prog).ret  # fmt: skip
    kit.say(stdout=said.raw[:size].decode())
    size = call("PROG_STREAM_READ_BY_FD", stream_buf=said, stream_buf_len=64, stream_id=STDERR,
                prog_fd=prog).ret  # fmt: skip
    kit.say(stderr=said.raw[:size].decode())
    with kit.may_be_refused("PROG_STREAM_READ_BY_FD of no such stream"):
        call("PROG_STREAM_READ_BY_FD", stream_buf=said, stream_buf_len=64, stream_id=9,
             prog_fd=prog)  # fmt: skip


run(work)
