"""Refusals of hooks that check their own arguments: XDP, netfilter, tracepoints."""

from __future__ import annotations

import errno
from typing import Final

from bpftrace_sys.story.explain.failure import NONE, Failure
from bpftrace_sys.story.explain.wording import and_words, decimal
from bpftrace_sys.story.objects import PerfEvent, Prog
from decoders.call import Call, inner_value
from decoders.formats import insn as isa
from decoders.values import Insns, Name

XDP_MODES: Final = {1 << 1: "skb", 1 << 2: "drv", 1 << 3: "hw"}
"""XDP_FLAGS_MODES, include/uapi/linux/if_link.h."""
NFPROTO: Final = {2: "IPv4", 10: "IPv6"}
NF_HOOKS: Final = 5
"""NF_INET_NUMHOOKS, include/uapi/linux/netfilter.h."""
FIRST, LAST, CONNTRACK_DEFRAG = -(1 << 31), (1 << 31) - 1, -400
"""NF_IP_PRI_*, include/uapi/linux/netfilter_ipv4.h."""
IP_DEFRAG: Final = 1


def xdp_modes(failure: Failure) -> list[str]:
    """EINVAL of an XDP link: more than one mode, or none where two run; a program for a map."""
    if failure.name("link_create", "attach_type") != "BPF_XDP":
        return []
    flags = failure.number("link_create", "flags")
    asked = [name for bit, name in XDP_MODES.items() if flags & bit]
    if asked[1:]:
        return [f"flags asks for {and_words(asked)} mode; an attachment has one"]
    prog = failure.model.by_fd(failure.call, "attr", "link_create", "prog_fd")
    expected = None
    if isinstance(prog, Prog) and prog.call is not None:
        expected = prog.call.attr("attr", "expected_attach_type")
    name = expected.name if isinstance(expected, Name) else None
    if prog is not None and name in ("BPF_XDP_DEVMAP", "BPF_XDP_CPUMAP"):
        return [f"{prog.label} was loaded for {name}: it goes into a map, not on a device"]
    running = _running(failure)
    if not asked and len(running) > 1:
        modes = and_words(sorted(running))
        return [f"flags names no mode, and {_on(failure)} has programs in {modes} mode"]
    return []


def _running(failure: Failure) -> dict[str, int]:
    """The XDP programs of the call's device when it was refused, by mode."""
    words = (failure.now("hook") or "").split()
    found = {}
    for word in words:
        mode, _, number = word.partition(":")
        prog = decimal(number)
        if prog is not None:
            found[mode] = prog
    return found


def _on(failure: Failure) -> str:
    index = failure.number("link_create", "target_ifindex")
    return failure.call.raw.extra.devices.get(index) or f"device {index}"


def xdp_taken(failure: Failure) -> list[str]:
    """EBUSY and EEXIST of an XDP link (dev_xdp_attach()): what runs on the device already."""
    if failure.name("link_create", "attach_type") != "BPF_XDP":
        return []
    flags = failure.number("link_create", "flags")
    asked = {name for bit, name in XDP_MODES.items() if flags & bit}
    for mode, prog_id in _running(failure).items():
        known = failure.model.prog_by_id(prog_id)
        label = f"prog id={prog_id}" if known is None else known.label
        said = f"{_on(failure)} runs {label} in {mode} mode"
        if failure.errno == errno.EBUSY and (not asked or mode in asked):
            return [f"{said} already"]
        if failure.errno == errno.EEXIST and mode in ("drv", "skb") and mode not in asked:
            return [f"{said}; native and generic XDP exclude each other"]
    return []


def xdp_no_driver(failure: Failure) -> list[str]:
    """EOPNOTSUPP of an XDP link: a mode that the driver has not."""
    if failure.name("link_create", "attach_type") != "BPF_XDP":
        return []
    flags = failure.number("link_create", "flags")
    asked = [name for bit, name in XDP_MODES.items() if flags & bit]
    if asked == ["drv"]:
        return [f"the driver of {_on(failure)} takes no program in drv mode (native XDP)"]
    if asked == ["hw"]:
        return [f"{_on(failure)} takes no program in hw mode (offload)"]
    return []


def netfilter_busy(failure: Failure) -> list[str]:
    """EBUSY of a netfilter link: another program at the same hook and priority."""
    if failure.name("link_create", "attach_type") != "BPF_NETFILTER":
        return []
    where = ("attr", "link_create", "netfilter")
    keys = ("pf", "hooknum", "priority")
    asked = [failure.call.number(*where, key) for key in keys]
    said = f"a BPF program is at priority {failure.number('link_create', 'netfilter', 'priority')}"
    for found in failure.model.objects.values():
        made = found.call
        if found.kind != "link" or made is None or made is failure.call:
            continue
        if asked[0] and asked == [made.number(*where, key) for key in keys]:
            return [f"{said} of that hook already: {found.label}"]
    return [f"{said} of that hook already"]


def netfilter(failure: Failure) -> list[str]:
    """EAFNOSUPPORT, EPROTO and ERANGE: protocol family, hook and priority."""
    if failure.name("link_create", "attach_type") != "BPF_NETFILTER":
        return []
    where = ("link_create", "netfilter")
    family, hook = failure.number(*where, "pf"), failure.number(*where, "hooknum")
    priority = failure.number(*where, "priority")
    if family not in NFPROTO:
        return [f"pf {family} is neither NFPROTO_IPV4 (2) nor NFPROTO_IPV6 (10)"]
    if hook >= NF_HOOKS:
        return [f"hooknum {hook} is past NF_INET_POST_ROUTING ({NF_HOOKS - 1})"]
    if priority in (FIRST, LAST):
        return [f"priority {priority} is the kernel's own: first and last cannot be taken"]
    if failure.number(*where, "flags") & IP_DEFRAG and priority <= CONNTRACK_DEFRAG:
        return [
            f"BPF_F_NETFILTER_IP_DEFRAG needs a priority after defragmentation's "
            f"({CONNTRACK_DEFRAG}), not {priority}"
        ]
    return []


def raw_tracepoint_name(failure: Failure) -> list[str]:
    """ENOENT: a name with its category, as other interfaces have it."""
    name = failure.text("raw_tracepoint", "name")
    for mark in (":", "/"):
        bare = name.rpartition(mark)[2]
        if mark in name and bare and failure.fact(f"raw_tracepoint {name}") == NONE:
            return [f"a raw tracepoint has no category: its name is {bare}, not {name}"]
    return []


def raw_tracepoint_args(failure: Failure) -> list[str]:
    """EINVAL: the program reads more arguments than the tracepoint has."""
    from bpftrace_sys.story.context import ArgumentsLayout, place

    name = failure.text("raw_tracepoint", "name")
    prog = failure.model.by_fd(failure.call, "attr", "raw_tracepoint", "prog_fd")
    if not isinstance(prog, Prog) or prog.call is None:
        return []
    found = place(f"raw tracepoint {name}", prog.call.raw.arch, failure.facts)
    if found is None or not isinstance(found[1], ArgumentsLayout):
        return []
    count = len(found[1].params)
    pc, end = furthest(prog.call)
    if pc is None or end <= 8 * count:
        return []
    read = (end - 1) // 8 + 1
    return [f"{prog.label} reads argument {read} at {pc}, and {name} has {count}: {found[0]}"]


def past_the_record(failure: Failure) -> list[str]:
    """EACCES of PERF_EVENT_IOC_SET_BPF: the program reads past the tracepoint's record."""
    from bpftrace_sys.story.context import FieldsLayout, place

    call = failure.call
    event = failure.model.object(call.fact("fd"), call.raw.pid)
    prog = failure.model.by_fd(call, "arg")
    if not isinstance(event, PerfEvent) or not isinstance(prog, Prog) or prog.call is None:
        return []
    found = place(event.name, prog.call.raw.arch, failure.facts)
    if found is None or not isinstance(found[1], FieldsLayout):
        return []
    size = max((offset + length for _, offset, length in found[1].fields), default=0)
    pc, end = furthest(prog.call)
    if pc is None or not size or end <= size:
        return []
    return [
        f"{prog.label} reads up to byte {end} of its context (at {pc}), and the record of "
        f"{event.name} ends at {size}"
    ]


def furthest(load: Call) -> tuple[int | None, int]:
    """Where a program reads furthest into its context, and the end of that access in bytes."""
    from decoders.formats.ctx_flow import accesses

    insns = inner_value(load.attr("attr", "insns"))
    program = isa.listed(insns.data) if isinstance(insns, Insns) else []
    found = max(accesses(program), key=lambda access: access.offset + access.size, default=None)
    return (None, 0) if found is None else (found.pc, found.offset + found.size)
