"""A look at the whole machine: which BPF objects there are, who has them, where they are attached.

One pass over the kernel's lists of ids, one over /proc, one each over cgroups, network
namespaces and BPF file systems; nothing is kept open and nothing changed. What could not be
looked at is said (unseen.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from typing import Any, Final

from bpftrace_sys.record.machine import bpf, unseen
from bpftrace_sys.record.machine.cgroups import Cgroups, cgroups
from bpftrace_sys.record.machine.map_contents import ENTRIES, Members, programs_in
from bpftrace_sys.record.machine.network import (
    Devices,
    each_namespace,
    named_namespaces,
    netns_of,
)
from bpftrace_sys.record.machine.object_info import ids, info_by_id, link_way
from bpftrace_sys.record.machine.open_objects import by_fd, event_info
from bpftrace_sys.record.machine.pins import pins
from bpftrace_sys.record.machine.processes import Open, Pass, namespaces, scan
from bpftrace_sys.trace.inventory import Holder, Inventory, ObjectState, Place, Unseen
from bpftrace_sys.trace.kernel_fields import Info
from decoders.uapi import const

KINDS: Final = ("prog", "map", "link", "btf")
BEHIND: Final = "the path leads over a file system that may never answer"
STATS: Final = "/proc/sys/kernel/bpf_stats_enabled"
NAME_LEN: Final = bpf.NAME_LEN
SLOTTED: Final = (
    const.BPF_MAP_TYPE_PROG_ARRAY,
    const.BPF_MAP_TYPE_CPUMAP,
    const.BPF_MAP_TYPE_DEVMAP,
    const.BPF_MAP_TYPE_DEVMAP_HASH,
)
"""Types of maps whose elements are looked at, up to ENTRIES."""
HOLDING: Final = (
    *SLOTTED,
    const.BPF_MAP_TYPE_STRUCT_OPS,
    const.BPF_MAP_TYPE_SOCKMAP,
    const.BPF_MAP_TYPE_SOCKHASH,
)
"""Types of maps to which programs are attached."""
NETNS_SAME: Final = ("netns_ino", "attach_type")
DEVICE_SAME: Final = ("ifindex", "attach_type", "netns", "mode", "parent", "handle")
"""Fields that are alike where a link and a device tell of the same place."""
DEVICE_LINKS: Final = frozenset({"xdp", "tcx", "netkit"})


class Look:
    """One look. :meth:`whole` for all that there is; :meth:`held` for what processes hold, of
    which :meth:`places` learns the slower part beforehand.

    ``members``: the fact ``ops_members`` of a struct_ops map, which takes vmlinux BTF.
    """

    def __init__(self, members: Members = lambda map_id: None) -> None:
        self._members = members
        self._found = Inventory(time.time_ns())
        self._boot = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._states: dict[tuple[str, int], ObjectState] = {}
        self._links: list[tuple[ObjectState, Place]] = []
        self._events: dict[int, ObjectState] = {}
        self._gone: dict[str, int] = {}
        self._btfs: dict[int, Any] = {}
        self._kinds_refused: set[str] = set()

    def whole(self) -> Inventory:
        """All objects of the machine, in the order of their kinds and ids."""
        found = self._found
        found.stats = stats_enabled()
        for kind in KINDS:
            self._listed(kind)
        seen = scan(but=os.getpid())
        self._opens(seen.opens)
        self._attachments(seen)
        self._pins(seen)
        self._holders(seen)
        self._tell(seen)
        return self._finished(netns_of("self"))

    def places(self, first: Pass) -> None:
        """Before :meth:`held`: where programs are attached, if processes have any open."""
        self._opens(first.opens)
        where = namespaces()
        if any(each.fact.kind in ("prog", "link", "perf_event") for each in first.opens):
            self._listed("link")
            self._attachments(where)
        self._pins(where)

    def held(self, seen: Pass) -> Inventory:
        """What a pass over processes found, and the programs and maps that this leads to."""
        self._opens(seen.opens)
        own = {(each.fact.kind, each.fact.id) for each in seen.opens}
        for (kind, number), state in list(self._states.items()):
            prog = state.info.number("prog_id") if kind == "link" and (kind, number) in own else 0
            if prog and self._state("prog", prog) is not None:
                own.add(("prog", prog))
        events = {each.fact.id for each in seen.opens if each.fact.kind == "perf_event"}
        self._events = {key: state for key, state in self._events.items() if key in events}
        for event in self._events.values():
            prog = event.info.number("attached_prog")
            if prog and self._state("prog", prog) is not None:
                own.add(("prog", prog))
        self._holders(seen)
        self._states = {key: state for key, state in self._states.items() if key in own}
        if seen.denied:
            self._found.unseen.append(unseen.processes_refused(seen.denied))
        if seen.cut:
            self._found.unseen.append(self._cut(seen))
        places = {netns_of(each.pid) for each in seen.opens}
        return self._finished(places.pop() if len(places) == 1 else 0)

    # ------------------------------------------------------------ objects

    def _listed(self, kind: str) -> None:
        try:
            for number in ids(kind):
                self._state(kind, number)
        except OSError as error:
            self._kinds_refused.add(kind)
            self._found.unseen.append(unseen.kind_unlisted(kind, error.errno or 0))

    def _state(self, kind: str, number: int, opened: Open | None = None) -> ObjectState | None:
        """The state of an object, asked for if it is the first time; None where it is gone."""
        known = self._states.get((kind, number))
        if known is not None:
            return known
        try:
            info = info_by_id(kind, number)
        except OSError as error:
            if error.errno == errno.ENOENT:
                self._gone[kind] = self._gone.get(kind, 0) + 1
                return None
            if opened is None:
                if error.errno in unseen.REFUSED and kind not in self._kinds_refused:
                    self._kinds_refused.add(kind)
                    self._found.unseen.append(unseen.kind_unlisted(kind, error.errno or 0))
                return None
            info = by_fd(opened)
        return self._add(kind, number, info)

    def _add(self, kind: str, number: int, info: Info) -> ObjectState:
        name = str(info.pop("name", ""))
        info.pop("id", None)
        if kind == "prog" and len(name) >= NAME_LEN:
            name = self._whole_name(number) or name
        if kind == "prog" and not info.get("xlated_prog_len"):
            # Hidden: no program is empty (bpf_prog_get_info_by_fd without CAP_BPF).
            info.pop("xlated_prog_len", None)
            info.pop("jited_prog_len", None)
        if "load_time" in info:
            info["loaded"] = self._boot + info.number("load_time")  # since the epoch
        state = self._states[kind, number] = ObjectState(kind, number, name, info)
        if kind == "link":
            self._link(state)
        return state

    def _whole_name(self, number: int) -> str | None:
        try:
            fd = bpf.fd_by_id("prog", number)
        except OSError:
            return None
        try:
            found = bpf.main_function(fd)
        finally:
            os.close(fd)
        if found is None:
            return None
        from decoders.formats import btf

        btf_id, type_id = found
        if btf_id not in self._btfs:
            blob = bpf.btf_data(btf_id)
            parsed = None
            if blob is not None:
                with contextlib.suppress(btf.BtfError):
                    parsed = btf.parse(blob)
            self._btfs[btf_id] = parsed
        known = self._btfs[btf_id]
        return None if known is None else known.name(type_id) or None

    def _link(self, state: ObjectState) -> None:
        """What a link is on; its program's place is the same."""
        number = state.info.get("type")
        way = link_way(number) if isinstance(number, int) else str(number or "")
        place = Place(way, Info({"link_id": state.id, **state.info}))
        place.info.pop("type", None)
        state.places.append(place)
        self._links.append((state, place))

    def _opens(self, opens: list[Open]) -> None:
        """Objects that somebody has open: those that were not listed are younger, or hidden."""
        for each in opens:
            number = each.fact.id
            if each.fact.kind == "perf_event":
                if number is not None and number not in self._events:
                    self._events[number] = ObjectState("perf_event", number, "", event_info(each))
            elif number is not None:
                self._state(each.fact.kind, number, each)

    # ------------------------------------------------------------ attachments

    def _attachments(self, seen: Pass) -> None:
        """Places of programs: by link, by perf event, on devices, in namespaces, cgroups, maps."""
        groups = cgroups()
        devices = list(each_namespace({**seen.netns, **named_namespaces()}))
        for link, place in self._links:
            self._locate(place, groups, devices)
            prog = link.info.number("prog_id")
            if prog and not detached(place):
                self._attach(prog, place)
        for prog, place in groups.progs:
            self._attach(prog, place, ("cgroup_id", "attach_type"))
        for device in devices:
            for prog, place in device.progs:
                self._attach(prog, place, NETNS_SAME if place.way == "netns" else DEVICE_SAME)
        for state in self._events.values():
            self._attach_event(state)
        for state in [state for state in self._states.values() if state.kind == "map"]:
            self._inside(state)
        self._unseen_places(groups, devices)

    def _attach(self, prog: int, place: Place, same: tuple[str, ...] = ()) -> None:
        """Puts a place to a program, unless a link of it is there, alike in the fields ``same``."""
        state = self._state("prog", prog)
        if state is None:
            return
        for known in state.places if same else ():
            if known.way == place.way and all(
                known.info.get(name) == place.info.get(name) for name in same
            ):
                known.info = Info(place.info | known.info)
                return
        state.places.append(place)

    def _attach_event(self, event: ObjectState) -> None:
        prog = event.info.number("attached_prog")
        if not prog:
            return
        state = self._state("prog", prog)
        if state is not None and self._completed(event, state):
            return
        probe = ("fd_type", "probe", "probe_offset")
        for known in state.places if state is not None else ():
            if known.way == "perf_event" and all(
                known.info.get(name, 0) == event.info.get(name, 0) for name in probe
            ):
                if "link_id" in known.info:
                    return
                if known.info.get("pid") == event.info.get("pid"):
                    known.info["fds"] = [*known.info.numbers("fds"), event.info.number("fd")]
                    return
        if state is not None:
            info = Info(event.info)
            del info["attached_prog"]
            info["fds"] = [info.pop("fd")]
            state.places.append(Place("perf_event", info))

    def _completed(self, event: ObjectState, prog: ObjectState) -> bool:
        """Whether an event tells what the only link of its program is on.

        Before Linux 6.6 the kernel says nothing of such a link (bpf_perf_link_fill_link_info).
        """
        links = [place for place in prog.places if place.way == "perf_event"]
        events = [
            each for each in self._events.values() if each.info.get("attached_prog") == prog.id
        ]
        if len(links) != 1 or len(events) != 1 or links[0].info.get("fd_type"):
            return False
        probe = ("fd_type", "probe", "probe_offset", "probe_addr")
        links[0].info |= {name: event.info[name] for name in probe if name in event.info}
        return "link_id" in links[0].info

    def _locate(self, place: Place, groups: Cgroups, devices: list[Devices]) -> None:
        """Adds a cgroup's path and a device's name to where a link is."""
        if place.way == "cgroup":
            path = groups.paths.get(place.info.number("cgroup_id"))
            if path is not None:
                place.info["path"] = path
        elif place.way in DEVICE_LINKS:
            for device in devices:
                for prog, where in device.progs:
                    if (
                        prog == place.info.get("prog_id")
                        and where.way == place.way
                        and where.info.get("ifindex") == place.info.get("ifindex")
                        and where.info.number("link_id") in (0, place.info["link_id"])
                        and where.info.get("attach_type") == place.info.get("attach_type")
                    ):
                        place.info = Info(where.info | place.info)
                        return

    def _inside(self, state: ObjectState) -> None:
        kind = state.info.get("type")
        if kind not in HOLDING or state.id is None:
            return
        sizes = (state.info.number("max_entries"), state.info.number("value_size"))
        if kind in SLOTTED and sizes[0] > ENTRIES:
            what = f"programs in map {state.name or state.id} id={state.id} from {ENTRIES} on"
            self._found.unseen.append(Unseen(what, "there are too many entries"))
        try:
            for prog, place in programs_in(kind, state.id, *sizes, self._members):
                if prog:
                    self._attach(prog, place, ("map_id", "attach_type", "index", "member"))
                else:
                    state.places.append(place)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
                what = f"programs in map {state.name or state.id} id={state.id}"
                self._found.unseen.append(Unseen(what, unseen.because(error.errno or 0)))

    # ------------------------------------------------------------ who

    def _pins(self, seen: Pass) -> None:
        found = pins(seen.mounts)
        for (kind, number), paths in found.by_object.items():
            state = self._state(kind, number)
            if state is not None:
                state.pins = paths
        for paths, why in ((found.denied, "we may not read them"), (found.behind, BEHIND)):
            count = len(paths)
            if paths:
                what = f"pins at {paths[0]}" + (f" and {count - 1} more" if count > 1 else "")
                self._found.unseen.append(Unseen(what, why, count))
        if found.unread:
            what = f"pins in {found.unread} mount namespaces"
            self._found.unseen.append(Unseen(what, unseen.because(errno.EACCES), found.unread))
        if found.cut:
            self._found.unseen.append(Unseen("more pins", "there are too many"))

    def _holders(self, seen: Pass) -> None:
        for each in seen.opens:
            number = each.fact.id
            kind = each.fact.kind
            if kind == "perf_event":
                state = self._events.get(number or 0)
            elif number is None:
                state = ObjectState(kind, None, "", Info(each.fact.info))
                self._found.objects.append(state)
            else:
                state = self._states.get((kind, number))
            if state is None:
                continue
            if not state.holders or state.holders[-1].pid != each.pid:
                who = seen.processes[each.pid]
                state.holders.append(Holder(who.pid, who.comm, [], who.exe, who.cgroup))
            state.holders[-1].fds.append(each.fact.fd)

    # ------------------------------------------------------------ what was not seen

    def _unseen_places(self, groups: Cgroups, devices: list[Devices]) -> None:
        told = self._found.unseen
        if not groups.mounted:
            told.append(Unseen("programs on cgroups", "no cgroup2 file system is mounted here"))
        elif groups.denied:
            why = unseen.because(groups.error, "CAP_NET_ADMIN")
            what = "a cgroup" if groups.denied == 1 else f"{groups.denied} cgroups"
            told.append(Unseen(f"programs on {what}", why, groups.denied))
        if groups.partial:
            told.append(Unseen("cgroups outside of this cgroup namespace", "they are hidden"))
        if groups.cut:
            told.append(Unseen("programs on more cgroups", "there are too many"))
        for device in devices:
            for what, number in device.unseen:
                where = f"{what} of net:[{device.netns}]" if what else f"net:[{device.netns}]"
                needs = "CAP_NET_ADMIN" if what else "CAP_SYS_ADMIN to enter it"
                told.append(Unseen(f"programs on {where}", unseen.because(number, needs)))
        hidden = [
            place
            for _, place in self._links
            if place.way == "kprobe_multi" and not any(place.info.numbers("addrs"))
        ]
        if hidden:
            told.append(
                Unseen("the functions of kprobe_multi links", "hidden (kernel.kptr_restrict)",
                       len(hidden))
            )  # fmt: skip

    def _tell(self, seen: Pass) -> None:
        if seen.denied:
            self._found.unseen.append(unseen.processes_refused(seen.denied))
        beyond = unseen.beyond_the_namespace()
        if beyond is not None:
            self._found.unseen.append(beyond)
        if seen.cut:
            self._found.unseen.append(self._cut(seen))

        unnamed = sum("program" in event.info for event in self._events.values())
        if unnamed:
            what = f"which programs {unnamed} perf events have"
            self._found.unseen.append(Unseen(what, "of type perf_event, the kernel does not say"))
        sizeless = sum(
            state.kind == "prog" and "xlated_prog_len" not in state.info
            for state in self._states.values()
        )
        if sizeless:
            self._found.unseen.append(
                Unseen("sizes of programs", "the kernel shows them with CAP_BPF only", sizeless)
            )

    @staticmethod
    def _cut(seen: Pass) -> Unseen:
        return Unseen("what more processes have open", f"more than {seen.looked} fds are open")

    def _finished(self, own: int) -> Inventory:
        """``own``: the network namespace that need not be named."""
        found = self._found
        found.unseen += [unseen.gone(kind, count) for kind, count in self._gone.items()]
        order = {kind: place for place, kind in enumerate(KINDS)}
        states = sorted(
            self._states.values(), key=lambda state: (order[state.kind], state.id or 0)
        )
        for state in states:
            for place in state.places:
                if place.info.get("netns") == own:
                    del place.info["netns"]
        events = sorted(self._events.values(), key=lambda state: state.id or 0)
        found.objects = [*states, *events, *found.objects]
        return found


# ------------------------------------------------------------ small things


def detached(place: Place) -> bool:
    """Whether a link is on nothing any more: it was detached, or what it was on has gone."""
    needed = {**dict.fromkeys(DEVICE_LINKS, "ifindex"), "cgroup": "cgroup_id", "netns": "netns_ino"}
    return place.way in needed and not place.info.get(needed[place.way])


def stats_enabled() -> bool:
    """Whether kernel.bpf_stats_enabled is on.

    BPF_ENABLE_STATS turns it on as well, and does not show here: there the counts grow.
    """
    try:
        with open(STATS, encoding="ascii") as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def look(members: Members = lambda map_id: None) -> Inventory:
    """The machine as it is now."""
    return Look(members).whole()


def without_links() -> dict[int, list[Place]]:
    """Where programs are attached without a link: on devices, in namespaces, on cgroups."""
    found: dict[int, list[Place]] = {}
    own = netns_of("self")
    devices = each_namespace({**namespaces().netns, **named_namespaces()})
    for prog, place in (each for device in devices for each in device.progs):
        if "link_id" not in place.info:
            if place.info.get("netns") == own:
                del place.info["netns"]
            found.setdefault(prog, []).append(place)
    for prog, place in cgroups().progs:
        found.setdefault(prog, []).append(place)
    return found
