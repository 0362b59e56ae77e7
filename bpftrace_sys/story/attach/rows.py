"""Ways of attaching a program: one row each.

A row takes a successful call and says what it attached to what.  The steps that
led there (load, type, event, ...) are found through the objects themselves.
"""

from __future__ import annotations

from typing import Final

from bpftrace_sys.story.attach.link_targets import link_target
from bpftrace_sys.story.attach.places import (
    _btf_name,
    _btf_target,
    _device,
    _file,
    _name,
    _ops_name,
    target_of,
)
from bpftrace_sys.story.attach.ways import Reading, Way
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import TARGETS, Link, Map, Object, PerfEvent, Prog, text_of
from bpftrace_sys.story.targets import hook_name
from decoders.call import Call, inner_value
from decoders.uapi import const
from decoders.values import Bytes, Fd, Int, Name, Struct


def set_bpf(call: Call, model: Model) -> Way | None:
    """ioctl(event, PERF_EVENT_IOC_SET_BPF, prog)."""
    event = model.object(call.fact("fd"), call.raw.pid)
    prog = model.by_fd(call, "arg")
    if not isinstance(event, PerfEvent):
        return None
    return _on_event(call, prog, event, "fd")


def _on_event(call: Call, prog: Object | None, event: PerfEvent, *fd: str) -> Way:
    target = event.name or f"fd {call.number(*fd)} <?>"
    return Way(prog, target, event.via or "perf event", event=event)


def raw_tracepoint(call: Call, model: Model) -> Way | None:
    """RAW_TRACEPOINT_OPEN: by name, or by the program's own BTF id (fentry, LSM)."""
    prog = model.by_fd(call, "attr", "raw_tracepoint", "prog_fd")
    name = text_of(call.attr("attr", "raw_tracepoint", "name"))
    if name:
        return Way(prog, f"raw tracepoint {name}")
    return Way(prog, _btf_target(prog, model) or "its BTF target")


def link_create(call: Call, model: Model) -> Way | None:
    """LINK_CREATE, by attach type."""
    link = ("attr", "link_create")
    prog = model.by_fd(call, *link, "prog_fd") or model.by_fd(call, *link, "map_fd")
    kind = _name(call.attr(*link, "attach_type"))
    if prog is not None and prog.kind == "map":
        return Way(prog, _ops_name(prog, model), "link")
    if kind == "perf_event":
        event = model.object(call.fact(*link, "target_fd"), call.raw.pid)
        if not isinstance(event, PerfEvent):
            return Way(prog, f"fd {call.number(*link, 'target_fd')} <?>", "link")
        return _on_event(call, prog, event, *link, "target_fd")
    if isinstance(prog, Prog) and prog.type == "ext":
        other = call.attr(*link, "tracing", "target_btf_id")
        holder = model.by_fd(call, *link, "target_fd")
        if isinstance(other, Int) and other.value and holder is not None:
            return Way(prog, f"freplace {_btf_name(holder, other, model)}", "link")
        return Way(prog, _btf_target(prog, model) or "freplace", "link")
    named = inner_value(call.attr(*link, "attach_type"))
    name = (named.name or str(named.value)) if isinstance(named, Name) else ""
    return Way(prog, link_target(call, prog, model, name), "link")


def _attach_target(call: Call, model: Model) -> str:
    kind = _name(call.attr("attr", "attach_type"))
    ifindex = call.attr("attr", "target_ifindex")
    if ifindex is not None:
        return f"{kind.replace('_', ' ')} on {_device(ifindex)}"
    if kind in ("flow_dissector", "lirc_mode2", "sk_lookup"):
        return kind
    return f"{hook_name(kind)} on {_file(call, model, 'attr', 'target_fd')}"


def prog_attach(call: Call, model: Model) -> Way | None:
    """PROG_ATTACH."""
    prog = model.by_fd(call, "attr", "attach_bpf_fd")
    flags = call.number("attr", "attach_flags") or 0
    cgroup = "CGROUP" in (_name(call.attr("attr", "attach_type")).upper())
    way = Way(prog, _attach_target(call, model))
    if flags & const.BPF_F_REPLACE:
        way.verb = "replaced"
        way.before = model.by_fd(call, "attr", "replace_bpf_fd")
    # Without ALLOW_MULTI a cgroup holds one program of a kind (kernel/bpf/cgroup.c).
    way.alone = cgroup and not flags & const.BPF_F_ALLOW_MULTI
    return way


def prog_detach(call: Call, model: Model) -> Way | None:
    """PROG_DETACH; the kernel may be told only where from, not what."""
    prog = model.by_fd(call, "attr", "attach_bpf_fd")
    return Way(prog, _attach_target(call, model), verb="detached")


def link_update(call: Call, model: Model) -> Way | None:
    """LINK_UPDATE: another program takes the place of the one before."""
    update = ("attr", "link_update")
    prog = model.by_fd(call, *update, "new_prog_fd") or model.by_fd(call, *update, "new_map_fd")
    link = model.by_fd(call, *update, "link_fd")
    if not isinstance(link, Link):
        return None
    before, link.prog = link.prog, prog
    return Way(prog, target_of(link), "link", verb="replaced", before=before, link=link)


def link_detach(call: Call, model: Model) -> Way | None:
    """LINK_DETACH."""
    link = model.by_fd(call, "attr", "link_detach", "link_fd")
    if not isinstance(link, Link):
        return None
    return Way(link.prog, target_of(link), "link", verb="detached", link=link)


SLOTS: Final[dict[int | None, str]] = {
    const.BPF_MAP_TYPE_PROG_ARRAY: "tail call",
    const.BPF_MAP_TYPE_DEVMAP: "xdp devmap",
    const.BPF_MAP_TYPE_DEVMAP_HASH: "xdp devmap",
    const.BPF_MAP_TYPE_CPUMAP: "xdp cpumap",
}
"""What a program in an element of a map is there for, by the map's type."""


def _slot(call: Call, model: Model) -> tuple[Object, str] | None:
    """The map of an update or delete, and a slot of it that holds a program, in words."""
    holder = model.by_fd(call, "attr", "map_fd")
    key = inner_value(call.attr("attr", "key"))
    if not isinstance(holder, Map) or not isinstance(key, Bytes):
        return None
    what = SLOTS.get(holder.map_type)
    if what is None:
        return None
    return holder, f"{what} {int.from_bytes(key.data, 'little')} of {holder.label}"


def map_update(call: Call, model: Model) -> Way | None:
    """A program put into a map: a tail call, or XDP in a devmap or cpumap; a struct_ops."""
    holder = model.by_fd(call, "attr", "map_fd")
    if isinstance(holder, Map) and holder.map_type == const.BPF_MAP_TYPE_STRUCT_OPS:
        return _ops_update(call, holder, model)
    value = inner_value(call.attr("attr", "value"))
    typed = value.typed if isinstance(value, Bytes) else None
    if isinstance(typed, Struct):
        typed = typed.get("bpf_prog.fd")
    if not isinstance(typed, Fd) or typed.fact is None or typed.fact.kind != "prog":
        return None
    slot = _slot(call, model)
    if slot is None:
        return None
    return Way(model.object(typed.fact, call.raw.pid), slot[1], via="map", alone=True)


def _ops_update(call: Call, ops: Object, model: Model) -> Way | None:
    """A struct_ops map gets its value: registered at once, unless a link is to do it."""
    name = _ops_name(ops, model)
    value = inner_value(call.attr("attr", "value"))
    typed = value.typed if isinstance(value, Bytes) else None
    for member, part in typed.fields if isinstance(typed, Struct) else ():
        prog = model.object(part.fact, call.raw.pid) if isinstance(part, Fd) else None
        if isinstance(prog, Prog):
            prog.used = True
            place = f"{name}.{member.removeprefix('data.').removesuffix('.fd')}"
            if len(prog.attached) < TARGETS:
                prog.attached.append(f"{place} of {ops.label}")
    fact = call.fact("attr", "map_fd")
    flags = None if fact is None else fact.info.get("map_flags")
    if isinstance(flags, int) and flags & const.BPF_F_LINK:
        return None
    return Way(ops, name, via="map")


def map_delete(call: Call, model: Model) -> Way | None:
    """A program taken out of a map of programs, or a struct_ops unregistered."""
    holder = model.by_fd(call, "attr", "map_fd")
    if isinstance(holder, Map) and holder.map_type == const.BPF_MAP_TYPE_STRUCT_OPS:
        return Way(holder, _ops_name(holder, model), via="map", verb="detached")
    slot = _slot(call, model)
    if slot is None or model.holder(slot[1]) is None:
        return None
    return Way(None, slot[1], via="map", verb="detached")


def ioctl_pointer(call: Call, model: Model) -> Way | None:
    """TUNSETSTEERINGEBPF and TUNSETFILTEREBPF: a pointer to the program's fd, -1 to detach."""
    prog = model.by_fd(call, "arg", "fd")
    what = call.command.removeprefix("TUNSET").removesuffix("EBPF").lower()
    target = f"tun {what} on {_file(call, model, 'fd')}"
    verb = "detached" if (call.number("arg", "fd") or 0) < 0 else "attached"
    return Way(prog, target, verb=verb, alone=True)


def kcm_attach(call: Call, model: Model) -> Way | None:
    """SIOCKCMATTACH: a socket and the program that splits its stream."""
    prog = model.by_fd(call, "arg", "bpf_fd")
    return Way(prog, f"kcm parser of {_file(call, model, 'arg', 'fd')}")


def sockopt(call: Call, model: Model) -> Way | None:
    """setsockopt(SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_EBPF, SO_DETACH_...)."""
    option = _name(call.attr("optname"), "SO_")
    what = "reuseport group of" if "reuseport" in option else "socket filter on"
    target = f"{what} {_file(call, model, 'fd')}"
    if "detach" in option:
        return Way(None, target, verb="detached")
    prog = model.by_fd(call, "optval", "fd")
    return None if prog is None else Way(prog, target, alone=True)


ROWS: Final[dict[str, Reading]] = {
    "BPF_MAP_UPDATE_ELEM": map_update,
    "BPF_MAP_DELETE_ELEM": map_delete,
    "TUNSETSTEERINGEBPF": ioctl_pointer,
    "TUNSETFILTEREBPF": ioctl_pointer,
    "SIOCKCMATTACH": kcm_attach,
    "setsockopt": sockopt,
    "PERF_EVENT_IOC_SET_BPF": set_bpf,
    "BPF_RAW_TRACEPOINT_OPEN": raw_tracepoint,
    "BPF_LINK_CREATE": link_create,
    "BPF_PROG_ATTACH": prog_attach,
    "BPF_PROG_DETACH": prog_detach,
    "BPF_LINK_UPDATE": link_update,
    "BPF_LINK_DETACH": link_detach,
}
"""By the call's command."""


