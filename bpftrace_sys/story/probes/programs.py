"""Programs that loaders load to see whether they can."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from typing import Final

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.probes.verdicts import (
    ANY_FD,
    ENOTSUPP,
    Found,
    fails_with,
    knows_command,
    knows_helper,
    log_says,
    name_of,
    string_of,
)
from decoders.call import Call, inner_value, number_of
from decoders.uapi import helpers, names
from decoders.values import Insns, Struct, Value

SMALL: Final = 4100 * 8
"""Bytes of the longest program that is looked at (bpftool's test of the limit of 4096)."""


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

HELPER_TESTS: Final[dict[tuple[int, bytes], Found]] = {
    (1, EXIT_): Found("", "libbpf, bpftool, bpftrace", knows_helper),
    (1, TRIVIAL_LL): Found("", "bpftrace", knows_helper),
    # EACCES: the verifier knows the helper, and does not like what the registers hold.
    (0, TRIVIAL_LL): Found("", "cilium/ebpf", fails_with(errno.EACCES)),
}
"""A helper is called with whatever the registers hold: by log_level and what follows the call."""

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


class Load:
    """What tells a PROG_LOAD's shape."""

    __slots__ = ("_fields", "insns", "kind", "name")

    def __init__(self, fields: Mapping[str, Value], insns: bytes) -> None:
        self._fields = fields
        self.insns = insns
        self.kind = self.number("prog_type")
        self.name = string_of(fields.get("prog_name"))

    @property
    def attach(self) -> str:
        """The expected attach type."""
        return name_of(self._fields.get("expected_attach_type"))

    def number(self, name: str) -> int:
        """A field of the attr, 0 where it is not there."""
        return number_of(self._fields.get(name)) or 0


def _type_name(number: int) -> str:
    return names.bpf_prog_type.get(number, str(number)).removeprefix("BPF_PROG_TYPE_").lower()


def _load(call: Call) -> Load | None:
    attr = inner_value(call.attr("attr"))
    fields = dict(attr.fields) if isinstance(attr, Struct) else {}
    insns = inner_value(fields.get("insns"))
    if isinstance(insns, Insns):
        if insns.total * 8 > SMALL or len(insns.data) != insns.total * 8:
            return None
        return Load(fields, insns.data)
    return None if number_of(fields.get("insn_cnt")) else Load(fields, b"")


def prog_load(call: Call, model: Model) -> Found | None:
    """A PROG_LOAD, by its instructions, name or type."""
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
    if data == TRIVIAL and load.number("prog_btf_fd"):
        # The program that an extension is to replace, and the extension.
        btf = model.by_fd(call, "attr", "prog_btf_fd")
        probe = None if btf is None or btf.call is None else btf.call.notes.probe
        if probe is not None and probe.name == "program type ext":
            return Found(probe.name, "cilium/ebpf")
    if data[0] == 0x18 and data[1] >> 4 == 2:
        data = data[:4] + bytes(4) + data[8:]  # which fd the map is does not matter
    asks = HELPER_TESTS.get((load.number("log_level"), data[8:]))
    if asks is not None and data[:4] == b"\x85\0\0\0":
        helper = struct.unpack_from("<i", data, 4)[0]
        name = helpers.bpf_func_id.get(helper, "")
        kind = _type_name(load.kind)
        asked = f"helper {name or f'#{helper}'} in {kind}"
        return Found(asked, asks.by, asks.verdict, within=kind)
    if data == TRIVIAL_LL and load.number("log_level") == 1:
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
    if load.number("attach_btf_id") == 1 and kind in ("tracing", "lsm", "ext"):
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
    if kind == "tracing" and load.number("attach_btf_id"):
        return Found(f"program type {kind}", "libbpf-tools", weak=True)
    name = "loading a program" if kind == "socket_filter" else f"program type {kind}"
    if data == TRIVIAL_LL:
        return Found(name, "cilium/ebpf", weak=True, alone=True)
    return Found(name, "libbpf, bpftool, bpftrace, cilium/ebpf", weak=True)


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
