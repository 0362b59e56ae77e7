"""perf_event_attr, in all its sizes, and what its fields mean by PMU.

From include/uapi/linux/perf_event.h and kernel/events/core.c.  A struct ends
where its ``size`` says; fields after that are absent.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, Final

from decoders.constructs import cs
from decoders.declare.fields import (
    U16,
    U32,
    U64,
    X64,
    Bits,
    FactField,
    Field,
    FlagSet,
    Meaning,
    Named,
    NotedField,
    Num,
    Padding,
    Written,
    this,
)
from decoders.declare.structs import CStr, In, One, Pick, kernel
from decoders.raw import AUDIT_ARCH_AARCH64, AUDIT_ARCH_I386, AUDIT_ARCH_X86_64
from decoders.uapi import const, perf, system
from decoders.values import Int, Name, Value
from decoders.walk.measures import attr_size, is_freq, is_watermark, pmu, second
from decoders.walk.scope import Scope


class PmuType(Field):
    """``type``: a fixed PMU by name, or a dynamic one's number with its name."""

    def value(self, raw: Any, scope: Scope) -> Value:
        name = perf.perf_type_id.get(raw)
        if name is not None:
            return Name(raw, name, "perf_type_id")
        return Int(raw, 10, scope.env.fact("pmu", raw))


class Size(Field):
    """``size``, by the name of its version."""

    def value(self, raw: Any, scope: Scope) -> Value:
        name = perf.perf_attr_size.get(raw)
        return Int(raw) if name is None else Name(raw, name, "PERF_ATTR_SIZE")


def cache(value: int, scope: Scope) -> str | None:
    """The (cache, operation, result) triple of PERF_TYPE_HW_CACHE, as C would write it."""
    parts = [
        perf.perf_hw_cache_id.get(value & 0xFF),
        perf.perf_hw_cache_op_id.get(value >> 8 & 0xFF),
        perf.perf_hw_cache_op_result_id.get(value >> 16 & 0xFF),
    ]
    if None in parts or value >> 24 & 0xFF:
        return None
    triple = f"{parts[2]}<<16|{parts[1]}<<8|{parts[0]}"
    extended = value >> PMU_TYPE_SHIFT
    return f"{_of_pmu(extended, scope)}|{triple}" if extended else triple


def probe_config(value: int, _: Scope) -> str | None:
    """config of the kprobe and uprobe PMUs: bit 0 is retprobe, 32..63 ref_ctr_offset."""
    parts = []
    if value & 1:
        parts.append("retprobe")
    if value >> 32:
        parts.append(f"ref_ctr_offset={value >> 32:#x}")
    return ", ".join(parts) or None


PMU_TYPE_SHIFT: Final = 32  # PERF_PMU_TYPE_SHIFT


class HardwareConfig(Named):
    """A generic hardware event; the upper half may say which PMU of several is to count it."""

    def value(self, raw: Any, scope: Scope) -> Value:
        found = super().value(raw & 0xFFFFFFFF, scope)
        extended = raw >> PMU_TYPE_SHIFT
        if not extended or not isinstance(found, Name):
            return found
        return Int(raw, 16, f"{_of_pmu(extended, scope)}|{found.name or hex(found.value)}")


def _of_pmu(number: int, scope: Scope) -> str:
    name = scope.env.fact("pmu", number)
    return f"{number}<<32" if name is None else f"{name}<<32"


CONFIG: Final[Mapping[str, Any]] = {
    "hardware": cs.Struct("config" / HardwareConfig(cs.Int64ul, perf.perf_hw_id, "perf_hw_id")),
    "software": cs.Struct("config" / Named(cs.Int64ul, perf.perf_sw_ids, "perf_sw_ids")),
    "tracepoint": cs.Struct("config" / FactField(cs.Int64ul, "tracepoint")),
    "hw_cache": cs.Struct("config" / NotedField(cs.Int64ul, cache, 16)),
    "raw": cs.Struct("config" / X64),
    "breakpoint": cs.Struct("config" / X64),
    "kprobe": cs.Struct("config" / NotedField(cs.Int64ul, probe_config, 16)),
    "uprobe": cs.Struct("config" / NotedField(cs.Int64ul, probe_config, 16)),
}

CONFIG1: Final[Mapping[str, Any]] = {
    "breakpoint": cs.Struct("bp_addr" / X64),
    "kprobe": cs.Struct("kprobe_func" / In(CStr(256))),
    "uprobe": cs.Struct("uprobe_path" / In(CStr(4096))),
}


CONFIG2: Final[Mapping[str, Any]] = {
    "breakpoint": cs.Struct("bp_len" / Named(cs.Int64ul, perf.hw_breakpoint_len, "")),
    "kprobe": cs.Struct("probe_offset" / Num(cs.Int64ul, 16)),
    "kprobe_addr": cs.Struct("kprobe_addr" / FactField(cs.Int64ul, "ksym", 16)),
    "uprobe": cs.Struct("probe_offset" / Num(cs.Int64ul, 16)),
}

FLAGS: Final = Bits(
    cs.Int64ul,
    ("disabled", 0, 1, None),
    ("inherit", 1, 1, None),
    ("pinned", 2, 1, None),
    ("exclusive", 3, 1, None),
    ("exclude_user", 4, 1, None),
    ("exclude_kernel", 5, 1, None),
    ("exclude_hv", 6, 1, None),
    ("exclude_idle", 7, 1, None),
    ("mmap", 8, 1, None),
    ("comm", 9, 1, None),
    ("freq", 10, 1, None),
    ("inherit_stat", 11, 1, None),
    ("enable_on_exec", 12, 1, None),
    ("task", 13, 1, None),
    ("watermark", 14, 1, None),
    ("precise_ip", 15, 2, None),
    ("mmap_data", 17, 1, None),
    ("sample_id_all", 18, 1, None),
    ("exclude_host", 19, 1, None),
    ("exclude_guest", 20, 1, None),
    ("exclude_callchain_kernel", 21, 1, None),
    ("exclude_callchain_user", 22, 1, None),
    ("mmap2", 23, 1, None),
    ("comm_exec", 24, 1, None),
    ("use_clockid", 25, 1, None),
    ("context_switch", 26, 1, None),
    ("write_backward", 27, 1, None),
    ("namespaces", 28, 1, None),
    ("ksymbol", 29, 1, None),
    ("bpf_event", 30, 1, None),
    ("aux_output", 31, 1, None),
    ("cgroup", 32, 1, None),
    ("text_poke", 33, 1, None),
    ("build_id", 34, 1, None),
    ("inherit_thread", 35, 1, None),
    ("remove_on_exec", 36, 1, None),
    ("sigtrap", 37, 1, None),
    ("defer_callchain", 38, 1, None),
    ("defer_output", 39, 1, None),
    ("__reserved_1", 40, 24, None),
)


def _registers(table: Mapping[int, str]) -> FlagSet:
    """A mask of registers.  An XMM register of x86 is two bits, for its two halves."""
    wide = {3 << bit: name for bit, name in table.items() if "_XMM" in name}
    single = {1 << bit: name for bit, name in table.items() if "_XMM" not in name}
    return FlagSet(cs.Int64ul, {**wide, **single}, "PERF_REG")


_X86: Final = _registers(perf.perf_regs_x86)
REGISTERS: Final = Meaning(
    cs.Int64ul,
    lambda scope: scope.env.arch,
    {
        AUDIT_ARCH_X86_64: _X86,
        AUDIT_ARCH_I386: _X86,
        AUDIT_ARCH_AARCH64: _registers(perf.perf_regs_arm64),
    },
    base=16,
)
BP_TYPE: Final = Named(cs.Int32ul, perf.hw_breakpoint_type)

PERF_ATTR = cs.Struct(
    "type" / PmuType(cs.Int32ul),
    "size" / Written(Size(cs.Int32ul)),
    "config" / Pick(pmu, CONFIG, default=cs.Struct("config" / X64)),
    "sample"
    / Pick(
        is_freq,
        {True: cs.Struct("sample_freq" / U64), False: cs.Struct("sample_period" / U64)},
    ),
    "sample_type" / FlagSet(cs.Int64ul, perf.perf_event_sample_format, "PERF_SAMPLE"),
    "read_format" / FlagSet(cs.Int64ul, perf.perf_event_read_format, "PERF_FORMAT"),
    "flags" / FLAGS,
    "wakeup"
    / Pick(
        is_watermark,
        {True: cs.Struct("wakeup_watermark" / U32), False: cs.Struct("wakeup_events" / U32)},
    ),
    "bp_type"
    / Meaning(cs.Int32ul, this.type, {const.PERF_TYPE_BREAKPOINT: BP_TYPE}, base=16),
    "config1" / Pick(pmu, CONFIG1, default=cs.Struct("config1" / X64)),
    "config2" / Pick(second, CONFIG2, default=cs.Struct("config2" / X64)),
    "branch_sample_type"
    / FlagSet(cs.Int64ul, perf.perf_branch_sample_type, "PERF_SAMPLE_BRANCH"),
    "sample_regs_user" / REGISTERS,
    "sample_stack_user" / U32,
    "clockid" / Named(cs.Int32sl, system.clockid, "CLOCK"),
    "sample_regs_intr" / REGISTERS,
    "aux_watermark" / U32,
    "sample_max_stack" / U16,
    "__reserved_2" / Padding(2),
    "aux_sample_size" / U32,
    "aux_action"
    / Bits(
        cs.Int32ul,
        ("aux_start_paused", 0, 1, None),
        ("aux_pause", 1, 1, None),
        ("aux_resume", 2, 1, None),
        ("__reserved_3", 3, 29, None),
    ),
    "sig_data" / X64,
    "config3" / X64,
    "config4" / X64,
)


kernel("perf_event_attr", PERF_ATTR)

# perf_copy_attr() writes the size that it would take into one of a wrong size.
PERF_ATTR_POINTER = One(PERF_ATTR, peek=attr_size, rewritten=frozenset({errno.E2BIG}))
