"""Fields by their names: which are left out, and what the numbers in others stand for."""

from __future__ import annotations

from typing import Final

VARYING: Final = frozenset(
    {
        "load_time",
        "run_time_ns",
        "run_cnt",
        "recursion_misses",
        "missed",
        "duration",
        "verified_insns",
        "log_true_size",
        "btf_log_true_size",
        "netns_dev",
        "netns_ino",
        "cgroup_id",
        "kernel_btf",
        # What the JIT makes, and where it puts it.
        "jited_prog_len",
        "jited_prog_insns",
        "jited_ksyms",
        "nr_jited_ksyms",
        "jited_func_lens",
        "nr_jited_func_lens",
        "jited_line_info",
        "nr_jited_line_info",
        "jited_line_info_rec_size",
        "xlated_prog_insns",
        "xlated_prog_len",
        # Where the kernel put a function: its name stands in another field.
        "probe_addr",
        # Netlink's numbers of messages and of sockets.
        "nlmsg_seq",
        "nlmsg_pid",
    }
)
"""Fields that say when, how long or where; never shown, never a difference."""

LISTED: Final = {
    "BPF_PROG_LOAD": frozenset(
        {
            "insn_cnt",
            "func_info",
            "func_info_cnt",
            "func_info_rec_size",
            "line_info",
            "line_info_cnt",
            "line_info_rec_size",
            "fd_array",
            "fd_array_cnt",
        }
    ),
    # Its strings hold the source lines of programs, among them unused ones.
    "BPF_BTF_LOAD": frozenset({"btf_size"}),
}
"""Fields, by command, that a listing of instructions or types says in its own way."""

IDS: Final = {
    "prog_id": "prog",
    "map_id": "map",
    "btf_id": "btf",
    "link_id": "link",
    "prog_ids": "prog",
    "map_ids": "map",
    "link_ids": "link",
    "ids": "prog",
    "id": "",
    "start_id": "",
    "next_id": "",
    "target_obj_id": "",
    "attach_btf_obj_id": "btf",
    "btf_obj_id": "btf",
    "btf_vmlinux_id": "btf",
}
"""Fields that hold a kernel's id, and of what ('' where that depends)."""

PIDS: Final = frozenset({"pid", "tid"})
KEPT: Final = frozenset({"key", "value", "next_key", "cpu", "retval", "probe_offset"})
"""Fields whose zero says something."""
TYPE_IDS: Final = {
    "btf_key_type_id": "btf_fd",
    "btf_value_type_id": "btf_fd",
}
"""Fields that hold a type's id in a BTF, and the field that says in which."""
