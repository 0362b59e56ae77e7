"""Refusals of uprobes, of perf_event_open and of links: what stands at the path, and how long."""

from __future__ import annotations

import errno
from typing import Final

from bpftrace_sys.story.explain.failure import NONE, Failure
from bpftrace_sys.story.explain.wording import decimal, word_set
from bpftrace_sys.story.objects import NotedCall, text_of
from decoders.call import inner_value
from decoders.records import NamedTuple
from decoders.values import Array, Flags, Int

MOST: Final = 1 << 20
"""MAX_UPROBE_MULTI_CNT"""
LOOKED_AT: Final = 1000
"""Places of a link that are compared."""
PAGELESS: Final = word_set("proc sysfs tracefs debugfs cgroup cgroup2 bpf")
"""File systems whose files are made when they are read."""
WHERE: Final = ("attr", "link_create", "uprobe_multi")


class Spot(NamedTuple):
    """A place in a file, with the semaphore that counts who looks at it (0: none)."""

    offset: int
    counter: int


def _numbers(call: NotedCall, name: str) -> list[int]:
    found = inner_value(call.attr(*WHERE, name))
    items = found.items[:LOOKED_AT] if isinstance(found, Array) else ()
    return [item.value for item in items if isinstance(item, Int)]


def path_of(call: NotedCall) -> str:
    """The file of a uprobe or of a uprobe_multi link; empty where the call makes neither."""
    if call.syscall.name == "perf_event_open":
        return text_of(call.attr("attr", "uprobe_path"))
    return text_of(call.attr(*WHERE, "path"))


def spots(call: NotedCall) -> list[Spot]:
    """The places that a call wants to probe."""
    if call.syscall.name == "perf_event_open":
        config = call.number("attr", "config") or 0
        return [Spot(call.number("attr", "probe_offset") or 0, config >> 32)]
    offsets, counters = _numbers(call, "offsets"), _numbers(call, "ref_ctr_offsets")
    counters += [0] * (len(offsets) - len(counters))
    return [Spot(*pair) for pair in zip(offsets, counters, strict=False)]


def uprobe_file(failure: Failure) -> list[str]:
    """EINVAL of the PMU, EBADF of a link: what is at the path is no regular file."""
    path = path_of(failure.call)
    kind = failure.now(f"path {path}") if path else None
    if kind in (None, NONE, "file"):
        return []
    return [f"{path} is a {kind}: uprobes are in regular files"]


def uprobe_io(failure: Failure) -> list[str]:
    """EIO: a file whose pages the kernel cannot read, as those of proc and sysfs."""
    path = path_of(failure.call)
    system = failure.now(f"file_system {path}") if path else None
    if system not in PAGELESS:
        return []
    return [f"{path} is on {system}, whose files have no pages that could be probed"]


def uprobe_place(failure: Failure) -> list[str]:
    """EINVAL: an offset past the end, or a semaphore that differs from an earlier one."""
    path = path_of(failure.call)
    if not path:
        return []
    size = decimal(failure.now(f"file_size {path}"))
    asked = spots(failure.call)
    for spot in asked:
        if size is not None and spot.offset > size:
            return [f"offset {spot.offset:#x} is past the end of {path}, which has {size:#x} bytes"]
        if spot.counter % 2:
            return [f"ref_ctr_offset {spot.counter:#x} is odd: what counts there has two bytes"]
    return _other_counter(failure, path, asked)


def _other_counter(failure: Failure, path: str, asked: list[Spot]) -> list[str]:
    """Two uprobes at one place have one semaphore (ref_ctr_mismatch_warn())."""
    model = failure.model
    events = {id(known): known for known in (*model.events.values(), *model.events_by_id.values())}
    for known in (*events.values(), *model.objects.values()):
        made = known.call
        if made is None or made is failure.call or path_of(made) != path:
            continue
        counters = {spot.offset: spot.counter for spot in spots(made)}
        for spot in asked:
            if counters.get(spot.offset, spot.counter) != spot.counter:
                return [
                    f"ref_ctr_offset is {spot.counter:#x} for offset {spot.offset:#x}, and "
                    f"{counters[spot.offset]:#x} in {known.label}"
                ]
    return []


def uprobe_fields(failure: Failure) -> list[str]:
    """EINVAL and E2BIG of a link: nothing to probe, or too much."""
    call = failure.call
    if failure.name("link_create", "attach_type") not in (
        "BPF_TRACE_UPROBE_MULTI",
        "BPF_TRACE_UPROBE_SESSION",
    ):
        return []
    count = failure.number("link_create", "uprobe_multi", "cnt")
    if failure.errno == errno.E2BIG:
        return [f"cnt {count} is more than {MOST}"] if count > MOST else []
    if not count:
        return ["cnt is 0: there is nothing to probe"]
    flags = call.attr(*WHERE, "flags")
    if isinstance(flags, Flags) and flags.rest:
        return [f"flags has unknown bits: {flags.rest:#x}"]
    for name in ("path", "offsets"):
        if inner_value(call.attr(*WHERE, name)) is None or call.number(*WHERE, name) == 0:
            return [f"{name} is NULL"]
    for spot in spots(call):
        if spot.offset >> 63 or spot.counter >> 63:
            return [f"offset {spot.offset:#x} is negative"]
    return []
