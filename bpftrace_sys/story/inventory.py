"""An inventory of a machine in words: objects as a trace knows them, and tables.

Pure: rows of strings, in the words of the ledger (summary.py).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from bpftrace_sys.common.escape import printable
from bpftrace_sys.story.objects import (
    BEFORE,
    MADE,
    Attachment,
    Link,
    Map,
    Object,
    PerfEvent,
    Prog,
    new_object,
)
from bpftrace_sys.story.standing import PlaceText
from bpftrace_sys.story.summary import RUNS, Table
from bpftrace_sys.trace.facts import Facts
from bpftrace_sys.trace.inventory import Holder, Inventory, ObjectState, Unseen
from bpftrace_sys.trace.kernel_fields import Info
from decoders.uapi import names

if TYPE_CHECKING:
    from bpftrace_sys.story.model import Model

LISTED: Final = 3
"""Of what holds or uses an object, named in a cell; JSON has all."""
TYPES: Final = {
    "prog": (names.bpf_prog_type, "BPF_PROG_TYPE_"),
    "map": (names.bpf_map_type, "BPF_MAP_TYPE_"),
    "link": (names.bpf_link_type, "BPF_LINK_TYPE_"),
}
KINDS: Final = {
    "prog": "programs", "map": "maps", "link": "links", "btf": "BTF", "perf_event": "perf events",
    "token": "tokens",
}  # fmt: skip
SIZES: Final = ("key_size", "value_size", "max_entries")
REMEMBERED: Final = 1 << 16
"""Objects of an opening that a model knows; a trace may hold lines without end."""
UNSEEN: Final = "something unseen"


def type_of(state: ObjectState) -> str:
    """``tracepoint``, ``hash``, ``tcx``; empty of BTF and perf events."""
    table, prefix = TYPES.get(state.kind, ({}, ""))
    number = state.info.number_or_none("type")
    name = state.info.text("type") if number is None else table.get(number, str(number))
    return printable(name.removeprefix(prefix).lower()) if table else ""


def object_of(state: ObjectState, place_text: PlaceText, origin: str = MADE) -> Object:
    """An object as a trace has it. Fills in its places' targets."""
    for place in state.places:
        if not place.target:
            place.target = place_text.target(place, state if state.kind == "prog" else None)
    found = new_object(state.kind, state.id, state.name, origin)
    found.pins = list(state.pins)
    targets = [place.target for place in state.places if place.target]
    info = state.info
    if isinstance(found, Prog):
        found.type, found.prog_type = type_of(state), info.number_or_none("type")
        found.tag = str(info.get("tag") or "")
        found.attached = targets
    elif isinstance(found, Map):
        found.type, found.map_type = type_of(state), info.number_or_none("type")
        found.key_size = info.number_or_none("key_size")
        found.value_size = info.number_or_none("value_size")
        found.max_entries = info.number_or_none("max_entries")
        found.attached = targets
    elif isinstance(found, Link):
        found.type = type_of(state)
        found.target = state.places[0].target if state.places else ""
    elif isinstance(found, PerfEvent):
        found.name = place_text.perf_event(info, None) if "fd_type" in info else ""
    return found


class Opening:
    """Lets a model know what was there before the first call."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._states: dict[tuple[str, int], ObjectState] = {}
        self._place_text = PlaceText(model.facts, self._states)
        self._count = 0

    def take(self, state: ObjectState) -> Object:
        """The object of a state, which the model knows from now on."""
        model = self._model
        if state.holders:
            model.facts.concerning(state.holders[0].pid)
        known = object_of(state, self._place_text, BEFORE)
        if state.id is None or self._count > REMEMBERED:
            return known
        self._count += 1
        if isinstance(known, PerfEvent):
            known.id = None  # as the model has them: by number only
            model.events_by_id[state.id] = known
            prog = model.prog_by_id(state.info.number("attached_prog"))
            if prog is not None:
                known.prog = prog
                pid = state.holders[0].pid if state.holders else 0
                # What an ENABLE or DISABLE then tells of.
                known.attachment = Attachment(
                    "attached", prog, known.name or "perf event ?", via="perf event", event=known,
                    pid=pid, tid=pid,
                )  # fmt: skip
                if known.name:
                    model.passing.add(known.name)
            return known
        self._states[state.kind, state.id] = state
        if isinstance(known, Link):
            known.prog = model.prog_by_id(state.info.number("prog_id"))
        model.objects[state.kind, state.id] = known
        return known


def counted(count: int, kind: str, more: str = "") -> str:
    """``3 maps``, ``1 more map``."""
    words = KINDS.get(kind, f"{kind}s")
    return f"{count}{more} {words if count != 1 else words.removesuffix('s')}"


def _and_more(found: list[str], more: int = 0) -> str:
    left = len(found) - LISTED + more
    return ", ".join(found[:LISTED]) + (f" and {left} more" if left > 0 else "")


def _who(holder: Holder) -> str:
    return f"{holder.pid} ({printable(holder.comm)})"


def _size(count: object) -> str:
    """Bytes, to be read as a column."""
    if not isinstance(count, int):
        return ""
    for unit, shift in (("G", 30), ("M", 20), ("K", 10)):
        if count >= 10 << shift:
            return f"{count >> shift}{unit}"
    return str(count)


def _when(nanoseconds: object) -> str:
    """Local time, to the second."""
    if not isinstance(nanoseconds, int):
        return ""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(nanoseconds // 10**9))
    except (OverflowError, ValueError, OSError):
        return ""


class Machine:
    """An inventory, and how its objects hang together."""

    def __init__(
        self, inventory: Inventory, facts: Facts, earlier: Inventory | None = None
    ) -> None:
        """``earlier``: the look before, whose counts of runs are the base for those a second."""
        self.inventory = inventory
        self.states = {
            (state.kind, state.id): state
            for state in inventory.objects
            if state.id is not None
        }
        self.place_text = PlaceText(facts, self.states)
        self.objects = [(state, object_of(state, self.place_text)) for state in inventory.objects]
        self._comms = {
            holder.pid: holder.comm for state in inventory.objects for holder in state.holders
        }
        self._holding = self._held()
        self._earlier = earlier
        before = earlier.objects if earlier is not None else ()
        self._runs = {state.id: state.info for state in before if state.kind == "prog"}

    def _held(self) -> dict[tuple[str, int], list[str]]:
        """What of the kernel's holds an object, besides fds and pins."""
        found: dict[tuple[str, int], list[str]] = {}

        def held(kind: str, number: object, by: str) -> None:
            if isinstance(number, int) and number:
                found.setdefault((kind, number), []).append(by)

        for state in self.inventory.objects:
            words = (state.kind, printable(state.name), f"id={state.id}")
            label = " ".join(word for word in words if word)
            if state.kind == "link":
                held("prog", state.info.get("prog_id"), label)
                held("map", state.info.get("map_id"), label)
            elif state.kind == "prog":
                held("btf", state.info.get("btf_id"), label)
                for number in state.info.numbers("map_ids"):
                    held("map", number, label)
                for place in state.places:
                    if "link_id" not in place.info:
                        held("prog", state.id, self._kept(place.way, place.info))
            elif state.kind == "map":
                held("btf", state.info.get("btf_id"), label)
                for place in state.places:
                    if "link_id" not in place.info and state.id is not None:
                        held("map", state.id, "the kernel")
        return {key: list(dict.fromkeys(by)) for key, by in found.items()}

    def _kept(self, way: str, info: Info) -> str:
        if way == "perf_event" and "pid" in info:
            pid = info.number("pid")
            return f"perf event of {pid} ({printable(self._comms.get(pid, '?'))})"
        if way in ("prog_array", "devmap", "cpumap", "struct_ops"):
            return self.place_text.label("map", info.number("map_id"))
        return "its attachment"

    def held_by(self, state: ObjectState) -> str:
        """Who and what keeps an object, as far as it was seen."""
        reasons = [_who(holder) for holder in state.holders]
        reasons += [f"pin {printable(pin)}" for pin in state.pins]
        if state.id is not None:
            reasons += self._holding.get((state.kind, state.id), ())
        if state.kind == "btf" and state.info.get("kernel_btf"):
            reasons.insert(0, "the kernel")
        return _and_more(reasons) or UNSEEN

    def _of(self, kind: str) -> Iterable[tuple[ObjectState, Object]]:
        return [(state, known) for state, known in self.objects if state.kind == kind]

    def facts_of(self, state: ObjectState, known: Object) -> list[tuple[str, str]]:
        """A program in a few lines: what each is, and how it reads."""
        info = state.info
        uid = info.get("created_by_uid")
        loaded = _when(info.get("loaded"))
        maps = [self.place_text.label("map", number) for number in info.numbers("map_ids")]
        runs = info.number("run_cnt")
        took = info.number("run_time_ns") // runs if runs else 0
        lines = [
            ("type", type_of(state)),
            ("loaded", f"{loaded} by uid {uid}" if loaded else ""),
            ("maps", ", ".join(maps)),
            ("runs", f"{runs}, {took} ns a run" if runs else ""),
            ("attached", ", ".join(known.attached) or "not seen"),
            ("held by", self.held_by(state)),
        ]
        return [(role, text) for role, text in lines if text]

    # ------------------------------------------------------------ tables

    def programs(self) -> Table:
        """Names, sizes, who loaded them when, runs where they are counted, where and by whom."""
        counted = any(state.info.get("run_cnt") for state, _ in self._of("prog"))
        runs = RUNS if counted else ()
        rate = ("runs/s",) if counted and self._runs else ()
        columns = (
            "name", "type", "id", "tag", "xlated", "jited", "uid", "loaded", *runs, *rate,
            "attached to", "held by",
        )  # fmt: skip
        right = frozenset({"id", "xlated", "jited", "uid", *runs, *rate})
        table = Table("programs", columns, right=right)
        for state, known in self._of("prog"):
            info = state.info
            count = info.number("run_cnt")
            cells = [
                printable(state.name) or "(anonymous)",
                type_of(state),
                str(state.id),
                str(info.get("tag", "")),
                _size(info.get("xlated_prog_len")),
                _size(info.get("jited_prog_len")) if info.get("jited_prog_len") else "",
                str(info.get("created_by_uid", "")),
                _when(info.get("loaded")),
            ]
            if counted:
                took = info.number("run_time_ns")
                cells += [str(count), str(took // count)] if count else ["", ""]
            if rate:
                cells.append(self._rate(state))
            targets = [printable(target) for target in known.attached]
            cells += [_and_more(targets) or "not seen attached", self.held_by(state)]
            table.rows.append(tuple(cells))
        return table

    def _rate(self, state: ObjectState) -> str:
        earlier = self._runs.get(state.id)
        assert self._earlier is not None
        seconds = (self.inventory.time - self._earlier.time) / 1e9
        if earlier is None or seconds <= 0:
            return ""
        runs = state.info.number("run_cnt") - earlier.number("run_cnt")
        return f"{runs / seconds:.0f}" if runs > 0 else ""

    def maps(self) -> Table:
        """Names, sizes, and which programs use them."""
        table = Table(
            "maps",
            ("name", "type", "id", "key", "value", "entries", "memory", "held by"),
            right=frozenset({"id", "key", "value", "entries", "memory"}),
        )
        for state, _ in self._of("map"):
            info = state.info
            table.rows.append(
                (
                    printable(state.name) or "(anonymous)",
                    type_of(state),
                    str(state.id),
                    *(str(info.get(name, "")) for name in SIZES),
                    _size(info.get("memlock")),
                    self.held_by(state),
                )
            )
        return table

    def links(self) -> Table:
        """What they hold where."""
        table = Table(
            "links", ("id", "type", "program", "target", "held by"), right=frozenset({"id"})
        )
        for state, known in self._of("link"):
            number = state.info.number("prog_id")
            prog = self.states.get(("prog", number))
            name = (printable(prog.name) if prog is not None else "") or "(anonymous)"
            table.rows.append(
                (
                    str(state.id),
                    type_of(state),
                    f"{name} id={number}" if number else "",
                    printable((isinstance(known, Link) and known.target) or "?"),
                    self.held_by(state),
                )
            )
        return table

    def btf(self) -> Table:
        """Whose, and how large."""
        table = Table("BTF", ("id", "name", "size", "held by"), right=frozenset({"id", "size"}))
        for state, _ in self._of("btf"):
            table.rows.append(
                (
                    str(state.id),
                    printable(state.name) or "(anonymous)",
                    _size(state.info.get("btf_size")),
                    self.held_by(state),
                )
            )
        return table

    def holders(self) -> Table:
        """Processes, and how much each has open."""
        table = Table(
            "processes", ("pid", "comm", "exe", "cgroup", "has open"), right=frozenset({"pid"})
        )
        who: dict[int, Holder] = {}
        what: dict[int, Counter[str]] = {}
        for state, _ in self.objects:
            for holder in state.holders:
                who.setdefault(holder.pid, holder)
                what.setdefault(holder.pid, Counter())[state.kind] += 1
        for pid, holder in sorted(who.items()):
            having = ", ".join(
                counted(what[pid][kind], kind) for kind in KINDS if what[pid][kind]
            )
            table.rows.append(
                (str(pid), printable(holder.comm), printable(holder.exe), printable(holder.cgroup),
                 having)
            )  # fmt: skip
        return table

    def tables(self) -> list[Table]:
        """All that have rows."""
        made = (
            self.programs(), self.maps(), self.links(), self.btf(), self.holders(),
            unseen_table(self.inventory.unseen),
        )  # fmt: skip
        return [table for table in made if table.rows]


def unseen_table(unseen: Iterable[Unseen]) -> Table:
    """What could not be looked at."""
    table = Table("not seen", ("what", "why"))
    table.rows += [(printable(each.what), printable(each.why)) for each in unseen]
    return table


