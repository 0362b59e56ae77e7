"""The objects of a trace: programs, maps, BTF, links and perf events.

Identity is the kernel's: the id that fdinfo showed for an fd, or a perf event's
own, however the fd came to be.  In a trace without perf events' ids, these are
known by the fd that perf_event_open returned, in the process that asked for it
and in the children that it had then.  What was made before the trace began is
looked up by id and marked so.

What user space passed is not what the kernel took if the memory changed in
between: where fdinfo says otherwise, fdinfo counts, and the call's notes say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bpftrace_sys.story.lasting import lasting, slot_of, still_attached
from bpftrace_sys.story.objects import (
    BEFORE,
    FOUND,
    IDENTIFIED,
    NAME_LEN,
    SIZES,
    Link,
    Map,
    NotedCall,
    Object,
    PerfEvent,
    Prog,
    Refusal,
    new_object,
    text_of,
)
from bpftrace_sys.story.targets import defined_probes
from bpftrace_sys.trace.facts import Facts
from decoders.call import Call, inner_value
from decoders.events import Fork, ProcessEvent
from decoders.raw import ENTRY, EXIT, FdFact
from decoders.uapi import const, names
from decoders.values import Bytes, Fd, Insns, Int, Name, Struct

if TYPE_CHECKING:
    from decoders.formats.btf import Btf

PATIENCE: Final = 0.4
"""Seconds that objects get to go when the last tracee is gone."""
ROUNDED: Final = frozenset(
    {const.BPF_MAP_TYPE_LRU_PERCPU_HASH, const.BPF_MAP_TYPE_CPUMAP}
)
"""Maps whose max_entries the kernel fits to the CPUs (hashtab.c, cpumap.c)."""


PARENTS: Final = 1 << 16
"""Processes whose parents are remembered: the youngest."""


class Model:
    """Watches calls go by and knows what every fd is.

    :meth:`observe` takes each call once, in order, and notes with it what its fds are and
    what it made.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.objects: dict[tuple[str, int], Object] = {}
        self.events: dict[tuple[int, int], PerfEvent] = {}
        """By (pid, fd), for a trace that has no ids of perf events."""
        self.events_by_id: dict[int, PerfEvent] = {}
        self.netlink = False
        """Whether netlink is traced: what is attached over it would have been seen."""
        self.traced: frozenset[str] | None = None
        """The system calls that are traced; None: the trace does not say."""
        self.left_out: str = ""
        """An option that keeps calls out of the trace, by which programs may be attached."""
        self.without_proc = False
        """There was no /proc to look fds up in: what an fd is was not seen."""
        self.troubles: dict[tuple[int, str], Refusal] = {}
        """What last failed on a process's way to an event for programs of a type (troubles.py)."""
        self.passing: set[str] = set()
        """Targets of perf events: what is attached to those, is so while an fd is open."""
        self.parents: dict[int, int] = {}
        self.btfs: dict[int, bytes | Btf | None] = {}
        self.probes: dict[str, tuple[str, NotedCall]] = {}
        """Probes defined through tracefs: what they probe, and the write that defined them."""
        self.pmu_calls: dict[tuple[int, str], NotedCall] = {}
        """The openat that read a PMU's type or a tracepoint's id, by what it was."""
        self._makers: dict[str, Callable[[Call, Object], None]] = {
            "BPF_PROG_LOAD": self._prog_loaded,
            "BPF_MAP_CREATE": self._map_created,
            "BPF_BTF_LOAD": self._btf_loaded,
            "BPF_LINK_CREATE": self._link_made,
            "BPF_RAW_TRACEPOINT_OPEN": self._raw_tracepoint,
        }

    # ------------------------------------------------------------ looking up

    def object(self, fact: FdFact | None, pid: int) -> Object | None:
        """The object that an fd of a process is."""
        if fact is None:
            return None
        if fact.kind == "perf_event":
            return self.event(fact, pid)
        if fact.id is None:
            if fact.kind == "file":
                return Object("file", None, str(fact.info.get("path", "")), FOUND)
            return new_object(fact.kind, origin=FOUND)
        key = (fact.kind, fact.id)
        known = self.objects.get(key)
        if known is None:
            known = new_object(fact.kind, fact.id, origin=FOUND)
            if fact.kind in IDENTIFIED:
                if self.facts.fact(f"before {fact.kind}", fact.id):
                    known.origin = BEFORE
                if fact.kind != "link":
                    known.name = self.facts.fact(fact.kind, fact.id) or ""
            self.objects[key] = known
            self._learn(known, fact)
            if isinstance(known, Link):
                self._link_found(known, fact)
        self._learn(known, fact)
        return known

    def _link_found(self, link: Link, fact: FdFact) -> None:
        """A link from elsewhere: its fdinfo says what it is on."""
        from bpftrace_sys.story.standing import link_target

        assert fact.id is not None
        if not link.type:
            link.type = self.facts.fact("link", fact.id) or ""
        link.target = link_target(fact, self.facts) or link.target
        prog_id = fact.info.get("prog_id")
        if isinstance(prog_id, int) and prog_id:
            prog = {"prog_id": prog_id, "prog_tag": fact.info.get("prog_tag", "")}
            link.prog = self.object(FdFact(-1, ENTRY, "prog", prog), 0)

    @staticmethod
    def _learn(known: Object, fact: FdFact) -> None:
        """What fdinfo says of an object, as far as it is not known."""
        if isinstance(known, Prog):
            known.tag = known.tag or str(fact.info.get("prog_tag") or "")
            if known.prog_type is None:
                known.prog_type = fact.number("prog_type")
        elif isinstance(known, Link):
            if not known.type:
                kind = str(fact.info.get("link_type", ""))
                # fdinfo's word for it is older than the others' (kernel/bpf/syscall.c).
                known.type = {"perf": "perf_event"}.get(kind, kind)
        elif isinstance(known, Map) and known.key_size is None:
            known.map_type = fact.number("map_type")
            known.key_size = fact.number("key_size")
            known.value_size = fact.number("value_size")
            known.max_entries = fact.number("max_entries")

    def event(self, fact: FdFact, pid: int) -> PerfEvent:
        """The perf event that an fd of a process is."""
        if fact.id is None:
            # Where ids are to be had, a number alone proves nothing: it may be in use anew.
            known = None if self.events_by_id else self.events.get((pid, fact.fd))
            return known or PerfEvent(origin=FOUND)
        known = self.events_by_id.get(fact.id)
        if known is None:
            known = PerfEvent(name=probed(fact, self.facts), origin=FOUND)
            if self.facts.fact("before perf_event", fact.id):
                known.origin = BEFORE
            self.events_by_id[fact.id] = known
        return known

    def by_fd(self, call: Call, *path: str) -> Object | None:
        """The object of an fd at a path of a call's arguments."""
        return self.object(call.fact(*path), call.raw.pid)

    def holder(self, target: str) -> Object | None:
        """What is attached to a target, as far as was seen."""
        return next((known for known in self.objects.values() if target in known.attached), None)

    def prog_by_id(self, prog_id: int) -> Object | None:
        """A program by its id."""
        return self.objects.get(("prog", prog_id))

    def btf_of(self, fd_fact: FdFact | None) -> Btf | None:
        """The parsed BTF that an fd is, if its bytes were seen; else None."""
        if fd_fact is None or fd_fact.id is None:
            return None
        return self.btf(fd_fact.id)

    def btf(self, btf_id: int) -> Btf | None:
        """Parsed BTF by id, or None."""
        known = self.btfs.get(btf_id)
        if isinstance(known, bytes):
            from decoders.formats import btf

            try:
                known = btf.parse(known)
            except btf.BtfError:
                known = None
            self.btfs[btf_id] = known
        return known

    # ------------------------------------------------------------ watching

    def observe(self, call: NotedCall) -> None:
        """Learns from a call, and names what its fds are."""
        pid = call.raw.pid
        objects = call.notes.objects
        command = call.command
        succeeded = call.raw.ret is not None and not call.raw.failed
        if succeeded and isinstance(call.ret, Fd):
            self._made(call, command, objects)
        for fact in call.raw.fds:
            if (fact.fd, fact.stage) in objects:
                continue
            found = self.object(fact, pid)
            if found is not None:
                objects[(fact.fd, fact.stage)] = found
        if command == "BPF_OBJ_PIN" and succeeded:
            pinned = self.by_fd(call, "attr", "bpf_fd")
            if pinned is not None:
                pinned.pins.append(text_of(call.attr("attr", "pathname")))
        elif command == "BPF_PROG_TEST_RUN" and succeeded:
            tested = self.by_fd(call, "attr", "test", "prog_fd")
            if isinstance(tested, Prog):
                tested.runs += call.number("attr", "test", "repeat") or 1
        elif command == "write" and succeeded:
            self._written(call)
        elif command.startswith("BPF_MAP_") and command != "BPF_MAP_CREATE":
            used = self.by_fd(call, "attr", "map_fd") or self.by_fd(
                call, "attr", "batch", "map_fd"
            )
            if isinstance(used, Map):
                used.operations += 1

    def _written(self, call: NotedCall) -> None:
        """A probe defined through tracefs, as BCC and older libbpf do it."""
        fact = call.fact("fd")
        path = "" if fact is None else str(fact.info.get("path", ""))
        for name, target in defined_probes(path, text_of(call.attr("buf")), self.facts).items():
            if target:
                self.probes[name] = (target, call)
            else:
                self.probes.pop(name, None)

    def _made(
        self, call: NotedCall, command: str, objects: dict[tuple[int, int], Object]
    ) -> None:
        assert isinstance(call.ret, Fd)
        fact = call.ret.fact
        fd = call.ret.value
        if call.syscall.name == "perf_event_open":
            from bpftrace_sys.story.targets import bound_to, event_name, event_way

            name = event_name(call, self.facts)
            defined = self.probes.get(name.removeprefix("tracepoint "))
            event = PerfEvent(name=name, call=call, via=event_way(call))
            if defined is not None:
                event.name, event.defined = defined
                event.via = "tracefs"
            else:
                event.cpu, event.task = bound_to(call)
            self.events[(call.raw.pid, fd)] = event
            if fact is not None and fact.id is not None:
                self.events_by_id[fact.id] = event
            made: Object | None = event
        elif call.syscall.name == "openat":
            self._opened(call)
            return
        elif fact is None or fact.id is None:
            made = self.object(fact, call.raw.pid)
        else:
            maker = self._makers.get(command)
            if maker is not None:
                made = new_object(fact.kind, fact.id, call=call)
                self.objects[(fact.kind, fact.id)] = made
                self._learn(made, fact)
                maker(call, made)
                self._compare(call, made, fact)
            else:
                made = self.object(fact, call.raw.pid)
        if made is not None:
            objects[(fd, EXIT)] = made
            call.notes.made = made

    def process(self, event: ProcessEvent) -> None:
        """Learns who is whose child."""
        if isinstance(event.what, Fork) and event.what.how != "thread":
            child = event.what.child
            self.parents[child] = event.pid
            while len(self.parents) > PARENTS:
                del self.parents[next(iter(self.parents))]
            if self.events and not self.events_by_id:
                for (pid, fd), known in list(self.events.items()):
                    if pid == event.pid:
                        self.events[(child, fd)] = known

    def settle(self) -> None:
        """Asks which objects outlive the trace, so that the answer is recorded with it."""
        patient = False
        left = [
            found
            for (kind, _), found in self.objects.items()
            if kind in ("prog", "map", "link") and found.call is not None
        ]
        # First what has a reason to be there: what has none may be about to go, with programs that
        # are freed late (those in a program array hold each other), or with a namespace. Who holds
        # others is asked for before them; to ask for a map makes it last longer.
        linked = {found.target for found in self.objects.values() if isinstance(found, Link)}
        stays = {found: self._stays(found, linked) for found in left}
        order = ("link", "prog", "map")
        left.sort(key=lambda found: (not stays[found], order.index(found.kind)))
        for (kind, number), _ in list(self.objects.items()):
            if kind == "prog":
                self.facts.fact("runs", number)
        for found in left:
            assert found.id is not None
            if not (patient or stays[found]):
                self.facts.have_patience(PATIENCE)
                patient = True
            if self.facts.fact(f"alive_{found.kind}", found.id) is None:
                continue
            self.facts.fact(f"holders {found.kind}", found.id)
            if found.kind == "prog" and not found.attached:
                self.facts.fact("standing", found.id)
            for holder in filter(None, map(slot_of, found.attached)):
                self.facts.fact("alive_map", holder)

    def _stays(self, found: Object, linked: set[str]) -> bool:
        """Whether an object has a reason to outlive the trace: a pin that is there, or what it is
        attached to by more than an fd or a link."""
        number, questions = found.id or 0, [f"pinned {found.kind} {pin}" for pin in found.pins]
        pinned = [self.facts.fact(question, number) for question in questions]
        attached = [
            still_attached(found, target, self.facts)
            for target in lasting(found, linked, self.passing)
            if slot_of(target) is None  # maps are asked for in their turn
        ]
        return any(pinned) or any(attached)

    # ------------------------------------------------------------ makers

    def _compare(self, call: NotedCall, made: Object, fact: FdFact) -> None:
        """Notes where the kernel has made something else than was seen to be asked for."""
        lies = disagreements(call, fact)
        if made.kind in ("prog", "map") and made.id is not None:
            field = f"{made.kind}_name"
            told = text_of(call.attr("attr", field))
            known = self.facts.fact(f"named {made.kind} {told}", made.id)
            if known is not None:
                made.name = "" if known == "(anonymous)" else known
                lies.append(f"{field} {told or '(none)'} was read, and the kernel calls it {known}")
        if lies:
            call.notes.mismatch = lies

    def _prog_loaded(self, call: Call, made: Object) -> None:
        made.name = text_of(call.attr("attr", "prog_name"))
        if len(made.name) >= NAME_LEN:
            made.name = full_name(call, self) or made.name
        if not isinstance(made, Prog):
            return
        number = made.prog_type
        if number is None:
            number = call.number("attr", "prog_type")
        kind = None if number is None else names.bpf_prog_type.get(number)
        if kind is None:
            asked = call.attr("attr", "prog_type")
            kind = asked.name if isinstance(asked, Name) and asked.value == number else None
        made.type = (kind or "").removeprefix("BPF_PROG_TYPE_").lower()
        insns = inner_value(call.attr("attr", "insns"))
        if isinstance(insns, Insns):
            made.insns = insns.total
        made.verify_ns = call.raw.duration

    @staticmethod
    def _map_created(call: Call, made: Object) -> None:
        made.name = text_of(call.attr("attr", "map_name"))
        if not isinstance(made, Map):
            return
        if made.map_type is None:
            made.map_type = call.number("attr", "map_type")
        if made.key_size is None:
            made.key_size = call.number("attr", "key_size")
        if made.value_size is None:
            made.value_size = call.number("attr", "value_size")
        if made.max_entries is None:
            made.max_entries = call.number("attr", "max_entries")
        fact = call.fact("attr", "btf_fd")
        if fact is not None:
            made.btf_id = fact.id
            made.key_type = call.number("attr", "btf_key_type_id")
            made.value_type = call.number("attr", "btf_value_type_id")

    def _btf_loaded(self, call: Call, made: Object) -> None:
        data = inner_value(call.attr("attr", "btf"))
        if isinstance(data, Bytes) and len(data.data) == data.wanted:
            assert made.id is not None
            self.btfs[made.id] = data.data

    @staticmethod
    def _link_made(call: Call, made: Object) -> None:
        if isinstance(made, Link) and not made.type:
            kind = call.attr("attr", "link_create", "attach_type")
            name = kind.name if isinstance(kind, Name) else None
            made.type = (name or "").removeprefix("BPF_").lower()

    @staticmethod
    def _raw_tracepoint(call: Call, made: Object) -> None:
        if isinstance(made, Link) and not made.type:
            made.type = "raw_tracepoint"

    def _opened(self, call: NotedCall) -> None:
        from bpftrace_sys.story.targets import opened

        what = opened(text_of(call.attr("pathname")))
        if what is not None:
            self.pmu_calls[(call.raw.pid, what)] = call


def disagreements(call: Call, fact: FdFact) -> list[str]:
    """Where fdinfo tells of another object than the call seemed to make.

    User space may have changed the memory between our look and the kernel's.
    """
    found = []
    fields = {"prog": ("prog_type",), "map": SIZES}.get(fact.kind, ())
    for name in fields:
        asked, got = call.number("attr", name), fact.info.get(name)
        if name == "max_entries" and fact.info.get("map_type") in ROUNDED:
            continue
        if isinstance(asked, int) and isinstance(got, int) and asked != got:
            found.append(f"{name} {asked} was read, and the kernel took {got}")
    insns = inner_value(call.attr("attr", "insns")) if fact.kind == "prog" else None
    tag = fact.info.get("prog_tag")
    whole = isinstance(insns, Insns) and insns.data and len(insns.data) == 8 * insns.total
    # CO-RE in the kernel changes instructions before it takes their tag.
    if isinstance(insns, Insns) and whole and tag and not call.number("attr", "core_relo_cnt"):
        from decoders.formats.tag import tags

        if tag not in tags(insns.data):
            found.append(f"the kernel took other instructions than were read: their tag is {tag}")
    return found


def probed(fact: FdFact, facts: Facts) -> str:
    """What a perf event from elsewhere probes, if BPF_TASK_FD_QUERY told."""
    if fact.info.get("fd_type") is None:
        return ""
    from bpftrace_sys.story.standing import PlaceText
    from bpftrace_sys.trace.kernel_fields import Info

    return PlaceText(facts).perf_event(Info(fact.info), None)


def full_name(call: Call, model: Model) -> str:
    """A program's name from its func_info, whole where the attr's is cut at 15."""
    btf = model.btf_of(call.fact("attr", "prog_btf_fd"))
    infos = inner_value(call.attr("attr", "func_info"))
    items = getattr(infos, "items", ())
    if btf is None or not items or not isinstance(items[0], Struct):
        return ""
    type_id = items[0].get("type_id")
    return str(btf.name(type_id.value)) if isinstance(type_id, Int) else ""
