"""Ways of attaching a program: one row each.

A row takes a successful call and says what it attached to what.  The steps that
led there (load, type, event, ...) are found through the objects themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bpftrace_sys.model import Model, Object, text_of
from bpftrace_sys.phrases import short_call, symbol_of
from decoders.call import Call, plain
from decoders.raw import EXIT
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
    """attached, enabled, detached or replaced."""
    prog: Object | None
    target: str
    steps: list[Step] = field(default_factory=list)
    via: str = ""
    event: Object | None = None
    """The perf event, where there is one: an ENABLE may follow."""
    pid: int = 0
    tid: int = 0

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


def _hook(kind: str) -> str:
    return HOOKS.get(kind, kind)


def _file(call: Call, *path: str) -> str:
    fact = call.fact(*path)
    if fact is not None and fact.kind == "file":
        return str(fact.info.get("path", "?"))
    if fact is not None and fact.kind == "map":
        return f"map id {fact.id}"
    number = call.number(*path)
    return f"fd {number} <?>"


def set_bpf(call: Call, model: Model) -> Way | None:
    """ioctl(event, PERF_EVENT_IOC_SET_BPF, prog)."""
    event = model.object(call.fact("fd"), call.raw.pid)
    prog = model.by_fd(call, "arg")
    if event is None:
        return None
    return Way(prog, event.name, via="perf event", event=event)


def raw_tracepoint(call: Call, model: Model) -> Way | None:
    """RAW_TRACEPOINT_OPEN: by name, or by the program's own BTF id (fentry, LSM)."""
    prog = model.by_fd(call, "attr", "raw_tracepoint", "prog_fd")
    name = text_of(call.attr("attr", "raw_tracepoint", "name"))
    if name:
        return Way(prog, f"raw tracepoint {name}")
    return Way(prog, _btf_target(prog) or "its BTF target")


def _btf_target(prog: Object | None) -> str:
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
    other = load.fact("attr", "attach_prog_fd")
    name = target.note
    if other is not None and other.kind == "prog":
        name = f"BTF id {target.value} of prog id {other.id}"
    name = name or f"BTF id {target.value}"
    for prefix in ("btf_trace_", "bpf_lsm_", "bpf_iter_"):
        name = name.removeprefix(prefix)
    return f"{kind} {name}"


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


def link_create(call: Call, model: Model) -> Way | None:
    """LINK_CREATE, by attach type."""
    link = ("attr", "link_create")
    prog = model.by_fd(call, *link, "prog_fd") or model.by_fd(call, *link, "map_fd")
    kind = _name(call.attr(*link, "attach_type"))
    if prog is not None and prog.kind == "map":
        return Way(prog, f"struct_ops {prog.name}", via="link")
    if kind == "perf_event":
        event = model.object(call.fact(*link, "target_fd"), call.raw.pid)
        if event is None:
            return Way(prog, "perf event ?", via="link")
        return Way(prog, event.name, via="link", event=event)
    if kind in ("trace_kprobe_multi", "trace_kprobe_session"):
        probes = _probes(call, "kprobe_multi", ("syms", "addrs"))
        flags = call.number(*link, "kprobe_multi", "flags") or 0
        what = "kretprobe" if flags & const.BPF_F_KPROBE_MULTI_RETURN else "kprobe"
        return Way(prog, f"{kind.removeprefix('trace_').replace('kprobe', what)} {probes}", "link")
    if kind in ("trace_uprobe_multi", "trace_uprobe_session"):
        path = text_of(call.attr(*link, "uprobe_multi", "path"))
        offsets = _places(call.attr(*link, "uprobe_multi", "offsets"), path, model)
        flags = call.number(*link, "uprobe_multi", "flags") or 0
        what = "uretprobe" if flags & const.BPF_F_UPROBE_MULTI_RETURN else "uprobe"
        name = kind.removeprefix("trace_").replace("uprobe", what)
        return Way(prog, f"{name} {path}:{offsets}", "link")
    if kind == "xdp":
        flags = call.number(*link, "flags") or 0
        mode = next(
            (name for bit, name in ((2, "skb"), (4, "drv"), (8, "hw")) if flags & bit), "default"
        )
        return Way(prog, f"xdp on {_device(call.attr(*link, 'target_ifindex'))} ({mode})", "link")
    if kind.startswith(("tcx_", "netkit_")):
        device = _device(call.attr(*link, "target_ifindex"))
        return Way(prog, f"{kind.replace('_', ' ')} on {device}", "link")
    if kind == "netfilter":
        pf = _name(call.attr(*link, "netfilter", "pf"), "NFPROTO_")
        hook = _name(call.attr(*link, "netfilter", "hooknum"), "NF_INET_")
        priority = call.number(*link, "netfilter", "priority")
        return Way(prog, f"netfilter {pf} {hook} priority {priority}", "link")
    if kind == "trace_iter":
        return Way(prog, _btf_target(prog) or "iterator", "link")
    if kind in ("trace_fentry", "trace_fexit", "modify_return", "lsm_mac", "trace_raw_tp"):
        return Way(prog, _btf_target(prog) or kind, "link")
    target = "" if "cgroup" in kind else _btf_target(prog)
    return Way(prog, target or f"{_hook(kind)} on {_file(call, *link, 'target_fd')}", "link")


def _attach_target(call: Call) -> str:
    kind = _name(call.attr("attr", "attach_type"))
    device = call.attr("attr", "target_ifindex")
    if device is not None:
        return f"{kind.replace('_', ' ')} on {_device(device)}"
    if kind in ("flow_dissector", "lirc_mode2", "sk_lookup"):
        return kind
    return f"{_hook(kind)} on {_file(call, 'attr', 'target_fd')}"


def prog_attach(call: Call, model: Model) -> Way | None:
    """PROG_ATTACH."""
    prog = model.by_fd(call, "attr", "attach_bpf_fd")
    replaced = (call.number("attr", "attach_flags") or 0) & const.BPF_F_REPLACE
    return Way(prog, _attach_target(call), verb="replaced" if replaced else "attached")


def prog_detach(call: Call, model: Model) -> Way | None:
    """PROG_DETACH; the kernel may be told only where from, not what."""
    prog = model.by_fd(call, "attr", "attach_bpf_fd")
    return Way(prog, _attach_target(call), verb="detached")


def link_update(call: Call, model: Model) -> Way | None:
    """LINK_UPDATE: another program takes the place of the one before."""
    update = ("attr", "link_update")
    prog = model.by_fd(call, *update, "new_prog_fd") or model.by_fd(call, *update, "new_map_fd")
    link = model.by_fd(call, "attr", "link_update", "link_fd")
    target = "" if link is None else link.info.get("target") or link.label
    if link is not None:
        link.info["prog"] = prog
    return Way(prog, str(target), "link", verb="replaced")


def link_detach(call: Call, model: Model) -> Way | None:
    """LINK_DETACH."""
    link = model.by_fd(call, "attr", "link_detach", "link_fd")
    if link is None:
        return None
    prog = link.info.get("prog")
    return Way(prog, str(link.info.get("target") or link.label), "link", verb="detached")


def map_update(call: Call, model: Model) -> Way | None:
    """A program put into a map: a tail call, or XDP in a devmap or cpumap."""
    value = plain(call.attr("attr", "value"))
    typed = value.typed if isinstance(value, Bytes) else None
    if isinstance(typed, Struct):
        typed = typed.get("bpf_prog.fd")
    if not isinstance(typed, Fd) or typed.fact is None or typed.fact.kind != "prog":
        return None
    holder = model.by_fd(call, "attr", "map_fd")
    key = plain(call.attr("attr", "key"))
    if holder is None or not isinstance(key, Bytes):
        return None
    prog = model.object(typed.fact, call.raw.pid)
    number = int.from_bytes(key.data, "little")
    kind = names.bpf_map_type.get(holder.info.get("map_type", 0), "").removeprefix("BPF_MAP_TYPE_")
    what = "tail call" if kind == "PROG_ARRAY" else f"xdp {kind.lower().removesuffix('_hash')}"
    return Way(prog, f"{what} {number} of {holder.label}", via="map")


def ioctl_pointer(call: Call, model: Model) -> Way | None:
    """TUNSETSTEERINGEBPF and TUNSETFILTEREBPF: a pointer to the program's fd, -1 to detach."""
    prog = model.by_fd(call, "arg", "fd")
    what = call.command.removeprefix("TUNSET").removesuffix("EBPF").lower()
    target = f"tun {what} on {_file(call, 'fd')}"
    return Way(prog, target, verb="attached" if prog is not None else "detached")


def kcm_attach(call: Call, model: Model) -> Way | None:
    """SIOCKCMATTACH: a socket and the program that splits its stream."""
    prog = model.by_fd(call, "arg", "bpf_fd")
    return Way(prog, f"kcm parser of socket {_file(call, 'arg', 'fd')}")


def sockopt(call: Call, model: Model) -> Way | None:
    """setsockopt(SO_ATTACH_BPF, SO_ATTACH_REUSEPORT_EBPF, SO_DETACH_...)."""
    option = _name(call.attr("optname"), "SO_")
    what = "reuseport group of" if "reuseport" in option else "socket"
    target = f"{what} {_file(call, 'fd')}"
    if "detach" in option:
        return Way(None, target, verb="detached")
    prog = model.by_fd(call, "optval", "fd")
    return None if prog is None else Way(prog, target)


ROWS: Final[dict[str, Row]] = {
    "BPF_MAP_UPDATE_ELEM": map_update,
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
        self._done: dict[int, Attachment] = {}
        """By the id() of a perf event: what was attached to it."""

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
            return self._enabled(call)
        row = ROWS.get(call.command)
        way = None if row is None else row(call, self.model)
        if way is None:
            return []
        return self._told(call, way)

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
        if way.verb != "attached":
            for known in self.model.objects.values():
                gone = known is way.prog if way.verb == "detached" else known is not way.prog
                if gone and way.target in known.attached:
                    known.attached.remove(way.target)
        if way.prog is not None and way.verb != "detached":
            way.prog.attached.append(way.target)
        made: Object | None = call.notes["objects"].get((call.raw.ret or -1, EXIT))
        if made is not None and made.kind == "link":
            made.info["target"] = way.target
            made.info["prog"] = way.prog
        told = Attachment(
            way.verb, way.prog, way.target, steps, way.via, way.event, call.raw.pid, call.raw.tid
        )
        if way.event is not None and call.syscall.name == "ioctl":
            self._done[id(way.event)] = told
            self._held[call.raw.tid] = told
            return []
        return [told]

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

    def _enabled(self, call: Call) -> list[Attachment]:
        event = self.model.object(call.fact("fd"), call.raw.pid)
        held = self._held.get(call.raw.tid)
        step = Step("enable", call)
        if held is not None and held.event is event:
            held.steps.append(step)
            del self._held[call.raw.tid]
            return [held]
        earlier = None if event is None else self._done.get(id(event))
        if earlier is None:
            return []
        return [
            Attachment(
                "enabled",
                earlier.prog,
                earlier.target,
                [step],
                earlier.via,
                event,
                call.raw.pid,
                call.raw.tid,
            )
        ]

    def flush(self, tid: int | None = None) -> list[Attachment]:
        """What is held back, of a thread or of all."""
        if not self._held:
            return []
        tids = sorted(self._held) if tid is None else [tid]
        return [held for tid in tids if (held := self._held.pop(tid, None)) is not None]
