"""Wordings: what a perf event counts, what a file tells, a call in short."""

from __future__ import annotations

import re
from typing import Final

from bpftrace_sys.common.escape import printable as printable
from bpftrace_sys.trace.facts import Facts
from decoders.call import Call, inner_value
from decoders.uapi import perf
from decoders.values import Int, Name, Text, Value

HOOKS: Final = {
    "cgroup_inet_ingress": "cgroup_skb ingress",
    "cgroup_inet_egress": "cgroup_skb egress",
}
"""Attach types that are better known by another name."""

_PMU_TYPE = r"/sys/bus/event_source/devices/([^/]+)/type$"
_PMU_FORMAT = r"/sys/bus/event_source/devices/([^/]+)/format/"
_TRACEPOINT_ID = r"/sys/kernel/(?:debug/)?tracing/events/([^/]+)/([^/]+)/id$"


def _text(value: Value | None) -> str:
    value = inner_value(value)
    if isinstance(value, Text):
        return printable(value.data.decode("utf-8", "backslashreplace"))
    return ""


def hook_name(kind: str) -> str:
    """An attach type, without BPF_ and in small letters, as people know it."""
    return HOOKS.get(kind, kind)


def opened(path: str) -> str | None:
    """What a file that a loader reads stands for: ``pmu kprobe``, ``tracepoint a:b``."""
    found = re.search(_PMU_TYPE, path)
    if found:
        return f"pmu {found[1]}"
    found = re.search(_TRACEPOINT_ID, path)
    return f"tracepoint {found[1]}:{found[2]}" if found else None


def open_note(path: str, facts: Facts) -> str | None:
    """A comment for an openat: ``PMU kprobe = 6``."""
    found = re.search(_PMU_TYPE, path)
    if found:
        for key, name in facts.pmus.items():
            if name == found[1]:
                return f"PMU {name} = {key}"
    found = re.search(_PMU_FORMAT, path)
    if found:
        return f"attr format of PMU {printable(found[1])}"
    found = re.search(_TRACEPOINT_ID, path)
    return f"tracepoint {printable(found[1])}:{printable(found[2])}" if found else None


_PROBE = r"^([pr])\d*(?::(?:([^\s/.]+)[/.])?([^\s/]+))?\s+(\S+)"
_PROBE_GONE = r"^-:(?:([^\s/.]+)[/.])?([^\s/]+)$"
_FILE_PLACE = r"^(/.*):(0x[0-9a-fA-F]{1,16})$"
_PROBE_FILES = {"kprobe_events": "kprobe", "uprobe_events": "uprobe"}


def defined_probes(path: str, text: str, facts: Facts) -> dict[str, str]:
    """The probes that a write to tracefs defines: ``uprobes:name`` -> ``uprobe /bin/x:main``.

    An empty target is that of a probe that is taken away.
    Documentation/trace/kprobetrace.rst and uprobetracer.rst: ``p[:[GRP/]EVENT] TARGET``,
    ``-:[GRP/]EVENT``.
    """
    kind = _PROBE_FILES.get(path.rpartition("/")[2])
    found: dict[str, str] = {}
    for line in text.splitlines() if kind else ():
        match = re.match(_PROBE, line.strip())
        if match and match[3]:
            what = f"{kind[0]}ret{kind[1:]}" if match[1] == "r" and kind else kind
            group = match[2] or f"{kind}s"
            found[f"{group}:{match[3]}"] = f"{what} {_place(match[4], facts)}"
        gone = re.match(_PROBE_GONE, line.strip())
        if gone:
            found[f"{gone[1] or f'{kind}s'}:{gone[2]}"] = ""
    return found


def _place(target: str, facts: Facts) -> str:
    """A probe's target, with an offset in a file as the function that stands there."""
    found = re.match(_FILE_PLACE, target)
    if found is None:
        return printable(target)
    return printable(f"{found[1]}:{in_file(found[1], int(found[2], 16), facts)}")


def event_name(call: Call, facts: Facts) -> str:
    """What a perf_event_open counts or probes: ``kprobe do_sys_openat2``."""
    kind = call.attr("attr", "type")
    config = call.attr("attr", "config")
    name = ""
    if isinstance(kind, Name) and kind.name is not None:
        name = kind.name.removeprefix("PERF_TYPE_").lower()
    elif isinstance(kind, Int):
        name = kind.note or f"pmu {kind.value}"
    retprobe = isinstance(config, Int) and bool(config.value & 1)
    offset = call.number("attr", "probe_offset") or 0
    if name == "kprobe":
        what = "kretprobe" if retprobe else "kprobe"
        func = _text(call.attr("attr", "kprobe_func"))
        if func:
            return f"{what} {func}" + (f"+{offset:#x}" if offset else "")
        addr = call.attr("attr", "kprobe_addr")
        if isinstance(addr, Int):
            return f"{what} {addr.note or hex(addr.value)}"
        return what
    if name == "uprobe":
        what = "uretprobe" if retprobe else "uprobe"
        return f"{what} {uprobe_place(call, facts, offset)}"
    if name == "tracepoint" and isinstance(config, Int):
        return f"tracepoint {config.note or f'id {config.value}'}"
    if name in ("software", "hardware") and isinstance(config, Name):
        shown = config.name or f"{name} event {config.value}"
        return _spoken(shown) + _rate(call)
    if name == "hw_cache" and isinstance(config, Int):
        return f"hw_cache {config.note or hex(config.value)}{_rate(call)}"
    if name == "breakpoint":
        return _breakpoint(call)
    value = getattr(config, "value", 0)
    return f"{name or 'event'} config={value:#x}{_rate(call)}"


CLOCKS: Final = frozenset({"PERF_COUNT_SW_CPU_CLOCK", "PERF_COUNT_SW_TASK_CLOCK"})
"""Events that count nanoseconds."""


def _rate(call: Call) -> str:
    """How often an event that counts runs a program: `` 99 Hz``, `` every 2 s``."""
    if call.number("attr", "freq"):
        return f" {call.number('attr', 'sample_freq') or 0} Hz"
    period = call.number("attr", "sample_period") or 0
    if period < 2:
        return ""
    config = call.attr("attr", "config")
    if not isinstance(config, Name) or config.name not in CLOCKS:
        return f" period {period}"
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if period % size == 0:
            return f" every {period // size} {unit}"
    return f" every {period} ns"


def _breakpoint(call: Call) -> str:
    """``breakpoint rw 8 bytes at 0x10000000``; HW_BREAKPOINT_R, _W and _X are bits."""
    kind, size = call.number("attr", "bp_type") or 0, call.number("attr", "bp_len") or 0
    how = "".join(letter for bit, letter in enumerate("rwx") if kind >> bit & 1)
    bytes_ = f" {size} byte{'s' if size != 1 else ''}" if how != "x" and size else ""
    return f"breakpoint {how or kind}{bytes_} at {call.number('attr', 'bp_addr') or 0:#x}"


ANYWHERE: Final = frozenset({"tracepoint", "kprobe"})
"""Kinds of events whose programs run wherever the event comes, whatever it is bound to
(trace_call_bpf() is called of the tracepoint, not of the event)."""


def bound_to(call: Call) -> tuple[int | None, int | None]:
    """The CPU and the thread for which a perf event runs its program."""
    kind = call.attr("attr", "type")
    name = (kind.name or "").removeprefix("PERF_TYPE_").lower() if isinstance(kind, Name) else ""
    if isinstance(kind, Int):
        name = kind.note or ""
    if name in ANYWHERE:
        return None, None
    cpu, task = call.number("cpu"), call.number("pid")
    if task == 0:
        task = call.raw.tid
    if name == "uprobe" or cpu is None or cpu < 0:
        cpu = None  # of a uprobe: uprobe_perf_filter() looks at the process only
    return cpu, task if task is not None and task > 0 else None


def counted(kind: int, config: int) -> str:
    """What a perf event of a type counts, where there is no attr: ``software cpu-clock``."""
    name = perf.perf_type_id.get(kind, f"pmu {kind}").removeprefix("PERF_TYPE_").lower()
    table = {"software": perf.perf_sw_ids, "hardware": perf.perf_hw_id}.get(name)
    if table is not None:
        return _spoken(table.get(config, f"{name} event {config}"))
    return f"{name} config={config:#x}"


def event_way(call: Call) -> str:
    """By what way a perf_event_open leads to its target: ``the kprobe PMU``, ``perf event``."""
    kind = call.attr("attr", "type")
    name = kind.note if isinstance(kind, Int) else None
    return f"the {name} PMU" if name in ("kprobe", "uprobe") else "perf event"


def _spoken(name: str) -> str:
    for prefix in ("PERF_COUNT_SW_", "PERF_COUNT_HW_"):
        if name.startswith(prefix):
            kind = "software" if prefix == "PERF_COUNT_SW_" else "hardware"
            return f"{kind} {name.removeprefix(prefix).lower().replace('_', '-')}"
    return name


def uprobe_place(call: Call, facts: Facts, offset: int) -> str:
    """``/bin/bash:readline`` where the symbol is known, else ``/bin/bash:0x1234``."""
    path = _text(call.attr("attr", "uprobe_path")) or "?"
    return f"{path}:{in_file(path, offset, facts)}"


def in_file(path: str, offset: int, facts: Facts) -> str:
    """What stands at an offset of a file, for a uprobe: ``readline``, or the offset.

    Where no segment of code is there, the kernel attaches all the same.
    """
    symbol = symbol_of(path, offset, facts)
    if symbol is not None:
        return symbol
    if facts.fact(f"no_code {path}", offset) is not None:
        return f"{offset:#x} (no code there: it never fires)"
    unlooked = facts.fact(f"unlooked {path}", offset)
    return hex(offset) + (f" (file not looked at: {printable(unlooked)})" if unlooked else "")


def symbol_of(path: str, offset: int, facts: Facts) -> str | None:
    """The function of an ELF file at an offset, if the machine of the trace could tell."""
    found = facts.fact(f"usym {path}", offset)
    return None if found is None else printable(found)
