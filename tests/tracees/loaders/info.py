"""OBJ_GET_INFO_BY_FD with every array asked for: of a program, and of its map, BTF and link."""

import ctypes
import struct

from _common import Btf, Kit, asm, buffer, counting, info, own_cgroup, returning, run, u32s

# Arrays of struct bpf_prog_info: where the count, the pointer and the element's size are.
ARRAYS = {
    "jited_prog_insns": (16, 24, 1),
    "xlated_prog_insns": (20, 32, 1),
    "map_ids": (52, 56, 4),
    "jited_ksyms": (104, 112, 8),
    "jited_func_lens": (108, 120, 4),
    "func_info": (144, 136, 8),
    "line_info": (148, 152, 16),
    "jited_line_info": (168, 160, 8),
    "prog_tags": (180, 184, 8),
}
LINES = ("int answer(void *ctx)", "return twice(21);", "int twice(int number)")


def work(kit: Kit) -> None:
    numbers = kit.map("ARRAY", 4, 8, 1, "numbers")
    types = Btf()
    context = types.ptr(types.struct("__sk_buff", 192))
    answer = types.func("answer", ctx=context)
    twice = types.func("twice", exported=True, number=types.int)
    file, texts = types.string("answer.c"), [types.string(line) for line in LINES]
    btf = kit.btf(types.blob())
    body = counting(numbers)[: -2 * 8]  # without its return
    main = body + asm.mov(asm.R1, 21) + asm.call(1, asm.CALL_SUBPROG) + asm.exit_()
    double = asm.mov_reg(asm.R0, asm.R1) + asm.alu("mul", asm.R0, 2) + asm.exit_()
    second = len(main) // 8
    lines = b"".join(
        u32s(at, file, text, line << 10 | 1)
        for line, (at, text) in enumerate(zip((0, len(body) // 8, second), texts, strict=True), 1)
    )
    prog = kit.prog(
        "SOCKET_FILTER", main + double, "answer", prog_btf_fd=btf,
        func_info=u32s(0, answer, second, twice), func_info_cnt=2, func_info_rec_size=8,
        line_info=lines, line_info_cnt=3, line_info_rec_size=16,
    )  # fmt: skip

    first = info(prog, 232)
    ask, keep, counts = bytearray(232), [], {}
    struct.pack_into("<II", ask, 132, 8, 0)  # func_info_rec_size
    struct.pack_into("<II", ask, 172, 16, 8)  # the same of line_info and jited_line_info
    for name, (count_at, pointer_at, size) in ARRAYS.items():
        (counts[name],) = struct.unpack_from("<I", first, count_at)
        keep.append((name, buffer(max(counts[name] * size, 1))))
        struct.pack_into("<I", ask, count_at, counts[name])
        struct.pack_into("<Q", ask, pointer_at, ctypes.addressof(keep[-1][1]))
    raw = info(prog, 232, bytes(ask))
    arrays = {name: data.raw for name, data in keep}
    kit.say(
        counts=counts,
        map_ids=list(memoryview(arrays["map_ids"]).cast("I")),
        prog_tags=[arrays["prog_tags"][at : at + 8].hex() for at in (0, 8)],
        func_info=list(memoryview(arrays["func_info"]).cast("I")),
        verified_insns=struct.unpack_from("<I", raw, 216)[0],
    )

    data = buffer(4096)
    info(btf, 32, struct.pack("<QI", ctypes.addressof(data), len(data)))
    blob = types.blob()
    kit.say(btf_is_ours=data.raw[: len(blob)] == blob)

    cgroup, _ = own_cgroup(kit, "info")
    kit.link("CGROUP_INET_EGRESS", kit.prog("CGROUP_SKB", returning(1), "egress"), cgroup)


run(work)
