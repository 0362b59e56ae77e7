"""What the loaders share: bpf(2) by field name, facts as the kernel tells them, the frame.

A loader is a program that does one kind of BPF work on the running kernel and
prints what came of it as one JSON object on stdout::

    python3 tests/tracees/loaders/NAME.py [--wait FILE] [--strict]

``progs``, ``maps``, ``btfs`` and ``links`` are as BPF_OBJ_GET_INFO_BY_FD tells
them, ``refused`` says which step the kernel did not take, and the rest is the
loader's own.  It ends by itself with 0, also where the kernel refuses; with
``--strict`` a refusal is status 1.  With ``--wait`` it keeps everything alive
until FILE exists, so that somebody else can have a look meanwhile.

Layouts are from linux/bpf.h (Linux 7.1), written again and not taken from
``decoders``: a test must be able to find the decoder wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import json
import os
import platform
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "support"))

import bpf_asm as asm

# --- names ----------------------------------------------------------------


def _numbered(names: str, start: int = 0) -> dict[str, int]:
    return {name: start + at for at, name in enumerate(names.split())}


CMD: Final = _numbered("""
    MAP_CREATE MAP_LOOKUP_ELEM MAP_UPDATE_ELEM MAP_DELETE_ELEM MAP_GET_NEXT_KEY PROG_LOAD OBJ_PIN
    OBJ_GET PROG_ATTACH PROG_DETACH PROG_TEST_RUN PROG_GET_NEXT_ID MAP_GET_NEXT_ID
    PROG_GET_FD_BY_ID MAP_GET_FD_BY_ID OBJ_GET_INFO_BY_FD PROG_QUERY RAW_TRACEPOINT_OPEN BTF_LOAD
    BTF_GET_FD_BY_ID TASK_FD_QUERY MAP_LOOKUP_AND_DELETE_ELEM MAP_FREEZE BTF_GET_NEXT_ID
    MAP_LOOKUP_BATCH MAP_LOOKUP_AND_DELETE_BATCH MAP_UPDATE_BATCH MAP_DELETE_BATCH LINK_CREATE
    LINK_UPDATE LINK_GET_FD_BY_ID LINK_GET_NEXT_ID ENABLE_STATS ITER_CREATE LINK_DETACH
    PROG_BIND_MAP TOKEN_CREATE PROG_STREAM_READ_BY_FD PROG_ASSOC_STRUCT_OPS""")
PROG: Final = _numbered("""
    UNSPEC SOCKET_FILTER KPROBE SCHED_CLS SCHED_ACT TRACEPOINT XDP PERF_EVENT CGROUP_SKB
    CGROUP_SOCK LWT_IN LWT_OUT LWT_XMIT SOCK_OPS SK_SKB CGROUP_DEVICE SK_MSG RAW_TRACEPOINT
    CGROUP_SOCK_ADDR LWT_SEG6LOCAL LIRC_MODE2 SK_REUSEPORT FLOW_DISSECTOR CGROUP_SYSCTL
    RAW_TRACEPOINT_WRITABLE CGROUP_SOCKOPT TRACING STRUCT_OPS EXT LSM SK_LOOKUP SYSCALL
    NETFILTER""")
MAP: Final = _numbered("""
    UNSPEC HASH ARRAY PROG_ARRAY PERF_EVENT_ARRAY PERCPU_HASH PERCPU_ARRAY STACK_TRACE CGROUP_ARRAY
    LRU_HASH LRU_PERCPU_HASH LPM_TRIE ARRAY_OF_MAPS HASH_OF_MAPS DEVMAP SOCKMAP CPUMAP XSKMAP
    SOCKHASH CGROUP_STORAGE REUSEPORT_SOCKARRAY PERCPU_CGROUP_STORAGE QUEUE STACK SK_STORAGE
    DEVMAP_HASH STRUCT_OPS RINGBUF INODE_STORAGE TASK_STORAGE BLOOM_FILTER USER_RINGBUF
    CGRP_STORAGE ARENA""")
ATTACH: Final = _numbered("""
    CGROUP_INET_INGRESS CGROUP_INET_EGRESS CGROUP_INET_SOCK_CREATE CGROUP_SOCK_OPS
    SK_SKB_STREAM_PARSER SK_SKB_STREAM_VERDICT CGROUP_DEVICE SK_MSG_VERDICT CGROUP_INET4_BIND
    CGROUP_INET6_BIND CGROUP_INET4_CONNECT CGROUP_INET6_CONNECT CGROUP_INET4_POST_BIND
    CGROUP_INET6_POST_BIND CGROUP_UDP4_SENDMSG CGROUP_UDP6_SENDMSG LIRC_MODE2 FLOW_DISSECTOR
    CGROUP_SYSCTL CGROUP_UDP4_RECVMSG CGROUP_UDP6_RECVMSG CGROUP_GETSOCKOPT CGROUP_SETSOCKOPT
    TRACE_RAW_TP TRACE_FENTRY TRACE_FEXIT MODIFY_RETURN LSM_MAC TRACE_ITER
    CGROUP_INET4_GETPEERNAME CGROUP_INET6_GETPEERNAME CGROUP_INET4_GETSOCKNAME
    CGROUP_INET6_GETSOCKNAME XDP_DEVMAP CGROUP_INET_SOCK_RELEASE XDP_CPUMAP SK_LOOKUP XDP
    SK_SKB_VERDICT SK_REUSEPORT_SELECT SK_REUSEPORT_SELECT_OR_MIGRATE PERF_EVENT
    TRACE_KPROBE_MULTI LSM_CGROUP STRUCT_OPS NETFILTER TCX_INGRESS TCX_EGRESS TRACE_UPROBE_MULTI
    CGROUP_UNIX_CONNECT CGROUP_UNIX_SENDMSG CGROUP_UNIX_RECVMSG CGROUP_UNIX_GETPEERNAME
    CGROUP_UNIX_GETSOCKNAME NETKIT_PRIMARY NETKIT_PEER TRACE_KPROBE_SESSION
    TRACE_UPROBE_SESSION""")
LINK: Final = _numbered("""
    UNSPEC RAW_TRACEPOINT TRACING CGROUP ITER NETNS XDP PERF_EVENT KPROBE_MULTI STRUCT_OPS
    NETFILTER TCX UPROBE_MULTI NETKIT SOCKMAP""")

# --- union bpf_attr -------------------------------------------------------

# Field after field in struct's letters, each naturally aligned; P is a pointer.
_ELEM = "map_fd:I key:P value:P flags:Q"
_BATCH = "in_batch:P out_batch:P keys:P values:P count:I map_fd:I elem_flags:Q flags:Q"
_OBJ = "pathname:P bpf_fd:I file_flags:I path_fd:i"
_ATTACH = (
    "target_fd:I attach_bpf_fd:I attach_type:I attach_flags:I replace_bpf_fd:I relative_fd:I"
    " expected_revision:Q"
)
_ID = "start_id:I next_id:I open_flags:I"
_LINK_CREATE = "prog_fd:I target_fd:I attach_type:I flags:I"
_LAYOUTS: Final = {
    "MAP_CREATE": "map_type:I key_size:I value_size:I max_entries:I map_flags:I inner_map_fd:I"
    " numa_node:I map_name:16s map_ifindex:I btf_fd:I btf_key_type_id:I btf_value_type_id:I"
    " btf_vmlinux_value_type_id:I map_extra:Q value_type_btf_obj_fd:i map_token_fd:i",
    **dict.fromkeys(
        ("MAP_LOOKUP_ELEM", "MAP_UPDATE_ELEM", "MAP_DELETE_ELEM", "MAP_GET_NEXT_KEY",
         "MAP_LOOKUP_AND_DELETE_ELEM", "MAP_FREEZE"), _ELEM),
    **dict.fromkeys((name for name in CMD if name.endswith("_BATCH")), _BATCH),
    "PROG_LOAD": "prog_type:I insn_cnt:I insns:P license:P log_level:I log_size:I log_buf:P"
    " kern_version:I prog_flags:I prog_name:16s prog_ifindex:I expected_attach_type:I"
    " prog_btf_fd:I func_info_rec_size:I func_info:P func_info_cnt:I line_info_rec_size:I"
    " line_info:P line_info_cnt:I attach_btf_id:I attach_prog_fd:I core_relo_cnt:I fd_array:P"
    " core_relos:P core_relo_rec_size:I log_true_size:I prog_token_fd:i fd_array_cnt:I",
    "OBJ_PIN": _OBJ, "OBJ_GET": _OBJ,
    "PROG_ATTACH": _ATTACH, "PROG_DETACH": _ATTACH,
    "PROG_TEST_RUN": "prog_fd:I retval:I data_size_in:I data_size_out:I data_in:P data_out:P"
    " repeat:I duration:I ctx_size_in:I ctx_size_out:I ctx_in:P ctx_out:P flags:I cpu:I"
    " batch_size:I",
    **dict.fromkeys((name for name in CMD if name.endswith("_ID")), _ID),
    "OBJ_GET_INFO_BY_FD": "bpf_fd:I info_len:I info:P",
    "PROG_QUERY": "target_fd:I attach_type:I query_flags:I attach_flags:I prog_ids:P count:I"
    " prog_attach_flags:P link_ids:P link_attach_flags:P revision:Q",
    "RAW_TRACEPOINT_OPEN": "name:P prog_fd:I pad:I cookie:Q",
    "BTF_LOAD": "btf:P btf_log_buf:P btf_size:I btf_log_size:I btf_log_level:I"
    " btf_log_true_size:I btf_flags:I btf_token_fd:i",
    "TASK_FD_QUERY": "pid:I fd:I flags:I buf_len:I buf:P prog_id:I fd_type:I probe_offset:Q"
    " probe_addr:Q",
    "LINK_CREATE": _LINK_CREATE,
    "LINK_UPDATE": "link_fd:I new_prog_fd:I flags:I old_prog_fd:I",
    "LINK_DETACH": "link_fd:I",
    "ENABLE_STATS": "type:I",
    "ITER_CREATE": "link_fd:I flags:I",
    "PROG_BIND_MAP": "prog_fd:I map_fd:I flags:I",
    "TOKEN_CREATE": "flags:I bpffs_fd:I",
    "PROG_STREAM_READ_BY_FD": "stream_buf:P stream_buf_len:I stream_id:I prog_fd:I",
    "PROG_ASSOC_STRUCT_OPS": "map_fd:I prog_fd:I flags:I",
}  # fmt: skip
# What follows in LINK_CREATE, for the kinds of links that have more.
LINK_EXTRA: Final = {
    "target_btf_id": "target_btf_id:I",
    "iter": "iter_info:P iter_info_len:I",
    "perf_event": "bpf_cookie:Q",
    "multi": "multi_flags:I cnt:I syms:P addrs:P cookies:P",
    "tracing": "target_btf_id:I cookie:Q",
    "netfilter": "pf:I hooknum:I priority:i netfilter_flags:I",
    "relative": "relative_fd:I expected_revision:Q",
    "tracing_multi": "ids:P cookies:P cnt:I",
    "uprobe_multi": "path:P offsets:P ref_ctr_offsets:P cookies:P cnt:I multi_flags:I pid:I",
}


class Refused(OSError):  # noqa: N818 -- it is an answer, not a mistake
    """The kernel said no; ``step`` says to what."""

    def __init__(self, step: str, number: int) -> None:
        super().__init__(number, f"{step}: {os.strerror(number)}")
        self.step = step


class Reply:
    """What bpf(2) returned, and the attr as the kernel left it."""

    def __init__(self, ret: int, attr: Any, fields: dict[str, tuple[int, str]]) -> None:
        self.ret = ret
        self._attr = attr
        self._fields = fields

    def __getitem__(self, name: str) -> Any:
        offset, letter = self._fields[name]
        return struct.unpack_from(f"<{letter}", self._attr, offset)[0]


def _fields(layout: str) -> tuple[dict[str, tuple[int, str]], int]:
    found: dict[str, tuple[int, str]] = {}
    at, widest = 0, 4
    for item in layout.split():
        name, letter = item.split(":")
        letter = letter.replace("P", "Q")
        size = struct.calcsize(f"<{letter}")
        align = 1 if letter.endswith("s") else size
        widest = max(widest, align)
        at = -(-at // align) * align
        found[name] = (at, letter)
        at += size
    return found, -(-at // widest) * widest


def call(
    cmd: str, extra: str = "", *, size: int | None = None, step: str = "", **values: Any
) -> Reply:
    """bpf(cmd) with these fields, the others zero.

    A pointer may be given as bytes (which are copied), as a ctypes array (which
    the kernel may write to), or as a number.  ``extra`` names the part of
    LINK_CREATE that is a union.  Raises Refused.
    """
    fields, full = _fields(_LAYOUTS[cmd] + " " + LINK_EXTRA.get(extra, ""))
    attr = ctypes.create_string_buffer(size or full)
    keep = []
    for name, value in values.items():
        offset, letter = fields[name]
        if letter == "Q" and isinstance(value, bytes):
            value = ctypes.create_string_buffer(value, max(len(value), 1))
        if isinstance(value, ctypes.Array):
            keep.append(value)
            value = ctypes.addressof(value)
        struct.pack_into(f"<{letter}", attr, offset, value)
    try:
        ret = asm.bpf(CMD[cmd], attr)
    except OSError as err:
        raise Refused(step or cmd, err.errno or 0) from None
    return Reply(ret, attr, fields)


def buffer(size: int) -> Any:
    """Memory for the kernel to write to."""
    return ctypes.create_string_buffer(size)


def u32s(*values: int) -> bytes:
    """An array of __u32."""
    return struct.pack(f"<{len(values)}I", *values)


def u64s(*values: int) -> bytes:
    """An array of __u64."""
    return struct.pack(f"<{len(values)}Q", *values)


# --- facts ----------------------------------------------------------------


def _text(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode()


def info(fd: int, size: int, prepared: bytes = b"") -> bytes:
    """BPF_OBJ_GET_INFO_BY_FD of ``size`` bytes, with ``prepared`` at their beginning."""
    data = ctypes.create_string_buffer(prepared.ljust(size, b"\0"), size)
    call("OBJ_GET_INFO_BY_FD", bpf_fd=fd, info_len=size, info=data)
    return data.raw


def prog_facts(fd: int) -> dict[str, Any]:
    """Of struct bpf_prog_info."""
    raw = info(fd, 232)
    kind, number, tag = struct.unpack_from("<II8s", raw)
    return {
        "fd": fd, "id": number, "type": _name(PROG, kind), "tag": tag.hex(),
        "name": _text(raw[64:80]), "insns": struct.unpack_from("<I", raw, 20)[0] // 8,
        "btf_id": struct.unpack_from("<I", raw, 128)[0],
    }  # fmt: skip


def map_facts(fd: int) -> dict[str, Any]:
    """Of struct bpf_map_info."""
    raw = info(fd, 88)
    kind, number, key, value, entries, flags = struct.unpack_from("<6I", raw)
    return {
        "fd": fd, "id": number, "type": _name(MAP, kind), "name": _text(raw[24:40]),
        "key_size": key, "value_size": value, "max_entries": entries, "flags": flags,
    }  # fmt: skip


def btf_facts(fd: int) -> dict[str, Any]:
    """Of struct bpf_btf_info."""
    name = buffer(64)
    raw = info(fd, 32, struct.pack("<QIIQI", 0, 0, 0, ctypes.addressof(name), 64))
    size, number = struct.unpack_from("<II", raw, 8)
    return {"fd": fd, "id": number, "size": size, "name": _text(name.raw)}


# Fields of the union in struct bpf_link_info, as in _LAYOUTS; a "name" is a pointer to text.
_LINK_INFO: Final = {
    "RAW_TRACEPOINT": "name:P name_len:I pad:I cookie:Q",
    "TRACING": "attach_type:I target_obj_id:I target_btf_id:I pad:I cookie:Q",
    "CGROUP": "cgroup_id:Q attach_type:I",
    "ITER": "name:P name_len:I map_id:I tid:I pid:I",
    "NETNS": "netns_ino:I attach_type:I",
    "XDP": "ifindex:I",
    "STRUCT_OPS": "map_id:I",
    "NETFILTER": "pf:I hooknum:I priority:i netfilter_flags:I",
    "TCX": "ifindex:I attach_type:I",
    "NETKIT": "ifindex:I attach_type:I",
    "SOCKMAP": "map_id:I attach_type:I",
    "UPROBE_MULTI": "name:P offsets:P ref_ctr_offsets:P cookies:P name_len:I count:I flags:I pid:I",
    "PERF_EVENT": "event_type:I pad:I name:P name_len:I offset:I cookie:Q",
}


def link_facts(fd: int) -> dict[str, Any]:
    """Of struct bpf_link_info: what all links have, and what this type has."""
    kind, number, prog = struct.unpack_from("<III", info(fd, 64))
    facts = {"fd": fd, "id": number, "type": _name(LINK, kind), "prog_id": prog}
    fields, _ = _fields(_LINK_INFO.get(facts["type"], ""))
    if not fields:
        return facts
    name = buffer(4096)
    ask = bytearray(96)
    if "name" in fields:
        struct.pack_into("<Q", ask, 16 + fields["name"][0], ctypes.addressof(name))
        struct.pack_into("<I", ask, 16 + fields["name_len"][0], len(name))
    raw = info(fd, 96, bytes(ask))
    for field, (offset, letter) in fields.items():
        if letter != "Q" or field in ("cookie", "cgroup_id"):
            facts[field] = struct.unpack_from(f"<{letter}", raw, 16 + offset)[0]
    if "name" in fields:
        facts["name"] = _text(name.raw)
        del facts["name_len"]
    facts.pop("pad", None)
    if "attach_type" in facts:
        facts["attach_type"] = _name(ATTACH, facts["attach_type"])
    return facts


def _name(names: dict[str, int], number: int) -> str:
    return next((name for name, value in names.items() if value == number), str(number))


def errno_name(number: int) -> str:
    """The kernel's name for it; Python calls EOPNOTSUPP by its other name, ENOTSUP."""
    return errno.errorcode.get(number, str(number)).replace("ENOTSUP", "EOPNOTSUPP")


class Kit:
    """What a loader works with; collects what it will print."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.refused: dict[str, str] = {}
        self.at_end = ExitStack()

    def say(self, **facts: Any) -> None:
        """Facts of the loader's own."""
        self.facts.update(facts)

    def add(self, kind: str, facts: dict[str, Any]) -> int:
        """An object's facts into the list ``kind``; returns its fd."""
        self.facts.setdefault(kind, []).append(facts)
        return int(facts["fd"])

    def prog(self, kind: str, insns: bytes, name: str = "", attach: str = "", **more: Any) -> int:
        """BPF_PROG_LOAD under the GPL; the fd.  Raises Refused."""
        if attach:
            more["expected_attach_type"] = ATTACH[attach]
        fd = call(
            "PROG_LOAD", prog_type=PROG[kind], insn_cnt=len(insns) // 8, insns=insns,
            license=b"GPL\0", prog_name=name.encode(), step=f"PROG_LOAD {kind}", **more,
        ).ret  # fmt: skip
        return self.add("progs", prog_facts(fd))

    def map(
        self, kind: str, key: int, value: int, entries: int, name: str = "", **more: Any
    ) -> int:
        """BPF_MAP_CREATE; the fd.  Raises Refused."""
        fd = call(
            "MAP_CREATE", map_type=MAP[kind], key_size=key, value_size=value, max_entries=entries,
            map_name=name.encode(), step=f"MAP_CREATE {kind}", **more,
        ).ret  # fmt: skip
        return self.add("maps", map_facts(fd))

    def btf(self, blob: bytes) -> int:
        """BPF_BTF_LOAD; the fd.  Raises Refused."""
        fd = call("BTF_LOAD", btf=blob, btf_size=len(blob)).ret
        return self.add("btfs", btf_facts(fd))

    def link(
        self, attach: str, prog: int, target: int = 0, extra: str = "", flags: int = 0, **more: Any
    ) -> int:
        """BPF_LINK_CREATE; the fd.  Raises Refused."""
        fd = call(
            "LINK_CREATE", extra, prog_fd=prog, target_fd=target, attach_type=ATTACH[attach],
            flags=flags, step=f"LINK_CREATE {attach}", **more,
        ).ret  # fmt: skip
        return self.add("links", link_facts(fd))

    @contextlib.contextmanager
    def may_be_refused(self, step: str = "") -> Iterator[None]:
        """Note a refusal of what is inside, and go on behind it."""
        try:
            yield
        except OSError as err:
            self.refused[step or getattr(err, "step", "?")] = errno_name(err.errno or 0)


def run(work: Callable[[Kit], None]) -> None:
    """The frame of a loader: do the work, print, wait, clean up, exit."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--wait", metavar="FILE", help="stay until FILE exists")
    parser.add_argument("--strict", action="store_true", help="status 1 if anything was refused")
    args = parser.parse_args()
    kit = Kit()
    with kit.at_end:
        with kit.may_be_refused():
            work(kit)
        print(json.dumps({"pid": os.getpid(), **kit.facts, "refused": kit.refused}), flush=True)
        while args.wait and not os.path.exists(args.wait):
            time.sleep(0.02)
    raise SystemExit(1 if args.strict and kit.refused else 0)


# --- programs -------------------------------------------------------------


def returning(value: int) -> bytes:
    """``return value``."""
    return asm.mov(asm.R0, value) + asm.exit_()


def counting(array: int, result: int = 0) -> bytes:
    """Add one to the first value of ``array`` (of u64), then ``return result``."""
    r0, r1, r2, r10 = asm.R0, asm.R1, asm.R2, asm.R10
    return (
        asm.store_imm("u32", r10, -4, 0)
        + asm.ld_imm64(r1, array, asm.MAP_FD)
        + asm.mov_reg(r2, r10) + asm.alu("add", r2, -4)
        + asm.call(1)  # bpf_map_lookup_elem
        + asm.jmp("jeq", r0, 0, 2)
        + asm.mov(r1, 1) + asm.atomic("add", "u64", r0, 0, r1)
        + returning(result)
    )  # fmt: skip


def count(array: int) -> int:
    """What ``counting`` counted."""
    value = buffer(8)
    call("MAP_LOOKUP_ELEM", map_fd=array, key=u32s(0), value=value)
    return int(struct.unpack("<Q", value.raw)[0])


def result_of(prog: int) -> int:
    """What a program returns for a packet of 64 zero bytes: PROG_TEST_RUN."""
    return int(call("PROG_TEST_RUN", prog_fd=prog, data_in=bytes(64), data_size_in=64)["retval"])


class Btf:
    """Puts BTF together, type by type; each method returns the new type's id."""

    KINDS: Final = {"int": 1, "ptr": 2, "struct": 4, "func": 12, "func_proto": 13}

    def __init__(self) -> None:
        self._types: list[bytes] = []
        self._strings = bytearray(b"\0")
        self.int = self._add("int", "int", 4, struct.pack("<I", 1 << 24 | 32))

    def string(self, text: str) -> int:
        """The offset of ``text`` among the strings."""
        self._strings.extend(text.encode() + b"\0")
        return len(self._strings) - len(text.encode()) - 1

    def _add(self, kind: str, name: str, size: int, more: bytes = b"", vlen: int = 0) -> int:
        head = (self.string(name) if name else 0, self.KINDS[kind] << 24 | vlen, size)
        self._types.append(struct.pack("<III", *head) + more)
        return len(self._types)

    def ptr(self, to: int) -> int:
        """``T *``; void for 0."""
        return self._add("ptr", "", to)

    def struct(self, name: str, size: int, **members: tuple[int, int]) -> int:
        """``struct name``; members as name=(type id, offset in bytes)."""
        more = [
            struct.pack("<III", self.string(member), kind, offset * 8)
            for member, (kind, offset) in members.items()
        ]
        return self._add("struct", name, size, b"".join(more), len(members))

    def func(self, name: str, *, exported: bool = False, **params: int) -> int:
        """``int name(params)``; static if not ``exported``."""
        more = [struct.pack("<II", self.string(param), kind) for param, kind in params.items()]
        proto = self._add("func_proto", "", self.int, b"".join(more), len(params))
        return self._add("func", name, proto, vlen=int(exported))

    def blob(self) -> bytes:
        """All of it, as BPF_BTF_LOAD takes it."""
        types = b"".join(self._types)
        sizes = (0, len(types), len(types), len(self._strings))
        return struct.pack("<HBBI4I", 0xEB9F, 1, 0, 24, *sizes) + types + self._strings


asm.BTF_KINDS.setdefault("typedef", 8)  # for asm.vmlinux_ids: btf_trace_* are typedefs

# --- perf events ----------------------------------------------------------

PERF_EVENT_IOC_ENABLE, PERF_EVENT_IOC_DISABLE = 0x2400, 0x2401
PERF_EVENT_IOC_SET_BPF, PERF_EVENT_IOC_QUERY_BPF = 0x40042408, 0xC008240A

libc = ctypes.CDLL(None, use_errno=True)
_SYSCALLS: Final = {
    "x86_64": {"perf_event_open": 298, "bpf": 321},
    "aarch64": {"perf_event_open": 241, "bpf": 280},
}
# Newer system calls have one number everywhere.
_EVERYWHERE: Final = {
    "pidfd_open": 434, "pidfd_getfd": 438, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "move_mount": 429,
}  # fmt: skip


def syscall(name: str, *args: Any) -> int:
    """syscall(2) for what libc has no function for.  Raises Refused."""
    number = {**_EVERYWHERE, **_SYSCALLS[platform.machine()]}[name]
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    ret = int(libc.syscall(ctypes.c_long(number), *words))
    if ret < 0:
        raise Refused(name, ctypes.get_errno())
    return ret


def checked(step: str, ret: int) -> int:
    """``ret`` of a libc function; raises Refused if it is negative."""
    if ret < 0:
        raise Refused(step, ctypes.get_errno())
    return ret


def perf_event(
    kind: int, config: int = 0, *, text: bytes = b"", config2: int = 0, pid: int = 0, cpu: int = -1
) -> int:
    """perf_event_open() of 112 bytes; ``text`` is what config1 points at.  Raises Refused."""
    name = ctypes.create_string_buffer(text)
    attr = bytearray(112)
    struct.pack_into("<IIQQ", attr, 0, kind, len(attr), config, 1)
    struct.pack_into("<I", attr, 48, 1)  # wakeup_events
    struct.pack_into("<QQ", attr, 56, ctypes.addressof(name) if text else 0, config2)
    return syscall("perf_event_open", bytes(attr), pid, cpu, -1, 8)


def pmu(name: str) -> int:
    """The type of a PMU.  Raises Refused."""
    try:
        return int(Path(f"/sys/bus/event_source/devices/{name}/type").read_text())
    except OSError as err:
        raise Refused(f"PMU {name}", err.errno or 0) from None


def tracefs() -> Path:
    """Where tracefs is mounted.  Raises Refused."""
    for path in map(Path, ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")):
        if (path / "events").exists():
            return path
    raise Refused("tracefs", errno.ENOENT)


def libc_function(name: str) -> tuple[str, int]:
    """The file with our C library's ``name`` (getppid or so), and its offset there."""
    target = ctypes.cast(libc[name], ctypes.c_void_p).value or 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        extent, _, offset, _, _, *path = line.split(maxsplit=5)
        start, end = (int(word, 16) for word in extent.split("-"))
        if start <= target < end:
            return path[0], target - start + int(offset, 16)
    raise Refused(f"libc {name}", errno.ENOENT)


# --- surroundings ---------------------------------------------------------

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
LO: Final = 1  # the loopback device's ifindex in every network namespace


def unshare(flags: int) -> None:
    """unshare(2).  Raises Refused."""
    checked("unshare", libc.unshare(flags))


def own_net() -> None:
    """A network namespace of our own, with its loopback up."""
    unshare(CLONE_NEWNET)
    rtnetlink(16, 5, struct.pack("<BxHiII", 0, 0, LO, 1, 1))  # RTM_NEWLINK lo, IFF_UP


def rtnetlink(kind: int, flags: int, body: bytes) -> None:
    """One rtnetlink request and its acknowledgement.  Raises Refused."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.send(struct.pack("<IHHII", 16 + len(body), kind, flags, 1, 0) + body)
        answer = sock.recv(4096)
    error = struct.unpack_from("<i", answer, 16)[0]
    if error:
        raise Refused("rtnetlink", -error)


def _attribute(kind: int, data: bytes) -> bytes:
    padding = bytes(-len(data) % 4)
    return struct.pack("<HH", 4 + len(data), kind) + data + padding


def new_device(kind: str, name: str, more: bytes = b"") -> int:
    """ip link add NAME type KIND; the ifindex.  Raises Refused."""
    link_info = _attribute(1, kind.encode()) + (_attribute(2, more) if more else b"")
    body = bytes(16) + _attribute(3, name.encode() + b"\0") + _attribute(18, link_info)
    rtnetlink(16, 0x605, body)  # RTM_NEWLINK, NLM_F_REQUEST | ACK | EXCL | CREATE
    return socket.if_nametoindex(name)


def veth(name: str, peer: str) -> int:
    """A veth pair; the ifindex of the first end.  Raises Refused."""
    return new_device("veth", name, _attribute(1, bytes(16) + _attribute(3, peer.encode() + b"\0")))


def mount(kit: Kit, kind: str, path: Path) -> None:
    """Mount a file system, until the end.  Raises Refused."""
    ret = libc.mount(kind.encode(), os.fsencode(path), kind.encode(), 0, None)
    checked(f"mount {kind}", ret)
    kit.at_end.callback(libc.umount2, os.fsencode(path), 2)  # MNT_DETACH


def own_cgroup(kit: Kit, name: str) -> tuple[int, Path]:
    """A new cgroup v2, until the end: an fd on it, and its path.  Raises Refused."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            path = Path(where) / f"{name}.{os.getpid()}"
            break
    else:
        raise Refused("cgroup2", errno.ENOENT)
    path.mkdir()
    kit.at_end.callback(path.rmdir)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY), path


def start_child(job: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Fork a child that runs ``job``; call the result to wait for what that returned, and a pid."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(writer, json.dumps({"pid": os.getpid(), **job()}).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)

    def result() -> dict[str, Any]:
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(pid, 0)
        if status:
            raise RuntimeError(f"the child ended with status {status}")
        return dict(json.loads(said))

    return result


def many(values: Sequence[bytes]) -> tuple[Any, list[Any]]:
    """An array of pointers to NUL-terminated strings, and what must be kept alive for it."""
    keep = [ctypes.create_string_buffer(value) for value in values]
    return u64s(*(ctypes.addressof(item) for item in keep)), keep
