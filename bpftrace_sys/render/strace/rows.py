"""What strace prints of each struct, as rows of text; the tables of its names.

A row names the fields in strace's order, with a mark where it departs from the obvious.

The language of a row, in words separated by blanks:

- ``name``: a field.  How it is printed follows from its declaration.
- ``name:format``, ``name:format(length)``: printed as an entry of ``FORMATS``;
  ``length`` is the field that counts what the pointer leads to.
- ``name?test``: only where the test holds: ``field`` (not zero), ``field&FLAG``,
  ``field=number``, ``!`` before any of these, ``#field`` (the caller's struct
  reaches beyond the start of that field), ``by_ifindex``.
- a mark behind the name: ``@`` as of the exit (strace prints it then), ``>``
  with ``=> new`` where the kernel changed it, ``+`` the same where strace shows
  the old value only, ``~`` as of the exit where strace prints the entry's.
- ``|``: nothing more if the caller's struct ends at or before the next field;
  ``|name``: before that one; ``|+name``: if it ends within it.
- ``name{`` ... ``}``: a struct in the struct.
- ``=>name``: the whole again, with just that field, where it changed.
- ``*link``: what the attach type selects of :data:`LINK_ROWS`.
"""

from __future__ import annotations

from typing import Final

from decoders.declare import bpf_attr, bpf_info, perf_attr
from decoders.uapi import names

PAGE: Final = 4096
"""strace prints the address of an attr or info struct that is larger."""
_TARGET: Final = "target_ifindex?by_ifindex target_fd?!by_ifindex"
_CHANGING: Final = " elem_flags:lookup flags:x } =>batch.count"
_ORDERED: Final = (
    "relative_id?flags&BPF_F_ID relative_fd?!flags&BPF_F_ID expected_revision:x}"
)
PERF_BITS: Final = [member[0] for member in perf_attr.FLAGS.members]
AFTER_7_2: Final = ("defer_callchain", "defer_output")
"""Bits that strace 7.2 has no names for: printed where they are set, and there only."""
LATE_COUNTS: Final = frozenset(
    f"query.{name}" for name in ("prog_ids", "prog_attach_flags", "link_ids", "link_attach_flags")
)
"""Arrays of which strace prints as many elements as there are at the exit, whatever the room."""
NO_VARIANT: Final = frozenset({
    "BPF_TRACE_RAW_TP", "BPF_TRACE_KPROBE_SESSION", "BPF_TRACE_UPROBE_SESSION", "BPF_LSM_CGROUP",
})  # fmt: skip
"""Attach types of whose part of LINK_CREATE strace 7.2 prints nothing."""

ROWS: Final[dict[str, str]] = {
    "MAP_CREATE": "map_type key_size value_size max_entries | map_flags | inner_map_fd"
    " |numa_node numa_node:numa?map_flags&BPF_F_NUMA_NODE | map_name | map_ifindex"
    " | btf_fd btf_key_type_id btf_value_type_id | btf_vmlinux_value_type_id:u | map_extra:u64"
    " | value_type_btf_obj_fd | map_token_fd | excl_prog_hash excl_prog_hash_size",
    "MAP_LOOKUP_ELEM": "map_fd key value | flags:lookup",
    "MAP_UPDATE_ELEM": "map_fd key value flags:elem",
    "MAP_DELETE_ELEM": "map_fd key",
    "MAP_GET_NEXT_KEY": "map_fd key next_key",
    "PROG_LOAD": "prog_type insn_cnt insns:insns(insn_cnt) license:text"
    " | log_level:u log_size log_buf~:text(log_size) | kern_version | prog_flags | prog_name"
    " | prog_ifindex | expected_attach_type:attach_type | prog_btf_fd func_info_rec_size func_info"
    " func_info_cnt line_info_rec_size line_info line_info_cnt | attach_btf_id:u | attach_prog_fd"
    " |fd_array core_relo_cnt?#core_relos fd_array | core_relos core_relo_rec_size"
    " | log_true_size@ | prog_token_fd | fd_array_cnt"
    " | signature:hex(signature_size) signature_size keyring_id",
    "OBJ_PIN": "pathname:path bpf_fd:fd | file_flags:file | path_fd:dirfd",
    "OBJ_GET": "=OBJ_PIN",
    "PROG_ATTACH": _TARGET + " attach_bpf_fd attach_type attach_flags | replace_bpf_fd"
    " |relative_fd relative_id?attach_flags&BPF_F_ID relative_fd?!attach_flags&BPF_F_ID"
    " expected_revision",
    "PROG_DETACH": "=PROG_ATTACH",
    "PROG_TEST_RUN": "test{ prog_fd retval+ data_size_in data_size_out+ data_in data_out repeat"
    " duration+ | ctx_size_in ctx_size_out+ ctx_in ctx_out | flags cpu | batch_size }",
    "PROG_GET_NEXT_ID": "start_id next_id@",
    "MAP_GET_NEXT_ID": "=PROG_GET_NEXT_ID",
    "PROG_GET_FD_BY_ID": "prog_id",
    "MAP_GET_FD_BY_ID": "map_id | open_flags",
    "OBJ_GET_INFO_BY_FD": "info{ bpf_fd info_len> info@:info(info_len) }",
    "PROG_QUERY": "query{ " + _TARGET + " attach_type query_flags attach_flags+"
    " prog_ids@:us(prog_cnt) prog_cnt> | prog_attach_flags@:attaches(prog_cnt)"
    " | link_ids@:us(prog_cnt) link_attach_flags@:attaches(prog_cnt) revision@:x }",
    "RAW_TRACEPOINT_OPEN": "raw_tracepoint{ name:name128 prog_fd |+cookie cookie:x }",
    "BTF_LOAD": "btf:bytes(btf_size) btf_log_buf btf_size btf_log_size btf_log_level:u"
    " | btf_log_true_size@ | btf_flags:file btf_token_fd",
    "BTF_GET_FD_BY_ID": "btf_id | open_flags fd_by_id_token_fd",
    "TASK_FD_QUERY": "task_fd_query{ pid:d fd:fd flags:u buf_len> buf@:text(buf_len) prog_id@"
    " fd_type@ probe_offset@:x probe_addr@:x }",
    "MAP_LOOKUP_AND_DELETE_ELEM": "=MAP_LOOKUP_ELEM",
    "MAP_FREEZE": "map_fd",
    "BTF_GET_NEXT_ID": "=PROG_GET_NEXT_ID",
    "MAP_LOOKUP_BATCH": "batch{ in_batch out_batch keys values count map_fd" + _CHANGING,
    "MAP_LOOKUP_AND_DELETE_BATCH": "=MAP_LOOKUP_BATCH",
    "MAP_UPDATE_BATCH": "batch{ keys values count map_fd" + _CHANGING.replace("lookup", "elem"),
    "MAP_DELETE_BATCH": "batch{ keys count map_fd" + _CHANGING,
    "LINK_CREATE": "link_create{ prog_fd " + _TARGET + " attach_type flags:attach"
    " |target_btf_id *link }",
    "LINK_UPDATE": "link_update{ link_fd new_prog_fd flags:attach"
    " old_prog_fd?flags&BPF_F_REPLACE }",
    "LINK_GET_FD_BY_ID": "link_id",
    "LINK_GET_NEXT_ID": "=PROG_GET_NEXT_ID",
    "ENABLE_STATS": "enable_stats{ type }",
    "ITER_CREATE": "iter_create{ link_fd flags:x }",
    "LINK_DETACH": "link_detach{ link_fd }",
    "PROG_BIND_MAP": "prog_bind_map{ prog_fd map_fd flags:x }",
    "TOKEN_CREATE": "token_create{ flags:x bpffs_fd }",
    "PROG_STREAM_READ_BY_FD": "prog_stream_read{ stream_buf@:stream(stream_buf_len) stream_buf_len"
    " stream_id:u prog_fd }",
    "PROG_ASSOC_STRUCT_OPS": "prog_assoc_struct_ops{ map_fd prog_fd flags:x }",
    # Behind pointers, or not of bpf(2) at all.
    "COMMON_ATTR": "log_buf~:text(log_size) log_size log_level:u log_true_size@",
    "MAP_INFO": "type id key_size value_size max_entries map_flags | name"
    " | ifindex btf_vmlinux_value_type_id:u netns_dev:dev netns_ino"
    " | btf_id btf_key_type_id btf_value_type_id |map_extra btf_vmlinux_id map_extra:x"
    " | hash:x hash_size",
    "PROG_INFO": "type id tag jited_prog_len> jited_prog_insns:hex(jited_prog_len)"
    " xlated_prog_len> xlated_prog_insns:insns(xlated_prog_len/8)"
    " | load_time:load_time created_by_uid:id nr_map_ids> map_ids:us(nr_map_ids) name"
    " | ifindex gpl_compatible netns_dev:dev netns_ino"
    " | nr_jited_ksyms> nr_jited_func_lens> jited_ksyms> jited_func_lens>"
    " | btf_id func_info_rec_size> func_info nr_func_info> nr_line_info> line_info"
    " jited_line_info> nr_jited_line_info> line_info_rec_size> jited_line_info_rec_size>"
    " nr_prog_tags> prog_tags | run_time_ns run_cnt | recursion_misses:u64 | verified_insns"
    " | attach_btf_obj_id attach_btf_id:u",
    "PERF_ATTR": "type:attr_type size:attr_size config:config sample_freq?freq sample_period?!freq"
    " sample_type read_format "
    + " ".join(
        f"{name}?{name}" if name in AFTER_7_2 else name
        for name in PERF_BITS
        if name != "__reserved_1"
    ).replace("precise_ip", "precise_ip:precise")
    + " __reserved_1:reserved |wakeup_events"
    " wakeup_watermark?watermark wakeup_events?!watermark bp_type:bp_type?type=5"
    " bp_addr?type=5 config1:x?!type=5 |config2 bp_len:u?type=5 config2:x?!type=5"
    " |branch_sample_type branch_sample_type?sample_type&PERF_SAMPLE_BRANCH_STACK"
    " | sample_regs_user:x |sample_stack_user"
    " sample_stack_user:x?sample_type&PERF_SAMPLE_STACK_USER |clockid clockid:clock?use_clockid"
    " | sample_regs_intr:x | aux_watermark:u | sample_max_stack:max_stack | aux_sample_size"
    " | aux_start_paused aux_pause aux_resume __reserved_3:reserved"
    " | sig_data:x | config3:x | config4:x",
}
"""By the command without BPF_, or the struct's name; ``=NAME``: as that one."""

_NOT_BY_ID: Final = "next_id open_flags fd_by_id_token_fd"
NOT_SHOWN: Final[dict[str, str]] = {
    # Commands that share a struct: what others have in it.
    "MAP_DELETE_ELEM": "value flags",
    "MAP_GET_NEXT_KEY": "flags",
    "MAP_FREEZE": "key value flags",
    "PROG_GET_NEXT_ID": "open_flags fd_by_id_token_fd",
    "PROG_GET_FD_BY_ID": _NOT_BY_ID,
    "MAP_GET_FD_BY_ID": "next_id fd_by_id_token_fd",
    "BTF_GET_FD_BY_ID": "next_id",
    "LINK_GET_FD_BY_ID": _NOT_BY_ID,
    "MAP_UPDATE_BATCH": "batch.in_batch batch.out_batch",
    "MAP_DELETE_BATCH": "batch.in_batch batch.out_batch batch.values",
    # What config1 and config2 are called for some PMUs, and what must be zero.
    "PERF_ATTR": "kprobe_func uprobe_path probe_offset kprobe_addr __reserved_2",
}
"""Fields of a row's struct that strace does not print."""

LINK_ROWS: Final[dict[str, str]] = {
    "iter_info": "iter_info:iter(iter_info_len) iter_info_len",
    "perf_event": "perf_event{ bpf_cookie:x }",
    "tracing": "tracing{ target_btf_id:u cookie:x }",
    "tracing_multi": "tracing_multi{ ids:us(cnt) cookies:xs(cnt) cnt }",
    "netfilter": "netfilter{ pf:u hooknum:u priority flags }",
    "tcx": "tcx{ " + _ORDERED,
    "netkit": "netkit{ " + _ORDERED,
    "cgroup": "cgroup{ " + _ORDERED,
    "cgroup_plain": "target_btf_id?target_btf_id",
    "kprobe_multi": "kprobe_multi{ flags cnt syms:strings(cnt) addrs:xs(cnt) cookies:xs(cnt) }",
    "uprobe_multi": "uprobe_multi{ path:path offsets:xs(cnt) ref_ctr_offsets:xs(cnt)"
    " cookies:xs(cnt) cnt flags pid:d | path_fd:fd }",
}
"""By the first field of LINK_CREATE's variant."""

STRUCTS: Final[dict[str, object]] = {
    **{
        name.removeprefix("BPF_"): bpf_attr.COMMANDS[number].attr
        for number, name in names.bpf_cmd.items()
        if number in bpf_attr.COMMANDS
    },
    "COMMON_ATTR": bpf_attr.COMMON_ATTR,
    "MAP_INFO": bpf_info.MAP_INFO,
    "PROG_INFO": bpf_info.PROG_INFO,
    "PERF_ATTR": perf_attr.PERF_ATTR,
}

NO_ROW: Final[dict[str, str]] = {
    "bpf_func_info": "printed by its address",
    "bpf_line_info": "printed by its address",
    "bpf_core_relo": "printed by its address",
    "bpf_btf_info": "printed by its address",
    "bpf_link_info": "printed by its address",
    "bpf_token_info": "printed by its address",
    "perf_event_query_bpf": "the format of its ioctl prints it",
    "kcm_attach": "strace knows no such ioctl",
    "kcm_unattach": "strace knows no such ioctl",
}
"""Structs behind pointers that have no row, by the kernel's name, and why."""

DEFAULTS: Final[dict[str, str]] = {
    "bpf_map_type": "BPF_MAP_TYPE_???",
    "bpf_prog_type": "BPF_PROG_TYPE_???",
    "bpf_attach_type": "BPF_???",
    "bpf_stats_type": "BPF_STATS_???",
    "bpf_task_fd_type": "BPF_FD_TYPE_???",
}
"""What strace says of a number that an enum has no name for."""

IOCTLS: Final[dict[str, str]] = {
    "PERF_EVENT_IOC_ENABLE": "group",
    "PERF_EVENT_IOC_DISABLE": "group",
    "PERF_EVENT_IOC_RESET": "group",
    "PERF_EVENT_IOC_REFRESH": "d",
    "PERF_EVENT_IOC_PERIOD": "number",
    "PERF_EVENT_IOC_SET_OUTPUT": "fd",
    "PERF_EVENT_IOC_SET_FILTER": "filter",
    "PERF_EVENT_IOC_ID": "number_out",
    "PERF_EVENT_IOC_SET_BPF": "fd",
    "PERF_EVENT_IOC_PAUSE_OUTPUT": "u",
    "PERF_EVENT_IOC_QUERY_BPF": "query",
    "PERF_EVENT_IOC_MODIFY_ATTRIBUTES": "attr",
    "TUNSETSTEERINGEBPF": "x",
    "TUNSETFILTEREBPF": "x",
    "SIOCKCMATTACH": "x",
    "SIOCKCMUNATTACH": "x",
    "SIOCKCMCLONE": "x",
}
"""How the argument of a request is printed; ``x`` and unknown ones as a number in hex."""
