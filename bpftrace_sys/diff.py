"""What differs between two traces, by meaning.

Pure: two :class:`Side`, each filled from a :class:`~bpftrace_sys.canonical.canon.Canon`,
become :class:`Differences`.  docs/diff.md says what counts as a difference.

First objects find their partners (by name and content), and partners get one
name.  Then calls are compared as texts in those names, by process and by the
object that they are about, so that the order of independent calls is no matter.
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bpftrace_sys.canonical.canon import Canon
from bpftrace_sys.canonical.entries import LOADS, WALKS, Entry, Line, Tied, walks
from bpftrace_sys.canonical.objects import Known
from bpftrace_sys.canonical.processes import Process
from bpftrace_sys.canonical.text import refs
from bpftrace_sys.edits import Edit, edits, hunks
from bpftrace_sys.header import Header

KINDS: Final = ("progs", "maps", "attachments")
"""What --only takes."""
CONTEXT: Final = 2
"""Equal lines shown around those that differ."""
THINGS: Final = 20_000
"""Programs, maps and BTF of a trace that are held one by one; the rest in a hash."""
DISTINCT: Final = 2_000
"""Different calls about one object that are held one by one; the rest in a hash."""
GROUPS: Final = 50_000
"""Objects and processes whose calls are held apart."""
COMPARED: Final = 64
"""Objects without a partner that are compared with each other for their likeness."""
ALIKE: Final = 0.5
"""Part of the instructions that two programs share, if they are to be partners."""
LOG_SHOWN: Final = 40

ELEMENTS: Final = frozenset(
    {"BPF_MAP_UPDATE_ELEM", "BPF_MAP_UPDATE_BATCH", "BPF_PROG_TEST_RUN"}
)
QUIET: Final = frozenset(
    {
        *ELEMENTS,
        *WALKS,
        "openat",
        "BPF_OBJ_GET",
        "BPF_PROG_QUERY",
        "PERF_EVENT_IOC_ID",
        "PERF_EVENT_IOC_QUERY_BPF",
        "PERF_EVENT_IOC_RESET",
    }
)
"""Calls whose number says nothing: they look, or do the same again."""
SWITCHED: Final = frozenset({"enabled", "disabled"})
"""Verbs of attachments that are compared as the ioctl that they are."""
KERNELS: Final = frozenset({"info.info.tag", "info.info.prog_tags"})
"""Fields that follow from the program and the kernel's way of hashing it."""


# ------------------------------------------------------------------ collecting


class Rest:
    """Texts beyond a limit: how many, and a hash that does not depend on their order."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0

    def add(self, text: str) -> None:
        """Counts one."""
        digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
        self.sum = (self.sum + int.from_bytes(digest, "little")) % (1 << 128)
        self.count += 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rest) and (self.count, self.sum) == (other.count, other.sum)

    __hash__ = None  # type: ignore[assignment]


@dataclass(slots=True)
class Seen:
    """A call, and how often it was made."""

    entry: Entry
    count: int = 1


@dataclass(slots=True)
class Group:
    """The different calls of a process about one object, in the order of the first of each."""

    process: Process
    subject: int | None
    calls: OrderedDict[str, Seen] = field(default_factory=OrderedDict)
    rest: Rest = field(default_factory=Rest)


@dataclass(slots=True)
class Thing:
    """A program, map or BTF that was loaded, or refused."""

    kind: str
    entry: Entry
    digest: bytes
    """Of its content, without the names of objects in it."""
    base: str = ""
    count: int = 1


class Side:
    """One of the two traces: takes entries, and keeps what is needed to compare them."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.canon: Canon | None = None
        """What the entries come from, until the end."""
        self.objects: list[Known] = []
        """All objects that were spoken of."""
        self.header: Header | None = None
        self.things: list[Thing] = []
        self.more_things = Rest()
        self.maybe: list[Entry] = []
        self.probes: dict[str, set[str]] = {}
        self.groups: OrderedDict[tuple[tuple[int, ...], int | None], Group] = OrderedDict()
        self.rest = Rest()
        self.ties: Counter[Tied] = Counter()
        self.more_ties = Rest()

    def take(self, entry: Entry | Tied) -> None:
        """The next entry."""
        if isinstance(entry, Tied):
            if entry.verb in SWITCHED:
                return
            if len(self.ties) < THINGS or entry in self.ties:
                self.ties[entry] += 1
            else:
                self.more_ties.add(f"{entry.verb} {entry.target}")
        elif entry.probe:
            self._probe(entry.probe, entry)
        elif entry.notes is not None and len(self.maybe) < THINGS:
            self.maybe.append(entry)
        else:
            self._real(entry)

    def end(self) -> None:
        """All entries were taken: now it is known which of them were probes."""
        if self.canon is not None:
            self.objects = self.canon.objects.all
            self.header = self.canon.head
            self.canon = None  # and with it the model of the trace
        for entry in self.maybe:
            probe = None if entry.notes is None else entry.notes.get("probe")
            if probe is not None:
                self._probe(str(probe), entry)
            else:
                self._real(entry)
            entry.notes = None
        self.maybe.clear()

    def _probe(self, name: str, entry: Entry) -> None:
        if len(self.probes) < THINGS or name in self.probes:
            result = entry.result if entry.failed else "ok"
            self.probes.setdefault(name, set()).add(result)

    def _known(self) -> list[Known]:
        return self.objects if self.canon is None else self.canon.objects.all

    def _real(self, entry: Entry) -> None:
        kind = LOADS.get(entry.command)
        if kind is not None:
            if len(self.things) < THINGS:
                self.things.append(Thing(kind, entry, content(entry)))
            else:
                self.more_things.add(content(entry).hex())
            return
        if not self.strict and (entry.collects or walks(entry, self._known())):
            return
        key = (entry.process.path, entry.subject)
        group = self.groups.get(key)
        if group is None:
            if len(self.groups) >= GROUPS:
                self.rest.add(signature(entry))
                return
            group = self.groups[key] = Group(entry.process, entry.subject)
        text = signature(entry)
        known = group.calls.get(text)
        if known is not None:
            known.count += 1
        elif len(group.calls) < DISTINCT:
            group.calls[text] = Seen(entry)
        else:
            group.rest.add(text)


def content(entry: Entry) -> bytes:
    """A hash of all that an entry says, without the names of objects."""
    parts = [signature(entry)]
    for block in entry.blocks:
        if not block.name.endswith("log_buf"):
            parts += block.lines
    for line in entry.insns or ():
        parts.append(f"{line.text} {'' if line.jump is None else line.jump - line.pc}")
    text = "\n".join(parts)
    for number in set(refs(text)):
        text = text.replace(f"\0{number}\0", "\0")
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


def signature(entry: Entry) -> str:
    """A call as one text."""
    result = "\0" if entry.made is not None and entry.command in LOADS else entry.result
    fields = "\n".join(f"{name}\t{text}" for name, text in entry.fields)
    return f"{entry.head}\t{result}\n{fields}"


# ------------------------------------------------------------------ differences


class FieldChange(NamedTuple):
    """A field's values; None where a side does not have it."""

    field: str
    a: str | None
    b: str | None


class Instruction(NamedTuple):
    """A line of an instruction diff.  ``op`` is one of ``-+`` or a blank."""

    op: str
    pc_a: int | None
    pc_b: int | None
    text: str
    source: str | None
    """The source line that it belongs to."""
    function: str | None


class TextLine(NamedTuple):
    """A line of a text diff: declarations of BTF, a verifier's log."""

    op: str
    text: str


@dataclass(slots=True)
class ObjectChange:
    """A program, map or BTF that is in one trace only, or not the same in both."""

    kind: str
    change: str
    """added, removed or changed"""
    name: str
    fields: list[FieldChange] = field(default_factory=list)
    hunks: list[list[Instruction]] = field(default_factory=list)
    insns_a: int | None = None
    insns_b: int | None = None
    added: int = 0
    removed: int = 0
    texts: list[tuple[str, list[list[TextLine]]]] = field(default_factory=list)
    """Fields of several lines, and their hunks."""
    tag_a: str = ""
    tag_b: str = ""
    uses: int = 0
    """Calls about it, which are not told one by one, if it is in one trace only."""


class TieChange(NamedTuple):
    """An attachment in one trace only (added, removed), or with another target (changed)."""

    change: str
    verb: str
    prog: str
    target: str
    via: str
    other: str | None
    """The target in the first trace, where that changed."""


class ProbeChange(NamedTuple):
    """A feature that was probed for in one trace only, or with another result."""

    feature: str
    a: str | None
    b: str | None


@dataclass(slots=True)
class CallChange:
    """A call in one trace only, or with other fields, or another number of times."""

    change: str
    process: str
    head: str
    result: str
    subject: str
    fields: list[FieldChange] = field(default_factory=list)
    count_a: int = 0
    count_b: int = 0
    path: str = ""
    """The file that it is about, where the fields that changed do not say it."""


@dataclass(slots=True)
class Differences:
    """All of it.  Empty: the traces do the same."""

    objects: list[ObjectChange] = field(default_factory=list)
    ties: list[TieChange] = field(default_factory=list)
    probes: list[ProbeChange] = field(default_factory=list)
    calls: list[CallChange] = field(default_factory=list)
    compared: frozenset[str] = frozenset()
    """progs, maps, btf, attachments, probes, calls"""

    def __bool__(self) -> bool:
        return bool(self.objects or self.ties or self.probes or self.calls)


ALL: Final = frozenset({"progs", "maps", "btf", "attachments", "probes", "calls"})


@dataclass(frozen=True, slots=True)
class Options:
    """What is compared."""

    only: frozenset[str] = frozenset()
    ignore: tuple[str, ...] = ()
    """Patterns of field names, whole paths or their last parts."""
    strict: bool = False

    @property
    def compared(self) -> frozenset[str]:
        """The parts that are compared."""
        return self.only or ALL

    def ignores(self, name: str) -> bool:
        """Whether a field is left out."""
        last = name.rpartition(".")[2].partition("[")[0]
        if not self.strict and name in KERNELS:
            return True
        return any(
            fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(last, pattern)
            for pattern in (word.removeprefix("attr.") for word in self.ignore)
        )


# ------------------------------------------------------------------ comparing


def traced(side: Side) -> frozenset[str] | None:
    """The system calls that a trace was recorded with; None if it does not say."""
    found = side.header.options.get("traced") if side.header is not None else None
    words = [str(word) for word in found] if isinstance(found, list) else []
    return frozenset(words) if words else None


def caveats(a: Side, b: Side) -> list[str]:
    """How the two were recorded differently, so that not all of them can be compared."""
    first, second = traced(a), traced(b)
    if first is None or second is None:
        return []
    return [
        f"only the {name} trace was recorded with {', '.join(sorted(more))}: not compared"
        for name, more in (("first", first - second), ("second", second - first))
        if more
    ]


def narrowed(side: Side) -> list[str]:
    """The options by which something was left out of a trace."""
    found = side.header.options.get("narrowed") if side.header is not None else None
    return sorted(str(word) for word in found) if isinstance(found, list) else []


def compare(a: Side, b: Side, options: Options) -> Differences:
    """Compares two whole traces."""
    return _Comparison(a, b, options).all()


class _Comparison:
    def __init__(self, a: Side, b: Side, options: Options) -> None:
        self.a = a
        self.b = b
        self.options = options
        self.labels_a = [""] * len(a.objects)
        self.labels_b = [""] * len(b.objects)
        self.alone_a: set[int] = set()
        self.alone_b: set[int] = set()
        self.uses: Counter[tuple[str, int]] = Counter()
        self.found = Differences(compared=options.compared)
        first, second = traced(a), traced(b)
        self.one_sided = frozenset() if first is None or second is None else first ^ second
        """System calls that only one of the traces was recorded with."""

    def all(self) -> Differences:
        for side in (self.a, self.b):
            for thing in side.things:
                thing.base = _base(thing, side)
        pairs = list(self._pair_things())
        self._name_objects(pairs)
        compared = self.options.compared
        if "calls" in compared:
            self._calls()
        for kind, part in (("prog", "progs"), ("map", "maps"), ("btf", "btf")):
            if part in compared:
                for left, right in pairs:
                    if (left or right or _NO_THING).kind == kind:
                        self._thing(left, right)
        if compared >= {"progs", "maps"} and self.a.more_things != self.b.more_things:
            self._uncounted("programs, maps or BTF", THINGS, "bpf")
        if "attachments" in compared:
            self._ties()
        if "probes" in compared:
            self._probes()
        return self.found

    def _uncounted(self, what: str, limit: int, head: str) -> None:
        self.found.calls.append(
            CallChange("changed", "", head, "", f"{what} after the first {limit}")
        )

    # -------------------------------------------------------------- partners

    def _pair_things(self) -> Iterable[tuple[Thing | None, Thing | None]]:
        partner: dict[int, Thing] = {}
        """By position among a's things."""
        taken: set[int] = set()
        left: dict[int, Thing] = dict(enumerate(self.a.things))
        right: dict[int, Thing] = dict(enumerate(self.b.things))

        def pair(key: Callable[[Thing], object]) -> None:
            waiting: dict[object, list[int]] = {}
            for at, thing in right.items():
                if (made := key(thing)) is not None:
                    waiting.setdefault(made, []).append(at)
            for queue in waiting.values():
                queue.reverse()
            for at, thing in list(left.items()):
                made = key(thing)
                ready = waiting.get(made) if made is not None else None
                if ready:
                    to = ready.pop()
                    partner[at] = right.pop(to)
                    taken.add(to)
                    del left[at]

        pair(lambda thing: (thing.kind, thing.base, thing.digest, thing.entry.failed))
        pair(lambda thing: (thing.kind, thing.base) if _is_named(thing) else None)
        pair(lambda thing: (thing.kind, thing.digest))
        self._pair_alike(left, right, partner, taken)
        for at, thing in enumerate(self.a.things):
            yield thing, partner.get(at)
        for at, thing in enumerate(self.b.things):
            if at not in taken:
                yield None, thing

    @staticmethod
    def _pair_alike(
        left: dict[int, Thing],
        right: dict[int, Thing],
        partner: dict[int, Thing],
        taken: set[int],
    ) -> None:
        """Pairs what is left by likeness, the most alike first."""
        if not left or not right or max(len(left), len(right)) > COMPARED:
            return
        scores = sorted(
            (
                (likeness(mine, other), -x, -y)
                for x, mine in left.items()
                for y, other in right.items()
                if mine.kind == other.kind
            ),
            reverse=True,
        )
        for score, x, y in scores:
            if score >= ALIKE and -x in left and -y in right:
                del left[-x]
                partner[-x] = right.pop(-y)
                taken.add(-y)

    def _name_objects(self, pairs: list[tuple[Thing | None, Thing | None]]) -> None:
        """Partners get one name; the others names that no partner has."""
        partner: dict[int, int] = {}
        made_a: set[int] = set()
        made_b: set[int] = set()
        for left, right in pairs:
            x = None if left is None else left.entry.made
            y = None if right is None else right.entry.made
            if x is not None:
                made_a.add(x)
            if y is not None:
                made_b.add(y)
            if x is not None and y is not None:
                partner[x] = y
        # Links, events and what was there before go by their names.
        waiting: dict[tuple[str, bool], list[int]] = {}
        for known in reversed(self.b.objects):
            if known.number not in made_b:
                waiting.setdefault((known.base, known.found), []).append(known.number)
        for known in self.a.objects:
            if known.number not in made_a:
                ready = waiting.get((known.base, known.found))
                if ready:
                    partner[known.number] = ready.pop()
        taken: Counter[str] = Counter()

        def label(base: str) -> str:
            taken[base] += 1
            return base if taken[base] == 1 else f"{base}#{taken[base]}"

        with_partner = set(partner.values())
        for known in self.a.objects:
            if known.number in partner:
                name = label(known.base)
                self.labels_a[known.number] = name
                self.labels_b[partner[known.number]] = name
        for known in self.a.objects:
            if known.number not in partner:
                self.labels_a[known.number] = label(known.base)
                self.alone_a.add(known.number)
        for known in self.b.objects:
            if known.number not in with_partner:
                self.labels_b[known.number] = label(known.base)
                self.alone_b.add(known.number)

    def _text_a(self, text: str) -> str:
        return _resolve(text, self.labels_a)

    def _text_b(self, text: str) -> str:
        return _resolve(text, self.labels_b)

    # -------------------------------------------------------------- things

    def _thing(self, left: Thing | None, right: Thing | None) -> None:
        if left is None or right is None:
            self._lone(left, right)
            return
        one, two = left.entry, right.entry
        change = ObjectChange(left.kind, "changed", self._name_of(left, self.labels_a))
        if one.failed or two.failed:
            result_a = one.result if one.failed else "ok"
            result_b = two.result if two.failed else "ok"
            if result_a != result_b and not self.options.ignores("result"):
                change.fields.append(FieldChange("result", result_a, result_b))
        change.fields += self._fields(one, two)
        self._texts(change, one, two)
        if one.insns is not None or two.insns is not None:
            self._instructions(change, one, two)
        if change.fields or change.hunks or change.texts:
            self.found.objects.append(change)

    def _name_of(self, thing: Thing, labels: list[str]) -> str:
        number = thing.entry.made
        return thing.base if number is None else labels[number]

    def _lone(self, left: Thing | None, right: Thing | None) -> None:
        thing = left or right
        assert thing is not None
        labels = self.labels_a if left is not None else self.labels_b
        side = "a" if left is not None else "b"
        change = ObjectChange(
            thing.kind,
            "removed" if left is not None else "added",
            self._name_of(thing, labels),
        )
        entry = thing.entry
        for name, text in entry.fields:
            if not self.options.ignores(name):
                shown = _resolve(text, labels)
                change.fields.append(
                    FieldChange(name, shown, None)
                    if left is not None
                    else FieldChange(name, None, shown)
                )
        if entry.failed:
            change.fields.insert(
                0,
                FieldChange("result", entry.result, None)
                if left is not None
                else FieldChange("result", None, entry.result),
            )
        if entry.insns is not None:
            if left is not None:
                change.insns_a, change.tag_a = len(entry.insns), entry.tag
                change.removed = len(entry.insns)
            else:
                change.insns_b, change.tag_b = len(entry.insns), entry.tag
                change.added = len(entry.insns)
        if entry.made is not None:
            change.uses = self.uses[side, entry.made]
        self.found.objects.append(change)

    def _fields(self, one: Entry, two: Entry) -> list[FieldChange]:
        a = {name: self._text_a(text) for name, text in one.fields}
        b = {name: self._text_b(text) for name, text in two.fields}
        return [
            FieldChange(name, a.get(name), b.get(name))
            for name in [*a, *(name for name in b if name not in a)]
            if a.get(name) != b.get(name) and not self.options.ignores(name)
        ]

    def _texts(self, change: ObjectChange, one: Entry, two: Entry) -> None:
        a = {block.name: block.lines for block in one.blocks}
        b = {block.name: block.lines for block in two.blocks}
        failed = one.failed or two.failed
        for name in dict.fromkeys((*a, *b)):
            if self.options.ignores(name):
                continue
            is_log = name.endswith("log_buf")
            if is_log and not failed and not self.options.strict:
                continue  # what the verifier says of a program that it takes is its own affair
            lines_a, lines_b = a.get(name, ()), b.get(name, ())
            if is_log:
                lines_a, lines_b = lines_a[-LOG_SHOWN:], lines_b[-LOG_SHOWN:]
            if lines_a == lines_b:
                continue
            script = edits(lines_a, lines_b)
            change.texts.append(
                (
                    name,
                    [
                        [_text_line(edit, lines_a, lines_b) for edit in hunk]
                        for hunk in hunks(script, CONTEXT)
                    ],
                )
            )

    # -------------------------------------------------------------- instructions

    def _instructions(self, change: ObjectChange, one: Entry, two: Entry) -> None:
        a, b = one.insns or (), two.insns or ()
        texts_a = [self._text_a(line.text) for line in a]
        texts_b = [self._text_b(line.text) for line in b]
        script = _moved(edits(_masked(a, texts_a), _masked(b, texts_b)), a, b)
        change.insns_a, change.insns_b = len(a), len(b)
        change.tag_a, change.tag_b = one.tag, two.tag
        if self.options.ignores("insns"):
            return
        source_a, source_b = _sources(a), _sources(b)
        for edit in script:
            change.removed += edit.b is None
            change.added += edit.a is None
        if not change.removed and not change.added:
            # Where compilers put their instructions is not what the program does.
            if not self.options.ignores("source") and source_a != source_b:
                self._source(change, source_a, source_b)
            return
        for hunk in hunks(script, CONTEXT):
            lines = []
            for edit in hunk:
                if edit.b is None:
                    assert edit.a is not None
                    at, line, text, sources, op = edit.a, a[edit.a], texts_a[edit.a], source_a, "-"
                else:
                    at, line, text, sources = edit.b, b[edit.b], texts_b[edit.b], source_b
                    op = "+" if edit.a is None else " "
                lines.append(
                    Instruction(
                        op,
                        None if edit.a is None else a[edit.a].pc,
                        None if edit.b is None else b[edit.b].pc,
                        _shown(line, text),
                        sources[at],
                        line.function,
                    )
                )
            change.hunks.append(lines)

    @staticmethod
    def _source(
        change: ObjectChange, source_a: list[str | None], source_b: list[str | None]
    ) -> None:
        a = _runs(source_a)
        b = _runs(source_b)
        found = [
            [_text_line(edit, a, b) for edit in hunk] for hunk in hunks(edits(a, b), CONTEXT)
        ]
        if found:
            change.texts.append(("source", found))

    # -------------------------------------------------------------- attachments

    def _ties(self) -> None:
        if self.options.ignores("target"):
            return
        a = self._tie_keys(self.a, self.labels_a)
        b = self._tie_keys(self.b, self.labels_b)
        gone, new = list((a - b).elements()), list((b - a).elements())
        for verb, prog, target, via in list(gone):
            other = next((tie for tie in new if tie[:2] == (verb, prog)), None)
            if other is not None:
                gone.remove((verb, prog, target, via))
                new.remove(other)
                if other[2] == target:
                    # The same, by another way.
                    self.found.ties.append(
                        TieChange("changed", verb, prog, f"{target} ({other[3]})", other[3],
                                  f"{target} ({via})")
                    )
                else:
                    self.found.ties.append(
                        TieChange("changed", verb, prog, other[2], other[3], target)
                    )
        self.found.ties += (TieChange("removed", *tie, None) for tie in gone)
        self.found.ties += (TieChange("added", *tie, None) for tie in new)
        if self.a.more_ties != self.b.more_ties:
            self._uncounted("attachments", THINGS, "attachments")

    def _tie_keys(
        self, side: Side, labels: list[str]
    ) -> Counter[tuple[str, str, str, str]]:
        found: Counter[tuple[str, str, str, str]] = Counter()
        for tie, count in side.ties.items():
            via = "" if self.options.ignores("via") else tie.via
            found[tie.verb, _resolve(tie.prog, labels), tie.target, via] += count
        return found

    # -------------------------------------------------------------- probes

    def _probes(self) -> None:
        if self.options.ignores("probe"):
            return
        a, b = self.a.probes, self.b.probes
        for name in dict.fromkeys((*a, *b)):
            if a.get(name) != b.get(name):
                self.found.probes.append(ProbeChange(name, _words(a, name), _words(b, name)))

    # -------------------------------------------------------------- calls

    def _calls(self) -> None:
        first = {group.process.path: group.process for group in self.a.groups.values()}
        second = {group.process.path: group.process for group in self.b.groups.values()}
        partner = pair_processes(list(first.values()), list(second.values()))
        back = {other: path for path, other in partner.items()}
        if self.options.strict:
            for path, other in partner.items():
                self._exit(first[path], second[other])
        b: dict[tuple[object, str], Group] = {}
        for group in self.b.groups.values():
            subject = "" if group.subject is None else self.labels_b[group.subject]
            b[back.get(group.process.path, ("b", group.process.path)), subject] = group
        for group in self.a.groups.values():
            subject = "" if group.subject is None else self.labels_a[group.subject]
            key = (group.process.path, subject)
            self._group(group, b.pop(key, None))
        for group in b.values():
            self._group(None, group)
        if self.a.rest != self.b.rest:
            self._uncounted("calls", GROUPS, "calls about more objects")

    def _exit(self, a: Process, b: Process) -> None:
        if a.exit != b.exit and not self.options.ignores("exit"):
            change = CallChange("changed", a.label, "exit", "", "")
            change.fields = [FieldChange("exit", a.exit or None, b.exit or None)]
            self.found.calls.append(change)

    def _group(self, a: Group | None, b: Group | None) -> None:
        calls_a = self._known(a, "a")
        calls_b = self._known(b, "b")
        process = (a or b or _NO_GROUP).process.label
        gone = [text for text in calls_a if text not in calls_b]
        new = [text for text in calls_b if text not in calls_a]
        for x, y in self._alike([calls_a[text] for text in gone], [calls_b[text] for text in new]):
            changed = self._fields(x.entry, y.entry)
            results = (self._text_a(x.entry.result), self._text_b(y.entry.result))
            if results[0] != results[1] and not self.options.ignores("result"):
                changed.insert(0, FieldChange("result", *results))
            if changed:
                change = self._change("changed", process, y, self.labels_b)
                change.fields = changed
                change.count_a, change.count_b = x.count, y.count
                self.found.calls.append(change)
            gone.remove(self._key(x.entry, self.labels_a))
            new.remove(self._key(y.entry, self.labels_b))
        for text in gone:
            change = self._change("removed", process, calls_a[text], self.labels_a)
            change.count_a = calls_a[text].count
            self.found.calls.append(change)
        for text in new:
            change = self._change("added", process, calls_b[text], self.labels_b)
            change.count_b = calls_b[text].count
            self.found.calls.append(change)
        for text, seen in calls_a.items():
            other = calls_b.get(text)
            if other is None or other.count == seen.count or self.options.ignores("count"):
                continue
            if self.options.strict or seen.entry.command not in QUIET:
                change = self._change("count", process, other, self.labels_b)
                change.count_a, change.count_b = seen.count, other.count
                self.found.calls.append(change)
        self._order(process, calls_a, calls_b)
        if a is not None and b is not None and a.rest != b.rest:
            self._uncounted(f"{process}: calls", DISTINCT, "calls about one object")

    def _order(self, process: str, a: dict[str, Seen], b: dict[str, Seen]) -> None:
        """Calls about one object depend on each other: freezing a map after it was filled."""
        if self.options.ignores("order"):
            return
        first = next(iter(a.values()), None)
        if first is None or first.entry.subject is None:
            return  # no object: these do not depend on each other
        heads_a = list(dict.fromkeys(seen.entry.head for seen in a.values()))
        heads_b = list(dict.fromkeys(seen.entry.head for seen in b.values()))
        both = set(heads_a) & set(heads_b)
        order_a = [head for head in heads_a if head in both]
        order_b = [head for head in heads_b if head in both]
        if order_a != order_b:
            change = self._change("order", process, first, self.labels_a)
            change.head = "order of calls"
            change.result = ""
            change.fields = [FieldChange("order", ", ".join(order_a), ", ".join(order_b))]
            self.found.calls.append(change)

    def _known(self, group: Group | None, side: str) -> dict[str, Seen]:
        """Calls by their text in names; those about an object of this trace only are counted."""
        labels, alone = (
            (self.labels_a, self.alone_a) if side == "a" else (self.labels_b, self.alone_b)
        )
        found: dict[str, Seen] = {}
        for text, seen in (group.calls if group is not None else {}).items():
            if seen.entry.syscall in self.one_sided:
                continue
            mentioned = [number for number in refs(text) if number in alone]
            if mentioned:
                # Told with the object, unless it is this call that makes it.
                for number in mentioned:
                    self.uses[side, number] += seen.count
                if seen.entry.made not in mentioned:
                    continue
            key = self._key(seen.entry, labels)
            if key in found:
                found[key].count += seen.count
            else:
                found[key] = Seen(seen.entry, seen.count)
        return found

    def _key(self, entry: Entry, labels: list[str]) -> str:
        fields = "\n".join(
            f"{name}\t{_resolve(text, labels)}"
            for name, text in entry.fields
            if not self.options.ignores(name)
        )
        return f"{entry.head}\t{_resolve(entry.result, labels)}\n{fields}"

    @staticmethod
    def _change(change: str, process: str, seen: Seen, labels: list[str]) -> CallChange:
        entry = seen.entry
        subject = "" if entry.subject is None else labels[entry.subject]
        made = CallChange(change, process, entry.head, _resolve(entry.result, labels), subject)
        if change in ("added", "removed"):
            for name, text in entry.fields:
                shown = _resolve(text, labels)
                made.fields.append(
                    FieldChange(name, shown, None)
                    if change == "removed"
                    else FieldChange(name, None, shown)
                )
        else:
            paths = (text for name, text in entry.fields if name.endswith("pathname"))
            made.path = next(paths, "")
        return made

    def _alike(self, a: list[Seen], b: list[Seen]) -> list[tuple[Seen, Seen]]:
        """Pairs of the same call with other fields: half of them the same, or the path."""
        if max(len(a), len(b)) > DISTINCT // 10:
            return []
        pairs = []
        left = list(b)
        for mine in a:
            fields = {(name, self._text_a(text)) for name, text in mine.entry.fields}
            best, score = None, 0.0
            for other in left:
                if other.entry.head != mine.entry.head:
                    continue
                theirs = {(name, self._text_b(text)) for name, text in other.entry.fields}
                same = len(fields & theirs) / max(len(fields), len(theirs), 1)
                paths = [text for name, text in fields if name.endswith("pathname")]
                if paths and paths != [text for name, text in theirs if name.endswith("pathname")]:
                    continue
                if same > score:
                    best, score = other, same
            if best is not None and score >= ALIKE:
                left.remove(best)
                pairs.append((mine, best))
        return pairs


_NO_THING: Final = Thing("", Entry(Process(()), "", "", "", False), b"")
_NO_GROUP: Final = Group(Process(()), None)


def _is_named(thing: Thing) -> bool:
    return "(" not in thing.base and thing.base != thing.kind


def _base(thing: Thing, side: Side) -> str:
    """The name of what was loaded, or would have been."""
    entry = thing.entry
    if entry.made is not None:
        return side.objects[entry.made].base
    fields = dict(entry.fields)
    name = fields.get("prog_name") or fields.get("map_name") or ""
    return f"{thing.kind} {name.strip(chr(34))}".rstrip() if name else f"{thing.kind} (refused)"


def likeness(a: Thing, b: Thing) -> float:
    """How much two things have in common, from 0 to 1."""
    if a.entry.insns is not None and b.entry.insns is not None:
        one = Counter(line.text.split("\0")[0] for line in a.entry.insns)
        two = Counter(line.text.split("\0")[0] for line in b.entry.insns)
        fields_a, fields_b = dict(a.entry.fields), dict(b.entry.fields)
        if fields_a.get("prog_type") != fields_b.get("prog_type"):
            return 0.0
    else:
        one = Counter([*(f"{name} {text}" for name, text in a.entry.fields), *_lines(a.entry)])
        two = Counter([*(f"{name} {text}" for name, text in b.entry.fields), *_lines(b.entry)])
    return 2 * (one & two).total() / max(one.total() + two.total(), 1)


def _lines(entry: Entry) -> Iterable[str]:
    return (line for block in entry.blocks for line in block.lines)


def _resolve(text: str, labels: Sequence[str]) -> str:
    if "\0" not in text:
        return text
    parts = text.split("\0")
    # ref() puts a NUL at either side of each number.
    return "".join(
        labels[int(part)] if at % 2 and part.isdigit() else part for at, part in enumerate(parts)
    )


def _words(probes: dict[str, set[str]], name: str) -> str | None:
    found = probes.get(name)
    return None if found is None else ", ".join(sorted(found))


def _text_line(edit: Edit, a: Sequence[str], b: Sequence[str]) -> TextLine:
    if edit.b is None:
        assert edit.a is not None
        return TextLine("-", a[edit.a])
    return TextLine("+" if edit.a is None else " ", b[edit.b])


def _masked(lines: Sequence[Line], texts: list[str]) -> list[tuple[str, bool]]:
    """What instructions are compared by: a jump's target is not part of it."""
    return [(text, line.jump is not None) for line, text in zip(lines, texts, strict=True)]


def _moved(script: list[Edit], a: Sequence[Line], b: Sequence[Line]) -> list[Edit]:
    """Splits pairs of jumps that do not lead to the same place any more."""
    place_a: dict[int, int] = {}
    place_b: dict[int, int] = {}
    pairs = 0
    for edit in script:
        if edit.a is not None and edit.b is not None:
            # A place is a pair, or what lies between two pairs.
            place_a[a[edit.a].pc] = place_b[b[edit.b].pc] = 2 * pairs + 1
            pairs += 1
        elif edit.a is not None:
            place_a[a[edit.a].pc] = 2 * pairs
        elif edit.b is not None:
            place_b[b[edit.b].pc] = 2 * pairs
    found: list[Edit] = []
    for edit in script:
        if edit.a is None or edit.b is None:
            found.append(edit)
            continue
        to_a, to_b = a[edit.a].jump, b[edit.b].jump
        if to_a is None or to_b is None or _same_place(place_a.get(to_a), place_b.get(to_b)):
            found.append(edit)
        else:
            found += [Edit(edit.a, None), Edit(None, edit.b)]
    return found


def _same_place(a: int | None, b: int | None) -> bool:
    """Instructions were put in or taken away where a jump leads to: it is the same jump."""
    if a is None or b is None:
        return a == b
    return a == b or (abs(a - b) == 1 and min(a, b) % 2 == 0)


def _sources(lines: Sequence[Line]) -> list[str | None]:
    """The source line that each instruction belongs to."""
    current: str | None = None
    found = []
    for line in lines:
        if line.source:
            current = line.source
        found.append(current)
    return found


def _runs(sources: list[str | None]) -> list[str]:
    """Source lines as they follow each other."""
    found: list[str] = []
    for source in sources:
        if source is not None and (not found or found[-1] != source):
            found.append(source)
    return found


def _shown(line: Line, text: str) -> str:
    return text if line.jump is None else f"{text} pc{line.jump - line.pc - 1:+d}"


def pair_processes(a: list[Process], b: list[Process]) -> dict[tuple[int, ...], tuple[int, ...]]:
    """Partners among processes: what they are called, in the order of the tree."""
    first = sorted(a, key=lambda process: process.path)
    second = sorted(b, key=lambda process: process.path)
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    left: list[Process] = []
    right: list[Process] = []
    for edit in edits([process.comm for process in first], [process.comm for process in second]):
        if edit.a is not None and edit.b is not None:
            found[first[edit.a].path] = second[edit.b].path
        elif edit.a is not None:
            left.append(first[edit.a])
        elif edit.b is not None:
            right.append(second[edit.b])
    # The same tool by another name, or in another order.
    for key in ("comm", "path"):
        for process in list(left):
            other = next(
                (other for other in right if getattr(other, key) == getattr(process, key)), None
            )
            if other is not None:
                found[process.path] = other.path
                left.remove(process)
                right.remove(other)
    if len(left) == len(right) == 1:
        found[left[0].path] = right[0].path
    return found
