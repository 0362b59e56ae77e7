"""What is said of a call, an object or an attachment, as lines that may lead elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from bpftrace_sys.render.html.painting import Marks, unmarked
from bpftrace_sys.render.html.quantities import count, span
from bpftrace_sys.render.html.records import Blob, CallRow, KernelSide, Map, Program, Report
from bpftrace_sys.render.insn_paint import InsnPainter
from bpftrace_sys.render.times import seconds
from bpftrace_sys.tui.book import Book
from bpftrace_sys.tui.entries import Entry, TieGroup, targets, users
from decoders.records import NamedTuple

LISTED: Final = 64
"""Maps, helpers and users that are named one by one."""
NAMES: Final = 14
"""Columns of what stands before a fact."""


class Line(NamedTuple):
    """A line of the details."""

    text: str
    """Painted."""
    seq: int | None = None
    """The call that it leads to."""
    thing: int | None = None
    """The object that it leads to."""
    indent: int = 0
    """Where it goes on if it is wrapped."""


class Details:
    """Makes lines of what a Book holds."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.report: Report = book.report
        self._marks: Marks = book.marks
        self._insn = InsnPainter(self._marks.paint)

    def paint(self, style: str, text: str) -> str:
        """A text with the marks of a style."""
        return self._marks.marked(self._marks.paint(style, text)) if text else ""

    # ------------------------------------------------------------ parts

    def fact(self, name: str, value: str, seq: int | None = None,
             thing: int | None = None) -> Iterator[Line]:  # fmt: skip
        """A name and a value; none where there is no value."""
        if value:
            text = f"{self.paint('comment', f'{name:<{NAMES}}')}{value}"
            yield Line(text, seq, thing, NAMES)

    def title(self, text: str) -> Iterator[Line]:
        """What stands above a part."""
        yield Line("")
        yield Line(self.paint("syscall", text))

    def thing(self, number: int) -> str:
        """An object in words."""
        known = self.report.page_objects[number]
        return self.paint("object", known.label or known.anchor)

    def maker(self, number: int) -> str:
        """Which call made an object, or why that is not known."""
        made = self.book.made_by(number)
        return f"made by call #{made}" if made is not None else self.unmade(number)

    def unmade(self, number: int) -> str:
        """Why no call made an object."""
        origin = self.book.page_objects.objects[number].origin
        return {"before": "made before the trace"}.get(origin, "its making was not seen")

    def made(self, name: str, number: int) -> Iterator[Line]:
        """Which call made an object, as a fact."""
        seq = self.book.made_by(number)
        yield from self.fact(name, self.unmade(number) if seq is None else f"by call #{seq}", seq)

    def clock(self, nanoseconds: int) -> str:
        """A time of the day on this machine, to the microsecond."""
        text = time.strftime("%H:%M:%S", time.localtime(nanoseconds // 10**9))
        return text + seconds(nanoseconds % 10**9, "us")[1:]

    # ------------------------------------------------------------ calls

    def call(self, row: CallRow) -> Iterator[Line]:
        """A call: when and who, its text, why it failed, what it is about, the listing."""
        report = self.report
        thread = report.threads[row.thread]
        who = f"{thread.comm} ({thread.pid}" + (
            f", thread {thread.tid})" if thread.tid != thread.pid else ")"
        )
        took = span(row.duration) if row.duration is not None else ""
        yield Line(
            self.paint("comment", f"#{row.seq}  {self.clock(row.time)}  {who}")
            + (self.paint("comment", f"  took {took}") if took else "")
        )
        yield Line("")
        for text in row.text.split("\n"):
            bare = text.lstrip(" ")
            yield Line(text, indent=min(len(text) - len(bare) + 2, 12))
        for text in row.why if isinstance(row.why, list) else ():
            style = "why" if text.startswith("why:") else "comment"
            yield Line(self.paint(style, f"  {text}"), indent=7)
        if row.group:
            told = f"  feature probe; this run: {report.groups[row.group - 1]}"
            yield Line(self.paint("comment", told), indent=4)
        if row.things:
            yield from self.title("objects")
            for number in row.things:
                made = self.book.made_by(number)
                words = "made here" if made == row.seq else self.maker(number)
                about = self.paint("comment", f"   {words}")
                yield Line(f"  {self.thing(number)}{about}", thing=number, indent=4)
        if row.stack:
            yield from self.title("stack")
            for text in row.stack.split("\n"):
                yield Line(text, indent=4)
        program = next(
            (one for one in report.programs if row.seq == one.seq or row.seq in one.attempts), None
        )
        if program is not None:
            yield from self.load(program)

    def as_text(self, row: CallRow) -> str:
        """A call as text to be copied."""
        why = row.why if isinstance(row.why, list) else []
        return "\n".join([unmarked(row.text), *(f"  {text}" for text in why)])

    # ------------------------------------------------------------ objects

    def entry(self, entry: Entry) -> Iterator[Line]:
        """An object of the list."""
        if entry.program is not None:
            yield from self.program(entry.program)
            return
        assert entry.thing is not None
        number = entry.thing
        known = self.report.page_objects[number]
        yield Line(self.thing(number))
        yield Line("")
        yield from self.made("made", number)
        if known.kind == "map":
            found = next((one for one in self.report.maps if one.thing == number), None)
            if found is not None:
                yield from self.map(found)
            return
        if known.kind == "btf":
            for program in list(users(self.report, number))[:LISTED]:
                yield from self.fact("used by", program.name, thing=program.thing)
            blob = next((one for one in self.report.blobs if one.thing == number), None)
            if blob is not None:
                yield from self.blob(blob)
        for tie in self.report.ties:
            if number in (tie.link, tie.prog):
                step = tie.steps[-1][2] if tie.steps else None
                yield from self.fact(tie.verb, f"{tie.who} -> {tie.target}", seq=step)
        yield Line("")
        yield Line(self.paint("comment", "u lists the calls that have to do with it"))

    def program(self, program: Program) -> Iterator[Line]:
        """A program: what it is, what it uses, where it is attached, its listing."""
        report = self.report
        yield Line(f"{self.paint('object', f'prog {program.name}')} {program.kind}")
        yield Line("")
        if program.error:
            yield from self.fact("refused", self.paint("error", program.error), seq=program.seq)
            for text in program.why:
                yield Line(self.paint("why", f"  {text}"), indent=7)
        yield from self.fact("id", "" if program.id is None else str(program.id))
        yield from self.fact("tag", program.tag)
        if program.seq:
            took = f", took {span(program.duration)}" if program.duration is not None else ""
            yield from self.fact("loaded", f"by call #{program.seq}{took}", seq=program.seq)
            for seq in program.attempts[-8:]:
                yield from self.fact("tried before", f"by call #{seq}", seq=seq)
        elif program.thing is not None:
            yield from self.made("loaded", program.thing)
        yield from self.fact("license", program.license)
        if program.runs is not None:
            number, nanoseconds = program.runs
            each = f", {span(round(nanoseconds / number))} each" if number else ""
            yield from self.fact("ran", f"{number:,} times{each}")
        if program.thing is not None:
            on = targets(report).get(program.thing, [])
            for target in on[:LISTED]:
                yield from self.fact("attached to", self.paint("attached", target))
            if not on:
                yield from self.fact("attached to", self.paint("comment", "not seen attached"))
        for number in program.maps[:LISTED]:
            yield from self.fact("map", self.thing(number), thing=number)
        if program.btf is not None:
            yield from self.fact("BTF", self.thing(program.btf), thing=program.btf)
        yield from self.fact("helpers", ", ".join(
            self.paint("helper", name) + (f" x{len(pcs)}" if len(pcs) > 1 else "")
            for name, pcs in program.helpers[:LISTED]))  # fmt: skip
        yield from self.load(program)

    def load(self, program: Program) -> Iterator[Line]:
        """What a load holds: instructions with source, the verifier's log, the kernel's side."""
        insns = "" if program.insns is None else f", {count(program.insns, 'instruction')}"
        if program.rows:
            yield from self.title(f"listing of {program.name}{insns}")
            yield from self.listing(program)
        if program.cut:
            yield Line(self.paint("comment", f"  {program.cut:,} more instructions are not shown"))
        if program.missing:
            yield Line(self.paint("error", f"  {program.missing} more instructions unreadable"))
        if program.unread:
            yield Line(self.paint("comment", f"  {program.unread}"))
        if program.log:
            cut = ", its end" if program.log_cut else ""
            yield from self.title(f"verifier log{cut}")
            for text in program.log.split("\n"):
                yield Line(f"  {text}", indent=4)
        if program.kernel is not None:
            yield from self.kernel(program.kernel)

    def listing(self, program: Program) -> Iterator[Line]:
        """Functions, source lines, instructions with comments."""
        width = len(str(program.rows[-1].pc))
        last = None
        several = sum(row.function is not None for row in program.rows) > 1
        for pc, text, said, _, source, _, function in program.rows:
            if function is not None and several:
                yield Line(self.paint("function", f"{function}:"), indent=4)
            if source and source != last:
                last = source
                yield Line(self.paint("source", f"; {source}"), indent=4)
            mark = "X" if pc == program.rejected else " "
            painted = self._marks.marked(self._insn(text))
            words = f"{mark} {pc:>{width}}: {painted}"
            notes = [note for note in (said, program.reads.get(pc)) if note]
            if notes:
                gap = " " * max(1, 28 - len(text))
                words += gap + self.paint("comment", f"/* {'; '.join(notes)} */")
            yield Line(words, indent=width + 6)
            if pc == program.rejected and program.said:
                yield Line(self.paint("why", f"  {program.said}"), indent=4)
                if program.state:
                    yield Line(self.paint("comment", f"  {program.state}"), indent=4)

    def kernel(self, side: KernelSide) -> Iterator[Line]:
        """What the kernel made of it (-e kernel=)."""
        yield from self.title("what the kernel made of it")
        for text in side.said:
            yield Line(self.paint("comment", f"  {text}"), indent=4)
        if side.fates:
            words = ", ".join(f"{number} {what}" for what, number in side.fates.items())
            yield Line(f"  {words}", indent=4)
        for row in side.rows:
            yield Line(f"  {'-' if row.pc is None else row.pc}: {self.paint('note', row.fate)}")
            for text in row.translated:
                yield Line(f"      {text}", indent=10)
            for line in row.native:
                yield Line(f"     {self.paint('comment', f'{line.offset:>5}:')} {line.text}",
                           indent=14)  # fmt: skip
        for text in side.translated:
            yield Line(f"  {text}", indent=6)
        for function in side.native:
            yield Line(self.paint("function", f"  {function.name}"), indent=4)
            for offset, text, source in function.lines:
                if source is not None:
                    yield Line(self.paint("source", f"  ; {source}"), indent=4)
                yield Line(f"  {offset:>5}: {text}", indent=9)

    def map(self, found: Map) -> Iterator[Line]:
        """A map: sizes and types, who uses it, its values over time."""
        key, value, most = found.sizes
        yield from self.fact("type", found.kind)
        yield from self.fact("id", "" if found.id is None else str(found.id))
        for name, size, known in (("key", key, found.types[0]), ("value", value, found.types[1])):
            if size is not None:
                yield from self.fact(name, f"{size} bytes  {self.paint('name', known)}".rstrip())
        yield from self.fact("entries", "" if most is None else f"up to {most:,}")
        yield from self.fact("operations", f"{found.operations:,}" if found.operations else "")
        for pin in found.pins:
            yield from self.fact("pinned at", pin)
        for program in list(users(self.report, found.thing))[:LISTED]:
            yield from self.fact("used by", self.paint("object", f"prog {program.name}"),
                                 seq=program.seq or None, thing=program.thing)  # fmt: skip
        if found.events:
            yield from self.title("values")
        for seq, what, key_text, value_text, _ in found.events:
            arrow = f" = {value_text}" if value_text and what != "delete" else ""
            yield Line(f"  {self.paint('comment', f'#{seq:<6}')}{what:<6} "
                       f"{key_text}{arrow}", seq=seq, indent=16)  # fmt: skip
        if found.more:
            yield Line(self.paint("comment", f"  {found.more:,} more are not shown; u lists all"))

    def blob(self, blob: Blob) -> Iterator[Line]:
        """BTF as C."""
        yield from self.fact("size", f"{blob.size:,} bytes")
        yield from self.fact("note", blob.note)
        if blob.same:
            yield from self.fact("the same as", blob.same)
        if blob.text:
            yield from self.title("as C")
            for text in blob.text.split("\n"):
                yield Line(f"  {text}", indent=8)
        if blob.cut:
            yield Line(self.paint("comment", "  more is not shown"))

    # ------------------------------------------------------------ attachments

    def attachment(self, group: TieGroup) -> Iterator[Line]:
        """An attachment: who, where, by which calls."""
        tie = group.tie
        gone = tie.verb in ("detached", "disabled")
        yield Line(f"{self.paint('detached' if gone else 'attached', tie.verb)}  "
                   f"{self.paint('object', tie.who)} {'-x' if tie.verb == 'detached' else '->'} "
                   f"{tie.target}", thing=tie.prog, indent=4)  # fmt: skip
        yield Line("")
        if tie.via not in ("", "link", "map"):
            yield from self.fact("via", tie.via)
        if group.often > 1:
            yield from self.fact("how often", f"{group.often}, the first of them:")
        for role, text, seq in tie.steps:
            yield from self.fact(role, f"{self.paint('comment', f'#{seq}')} {text}", seq=seq)
        if tie.prog is not None:
            yield from self.fact("program", self.thing(tie.prog), thing=tie.prog)
        if tie.link is not None:
            yield from self.fact("link", self.thing(tie.link), thing=tie.link)
        yield from self.fact("given", tie.given)
