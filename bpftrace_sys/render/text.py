"""The text that people read: calls in strace's manner, listings, attachments.

Every byte of the tracee's passes :func:`quoted` or ``printable`` before it gets
here, so nothing of it can steer a terminal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import TYPE_CHECKING, Final

from bpftrace_sys.render.call_text import CallText
from bpftrace_sys.render.exits import exit_line
from bpftrace_sys.render.line_breaks import filled
from bpftrace_sys.render.per_cpu import PerCpu
from bpftrace_sys.render.style import Painter, plain_painter, visible
from bpftrace_sys.render.text_options import (
    HOLE,
    Options,
)
from bpftrace_sys.render.text_templates import TextTemplate, WalkTemplate, cut
from bpftrace_sys.render.times import spent
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.objects import Attachment, NotedCall, Object, Prog
from bpftrace_sys.story.probes.folds import Folds
from bpftrace_sys.story.remarks import remarks
from bpftrace_sys.story.renderer import Renderer, Template, text_of
from bpftrace_sys.story.targets import printable
from bpftrace_sys.story.walks import Walks
from decoders.events import Exec, Exit, Fork, ProcessEvent

if TYPE_CHECKING:
    from bpftrace_sys.render.output import TextOut
    from bpftrace_sys.story.kernel_view import Seen
    from bpftrace_sys.story.walks import Key
    from bpftrace_sys.trace.header import Header
    from bpftrace_sys.trace.inventory import ObjectState, Unseen
    from decoders.events import Ending
    from decoders.loop_calls import Rounds

WHY: Final = "  why: "
WITHOUT_PROC: Final = "no /proc was there: what fds are, paths and capabilities were not seen"
"""What a trace says that was made where /proc was not mounted."""
HELD_SHOWN: Final = 20
"""Objects of a kind that a process holds."""
HELD_LETTERS: Final = 1 << 20
"""Letters that an object's holders are told with: each line names all of its places."""
HANGING: Final = " " * 10
"""Stands before what of an attachment's line has no room in it."""
UNDER: Final = " " * len(WHY)
"""The same of a reason."""
READS: Final = 8
"""Accesses of a program to its context that are shown where it is attached."""


UNSAID: Final = frozenset({"", "link", "map"})
"""Ways of attaching that the steps show well enough."""


class TextRenderer(Renderer):
    """Writes calls, attachments and events as text."""

    has_templates = True

    def __init__(
        self,
        out: TextOut,
        model: Model,
        options: Options,
        paint: Painter = plain_painter,
        calls: CallText | None = None,
    ) -> None:
        self.out = out
        self.model = model
        self.options = options
        self.paint = paint
        self.calls = calls or CallText(model, options, paint)
        self.folds = Folds()
        self.walks = Walks(model)
        self.per_cpu = PerCpu(model)
        self._again: tuple[NotedCall, str] | None = None
        """The last call, and its text, where it was another attempt at one."""
        self._idle: set[int] = set()
        """Children that are there and of which no call was told."""
        self._execs: dict[int, Exec] = {}
        """What programs processes run since, of whose calls none was told."""
        self._started = False
        """The program that was to be traced has begun, or others had."""
        self._held_seen: Counter[tuple[int, str]] = Counter()
        self._held_more: Counter[tuple[int, str]] = Counter()
        """What processes hold when they are attached to, by pid and kind; beyond HELD_SHOWN."""

    # ------------------------------------------------------------ the stream

    def header(self, header: Header) -> None:
        """The trace begins; of what processes run already nothing more is asked."""
        self._started = not header.argv
        if header.options.get("proc") is False and not self.options.quiet:
            self._write(self.paint("comment", WITHOUT_PROC))

    def _write(self, text: str) -> None:
        if self.folds or self.walks or self._held_more:
            self.flush()
        self.out.write(text + "\n")

    def flush(self) -> None:
        """Feature probes and walks that waited to be told in a line, and what more was held."""
        self._tell_per_cpu()
        if self.walks:
            calls, told_walk = self.walks.take()
            for call in calls:
                if isinstance(call, str):
                    self.out.write(call)
                    continue
                self._write(self.calls.call_text(call))
                self._remarks(call)
            if told_walk is not None:
                tid, line, reasons = told_walk
                self._write(self._noted(tid, printable(line)))
                self._reasons(reasons)
        if self._held_more:
            from bpftrace_sys.story.inventory import counted

            more, self._held_more = self._held_more, Counter()
            for (pid, kind), count in more.items():
                where = "" if self.options.verbose else " (-v shows them)"
                text = f"holds {counted(count, kind, ' more')}{where}"
                self.out.write(f"{self.calls.pid(pid)} {self.paint('comment', text)}\n")
        for told in self.folds.take():
            if isinstance(told, NotedCall):
                self._write(self.calls.call_text(told))
                self._remarks(told)
            else:
                tid, line, reasons = told
                self._write(self._noted(tid, line))
                self._reasons(reasons)

    def _noted(self, tid: int, line: str) -> str:
        return self._hung(self.calls.pid(tid), self.paint("comment", line))

    def _reasons(self, reasons: Iterable[str]) -> None:
        for reason in reasons:
            self._write(self._hung(self.paint("why", printable(f"{WHY}{reason}")), hanging=UNDER))

    def waits(self) -> bool:
        return bool(self.per_cpu or self.walks)

    def lull(self) -> None:
        self.flush()
        self.out.flush()

    def cut(self) -> None:
        self.flush()

    def _tell_per_cpu(self) -> None:
        """What is attached to the events of several CPUs."""
        told = self.per_cpu.take()
        if told is not None:
            self._write(self.attachment_text(*told))

    def call(self, call: NotedCall) -> None:
        """One call; a feature probe or a part of a walk waits, to be told with others."""
        self._idle.discard(call.raw.pid)
        if call.raw.pid in self._execs:
            self._tell_exec(call.raw.pid, self._execs.pop(call.raw.pid))
        if self.per_cpu.other(call):
            self._tell_per_cpu()
        if not self.options.verbose:
            key = self._walk(call)
            if (self.folds and key is not None) or self.walks.other(key):
                self.flush()
            if key is not None:
                self.walks.hold(call, key)
                return
            if self.folds.hold(call):
                return
        self._write(self.calls.call_text(call))
        self._remarks(call)

    def _tell_exec(self, pid: int, what: Exec) -> None:
        """Another program than the one that was started: told before its first call."""
        from bpftrace_sys.render.watching import exec_line

        line = None if self.options.quiet else exec_line(what)
        if line is not None:
            self._write(f"{self.calls.pid(pid)} {self.paint('comment', line)}")

    def again(self, call: NotedCall, before: NotedCall) -> None:
        """Another attempt: only its number is new."""
        options = self.options
        known = self._again
        same = known is not None and known[0] is before
        text = known[1] if known is not None and same else self.calls.call_text(call)
        dated = options.stamp is not None or options.spent
        self._again = None if dated else (call, text)
        self._write(text)
        self._remarks(call)

    def _walk(self, call: NotedCall) -> Key | None:
        """The walk that a call may be a part of, where walks are told in a line."""
        options = self.options
        if options.verbose or options.stacks or not options.walks:
            return None
        return self.walks.key(call)

    def template(self, call: NotedCall) -> TextTemplate | WalkTemplate | None:
        """How calls are printed that are like this one but for their data."""
        key = self._walk(call)
        text = self._text_template(call)
        return text if key is None else WalkTemplate(call.command, key, text)

    def _text_template(self, call: NotedCall) -> TextTemplate | None:
        options = self.options
        if options.stamp is not None or (options.spent and call.raw.duration is None):
            return None
        holes = self.calls.holes = []
        text = "\n".join([self.calls.call_text(call), *self._remark_lines(call), ""])
        self.calls.holes = None
        if len(holes) != len(call.raw.chunks) - 1:
            return None
        if options.spent:
            holes.append((HOLE * len(spent(call.raw.duration, options.spent)), False))
        parted = cut(text, holes)
        if parted is None:
            return None
        return TextTemplate(options, self._first_others, *parted)

    def _first_others(self) -> bool:
        """Whether something that waits is to be told before any other call."""
        return bool(self.folds or self.per_cpu)

    def fitting(self, templates: Sequence[Template], rounds: Rounds) -> int:
        """All of a walk that is told in a line."""
        if self._goes_on(templates):
            return len(rounds)
        return super().fitting(templates, rounds)

    def _goes_on(self, templates: Sequence[Template]) -> Sequence[WalkTemplate]:
        """The same, if all are of the walk that is told in a line."""
        walking = [each for each in templates if isinstance(each, WalkTemplate)]
        whole = len(walking) == len(templates)
        return walking if whole and all(self.walks.goes_on(each.key) for each in walking) else ()

    def loop(self, templates: Sequence[Template], rounds: Rounds) -> None:
        """Calls that are told one by one end a walk, and calls of another walk do."""
        if walking := self._goes_on(templates):
            for walk, strand in zip(walking, rounds.strands, strict=True):
                self.walks.more(walk.command, strand.like.failed, strand.size)
            return
        walks = [each if isinstance(each, WalkTemplate) else None for each in templates]
        if not (self.walks or any(walks)):
            self.out.write(text_of(templates, rounds))
            return
        pairs = zip(templates, rounds.strands, strict=True)
        texts = [iter(template.texts(strand)) for template, strand in pairs]
        failed = [strand.like.failed for strand in rounds.strands]
        keys = [None if walk is None else walk.key for walk in walks]
        order = [0] * len(rounds) if rounds.order is None else rounds.order
        for key, numbers in groupby(order, keys.__getitem__):
            if self.walks.other(key):
                self.flush()
            for number in numbers:
                one, text = walks[number], next(texts[number])
                if one is None:
                    self.out.write(text)
                else:
                    self.walks.hold_text(one.key, one.command, failed[number], text)

    def _remark_lines(self, call: NotedCall) -> Iterator[str]:
        explained = False
        for line in remarks(call):
            # The reason, which stands last, is what a person looks for.
            explained = explained or line.startswith(WHY)
            painted = self.paint("why" if explained else "comment", printable(line))
            yield self._hung(painted, hanging=UNDER)

    def _remarks(self, call: NotedCall) -> None:
        for line in self._remark_lines(call):
            self._write(line)
        if self.options.stacks and call.raw.stack is not None:
            from bpftrace_sys.render.stack import stack_lines

            for line in islice(stack_lines(call.raw.stack), self.options.frames):
                self._write(self.paint("comment", line))

    def attachment(self, told: Attachment) -> None:
        """The block that says what was attached where, and how."""
        if not self.options.verbose and told.steps and told.steps[-1].call.notes.is_probe:
            return  # attached for a moment, to see whether it can be
        if not self.options.verbose:
            if self.per_cpu.hold(told):
                return
            self._tell_per_cpu()
            if self.per_cpu.hold(told):
                return
        self._write(self.attachment_text(told, told.scope))

    def kernel_view(self, seen: Seen) -> None:
        """What became of a program, below its load."""
        if not self.options.kernel or (seen.probe and not self.options.verbose):
            return
        from bpftrace_sys.render import kernel_view

        options = kernel_view.Options(
            self.options.kernel, self.options.syntax, self.options.width,
            self.options.verbose, self.options.tokens,
        )
        shown = kernel_view.ViewText(seen, options, self.paint, self.calls.listings.lines)
        self._write("\n".join(["", *shown.lines(), ""]))

    def held(self, state: ObjectState, known: Object) -> None:
        """What a process held when it was attached to."""
        from bpftrace_sys.render.inventory import held_line

        left = HELD_LETTERS
        for holder in state.holders if self._tells_held else ():
            self._held_seen[holder.pid, state.kind] += 1
            seen = self._held_seen[holder.pid, state.kind]
            if left < 0 or (seen > HELD_SHOWN and not self.options.verbose):
                self._held_more[holder.pid, state.kind] += 1
                continue
            line = held_line(state, known, holder, self.paint)
            left -= len(line)
            self._write(f"{self.calls.pid(holder.pid)} {line}")

    def unseen(self, unseen: Unseen) -> None:
        """What could not be looked at then."""
        from bpftrace_sys.render.inventory import unseen_text

        if self._tells_held:
            self._write(self.paint("comment", unseen_text(unseen)))

    @property
    def _tells_held(self) -> bool:
        return self.options.held and not self.options.quiet

    def process(self, event: ProcessEvent) -> None:
        """A process's end, if it did anything that is told; forks are in the JSON only."""
        what = event.what
        if isinstance(what, Fork) and what.child != event.pid and not self.options.verbose:
            self._idle.add(what.child)
        elif isinstance(what, Exec):
            self.folds.forget(event.pid)
            # The first program is the one that was asked for.
            if self._started:
                self._execs[event.pid] = what
            self._started = True
        elif isinstance(what, Exit):
            if event.tid == event.pid:
                self._execs.pop(event.pid, None)
            if event.tid in self._idle:
                self._idle.discard(event.tid)
                return
            self.flush()
            if event.ends_process:
                self.folds.forget(event.pid)
        line = None if self.options.quiet else exit_line(event)
        if line is not None:
            self._write(f"{self.calls.pid(event.tid)} {line}")

    def end(self, ending: Ending) -> None:
        """What was loaded and never attached."""
        self.flush()
        if not self.options.quiet:
            for line in self.leftovers():
                self._write(line)
        self.out.flush()

    def leftovers(self) -> Iterator[str]:
        """Programs that this trace loaded and attached to nothing."""
        from bpftrace_sys.story.fates import runs, seen_at_the_end, unattached

        for found in self.model.objects.values():
            if isinstance(found, Prog) and found.call is not None and not found.used:
                if found.call.notes.is_probe:
                    continue
                name = printable(found.name) or "(anonymous)"
                details = f"({self._prog_details(found)})"
                targets = seen_at_the_end(found, self.model)
                style, more = "attached", ""
                if targets:
                    verb, more = "attached", f"-> {', '.join(targets)}, seen at the end"
                elif found.runs:
                    verb, details, more = "run", f"{details},", runs(found)
                else:
                    style = "detached"
                    verb, more = unattached(found, self.model)
                    details += "," if more else ""
                units = [f"{self.paint(style, verb)}  {name}", details, *([more] if more else [])]
                yield self._hung(*units)

    # ------------------------------------------------------------ attachments

    @staticmethod
    def _prog_details(found: Object) -> str:
        words = []
        if isinstance(found, Prog):
            if found.type:
                words.append(found.type)
            if found.insns:
                words.append(f"{found.insns} insns")
            if found.tag:
                words.append(f"tag {found.tag}")
        if not words and found.id is not None:
            words.append(f"id {found.id}")
        return ", ".join(words)

    def _given(self, told: Attachment) -> list[str]:
        """What the program is given there, and what it reads of that."""
        found = told.given
        if found is None:
            return []
        lines = [self._comment(f"  given   {printable(found.what)}")]
        shown = found.reads if self.options.verbose else found.reads[:READS]
        lines += [self._comment(f"  {pc:5}:  {printable(what)}") for pc, what in shown]
        if len(found.reads) > len(shown):
            lines.append(self.paint("comment", f"  ... {len(found.reads) - len(shown)} more (-v)"))
        return lines

    def _comment(self, line: str) -> str:
        return self._hung(self.paint("comment", line))

    def _hung(self, *units: str, hanging: str = HANGING) -> str:
        """What is said besides a call, in as many lines as a terminal needs."""
        line = " ".join(units)
        columns = self.options.columns
        return line if visible(line) <= columns or not columns else filled(units, columns, hanging)

    def attachment_text(self, told: Attachment, scope: str = "", more: int = 0) -> str:
        """``attached  NAME (...) -> TARGET``, and the steps below it.

        ``more``: as many others are the same but for their CPU, which ``scope`` tells.
        """
        style = "detached" if told.verb in ("detached", "disabled") else "attached"
        arrow = "-x" if told.verb == "detached" else "->"
        prog = told.prog
        details = []
        if prog is None:
            name = "a program"
        elif prog.kind == "map":
            name = f"map {printable(prog.name)}"
        else:
            name = printable(prog.name) or "(anonymous)"
            details = [f"({self._prog_details(prog)})"]
        units = [f"{self.paint(style, told.verb)}  {name}", *details]
        units.append(f"{arrow} {printable(told.target)}{scope}")
        if told.via not in UNSAID:
            units.append(f"via {told.via}")
        head = self._hung(*units)
        if told.verb in ("enabled", "disabled") and len(told.steps) == 1:
            return head
        from bpftrace_sys.render.short_call import short_call

        lines = [head]
        lines += [
            self._hung(f"  {step.role:<7} {printable(short_call(step.call))}")
            for step in told.steps
        ]
        if more:
            events = f"{more} other CPUs" if more > 1 else "the other CPU"
            lines.append(self.paint("comment", f"  ...     the same for {events}"))
        lines += self._given(told)
        return "\n".join(["", *lines, ""])
