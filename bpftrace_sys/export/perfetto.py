"""A trace for Perfetto (https://ui.perfetto.dev): its protobuf, written by hand.

Numbers of fields are those of protos/perfetto/trace/ in Perfetto's repository: TracePacket
(trace_packet.proto), TrackDescriptor and TrackEvent (track_event/), DebugAnnotation.  The
file is a message Trace, whose field 1 is repeated TracePacket, so it can be written packet by
packet.

A track a process and thread; a slice a call, with its arguments; flows from a load to what
attaches it; counters of objects and attachments.  What the trace does not show (when an
object dies) is not drawn: counters hold what was made and is not known to be gone.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import IO, Final

from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.common.escape import printable
from bpftrace_sys.export.perfetto_values import LONG, annotated, annotation
from bpftrace_sys.export.protobuf import fixed64, integer, message, string
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Attachment, NotedCall, Object
from bpftrace_sys.story.remarks import remarks
from bpftrace_sys.story.renderer import Renderer
from bpftrace_sys.trace.header import Header
from decoders.events import Ending, Exit, Fork, ProcessEvent, event_name
from decoders.records import NamedTuple

PACKET: Final = 1
CLOCK_SNAPSHOT, TIMESTAMP, SEQUENCE, EVENT = 6, 8, 10, 11
SEQUENCE_FLAGS, DESCRIPTOR = 13, 60
"""Fields of TracePacket."""
UUID, NAME, PROCESS, THREAD, PARENT, COUNTER = 1, 2, 3, 4, 5, 8
"""Of TrackDescriptor."""
ANNOTATION, TYPE, TRACK, CATEGORY, EVENT_NAME = 4, 9, 11, 22, 23
COUNTER_VALUE, FLOW, LAST_FLOW = 30, 47, 48
"""Of TrackEvent."""
BEGIN, END, INSTANT, COUNT = 1, 2, 3, 4
"""TrackEvent.Type"""
REALTIME, BOOTTIME = 1, 6
"""BuiltinClock"""
INCREMENTAL_STATE_CLEARED: Final = 1
OURS: Final = 1
"""The one sequence of packets."""
COUNTERS: Final = {
    "prog": "programs (made, not known to be gone)",
    "map": "maps (made, not known to be gone)",
    "link": "links (made, not known to be gone)",
    "attached": "attachments",
}
HELD: Final = 1024
"""Slices that wait for an attachment that may be told of them."""
SAID: Final = 16
"""Lines that say why a call failed."""
ATTACHED: Final = {"attached": 1, "detached": -1}


class _Slice(NamedTuple):
    """A call that waits to be written."""

    time: int
    duration: int | None
    track: int
    fields: list[bytes]
    flows: list[bytes]


class Perfetto(Renderer):
    """A Renderer that writes to a binary stream."""

    def __init__(self, out: IO[bytes], model: Model) -> None:
        self.out = out
        self.model = model
        self._tracks: dict[tuple[str, int], int] = {}
        """uuids by ("process", pid), ("thread", tid), or a counter's name and 0."""
        self._names: dict[int, str] = {}
        """Names of threads, as they were told last."""
        self._named: dict[int, str] = {}
        """The first name of each process."""
        self._held: OrderedDict[int, _Slice] = OrderedDict()
        """By seq."""
        self._counts = dict.fromkeys(COUNTERS, 0)
        self._argv: list[str] = []
        self._started: int | None = None
        """The first process that is seen, which is the one that was started."""
        self._last = 0
        self._first_packet = True

    # ------------------------------------------------------------ packets

    def _packet(self, *fields: bytes) -> None:
        flags = b""
        if self._first_packet:
            flags = integer(SEQUENCE_FLAGS, INCREMENTAL_STATE_CLEARED)
            self._first_packet = False
        self.out.write(message(PACKET, *fields, integer(SEQUENCE, OURS), flags))

    def _event(self, time: int, kind: int, track: int, *fields: bytes) -> None:
        self._last = max(self._last, time)
        self._packet(
            integer(TIMESTAMP, time),
            message(EVENT, integer(TYPE, kind), integer(TRACK, track), *fields),
        )

    def _uuid(self, what: str, number: int) -> tuple[int, bool]:
        known = self._tracks.get((what, number))
        if known is not None:
            return known, False
        made = self._tracks[what, number] = len(self._tracks) + 1
        return made, True

    def _process(self, pid: int, comm: str) -> int:
        uuid, new = self._uuid("process", pid)
        if new or (comm and not self._named.get(pid)):
            self._named[pid] = comm
            if self._started is None:
                self._started = pid
            words = [string(2, printable(word)[:LONG]) for word in self._argv[:LONG]]
            words = words if self._started == pid else []
            self._packet(
                message(
                    DESCRIPTOR,
                    integer(UUID, uuid),
                    message(PROCESS, integer(1, pid), *words, string(6, comm)),
                )
            )
        return uuid

    def _thread(self, pid: int, tid: int, comm: str) -> int:
        comm = printable(comm)
        parent = self._process(pid, comm)
        uuid, _ = self._uuid("thread", tid)
        if comm and self._names.get(tid) != comm:
            self._names[tid] = comm
            self._packet(
                message(
                    DESCRIPTOR,
                    integer(UUID, uuid),
                    integer(PARENT, parent),
                    message(THREAD, integer(1, pid), integer(2, tid), string(5, comm)),
                )
            )
        return uuid

    def _count(self, time: int, kind: str, value: int) -> None:
        uuid, new = self._uuid(COUNTERS[kind], 0)
        if new:
            self._packet(
                message(
                    DESCRIPTOR, integer(UUID, uuid), string(NAME, COUNTERS[kind]), message(COUNTER)
                )
            )
        self._counts[kind] = value
        self._event(time, COUNT, uuid, integer(COUNTER_VALUE, value))

    # ------------------------------------------------------------ the stream

    def header(self, header: Header) -> None:
        """Which clock it is: nanoseconds since the epoch, which both of these count here."""
        self._argv = header.argv
        clocks = [
            message(1, integer(1, clock), integer(2, header.start))
            for clock in (REALTIME, BOOTTIME)
        ]
        self._packet(integer(TIMESTAMP, header.start), message(CLOCK_SNAPSHOT, *clocks))

    def call(self, call: NotedCall) -> None:
        """A slice; one that never ended has no end."""
        raw = call.raw
        track = self._thread(raw.pid, raw.tid, raw.comm)
        command = call.command.partition("|")[0] or call.syscall.name
        fields = [
            string(CATEGORY, "bpf"),
            string(CATEGORY, "failed") if raw.failed else b"",
            string(EVENT_NAME, _title(call, command)),
            annotation(ANNOTATION, "seq", integer(4, raw.seq)),
            annotation(ANNOTATION, "result", _result(call)),
        ]
        reasons = [printable(line.strip()) for line in remarks(call)[:SAID]]
        if reasons:
            fields.append(annotation(ANNOTATION, "said", string(6, "\n".join(reasons))))
        if call.notes.made is not None:
            label = printable(call.notes.made.long_label)
            fields.append(annotation(ANNOTATION, "made", string(6, label)))
        fields.append(annotated(ANNOTATION, "args", call.args, call.notes.objects))
        flows = []
        made = call.notes.made
        if made is not None and made.kind == "prog" and not call.notes.is_probe:
            flows.append(fixed64(FLOW, raw.seq))
        self._held[raw.seq] = _Slice(raw.time, raw.duration, track, fields, flows)
        if len(self._held) > HELD:
            self._write(self._held.popitem(last=False)[1])
        if made is not None and made.call is call and call.notes.probe is None:
            self._made(raw.time + (raw.duration or 0), made)

    def _write(self, held: _Slice) -> None:
        self._event(held.time, BEGIN, held.track, *held.fields, *held.flows)
        if held.duration is not None:
            self._event(held.time + held.duration, END, held.track)

    def _made(self, time: int, made: Object) -> None:
        if made.kind in self._counts:
            self._count(time, made.kind, self._counts[made.kind] + 1)

    def attachment(self, told: Attachment) -> None:
        """A flow from the load through the steps; and the attachment itself."""
        if not told.steps or told.steps[-1].call.notes.is_probe:
            return
        load = told.prog.call if told.prog is not None else None
        last = told.steps[-1].call
        if load is not None:
            for step in told.steps[1:]:
                held = self._held.get(step.call.raw.seq)
                if held is not None and step.call is not load:
                    field = LAST_FLOW if step.call is last else FLOW
                    held.flows.append(fixed64(field, load.raw.seq))
        raw = last.raw
        name = "a program" if told.prog is None else printable(told.prog.name) or "(anonymous)"
        arrow = "-x" if told.verb == "detached" else "->"
        time = raw.time + (raw.duration or 0)
        self._event(
            time,
            INSTANT,
            self._thread(raw.pid, raw.tid, raw.comm),
            string(CATEGORY, "attachment"),
            string(EVENT_NAME, f"{told.verb} {name} {arrow} {printable(told.target)}"[:1024]),
        )
        if told.verb in ATTACHED:
            value = max(0, self._counts["attached"] + ATTACHED[told.verb])
            self._count(time, "attached", value)

    def process(self, event: ProcessEvent) -> None:
        """A fork, exec or exit, as an instant."""
        what = event.what
        words = [event_name(what)]
        if isinstance(what, Fork):
            words.append(f"child {what.child}")
        elif isinstance(what, Exit):
            words += [f"code {what.code}"] if what.code is not None else []
            words += [f"signal {what.signal}"] if what.signal is not None else []
        comm = self._names.get(event.tid, "")
        self._event(
            event.time,
            INSTANT,
            self._thread(event.pid, event.tid, comm),
            string(CATEGORY, "process"),
            string(EVENT_NAME, printable(" ".join(words))),
        )

    def end(self, ending: Ending) -> None:
        """What is left, as the kernel was asked."""
        self.cut()
        for kind in ("prog", "map", "link"):
            ours = [
                found
                for (what, _), found in self.model.objects.items()
                if what == kind and found.call is not None
            ]
            if ours:
                fact = self.model.facts.fact
                left = sum(fact(f"alive_{kind}", found.id or 0) is not None for found in ours)
                self._count(self._last, kind, left)

    def cut(self) -> None:
        """Slices that waited are written."""
        for held in self._held.values():
            self._write(held)
        self._held.clear()


def _title(call: NotedCall, command: str) -> str:
    """What stands on a slice: the command, and what it is about."""
    made = call.notes.made
    found = [made] if made is not None else list(call.notes.objects.values())
    name = next((known.name for known in found if known.name), "")
    return printable(f"{command} {name}".rstrip())[:256]


def _result(call: NotedCall) -> bytes:
    ret = call.raw.ret
    if ret is None:
        return string(6, "? (detached)" if call.raw.extra.detached else "? (unfinished)")
    return string(6, errno_name(-ret)) if call.raw.failed else integer(4, ret)
