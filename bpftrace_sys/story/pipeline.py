"""From recorded items to renderers: the one path of live tracing and of replay."""

from __future__ import annotations

import errno
import gc
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from bpftrace_sys.story.attach.attachments import Attachments
from bpftrace_sys.story.faults import Faults
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Attachment, NotedCall, Object, Prog
from bpftrace_sys.story.renderer import Renderer
from bpftrace_sys.story.typed_values import retype
from bpftrace_sys.trace.facts import Facts
from bpftrace_sys.trace.header import Header
from decoders.arch import NETLINK_CALLS
from decoders.events import Exit, ProcessEvent, event_name
from decoders.loop_calls import Rounds
from decoders.raw import RawCall

if TYPE_CHECKING:
    from bpftrace_sys.story.again import Again
    from bpftrace_sys.story.inventory import Opening
    from bpftrace_sys.story.probes.watch import Probes
    from bpftrace_sys.story.repeats import Repeats
    from bpftrace_sys.story.retention import Retention
    from bpftrace_sys.trace.inventory import ObjectState, Unseen
    from bpftrace_sys.trace.items import Taken
    from bpftrace_sys.trace.kernel_view import KernelView
    from bpftrace_sys.trace.running import Running
    from decoders.events import Ending

LEAVING_OUT = ("-e bpf=", "-e status=", "-P ", "-Z")
COPYING = tuple(f"replay {option}" for option in (*LEAVING_OUT, "-e trace="))
"""Options that keep calls out of a trace, or out of a copy of it by replay, which may be those
that attach a program."""


class Pipeline:
    """Decodes, lets the model see, and hands on to every renderer."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.model = Model(facts)
        self.attachments = Attachments(self.model)
        self.renderers: Sequence[Renderer] = ()
        self.faults = Faults()
        self._decode: Callable[[RawCall, Facts, type[NotedCall]], NotedCall] | None = None
        self._comment: Callable[[NotedCall], None] | None = None
        self.probes: Probes | None = None
        self.repeats: Repeats | None = None
        """The fast path, where every renderer offers templates."""
        self._retention: Retention | None = None
        self.waiting: Callable[[], None] | None = None
        """Told after a call that a renderer may hold back until a :meth:`lull`."""
        self._opening: Opening | None = None
        self._again: Again | None = None

    def header(self, header: Header, told: Header | None = None) -> None:
        """The trace begins. ``told``: what renderers are to write, if that is another one."""
        traced = header.options.get("traced")
        if isinstance(traced, list):
            self.model.traced = frozenset(map(str, traced))
            self.model.netlink = "sendto" in traced
        left_out = header.options.get("narrowed")
        self.model.left_out = next(
            (
                word
                for word in left_out
                if isinstance(word, str) and word.startswith(LEAVING_OUT + COPYING)
            ),
            "",
        ) if isinstance(left_out, list) else ""
        self.model.without_proc = header.options.get("proc") is False
        self._each(lambda renderer: renderer.header(told or header))

    def fact(self, kind: str, key: int, name: str) -> None:
        """A name was learned from the live machine."""
        self._each(lambda renderer: renderer.fact(kind, key, name))

    def take(self, item: Taken) -> None:
        """Calls or an event, what became of a program that was just loaded, or what was held."""
        if isinstance(item, ProcessEvent):
            self._process(item)
            return
        if isinstance(item, Rounds):
            self._take_rounds(item)
            return
        if not isinstance(item, RawCall):
            self._forget_last()
            try:
                self._other(item)
            except Exception as error:
                self.faults.found(type(item).__name__, error, "it is not told")
            return
        if self._decode is None:
            self._get_ready()
        repeats = self.repeats
        if repeats is not None and repeats.take(item):
            self._forget_last()
            self._see_to_waiting()
        elif not self._same_again(item):
            self.usual(item)

    def _get_ready(self) -> None:
        # Most programs ask nothing of BPF: for them none of this is imported.
        from decoders.alike import Decoder

        self._decode = Decoder().decode
        # What is here now stays; what comes makes few cycles and much garbage.
        gc.freeze()
        self._comment = self._commentary()
        self.repeats = self._short_cut()

    def _other(self, item: KernelView | ObjectState | Unseen | Running) -> None:
        from bpftrace_sys.trace.kernel_view import KernelView
        from bpftrace_sys.trace.running import Running

        if isinstance(item, KernelView):
            self._view(item)
        elif isinstance(item, Running):
            self._running(item)
        else:
            self._held(item)

    def _running(self, item: Running) -> None:
        """A call that is not over: shown, but it means nothing yet."""
        from decoders.decode import decode

        if self._decode is None:
            self._get_ready()
        self.facts.concerning(item.call.pid)
        call = decode(item.as_begun(), self.facts, NotedCall)
        self._each(lambda renderer: renderer.running(call))

    def _take_rounds(self, rounds: Rounds) -> None:
        rest: Rounds | None = rounds
        while rest is not None:
            told = 0 if self.repeats is None else self.repeats.some(rest)
            done, rest = rest.cut(max(1, told))
            if told:
                self._forget_last()
                self._see_to_waiting()
            else:
                for call in done.calls():
                    self.take(call)

    def _forget_last(self) -> None:
        """The next call does not follow at once on the last."""
        if self._again is not None:
            self._again.forget()

    def _same_again(self, item: RawCall) -> bool:
        """Tells a refused load that is the same as the call before; False: it is none."""
        same = None if self._again is None else self._again.take(item)
        if same is None:
            return False
        self.facts.concerning(item.pid)
        self._each(lambda renderer: renderer.again(*same))
        if self._retention is not None:
            self._keep(same[0])
        return True

    def _process(self, event: ProcessEvent) -> None:
        self._forget_last()
        try:
            if isinstance(event.what, Exit):
                self._tell(self.attachments.flush(event.tid))
            if self.probes is not None and event.ends_process:
                self.probes.exited(event.pid)
                self.probes.recent = False
            self.model.process(event)
        except Exception as error:
            what = f"{event_name(event.what)} of {event.pid}"
            self.faults.found(what, error, "the trace goes on")
        self._each(lambda renderer: renderer.process(event))

    def _each(self, tell: Callable[[Renderer], None]) -> None:
        """Tells every renderer; one that fails is told nothing more."""
        for renderer in self.renderers:
            try:
                tell(renderer)
            except Exception as error:
                self.broken(renderer, error)

    def broken(self, renderer: Renderer, error: Exception) -> None:
        """An output of ours failed: the others go on, and so does the program.

        One that finds no memory for a thing leaves that out; there may be some for the next.
        """
        if isinstance(error, MemoryError):
            self.faults.found(type(renderer).__name__, error, "something is left out there")
            return
        self.faults.found(type(renderer).__name__, error, "this output ends here")
        self.renderers = [other for other in self.renderers if other is not renderer]
        self.repeats = None

    def _view(self, view: KernelView) -> None:
        from bpftrace_sys.story.kernel_view import seen

        told = seen(view, self.model)
        self._each(lambda renderer: renderer.kernel_view(told))

    def _held(self, item: ObjectState | Unseen) -> None:
        from bpftrace_sys.story.inventory import Opening
        from bpftrace_sys.trace.inventory import Unseen

        if isinstance(item, Unseen):
            self._each(lambda renderer: renderer.unseen(item))
            return
        if self._opening is None:
            self._opening = Opening(self.model)
        known = self._opening.take(item)
        self._each(lambda renderer: renderer.held(item, known))

    def usual(self, item: RawCall) -> NotedCall:
        """Decodes a call and shows it to everybody."""
        assert self._decode is not None
        self.facts.concerning(item.pid)
        call = self._decode(item, self.facts, NotedCall)
        told: Iterable[Attachment] = ()
        try:
            told = self._understand(call)
        except Exception as error:
            words = self.faults.found(call.command or call.syscall.name, error, "it is told as is")
            call.problem = call.problem or words
        self._each(lambda renderer: renderer.call(call))
        self._tell(told)
        if self._retention is not None or call.notes.made is not None:
            self._keep(call)
        self._see_to_waiting()
        if self._again is not None:
            self._again.told(call)
        # Forty times as large as the instructions that it is made of: whoever asks again, waits.
        call.notes.listing = call.notes.translated = None
        return call

    def _understand(self, call: NotedCall) -> Iterable[Attachment]:
        """What a call means for the model, and for its notes; attachments that follow it."""
        self.model.observe(call)
        retype(call, self.model)
        if call.syscall.name in NETLINK_CALLS:
            from bpftrace_sys.story import netlink_values

            netlink_values.retype(call)
        self._tell(self.attachments.before(call))
        told = self.attachments.after(call)
        assert self._comment is not None
        self._comment(call)
        return told

    def waits(self) -> bool:
        """Whether something is held back that a :meth:`lull` brings out."""
        if self.probes is not None and self.probes.recent:
            return True
        return any(renderer.waits() for renderer in self.renderers)

    def _see_to_waiting(self) -> None:
        if self.waiting is not None and self.waits():
            self.waiting()

    def used(self, found: Object) -> None:
        """An object was used by a call that did not take the usual path."""
        if self._retention is not None:
            self._retention.used(found)

    def _short_cut(self) -> Repeats | None:
        from bpftrace_sys.story.repeats import Repeats, all_have_templates

        renderers = self.renderers
        return Repeats(self, renderers) if all_have_templates(renderers) else None

    def _keep(self, call: NotedCall) -> None:
        """An object was made: the oldest may have to go."""
        if self._retention is None:
            from bpftrace_sys.story.retention import Retention

            self._retention = Retention(self.model)
        self._retention.call(call)

    def _commentary(self) -> Callable[[NotedCall], None]:
        """What puts probes, retries and explanations into a call's notes."""
        from bpftrace_sys.story.again import Again
        from bpftrace_sys.story.explain import Retries, explain
        from bpftrace_sys.story.probes.watch import Probes
        probes = self.probes = Probes(self.model)
        retries = Retries()
        self._again = Again(retries)

        def comment(call: NotedCall) -> None:
            probes.watch(call)
            if call.notes.is_probe and call.raw.ret != -errno.EPERM:
                return  # that it fails is its answer
            retries.watch(call)
            if call.raw.failed:
                call.notes.explanation = explain(call, self.model, self.facts)
            elif call.command == "BPF_OBJ_GET":
                from bpftrace_sys.story.reuse import differs

                call.notes.differs = differs(call, self.model)

        return comment

    def lull(self) -> None:
        """Nothing has come for a while: nothing is held back any longer."""
        self._forget_last()
        self.flush()
        if self.probes is not None:
            self.probes.recent = False
        self._each(lambda renderer: renderer.lull())

    def flush(self) -> None:
        """Attachments that waited for a sequel are told now."""
        try:
            told = self.attachments.flush()
        except Exception as error:
            self.faults.found("attachments", error, "some may be missing")
            return
        self._tell(told)

    def cut(self) -> None:
        """The trace breaks off here."""
        self.flush()
        self._each(lambda renderer: renderer.cut())

    def end(self, ending: Ending) -> None:
        """The trace ends."""
        if self.probes is not None:
            self.probes.recent = False
        self.flush()
        try:
            self.model.settle()
        except Exception as error:
            self.faults.found("the end", error, "what stays behind may be missing")
        self._each(lambda renderer: renderer.end(ending))

    def _tell(self, told: Iterable[Attachment]) -> None:
        for attachment in told:
            if isinstance(attachment.prog, Prog):
                attachment.prog.used = True
            self._attached(attachment)

    def _attached(self, told: Attachment) -> None:
        self._each(lambda renderer: renderer.attachment(told))
