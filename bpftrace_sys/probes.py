"""Feature probes: the calls by which loaders find out what a kernel can do.

libbpf, BCC, bpftrace, cilium/ebpf and bpftool load tiny programs, maps and BTF
and close them again, or make calls that cannot succeed and look at the errno.
They are recognised by their shape: a table row each.  docs/probes.md says who
sends what.

Some shapes (``r0 = 0; exit``, an array of one entry) could as well be somebody's
own first program.  Those are weak: they count as probes only in company, after
the same process has sent an unmistakable one, or when the next fd shows that
they were closed unused; and no longer once something is done with them.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bpftrace_sys.model import Model, Object
from decoders.call import Call, plain
from decoders.raw import ENTRY
from decoders.uapi import const, helpers, names
from decoders.values import Absent, Bytes, Fd, Insns, Text, Value

ANY_FD: Final = 0xFFFFFFFF
"""-1: an fd that nobody has, or an ifindex that no device has."""
SMALL: Final = 4100 * 8
"""Bytes of the longest program that is looked at (bpftool's test of the limit of 4096)."""
SMALL_BTF: Final = 256
ENOTSUPP: Final = 524
"""The kernel's own, which errno(3) does not know."""

Verdict = Callable[[Call], "bool | None"]


# ---------------------------------------------------------------- verdicts


def succeeded(call: Call) -> bool | None:
    """Supported if the call succeeds; a refusal for want of privilege says nothing."""
    ret = call.raw.ret
    if ret is None or ret == -errno.EPERM:
        return None
    return not call.raw.failed


def fails_with(*numbers: int) -> Verdict:
    """Supported if the call fails with one of these, or not at all."""

    def verdict(call: Call) -> bool | None:
        ret = call.raw.ret
        if ret is None or ret == -errno.EPERM:
            return None
        return not call.raw.failed or -ret in numbers

    return verdict


def log_of(call: Call) -> str:
    """The verifier's log of a PROG_LOAD."""
    found = plain(call.attr("attr", "log_buf"))
    return found.data.decode("utf-8", "replace") if isinstance(found, Text) else ""


_UNKNOWN_HELPER: Final = (
    "invalid func ",
    "unknown func ",
    "program of this type cannot use helper ",
)


def knows_helper(call: Call) -> bool | None:
    """Supported unless the verifier says that it does not know the helper."""
    if succeeded(call):
        return True
    log = log_of(call)
    if call.raw.ret == -errno.EPERM or not log:
        return None
    return not any(phrase in log for phrase in _UNKNOWN_HELPER)


def log_says(*phrases: str) -> Verdict:
    """Supported if the load fails and the log holds one of these."""

    def verdict(call: Call) -> bool | None:
        if call.raw.ret == -errno.EPERM:
            return None
        log = log_of(call)
        return any(phrase in log for phrase in phrases)

    return verdict


def knows_command(call: Call) -> bool | None:
    """Supported unless there is no such system call."""
    return None if call.raw.ret is None else call.raw.ret != -errno.ENOSYS


# ---------------------------------------------------------------- what a call is


class Found(NamedTuple):
    """A call that has the shape of a probe."""

    name: str
    by: str
    """Who sends it, as far as its shape tells."""
    verdict: Verdict = succeeded
    weak: bool = False


def _insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, src << 4 | dst, off, imm)


EXIT_: Final = _insn(0x95)
ZERO: Final = _insn(0xB7)  # r0 = 0
TRIVIAL: Final = ZERO + EXIT_
TRIVIAL_2: Final = _insn(0xB7, imm=2) + EXIT_
TRIVIAL_LL: Final = _insn(0x18) + bytes(8) + EXIT_  # r0 = 0 ll; exit


def _call(helper: int) -> bytes:
    return _insn(0x85, imm=helper)


_READ_KERNEL: Final = (
    _insn(0xBF, 1, 10) + _insn(0x07, 1, imm=-8) + _insn(0xB7, 2, imm=8) + _insn(0xB7, 3)
    + _call(113) + EXIT_
)  # fmt: skip
_NS_PID: Final = (
    _insn(0xBF, 3, 10) + _insn(0x07, 3, imm=-8) + _insn(0xB7, 1) + _insn(0xB7, 2)
    + _insn(0xB7, 4, imm=8) + _call(120) + EXIT_
)  # fmt: skip
_D_PATH: Final = (
    _insn(0x79, 1, 1) + _insn(0xBF, 2, 10) + _insn(0x07, 2, imm=-8) + _insn(0xB7, 6)
    + _insn(0x7B, 2, 6) + _insn(0x18, 3, imm=8) + bytes(8) + _call(147) + TRIVIAL
)  # fmt: skip

PROGRAMS: Final[dict[bytes, Found]] = {
    _call(160) + EXIT_: Found("memory accounting by cgroup", "libbpf"),
    _call(174) + EXIT_: Found("attach cookies", "libbpf"),
    _READ_KERNEL: Found("helper probe_read_kernel", "libbpf, cilium/ebpf"),
    _NS_PID: Found("helper get_ns_current_pid_tgid", "libbpf-tools"),
    _D_PATH: Found("helper d_path", "bpftrace"),
    _insn(0x18, 1, 2) + _insn(0, imm=16) + _insn(0x7A, 1, imm=42) + TRIVIAL: Found(
        "global data", "libbpf"
    ),
    _insn(0x18, 1, 2) + _insn(0, imm=1 << 30) + EXIT_: Found(
        "full range of ld_imm64 offsets", "libbpf", log_says("invalid access to map value")
    ),
    _insn(0x85, src=1, imm=1) + EXIT_ + TRIVIAL: Found("calls between functions", "cilium/ebpf"),
    _insn(0xB7, imm=10) + _insn(0x17, imm=1) + _insn(0x55, off=-2) + EXIT_: Found(
        "bounded loops", "bpftool, cilium/ebpf"
    ),
    ZERO + _insn(0x07, imm=1) + _insn(0xA5, off=-2, imm=4) + EXIT_: Found(
        "bounded loops", "bpftrace"
    ),
    ZERO + _insn(0xA5, off=1) + _insn(0xB7, imm=1) + EXIT_: Found(
        "instructions of ISA v2", "bpftool, cilium/ebpf"
    ),
    ZERO + _insn(0xA6, off=1) + _insn(0xB7, imm=1) + EXIT_: Found(
        "instructions of ISA v3", "bpftool, cilium/ebpf"
    ),
    ZERO + _insn(0x16, off=1, imm=1) + _insn(0x06, imm=1) + _insn(0xB7, imm=1) + EXIT_: Found(
        "instructions of ISA v4", "bpftool"
    ),
    ZERO + _insn(0x15, off=1, imm=1) + _insn(0x06, imm=1) + _insn(0xB7, imm=1) + EXIT_: Found(
        "instructions of ISA v4", "cilium/ebpf"
    ),
    _insn(0xB7, imm=1) * 4096 + EXIT_: Found(
        "programs of 4097 instructions", "bpftool, cilium/ebpf"
    ),
}
"""Unnamed programs that nobody would load for their own sake, by their instructions.

An fd in the first one (a map's) is zeroed.
"""

PROGRAM_NAMES: Final[dict[str, Found]] = {
    "libbpf_nametest": Found("program names", "libbpf"),
    "det_arg_ctx": Found("arg:ctx tags", "libbpf"),
    "global_reloc": Found(
        "full range of ld_imm64 offsets", "libbpf", log_says("invalid access to map value")
    ),
    "probe_upm_link": Found("uprobe_multi links", "cilium/ebpf"),
    "probe_kpm_link": Found("kprobe_multi links", "cilium/ebpf"),
    "probe_kps_link": Found("kprobe_session links", "cilium/ebpf"),
    "probe_bpf_perf_": Found("perf links", "cilium/ebpf"),
}
"""By the name, of a program of a few instructions."""

LINK_TESTS: Final = {
    "BPF_TRACE_KPROBE_MULTI": "kprobe_multi links",
    "BPF_TRACE_KPROBE_SESSION": "kprobe_session links",
    "BPF_TRACE_UPROBE_MULTI": "uprobe_multi links",
}
"""What a trivial kprobe program is for, by its expected attach type."""
BPFTRACE_NAMES: Final = frozenset({"ksys_read", "uprobe_multi"})

LIBBPF_MAPS: Final[dict[str, str]] = {
    "libbpf_global": "global data",
    "libbpf_mmap": "arrays that can be mapped",
    "libbpf_det_bind": "binding maps to programs",
}
CILIUM_MAPS: Final[dict[str, str]] = {
    "feature_test": "object names",
    ".test": "dots in object names",
}


@dataclass(slots=True)
class Load:
    """What tells a PROG_LOAD's shape."""

    call: Call
    kind: int
    insns: bytes
    name: str
    attach: str
    btf_id: int

    def number(self, name: str) -> int:
        """A field of the attr, 0 where it is not there."""
        return self.call.number("attr", name) or 0


def _name(value: Value | None) -> str:
    return getattr(plain(value), "name", None) or ""


def _string(value: Value | None) -> str:
    found = plain(value)
    return found.data.decode("utf-8", "replace") if isinstance(found, Text) else ""


def _type_name(number: int) -> str:
    return names.bpf_prog_type.get(number, str(number)).removeprefix("BPF_PROG_TYPE_").lower()


def _load(call: Call) -> Load | None:
    insns = plain(call.attr("attr", "insns"))
    data = b""
    if isinstance(insns, Insns):
        if insns.total * 8 > SMALL or len(insns.data) != insns.total * 8:
            return None
        data = insns.data
    elif call.number("attr", "insn_cnt"):
        return None
    return Load(
        call,
        call.number("attr", "prog_type") or 0,
        data,
        _string(call.attr("attr", "prog_name")),
        _name(call.attr("attr", "expected_attach_type")),
        call.number("attr", "attach_btf_id") or 0,
    )


def _prog_load(call: Call, model: Model) -> Found | None:
    load = _load(call)
    if load is None or load.number("func_info_cnt") > 2:
        return None
    if load.name:
        return _named(load)
    if not load.insns:
        if load.kind == 0 and not load.number("insn_cnt"):
            return Found("bpf()", "bpftool", knows_command)
        return None
    data = load.insns
    if data[0] == 0x18 and data[1] >> 4 == 2:
        data = data[:4] + bytes(4) + data[8:]  # which fd the map is does not matter
    level = load.number("log_level")
    if len(data) <= 32 and level == 1:
        # One helper is called with whatever the registers hold.
        if data[:4] == b"\x85\0\0\0" and data[8:] in (EXIT_, TRIVIAL_LL):
            helper = struct.unpack_from("<i", data, 4)[0]
            name = helpers.bpf_func_id.get(helper, "")
            label = f"helper {name or f'#{helper}'} in {_type_name(load.kind)}"
            return Found(label, "libbpf, bpftool, bpftrace, cilium/ebpf", knows_helper)
        if data == TRIVIAL_LL:
            return Found("the limit of instructions", "bpftrace")
    exact = PROGRAMS.get(data)
    if exact is not None:
        return exact
    return _trivial(load, data)


def _trivial(load: Load, data: bytes) -> Found | None:
    """``r0 = 0; exit`` without a name."""
    kind = _type_name(load.kind)
    if data == TRIVIAL_2 and load.number("prog_ifindex"):
        return Found(f"program type {kind} on a device", "bpftool")
    if data not in (TRIVIAL, TRIVIAL_LL):
        return None
    if load.number("prog_btf_fd") == ANY_FD:
        return Found("func_info", "cilium/ebpf", fails_with(errno.EBADF))
    if load.btf_id == 1 and kind in ("tracing", "lsm", "ext"):
        # Type 1 of the kernel's BTF is no function, and the kernel says so.
        says = log_says("is not a function", "Cannot replace kernel functions")
        return Found(f"program type {kind}", "libbpf", says)
    if kind == "struct_ops":
        verdict = fails_with(ENOTSUPP)
        return Found(f"program type {kind}", "libbpf, cilium/ebpf", verdict)
    if kind == "kprobe" and load.attach in LINK_TESTS:
        return Found(LINK_TESTS[load.attach], "libbpf", weak=True)
    if kind == "cgroup_sock" and load.attach == "BPF_CGROUP_INET_SOCK_CREATE":
        return Found("expected attach types", "libbpf", weak=True)
    if kind == "tracing" and load.btf_id:
        return Found(f"program type {kind}", "libbpf-tools", weak=True)
    if kind == "socket_filter":
        return Found("loading a program", "libbpf, bpftool, bpftrace, cilium/ebpf", weak=True)
    return Found(f"program type {kind}", "libbpf, bpftool, bpftrace, cilium/ebpf", weak=True)


def _named(load: Load) -> Found | None:
    if len(load.insns) > 10 * 8:
        return None
    known = PROGRAM_NAMES.get(load.name)
    if known is not None and len(load.insns) <= 4 * 8:
        return known
    if load.insns == _D_PATH:
        return PROGRAMS[_D_PATH]
    if load.insns != TRIVIAL:
        return None
    kind = _type_name(load.kind)
    if kind == "kprobe" and load.name in BPFTRACE_NAMES and load.attach in LINK_TESTS:
        return Found(LINK_TESTS[load.attach], "bpftrace")
    if kind == "tracing":
        if load.name == "test" and load.attach == "BPF_TRACE_FENTRY":
            return Found("fentry programs", "libbpf-tools")
        if load.attach == "BPF_TRACE_ITER" and load.name.startswith("bpf_iter_"):
            return Found(f"iterator {load.name.removeprefix('bpf_iter_')}", "bpftrace", weak=True)
        if load.attach == "BPF_TRACE_FENTRY" and load.name == "sched_fork":
            return Found("fentry programs", "bpftrace")
    return None


# ---------------------------------------------------------------- maps

_PROBE_SIZES: Final[dict[str, tuple[int, int, int]]] = {
    "STACK_TRACE": (4, 8, 1),
    "LPM_TRIE": (8, 8, 1),
    "CGROUP_STORAGE": (16, 8, 0),
    "PERCPU_CGROUP_STORAGE": (16, 8, 0),
    "QUEUE": (0, 4, 1),
    "STACK": (0, 4, 1),
    "RINGBUF": (0, 0, 4096),
    "USER_RINGBUF": (0, 0, 4096),
    "BLOOM_FILTER": (0, 4, 1),
    "ARENA": (0, 0, 1),
    "SK_STORAGE": (4, 8, 0),
    "INODE_STORAGE": (4, 8, 0),
    "TASK_STORAGE": (4, 8, 0),
    "CGRP_STORAGE": (4, 8, 0),
}
"""Key size, value size and entries of a test of a map type; (4, 4, 1) for all others."""
_CILIUM_FLAGS: Final = {
    const.BPF_F_RDONLY_PROG: "maps that programs can only read",
    const.BPF_F_MMAPABLE: "arrays that can be mapped",
    const.BPF_F_INNER_MAP: "arrays as inner maps of any size",
}


def _map_create(call: Call, model: Model) -> Found | None:
    name = _string(call.attr("attr", "map_name"))
    kind = _name(call.attr("attr", "map_type")).removeprefix("BPF_MAP_TYPE_")
    sizes = (
        call.number("attr", "key_size") or 0,
        call.number("attr", "value_size") or 0,
        call.number("attr", "max_entries") or 0,
    )
    if name:
        if kind != "ARRAY" or sizes[2] != 1:
            return None
        if name in LIBBPF_MAPS:
            return Found(LIBBPF_MAPS[name], "libbpf")
        if name in CILIUM_MAPS and sizes == (4, 4, 1):
            return Found(CILIUM_MAPS[name], "cilium/ebpf")
        if name == "arr" and sizes == (4, 1, 1):
            return Found("full range of ld_imm64 offsets", "libbpf", weak=True)
        return None
    label = f"map type {kind.lower()}"
    if kind in ("ARRAY_OF_MAPS", "HASH_OF_MAPS"):
        if call.number("attr", "inner_map_fd") == ANY_FD:
            return Found(label, "cilium/ebpf", fails_with(errno.EBADF))
        return Found(label, "libbpf", weak=True) if sizes == (4, 4, 1) else None
    if kind == "STRUCT_OPS" and call.number("attr", "btf_vmlinux_value_type_id") == 1:
        return Found(label, "libbpf, cilium/ebpf", fails_with(ENOTSUPP))
    if kind.endswith("_STORAGE") and call.number("attr", "btf_fd") == ANY_FD:
        return Found(label, "cilium/ebpf", fails_with(errno.EBADF))
    if kind == "HASH" and sizes == (4, 4, 10):
        return Found("map operations in batches", "bpftrace", weak=True)
    if kind == "HASH" and sizes == (4, 4, 2):
        return Found("map operations in batches", "cilium/ebpf", weak=True)
    if sizes == _PROBE_SIZES.get(kind, (4, 4, 1)) or (
        kind.endswith("CGROUP_STORAGE") and sizes == (16, 4, 0)
    ):
        flags = call.number("attr", "map_flags") or 0
        if kind == "ARRAY" and flags in _CILIUM_FLAGS:
            return Found(_CILIUM_FLAGS[flags], "cilium/ebpf", weak=True)
        if kind == "HASH" and flags == const.BPF_F_NO_PREALLOC:
            return Found("maps without preallocation", "cilium/ebpf", weak=True)
        return Found(label, "libbpf, bpftool, bpftrace, cilium/ebpf", weak=True)
    return None


# ---------------------------------------------------------------- BTF


_ELEMENT: Final = {1: 4, 3: 12, 14: 4, 17: 4}
"""Bytes that follow a type of a kind; and below for each of its vlen elements."""
_ELEMENTS: Final = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def btf_signature(data: bytes) -> tuple[tuple[tuple[int, int], ...], frozenset[bytes]] | None:
    """The kinds with their vlen, and the strings, of a tiny BTF blob; None if it is not one."""
    if len(data) > SMALL_BTF or len(data) < 24 or data[:2] != b"\x9f\xeb":
        return None
    header, type_off, type_len, str_off, str_len = struct.unpack_from("<5I", data, 4)
    types = data[header + type_off : header + type_off + type_len]
    kinds = []
    at = 0
    while at + 12 <= len(types):
        info = struct.unpack_from("<I", types, at + 4)[0]
        kind, count = info >> 24 & 0x7F, info & 0xFFFFFF
        kinds.append((kind, count))
        at += 12 + _ELEMENT.get(kind, 0) + _ELEMENTS.get(kind, 0) * count
    strings = data[header + str_off : header + str_off + str_len].split(b"\0")
    return tuple(sorted(kinds)), frozenset(part for part in strings if part)


def _strings(*words: bytes) -> frozenset[bytes]:
    return frozenset(words)


_INT, _PTR = (1, 0), (2, 0)
_VAR, _FLOAT, _DECL_TAG, _TYPE_TAG = (14, 0), (16, 0), (17, 0), (18, 0)

BTF: Final[dict[tuple[tuple[tuple[int, int], ...], frozenset[bytes]], tuple[str, str]]] = {
    ((_INT,), _strings(b"int")): ("BTF", "libbpf"),
    ((_INT,), _strings()): ("BTF", "cilium/ebpf"),
    ((_INT, (12, 0), (13, 1)), _strings(b"int", b"x", b"a")): ("BTF functions", "libbpf"),
    ((_INT, (12, 1), (13, 1)), _strings(b"int", b"x", b"a")): ("BTF global functions", "libbpf"),
    ((_INT, _VAR, (15, 1)), _strings(b"x", b".data")): ("BTF data sections", "libbpf"),
    ((_INT, _VAR, (15, 1)), _strings(b"x", b"?.data")): ("BTF names like ?.data", "libbpf"),
    ((_FLOAT,), _strings(b"float")): ("BTF floats", "libbpf"),
    ((_INT, _VAR, _DECL_TAG), _strings(b"tag")): ("BTF declaration tags", "libbpf"),
    ((_INT, _PTR, _TYPE_TAG), _strings(b"tag")): ("BTF type tags", "libbpf"),
    (((19, 0),), _strings(b"enum64")): ("64-bit BTF enums", "libbpf"),
    (
        (_INT, _PTR, (12, 1), (12, 1), (13, 1), (13, 1), _DECL_TAG),
        _strings(b"a", b"b", b"arg:ctx"),
    ): ("arg:ctx tags", "libbpf"),
    (
        (_INT, (4, 1), (4, 2)),
        _strings(b"bpf_spin_lock", b"val", b"cnt", b"l"),
    ): ("maps of local storage", "libbpf"),
    ((_PTR, _VAR), _strings(b"a")): ("BTF variables", "cilium/ebpf"),
    (((12, 0), (13, 0)), _strings(b"a")): ("BTF functions", "cilium/ebpf"),
    (((12, 1), (13, 0)), _strings(b"a")): ("BTF global functions", "cilium/ebpf"),
    ((_INT, (8, 0), _DECL_TAG), _strings(b"a")): ("BTF declaration tags", "cilium/ebpf"),
    ((_INT, _TYPE_TAG), _strings(b"a")): ("BTF type tags", "cilium/ebpf"),
    (((19, 1),), _strings(b"TEST")): ("64-bit BTF enums", "cilium/ebpf"),
}
"""Blobs by what they hold."""


def _btf_load(call: Call, model: Model) -> Found | None:
    blob = plain(call.attr("attr", "btf"))
    if not isinstance(blob, Bytes) or len(blob.data) != blob.wanted:
        return None
    signature = btf_signature(blob.data)
    known = BTF.get(signature) if signature is not None else None
    return None if known is None else Found(*known)


# ---------------------------------------------------------------- calls on them


def _probe_of(found: Object | None) -> str | None:
    """The name of the probe that made an object, if one did."""
    if found is None or found.call is None:
        return None
    name = found.call.notes.get("probe") or found.call.notes.get("maybe_probe")
    return str(name) if name else None


def _link_create(call: Call, model: Model) -> Found | None:
    link = ("attr", "link_create")
    kind = _name(call.attr(*link, "attach_type"))
    prog_fd = call.number(*link, "prog_fd")
    target = call.number(*link, "target_fd")
    prog = model.by_fd(call, *link, "prog_fd")
    if prog_fd == ANY_FD and target == ANY_FD:
        return Found("bpf links", "cilium/ebpf", fails_with(errno.EBADF))
    of_probe = _probe_of(prog)
    if of_probe is None:
        return None
    if kind == "BPF_PERF_EVENT" and target in (ANY_FD, 0):
        return Found("perf links", "libbpf, cilium/ebpf", fails_with(errno.EBADF))
    path = _string(call.attr(*link, "uprobe_multi", "path"))
    if kind == "BPF_TRACE_UPROBE_MULTI" and path == "/":
        if call.number(*link, "uprobe_multi", "pid") == ANY_FD:
            return Found("uprobe_multi links of a process", "libbpf", fails_with(errno.EINVAL))
        return Found(
            "uprobe_multi links", "libbpf, bpftrace, cilium/ebpf", fails_with(errno.EBADF)
        )
    if kind in LINK_TESTS:
        return Found(LINK_TESTS[kind], "bpftrace, cilium/ebpf")
    if call.number(*link, "target_ifindex") == ANY_FD:
        name = "tcx links" if kind.startswith("BPF_TCX") else "netkit links"
        return Found(name, "cilium/ebpf", fails_with(errno.ENODEV))
    return None


def _raw_tracepoint_open(call: Call, model: Model) -> Found | None:
    prog = model.by_fd(call, "attr", "raw_tracepoint", "prog_fd")
    if _probe_of(prog) == "fentry programs":
        return Found("fentry programs", "libbpf-tools")
    return None


def _bind_map(call: Call, model: Model) -> Found | None:
    bound = model.by_fd(call, "attr", "prog_bind_map", "map_fd")
    name = LIBBPF_MAPS["libbpf_det_bind"]
    return Found(name, "libbpf") if _probe_of(bound) == name else None


def _lookup_batch(call: Call, model: Model) -> Found | None:
    used = model.by_fd(call, "attr", "batch", "map_fd")
    name = "map operations in batches"
    return Found(name, "bpftrace, cilium/ebpf") if _probe_of(used) == name else None


def _info(call: Call, model: Model) -> Found | None:
    asked = model.by_fd(call, "attr", "info", "bpf_fd")
    if asked is not None and asked.kind == "btf" and _probe_of(asked) == "BTF":
        return Found("BTF of modules", "libbpf")
    return None


def _prog_query(call: Call, model: Model) -> Found | None:
    query = ("attr", "query")
    if call.number(*query, "target_fd") != ANY_FD:
        return None
    if _name(call.attr(*query, "attach_type")) != "BPF_CGROUP_INET_INGRESS":
        return None
    return Found("BPF_PROG_QUERY", "cilium/ebpf", fails_with(errno.EBADF))


def _prog_attach(call: Call, model: Model) -> Found | None:
    if call.number("attr", "target_fd") != ANY_FD:
        return None
    prog = model.by_fd(call, "attr", "attach_bpf_fd")
    if _probe_of(prog) is None:
        return None
    return Found("replacing cgroup programs", "cilium/ebpf", fails_with(errno.EBADF))


def _common_attrs(call: Call, model: Model) -> Found | None:
    pointer = call.attr("common", "attr_common") or call.attr("attr_common")
    if not isinstance(pointer, Absent) or call.number("attr", "insn_cnt"):
        return None
    return Found("common attributes of bpf()", "libbpf", fails_with(errno.EFAULT))


def _test_run(call: Call, model: Model) -> Found | None:
    used = model.by_fd(call, "attr", "test", "prog_fd")
    probe = _probe_of(used)
    size = call.number("attr", "test", "data_size_in")
    if probe == "program type raw_tracepoint" and not size:
        return Found("test runs of raw tracepoints", "bpftrace")
    load = None if used is None else used.call
    if probe == "loading a program" and size == 14 and load is not None:
        if _string(load.attr("attr", "license")) != "MIT":
            return None
        return Found("BPF_PROG_TEST_RUN", "cilium/ebpf", fails_with(errno.EINTR, ENOTSUPP))
    return None


MATCHERS: Final[dict[str, Callable[[Call, Model], Found | None]]] = {
    "BPF_PROG_LOAD": _prog_load,
    "BPF_PROG_LOAD|BPF_COMMON_ATTRS": _common_attrs,
    "BPF_MAP_CREATE": _map_create,
    "BPF_BTF_LOAD": _btf_load,
    "BPF_LINK_CREATE": _link_create,
    "BPF_RAW_TRACEPOINT_OPEN": _raw_tracepoint_open,
    "BPF_PROG_BIND_MAP": _bind_map,
    "BPF_MAP_LOOKUP_BATCH": _lookup_batch,
    "BPF_MAP_UPDATE_BATCH": _lookup_batch,
    "BPF_OBJ_GET_INFO_BY_FD": _info,
    "BPF_PROG_TEST_RUN": _test_run,
    "BPF_PROG_QUERY": _prog_query,
    "BPF_PROG_ATTACH": _prog_attach,
}
"""By command."""


# ---------------------------------------------------------------- watching


@dataclass(slots=True)
class _Pending:
    """A weak probe whose fd may turn out to be in use."""

    call: Call
    found: Found
    fd: int
    made: Object | None


@dataclass(slots=True)
class _Process:
    company: bool = False
    pending: list[_Pending] = field(default_factory=list)


class Probes:
    """Recognises probes as calls go by.

    :meth:`watch` puts into ``call.notes``: ``probe`` (the feature's name), for a
    weak one without company ``maybe_probe`` instead, and ``probe_found`` (Found).
    A weak one's note is taken back when the object is used after all, and
    ``maybe_probe`` becomes ``probe`` when it shows that it was closed unused.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._processes: dict[int, _Process] = {}
        self.recent = False
        """Whether the last call was a probe, perhaps, so that it may be held back."""

    def watch(self, call: Call) -> None:
        """A call, after the model has seen it and before anybody prints it."""
        self.recent = False
        if call.syscall.name not in ("bpf", "openat", "perf_event_open", "ioctl"):
            return
        process = self._processes.get(call.raw.pid)
        matcher = MATCHERS.get(call.command)
        found = None if matcher is None else matcher(call, self.model)
        if process is None:
            if found is None:
                return
            process = self._processes[call.raw.pid] = _Process()
        if process.pending:
            process.pending = list(self._judged(process, call, found))
        if found is None:
            return
        self.recent = True
        call.notes["probe_found"] = found
        if not found.weak:
            process.company = True
            call.notes["probe"] = found.name
            return
        if call.raw.ret is None or (call.raw.failed and not process.company):
            del call.notes["probe_found"]
            return
        call.notes["probe" if process.company else "maybe_probe"] = found.name
        if isinstance(call.ret, Fd):
            process.pending.append(
                _Pending(call, found, call.ret.value, call.notes.get("made"))
            )

    def _judged(
        self, process: _Process, call: Call, found: Found | None
    ) -> Iterator[_Pending]:
        """Those of a process's weak probes that a call says nothing about."""
        made = call.ret.value if isinstance(call.ret, Fd) else None
        for pending in process.pending:
            if _uses(call, pending):
                if found is None:
                    _real(pending.call)
                else:
                    _probe(pending)
            elif made == pending.fd:
                _probe(pending)  # its number is free again: closed, and never used
            elif made is not None and (made == pending.fd + 1 or not process.company):
                _real(pending.call)  # still open
            else:
                yield pending

    def exited(self, pid: int) -> None:
        """A process has ended; what was not proven to be a probe is none."""
        process = self._processes.pop(pid, None)
        for pending in process.pending if process is not None else ():
            if "maybe_probe" in pending.call.notes:
                _real(pending.call)


def _uses(call: Call, pending: _Pending) -> bool:
    made = pending.made
    if made is None or made.id is None:
        return False
    return any(
        fact.stage == ENTRY and fact.kind == made.kind and fact.id == made.id
        for fact in call.raw.fds
    )


def _real(call: Call) -> None:
    for name in ("probe", "maybe_probe", "probe_found"):
        call.notes.pop(name, None)


def _probe(pending: _Pending) -> None:
    call = pending.call
    call.notes.pop("maybe_probe", None)
    call.notes["probe"] = pending.found.name


# ---------------------------------------------------------------- folding

LISTED: Final = 6
"""How many features are named in a line."""
FEW: Final = 3
"""Up to so many are named though all are supported."""


def result(call: Call) -> bool | None:
    """Whether a probe found its feature supported; None if it could not tell."""
    found = call.notes.get("probe_found")
    return found.verdict(call) if isinstance(found, Found) else None


def summary(calls: Iterable[Call]) -> str:
    """A run of probes in a line: ``9 feature probes, 2 unsupported: ...``."""
    results: dict[str, bool | None] = {}
    refused: dict[str, None] = {}
    makers: dict[tuple[str, int | None], str] = {}
    for call in calls:
        name = str(call.notes["probe"])
        # What a later probe builds on is a part of that one.
        for fact in call.raw.fds:
            part = makers.get((fact.kind, fact.id)) if fact.stage == ENTRY else None
            if part is not None and part != name:
                results.pop(part, None)
        known = results.pop(name, True)
        now = result(call)
        # A probe of several calls finds its feature if none of them fails to.
        results[name] = now if known else known
        if call.raw.ret == -errno.EPERM:
            refused[name] = None
        made = call.notes.get("made")
        if isinstance(made, Object) and made.id is not None:
            makers[(made.kind, made.id)] = name
    lacking = [name for name, known in results.items() if known is False]
    count = len(results)
    text = f"{count} feature probe{'s' if count != 1 else ''}"
    if refused:
        which = "" if count == 1 else "all " if len(refused) == count else f"{len(refused)} "
        text += f", {which}refused with EPERM"
    if lacking:
        text += f", {len(lacking)} unsupported: {_listed(lacking)}"
    elif all(results.values()):
        text += ", all supported" if count > 1 else ", supported"
        if count <= FEW:
            text += f": {_listed(list(results))}"
    return text


def _listed(words: list[str]) -> str:
    more = len(words) - LISTED
    shown = ", ".join(words[:LISTED])
    return f"{shown} and {more} more" if more > 0 else shown


def _told(run: list[Call]) -> list[tuple[int, str, list[str]] | Call]:
    """A run in a line; and why, where probes were refused for want of privilege."""
    if not run:
        return []
    reasons: dict[str, None] = {}
    for call in run:
        if call.raw.ret == -errno.EPERM:
            reasons.update(dict.fromkeys(call.notes.get("explanation", ())))
    return [(run[0].raw.tid, summary(run), list(reasons)[:LISTED])]


class Folds:
    """Probes that wait to be told in a line, by process, in order."""

    def __init__(self) -> None:
        self._held: dict[int, list[Call]] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def hold(self, call: Call) -> bool:
        """Takes a call that is, or may be, a probe; False if it is none."""
        if "probe" not in call.notes and "maybe_probe" not in call.notes:
            return False
        self._held.setdefault(call.raw.pid, []).append(call)
        return True

    def take(self) -> list[tuple[int, str, list[str]] | Call]:
        """What was held: (tid, line, reasons) for a run of probes, and calls that were none."""
        told: list[tuple[int, str, list[str]] | Call] = []
        for calls in self._held.values():
            run: list[Call] = []
            for call in calls:
                if "probe" in call.notes:
                    run.append(call)
                    continue
                told += _told(run)
                run = []
                told.append(call)
            told += _told(run)
        self._held.clear()
        return told


def remark(call: Call) -> str | None:
    """A probe told on its own: ``feature probe of libbpf: BTF floats: supported``."""
    found = call.notes.get("probe_found")
    if "probe" not in call.notes or not isinstance(found, Found):
        return None
    said = {True: "supported", False: "unsupported", None: "no telling"}[result(call)]
    return f"feature probe of {found.by}: {found.name}: {said}"
