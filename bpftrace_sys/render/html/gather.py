"""The renderer that gathers what a page is made of, as calls go by.

It keeps strings and numbers rather than calls, and no more of them than the limits in
records.py, so that a long trace costs no more memory than its page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.common.escape import printable
from bpftrace_sys.render.exits import exit_line
from bpftrace_sys.render.html import records
from bpftrace_sys.render.html.loops import PageTemplate
from bpftrace_sys.render.html.maps import Maps
from bpftrace_sys.render.html.page_objects import PageObjects
from bpftrace_sys.render.html.painting import Marks, PageText
from bpftrace_sys.render.html.programs import Programs
from bpftrace_sys.render.html.records import (
    ATTACHING,
    BEFORE,
    CallRow,
    Happening,
    Report,
    Thread,
    Tie,
)
from bpftrace_sys.render.inventory import unseen_text
from bpftrace_sys.render.short_call import short_call
from bpftrace_sys.render.stack import stack_lines
from bpftrace_sys.render.text_templates import TextTemplate
from bpftrace_sys.story.kernel_view import Seen
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import MADE, Attachment, NotedCall, Object, text_of
from bpftrace_sys.story.probes.folds import Run
from bpftrace_sys.story.remarks import remarks
from bpftrace_sys.story.renderer import Renderer, Template
from bpftrace_sys.story.summary import Counts, calls, remains
from bpftrace_sys.trace.header import Header
from bpftrace_sys.trace.inventory import ObjectState, Unseen
from bpftrace_sys.trace.redacted import CLASSES
from decoders.call import inner_value
from decoders.events import Ending, Exit, Fork, ProcessEvent, event_name
from decoders.raw import RawCall
from decoders.values import Fd, Text

if TYPE_CHECKING:
    from decoders.loop_calls import Rounds

REASONS: Final = 12
"""Lines that say why a call failed."""
STEPS: Final = 12
RECENT: Final = 64
"""Rows in which one that was just listed is looked for."""
OBJECTS_OF_A_CALL: Final = 16
"""Objects that a row names."""


class Gather(Renderer):
    """A Renderer; :attr:`report` is whole when the trace has ended."""

    has_templates = True

    def __init__(self, model: Model, ready: Callable[[Report], None] | None = None) -> None:
        self.model = model
        self.report = Report()
        self.marks = Marks()
        self.text = PageText(model, self.marks)
        self.page_objects = PageObjects(self.report)
        self.programs = Programs(self.report, self.page_objects, model, self.marks)
        self.maps = Maps(self.report, self.page_objects, self.text)
        self.counts = Counts()
        self._ready = ready
        self._threads: dict[int, int] = {}
        self._commands: dict[str, int] = {}
        self._maybe: list[tuple[int | None, NotedCall]] = []
        """Feature probes, perhaps, that wait to be told together, and the places of their rows."""
        self._used: dict[int, list[int]] = {}
        """Ids of the maps of programs that were there before, by id() of the program."""
        self._room = records.TEXT
        self._beyond = 0

    # ------------------------------------------------------------ the stream

    def header(self, header: Header) -> None:
        """Who was traced, and where."""
        report = self.report
        report.argv = printable(" ".join(header.argv))
        report.kernel, report.machine = printable(header.kernel), printable(header.machine)
        report.host, report.version = printable(header.host), printable(header.version)
        report.cpus, report.start = header.cpus, header.start
        narrowed = header.options.get("narrowed")
        if isinstance(narrowed, list):
            report.narrowed = [printable(str(word)) for word in narrowed]
        redacted = header.options.get("redacted")
        if isinstance(redacted, list):
            report.redacted = [word for word in CLASSES if word in redacted]

    def call(self, call: NotedCall) -> None:
        """A row, and what the call says of objects."""
        report = self.report
        self.counts.call(call)
        probe = call.notes.probe is not None
        if not probe:
            self.settle()
        place = self._listed(call)
        if probe:
            self._maybe.append((place, call))
        else:
            self._objects(call)
        report.calls += 1
        report.failed += call.raw.failed

    def template(self, call: NotedCall) -> PageTemplate | None:
        """How calls are gathered that are like this one but for their data."""
        if call.notes.probe is not None:
            return None
        text = self.text.template(call)
        self.text.lines.take()
        return PageTemplate(self, call, text) if isinstance(text, TextTemplate) else None

    def attachment(self, told: Attachment) -> None:
        """A program attached, enabled, replaced or detached."""
        if told.steps and told.steps[-1].call.notes.is_probe:
            return  # attached for a moment, to see whether it can be
        ties = self.report.ties
        self.report.attached += told.verb in ATTACHING
        if len(ties) >= records.OBJECTS:
            self._cut("attachments", f"only the first {records.OBJECTS:,} attachments are shown")
            return
        prog, link = told.prog, told.link
        if prog is not None and prog.kind == "prog":
            self.programs.known(prog)
        who = "a program" if prog is None else printable(prog.name) or "(anonymous)"
        if prog is not None and prog.kind == "map":
            who = f"map {who}"
        ties.append(
            Tie(
                told.verb,
                None if prog is None else self.page_objects.of(prog),
                who[: records.NAME],
                printable(told.target)[:1024],
                printable(told.via),
                None if link is None else self.page_objects.of(link),
                told.pid,
                [
                    (step.role, printable(short_call(step.call))[:512], step.call.raw.seq)
                    for step in told.steps[:STEPS]
                ],
                "" if told.given is None else printable(told.given.what)[:1024],
            )
        )
        if told.given is not None and prog is not None:
            self.programs.reads(prog, told.given.reads)

    def held(self, state: ObjectState, known: Object) -> None:
        """What a process held when it was attached to."""
        self.page_objects.of(known)
        for holder in state.holders:
            name = f"{printable(holder.comm)} ({holder.pid})"
            if name not in self.report.holders and len(self.report.holders) < OBJECTS_OF_A_CALL:
                self.report.holders.append(name)
        if known.kind == "prog":
            self.programs.known(known)
            self._used[id(known)] = state.info.numbers("map_ids")

    def unseen(self, unseen: Unseen) -> None:
        """What could not be looked at then."""
        if len(self.report.unseen) < REASONS:
            self.report.unseen.append(printable(unseen_text(unseen)).strip())

    def kernel_view(self, seen: Seen) -> None:
        """What the kernel made of a program that was just loaded."""
        if not seen.probe:
            self.programs.view(seen)

    def process(self, event: ProcessEvent) -> None:
        """A fork, exec or exit."""
        what = event.what
        if isinstance(what, Exit):
            self.settle()
        self.seen(event.time, event.time)
        report = self.report
        line = exit_line(event)
        if line is None and isinstance(what, Exit):
            return
        if line is None:
            line = event_name(what) + (f" of {what.child}" if isinstance(what, Fork) else "")
        thread = self._threads.get(event.tid)
        if thread is not None and len(report.events) < records.OBJECTS:
            report.events.append(Happening(event.time, thread, printable(line.strip("+ "))))

    def end(self, ending: Ending) -> None:
        """The trace is whole."""
        self.report.ending = ending
        self._finish()

    def cut(self) -> None:
        """The trace ends before its end: what stood before is shown."""
        if self.report.ending is None:
            self._finish()

    # ------------------------------------------------------------ parts

    def _finish(self) -> None:
        self.settle()
        report = self.report
        self._standing()
        self.programs.finish()
        self.maps.finish()
        if report.ending is not None:
            self.programs.end()
        report.counts = calls(self.counts).rows
        rows = remains(self.model).rows if report.ending is not None else []
        report.remains = [tuple(printable(cell) for cell in row) for row in rows]
        if report.unlisted:
            self._cut(
                "calls",
                f"{report.unlisted:,} of {report.calls:,} calls are counted, not listed",
            )
        if report.page_objects_left_out:
            self._cut("objects", f"{report.page_objects_left_out:,} objects have no entry")
        if self._ready is not None:
            self._ready(report)

    def _standing(self) -> None:
        """Where programs that the trace did not see being attached are attached."""
        told = {(tie.prog, tie.target) for tie in self.report.ties}
        for number, found in enumerate(self.page_objects.objects):
            if found.kind != "prog" or found.origin == MADE:
                continue
            for used in self._used.get(id(found), ())[: records.OBJECTS]:
                known = self.model.objects.get(("map", used))
                if known is not None:
                    self.programs.uses(found, known)
            for target in found.attached[:STEPS]:
                shown = printable(target)[:1024]
                if (number, shown) not in told and len(self.report.ties) < records.OBJECTS:
                    self.programs.known(found)
                    name = printable(found.name)[: records.NAME] or "(anonymous)"
                    self.report.ties.append(
                        Tie(BEFORE, number, name, shown, "", None, 0)
                    )

    def _cut(self, what: str, text: str) -> None:
        if text not in self.report.cut:
            self.report.cut.append(text)

    def seen(self, begin: int, end: int) -> None:
        """Something happened then."""
        report = self.report
        if report.first is None or begin < report.first:
            report.first = begin
        if end > report.last:
            report.last = end

    def settle(self) -> None:
        """Feature probes are told in a line each run; what was none is a call like others."""
        runs: dict[int, list[tuple[int | None, NotedCall]]] = {}
        for place, call in self._maybe:
            if call.notes.is_probe:
                runs.setdefault(call.raw.pid, []).append((place, call))
            else:
                self._run(runs.pop(call.raw.pid, []))
                self._objects(call)
                if place is not None:
                    row = self.listed_at(place)
                    self.put(place, row._replace(things=self._page_objects(call)))
        for run in runs.values():
            self._run(run)
        self._maybe.clear()

    def _run(self, run: list[tuple[int | None, NotedCall]]) -> None:
        if not run:
            return
        report = self.report
        report.probes += len(run)
        report.failed -= sum(call.raw.failed for _, call in run)
        report.groups.append(printable(Run(call for _, call in run).summary()))
        for place, _ in run:
            if place is not None:
                self.put(place, self.listed_at(place)._replace(group=len(report.groups)))

    def thread(self, raw: RawCall, calls: int = 1) -> int:
        """The number of the thread that makes a call, or so many."""
        number = self._threads.get(raw.tid)
        if number is None:
            number = self._threads[raw.tid] = len(self.report.threads)
            self.report.threads.append(Thread(raw.pid, raw.tid, printable(raw.comm)))
        thread = self.report.threads[number]
        thread.calls += calls
        if thread.comm != raw.comm:
            thread.comm = printable(raw.comm)
        return number

    def _lists(self, call: NotedCall) -> bool:
        """Whether a call gets a row of its own."""
        if self.has_room():
            return True
        if (call.raw.failed or call.notes.made is not None) and self._beyond < records.ROWS_BEYOND:
            self._beyond += 1
            return True
        return False

    def _listed(self, call: NotedCall) -> int | None:
        """Where the call's row stands; None: it has none."""
        raw = call.raw
        self.seen(raw.time, raw.time + (raw.duration or 0))
        self.thread(raw)
        if not self._lists(call):
            self.report.unlisted += 1
            return None
        return self.keep(self.row(call))

    def has_room(self) -> bool:
        """Whether all calls that come get a row."""
        return len(self.report.rows) < records.ROWS and self._room > 0

    def keep(self, row: CallRow) -> int:
        """A row comes behind all others; its place."""
        self.report.rows.append(row)
        return len(self.report.rows) - 1

    def listed_at(self, place: int) -> CallRow:
        """The row at a place."""
        return self.report.rows[place]

    def put(self, place: int, row: CallRow) -> None:
        """Another row in the place of one."""
        self.report.rows[place] = row

    def recent(self, seq: int) -> CallRow | None:
        """The row of a call that was listed a moment ago; None: it has none."""
        return next((row for row in reversed(self.report.rows[-RECENT:]) if row.seq == seq), None)

    def loop(self, templates: Sequence[Template], rounds: Rounds) -> None:
        """Rows of loops' calls, in the order in which these were made."""
        made = []
        for template, strand in zip(templates, rounds.strands, strict=True):
            assert isinstance(template, PageTemplate)
            made.append(template.rows(strand))
        for row, used, event in rounds.in_order(made):
            if used is not None:
                self.maps.event(used, event)
            if self.takes(row.text):
                self.keep(row)

    def shape(self, parts: list[str]) -> list[str]:
        """Parts of calls' text as rows have it: marked, without the thread's id."""
        marked = [self.marks.marked(part) for part in parts]
        marked[0] = marked[0].partition(" ")[2]
        marked[-1] = marked[-1].rstrip("\n")
        return marked

    def shown(self, text: str) -> str:
        """A call's text without the thread's id, which the row has."""
        text = self.text.painted(text, records.CALL).partition(" ")[2]
        self._room -= len(text)
        return text

    def takes(self, text: str) -> bool:
        """Whether one more call of a loop gets a row, with this text."""
        if not self.has_room():
            self.report.unlisted += 1
            return False
        self._room -= len(text)
        return True

    def waits(self) -> bool:
        """Whether calls wait that may be feature probes: what comes now is told after them."""
        return bool(self._maybe)

    def more(self, like: RawCall, number: int) -> None:
        """So many more calls like one."""
        self.report.calls += number
        if like.failed:
            self.report.failed += number
        self.thread(like, number)

    def row(self, call: NotedCall) -> CallRow:
        """What the page says of a call."""
        raw = call.raw
        # A load's instructions have a place of their own.
        self.text.options.insns = not call.command.startswith("BPF_PROG_LOAD")
        command = call.command.partition("|")[0]
        return CallRow(
            raw.seq,
            raw.time,
            raw.duration,
            self._threads[raw.tid],
            self._command(command if command else call.syscall.name),
            self._flags(call),
            self._result(call),
            self._subject(call),
            self._page_objects(call),
            self.shown(self.text.calls.call_text(call)),
            self._reasons(call),
            stack=self._stack(raw),
        )

    @staticmethod
    def _stack(raw: RawCall) -> str:
        stack = raw.stack
        return "" if stack is None else "\n".join(stack_lines(stack))[: records.CALL]

    def _command(self, command: str) -> int:
        command = printable(command)
        number = self._commands.get(command)
        if number is None:
            number = self._commands[command] = len(self.report.commands)
            self.report.commands.append(command)
        return number

    def _page_objects(self, call: NotedCall) -> list[int]:
        found = (self.page_objects.of(known) for known in _unique(call))
        return [number for number in found if number is not None][:OBJECTS_OF_A_CALL]

    @staticmethod
    def _flags(call: NotedCall) -> int:
        flags = records.FAILED if call.raw.failed else 0
        flags |= records.UNFINISHED if call.raw.ret is None else 0
        flags |= records.INJECTED if call.raw.extra.injected else 0
        flags |= records.RETRIED if call.notes.retry is not None else 0
        return flags | (records.MADE if call.notes.made is not None else 0)

    @staticmethod
    def _result(call: NotedCall) -> str:
        ret = call.raw.ret
        if ret is None:
            return "?"
        return errno_name(-ret) if call.raw.failed else str(ret)

    def _subject(self, call: NotedCall) -> str:
        """What a call is about, in some words."""
        made = call.notes.made
        if made is not None and isinstance(call.ret, Fd):
            return printable(made.long_label)[: records.SUBJECT]
        told = self.maps.subject(call)
        if told:
            return told[: records.SUBJECT]
        # A file that was opened says the same as its path.
        opened = call.attr("pathname") is not None and call.attr("attr") is None
        used = [] if opened else _unique(call)
        found = [printable(known.label) for known in used if known.label]
        for name in ("pathname", "prog_name", "map_name"):
            value = inner_value(call.attr(name) or call.attr("attr", name))
            if isinstance(value, Text) and value.data:
                found.insert(0, printable(text_of(value)))
        return "  ".join(dict.fromkeys(found))[: records.SUBJECT]

    @staticmethod
    def _reasons(call: NotedCall) -> list[str] | int:
        lines = [printable(line.strip()) for line in remarks(call)[:REASONS]]
        return lines or 0

    def _objects(self, call: NotedCall) -> None:
        """What a call that is no probe says of programs, maps and BTF."""
        made = call.notes.made
        if made is not None:
            self.page_objects.of(made)
        for found in _unique(call):
            self.page_objects.of(found)
        command = call.command.partition("|")[0]
        if command == "BPF_PROG_LOAD":
            self.programs.load(call, self._threads[call.raw.tid])
        elif command == "BPF_BTF_LOAD":
            self.programs.blob(call)
        elif command == "BPF_PROG_BIND_MAP":
            self.programs.bind(call)
        elif command.startswith("BPF_MAP_"):
            self.maps.take(call)


def _unique(call: NotedCall) -> list[Object]:
    """The objects of a call's fds, each once."""
    found: dict[int, Object] = {}
    for known in call.notes.objects.values():
        found[id(known)] = known
    return list(found.values())
