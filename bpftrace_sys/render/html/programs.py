"""Programs of a trace for the page: listings, verifier logs, what they use."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Final

from bpftrace_sys.common.errnos import errno_name
from bpftrace_sys.common.escape import printable
from bpftrace_sys.render.html import records
from bpftrace_sys.render.html.page_objects import PageObjects
from bpftrace_sys.render.html.painting import Marks
from bpftrace_sys.render.html.quantities import count
from bpftrace_sys.render.html.records import Blob, InsnRow, Program, Report
from bpftrace_sys.story.fates import fate, stands
from bpftrace_sys.story.kernel_view import Seen
from bpftrace_sys.story.listing import btf_fd, listing_of
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.notes import Listing
from bpftrace_sys.story.objects import MADE, NotedCall, Object, Prog, text_of
from bpftrace_sys.story.remarks import remarks
from bpftrace_sys.story.summary import runs_of
from bpftrace_sys.story.verifier.verdict import verdict
from decoders.call import inner_value
from decoders.formats import insn as isa
from decoders.raw import ENTRY
from decoders.uapi.helpers import bpf_func_id
from decoders.values import Bytes, Insns, Name, Text

if TYPE_CHECKING:
    from bpftrace_sys.render.html.kernel import KernelSides

REASONS: Final = 12


class Programs:
    """Takes loads, BTF and BIND_MAPs in order."""

    def __init__(
        self, report: Report, page_objects: PageObjects, model: Model, marks: Marks
    ) -> None:
        self.report = report
        self._marks = marks
        self._sides: KernelSides | None = None
        self.page_objects = page_objects
        self.model = model
        self._by_thing: dict[int, Program] = {}
        self._last_refused: dict[int, tuple[int, Program]] = {}
        """The last load that was refused, by thread: the hash of its instructions with it."""
        self._room = records.LISTINGS
        self._logs = records.LOGS
        self._c = records.BTF_TEXT
        self._blobs: set[int] = set()
        """Objects of the page, by their numbers."""
        self._same: dict[bytes, str] = {}
        """Anchors by the bytes; no more of them than are shown as C."""

    def load(self, call: NotedCall, thread: int) -> None:
        """A PROG_LOAD that is no feature probe."""
        if len(self.report.programs) >= records.OBJECTS:
            return
        made = call.notes.made
        found = made if made is not None and made.kind == "prog" else None
        if not call.raw.failed and found is None:
            return  # never returned, or nothing is known of its fd
        insns = inner_value(call.attr("attr", "insns"))
        identity = hash(insns.data) if isinstance(insns, Insns) else 0
        program = self._new(call, found, thread)
        if not program.anchor:
            return
        before = self._last_refused.pop(call.raw.tid, None)
        if before is not None and call.notes.retry is not None and before[0] == identity:
            # An attempt at the same: told in one place, with what is known of it now.
            program.attempts = [*before[1].attempts, before[1].seq]
            if not program.log:
                earlier = before[1]
                program.log, program.rejected = earlier.log, earlier.rejected
                program.said, program.state = earlier.said, earlier.state
            at = self.report.programs.index(before[1])
            self.report.programs[at] = program
        else:
            self.report.programs.append(program)
        if call.raw.failed:
            self._last_refused[call.raw.tid] = (identity, program)

    def known(self, found: Object) -> None:
        """A program that is attached; perhaps one from elsewhere."""
        number = self.page_objects.of(found)
        if number is None or number in self._by_thing or found.origin == MADE:
            return
        anchor = self.report.page_objects[number].anchor
        program = Program(anchor, number, printable(found.name)[: records.NAME])
        program.id, program.origin = found.id, found.origin
        program.tag = found.tag if isinstance(found, Prog) else ""
        program.kind = _kind(found)
        self._by_thing[number] = program
        self.report.programs.append(program)

    def bind(self, call: NotedCall) -> None:
        """PROG_BIND_MAP: the program uses a map that its instructions do not name."""
        if call.raw.failed:
            return
        prog = self.model.by_fd(call, "attr", "prog_bind_map", "prog_fd")
        used = self.model.by_fd(call, "attr", "prog_bind_map", "map_fd")
        if prog is not None and used is not None:
            self.uses(prog, used)

    def uses(self, prog: Object, used: Object) -> None:
        """A program uses a map."""
        number, map_number = self.page_objects.of(prog), self.page_objects.of(used)
        program = None if number is None else self._by_thing.get(number)
        if program is not None and map_number is not None and map_number not in program.maps:
            program.maps.append(map_number)

    def reads(self, prog: Object, reads: list[tuple[int, str]]) -> None:
        """What a program's instructions read of what it is given where it is attached."""
        number = self.page_objects.of(prog)
        program = None if number is None else self._by_thing.get(number)
        if program is not None and not program.reads and program.rows:
            program.reads = {pc: printable(what)[: records.NAME]
                             for pc, what in reads[: records.READS]}  # fmt: skip

    def view(self, seen: Seen) -> None:
        """What the kernel made of a program; one that is about to be known, perhaps."""
        number = None if seen.prog is None else self.page_objects.of(seen.prog)
        if seen.prog is not None and number not in self._by_thing:
            self.known(seen.prog)
        program = None if number is None else self._by_thing.get(number)
        if program is not None and self._room > 0:
            if self._sides is None:
                from bpftrace_sys.render.html.kernel import KernelSides

                self._sides = KernelSides(self._marks)
            program.kernel = self._sides.of(seen)
            self._room -= len(json.dumps(program.kernel.rows, ensure_ascii=False))

    def finish(self) -> None:
        """What is known of the programs at the end."""
        self.page_objects.finish()
        for number, program in self._by_thing.items():
            program.runs = runs_of(self.page_objects.objects[number], self.model)

    def end(self) -> None:
        """The trace is whole: what became of the programs."""
        for number, program in self._by_thing.items():
            prog = self.page_objects.objects[number]
            if isinstance(prog, Prog):
                program.fate = fate(prog, self.model)[: records.FATE]
                program.stands = stands(prog, self.model)

    # ------------------------------------------------------------ a load

    def _new(self, call: NotedCall, found: Object | None, thread: int) -> Program:
        raw = call.raw
        number = None if found is None else self.page_objects.of(found)
        if number is not None:
            anchor = self.report.page_objects[number].anchor
        else:
            anchor = "" if found is not None else self.page_objects.anchor(f"load-{raw.seq}")
        name = found.name if found is not None else text_of(call.attr("attr", "prog_name"))
        program = Program(anchor, number, printable(name)[: records.NAME] or "(anonymous)")
        program.seq, program.thread, program.duration = raw.seq, thread, raw.duration
        program.license = printable(text_of(call.attr("attr", "license")))[: records.NAME]
        if found is not None and number is not None:
            program.id = found.id
            program.tag = found.tag if isinstance(found, Prog) else ""
            program.kind = _kind(found)
            self._by_thing[number] = program
        else:
            program.kind = _asked(call)
            program.error = errno_name(-(raw.ret or 0)) if raw.failed else ""
            program.why = [printable(line.strip()) for line in remarks(call)[:REASONS]]
        self._uses(call, program)
        self._log(call, program)
        insns = inner_value(call.attr("attr", "insns"))
        if isinstance(insns, Insns):
            program.insns = insns.total
            self._listing(call, insns, program)
        return program

    def _uses(self, call: NotedCall, program: Program) -> None:
        btf = btf_fd(call)
        for (fd, stage), used in call.notes.objects.items():
            if stage != ENTRY:
                continue
            number = self.page_objects.of(used) if used.kind in ("map", "btf") else None
            if number is None:
                continue
            if used.kind == "map" and number not in program.maps:
                program.maps.append(number)
            elif used.kind == "btf" and btf is not None and fd == btf.fd:
                program.btf = number

    def _log(self, call: NotedCall, program: Program) -> None:
        log = inner_value(call.attr("attr", "log_buf"))
        if not isinstance(log, Text) or not log.data.strip(b"\0\n"):
            return
        data = log.data[-records.LOG :].decode("utf-8", "backslashreplace")
        if call.raw.failed:
            found = verdict(data)
            if found is not None:
                program.rejected = found.pc
                program.said = printable(found.message)[:1024]
                program.state = printable(found.state or "")[:4096]
        kept = data[-max(self._logs, 4096) :]
        self._logs -= len(kept)
        program.log_cut = not log.whole or len(kept) < len(log.data)
        program.log = "\n".join(
            printable(line.replace("\t", "    ")) for line in kept.rstrip("\n").split("\n")
        )

    def _listing(self, call: NotedCall, insns: Insns, program: Program) -> None:
        if self._room <= 0 or len(insns.data) > 50 * records.INSNS * isa.SLOT:
            program.cut = len(insns.data) // 8
            return
        found = listing_of(call, self.model)
        if found is None:
            return
        code = isa.listed(insns.data)
        program.missing = found.missing
        if found.unread:
            program.unread = f"{count(found.unread, 'more instruction')} not read: {found.why}"
        program.rows = rows_of(found, code, records.INSNS)
        program.cut = len(found.lines) - len(program.rows) + found.unlisted
        program.helpers = _helpers(code, insns.data)
        # So long is it in the page; what is over the limit is the last one's excess.
        self._room -= len(json.dumps(list(map(trimmed, program.rows)), ensure_ascii=False))

    # ------------------------------------------------------------ BTF

    def blob(self, call: NotedCall) -> None:
        """A BTF_LOAD that is no feature probe."""
        from decoders.formats import btf, btf_c

        data = inner_value(call.attr("attr", "btf"))
        made = call.notes.made
        if not isinstance(data, Bytes) or len(self.report.blobs) >= records.OBJECTS:
            return
        number = None if made is None else self.page_objects.of(made)
        if number is not None and number in self._blobs:
            return
        anchor = (
            self.page_objects.anchor(f"btf-of-{call.raw.seq}")
            if number is None
            else self.report.page_objects[number].anchor
        )
        if number is not None:
            self._blobs.add(number)
        note = printable(data.note or "")
        blob = Blob(anchor, number, call.raw.seq, len(data.data), note)
        self.report.blobs.append(blob)
        blob.same = self._same.get(data.data, "")
        if blob.same:
            return
        if len(data.data) < data.wanted or self._c <= 0:
            blob.cut = True
            return
        self._same[data.data] = anchor
        try:
            parsed = btf.parse(data.data)
        except btf.BtfError as error:
            blob.note = printable(str(error))
            return
        texts: list[str] = []
        room = min(records.BTF_ONE, self._c)
        for text in btf_c.declarations(parsed):
            room -= len(text)
            if room < 0:
                blob.cut = True
                break
            texts += [printable(line.replace("\t", "    ")) for line in text.split("\n")]
        blob.text = "\n".join(texts)
        self._c -= len(blob.text)


def rows_of(found: Listing, code: Iterable[isa.Insn], limit: int) -> list[InsnRow]:
    """The lines of a listing."""
    leads: dict[int, int] = {}
    for insn in islice(code, limit):
        distance = isa.jump_distance(insn)
        target = isa.call_target(insn) if distance is None else insn.pc + 1 + distance
        if target is not None:
            leads[insn.pc] = target
    return [
        InsnRow(
            line.pc,
            line.text if line.text.isprintable() else printable(line.text),
            None if line.comment is None else printable(line.comment),
            leads.get(line.pc),
            None if line.source is None else printable(line.source),
            None if line.where is None else printable(line.where),
            None if line.function is None else printable(line.function),
        )
        for line in found.lines[:limit]
    ]


def trimmed(row: InsnRow) -> tuple[object, ...]:
    """A row as the page has it: without what lacks at its end."""
    end = len(row)
    while row[end - 1] is None:
        end -= 1
    return row[:end]


def _helpers(code: Iterable[isa.Insn], data: bytes) -> list[tuple[str, list[int]]]:
    """Which are called, where in what is listed; of those called later only, where first."""
    found: dict[int, list[int]] = {}
    for site in isa.calls(code):
        if site.kind == "helper":
            found.setdefault(site.id, []).append(site.pc)
    for site in isa.callees(data):
        if site.kind == "helper":
            found.setdefault(site.id, [site.pc])
    return [(_helper(number), pcs[:64]) for number, pcs in list(found.items())[:64]]


def _helper(number: int) -> str:
    known = bpf_func_id.get(number)
    return f"helper {number}" if known is None else f"bpf_{known.removeprefix('bpf_')}"


def _kind(found: Object) -> str:
    return printable(found.type_name) if isinstance(found, Prog) else ""


def _asked(call: NotedCall) -> str:
    kind = call.attr("attr", "prog_type")
    if isinstance(kind, Name):
        return (kind.name or str(kind.value)).removeprefix("BPF_PROG_TYPE_").lower()
    return ""
