"""Where a command's part of union bpf_attr ends: what follows must be zero (CHECK_ATTR).

The kernel's BPF_*_LAST_FIELD say it (kernel/bpf/syscall.c); they stand in no header, and a kernel's
BTF has its members, but not which of them a command takes last.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from bpftrace_sys.story.explain.failure import NONE, Failure
from bpftrace_sys.story.explain.wording import decimal
from decoders.uapi import layouts

LAST_FIELDS: Final[dict[str, str]] = {
    "BPF_MAP_CREATE": "excl_prog_hash_size",
    "BPF_MAP_LOOKUP_ELEM": "flags",
    "BPF_MAP_UPDATE_ELEM": "flags",
    "BPF_MAP_DELETE_ELEM": "key",
    "BPF_MAP_GET_NEXT_KEY": "next_key",
    "BPF_PROG_LOAD": "keyring_id",
    "BPF_OBJ_PIN": "path_fd",
    "BPF_OBJ_GET": "path_fd",
    "BPF_PROG_ATTACH": "expected_revision",
    "BPF_PROG_DETACH": "expected_revision",
    "BPF_PROG_TEST_RUN": "test.batch_size",
    "BPF_PROG_GET_NEXT_ID": "next_id",
    "BPF_MAP_GET_NEXT_ID": "next_id",
    "BPF_PROG_GET_FD_BY_ID": "prog_id",
    "BPF_MAP_GET_FD_BY_ID": "open_flags",
    "BPF_OBJ_GET_INFO_BY_FD": "info.info",
    "BPF_PROG_QUERY": "query.revision",
    "BPF_RAW_TRACEPOINT_OPEN": "raw_tracepoint.cookie",
    "BPF_BTF_LOAD": "btf_token_fd",
    "BPF_BTF_GET_FD_BY_ID": "fd_by_id_token_fd",
    "BPF_TASK_FD_QUERY": "task_fd_query.probe_addr",
    "BPF_MAP_LOOKUP_AND_DELETE_ELEM": "flags",
    "BPF_MAP_FREEZE": "map_fd",
    "BPF_BTF_GET_NEXT_ID": "next_id",
    "BPF_MAP_LOOKUP_BATCH": "batch.flags",
    "BPF_MAP_LOOKUP_AND_DELETE_BATCH": "batch.flags",
    "BPF_MAP_UPDATE_BATCH": "batch.flags",
    "BPF_MAP_DELETE_BATCH": "batch.flags",
    "BPF_LINK_CREATE": "link_create.uprobe_multi.path_fd",
    "BPF_LINK_UPDATE": "link_update.old_prog_fd",
    "BPF_LINK_GET_FD_BY_ID": "link_id",
    "BPF_LINK_GET_NEXT_ID": "next_id",
    "BPF_ENABLE_STATS": "enable_stats.type",
    "BPF_ITER_CREATE": "iter_create.flags",
    "BPF_LINK_DETACH": "link_detach.link_fd",
    "BPF_PROG_BIND_MAP": "prog_bind_map.flags",
    "BPF_TOKEN_CREATE": "token_create.bpffs_fd",
    "BPF_PROG_STREAM_READ_BY_FD": "prog_stream_read.prog_fd",
    "BPF_PROG_ASSOC_STRUCT_OPS": "prog_assoc_struct_ops.prog_fd",
}
"""By command, the path in union bpf_attr, of the kernel that decoders.uapi is made from."""
BEYOND: Final = {
    "prog_assoc_struct_ops": "the kernel checks its flags, and does not count them in",
}
"""Parts of the union that have members behind all their commands' last fields, and why."""


@cache
def layout_of(command: str) -> str:
    """A command's part of union bpf_attr in layouts.LAYOUTS: ``link_create``; empty if unknown."""
    path = LAST_FIELDS.get(command, "")
    part, dot, _ = path.partition(".")
    if dot:
        return part
    for name, members in layouts.LAYOUTS.items():
        outer, _, part = name.partition(".")
        # The unnamed parts are called by their commands: MAP_CREATE, *_GET_*_ID.
        if outer == "bpf_attr" and part.isupper() and path in {one.path for one in members}:
            return part
    return ""


def end_of(failure: Failure) -> int | None:
    """The offset after the last field that the kernel has of the command; None if unknown.

    Of an older kernel it may be too large, where commands share their fields, but never too small.
    """
    path = LAST_FIELDS.get(failure.command)
    size = decimal(failure.fact("size bpf_attr"))
    if path is None or size is None or size > layouts.SIZES["bpf_attr"]:
        return None  # a kernel that knows more of bpf_attr may know more of a command, too
    newer = set((failure.fact("members bpf_attr") or "").split()) - _names()
    if newer:
        return None
    part = layout_of(failure.command)
    if part in grown():
        return None
    members = {one.path: one for one in layouts.LAYOUTS["bpf_attr"]}
    last = members[path].offset + members[path].size
    ours = {one.path for one in layouts.LAYOUTS[f"bpf_attr.{part}"]}
    ends = {
        one.offset + one.size: one.path
        for one in members.values()
        if one.path.removeprefix(f"{part}.") in ours and one.offset + one.size <= last
    }
    for end in sorted(ends, reverse=True):
        if failure.fact(f"member bpf_attr {ends[end]}") != NONE:
            return end
    return None


@cache
def grown() -> frozenset[str]:
    """Parts of the union that have members behind the last fields of all their commands: the
    tables are of a newer kernel than LAST_FIELDS."""
    ends: dict[str, int] = {}
    members = {one.path: one for one in layouts.LAYOUTS["bpf_attr"]}
    for command, path in LAST_FIELDS.items():
        part = layout_of(command)
        end = members[path].offset + members[path].size
        ends[part] = max(end, ends.get(part, 0))
    return frozenset(
        part
        for part, end in ends.items()
        if part not in BEYOND
        and end < max(one.offset + one.size for one in layouts.LAYOUTS[f"bpf_attr.{part}"])
    )


@cache
def _names() -> frozenset[str]:
    """All names of union bpf_attr and of the structs in it."""
    return frozenset(name for one in layouts.LAYOUTS["bpf_attr"] for name in one.path.split("."))
