"""Refusals of perf_event_open and of programs for perf events (kernel/events/core.c)."""

from __future__ import annotations

import errno
from typing import Final

from bpftrace_sys.story.explain.attr import beyond
from bpftrace_sys.story.explain.failure import NONE, PAGE, Failure
from bpftrace_sys.story.explain.fds import spoken_of
from bpftrace_sys.story.explain.privileges import CAP_PERFMON, CAP_SYS_ADMIN
from bpftrace_sys.story.explain.wording import number_set
from bpftrace_sys.story.objects import PerfEvent, Prog
from decoders.uapi import const
from decoders.values import Flags, Int, Name

PARANOID: Final = "kernel/perf_event_paranoid"


def perf_access(failure: Failure) -> list[str]:
    """kernel.perf_event_paranoid, and what needs CAP_PERFMON whatever it is."""
    lacking = failure.lacks(CAP_PERFMON) and failure.lacks(CAP_SYS_ADMIN)
    if not (lacking or failure.foreign):
        return []
    has_not = "the caller has no CAP_PERFMON (or CAP_SYS_ADMIN)"
    if failure.foreign:
        has_not = "the caller's capabilities are of another user namespace"
    kind = _pmu(failure)
    if failure.errno == errno.EACCES and kind in ("kprobe", "uprobe"):
        return [f"{kind}s need CAP_PERFMON; {has_not}"]
    level = failure.sysctl(PARANOID)
    if level is None:
        return []
    said = f"kernel.perf_event_paranoid is {level} and {has_not}"
    if failure.errno == errno.EPERM and kind == "tracepoint" and level > -1:
        return [f"{said}: no tracepoints of the kernel's"]
    if failure.errno != errno.EACCES:
        return []
    if level > 2:
        return [f"{said}: no perf events at all"]
    call = failure.call
    pid, cpu = call.number("pid"), call.number("cpu")
    if level > 1 and not _bit(failure, "exclude_kernel"):
        return [f"{said}: events must exclude the kernel (exclude_kernel)"]
    if level > 0 and pid == -1 and cpu is not None and cpu >= 0:
        return [f"{said}: no events of a whole CPU"]
    return []


def _bit(failure: Failure, name: str) -> int:
    return failure.number("flags", name) or failure.number(name)


def _pmu(failure: Failure) -> str:
    kind = failure.call.attr("attr", "type")
    if isinstance(kind, Name):
        return (kind.name or "").removeprefix("PERF_TYPE_").lower()
    return (kind.note or "") if isinstance(kind, Int) else ""


def perf_missing(failure: Failure) -> list[str]:
    """ENOENT: no such PMU, function, file or event."""
    kind = _pmu(failure)
    number = failure.number("type")
    if not kind:
        return [f"no PMU of this machine has type {number}"]
    if kind == "kprobe":
        return []  # kprobes.py
    if kind == "uprobe":
        path = failure.text("uprobe_path")
        if path and failure.now(f"path {path}") == NONE:
            return [f"there is no file {path}"]
        return []
    if kind in ("hardware", "hw_cache", "raw") and "cpu" not in _pmus(failure):
        return ["this machine has no hardware counters: there is no PMU cpu"]
    return []


def _pmus(failure: Failure) -> set[str]:
    return set(failure.facts.pmus.values())


def perf_invalid(failure: Failure) -> list[str]:
    """EINVAL from perf_event_open."""
    call = failure.call
    kind = _pmu(failure)
    flags = call.attr("flags")
    if isinstance(flags, Flags) and flags.rest:
        return [f"flags has unknown bits: {flags.rest:#x}"]
    pid, cpu = call.number("pid"), call.number("cpu")
    cgroup = (call.number("flags") or 0) & const.PERF_FLAG_PID_CGROUP
    if pid == -1 and cpu == -1:
        return ["pid and cpu are both -1: an event needs a task or a CPU"]
    if cgroup and cpu == -1:
        return ["an event of a cgroup needs a CPU; cpu is -1"]
    if cpu is not None and cpu >= 0:
        possible = failure.fact("file /sys/devices/system/cpu/possible")
        if possible is not None and cpu not in number_set(possible):
            return [f"there is no CPU {cpu}: {possible} are possible"]
    if kind == "tracepoint":
        config = failure.number("config")
        if failure.fact("tracepoint_id", config) == NONE:
            return [f"no tracepoint has id {config}"]
    for field in ("sample_type", "read_format", "branch_sample_type"):
        value = call.attr("attr", field)
        if isinstance(value, Flags) and value.rest:
            return [f"{field} has unknown bits: {value.rest:#x}"]
    frequency = failure.number("sample_freq")
    limit = failure.sysctl("kernel/perf_event_max_sample_rate")
    if frequency and limit is not None and frequency > limit:
        return [f"sample_freq {frequency} is above kernel.perf_event_max_sample_rate {limit}"]
    return []


def perf_nobody(failure: Failure) -> list[str]:
    """ESRCH: no such task; ENODEV: a CPU that is offline."""
    call = failure.call
    if failure.errno == errno.ENODEV:
        cpu = call.number("cpu")
        online = failure.now("file /sys/devices/system/cpu/online")
        if cpu is not None and cpu >= 0 and online is not None and cpu not in number_set(online):
            return [f"CPU {cpu} is offline: {online} are online"]
        return []
    pid = call.number("pid")
    if pid is not None and pid > 0 and failure.now(f"task {pid}") == NONE:
        return [f"there is no task {pid}"]
    return []


def perf_too_big(failure: Failure) -> list[str]:
    """E2BIG: bytes beyond what the kernel knows of perf_event_attr."""
    data = failure.attr
    size = int.from_bytes(data[4:8], "little") if len(data) >= 8 else 0
    if size and size < 64:
        return [f"attr.size {size} is less than PERF_ATTR_SIZE_VER0 (64)"]
    if size > PAGE:
        return [f"attr.size {size} is more than a page"]
    return beyond(failure, data, "perf_event_attr", "perf_event_attr")


def set_bpf(failure: Failure) -> list[str]:
    """ioctl PERF_EVENT_IOC_SET_BPF: an event with a program, or one of another kind."""
    call = failure.call
    event = failure.model.object(call.fact("fd"), call.raw.pid)
    prog = failure.model.by_fd(call, "arg")
    fact = call.fact("arg")
    if failure.errno == errno.EINVAL and fact is not None and fact.kind != "prog":
        return [f"arg {fact.fd} is {spoken_of(fact)}, not a program"]
    if event is None or not isinstance(prog, Prog):
        return []
    kind = prog.type
    if failure.errno == errno.EEXIST:
        told = event.attachment if isinstance(event, PerfEvent) else None
        held = None if told is None or told.prog is None else told.prog.label
        return [f"the event {event.name} has {held} already"] if held else []
    if event.call is None or not kind:
        return []
    pmu = _pmu(Failure(event.call, failure.model, failure.facts))
    wanted = {"kprobe": "kprobe", "uprobe": "kprobe", "tracepoint": "tracepoint"}.get(
        pmu, "perf_event"
    )
    if failure.errno == errno.EINVAL and kind != wanted:
        return [f"a {kind} program does not fit the event {event.name}: that takes a {wanted} one"]
    return []
