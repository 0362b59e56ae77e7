"""What differs between two traces as a page: instructions side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from bpftrace_sys.common.edits import edits
from bpftrace_sys.common.escape import printable
from bpftrace_sys.compare.diff.differences import (
    CallChange,
    Differences,
    FieldChange,
    Instruction,
    ObjectChange,
    TextLine,
    TieChange,
)
from bpftrace_sys.render.diff import summary
from bpftrace_sys.render.html.document import document
from bpftrace_sys.render.html.markup import Child, Markup, element
from bpftrace_sys.render.html.painting import Marks, Piece
from bpftrace_sys.render.html.quantities import count
from bpftrace_sys.render.insn_paint import InsnPainter
from bpftrace_sys.trace.header import Header
from decoders.records import NamedTuple

SCRIPTS: Final = ("base.js", "start.js")
ROWS: Final = 20_000
"""Lines of instructions and texts on a page."""
ENTRIES: Final = 1_000
"""Objects, and other calls."""
ALIGNED: Final = 1_000
"""Instructions of a source line that are held against each other."""
WORDS: Final = {"added": "new", "removed": "gone", "changed": "changed", "count": "changed"}
KINDS: Final = {"prog": "Programs", "map": "Maps", "btf": "BTF"}
LONG: Final = 4096
"""Characters of a value."""


class DiffPage:
    """The parts of the page; it counts the lines that it has shown."""

    def __init__(
        self,
        found: Differences,
        paths: tuple[str, str],
        headers: tuple[Header | None, Header | None],
    ) -> None:
        self.found = found
        self.paths = paths
        self.headers = headers
        self.room = ROWS
        self._insn = InsnCells()

    def write(self) -> Iterator[str]:
        """The file in pieces."""
        body: list[Child] = [
            self._head(),
            element(
                "main",
                {},
                *self._objects(),
                self._section("attachments", "Attachments", list(map(_tie, self.found.ties))),
                self._section(
                    "probes",
                    "Feature probes",
                    [_change(_probe(probe.a, probe.b), probe.feature, probe.a, probe.b)
                     for probe in self.found.probes],
                ),
                self._section("calls", "Other calls", list(map(_call, self.found.calls))),
            ),
            element("footer", {}, "made by bpfstrace diff"),
        ]  # fmt: skip
        names = " and ".join(path.rpartition("/")[2] for path in self.paths)
        return document(f"bpfstrace diff: {names}", "diff", body, SCRIPTS)

    def _head(self) -> Markup:
        sides = []
        for mark, path, header in zip(("del", "ins"), self.paths, self.headers, strict=True):
            about = ""
            if header is not None:
                about = f"  Linux {header.kernel}: {' '.join(header.argv)[:200]}"
            sides.append(element("p", {}, element(mark, {}, path), about))
        return element(
            "header",
            {},
            element(
                "div",
                {"class": "top"},
                element("a", {"class": "brand", "href": "#"}, "bpfstrace diff"),
                element("nav", {"aria-label": "sections"}, *(
                    element("a", {"href": f"#{name}"}, title) for name, title in self._parts())),
                element("button", {"id": "theme", "type": "button",
                                   "title": "dark or light (t)"}, "◐"),
                element("button", {"id": "keys", "type": "button", "title": "keys (?)"}, "?"),
            ),
            element(
                "div",
                {"class": "lead"},
                element("h1", {}, "What differs" if self.found else "The same"),
                element("div", {"class": "legend-sides"}, *sides),
                element("p", {"class": "verdict"}, summary(self.found)),
            ),
        )  # fmt: skip

    def _parts(self) -> Iterator[tuple[str, str]]:
        kinds = {change.kind for change in self.found.objects}
        yield from ((kind, title) for kind, title in KINDS.items() if kind in kinds)
        for name, title, there in (
            ("attachments", "Attachments", self.found.ties),
            ("probes", "Feature probes", self.found.probes),
            ("calls", "Other calls", self.found.calls),
        ):
            if there:
                yield name, title

    @staticmethod
    def _section(name: str, title: str, entries: Sequence[Markup]) -> Markup | None:
        if not entries:
            return None
        left = len(entries) - ENTRIES
        rest = None
        if left > 0:
            rest = element("p", {"class": "cut"}, f"{left:,} more are not on this page")
        return element(
            "section",
            {"id": name},
            element("h2", {}, title),
            element("ul", {"class": "changes"}, *entries[:ENTRIES]),
            rest,
        )

    # ------------------------------------------------------------ objects

    def _objects(self) -> Iterator[Markup]:
        for kind, title in KINDS.items():
            changes = [change for change in self.found.objects if change.kind == kind]
            if changes:
                yield element(
                    "section",
                    {"id": kind},
                    element("h2", {}, title),
                    *(self._object(change) for change in changes[:ENTRIES]),
                )

    def _object(self, change: ObjectChange) -> Markup:
        words = []
        if change.insns_a is not None and change.insns_b is not None:
            if change.hunks:
                words.append(f"{change.insns_a} → {change.insns_b} instructions")
                words.append(f"+{change.added} −{change.removed}")
        elif change.insns_a is not None or change.insns_b is not None:
            words.append(count(change.insns_a or change.insns_b or 0, "instruction"))
        if change.tag_a and change.tag_b and change.tag_a != change.tag_b and change.hunks:
            words.append(f"tag {change.tag_a} → {change.tag_b}")
        if change.uses:
            words.append(f"with {count(change.uses, 'call')} about it")
        name = change.name.removeprefix(f"{change.kind} ")
        inside: list[Child] = [
            element(
                "summary",
                {},
                _tag(change.change),
                element("b", {}, name),
                *(element("span", {"class": "about"}, word) for word in words),
            )
        ]
        if change.fields:
            inside.append(element("div", {"class": "fields"}, *map(_field, change.fields)))
        for title, hunks in change.texts:
            inside.append(element("p", {"class": "about"}, f"{title}:"))
            for hunk in hunks:
                inside += self._sides(self._text_rows(hunk))
        for instructions in change.hunks:
            # Two of them stand in a row at most.
            inside += self._sides(self._rows(instructions[: 2 * max(self.room, 0) + 2]))
        # What is on one side only says less than what became otherwise.
        opened = "" if change.change == "changed" else None
        return element("details", {"class": "entry", "open": opened}, *inside)

    def _sides(self, cells: list[Markup]) -> list[Child]:
        self.room -= len(cells) // 2
        if self.room < 0:
            return [element("p", {"class": "cut"}, "more differs here than is on this page")]
        return [element("div", {"class": "sides"}, *cells)]

    @staticmethod
    def _text_rows(hunk: list[TextLine]) -> list[Markup]:
        return _paired([(line.op, [line.text[:LONG]]) for line in hunk])

    def _rows(self, hunk: list[Instruction]) -> list[Markup]:
        """Cells for two columns: source lines above what they became on each side."""
        cells: list[Markup] = []
        shown: str | None = None
        function: str | None = None
        gone: list[_Group] = []
        new: list[_Group] = []

        def flush() -> None:
            nonlocal shown
            if gone or new:
                cells.extend(self._beside(gone, new, shown))
                shown = None
                gone.clear()
                new.clear()

        for line in hunk:
            if line.function is not None and line.function != function:
                flush()
                function = line.function
                cells.append(element("div", {"class": "both"}, f"{line.function}:"))
            if line.op == " ":
                flush()
                if line.source is not None and line.source != shown:
                    shown = line.source
                    cells.append(_source(shown))
                for side, pc in (("a", line.pc_a), ("b", line.pc_b)):
                    cells.append(
                        element("div", {"class": f"same {side}"}, *self._insn.cell(pc, line.text))
                    )
                continue
            groups, pc = (gone, line.pc_a) if line.op == "-" else (new, line.pc_b)
            if not groups or groups[-1].source != line.source:
                groups.append(_Group(line.source, []))
            groups[-1].insns.append(_Insn(pc, line.text[:LONG]))
        flush()
        return cells

    def _beside(
        self, gone: list[_Group], new: list[_Group], shown: str | None
    ) -> Iterator[Markup]:
        """What is gone beside what is new, by the source lines that both have."""
        for edit in edits([group.source for group in gone], [group.source for group in new]):
            a = None if edit.a is None else gone[edit.a]
            b = None if edit.b is None else new[edit.b]
            source = a.source if a is not None else b.source if b is not None else None
            if source is not None and source != shown:
                yield _source(source)
            shown = source
            yield from self._insn.columns(
                a.insns if a is not None else [], b.insns if b is not None else []
            )


class _Insn(NamedTuple):
    """An instruction on one side."""

    pc: int | None
    text: str

    @property
    def opcode(self) -> str:
        """In brackets, as every text of one begins."""
        return self.text.partition(" ")[0]


class _Group(NamedTuple):
    """Instructions of a source line, on one side."""

    source: str | None
    insns: list[_Insn]


class InsnCells:
    """Instructions in colours; where two stand beside each other, what differs in them."""

    def __init__(self) -> None:
        self._marks = Marks()
        self._paint = InsnPainter(self._marks.paint)

    def cell(self, pc: int | None, text: str, other: str | None = None) -> list[Child]:
        """``other`` stands on the other side, in its place."""
        number = None if pc is None else element("span", {"class": "pc"}, str(pc))
        pieces = self._pieces(text)
        beside = [] if other is None else self._pieces(other)
        alike = [piece.style for piece in pieces] == [piece.style for piece in beside]
        cells: list[Child] = [number]
        for at, (style, part) in enumerate(pieces):
            words = [f"p-{style}"] if style else []
            if alike and part != beside[at].text:
                words.append("differs")
            cells.append(element("span", {"class": " ".join(words)}, part) if words else part)
        return cells

    def _pieces(self, text: str) -> list[Piece]:
        return self._marks.pieces(self._marks.marked(self._paint(printable(text))))

    def columns(self, gone: list[_Insn], new: list[_Insn]) -> list[Markup]:
        """Those of the same opcode beside each other; what lies between, as it comes."""
        if len(gone) + len(new) > ALIGNED:
            return _columns([self.cell(*insn) for insn in gone], [self.cell(*insn) for insn in new])
        cells: list[Markup] = []
        left: list[list[Child]] = []
        right: list[list[Child]] = []
        for edit in edits([insn.opcode for insn in gone], [insn.opcode for insn in new]):
            if edit.a is not None and edit.b is not None:
                cells += _columns(left, right)
                left, right = [], []
                a, b = gone[edit.a], new[edit.b]
                cells += _columns(
                    [self.cell(a.pc, a.text, b.text)], [self.cell(b.pc, b.text, a.text)]
                )
            elif edit.a is not None:
                left.append(self.cell(*gone[edit.a]))
            elif edit.b is not None:
                right.append(self.cell(*new[edit.b]))
        return cells + _columns(left, right)


def _source(text: str) -> Markup:
    return element("div", {"class": "both"}, f"; {text}")


def _columns(gone: list[list[Child]], new: list[list[Child]]) -> list[Markup]:
    cells = []
    for at in range(max(len(gone), len(new))):
        for side, style in ((gone, "del"), (new, "add")):
            if at < len(side):
                cells.append(element("div", {"class": style}, *side[at]))
            else:
                cells.append(element("div", {"class": "void"}))
    return cells


def _paired(lines: list[tuple[str, list[Child]]]) -> list[Markup]:
    """Cells for two columns: what is gone beside what came for it."""
    cells: list[Markup] = []
    gone: list[list[Child]] = []
    new: list[list[Child]] = []
    for op, cell in [*lines, (" ", [])]:
        if op == "-":
            gone.append(cell)
        elif op == "+":
            new.append(cell)
        else:
            cells += _columns(gone, new)
            gone, new = [], []
            if cell:
                cells.append(element("div", {"class": "same a"}, *cell))
                cells.append(element("div", {"class": "same b"}, *cell))
    return cells


def _tag(change: str) -> Markup:
    return element("span", {"class": f"tag {change}"}, WORDS.get(change, change))


def _field(change: FieldChange) -> Markup:
    name, a, b = change
    parts: list[Child] = [f"{name}: "]
    if a is not None:
        parts.append(element("del", {}, a[:LONG]))
    if a is not None and b is not None:
        parts.append(" → ")
    if b is not None:
        parts.append(element("ins", {}, b[:LONG]))
    return element("div", {}, *parts)


def _probe(a: str | None, b: str | None) -> str:
    return "added" if a is None else "removed" if b is None else "changed"


def _change(change: str, name: str, a: str | None, b: str | None) -> Markup:
    return element("li", {}, _tag(change), _field(FieldChange(name, a, b)))


def _tie(tie: TieChange) -> Markup:
    arrow = "⤫" if tie.verb == "detached" else "→"
    prog = element("b", {}, tie.prog)
    parts: list[Child] = [_tag(tie.change), f"{tie.verb} ", prog, f" {arrow} "]
    if tie.other is not None:
        parts += [element("del", {}, tie.other), " → ", element("ins", {}, tie.target)]
    else:
        parts.append(element("span", {"class": "target"}, tie.target))
    if tie.via not in ("", "link", "map"):
        parts.append(element("span", {"class": "via"}, f" via {tie.via}"))
    return element("li", {}, *parts)


def _call(call: CallChange) -> Markup:
    words = call.head + (f" = {call.result}" if call.result else "")
    about = f" on {call.subject}" if call.subject and call.subject != call.result else ""
    if call.path:
        about += f" {call.path}"
    times = ""
    if call.change == "count":
        times = f": {call.count_a} → {call.count_b} times"
    elif max(call.count_a, call.count_b) > 1:
        times = f" ({call.count_a or call.count_b} times)"
    process = element("span", {"class": "about"}, f"{call.process} ") if call.process else None
    fields = element("div", {"class": "fields"}, *map(_field, call.fields)) if call.fields else None
    told = element("code", {}, words[:LONG] + about[:LONG] + times)
    return element("li", {}, _tag(call.change), process, told, fields)


def diff_page(
    found: Differences, paths: tuple[str, str], headers: tuple[Header | None, Header | None]
) -> Iterator[str]:
    """The file in pieces."""
    return DiffPage(found, paths, headers).write()
