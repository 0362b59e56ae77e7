"""What a program is attached to, in words."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Link, Object, Prog, text_of
from bpftrace_sys.story.targets import in_file, printable
from decoders.call import Call, inner_value
from decoders.uapi import const
from decoders.values import Absent, Array, Int, Name, Text, Value


def _name(value: Value | None, prefix: str = "BPF_") -> str:
    value = inner_value(value)
    if isinstance(value, Name):
        return (value.name or str(value.value)).removeprefix(prefix).lower()
    return ""


def _device(value: Value | None) -> str:
    value = inner_value(value)
    if isinstance(value, Int):
        return value.note or f"ifindex {value.value}"
    return "?"


XDP_MODES: Final = ((2, "skb"), (4, "drv"), (8, "hw"))
"""XDP_FLAGS_SKB_MODE and so on (include/uapi/linux/if_link.h)."""


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


def _btf_target(prog: Object | None, model: Model) -> str:
    """What a program loaded with attach_btf_id belongs to: ``fentry tcp_connect``."""
    if prog is None or prog.call is None:
        return ""
    load = prog.call
    kind = _name(load.attr("attr", "expected_attach_type")).removeprefix("trace_")
    kind = {"modify_return": "fmod_ret", "lsm_mac": "lsm", "raw_tp": "tp_btf"}.get(kind, kind)
    if isinstance(prog, Prog) and prog.type == "ext":
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
    found = inner_value(value)
    if not isinstance(found, Array):
        return ""
    words = []
    for item in found.items[:limit]:
        item = inner_value(item) or item
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
    found = inner_value(value)
    if not isinstance(found, Array):
        return "?"
    words = [
        in_file(path, item.value, model.facts)
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
    if asked is None and ifindex is not None:
        asked = call.raw.extra.xdp_modes.get(ifindex)
    return printable(asked or "default")


def device(ifindex: int, call: Call, model: Model) -> str:
    """An interface's name as the call's thread knew it."""
    name = call.raw.extra.devices.get(ifindex)
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


def target_of(link: Link) -> str:
    """What a link is on, or the link itself where that was not seen."""
    return link.target or link.label
