"""A TCP congestion control in BPF: STRUCT_OPS programs, a map of them, and a link."""

import struct
from pathlib import Path

from _common import ATTACH, Btf, Kit, asm, call, returning, run, u32s

STRUCT, VALUE = "tcp_congestion_ops", "bpf_struct_ops_tcp_congestion_ops"
BPF_F_LINK = 1 << 13
OPERATIONS = {"ssthresh": 2, "undo_cwnd": 2, "cong_avoid": 0}  # and what each returns


def struct_members(name: str) -> tuple[int, dict[str, tuple[int, int]]]:
    """The size of a struct of vmlinux, and its members: name to (index, offset in bytes)."""
    blob = Path("/sys/kernel/btf/vmlinux").read_bytes()
    hdr_len, _, _, str_off = struct.unpack_from("<IIII", blob, 4)
    strings = hdr_len + str_off

    def text(offset: int) -> str:
        return blob[strings + offset : blob.index(b"\0", strings + offset)].decode()

    # The type's own name and kind (4) are what to look for; forward declarations are kind 7.
    name_off = blob.index(b"\0" + name.encode() + b"\0", strings) + 1 - strings
    at = hdr_len
    while True:
        at = blob.index(struct.pack("<I", name_off), at, strings)
        info, size = struct.unpack_from("<II", blob, at + 4)
        if at % 4 == 0 and info >> 24 & 0x1F == 4:
            break
        at += 1
    members = {}
    for index in range(info & 0xFFFF):
        member, _, bits = struct.unpack_from("<III", blob, at + 12 + 12 * index)
        members[text(member)] = (index, (bits & 0xFFFFFF) // 8)
    return size, members


def work(kit: Kit) -> None:
    ids = asm.vmlinux_ids("struct")
    value_size, value = struct_members(VALUE)
    _, members = struct_members(STRUCT)
    data = value["data"][1]
    kit.say(struct=STRUCT, btf_id=ids[STRUCT], value_type=VALUE, value_btf_id=ids[VALUE])

    contents = bytearray(value_size)
    for operation, result in OPERATIONS.items():
        index, offset = members[operation]
        prog = kit.prog(
            "STRUCT_OPS", returning(result), operation,
            attach_btf_id=ids[STRUCT], expected_attach_type=index,
        )  # fmt: skip
        struct.pack_into("<Q", contents, data + offset, prog)
    struct.pack_into("16s", contents, data + members["name"][1], b"bpfstrace_cc")

    types = Btf()
    ops = kit.map(
        "STRUCT_OPS", 4, value_size, 1, "congestion", map_flags=BPF_F_LINK,
        btf_fd=kit.btf(types.blob()), btf_vmlinux_value_type_id=ids[VALUE],
    )  # fmt: skip
    call("MAP_UPDATE_ELEM", map_fd=ops, key=u32s(0), value=bytes(contents))
    kit.link("STRUCT_OPS", ops)
    available = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text()
    kit.say(available="bpfstrace_cc" in available.split(), attach=ATTACH["STRUCT_OPS"])


run(work)
