"""Reads a trace whole, and keeps of it what Trace has to tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bpftrace_sys.api.objects import Attachment, Instruction, Link, Map, Program
from bpftrace_sys.compare.policy.deeds import Deeds
from bpftrace_sys.story import objects
from bpftrace_sys.story.listing import listing_of
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import MADE, NotedCall, Object
from bpftrace_sys.story.program_names import prog_key
from bpftrace_sys.story.refusals import Refusal, Refusals
from bpftrace_sys.story.renderer import Renderer
from bpftrace_sys.trace.inventory import ObjectState
from decoders.call import inner_value
from decoders.events import Ending
from decoders.formats import insn as isa
from decoders.uapi import helpers
from decoders.values import Insns

DETACHING = frozenset({"detached", "disabled"})


@dataclass(slots=True)
class _Load:
    """An object, and the call that made it, as it was then."""

    found: Object
    call: NotedCall | None


@dataclass(slots=True)
class Story:
    """What a trace tells as a whole."""

    programs: list[Program] = field(default_factory=list)
    maps: list[Map] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    ending: Ending = field(default_factory=Ending)


class Teller(Renderer):
    """A renderer that collects a Story.

    An object's call is kept from when it was made: the model lets go of it in a long trace.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.deeds = Deeds(model, places=True)
        self.refusals = Refusals(model)
        self.ending = Ending()
        self.told: list[Attachment] = []
        self._made: dict[int, _Load] = {}
        """By id() of objects, all of which are held here."""
        self._targets: dict[int, dict[str, None]] = {}

    def header(self, header: Any) -> None:
        """The trace begins."""
        self.deeds.header(header)

    def held(self, state: ObjectState, known: Object) -> None:
        """An object that a process had when it was attached to."""
        self._made.setdefault(id(known), _Load(known, None))

    def call(self, call: NotedCall) -> None:
        """Keeps what it made, and what was refused."""
        self.deeds.call(call)
        self.refusals.call(call)
        for found in call.notes.objects.values():
            self._made.setdefault(id(found), _Load(found, None))
        if call.notes.made is not None:
            self._made[id(call.notes.made)] = _Load(call.notes.made, call)

    def attachment(self, told: objects.Attachment) -> None:
        """Keeps it."""
        self.deeds.attachment(told)
        prog = told.prog
        name = ""
        if prog is not None:
            self._made.setdefault(id(prog), _Load(prog, None))
            load = self._made[id(prog)]
            name = self._name(load)
            if told.verb not in DETACHING:
                self._targets.setdefault(id(prog), {})[told.target] = None
        calls = tuple(step.call.raw.seq for step in told.steps)
        self.told.append(Attachment(told.verb, name, told.target, told.via, calls))

    def end(self, ending: Ending) -> None:
        """The trace is whole."""
        self.ending = ending
        self.deeds.end(ending)

    # ------------------------------------------------------------ the story

    def story(self) -> Story:
        """All of it."""
        story = Story(attachments=self.told, refusals=self.refusals.found(), ending=self.ending)
        loads = [
            load
            for load in self._made.values()
            if load.call is None or not load.call.notes.is_probe
        ]
        for load in loads:
            found = load.found
            if isinstance(found, objects.Prog):
                story.programs.append(self._program(load, found))
            elif isinstance(found, objects.Map):
                story.maps.append(_map(load, found))
            elif isinstance(found, objects.Link):
                story.links.append(_link(load, found))
        for refusal, call in self.refusals.calls():
            if refusal.command == "BPF_PROG_LOAD":
                story.programs.append(self._refused(refusal, call))
        story.programs.sort(key=lambda program: program.seq or 0)
        return story

    def _name(self, load: _Load) -> str:
        is_load = load.call is not None and load.call.command.startswith("BPF_PROG_LOAD")
        if load.call is not None and is_load:
            return prog_key(load.call, self.model)[0] or load.found.name
        return load.found.name

    def _program(self, load: _Load, found: objects.Prog) -> Program:
        call = load.call if load.call and load.call.command.startswith("BPF_PROG_LOAD") else None
        made = Program(
            self._name(load),
            found.type_name,
            found.id,
            found.tag,
            found.origin,
            found.insns or 0,
            None if call is None else call.raw.seq,
            # What it is attached to from before the trace, only the object knows.
            attached_to=list({**self._targets.get(id(found), {}), **dict.fromkeys(found.attached)}),
            pins=list(found.pins),
        )
        self._lazily(made, call)
        return made

    def _refused(self, refusal: Refusal, call: NotedCall) -> Program:
        name, kind = prog_key(call, self.model)
        insns = inner_value(call.attr("attr", "insns"))
        size = insns.total if isinstance(insns, Insns) else 0
        made = Program(name, kind, None, "", MADE, size, call.raw.seq, refusal)
        self._lazily(made, call)
        return made

    def _lazily(self, made: Program, call: NotedCall | None) -> None:
        if call is not None:
            made._listing = lambda: instructions(call, self.model)
            made._called = lambda: called(call, self.model)


def _map(load: _Load, found: objects.Map) -> Map:
    return Map(
        found.name,
        found.type_name,
        found.id,
        found.origin,
        found.key_size or 0,
        found.value_size or 0,
        found.max_entries or 0,
        found.operations,
        _seq(load, "BPF_MAP_CREATE"),
        list(found.pins),
    )


def _link(load: _Load, found: objects.Link) -> Link:
    return Link(
        found.id,
        found.type,
        found.prog.name if found.prog is not None else "",
        found.target,
        found.origin,
        None if load.call is None else load.call.raw.seq,
        list(found.pins),
    )


def _seq(load: _Load, command: str) -> int | None:
    made = load.call is not None and load.call.command.startswith(command)
    return load.call.raw.seq if load.call is not None and made else None


def instructions(call: NotedCall, model: Model) -> list[Instruction]:
    """The instructions of a PROG_LOAD."""
    listing = listing_of(call, model)
    return [
        Instruction(
            row.pc, row.text, row.comment or "", row.source or "", row.where or "",
            row.function or "",
        )
        for row in (listing.lines if listing is not None else ())
    ]  # fmt: skip


def called(call: NotedCall, model: Model) -> tuple[list[str], list[str]]:
    """The helpers and the kfuncs that a PROG_LOAD's instructions call, sorted."""
    insns = inner_value(call.attr("attr", "insns"))
    found: tuple[set[str], set[str]] = (set(), set())
    if isinstance(insns, Insns):
        for site in isa.callees(insns.data):
            if site.kind == "helper":
                name = helpers.bpf_func_id.get(site.id) or model.facts.newer(
                    "bpf_func_id", site.id
                )
                found[0].add(f"bpf_{name.removeprefix('bpf_')}" if name else f"#{site.id}")
            elif site.kind == "kfunc":
                known = model.facts.fact("btf_vmlinux", site.id) if site.off == 0 else None
                found[1].add(known or f"BTF id {site.id}")
    return sorted(found[0]), sorted(found[1])
