"""What is there: the BPF objects of a machine at a moment, who has them, where they are attached.

The live machine is read into these (record/machine/inventory.py); a trace file keeps
them as lines; the story puts the words to them (story/inventory.py).
"""

from __future__ import annotations

import json
import re
from typing import Final

from bpftrace_sys.common.strict_json import dumps
from bpftrace_sys.trace.kernel_fields import Info
from decoders.records import dataclass, field

Line = dict[str, object]
"""An object of JSON."""

KINDS: Final = frozenset({"prog", "map", "link", "btf", "perf_event", "token"})
TEXTS: Final = frozenset(
    {"tag", "fd_type", "probe", "tp_name", "target_name", "path", "device", "mode", "member",
     "name", "program"}
)  # fmt: skip
LISTS: Final = frozenset({"map_ids", "addrs", "offsets", "fds"})
NUMBERS: Final = frozenset(
    {"attach_btf_id", "attach_btf_obj_id", "attach_type", "attached_prog", "btf_id", "btf_size",
     "btf_vmlinux_value_type_id", "cgroup_id", "config", "count", "created_by_uid", "event_type",
     "flags", "hooknum", "ifindex", "index", "jited_prog_len", "kernel_btf", "key_size", "link_id",
     "loaded", "map_id", "max_entries", "memlock", "netns", "netns_ino", "parent", "pf", "pid",
     "priority", "probe_addr", "probe_offset", "prog_id", "run_cnt", "run_time_ns",
     "target_btf_id", "target_obj_id", "tid", "value_size", "xlated_prog_len"}
)  # fmt: skip
"""Fields of ``info`` that words are made of, by what they hold. ``type`` is a number, or a text
where no more was known."""
_TAG: Final = re.compile("[0-9a-f]{1,64}")
TEXT_LIMIT: Final = 1 << 16
ITEMS_LIMIT: Final = 1 << 16


@dataclass(slots=True)
class Holder:
    """A process that has an object open."""

    pid: int
    comm: str
    fds: list[int] = field(default_factory=list)
    exe: str = ""
    """As /proc/PID/exe reads; empty where we may not know."""
    cgroup: str = ""
    """Its path in the unified hierarchy, as /proc/PID/cgroup has it."""


@dataclass(slots=True)
class Place:
    """Where a program (or a struct_ops map) is attached.

    ``way``: a link's type (``tcx``, ``cgroup``, ...), also where there is no link; or
    ``perf_event``, ``tc``, ``action``, ``prog_array``, ``devmap``, ``cpumap``.
    ``info``: which one, by the names of the kernel's fields; ``link_id`` where a link does
    it, ``pid`` and ``fd`` where an fd.
    """

    way: str
    info: Info = field(default_factory=Info)
    target: str = ""
    """In words; the story fills it in."""


@dataclass(slots=True)
class ObjectState:
    """An object as it was seen.

    ``info`` is its bpf_*_info and what fdinfo adds (``memlock``, ``frozen``), without
    what is zero because there is none.
    """

    kind: str
    id: int | None
    """None for a token, which has no id."""
    name: str = ""
    info: Info = field(default_factory=Info)
    places: list[Place] = field(default_factory=list)
    pins: list[str] = field(default_factory=list)
    holders: list[Holder] = field(default_factory=list)


@dataclass(slots=True)
class Unseen:
    """What could not be looked at: that nothing is told of it says nothing."""

    what: str
    why: str
    count: int = 1


@dataclass(slots=True)
class Inventory:
    """A look at the machine."""

    time: int
    """Nanoseconds since the epoch, when the look began."""
    objects: list[ObjectState] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)
    stats: bool = False
    """Whether the kernel counts runs (kernel.bpf_stats_enabled, BPF_ENABLE_STATS)."""


# ------------------------------------------------------------ lines


def holder_line(holder: Holder) -> Line:
    """A holder as JSON."""
    line: Line = {"pid": holder.pid, "comm": holder.comm, "fds": holder.fds}
    for name in ("exe", "cgroup"):
        if getattr(holder, name):
            line[name] = getattr(holder, name)
    return line


def place_line(place: Place) -> Line:
    """A place as JSON."""
    return {"way": place.way, "target": place.target, "info": place.info}


def places_text(places: list[Place]) -> str:
    """Places as the text of a fact."""
    return dumps([[place.way, place.info] for place in places])


def places_of(text: str) -> list[Place]:
    """The places of :func:`places_text`; those that are not well formed are left out."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    places = []
    for entry in found if isinstance(found, list) else ():
        try:
            way, info = entry
            places.append(Place(_text(way, "way"), _info(info)))
        except (ValueError, TypeError):
            continue
    return places


def kind_line(state: ObjectState) -> Line:
    """Which object, as JSON."""
    return {
        "kind": state.kind,
        **({"name": state.name} if state.name else {}),
        **({"id": state.id} if state.id is not None else {}),
    }


def state_line(state: ObjectState) -> Line:
    """An ObjectState as a line of JSON."""
    return {
        "type": "object",
        "object": kind_line(state),
        "info": state.info,
        "attached": [place_line(place) for place in state.places],
        "pins": state.pins,
        "holders": [holder_line(holder) for holder in state.holders],
    }


def unseen_line(unseen: Unseen) -> Line:
    """An Unseen as a line of JSON."""
    return {"type": "unseen", "what": unseen.what, "why": unseen.why, "count": unseen.count}


def state_of(line: Line) -> ObjectState:
    """The ObjectState of a line; ValueError if it is not well formed."""
    what = line.get("object")
    if not isinstance(what, dict) or what.get("kind") not in KINDS:
        raise ValueError("an object of no known kind")
    number = what.get("id")
    places = []
    for entry in _dicts(line.get("attached", []), "attached"):
        places.append(Place(_text(entry.get("way"), "way"), _info(entry.get("info", {}))))
    holders = [
        Holder(
            _int(entry.get("pid"), "pid"),
            _text(entry.get("comm", ""), "comm"),
            [_int(fd, "an fd") for fd in _list(entry.get("fds", []), "fds")],
            _text(entry.get("exe", ""), "exe"),
            _text(entry.get("cgroup", ""), "cgroup"),
        )
        for entry in _dicts(line.get("holders", []), "holders")
    ]
    return ObjectState(
        str(what["kind"]),
        None if number is None else _int(number, "id"),
        # A perf event's is made of its info.
        "" if what["kind"] == "perf_event" else _text(what.get("name", ""), "name"),
        _info(line.get("info", {})),
        places,
        [_text(pin, "a pin") for pin in _list(line.get("pins", []), "pins")],
        holders,
    )


def unseen_of(line: Line) -> Unseen:
    """The Unseen of a line; ValueError if it is not well formed."""
    return Unseen(
        _text(line.get("what"), "what"),
        _text(line.get("why"), "why"),
        _int(line.get("count", 1), "count"),
    )


def _int(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >> 64:
        raise ValueError(f"{what} is not a number")
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or len(value) > TEXT_LIMIT:
        raise ValueError(f"{what} is not a text")
    return value


def _list(value: object, what: str) -> list[object]:
    if not isinstance(value, list) or len(value) > ITEMS_LIMIT:
        raise ValueError(f"{what} is not a list")
    return value


def _dicts(value: object, what: str) -> list[Line]:
    found = [entry for entry in _list(value, what) if isinstance(entry, dict)]
    if len(found) != len(_list(value, what)):
        raise ValueError(f"{what} is not a list of objects")
    return found


def _info(value: object) -> Info:
    """Fields that we read have the type that we expect; of others nothing is known."""
    if not isinstance(value, dict):
        raise ValueError("info is not an object")
    for name, entry in value.items():
        if name in TEXTS:
            if name == "tag" and not _TAG.fullmatch(_text(entry, name)):
                raise ValueError("the tag is not in hex")
            _text(entry, name)
        elif name in LISTS:
            for each in _list(entry, name):
                _int(each, name)
        elif name in NUMBERS:
            if _int(entry, name) < 0 and name != "priority":
                raise ValueError(f"{name} is negative")
        elif name == "type" and not isinstance(entry, str):
            _int(entry, name)
    return Info(value)
