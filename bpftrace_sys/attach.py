"""Ways of attaching a program: one row each.

A row takes a successful call and says what it attached to what.  The steps that
led there (load, type, event, ...) are found through the objects themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bpftrace_sys.model import NETLINK_CALLS, Model, Object, text_of
from bpftrace_sys.phrases import printable, short_call, symbol_of
from decoders.call import Call, plain
from decoders.uapi import const, names
from decoders.values import Absent, Array, Bytes, Fd, Int, Name, Struct, Text, Value


@dataclass(slots=True)
class Step:
    """A call on the way to an attachment; ``role`` is load, type, event, attach or enable."""

    role: str
    call: Call

    @property
    def text(self) -> str:
        """The call in short."""
        return short_call(self.call)


@dataclass(slots=True)
class Attachment:
    """A program attached to a target, or detached from one."""

    verb: str
    """attached, enabled, disabled, detached or replaced."""
    prog: Object | None
    target: str
    steps: list[Step] = field(default_factory=list)
    via: str = ""
    event: Object | None = None
    """The perf event, where there is one: an ENABLE may follow."""
    pid: int = 0
    tid: int = 0
    link: Object | None = None

    @property
    def seqs(self) -> list[int]:
        """The calls' numbers in the trace."""
        return [step.call.raw.seq for step in self.steps]


@dataclass(slots=True)
class Way:
    """What a row says: program, target, and how."""

    prog: Object | None
    target: str
    via: str = ""
    verb: str = "attached"
    event: Object | None = None
    alone: bool = False
    """The target holds one program: it takes the place of what was there."""
    before: Object | None = None
    """The program whose place it takes, where the call names it."""
    link: Object | None = None


TARGETS: Final = 4_096
"""Targets of a program that are remembered; a loop may put it into a map for ever."""
Row = Callable[[Call, Model], Way | None]


def _name(value: Value | None, prefix: str = "BPF_") -> str:
    value = plain(value)
    if isinstance(value, Name):
        return (value.name or str(value.value)).removeprefix(prefix).lower()
    return ""


def _device(value: Value | None) -> str:
    value = plain(value)
    if isinstance(value, Int):
        return value.note or f"ifindex {value.value}"
    return "?"


HOOKS: Final = {
    "cgroup_inet_ingress": "cgroup_skb ingress",
    "cgroup_inet_egress": "cgroup_skb egress",
}
"""Attach types that are better known by another name."""


XDP_MODES: Final = ((2, "skb"), (4, "drv"), (8, "hw"))
"""XDP_FLAGS_SKB_MODE and so on (include/uapi/linux/if_link.h)."""


def _hook(kind: str) -> str:
    return HOOKS.get(kind, kind)


def _file(call: Call, model: Model, *path: str) -> str:
    fact = call.fact(*path)
    found = model.object(fact, call.raw.pid)
    if fact is not None and found is not None:
        if "iff" in fact.info:
            return str(fact.info["iff"])
        if found.kind in ("file", "map", "link") and found.label:
            return found.label
    number = call.number(*path)
    return f"fd {number} <?>"


def set_bpf(call: Call, model: Model) -> Way | None:
    """ioctl(event, PERF_EVENT_IOC_SET_BPF, prog)."""
    event = model.object(call.fact("fd"), call.raw.pid)
    prog = model.by_fd(call, "arg")
    if event is None:
        return None
    return _on_event(call, prog, event, "fd")


def _on_event(call: Call, prog: Object | None, event: Object, *fd: str) -> Way:
    target = event.name or f"fd {call.number(*fd)} <?>"
    return Way(prog, target, str(event.info.get("via") or "perf event"), event=event)


def raw_tracepoint(call: Call, model: Model) -> Way | None:
    """RAW_TRACEPOINT_OPEN: by name, or by the program's own BTF id (fentry, LSM)."""
    prog = model.by_fd(call, "attr", "raw_tracepoint", "prog_fd")
    name = text_of(call.attr("attr", "raw_tracepoint", "name"))
    if name:
        return Way(prog, f"raw tracepoint {name}")
    return Way(prog, _btf_target(prog, model) or "its BTF target")


def _btf_target(prog: Object | None, model: Model) -> str:
    """What a program loaded with attach_btf_id belongs to: ``fentry tcp_connect``."""
    if prog is None or prog.call is None:
        return ""
    load = prog.call
    kind = _name(load.attr("attr", "expected_attach_type")).removeprefix("trace_")
    kind = {"modify_return": "fmod_ret", "lsm_mac": "lsm", "raw_tp": "tp_btf"}.get(kind, kind)
    if prog.info.get("type") == "ext":
        kind = "freplace"
    target = load.attr("attr", "attach_btf_id")
    if not isinstance(target, Int) or not target.value:
        return ""
    holder = model.by_fd(load, "attr", "attach_prog_fd") or model.by_fd(
        load, "attr", "attach_btf_obj_fd"
    )
    return f"{kind} {_btf_name(holder, target, model)}"


def _btf_name(holder: Object | None, target: Int, model: Model) -> str:
    """What a BTF id stands for: a type of vmlinux's, of a module's, or of another program's."""
    name: str | None = None
    where = ""
    if holder is None:
        name = target.note
    elif holder.kind == "prog":
        where = f" of {holder.label}"
        btf = None if holder.call is None else model.btf_of(holder.call.fact("attr", "prog_btf_fd"))
        if btf is not None:
            name = btf.name(target.value)
        elif holder.id is not None:
            name = model.facts.fact(f"func_of {holder.id}", target.value)
    elif holder.kind == "btf" and holder.name:
        where = f" [{holder.name}]"
        name = model.facts.fact(f"module_type {holder.name}", target.value)
    if not name:
        return f"BTF id {target.value}{where}"
    for prefix in ("btf_trace_", "bpf_lsm_", "bpf_iter_"):
        name = name.removeprefix(prefix)
    return name + where


def _list(value: Value | None, limit: int = 3) -> str:
    found = plain(value)
    if not isinstance(found, Array):
        return ""
    words = []
    for item in found.items[:limit]:
        item = plain(item) or item
        if isinstance(item, Text):
            words.append(text_of(item))
        elif isinstance(item, Int):
            words.append(item.note or hex(item.value))
    more = found.total - len(words)
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def _probes(call: Call, way: str, fields: tuple[str, ...]) -> str:
    attr = ("attr", "link_create", way)
    for name in fields:
        value = call.attr(*attr, name)
        if value is not None and not isinstance(value, Absent):
            return _list(value)
    return "?"


def _places(value: Value | None, path: str, model: Model, limit: int = 3) -> str:
    """Offsets in a file, by the functions that stand there."""
    found = plain(value)
    if not isinstance(found, Array):
        return "?"
    words = [
        symbol_of(path, item.value, model.facts) or hex(item.value)
        for item in found.items[:limit]
        if isinstance(item, Int)
    ]
    more = found.total - len(words)
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def _multi(call: Call, model: Model, kind: str) -> str:
    """kprobe_multi and uprobe_multi, with or without return, and sessions."""
    link = ("attr", "link_create")
    way = "kprobe" if "kprobe" in kind else "uprobe"
    union = f"{way}_multi"
    flags = call.number(*link, union, "flags") or 0
    # BPF_F_KPROBE_MULTI_RETURN and BPF_F_UPROBE_MULTI_RETURN are the same bit.
    what = f"{way[0]}retprobe" if flags & const.BPF_F_KPROBE_MULTI_RETURN else way
    name = kind.removeprefix("trace_").replace(way, what)
    if way == "kprobe":
        return f"{name} {_probes(call, union, ('syms', 'addrs'))}"
    path = text_of(call.attr(*link, union, "path"))
    return f"{name} {path}:{_places(call.attr(*link, union, 'offsets'), path, model)}"


def xdp_mode(flags: int, call: Call, ifindex: int | None) -> str:
    """drv, skb or hw: as asked for (XDP_FLAGS_*_MODE), else as the device said."""
    asked = next((name for bit, name in XDP_MODES if flags & bit), None)
    said = call.raw.extra.get("xdp_mode")
    if asked is None and isinstance(said, dict):
        asked = said.get(str(ifindex))
    return printable(str(asked or "default"))


def device(ifindex: int, call: Call, model: Model) -> str:
    """An interface's name as the call's thread knew it."""
    known = call.raw.extra.get("ifindex")
    name = known.get(str(ifindex)) if isinstance(known, dict) else None
    return str(name or model.facts.fact("ifindex", ifindex) or f"ifindex {ifindex}")


def _iterator(call: Call, prog: Object | None, model: Model) -> str:
    info = ("attr", "link_create", "iter_info")
    name = _btf_target(prog, model) or "iterator"
    over = model.by_fd(call, *info, "map", "map_fd")
    if over is not None and over.kind == "map":
        return f"{name} over {over.label}"
    if call.fact(*info, "cgroup", "cgroup_fd") is not None:
        return f"{name} over {_file(call, model, *info, 'cgroup', 'cgroup_fd')}"
    for who in ("tid", "pid"):
        number = call.number(*info, "task", who)
        if number:
            return f"{name} over {who} {number}"
    return name


def _ops_name(ops: Object, model: Model) -> str:
    """``struct_ops tcp_congestion_ops``, or by the map's name where the type is not known."""
    kind = None if ops.call is None else ops.call.number("attr", "btf_vmlinux_value_type_id")
    name = model.facts.fact("btf_vmlinux", kind) if kind else None
    return f"struct_ops {(name or ops.name).removeprefix('bpf_struct_ops_')}"


def _netfilter(call: Call) -> str:
    union = ("attr", "link_create", "netfilter")
    pf = _name(call.attr(*union, "pf"), "NFPROTO_")
    hook = _name(call.attr(*union, "hooknum"), "NF_INET_")
    return f"netfilter {pf} {hook} priority {call.number(*union, 'priority')}"


def link_create(call: Call, model: Model) -> Way | None:
    """LINK_CREATE, by attach type."""
    link = ("attr", "link_create")
    prog = model.by_fd(call, *link, "prog_fd") or model.by_fd(call, *link, "map_fd")
    kind = _name(call.attr(*link, "attach_type"))
    if prog is not None and prog.kind == "map":
        return Way(prog, _ops_name(prog, model), "link")
    if kind == "perf_event":
        event = model.object(call.fact(*link, "target_fd"), call.raw.pid)
        if event is None:
            return Way(prog, f"fd {call.number(*link, 'target_fd')} <?>", "link")
        return _on_event(call, prog, event, *link, "target_fd")
    if prog is not None and prog.info.get("type") == "ext":
        other = call.attr(*link, "tracing", "target_btf_id")
        holder = model.by_fd(call, *link, "target_fd")
        if isinstance(other, Int) and other.value and holder is not None:
            return Way(prog, f"freplace {_btf_name(holder, other, model)}", "link")
        return Way(prog, _btf_target(prog, model) or "freplace", "link")
    target = ""
    if kind.startswith(("trace_kprobe_", "trace_uprobe_")):
        target = _multi(call, model, kind)
    elif kind == "xdp":
        flags = call.number(*link, "flags") or 0
        mode = xdp_mode(flags, call, call.number(*link, "target_ifindex"))
        target = f"xdp on {_device(call.attr(*link, 'target_ifindex'))} ({mode})"
    elif kind.startswith(("tcx_", "netkit_")):
        target = f"{kind.replace('_', ' ')} on {_device(call.attr(*link, 'target_ifindex'))}"
    elif kind == "netfilter":
        target = _netfilter(call)
    elif kind == "trace_iter":
        target = _iterator(call, prog, model)
    elif kind == "lsm_cgroup":
        hook = _btf_target(prog, model) or kind
        target = f"{hook} on {_file(call, model, *link, 'target_fd')}"
    elif "cgroup" not in kind:
        target = _btf_target(prog, model)
    if not target and kind in ("trace_fentry", "trace_fexit", "modify_return", "lsm_mac"):
        target = kind
    return Way(
        prog, target or f"{_hook(kind)} on {_file(call, model, *link, 'target_fd')}", "link"
    )


def _attach_target(call: Call, model: Model) -> str:
    kind = _name(call.attr("attr", "attach_type"))
    ifindex = call.attr("attr", "target_ifindex")
    if ifindex is not None:
        return f"{kind.replace('_', ' ')} on {_device(ifindex)}"
    if kind in ("flow_dissector", "lirc_mode2", "sk_lookup"):
        return kind
    return f"{_hook(kind)} on {_file(call, model, 'attr', 'target_fd')}"


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
    if link is None:
        return None
    before = link.info.get("prog")
    link.info["prog"] = prog
    return Way(prog, target_of(link), "link", verb="replaced", before=before, link=link)


def link_detach(call: Call, model: Model) -> Way | None:
    """LINK_DETACH."""
    link = model.by_fd(call, "attr", "link_detach", "link_fd")
    if link is None:
        return None
    return Way(link.info.get("prog"), target_of(link), "link", verb="detached", link=link)


def target_of(link: Object) -> str:
    """What a link is on, or the link itself where that was not seen."""
    return str(link.info.get("target") or link.label)


def _slot(call: Call, model: Model) -> tuple[Object, str] | None:
    """The map of an update or delete, and a slot of it that holds a program, in words."""
    holder = model.by_fd(call, "attr", "map_fd")
    key = plain(call.attr("attr", "key"))
    if holder is None or holder.kind != "map" or not isinstance(key, Bytes):
        return None
    kind = names.bpf_map_type.get(holder.info.get("map_type", 0), "").removeprefix("BPF_MAP_TYPE_")
    what = {
        "PROG_ARRAY": "tail call",
        "DEVMAP": "xdp devmap",
        "DEVMAP_HASH": "xdp devmap",
        "CPUMAP": "xdp cpumap",
    }.get(kind)
    if what is None:
        return None
    return holder, f"{what} {int.from_bytes(key.data, 'little')} of {holder.label}"


def map_update(call: Call, model: Model) -> Way | None:
    """A program put into a map: a tail call, or XDP in a devmap or cpumap; a struct_ops."""
    holder = model.by_fd(call, "attr", "map_fd")
    if holder is not None and holder.info.get("map_type") == const.BPF_MAP_TYPE_STRUCT_OPS:
        return _ops_update(call, holder, model)
    value = plain(call.attr("attr", "value"))
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
    value = plain(call.attr("attr", "value"))
    typed = value.typed if isinstance(value, Bytes) else None
    for member, part in typed.fields if isinstance(typed, Struct) else ():
        prog = model.object(part.fact, call.raw.pid) if isinstance(part, Fd) else None
        if prog is not None and prog.kind == "prog":
            prog.info["used"] = True
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
    if holder is not None and holder.info.get("map_type") == const.BPF_MAP_TYPE_STRUCT_OPS:
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


ROWS: Final[dict[str, Row]] = {
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


class Attachments:
    """Turns calls into Attachments, holding back one that an ENABLE will complete."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._held: dict[int, Attachment] = {}
        self._talk: Any = None
        """bpftrace_sys.netlink.Talk, once there is netlink."""

    def before(self, call: Call) -> list[Attachment]:
        """What a thread's next call shows to be complete, before it is printed."""
        if call.command == "PERF_EVENT_IOC_ENABLE":
            held = self._held.get(call.raw.tid)
            event = self.model.object(call.fact("fd"), call.raw.pid)
            if held is not None and held.event is event:
                return []
        return self.flush(call.raw.tid)

    def after(self, call: Call) -> list[Attachment]:
        """What a call attached, enabled or detached; may be told later (see flush)."""
        if call.raw.ret is None or call.raw.failed:
            return []
        if call.command == "PERF_EVENT_IOC_ENABLE":
            return self._switched(call, "enabled")
        if call.command == "PERF_EVENT_IOC_DISABLE":
            return self._switched(call, "disabled")
        if call.syscall.name in NETLINK_CALLS:
            return self._netlink(call)
        row = ROWS.get(call.command)
        way = None if row is None else row(call, self.model)
        if way is None:
            return []
        return self._told(call, way)

    def _netlink(self, call: Call) -> list[Attachment]:
        """XDP and tc: told when the answer has come."""
        if self._talk is None:
            from bpftrace_sys.netlink import Talk

            self._talk = Talk(self.model)
        told = []
        for way, calls in self._talk.take(call):
            found = self._told(calls[0], way)
            for attachment in found:
                attachment.steps += [Step("answer", later) for later in calls[1:]]
            told += found
        return told

    def _told(self, call: Call, way: Way) -> list[Attachment]:
        steps: list[Step] = []
        if way.prog is not None and way.prog.call is not None and way.verb != "detached":
            steps.append(Step("load", way.prog.call))
        if way.event is not None and way.event.call is not None:
            defined = way.event.info.get("defined")
            if isinstance(defined, Call):
                steps.append(Step("define", defined))
            type_call = self._type_call(way.event.call)
            if type_call is not None:
                steps.append(Step("type", type_call))
            steps.append(Step("event", way.event.call))
        steps.append(Step("detach" if way.verb == "detached" else "attach", call))
        made: Object | None = call.notes.get("made")
        if made is not None and made.kind == "link" and way.link is None:
            made.info["target"] = way.target
            made.info["prog"] = way.prog
            way.link = made
        self._moved(way)
        told = Attachment(
            way.verb,
            way.prog,
            way.target,
            steps,
            way.via,
            way.event,
            call.raw.pid,
            call.raw.tid,
            way.link,
        )
        if way.event is not None and way.link is None:
            way.event.info["attachment"] = told
            self._held[call.raw.tid] = told
            return []
        return [told]

    def _moved(self, way: Way) -> None:
        """Keeps account of which program is on which target."""
        there = [known for known in self.model.objects.values() if way.target in known.attached]
        if way.verb == "detached":
            if way.prog is None and len(there) == 1:
                way.prog = there[0]
            gone = [known for known in there if way.prog in (None, known)]
        elif way.alone:
            gone = there
            if any(known is not way.prog for known in there):
                way.verb = "replaced"
        else:
            gone = [known for known in there if known is way.before]
        for known in gone:
            known.attached.remove(way.target)
        prog = None if way.verb == "detached" else way.prog
        if prog is not None and len(prog.attached) < TARGETS:
            prog.attached.append(way.target)
        if way.event is not None:
            way.event.info["prog"] = way.prog
            if way.link is None and len(self.model.passing) < TARGETS:
                self.model.passing.add(way.target)

    def _type_call(self, opened: Call) -> Call | None:
        """The openat that told the loader the PMU's type or the tracepoint's id."""
        pid: int | None = opened.raw.pid
        kind = opened.attr("attr", "type")
        config = opened.attr("attr", "config")
        what = ""
        if isinstance(kind, Int) and kind.note:
            what = f"pmu {kind.note}"
        elif isinstance(kind, Name) and isinstance(config, Int) and config.note:
            what = f"tracepoint {config.note}"
        for _ in range(64):
            if pid is None:
                return None
            found = self.model.pmu_calls.get((pid, what))
            if found is not None:
                return found if found.raw.seq < opened.raw.seq else None
            pid = self.model.parents.get(pid)
        return None

    def _switched(self, call: Call, verb: str) -> list[Attachment]:
        """ENABLE and DISABLE of an event that has a program."""
        event = self.model.object(call.fact("fd"), call.raw.pid)
        held = self._held.get(call.raw.tid)
        step = Step(verb.removesuffix("d"), call)
        if held is not None and held.event is event and verb == "enabled":
            held.steps.append(step)
            del self._held[call.raw.tid]
            return [held]
        earlier: Attachment | None = None if event is None else event.info.get("attachment")
        if earlier is None:
            return []
        return [replace(earlier, verb=verb, steps=[step], pid=call.raw.pid, tid=call.raw.tid)]

    def holds(self, tid: int) -> bool:
        """Whether something of a thread is held back."""
        return tid in self._held

    def flush(self, tid: int | None = None) -> list[Attachment]:
        """What is held back, of a thread or of all."""
        if not self._held:
            return []
        tids = sorted(self._held) if tid is None else [tid]
        return [held for tid in tids if (held := self._held.pop(tid, None)) is not None]
