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

from typing import TYPE_CHECKING, Final, Protocol

from bpftrace_sys.story.objects import Map
from bpftrace_sys.story.renderer import Renderer, Template
from decoders.loop_calls import alike, may_repeat, round_of
from decoders.raw import FdFact, RawCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bpftrace_sys.story.attach.attachments import Attachments
    from bpftrace_sys.story.model import Model
    from bpftrace_sys.story.objects import NotedCall, Object
    from bpftrace_sys.story.probes.watch import Probes
    from decoders.call import Call
    from decoders.loop_calls import Round

    Shape = tuple[object, ...]

REMEMBERED: Final = 256
"""Shapes; a program has few loops."""


class Known:
    """A shape: what the renderers write of it, and what has to be as it was."""

    __slots__ = ("fact", "gone", "object", "templates", "used")

    def __init__(self, fact: FdFact, used: Map, templates: Sequence[Template]) -> None:
        self.fact = fact
        """The map's fd."""
        self.object = _object(fact)
        self.used = used
        """The map, whose operations are counted."""
        self.templates = templates
        self.gone = False
        """Calls of this shape take the usual way again."""


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


class _Loop:
    """A call of which others are rounds."""

    __slots__ = ("known", "like", "shape")

    def __init__(self, like: RawCall) -> None:
        self.like = like
        self.shape = shape(like)
        self.known: Known | None = None


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
        self._loops: dict[int, _Loop] = {}
        """By the id() of the calls that others are rounds of."""

    def take(self, raw: RawCall) -> bool:
        """True: the call has been written.  False: it goes the usual way."""
        if not may_repeat(raw):
            return False
        key = shape(raw)
        known = self._known.get(key)
        if known is not None:
            return self._tell(key, known, (round_of(raw),)) == 1
        if key not in self._seen:
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
                self._known.clear()
            self._seen.add(key)
        elif key not in self._known:
            self._learn(key, raw)
            return True
        return False

    def some(self, rounds: Sequence[Round], at: int) -> int:
        """Writes calls of which there are only rounds, from the one at ``at`` on, as far as they
        are of one loop.  Returns how many: if none, the first one goes the usual way."""
        like = rounds[at][0]
        loop = self._loops.get(id(like))
        if loop is None:
            if len(self._loops) >= REMEMBERED:
                self._loops.clear()
            loop = self._loops[id(like)] = _Loop(like)
        known = loop.known
        if known is None or known.gone:
            known = loop.known = self._known.get(loop.shape)
            if known is None:
                return 0
        end = at + 1
        while end < len(rounds) and rounds[end][0] is like:
            end += 1
        return self._tell(loop.shape, known, rounds[at:end])

    def _tell(self, key: Shape, known: Known, rounds: Sequence[Round]) -> int:
        """Writes the first of these calls, which have one shape; returns how many."""
        like = rounds[0][0]
        pipeline, used = self._pipeline, known.used
        if pipeline.attachments.holds(like.tid) or _recent(pipeline):
            return 0
        fact = like.fds[0]
        if fact is not known.fact:
            if not alike(fact, known.fact):
                return self._forget(key, known)
            known.fact = fact  # which names the same object
        if pipeline.model.objects.get(known.object) is not used:
            return self._forget(key, known)  # the object was forgotten in between
        count = len(rounds)
        for template in known.templates:
            if template.room < count:
                count = template.room
        for template in known.templates:
            if count < len(rounds):
                rounds = rounds[:count]
            count = template.fits(rounds)
            if not count:
                return 0
        if count < len(rounds):
            rounds = rounds[:count]
        for renderer, template in zip(self._renderers, known.templates, strict=True):
            try:
                template.write(rounds)
            except Exception as error:
                pipeline.broken(renderer, error)
        used.operations += count
        pipeline.used(used)
        return count

    def _forget(self, key: Shape, known: Known) -> int:
        """Calls of this shape take the usual way."""
        known.gone = True
        self._known.pop(key, None)
        return 0

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


def _object(fact: FdFact) -> tuple[str, int]:
    """What the model knows an object by."""
    assert fact.id is not None
    return fact.kind, fact.id


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
