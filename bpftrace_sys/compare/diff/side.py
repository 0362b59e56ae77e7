"""What a trace has to be compared by: its entries, taken as they come."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Final

from bpftrace_sys.compare.canonical.canon import Canon
from bpftrace_sys.compare.canonical.entries import LOADS, Entry, Tied, walks
from bpftrace_sys.compare.canonical.objects import Known
from bpftrace_sys.compare.canonical.processes import Process
from bpftrace_sys.compare.canonical.text import refs
from bpftrace_sys.compare.diff import options
from bpftrace_sys.trace.header import Header
from decoders.digests import short_of
from decoders.records import dataclass, field

SWITCHED: Final = frozenset({"enabled", "disabled"})
"""Verbs of attachments that are compared as the ioctl that they are."""
WAITING: Final = 4_096
"""Failed loads that may yet be tried again."""
ATTEMPTS: Final = 16
"""At one load, that are told apart."""


class Rest:
    """Texts beyond a limit: how many, and a hash that does not depend on their order."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0

    def add(self, text: str) -> None:
        """Counts one."""
        digest = short_of(text.encode("utf-8", "replace"))
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
class Loaded:
    """A program, map or BTF that was loaded, or refused."""

    kind: str
    entry: Entry
    """Where it was tried more than once: how it was asked for at first, and what came of it."""
    digest: bytes
    """Of its content, without the names of objects in it."""
    base: str = ""
    count: int = 1
    last: int = 0
    """The number of the last attempt."""
    attempts: list[str] = field(default_factory=list)
    """How each of them ended, and what it had otherwise than the one before."""

    def again(self, entry: Entry) -> None:
        """Another attempt at it."""
        if len(self.attempts) < ATTEMPTS:
            self.attempts.append(_attempt(entry))
        self.last = entry.seq
        entry.fields = self.entry.fields
        self.entry = entry
        self.digest = content(entry)


def _attempt(entry: Entry) -> str:
    result = entry.result if entry.failed else "ok"
    return f"{result} ({entry.tries})" if entry.tries else result


class Side:
    """One of the two traces: takes entries, and keeps what is needed to compare them."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.canon: Canon | None = None
        """What the entries come from, until the end."""
        self.objects: list[Known] = []
        """All objects that were spoken of."""
        self.header: Header | None = None
        self.loaded: list[Loaded] = []
        self._tried: OrderedDict[int, Loaded] = OrderedDict()
        """Failed loads by the number of their last attempt: another one may follow."""
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
            if len(self.ties) < options.ONE_BY_ONE or entry in self.ties:
                self.ties[entry] += 1
            else:
                self.more_ties.add(f"{entry.verb} {entry.target}")
        elif entry.probe:
            self._probe(entry.probe, entry)
        elif entry.notes is not None and len(self.maybe) < options.ONE_BY_ONE:
            self.maybe.append(entry)
        else:
            self._real(entry)

    def end(self) -> None:
        """All entries were taken: now it is known which of them were probes."""
        if self.canon is not None:
            self.objects = self.canon.known.objects.all
            self.header = self.canon.head
            self.canon = None  # and with it the model of the trace
        for entry in self.maybe:
            probe = None if entry.notes is None else entry.notes.probe
            if probe is not None and probe.certain:
                self._probe(probe.name, entry)
            else:
                self._real(entry)
            entry.notes = None
        self.maybe.clear()

    def _probe(self, name: str, entry: Entry) -> None:
        if len(self.probes) < options.ONE_BY_ONE or name in self.probes:
            result = entry.result if entry.failed else "ok"
            self.probes.setdefault(name, set()).add(result)

    def _known(self) -> list[Known]:
        return self.objects if self.canon is None else self.canon.known.objects.all

    def _real(self, entry: Entry) -> None:
        kind = LOADS.get(entry.command)
        if kind is not None:
            tried = self._tried.pop(entry.after, None) if entry.after else None
            if tried is not None:
                tried.again(entry)
            elif len(self.loaded) < options.ONE_BY_ONE:
                tried = Loaded(kind, entry, content(entry), last=entry.seq)
                tried.attempts.append(_attempt(entry))
                self.loaded.append(tried)
            else:
                self.more_things.add(content(entry).hex())
            if tried is not None and entry.failed:
                self._tried[entry.seq] = tried
                while len(self._tried) > WAITING:
                    self._tried.popitem(last=False)
            return
        if not self.strict and (entry.collects or walks(entry, self._known())):
            return
        key = (entry.process.path, entry.subject)
        group = self.groups.get(key)
        if group is None:
            if len(self.groups) >= options.GROUPS:
                self.rest.add(signature(entry))
                return
            group = self.groups[key] = Group(entry.process, entry.subject)
        text = signature(entry)
        known = group.calls.get(text)
        if known is not None:
            known.count += 1
        elif len(group.calls) < options.DISTINCT:
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
    return short_of(text.encode("utf-8", "replace"))


def signature(entry: Entry) -> str:
    """A call as one text."""
    result = "\0" if entry.made is not None and entry.command in LOADS else entry.result
    fields = "\n".join(f"{name}\t{text}" for name, text in entry.fields)
    return f"{entry.head}\t{result}\n{fields}"


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


def how_narrowed(words: Sequence[str]) -> str:
    """``recorded with -e bpf=map_*``, ``copied by replay -z``; ``recorded whole``."""
    live = [word for word in words if not word.startswith("replay ")]
    copied = [word for word in words if word.startswith("replay ")]
    parts = [f"recorded with {' '.join(live)}"] if live else []
    if copied:
        parts.append(f"copied by {' and '.join(copied)}")
    return ", ".join(parts) or "recorded whole"
