# SPDX-License-Identifier: GPL-2.0-only
"""Whether a target in bpfstrace's words is the place that bpftool shows."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection, SymbolTableSection

from bpftool_compare.view import Place

ROOT_OF: Final = re.compile(r"^/proc/\d+/root(?=/)")
Match = Callable[[Place, str], bool]


@cache
def symbols_of(path: str) -> dict[int, frozenset[str]]:
    """The names that an ELF file, or its file of debug symbols, has for addresses."""
    found: dict[int, set[str]] = {}
    for each in (path, _debug_file(path)):
        try:
            with Path(each).open("rb") as file:
                for section in ELFFile(file).iter_sections():
                    if isinstance(section, SymbolTableSection):
                        for symbol in section.iter_symbols():
                            name = symbol.name.partition("@")[0]
                            found.setdefault(symbol["st_value"], set()).add(name)
        except (OSError, ELFError):
            pass
    return {address: frozenset(names) for address, names in found.items()}


def _debug_file(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            section = ELFFile(file).get_section_by_name(".note.gnu.build-id")
            notes = list(section.iter_notes()) if isinstance(section, NoteSection) else []
    except (OSError, ELFError):
        return ""
    number = str(notes[0]["n_desc"]) if notes else ""
    return f"/usr/lib/debug/.build-id/{number[:2]}/{number[2:]}.debug" if number else ""


def address_of(path: str, offset: int) -> int:
    """The address at which an offset of an ELF file stands by its segments."""
    try:
        with Path(path).open("rb") as file:
            for segment in ELFFile(file).iter_segments("PT_LOAD"):
                begin = int(segment["p_offset"])
                if begin <= offset < begin + segment["p_filesz"]:
                    return offset - begin + int(segment["p_vaddr"])
    except (OSError, ELFError):
        pass
    return offset


def _in_file(path: str, offset: int, told: str) -> bool:
    """``/lib/libc.so.6:getppid`` for a file and an offset in it."""
    file, _, place = told.rpartition(":")
    if not os.path.exists(path):  # of a process that has ended
        path, file = (ROOT_OF.sub("", name) for name in (path, file))
    place = place.partition(" (")[0]  # what never fires has a remark
    same = file == path or (
        os.path.exists(file) and os.path.exists(path) and os.path.samefile(file, path)
    )
    name, _, distance = place.partition("+0x")
    address = address_of(path, offset) - (int(distance, 16) if distance else 0)
    return same and (place == hex(offset) or name in symbols_of(path).get(address, ()))


def _uprobe(place: Place, target: str) -> bool:
    entry = place.entry
    kinds = {"uprobe", "uretprobe"}
    kind, _, told = target.partition(" ")
    if kind not in kinds:
        return False
    if "retprobe" in entry and entry["retprobe"] != (kind == "uretprobe"):
        return False
    if entry.get("fd_type", kind) != kind:
        return False
    path = entry.get("filename") or entry.get("file") or ""
    told = re.sub(r", (pid \d+|CPUs? [\d,-]+)$", "", told)
    return _in_file(path, entry["offset"], told)


def _uprobe_multi(place: Place, target: str) -> bool:
    entry = place.entry
    found = re.match(r"(uprobe|uretprobe)_(?:multi|session) (.*)$", target)
    if found is None or entry.get("retprobe", False) != (found[1] == "uretprobe"):
        return False
    path, _, rest = found[2].rpartition(":")
    told, _, more = rest.partition(" and ")
    names = told.split(", ")
    count = len(names) + (int(more.split()[0]) if more else 0)
    return count == entry["func_cnt"] and all(
        _in_file(entry["path"], func["offset"], f"{path}:{name}")
        for func, name in zip(entry["funcs"], names, strict=False)
    )


def _tracepoint(place: Place, target: str) -> bool:
    kind, _, name = target.partition(" ")
    probes = {"kprobe", "kretprobe", "uprobe", "uretprobe"}  # by tracefs, bpftool tells events
    event = place.entry["tracepoint"]
    return (kind == "tracepoint" and name.rpartition(":")[2] == event) or kind in probes


def _kprobe(place: Place, target: str) -> bool:
    kind, _, name = target.partition(" ")
    entry = place.entry
    offset = entry.get("offset", 0)
    told = (entry.get("func") or "") + (f"+{offset:#x}" if offset else "")
    return kind in ("kprobe", "kretprobe") and name.partition(" ")[0] == told


def _raw_tracepoint(place: Place, target: str) -> bool:
    name = place.entry.get("tp_name") or place.entry.get("tracepoint")
    return target in (f"raw tracepoint {name}", f"tp_btf {name}")


def _device(place: Place, target: str) -> bool:
    entry = place.entry
    name = entry.get("devname") or entry.get("name") or ""
    what = str(entry.get("attach_type") or entry.get("kind") or entry.get("mode") or "")
    words = target.split()
    if not name:
        return True  # bpftool 7.1 tells no device of a link
    kinds = {
        "tcx": what.removeprefix("tcx_").removeprefix("tcx/"),
        "netkit": what.removeprefix("netkit_").removeprefix("netkit/"),
        "xdp": "xdp",
    }
    return any(kind in target and side in target for kind, side in kinds.items()) and (
        name in words or name.partition("@")[0] in words
    )


def _net(place: Place, target: str) -> bool:
    entry = place.entry
    if entry["what"] == "xdp":
        modes = {"driver": "drv", "generic": "skb", "offload": "hw"}
        mode = modes.get(str(entry.get("mode")), "")
        return target.startswith("xdp on ") and entry["devname"] in target.split() and (
            f"({mode})" in target or "(default)" in target or "devmap" in target
        )
    if entry["what"] == "tc":
        return "tc" in target and entry["devname"] in target.split()
    if entry["what"] == "flow_dissector":
        return target.startswith("flow_dissector")
    return True


def _cgroup(place: Place, target: str) -> bool:
    entry = place.entry
    kind = str(entry.get("attach_type", "")).removeprefix("cgroup_")
    hook, _, path = target.partition(" on ")
    known = {"cgroup_skb ingress": "inet_ingress", "cgroup_skb egress": "inet_egress"}
    said = known.get(hook, hook.removeprefix("cgroup_"))
    if "lsm" in kind:
        return hook.startswith("lsm")
    cgroup = str(entry.get("cgroup") or "")
    same = said == kind or (said, kind) in OLD_KINDS
    return same and (not cgroup or not path.startswith("/") or cgroup.rstrip("/") == path)


OLD_KINDS: Final = frozenset({("inet_ingress", "ingress"), ("inet_egress", "egress")})
"""How bpftool 7.1 calls attach types of cgroups, if not by their names."""


def _netns(place: Place, target: str) -> bool:
    return target.startswith(str(place.entry.get("attach_type", "")))


def _iter(place: Place, target: str) -> bool:
    entry = place.entry
    name = str(entry["target_name"])
    told = target.removeprefix("iter ")
    return told.partition(" ")[0] == name and all(
        f"{key} {entry[key]}" in target for key in ("tid", "pid") if key in entry
    )


def _netfilter(place: Place, target: str) -> bool:
    entry = place.entry
    hooks = ("pre_routing", "local_in", "forward", "local_out", "post_routing")
    families = {2: "ipv4", 10: "ipv6", 1: "inet"}
    return target == (
        f"netfilter {families.get(entry['pf'])} {hooks[entry['hook']]} priority {entry['prio']}"
    )


def _event(place: Place, target: str) -> bool:
    config = str(place.entry.get("event_config", ""))
    return not config or config.replace("cpu-clock", "cpu-clock") in target


def _perf_event(place: Place, target: str) -> bool:
    entry = place.entry
    if "tracepoint" in entry:
        return _tracepoint(place, target)
    if "file" in entry:
        return _uprobe(place, target)
    if "func" in entry:
        return _kprobe(place, target)
    return _event(place, target)


def _any(place: Place, target: str) -> bool:
    return True


PERF: Final[dict[str, Match]] = {
    "tracepoint": _tracepoint,
    "raw_tracepoint": _raw_tracepoint,
    "kprobe": _kprobe,
    "kretprobe": _kprobe,
    "uprobe": _uprobe,
    "uretprobe": _uprobe,
}
LINKS: Final[dict[str, Match]] = {
    "raw_tracepoint": _raw_tracepoint,
    "perf_event": _perf_event,
    "xdp": _device,
    "tcx": _device,
    "netkit": _device,
    "cgroup": _cgroup,
    "netns": _netns,
    "iter": _iter,
    "netfilter": _netfilter,
    "uprobe_multi": _uprobe_multi,
}


def same(place: Place, target: str) -> bool:
    """Whether the target can be the place; of kinds that bpftool tells nothing of it may."""
    if place.how == "perf":
        return PERF.get(str(place.entry["fd_type"]), _any)(place, target)
    if place.how == "link":
        return LINKS.get(str(place.entry["type"]), _any)(place, target)
    return {"net": _net, "cgroup": _cgroup}[place.how](place, target)
