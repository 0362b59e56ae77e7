"""A fast path for loops: calls like an earlier one but for the data in the same places.

A program that fills or dumps a map makes the same bpf(2) call thousands of
times: same thread, same fd, same addresses, same result; only the bytes of keys
and values differ.  Such a call needs no decoding again: what a renderer writes of
it is what it wrote of the earlier one with other words in a few places, and each
renderer may offer that as a template.  Whatever is not exactly alike takes the
usual path, and so does every call where a renderer offers none; what comes out is
the same either way (the tests hold both against each other).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from bpftrace_sys.story.objects import Map
from bpftrace_sys.story.renderer import Renderer, Template
from decoders.loop_calls import alike, in_strands, may_repeat, round_of
from decoders.raw import FdFact, RawCall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bpftrace_sys.story.attach.attachments import Attachments
    from bpftrace_sys.story.model import Model
    from bpftrace_sys.story.objects import NotedCall, Object
    from bpftrace_sys.story.probes.watch import Probes
    from decoders.call import Call
    from decoders.loop_calls import Rounds

    Shape = tuple[Any, ...]

REMEMBERED: Final = 256
"""Shapes; a program has few loops."""


class Known:
    """A shape: what the renderers write of it, and what has to be as it was."""

    __slots__ = ("fact", "templates", "used")

    def __init__(self, fact: FdFact, used: Map, templates: Sequence[Template]) -> None:
        self.fact = fact
        """The map's fd."""
        self.used = used
        """The map, whose operations are counted."""
        self.templates = templates


def shape(raw: RawCall) -> Shape:
    """All of a call but its times, its map's fdinfo and the data behind its attr's pointers."""
    chunks = raw.chunks
    attr, first, last = chunks[0], chunks[1], chunks[-1]
    fact = raw.fds[0]
    return (
        raw.tid,
        raw.args,
        raw.ret,
        raw.failed,
        attr.data,
        # What follows from these in a trace of ours; one from elsewhere may say anything.
        raw.pid,
        raw.comm,
        raw.arch,
        raw.nr,
        attr.stage,
        attr.addr,
        attr.wanted,
        len(chunks),
        first.stage,
        first.addr,
        len(first.data),
        first.wanted,
        last.stage,
        last.addr,
        len(last.data),
        last.wanted,
        fact.fd,
        fact.stage,
        fact.kind,
        fact.id,
    )


class UsualPath(Protocol):
    """The pipeline, as far as its short cut needs it."""

    model: Model
    attachments: Attachments
    probes: Probes | None

    def usual(self, item: RawCall) -> NotedCall:
        """Decodes a call and shows it to everybody."""

    def broken(self, renderer: Renderer, error: Exception) -> None:
        """A renderer failed."""

    def used(self, found: Object) -> None:
        """An object was used by a call that took the short cut."""


class Repeats:
    """Stands before the usual path of a pipeline whose renderers all offer templates."""

    def __init__(self, pipeline: UsualPath, renderers: Sequence[Renderer]) -> None:
        self._pipeline = pipeline
        self._renderers = renderers
        self._seen: set[Shape] = set()
        self._known: dict[Shape, Known | None] = {}
        """None: a shape whose calls have to take the usual path."""
        self._shapes: dict[int, tuple[RawCall, Shape]] = {}
        """Of the calls that others are rounds of, by their id()."""

    def take(self, raw: RawCall) -> bool:
        """True: the call has been written.  False: it goes the usual way."""
        if not may_repeat(raw):
            return False
        key = shape(raw)
        known = self._known.get(key)
        if known is not None:
            return self.some(in_strands((round_of(raw),))) == 1
        if key not in self._seen:
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
                self._known.clear()
            self._seen.add(key)
        elif key not in self._known:
            self._learn(key, raw)
            return True
        return False

    def some(self, rounds: Rounds) -> int:
        """Tells the first of these calls, as many as are told so.  Returns how many: if none, the
        first one goes the usual way."""
        if _recent(self._pipeline):
            return 0
        known: dict[int, Known] = {}
        for number, strand in enumerate(rounds.strands):
            ready = self._ready(strand.like)
            if ready is None:
                first = rounds.where(number, 0)
                return self.some(rounds.cut(first)[0]) if first else 0
            known[id(strand.like)] = ready
        rooms = [each.room for one in known.values() for each in one.templates]
        count = min([len(rounds), *rooms])
        if rounds.order is not None and any(
            template.alone(strand)
            for strand in rounds.strands
            for template in known[id(strand.like)].templates
        ):
            others = (at for at, number in enumerate(rounds.order) if number != rounds.order[0])
            count = min(count, next(others))
        for index, renderer in enumerate(self._renderers):
            templates = [known[id(strand.like)].templates[index] for strand in rounds.strands]
            count = min(count, renderer.fitting(templates, rounds))
        if count:
            self._tell(rounds.cut(count)[0], known)
        return count

    def _ready(self, like: RawCall) -> Known | None:
        """How calls that are like this one are told now; None: the usual way."""
        found = self._shapes.get(id(like))
        if found is None:
            if len(self._shapes) >= REMEMBERED:
                self._shapes.clear()
            found = self._shapes[id(like)] = (like, shape(like))
        key = found[1]
        known = self._known.get(key)
        if known is None or self._pipeline.attachments.holds(like.tid):
            return None
        fact = like.fds[0]
        if fact is not known.fact:
            if not alike(fact, known.fact):
                del self._known[key]
                return None
            known.fact = fact
        if self._pipeline.model.objects.get((fact.kind, fact.id)) is not known.used:  # type: ignore[arg-type]
            del self._known[key]  # forgotten in between
            return None
        return known

    def _tell(self, rounds: Rounds, ready: Mapping[int, Known]) -> None:
        """Tells calls that all fit; ``ready``: how, by the id() of what they are like."""
        known = [ready[id(strand.like)] for strand in rounds.strands]
        for index, renderer in enumerate(self._renderers):
            templates = [one.templates[index] for one in known]
            try:
                renderer.loop(templates, rounds)
            except Exception as error:
                self._pipeline.broken(renderer, error)
        for one, strand in zip(known, rounds.strands, strict=True):
            one.used.operations += strand.size
            self._pipeline.used(one.used)

    def _learn(self, key: Shape, raw: RawCall) -> None:
        """Shows a call in the usual way, and asks how others like it are shown."""
        call = self._pipeline.usual(raw)
        if not call.notes.usual or call.problem is not None:
            return  # the next one may be plainer
        self._known[key] = None
        if raw.failed:
            from bpftrace_sys.story.explain.elements import same_for_all_keys

            assert raw.ret is not None
            if not same_for_all_keys(raw.fds[0], -raw.ret):
                return
        used = self._pipeline.model.by_fd(call, "attr", "map_fd")
        if not isinstance(used, Map) or raw.fds[0].id is None or not _just_bytes(call, used):
            return
        templates = []
        for renderer in self._renderers:
            template = renderer.template(call)
            if template is None:
                return
            templates.append(template)
        self._known[key] = Known(raw.fds[0], used, templates)


def all_have_templates(renderers: Sequence[Renderer]) -> bool:
    """Whether the short cut is worth trying: one that makes none sends all the usual way."""
    return bool(renderers) and all(renderer.has_templates for renderer in renderers)


def _recent(pipeline: UsualPath) -> bool:
    return pipeline.probes is not None and pipeline.probes.recent


def _just_bytes(call: Call, used: Map) -> bool:
    """Whether what the attr points at is the call's chunks, and means nothing beyond its bytes."""
    from itertools import pairwise

    from decoders.call import inner_value
    from decoders.values import Bytes, Pointer, Struct
    from decoders.walk.map_fds import MEANT

    # Typed values differ in form, and fds lead to objects.
    if used.btf_id or call.raw.fds[0].info.get("map_type") in MEANT:
        return False
    attr = inner_value(call.attr("attr"))
    first, *chunks = call.raw.chunks
    if not isinstance(attr, Struct) or len(first.data) != first.wanted:
        return False
    pointed = [value for _, value in attr.fields if isinstance(value, Pointer)]
    if call.raw.failed:
        # What the kernel did not write is no chunk.
        pointed = [value for value in pointed if isinstance(value.value, Bytes)]
    if len(pointed) != len(chunks):
        return False
    spans: list[tuple[int, int, int]] = [(first.stage, first.addr, first.wanted)]
    for pointer, chunk in zip(pointed, chunks, strict=True):
        if pointer.addr != chunk.addr or len(chunk.data) != chunk.wanted:
            return False
        if pointer.value != Bytes(chunk.data, chunk.wanted) or chunk.stage < spans[-1][0]:
            return False
        spans.append((chunk.stage, chunk.addr, chunk.wanted))
    # Where chunks of a stage overlap, what is decoded of one may be the other's bytes.
    spans.sort()
    return all(
        stage != next_stage or addr + size <= next_addr
        for (stage, addr, size), (next_stage, next_addr, _) in pairwise(spans)
    )
