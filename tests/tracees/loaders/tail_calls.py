"""Tail calls: programs put into a program array, one taken out again."""

from _common import Kit, asm, buffer, call, result_of, returning, run, u32s


def tail_call(table: int, index: int) -> bytes:
    """bpf_tail_call(ctx, table, index)."""
    return asm.ld_imm64(asm.R2, table, asm.MAP_FD) + asm.mov(asm.R3, index) + asm.call(12)


def work(kit: Kit) -> None:
    table = kit.map("PROG_ARRAY", 4, 4, 4, "jumps")
    entry = kit.prog("SOCKET_FILTER", tail_call(table, 0) + returning(100), "entry")
    first = kit.prog("SOCKET_FILTER", tail_call(table, 2) + returning(101), "first")
    last = kit.prog("SOCKET_FILTER", returning(102), "last")
    results = [result_of(entry)]
    for index, prog in ((0, first), (2, last)):
        call("MAP_UPDATE_ELEM", map_fd=table, key=u32s(index), value=u32s(prog))
        results.append(result_of(entry))
    value = buffer(4)  # a lookup gives the program's id
    call("MAP_LOOKUP_ELEM", map_fd=table, key=u32s(2), value=value)
    call("MAP_DELETE_ELEM", map_fd=table, key=u32s(2))
    results.append(result_of(entry))
    kit.say(results=results, looked_up=int.from_bytes(value.raw, "little"))


run(work)
