"""union bpf_attr: one row per bpf command, in the order of enum bpf_cmd.

Layouts are those of include/uapi/linux/bpf.h (and are checked against the
generated ``decoders.uapi.layouts`` and the running kernel's BTF in the tests);
what the fields mean and how long their pointers' targets are is from
kernel/bpf/syscall.c.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from decoders.constructs import cs
from decoders.declare.bpf_fields import (
    ATTACH_FLAGS,
    ATTACH_TYPE,
    CORE_RELO,
    FD,
    FUNC_INFO,
    IFINDEX,
    LINE_INFO,
    LINK_TARGET,
    OPT_FD,
    OUT_U32,
    OUT_U64,
    TARGET,
    TOO_SMALL,
    relative,
)
from decoders.declare.bpf_map_attr import (
    BATCH_IN,
    BATCH_OUT,
    MAP_CREATE,
    MAP_DELETE_ELEM,
    MAP_FREEZE,
    MAP_GET_NEXT_KEY,
    MAP_LOOKUP_AND_DELETE_ELEM,
    MAP_LOOKUP_ELEM,
    MAP_UPDATE_ELEM,
)
from decoders.declare.fields import (
    S32,
    U32,
    U64,
    X32,
    X64,
    Called,
    Chars,
    FactField,
    FdField,
    FlagSet,
    Meaning,
    MustBeZero,
    Named,
    NotedField,
    Num,
    Padding,
    Written,
    this,
)
from decoders.declare.structs import (
    Blob,
    CStr,
    In,
    InOut,
    InsnArray,
    Late,
    Log,
    Many,
    One,
    Out,
    Pick,
    Unknown,
    kernel,
)
from decoders.records import NamedTuple
from decoders.uapi import const, names
from decoders.walk.measures import (
    MPROG,
    btf_log_end,
    btf_log_size,
    command,
    fd_array_count,
    fd_kind,
    has_path_fd,
    insns_accepted,
    log_end,
    log_size,
    replaces_by_id,
    stream_size,
    task_name_size,
    variant,
)
from decoders.walk.scope import Scope


def _info() -> Mapping[Any, Any]:
    from decoders.declare.bpf_info import INFO

    return INFO


def _variants() -> Mapping[Any, Any]:
    from decoders.declare.bpf_link import ROWS

    return ROWS


def attach_fd_kind(scope: Any) -> str | None:
    """What attach_prog_fd is: prog (freplace, fentry on BPF) or btf (of a module)."""
    fact = scope.env.fd(scope["attach_prog_fd"]) if scope["attach_prog_fd"] else None
    return None if fact is None else fact.kind


def ops_member(value: int, scope: Scope) -> str | None:
    """``undo_cwnd of tcp_congestion_ops``: of struct_ops it is a member's index, and no enum's.

    bpf_struct_ops_prog_init() in kernel/bpf/verifier.c.
    """
    ops = scope["attach_btf_id"]
    declared = scope.env.fact(f"member_prototype {value}", ops) if ops else None
    struct = scope.env.fact("btf_vmlinux", ops) if declared else None
    found = re.search(r"(\w+)\(", declared or "")
    return f"{found[1]} of {struct}" if found and struct else None


def kern_version(value: int, scope: Scope) -> str | None:
    """KERNEL_VERSION(a, b, c) as a comment-like spelling."""
    if not value:
        return None
    return f"KERNEL_VERSION({value >> 16}, {value >> 8 & 0xFF}, {value & 0xFF})"


PROG_LOAD = cs.Struct(
    "prog_type" / Named(cs.Int32ul, names.bpf_prog_type, "bpf_prog_type"),
    "insn_cnt" / U32,
    "insns" / In(InsnArray(insns_accepted, claimed=this.insn_cnt)),
    "license" / In(CStr(128)),
    "log_level" / U32,
    "log_size" / U32,
    "log_buf" / Out(Log(log_size, log_end, this.log_size), always=True),
    "kern_version" / NotedField(cs.Int32ul, kern_version),
    "prog_flags" / FlagSet(cs.Int32ul, names.prog_flags, "BPF_F"),
    "prog_name" / Chars(16),
    "prog_ifindex" / IFINDEX,
    "expected_attach_type" / Meaning(
        cs.Int32ul,
        this.prog_type,
        {const.BPF_PROG_TYPE_STRUCT_OPS: NotedField(cs.Int32ul, ops_member)},
        usual=ATTACH_TYPE,
    ),
    "prog_btf_fd" / OPT_FD,
    "func_info_rec_size" / U32,
    "func_info" / In(Many(FUNC_INFO, this.func_info_cnt, stride=this.func_info_rec_size)),
    "func_info_cnt" / U32,
    "line_info_rec_size" / U32,
    "line_info" / In(Many(LINE_INFO, this.line_info_cnt, stride=this.line_info_rec_size)),
    "line_info_cnt" / U32,
    # An id in the BTF of the program to attach to, else of the kernel or a module.
    "attach_btf_id"
    / FactField(cs.Int32ul, "btf_vmlinux", when=lambda scope: attach_fd_kind(scope) != "prog"),
    "attach_prog_fd"
    / Called(OPT_FD, "attach_btf_obj_fd", lambda scope: attach_fd_kind(scope) == "btf"),
    "core_relo_cnt" / U32,
    "fd_array" / In(Many(FdField(cs.Int32sl), fd_array_count)),
    "core_relos" / In(Many(CORE_RELO, this.core_relo_cnt, stride=this.core_relo_rec_size)),
    "core_relo_rec_size" / U32,
    "log_true_size" / OUT_U32,
    "prog_token_fd" / OPT_FD,
    "fd_array_cnt" / U32,
    "signature" / In(Blob(this.signature_size)),
    "signature_size" / U32,
    "keyring_id" / S32,
)

PATH_FD = Pick(
    has_path_fd,
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
    "relative" / relative(replaces_by_id),
    "expected_revision" / U64,
)
PROG_DETACH = cs.Struct(
    "target" / TARGET,
    "attach_bpf_fd" / OPT_FD,
    "attach_type" / ATTACH_TYPE,
    "attach_flags" / ATTACH_FLAGS,
    "replace_bpf_fd" / MustBeZero(OPT_FD),
    "relative" / relative(replaces_by_id),
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
        # bpf_test_finish(): a room of 0 is no limit for data, as before there was one.
        "data_out" / Out(Blob(this.data_size_out, open_end=True), always=TOO_SMALL),
        "repeat" / U32,
        "duration" / OUT_U32,
        "ctx_size_in" / U32,
        "ctx_size_out" / OUT_U32,
        # A program of type syscall finds its context here, and leaves it here.
        "ctx_in" / InOut(Blob(this.ctx_size_in)),
        "ctx_out" / Out(Blob(this.ctx_size_out), always=TOO_SMALL),
        "flags" / FlagSet(cs.Int32ul, names.test_run_flags, "BPF_F_TEST"),
        "cpu" / U32,
        "batch_size" / U32,
        "_" / Padding(4),
    )
)

OPEN_FLAGS = FlagSet(cs.Int32ul, names.open_flags, "BPF_F")
GET_NEXT_ID = cs.Struct(
    "start_id" / U32,
    "next_id" / OUT_U32,
    "open_flags" / OPEN_FLAGS,
    "fd_by_id_token_fd" / MustBeZero(OPT_FD),
)


def _get_fd_by_id(name: str) -> Any:
    return cs.Struct(
        name / U32,
        "next_id" / U32,
        "open_flags" / OPEN_FLAGS,
        "fd_by_id_token_fd" / OPT_FD,
    )


INFO = Pick(fd_kind, Late(_info))
"""By what the fd is.  An fd that nobody knows leaves the bytes as they are."""
OBJ_GET_INFO_BY_FD = cs.Struct(
    "info"
    / cs.Struct(
        "bpf_fd" / FD,
        "info_len" / OUT_U32,
        "info" / InOut(One(INFO, size=this.info_len), always=TOO_SMALL),
    )
)

PROG_QUERY = cs.Struct(
    "query"
    / cs.Struct(
        "target" / TARGET,
        "attach_type" / ATTACH_TYPE,
        "query_flags" / FlagSet(cs.Int32ul, names.query_flags, "BPF_F_QUERY"),
        "attach_flags" / Written(ATTACH_FLAGS),
        "prog_ids" / Out(Many(U32, this.prog_cnt), always=TOO_SMALL),
        "prog_cnt"
        / Called(OUT_U32, "count", lambda scope: scope["attach_type"] in MPROG),
        "_" / Padding(4),
        "prog_attach_flags" / Out(Many(ATTACH_FLAGS, this.prog_cnt), always=TOO_SMALL),
        "link_ids" / Out(Many(U32, this.prog_cnt), always=TOO_SMALL),
        "link_attach_flags" / Out(Many(ATTACH_FLAGS, this.prog_cnt), always=TOO_SMALL),
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
    "btf_log_buf" / Out(Log(btf_log_size, btf_log_end, this.btf_log_size), always=True),
    "btf_size" / U32,
    "btf_log_size" / U32,
    "btf_log_level" / U32,
    "btf_log_true_size" / OUT_U32,
    "btf_flags" / FlagSet(cs.Int32ul, names.btf_flags, "BPF_F"),
    "btf_token_fd" / OPT_FD,
)

TASK_FD_QUERY = cs.Struct(
    "task_fd_query"
    / cs.Struct(
        "pid" / U32,
        "fd" / U32,
        "flags" / X32,
        "buf_len" / OUT_U32,
        # buf_len at exit is the length of the name, without its NUL, for which there
        # may have been no room; what is in buf ends with one in any case.
        "buf" / Out(CStr(task_name_size), always=TOO_SMALL),
        "prog_id" / OUT_U32,
        "fd_type" / Written(Named(cs.Int32ul, names.bpf_task_fd_type, "bpf_task_fd_type")),
        "probe_offset" / Written(Num(cs.Int64ul, 16)),
        "probe_addr" / Written(Num(cs.Int64ul, 16)),
    )
)


def takes_map(scope: Any) -> bool:
    """Whether the link of a LINK_UPDATE is one of struct_ops, which links a map."""
    link = scope.env.fd(scope["link_fd"])
    new = scope.env.fd(scope["new_prog_fd"])
    said = link is not None and link.info.get("link_type") == "struct_ops"
    return said or (new is not None and new.kind == "map")


LINK_UPDATE = cs.Struct(
    "link_update"
    / cs.Struct(
        "link_fd" / FD,
        "new_prog_fd" / Called(FD, "new_map_fd", takes_map),
        "flags" / FlagSet(cs.Int32ul, names.link_update_flags, "BPF_F"),
        "old_prog_fd" / Called(OPT_FD, "old_map_fd", takes_map),
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
        "stream_buf" / Out(Blob(stream_size)),
        "stream_buf_len" / U32,
        "stream_id" / Named(cs.Int32ul, names.bpf_stream_id, "bpf_stream_id"),
        "prog_fd" / FD,
        "_" / Padding(4),
    )
)
PROG_ASSOC_STRUCT_OPS = cs.Struct(
    "prog_assoc_struct_ops" / cs.Struct("map_fd" / FD, "prog_fd" / FD, "flags" / X32)
)

COMMON_ATTR = kernel(
    "bpf_common_attr",
    cs.Struct(
        "log_buf" / Out(Log(log_size, log_end, this.log_size), always=True),
        "log_size" / U32,
        "log_level" / U32,
        "log_true_size" / OUT_U32,
        "_" / Padding(4),
    ),
)


LINK_CREATE = cs.Struct(
    "link_create"
    / cs.Struct(
        "prog_fd"
        / Called(FD, "map_fd", lambda scope: scope["attach_type"] == const.BPF_STRUCT_OPS),
        "target" / LINK_TARGET,
        "attach_type" / ATTACH_TYPE,
        "flags"
        / Meaning(
            cs.Int32ul,
            lambda scope: scope["attach_type"] == const.BPF_XDP,
            {
                True: FlagSet(cs.Int32ul, names.xdp_flags, "XDP_FLAGS"),
                False: FlagSet(cs.Int32ul, names.link_create_flags, "BPF_F"),
            },
            base=16,
        ),
        "variant" / Pick(variant, Late(_variants), size=48),
    )
)


class Command(NamedTuple):
    """A bpf command: its attr, and whether it returns an fd."""

    attr: Any
    returns_fd: bool = False


def _row(attr: Any, returns_fd: bool = False, unnamed: str = "") -> Command:
    """A command's row; ``unnamed``: the key in uapi.layouts of an attr that has no name."""
    kernel(f"bpf_attr.{unnamed}" if unnamed else "bpf_attr", attr)
    if not unnamed:
        kernel(f"bpf_attr.{attr.subcons[0].name}", attr.subcons[0].subcon)
    return Command(attr, returns_fd)


COMMANDS: Final[dict[int, Command]] = {
    0: _row(MAP_CREATE, True, unnamed="MAP_CREATE"),
    1: _row(MAP_LOOKUP_ELEM, unnamed="MAP_*_ELEM"),
    2: _row(MAP_UPDATE_ELEM, unnamed="MAP_*_ELEM"),
    3: _row(MAP_DELETE_ELEM, unnamed="MAP_*_ELEM"),
    4: _row(MAP_GET_NEXT_KEY, unnamed="MAP_*_ELEM"),
    5: _row(PROG_LOAD, True, unnamed="PROG_LOAD"),
    6: _row(OBJ_PATH, unnamed="OBJ_*"),
    7: _row(OBJ_GET, True, unnamed="OBJ_*"),
    8: _row(PROG_ATTACH, unnamed="PROG_ATTACH"),
    9: _row(PROG_DETACH, unnamed="PROG_ATTACH"),
    10: _row(PROG_TEST_RUN),
    11: _row(GET_NEXT_ID, unnamed="*_GET_*_ID"),
    12: _row(GET_NEXT_ID, unnamed="*_GET_*_ID"),
    13: _row(_get_fd_by_id("prog_id"), True, unnamed="*_GET_*_ID"),
    14: _row(_get_fd_by_id("map_id"), True, unnamed="*_GET_*_ID"),
    15: _row(OBJ_GET_INFO_BY_FD),
    16: _row(PROG_QUERY),
    17: _row(RAW_TRACEPOINT_OPEN, True),
    18: _row(BTF_LOAD, True, unnamed="BTF_LOAD"),
    19: _row(_get_fd_by_id("btf_id"), True, unnamed="*_GET_*_ID"),
    20: _row(TASK_FD_QUERY),
    21: _row(MAP_LOOKUP_AND_DELETE_ELEM, unnamed="MAP_*_ELEM"),
    22: _row(MAP_FREEZE, unnamed="MAP_*_ELEM"),
    23: _row(GET_NEXT_ID, unnamed="*_GET_*_ID"),
    24: _row(BATCH_OUT),
    25: _row(BATCH_OUT),
    26: _row(BATCH_IN),
    27: _row(BATCH_IN),
    28: _row(LINK_CREATE, True),
    29: _row(LINK_UPDATE),
    30: _row(_get_fd_by_id("link_id"), True, unnamed="*_GET_*_ID"),
    31: _row(GET_NEXT_ID, unnamed="*_GET_*_ID"),
    32: _row(ENABLE_STATS, True),
    33: _row(ITER_CREATE, True),
    34: _row(LINK_DETACH),
    35: _row(PROG_BIND_MAP),
    36: _row(TOKEN_CREATE, True),
    37: _row(PROG_STREAM_READ),
    38: _row(PROG_ASSOC_STRUCT_OPS),
}
"""By number; the numbers' names are the generated table's."""

ATTR = Pick(
    command,
    {number: row.attr for number, row in COMMANDS.items()},
)
"""What the attr pointer of bpf(2) points at, by ``cmd``."""
UNKNOWN_COMMAND: Final = Unknown("bpf_attr", "bpf_cmd", names.bpf_cmd, command)
"""By what the attr may be known of a command that has no row."""

