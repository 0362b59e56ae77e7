"""union bpf_attr: one row per bpf command, in the order of enum bpf_cmd.

Layouts are those of include/uapi/linux/bpf.h (and are checked against the
generated ``decoders.uapi.layouts`` and the running kernel's BTF in the tests);
what the fields mean and how long their pointers' targets are is from
kernel/bpf/syscall.c.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import construct as cs

from decoders.bpf_fields import (
    ATTACH_FLAGS,
    ATTACH_TYPE,
    FD,
    IFINDEX,
    LOG_LIMIT,
    OPT_FD,
    OPT_SFD,
    OUT_U32,
    OUT_U64,
    TARGET,
    relative,
)
from decoders.bpf_info import INFO
from decoders.bpf_link import LINK_CREATE
from decoders.declare import (
    S32,
    U32,
    U64,
    X32,
    X64,
    Blob,
    Chars,
    CStr,
    FactField,
    FdField,
    FlagSet,
    In,
    InOut,
    InsnArray,
    Many,
    Named,
    NotedField,
    Num,
    One,
    Out,
    Padding,
    Pick,
    Scope,
    Written,
    fd_array_used,
    this,
)
from decoders.map_value import ValueIn, ValueOut
from decoders.uapi import const, names

PERCPU_MAPS: Final = frozenset({5, 6, 10, 21})
"""BPF_MAP_TYPE_PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH, PERCPU_CGROUP_STORAGE."""
HASH_MAPS: Final = frozenset({1, 5, 9, 10, 13})
"""Maps whose batch cursor is a u32 bucket number (kernel/bpf/hashtab.c)."""


def _map_info(scope: Scope, name: str) -> int | None:
    fact = scope.env.fd(scope["map_fd"])
    value = None if fact is None or fact.kind != "map" else fact.info.get(name)
    return value if isinstance(value, int) else None


def key_size(scope: Scope) -> int | None:
    """Bytes of a key of the map in ``map_fd``; None if the map is unknown."""
    return _map_info(scope, "key_size")


def value_size(scope: Scope) -> int | None:
    """Bytes that user space passes for a value: all CPUs' for a per-CPU map.

    As bpf_map_value_size() in kernel/bpf/syscall.c.
    """
    size = _map_info(scope, "value_size")
    if size is None or _map_info(scope, "map_type") not in PERCPU_MAPS:
        return size
    flags = scope["elem_flags" if "elem_flags" in _names(scope) else "flags"]
    rounded = (size + 7) & ~7
    return rounded if flags & (const.BPF_F_CPU | const.BPF_F_ALL_CPUS) else rounded * scope.env.cpus


def _names(scope: Any) -> Mapping[str, int]:
    return scope.layout.index  # type: ignore[no-any-return]


def cursor_size(scope: Scope) -> int | None:
    """Bytes of a batch's cursor."""
    return 4 if _map_info(scope, "map_type") in HASH_MAPS else key_size(scope)


def _times_count(size: Any) -> Any:
    def bytes_of(scope: Scope) -> int | None:
        one = size(scope)
        return None if one is None else one * scope["count"]

    return bytes_of


def fd_array_count(scope: Any) -> int:
    """Entries of fd_array: said by the caller since 6.14, else as many as the insns name."""
    said: int = scope["fd_array_cnt"]
    return said or int(scope.fetched("insns", fd_array_used, 0))


def kern_version(value: int, scope: Scope) -> str | None:
    """KERNEL_VERSION(a, b, c) as a comment-like spelling."""
    if not value:
        return None
    return f"KERNEL_VERSION({value >> 16}, {value >> 8 & 0xFF}, {value & 0xFF})"


FUNC_INFO = cs.Struct(
    "insn_off" / U32,
    "type_id" / U32,
)
LINE_INFO = cs.Struct(
    "insn_off" / U32,
    "file_name_off" / U32,
    "line_off" / U32,
    "line_col" / NotedField(
        cs.Int32ul, lambda value, _: f"line {value >> 10}, column {value & 0x3FF}"
    ),
)
CORE_RELO = cs.Struct(
    "insn_off" / U32,
    "type_id" / U32,
    "access_str_off" / U32,
    "kind" / Named(cs.Int32ul, names.bpf_core_relo_kind, "bpf_core_relo_kind"),
)

MAP_CREATE = cs.Struct(
    "map_type" / Named(cs.Int32ul, names.bpf_map_type, "bpf_map_type"),
    "key_size" / U32,
    "value_size" / U32,
    "max_entries" / U32,
    "map_flags" / FlagSet(cs.Int32ul, names.map_flags, "BPF_F"),
    "inner_map_fd" / OPT_FD,
    "numa_node" / U32,
    "map_name" / Chars(16),
    "map_ifindex" / IFINDEX,
    "btf_fd" / OPT_FD,
    "btf_key_type_id" / U32,
    "btf_value_type_id" / U32,
    "btf_vmlinux_value_type_id" / FactField(cs.Int32ul, "btf_vmlinux"),
    "map_extra" / X64,
    "value_type_btf_obj_fd" / OPT_SFD,
    "map_token_fd" / OPT_SFD,
    "excl_prog_hash" / In(Blob(this.excl_prog_hash_size)),
    "excl_prog_hash_size" / U32,
    "_" / Padding(4),
)

ELEM_FLAGS = FlagSet(cs.Int64ul, names.map_elem_flags, "BPF")


def _elem(**pointers: Any) -> Any:
    """The anonymous struct of the MAP_*_ELEM commands; ``value`` or ``next_key`` last."""
    (key, key_way), (value, value_way) = pointers.items()
    return cs.Struct(
        "map_fd" / FD,
        "_" / Padding(4),
        key / key_way,
        value / value_way,
        "flags" / ELEM_FLAGS,
    )


KEY_IN = In(Blob(key_size))
MAP_LOOKUP_ELEM = _elem(key=KEY_IN, value=Out(ValueOut(value_size)))
MAP_UPDATE_ELEM = _elem(key=KEY_IN, value=In(ValueIn(value_size)))
MAP_DELETE_ELEM = cs.Struct(
    "map_fd" / FD, "_" / Padding(4), "key" / KEY_IN, "value" / X64, "flags" / ELEM_FLAGS
)
MAP_GET_NEXT_KEY = cs.Struct(
    "map_fd" / FD, "_" / Padding(4), "key" / KEY_IN, "next_key" / Out(Blob(key_size))
)
# A hash map's key of LOOKUP_AND_DELETE is read; a queue's or stack's is NULL.
MAP_LOOKUP_AND_DELETE_ELEM = MAP_LOOKUP_ELEM
MAP_FREEZE = cs.Struct("map_fd" / FD)


def _batch(way: Any) -> Any:
    """struct batch; what is In for updates and deletes is Out for lookups."""
    always = {"always": True} if way is Out else {}
    return cs.Struct(
        "batch"
        / cs.Struct(
            "in_batch" / In(Blob(cursor_size)),
            "out_batch" / Out(Blob(cursor_size)),
            "keys" / way(Blob(_times_count(key_size)), **always),
            "values" / way(Blob(_times_count(value_size)), **always),
            "count" / OUT_U32,
            "map_fd" / FD,
            "elem_flags" / ELEM_FLAGS,
            "flags" / X64,
        )
    )


BATCH_OUT = _batch(Out)
BATCH_IN = _batch(In)

PROG_LOAD = cs.Struct(
    "prog_type" / Named(cs.Int32ul, names.bpf_prog_type, "bpf_prog_type"),
    "insn_cnt" / U32,
    "insns" / In(InsnArray(this.insn_cnt)),
    "license" / In(CStr(128)),
    "log_level" / U32,
    "log_size" / U32,
    "log_buf" / Out(CStr(lambda scope: min(scope["log_size"], LOG_LIMIT)), always=True),
    "kern_version" / NotedField(cs.Int32ul, kern_version),
    "prog_flags" / FlagSet(cs.Int32ul, names.prog_flags, "BPF_F"),
    "prog_name" / Chars(16),
    "prog_ifindex" / IFINDEX,
    "expected_attach_type" / ATTACH_TYPE,
    "prog_btf_fd" / OPT_FD,
    "func_info_rec_size" / U32,
    "func_info" / In(Many(FUNC_INFO, this.func_info_cnt, stride=this.func_info_rec_size)),
    "func_info_cnt" / U32,
    "line_info_rec_size" / U32,
    "line_info" / In(Many(LINE_INFO, this.line_info_cnt, stride=this.line_info_rec_size)),
    "line_info_cnt" / U32,
    "attach_btf_id" / FactField(cs.Int32ul, "btf_vmlinux"),
    # A program to attach to (freplace, fentry on BPF) or the BTF of a module.
    "attach_prog_fd" / OPT_FD,
    "core_relo_cnt" / U32,
    "fd_array" / In(Many(FdField(cs.Int32sl), fd_array_count)),
    "core_relos" / In(Many(CORE_RELO, this.core_relo_cnt, stride=this.core_relo_rec_size)),
    "core_relo_rec_size" / U32,
    "log_true_size" / OUT_U32,
    "prog_token_fd" / OPT_SFD,
    "fd_array_cnt" / U32,
    "signature" / In(Blob(this.signature_size)),
    "signature_size" / U32,
    "keyring_id" / S32,
)

PATH_FD = Pick(
    lambda scope: bool(scope["file_flags"] & const.BPF_F_PATH_FD),
    {True: cs.Struct("path_fd" / FdField(cs.Int32sl)), False: cs.Struct("path_fd" / S32)},
)
OBJ_PATH = cs.Struct(
    "pathname" / In(CStr(4096)),
    "bpf_fd" / FD,
    "file_flags" / FlagSet(cs.Int32ul, names.file_flags, "BPF_F"),
    "path" / PATH_FD,
)
OBJ_GET = cs.Struct(
    "pathname" / In(CStr(4096)),
    "bpf_fd" / U32,
    "file_flags" / FlagSet(cs.Int32ul, names.file_flags, "BPF_F"),
    "path" / PATH_FD,
)

PROG_ATTACH = cs.Struct(
    "target" / TARGET,
    "attach_bpf_fd" / FD,
    "attach_type" / ATTACH_TYPE,
    "attach_flags" / ATTACH_FLAGS,
    "replace_bpf_fd" / OPT_FD,
    "relative" / relative("attach_flags"),
    "expected_revision" / U64,
)
PROG_DETACH = cs.Struct(
    "target" / TARGET,
    "attach_bpf_fd" / OPT_FD,
    "attach_type" / ATTACH_TYPE,
    "attach_flags" / ATTACH_FLAGS,
    "_" / Padding(4),
    "relative" / relative("attach_flags"),
    "expected_revision" / U64,
)

PROG_TEST_RUN = cs.Struct(
    "test"
    / cs.Struct(
        "prog_fd" / FD,
        "retval" / OUT_U32,
        "data_size_in" / U32,
        "data_size_out" / OUT_U32,
        "data_in" / In(Blob(this.data_size_in)),
        "data_out" / Out(Blob(this.data_size_out), always=True),
        "repeat" / U32,
        "duration" / OUT_U32,
        "ctx_size_in" / U32,
        "ctx_size_out" / OUT_U32,
        "ctx_in" / In(Blob(this.ctx_size_in)),
        "ctx_out" / Out(Blob(this.ctx_size_out), always=True),
        "flags" / FlagSet(cs.Int32ul, names.test_run_flags, "BPF_F_TEST"),
        "cpu" / U32,
        "batch_size" / U32,
        "_" / Padding(4),
    )
)

GET_NEXT_ID = cs.Struct("start_id" / U32, "next_id" / OUT_U32, "open_flags" / X32)


def _get_fd_by_id(name: str) -> Any:
    return cs.Struct(
        name / U32,
        "next_id" / U32,
        "open_flags" / FlagSet(cs.Int32ul, names.open_flags, "BPF_F"),
        "fd_by_id_token_fd" / OPT_SFD,
    )


OBJ_GET_INFO_BY_FD = cs.Struct(
    "info"
    / cs.Struct(
        "bpf_fd" / FD,
        "info_len" / OUT_U32,
        "info" / InOut(One(INFO, size=this.info_len)),
    )
)

IDS = Many(U32, this.prog_cnt)
PROG_QUERY = cs.Struct(
    "query"
    / cs.Struct(
        "target" / TARGET,
        "attach_type" / ATTACH_TYPE,
        "query_flags" / FlagSet(cs.Int32ul, names.query_flags, "BPF_F_QUERY"),
        "attach_flags" / Written(ATTACH_FLAGS),
        "prog_ids" / Out(Many(U32, this.prog_cnt), always=True),
        "prog_cnt" / OUT_U32,
        "_" / Padding(4),
        "prog_attach_flags" / Out(Many(ATTACH_FLAGS, this.prog_cnt), always=True),
        "link_ids" / Out(Many(U32, this.prog_cnt), always=True),
        "link_attach_flags" / Out(Many(ATTACH_FLAGS, this.prog_cnt), always=True),
        "revision" / OUT_U64,
    )
)

RAW_TRACEPOINT_OPEN = cs.Struct(
    "raw_tracepoint"
    / cs.Struct(
        "name" / In(CStr(128)),
        "prog_fd" / FD,
        "_" / Padding(4),
        "cookie" / X64,
    )
)

BTF_LOAD = cs.Struct(
    "btf" / In(Blob(this.btf_size)),
    "btf_log_buf" / Out(CStr(lambda scope: min(scope["btf_log_size"], LOG_LIMIT)), always=True),
    "btf_size" / U32,
    "btf_log_size" / U32,
    "btf_log_level" / U32,
    "btf_log_true_size" / OUT_U32,
    "btf_flags" / FlagSet(cs.Int32ul, names.btf_flags, "BPF_F"),
    "btf_token_fd" / OPT_SFD,
)

TASK_FD_QUERY = cs.Struct(
    "task_fd_query"
    / cs.Struct(
        "pid" / U32,
        "fd" / U32,
        "flags" / X32,
        "buf_len" / OUT_U32,
        # buf_len at exit is the length of the name, without its NUL.
        "buf" / Out(CStr(lambda scope: min(scope["buf_len"] + 1, 4096)), always=True),
        "prog_id" / OUT_U32,
        "fd_type" / Written(Named(cs.Int32ul, names.bpf_task_fd_type, "bpf_task_fd_type")),
        "probe_offset" / Written(Num(cs.Int64ul, 16)),
        "probe_addr" / Written(Num(cs.Int64ul, 16)),
    )
)

LINK_UPDATE = cs.Struct(
    "link_update"
    / cs.Struct(
        "link_fd" / FD,
        # struct_ops links take a map; the fd's own identity says which.
        "new_prog_fd" / FD,
        "flags" / FlagSet(cs.Int32ul, names.link_update_flags, "BPF_F"),
        "old_prog_fd" / OPT_FD,
    )
)
LINK_DETACH = cs.Struct("link_detach" / cs.Struct("link_fd" / FD))
ENABLE_STATS = cs.Struct(
    "enable_stats"
    / cs.Struct("type" / Named(cs.Int32ul, names.bpf_stats_type, "bpf_stats_type"))
)
ITER_CREATE = cs.Struct("iter_create" / cs.Struct("link_fd" / FD, "flags" / X32))
PROG_BIND_MAP = cs.Struct(
    "prog_bind_map" / cs.Struct("prog_fd" / FD, "map_fd" / FD, "flags" / X32)
)
TOKEN_CREATE = cs.Struct("token_create" / cs.Struct("flags" / X32, "bpffs_fd" / FD))
PROG_STREAM_READ = cs.Struct(
    "prog_stream_read"
    / cs.Struct(
        # How much was written is the return value.
        "stream_buf" / Out(Blob(lambda scope: min(scope["stream_buf_len"], scope.env.ret or 0))),
        "stream_buf_len" / U32,
        "stream_id" / Named(cs.Int32ul, names.bpf_stream_id, "bpf_stream_id"),
        "prog_fd" / FD,
        "_" / Padding(4),
    )
)
PROG_ASSOC_STRUCT_OPS = cs.Struct(
    "prog_assoc_struct_ops" / cs.Struct("map_fd" / FD, "prog_fd" / FD, "flags" / X32)
)

COMMON_ATTR = cs.Struct(
    "log_buf" / Out(CStr(lambda scope: min(scope["log_size"], LOG_LIMIT)), always=True),
    "log_size" / U32,
    "log_level" / U32,
    "log_true_size" / OUT_U32,
    "_" / Padding(4),
)


class Command(NamedTuple):
    """A bpf command: its attr, and whether it returns an fd."""

    attr: Any
    returns_fd: bool = False


COMMANDS: Final[dict[int, Command]] = {
    0: Command(MAP_CREATE, True),
    1: Command(MAP_LOOKUP_ELEM),
    2: Command(MAP_UPDATE_ELEM),
    3: Command(MAP_DELETE_ELEM),
    4: Command(MAP_GET_NEXT_KEY),
    5: Command(PROG_LOAD, True),
    6: Command(OBJ_PATH),
    7: Command(OBJ_GET, True),
    8: Command(PROG_ATTACH),
    9: Command(PROG_DETACH),
    10: Command(PROG_TEST_RUN),
    11: Command(GET_NEXT_ID),
    12: Command(GET_NEXT_ID),
    13: Command(_get_fd_by_id("prog_id"), True),
    14: Command(_get_fd_by_id("map_id"), True),
    15: Command(OBJ_GET_INFO_BY_FD),
    16: Command(PROG_QUERY),
    17: Command(RAW_TRACEPOINT_OPEN, True),
    18: Command(BTF_LOAD, True),
    19: Command(_get_fd_by_id("btf_id"), True),
    20: Command(TASK_FD_QUERY),
    21: Command(MAP_LOOKUP_AND_DELETE_ELEM),
    22: Command(MAP_FREEZE),
    23: Command(GET_NEXT_ID),
    24: Command(BATCH_OUT),
    25: Command(BATCH_OUT),
    26: Command(BATCH_IN),
    27: Command(BATCH_IN),
    28: Command(LINK_CREATE, True),
    29: Command(LINK_UPDATE),
    30: Command(_get_fd_by_id("link_id"), True),
    31: Command(GET_NEXT_ID),
    32: Command(ENABLE_STATS, True),
    33: Command(ITER_CREATE, True),
    34: Command(LINK_DETACH),
    35: Command(PROG_BIND_MAP),
    36: Command(TOKEN_CREATE, True),
    37: Command(PROG_STREAM_READ),
    38: Command(PROG_ASSOC_STRUCT_OPS),
}
"""By number; the numbers' names are the generated table's."""

ATTR = Pick(
    lambda scope: scope["cmd"] & ~const.BPF_COMMON_ATTRS,
    {number: command.attr for number, command in COMMANDS.items()},
)
"""What the attr pointer of bpf(2) points at, by ``cmd``."""

