"""The objects of a trace: programs, maps, BTF, links and perf events.

Identity is the kernel's: the id that fdinfo showed for an fd, however the fd
came to be.  Perf events have no id; they are known by the fd that
perf_event_open returned, in the process that asked for it or its children.
What happened before the trace began is looked up by id and marked so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from bpftrace_sys.facts import Facts
from bpftrace_sys.phrases import defined_probes
from bpftrace_sys.typed import retype
from decoders.call import Call, plain
from decoders.events import ProcessEvent
from decoders.raw import ENTRY, EXIT, FdFact
from decoders.uapi import names
from decoders.values import Bytes, Changed, Fd, Insns, Int, Name, Struct, Text, Value

FOUND: Final = "found"  # the object was there before the trace saw it


@dataclass(slots=True)
class Object:
    """A kernel object.  ``id`` is None where the kernel gives none (perf events)."""

    kind: str
    id: int | None
    name: str = ""
    origin: str = "made"
    """made in the trace, or FOUND."""
    call: Call | None = None
    """The call that made it."""
    info: dict[str, Any] = field(default_factory=dict)
    attached: list[str] = field(default_factory=list)
    """Targets, while attached."""
    pins: list[str] = field(default_factory=list)
    operations: int = 0
    """bpf() calls on a map."""

    @property
    def label(self) -> str:
        """How an fd of it is named in an argument: ``map events id=4``."""
        words = [self.kind if self.kind not in ("perf_event", "file") else ""]
        if self.kind == "link" and self.info.get("type"):
            words.append(str(self.info["type"]))
        if self.name:
            words.append(self.name)
        if self.id is not None:
            words.append(f"id={self.id}")
        return " ".join(word for word in words if word)

    @property
    def long_label(self) -> str:
        """How it is named where it is returned: with tag, type and sizes."""
        words = [self.label]
        if self.kind == "prog" and self.info.get("tag"):
            words.append(f"tag={self.info['tag']}")
        if self.kind == "map" and "key_size" in self.info:
            kind = names.bpf_map_type.get(self.info.get("map_type", -1), "")
            words.append(
                f"{kind.removeprefix('BPF_MAP_TYPE_').lower()} "
                f"{self.info['key_size']}/{self.info['value_size']}"
            )
        return " ".join(words)


def text_of(value: Value | None) -> str:
    """A Text as str; bytes that are not UTF-8 stay visible."""
    value = plain(value)
    if isinstance(value, Text):
        return value.data.decode("utf-8", "backslashreplace")
    return ""


class Model:
    """Watches calls go by and knows what every fd is.

    :meth:`observe` takes each call once, in order, and puts what it found into
    ``call.notes``: ``objects`` (by (fd, stage)) and ``made`` (what was returned).
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.objects: dict[tuple[str, int], Object] = {}
        self.events: dict[tuple[int, int], Object] = {}
        self.all_events: list[Object] = []
        self.parents: dict[int, int] = {}
        self.btfs: dict[int, Any] = {}
        self.probes: dict[str, tuple[str, Call]] = {}
        """Probes defined through tracefs: what they probe, and the write that defined them."""
        self.pmu_calls: dict[tuple[int, str], Call] = {}
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
            return self.event(pid, fact.fd)
        if fact.id is None:
            if fact.kind == "file":
                return Object("file", None, str(fact.info.get("path", "")), FOUND)
            return Object(fact.kind, None, "", FOUND)
        key = (fact.kind, fact.id)
        known = self.objects.get(key)
        if known is None:
            known = Object(fact.kind, fact.id, origin=FOUND)
            if fact.kind in ("prog", "map"):
                known.name = self.facts.fact(fact.kind, fact.id) or ""
            elif fact.kind == "link":
                link_type = fact.info.get("link_type")
                known.info["type"] = str(link_type or self.facts.fact("link", fact.id) or "")
            self.objects[key] = known
        self._learn(known, fact)
        return known

    @staticmethod
    def _learn(known: Object, fact: FdFact) -> None:
        info = known.info
        if fact.kind == "prog":
            info.setdefault("tag", fact.info.get("prog_tag"))
            info.setdefault("prog_type", fact.info.get("prog_type"))
        elif fact.kind == "map" and "key_size" not in info:
            for name in ("map_type", "key_size", "value_size", "max_entries"):
                if name in fact.info:
                    info[name] = fact.info[name]

    def event(self, pid: int, fd: int) -> Object:
        """The perf event that an fd of a process is, inherited from a parent perhaps."""
        at: int | None = pid
        for _ in range(64):
            if at is None:
                break
            known = self.events.get((at, fd))
            if known is not None:
                return known
            at = self.parents.get(at)
        return Object("perf_event", None, "perf event", FOUND)

    def by_fd(self, call: Call, *path: str) -> Object | None:
        """The object of an fd at a path of a call's arguments."""
        return self.object(call.fact(*path), call.raw.pid)

    def prog_by_id(self, prog_id: int) -> Object | None:
        """A program by its id."""
        return self.objects.get(("prog", prog_id))

    def btf_of(self, fd_fact: FdFact | None) -> Any:
        """The parsed BTF that an fd is, if its bytes were seen; else None."""
        if fd_fact is None or fd_fact.id is None:
            return None
        return self.btf(fd_fact.id)

    def btf(self, btf_id: int) -> Any:
        """Parsed BTF by id, or None."""
        known = self.btfs.get(btf_id)
        if isinstance(known, bytes):
            from decoders import btf

            try:
                known = btf.parse(known)
            except btf.BtfError:
                known = None
            self.btfs[btf_id] = known
        return known

    # ------------------------------------------------------------ watching

    def observe(self, call: Call) -> None:
        """Learns from a call, and names what its fds are."""
        pid = call.raw.pid
        objects: dict[tuple[int, int], Object] = {}
        call.notes["objects"] = objects
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
        retype(call, self)
        if command == "BPF_OBJ_PIN" and succeeded:
            pinned = self.by_fd(call, "attr", "bpf_fd")
            if pinned is not None:
                pinned.pins.append(text_of(call.attr("attr", "pathname")))
        elif command == "write" and succeeded:
            self._written(call)
        elif command.startswith("BPF_MAP_") and command != "BPF_MAP_CREATE":
            used = self.by_fd(call, "attr", "map_fd") or self.by_fd(
                call, "attr", "batch", "map_fd"
            )
            if used is not None:
                used.operations += 1

    def _written(self, call: Call) -> None:
        """A probe defined through tracefs, as BCC and older libbpf do it."""
        fact = call.fact("fd")
        path = "" if fact is None else str(fact.info.get("path", ""))
        for name, target in defined_probes(path, text_of(call.attr("buf"))).items():
            self.probes[name] = (target, call)

    def _made(
        self, call: Call, command: str, objects: dict[tuple[int, int], Object]
    ) -> None:
        assert isinstance(call.ret, Fd)
        fact = call.ret.fact
        fd = call.ret.value
        if call.syscall.name == "perf_event_open":
            from bpftrace_sys.phrases import event_name

            name = event_name(call, self.facts)
            defined = self.probes.get(name.removeprefix("tracepoint "))
            made: Object | None = Object("perf_event", None, name, call=call)
            assert made is not None
            if defined is not None:
                made.name = f"{defined[0]} via tracefs"
                made.info["defined"] = defined[1]
            self.events[(call.raw.pid, fd)] = made
            self.all_events.append(made)
        elif call.syscall.name == "openat":
            self._opened(call)
            return
        elif fact is None or fact.id is None:
            made = self.object(fact, call.raw.pid)
        else:
            maker = self._makers.get(command)
            if maker is not None:
                made = Object(fact.kind, fact.id, call=call)
                self.objects[(fact.kind, fact.id)] = made
                self._learn(made, fact)
                maker(call, made)
            else:
                made = self.object(fact, call.raw.pid)
        if made is not None:
            objects[(fd, EXIT)] = made
            call.notes["made"] = made

    def process(self, event: ProcessEvent) -> None:
        """Learns who is whose child."""
        if event.what == "fork" and event.details.get("how") != "thread":
            self.parents[event.details["child"]] = event.pid

    def settle(self) -> None:
        """Asks which objects outlive the trace, so that the answer is recorded with it."""
        for (kind, number), found in self.objects.items():
            if kind in ("prog", "map", "link") and found.call is not None:
                self.facts.fact(f"alive_{kind}", number)

    # ------------------------------------------------------------ makers

    def _prog_loaded(self, call: Call, made: Object) -> None:
        made.name = text_of(call.attr("attr", "prog_name"))
        info = made.info
        kind = call.attr("attr", "prog_type")
        if isinstance(kind, Name) and kind.name is not None:
            info["type"] = kind.name.removeprefix("BPF_PROG_TYPE_").lower()
        insns = plain(call.attr("attr", "insns"))
        if isinstance(insns, Insns):
            info["insns"] = insns.total
            info["data"] = insns.data
        info["verify_ns"] = call.raw.duration
        full = full_name(call, self)
        if full and full.startswith(made.name):
            made.name = full

    @staticmethod
    def _map_created(call: Call, made: Object) -> None:
        made.name = text_of(call.attr("attr", "map_name"))
        for name in ("map_type", "key_size", "value_size", "max_entries"):
            value = call.number("attr", name)
            if value is not None:
                made.info[name] = value
        fact = call.fact("attr", "btf_fd")
        if fact is not None:
            made.info["btf_id"] = fact.id
            made.info["key_type"] = call.number("attr", "btf_key_type_id")
            made.info["value_type"] = call.number("attr", "btf_value_type_id")

    def _btf_loaded(self, call: Call, made: Object) -> None:
        data = plain(call.attr("attr", "btf"))
        if isinstance(data, Bytes) and len(data.data) == data.wanted:
            assert made.id is not None
            self.btfs[made.id] = data.data

    @staticmethod
    def _link_made(call: Call, made: Object) -> None:
        made.info["type"] = ""
        kind = call.attr("attr", "link_create", "attach_type")
        if isinstance(kind, Name) and kind.name is not None:
            made.info["type"] = kind.name.removeprefix("BPF_").lower()

    @staticmethod
    def _raw_tracepoint(call: Call, made: Object) -> None:
        made.info["type"] = "raw_tracepoint"
        made.name = text_of(call.attr("attr", "raw_tracepoint", "name"))

    def _opened(self, call: Call) -> None:
        from bpftrace_sys.phrases import opened

        what = opened(text_of(call.attr("pathname")))
        if what is not None:
            self.pmu_calls[(call.raw.pid, what)] = call


def full_name(call: Call, model: Model) -> str:
    """A program's name from its func_info, whole where the attr's is cut at 15."""
    btf = model.btf_of(call.fact("attr", "prog_btf_fd"))
    infos = plain(call.attr("attr", "func_info"))
    items = getattr(infos, "items", ())
    if btf is None or not items or not isinstance(items[0], Struct):
        return ""
    type_id = items[0].get("type_id")
    return str(btf.name(type_id.value)) if isinstance(type_id, Int) else ""


__all__ = ["ENTRY", "EXIT", "FOUND", "Changed", "Model", "Object", "full_name", "text_of"]
