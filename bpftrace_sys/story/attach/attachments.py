"""Follows calls until a program is attached, and tells the attachment whole."""

from __future__ import annotations

from typing import Any

from bpftrace_sys.story.attach.rows import ROWS
from bpftrace_sys.story.attach.troubles import Troubles
from bpftrace_sys.story.attach.ways import Way
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import TARGETS, Attachment, Link, NotedCall, PerfEvent, Prog, Step
from decoders.arch import NETLINK_CALLS
from decoders.records import replace
from decoders.values import Int, Name


class Attachments:
    """Turns calls into Attachments, holding back one that an ENABLE will complete."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._held: dict[int, Attachment] = {}
        self.troubles = Troubles(model)
        self._talk: Any = None
        """bpftrace_sys.story.attach.netlink.Talk, once there is netlink."""

    def before(self, call: NotedCall) -> list[Attachment]:
        """What a thread's next call shows to be complete, before it is printed."""
        if call.command == "PERF_EVENT_IOC_ENABLE":
            held = self._held.get(call.raw.tid)
            event = self.model.object(call.fact("fd"), call.raw.pid)
            if held is not None and held.event is event:
                return []
        return self.flush(call.raw.tid)

    def after(self, call: NotedCall) -> list[Attachment]:
        """What a call attached, enabled or detached; may be told later (see flush)."""
        if call.raw.ret is None:
            return []
        if call.raw.failed:
            self.troubles.failed(call)
            return []
        if call.command == "PERF_EVENT_IOC_ENABLE":
            return self._switched(call, "enabled")
        if call.command == "PERF_EVENT_IOC_DISABLE":
            return self._switched(call, "disabled")
        if call.syscall.name in NETLINK_CALLS:
            return self._netlink(call)
        row = ROWS.get(call.command)
        way = None if row is None else row(call, self.model)
        if way is None:
            return []
        return self._told(call, way)

    def _netlink(self, call: NotedCall) -> list[Attachment]:
        """XDP and tc: told when the answer has come."""
        if self._talk is None:
            from bpftrace_sys.story.attach.netlink import Talk

            self._talk = Talk(self.model)
        told = []
        for way, calls in self._talk.take(call):
            found = self._told(calls[0], way)
            for attachment in found:
                attachment.steps += [Step("answer", later) for later in calls[1:]]
            told += found
        return told

    def _told(self, call: NotedCall, way: Way) -> list[Attachment]:
        steps: list[Step] = []
        if way.prog is not None and way.prog.call is not None and way.verb != "detached":
            steps.append(Step("load", way.prog.call))
        if way.event is not None and way.event.call is not None:
            if way.event.defined is not None:
                steps.append(Step("define", way.event.defined))
            type_call = self._type_call(way.event.call)
            if type_call is not None:
                steps.append(Step("type", type_call))
            steps.append(Step("event", way.event.call))
        steps.append(Step("detach" if way.verb == "detached" else "attach", call))
        made = call.notes.made
        if isinstance(made, Link) and way.link is None:
            made.target, made.prog = way.target, way.prog
            way.link = made
        self._moved(way)
        told = Attachment(
            way.verb,
            way.prog,
            way.target,
            steps,
            way.via,
            way.event,
            call.raw.pid,
            call.raw.tid,
            way.link,
        )
        if way.prog is not None and way.verb in ("attached", "replaced"):
            from bpftrace_sys.story.context import given

            # Asked now, so that its facts stand before the call: a replay tells at once, too.
            told.given = given(way.target, way.prog.call, self.model)
        if way.event is not None and way.link is None:
            way.event.attachment = told
            self._held[call.raw.tid] = told
            return []
        return [told]

    def _moved(self, way: Way) -> None:
        """Keeps account of which program is on which target."""
        there = [known for known in self.model.objects.values() if way.target in known.attached]
        if way.verb == "detached":
            if way.prog is None and len(there) == 1:
                way.prog = there[0]
            gone = [known for known in there if way.prog in (None, known)]
        elif way.alone:
            gone = there
            if any(known is not way.prog for known in there):
                way.verb = "replaced"
        else:
            gone = [known for known in there if known is way.before]
        for known in gone:
            known.leave(way.target)
        prog = None if way.verb == "detached" else way.prog
        if prog is not None and len(prog.attached) < TARGETS:
            prog.attached.append(way.target)
            self.troubles.over(prog)
        if way.event is not None:
            way.event.prog = way.prog
            if isinstance(prog, Prog) and len(prog.events) < TARGETS:
                prog.events.append(way.event)
            if way.link is None and len(self.model.passing) < TARGETS:
                self.model.passing.add(way.target)

    def _type_call(self, opened: NotedCall) -> NotedCall | None:
        """The openat that told the loader the PMU's type or the tracepoint's id."""
        pid: int | None = opened.raw.pid
        kind = opened.attr("attr", "type")
        config = opened.attr("attr", "config")
        what = ""
        if isinstance(kind, Int) and kind.note:
            what = f"pmu {kind.note}"
        elif isinstance(kind, Name) and isinstance(config, Int) and config.note:
            what = f"tracepoint {config.note}"
        for _ in range(64):
            if pid is None:
                return None
            found = self.model.pmu_calls.get((pid, what))
            if found is not None:
                return found if found.raw.seq < opened.raw.seq else None
            pid = self.model.parents.get(pid)
        return None

    def _switched(self, call: NotedCall, verb: str) -> list[Attachment]:
        """ENABLE and DISABLE of an event that has a program."""
        event = self.model.object(call.fact("fd"), call.raw.pid)
        if isinstance(event, PerfEvent):
            event.disabled = verb == "disabled"
        held = self._held.get(call.raw.tid)
        step = Step(verb.removesuffix("d"), call)
        if held is not None and held.event is event and verb == "enabled":
            held.steps.append(step)
            del self._held[call.raw.tid]
            return [held]
        earlier = event.attachment if isinstance(event, PerfEvent) else None
        if earlier is None:
            return []
        return [
            replace(
                earlier, given=None, verb=verb, steps=[step], pid=call.raw.pid, tid=call.raw.tid
            )
        ]

    def holds(self, tid: int) -> bool:
        """Whether something of a thread is held back."""
        return tid in self._held

    def flush(self, tid: int | None = None) -> list[Attachment]:
        """What is held back, of a thread or of all."""
        if not self._held:
            return []
        tids = sorted(self._held) if tid is None else [tid]
        return [held for tid in tids if (held := self._held.pop(tid, None)) is not None]
