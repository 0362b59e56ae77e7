"""Where programs stand attached, in the words in which a trace tells attachments.

From what a look at the machine found (trace/inventory.py), or from a link's fdinfo: the
fields have the same names. Rows by the way of attaching.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from bpftrace_sys.common.escape import printable
from bpftrace_sys.story.targets import counted, hook_name, in_file
from bpftrace_sys.trace.facts import Facts
from bpftrace_sys.trace.inventory import ObjectState, Place
from bpftrace_sys.trace.kernel_fields import Info
from decoders.formats.netlink import parent_name
from decoders.raw import FdFact
from decoders.uapi import const, names, system

SHOWN: Final = 3
"""Functions of a link on many that are named."""
GONE: Final = "(detached)"
"""Of a link that is on nothing any more."""
VMLINUX: Final = 1
"""The id of the kernel's own BTF."""
TRACING: Final = {"modify_return": "fmod_ret", "lsm_mac": "lsm", "raw_tp": "tp_btf"}
"""Attach types that are better known by another name, without trace_."""
PREFIXES: Final = ("btf_trace_", "bpf_lsm_", "bpf_iter_")

class PlaceText:
    """Puts places into words; ``states``: objects whose names were seen, by (kind, id)."""

    def __init__(
        self, facts: Facts, states: Mapping[tuple[str, int], ObjectState] | None = None
    ) -> None:
        self.facts = facts
        self.states = states or {}

    def target(self, place: Place, prog: ObjectState | None = None) -> str:
        """``tcx ingress on lo``; empty where nothing is known of it."""
        row = ROWS.get(place.way)
        text = "" if row is None else row(self, place.info, prog or self._prog(place.info))
        netns = place.info.get("netns")
        return f"{text} in net:[{netns}]" if text and netns and place.way != "netns" else text

    def _prog(self, info: Info) -> ObjectState | None:
        return self.states.get(("prog", info.number("prog_id")))

    def label(self, kind: str, number: int) -> str:
        """``map jumps id=7``."""
        state = self.states.get((kind, number))
        name = state.name if state is not None else self.facts.fact(kind, number) or ""
        return " ".join(word for word in (kind, printable(name), f"id={number}") if word)

    # ------------------------------------------------------------ rows

    def perf_event(self, info: Info, prog: ObjectState | None) -> str:
        kind, probe = info.text("fd_type"), printable(info.text("probe"))
        offset, addr = info.number("probe_offset"), info.number("probe_addr")
        if kind == "event":
            return counted(info.number("event_type"), info.number("config"))
        if kind in ("uprobe", "uretprobe"):
            return f"{kind} {probe}:{in_file(probe, offset, self.facts)}"
        if kind == "tracepoint":
            return f"tracepoint {tracepoint(probe, self.facts)}"
        if kind in ("kprobe", "kretprobe"):
            if not probe:
                probe = (self.facts.fact("ksym", addr) or hex(addr)) if addr else "?"
            return f"{kind} {probe}" + (f"+{offset:#x}" if offset else "")
        return f"{kind} {probe}".strip() if kind else "perf event ?"

    def raw_tracepoint(self, info: Info, prog: ObjectState | None) -> str:
        name = printable(info.text("tp_name") or "?")
        typed = prog is not None and prog.info.get("type") == const.BPF_PROG_TYPE_TRACING
        return f"tp_btf {name}" if typed else f"raw tracepoint {name}"

    def tracing(self, info: Info, prog: ObjectState | None) -> str:
        kind = attach_type(info).removeprefix("trace_")
        kind = TRACING.get(kind, kind)
        if prog is not None and prog.info.get("type") == const.BPF_PROG_TYPE_EXT:
            kind = "freplace"
        holder, number = info.number("target_obj_id"), info.number("target_btf_id")
        return f"{kind} {self.function(holder, number, prog, kind == 'freplace')}"

    def function(
        self, holder: int, number: int, prog: ObjectState | None, replaces: bool
    ) -> str:
        """A function by its BTF id: the kernel's, a module's, or another program's."""
        name: str | None = None
        where = ""
        btf = self.states.get(("btf", holder))
        # bpf_trampoline_compute_key(): the id is a program's where it is on one, else BTF's.
        if replaces or (btf is None and holder != VMLINUX):
            where = f" of {self.label('prog', holder)}"
            name = self.facts.fact(f"func_of {holder}", number)
        elif holder == VMLINUX:
            name = self.facts.fact("btf_vmlinux", number)
        elif btf is not None:
            where = f" [{printable(btf.name)}]"
            name = self.facts.fact(f"module_type {btf.name}", number)
        if not name:
            return f"BTF id {number}{where}"
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        return printable(name) + where

    def cgroup(self, info: Info, prog: ObjectState | None) -> str:
        hook = hook_name(attach_type(info))
        if hook == "lsm_cgroup" and prog is not None:
            number = prog.info.number("attach_btf_id")
            hook = f"lsm {self.function(VMLINUX, number, prog, False)}"
        if info.get("path"):
            return f"{hook} on {printable(info.text('path'))}"
        return f"{hook} on cgroup {_cgroup_id(info)}" if info.get("cgroup_id") else f"{hook} {GONE}"

    def device(self, info: Info) -> str:
        """An interface's name, as the look at its namespace found it."""
        ifindex = info.number("ifindex")
        if info.get("device"):
            return printable(info.text("device"))
        return printable(self.facts.fact("device", ifindex) or f"ifindex {ifindex}")

    def xdp(self, info: Info, prog: ObjectState | None) -> str:
        mode = info.text("mode")
        if not info.get("ifindex"):
            return f"xdp {GONE}"
        return f"xdp on {self.device(info)}" + (f" ({printable(mode)})" if mode else "")

    def hooked(self, info: Info, prog: ObjectState | None) -> str:
        """tcx and netkit."""
        hook = attach_type(info).replace("_", " ")
        return f"{hook} on {self.device(info)}" if info.get("ifindex") else f"{hook} {GONE}"

    def tc(self, info: Info, prog: ObjectState | None) -> str:
        return self._filtered("tc", info)

    def action(self, info: Info, prog: ObjectState | None) -> str:
        if "ifindex" not in info:
            return f"tc action, index {info.get('index', 0)}"
        return self._filtered("tc action", info)

    def _filtered(self, what: str, info: Info) -> str:
        parent = info.number("parent")
        hook = parent_name(parent)
        if hook in ("ingress", "egress"):
            return f"{what} {hook} on {self.device(info)}"
        return f"{what} on {self.device(info)} parent {parent >> 16:x}:{parent & 0xFFFF:x}"

    def netns(self, info: Info, prog: ObjectState | None) -> str:
        netns = info.get("netns_ino")
        return f"{attach_type(info)} on net:[{netns}]" if netns else f"{attach_type(info)} {GONE}"

    def sockmap(self, info: Info, prog: ObjectState | None) -> str:
        return f"{attach_type(info)} on {self.label('map', info.number('map_id'))}"

    def prog_array(self, info: Info, prog: ObjectState | None) -> str:
        return self._slot("tail call", info)

    def devmap(self, info: Info, prog: ObjectState | None) -> str:
        return self._slot("xdp devmap", info)

    def cpumap(self, info: Info, prog: ObjectState | None) -> str:
        return self._slot("xdp cpumap", info)

    def _slot(self, what: str, info: Info) -> str:
        return f"{what} {info.get('index')} of {self.label('map', info.number('map_id'))}"

    def tracing_multi(self, info: Info, prog: ObjectState | None) -> str:
        return f"{attach_type(info).removeprefix('trace_')} {self._addressed(info)}"

    def struct_ops(self, info: Info, prog: ObjectState | None) -> str:
        number = info.number("map_id")
        state = self.states.get(("map", number))
        value = state.info.number("btf_vmlinux_value_type_id") if state is not None else 0
        name = self.facts.fact("btf_vmlinux", value) if value else None
        if name is None:
            name = state.name if state is not None else self.facts.fact("map", number) or "?"
        text = f"struct_ops {printable(name).removeprefix('bpf_struct_ops_')}"
        if "member" not in info:
            return text
        member = printable(info.text("member")).removeprefix("data.")
        return f"{text}.{member} of {self.label('map', number)}"

    def iter(self, info: Info, prog: ObjectState | None) -> str:
        name = f"iter {printable(info.text('target_name') or '?')}"
        if info.get("map_id"):
            return f"{name} over {self.label('map', info.number('map_id'))}"
        if info.get("cgroup_id"):
            return f"{name} over cgroup {_cgroup_id(info)}"
        for who in ("tid", "pid"):
            if info.get(who):
                return f"{name} over {who} {info[who]}"
        return name

    def netfilter(self, info: Info, prog: ObjectState | None) -> str:
        pf = _short(system.nfproto, info.number("pf"), "NFPROTO_")
        hook = _short(system.nf_inet_hooks, info.number("hooknum"), "NF_INET_")
        return f"netfilter {pf} {hook} priority {info.get('priority', 0)}"

    def kprobe_multi(self, info: Info, prog: ObjectState | None) -> str:
        return f"{_multi(info, 'kprobe')} {self._addressed(info)}"

    def _addressed(self, info: Info) -> str:
        """Functions of the kernel by their addresses, which are 0 where they are hidden."""
        addrs = info.numbers("addrs")
        words = [
            printable(self.facts.fact("ksym", addr) or hex(addr)) for addr in addrs[:SHOWN] if addr
        ]
        return _listed(words, info.number("count") or len(addrs))

    def uprobe_multi(self, info: Info, prog: ObjectState | None) -> str:
        path = printable(info.text("path") or "?")
        offsets = info.numbers("offsets")
        words = [in_file(path, each, self.facts) for each in offsets[:SHOWN]]
        named = _listed(words, info.number("count") or len(offsets))
        return f"{_multi(info, 'uprobe')} {path}:{named}"


ROWS: Final[dict[str, Callable[[PlaceText, Info, ObjectState | None], str]]] = {
    "perf_event": PlaceText.perf_event,
    "raw_tracepoint": PlaceText.raw_tracepoint,
    "tracing": PlaceText.tracing,
    "cgroup": PlaceText.cgroup,
    "xdp": PlaceText.xdp,
    "tcx": PlaceText.hooked,
    "netkit": PlaceText.hooked,
    "tc": PlaceText.tc,
    "action": PlaceText.action,
    "netns": PlaceText.netns,
    "sockmap": PlaceText.sockmap,
    "prog_array": PlaceText.prog_array,
    "devmap": PlaceText.devmap,
    "cpumap": PlaceText.cpumap,
    "struct_ops": PlaceText.struct_ops,
    "iter": PlaceText.iter,
    "netfilter": PlaceText.netfilter,
    "kprobe_multi": PlaceText.kprobe_multi,
    "tracing_multi": PlaceText.tracing_multi,
    "uprobe_multi": PlaceText.uprobe_multi,
}
NEEDED: Final = {
    "perf": "type", "perf_event": "fd_type", "raw_tracepoint": "tp_name", "iter": "target_name",
    "xdp": "ifindex", "tcx": "ifindex", "netkit": "ifindex", "cgroup": "attach_type",
    "netns": "attach_type", "tracing": "target_btf_id",
}  # fmt: skip
"""What fdinfo has to show of a link, for its target to be told from it."""


def link_target(fact: FdFact, facts: Facts) -> str:
    """What a link is on, by its fdinfo (bpf_*_link_show_fdinfo in the kernel); or nothing."""
    info = fact.info
    way = str(info.get("link_type"))
    needed = NEEDED.get(way)
    if needed is None or needed not in info:
        return ""
    if way == "tracing" and info.get("target_obj_id") != VMLINUX:
        return ""
    return PlaceText(facts).target(Place(way, Info(info)))


def via(place: Place) -> str:
    """By what means: ``link``, ``perf event``, ``netlink``, or empty."""
    if place.info.get("link_id"):
        return "link"
    return {"perf_event": "perf event", "xdp": "netlink", "tc": "netlink", "action": "netlink"}.get(
        place.way, ""
    )


def attach_type(info: Info) -> str:
    """``tcx_ingress``."""
    number = info.number("attach_type")
    return names.bpf_attach_type.get(number, str(number)).removeprefix("BPF_").lower()


def tracepoint(name: str, facts: Facts) -> str:
    """A tracepoint with its category, where there is but one of that name."""
    return printable(facts.fact(f"tracepoint_named {name}", 0) or name)


def _short(table: Mapping[int, str], number: int, prefix: str) -> str:
    return table.get(number, str(number)).removeprefix(prefix).lower()


def _cgroup_id(info: Info) -> str:
    return f"id {info.get('cgroup_id')}"


def _multi(info: Info, way: str) -> str:
    # BPF_F_KPROBE_MULTI_RETURN and BPF_F_UPROBE_MULTI_RETURN are the same bit.
    what = f"{way[0]}retprobe" if info.number("flags") & const.BPF_F_KPROBE_MULTI_RETURN else way
    return f"{what}_multi"


def _listed(words: list[str], total: int) -> str:
    more = total - len(words)
    if not words:
        return f"{total} functions" if total else "?"
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")
