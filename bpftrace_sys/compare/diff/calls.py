"""Calls, by process and by the object that they are about."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.compare.canonical.entries import Entry
from bpftrace_sys.compare.canonical.processes import Process
from bpftrace_sys.compare.canonical.text import refs
from bpftrace_sys.compare.diff import options
from bpftrace_sys.compare.diff.differences import CallChange, FieldChange, uncounted
from bpftrace_sys.compare.diff.names import Both, Named
from bpftrace_sys.compare.diff.pairing import ALIKE, pair_processes
from bpftrace_sys.compare.diff.side import Group, Seen, traced
from decoders.commands import IOCTLS_REPEAT, REPEATS, WALKS

QUIET: Final = frozenset({*REPEATS, *WALKS, *IOCTLS_REPEAT, "openat"})
"""Calls whose number says nothing: they look, or do the same again."""

_NO_GROUP: Final = Group(Process(()), None)


class Calls:
    """The comparison of the calls of two traces."""

    def __init__(self, both: Both) -> None:
        self.both = both
        self.a = both.a
        self.b = both.b
        self.options = both.options
        self.found: list[CallChange] = []
        first, second = traced(self.a.side), traced(self.b.side)
        self.one_sided = frozenset() if first is None or second is None else first ^ second
        """System calls that only one of the traces was recorded with."""

    def all(self) -> list[CallChange]:
        """Compares all of them."""
        groups_a, groups_b = self.a.side.groups, self.b.side.groups
        first = {group.process.path: group.process for group in groups_a.values()}
        second = {group.process.path: group.process for group in groups_b.values()}
        partner = pair_processes(list(first.values()), list(second.values()))
        back = {other: path for path, other in partner.items()}
        if self.options.strict:
            for path, other in partner.items():
                self._exit(first[path], second[other])
        b: dict[tuple[object, str], Group] = {}
        for group in groups_b.values():
            path_b = group.process.path
            b[back.get(path_b, ("b", path_b)), self.b.label(group.subject)] = group
        for group in groups_a.values():
            self._group(group, b.pop((group.process.path, self.a.label(group.subject)), None))
        for group in b.values():
            self._group(None, group)
        if self.a.side.rest != self.b.side.rest:
            self.found.append(uncounted("calls", options.GROUPS, "calls about more objects"))
        return self.found

    def _exit(self, a: Process, b: Process) -> None:
        if a.exit != b.exit and not self.options.ignores("exit"):
            change = CallChange("changed", a.label, "exit", "", "")
            change.fields = [FieldChange("exit", a.exit or None, b.exit or None)]
            self.found.append(change)

    def _group(self, a: Group | None, b: Group | None) -> None:
        calls_a = self._known(a, self.a)
        calls_b = self._known(b, self.b)
        process = (a or b or _NO_GROUP).process.label
        gone = [text for text in calls_a if text not in calls_b]
        new = [text for text in calls_b if text not in calls_a]
        for x, y in self._alike([calls_a[text] for text in gone], [calls_b[text] for text in new]):
            fields = self.both.fields(x.entry, y.entry)
            results = (self.a.text(x.entry.result), self.b.text(y.entry.result))
            if results[0] != results[1] and not self.options.ignores("result"):
                fields.insert(0, FieldChange("result", *results))
            if fields:
                change = _change("changed", process, y, self.b)
                change.fields = fields
                change.count_a, change.count_b = x.count, y.count
                self.found.append(change)
            gone.remove(self._key(x.entry, self.a))
            new.remove(self._key(y.entry, self.b))
        for text in gone:
            change = _change("removed", process, calls_a[text], self.a)
            change.count_a = calls_a[text].count
            self.found.append(change)
        for text in new:
            change = _change("added", process, calls_b[text], self.b)
            change.count_b = calls_b[text].count
            self.found.append(change)
        for text, seen in calls_a.items():
            other = calls_b.get(text)
            if other is None or other.count == seen.count or self.options.ignores("count"):
                continue
            if self.options.strict or seen.entry.command not in QUIET:
                change = _change("count", process, other, self.b)
                change.count_a, change.count_b = seen.count, other.count
                self.found.append(change)
        self._order(process, calls_a, calls_b)
        if a is not None and b is not None and a.rest != b.rest:
            self.found.append(
                uncounted(f"{process}: calls", options.DISTINCT, "calls about one object")
            )

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
            change = _change("order", process, first, self.a)
            change.head = "order of calls"
            change.result = ""
            change.fields = [FieldChange("order", ", ".join(order_a), ", ".join(order_b))]
            self.found.append(change)

    def _known(self, group: Group | None, named: Named) -> dict[str, Seen]:
        """Calls by their text in names; those about an object of this trace only are counted."""
        found: dict[str, Seen] = {}
        for text, seen in (group.calls if group is not None else {}).items():
            if seen.entry.syscall in self.one_sided:
                continue
            mentioned = [number for number in refs(text) if number in named.alone]
            if mentioned:
                # Told with the object, unless it is this call that makes it.
                for number in mentioned:
                    named.uses[number] += seen.count
                if seen.entry.made not in mentioned:
                    continue
            key = self._key(seen.entry, named)
            if key in found:
                found[key].count += seen.count
            else:
                found[key] = Seen(seen.entry, seen.count)
        return found

    def _key(self, entry: Entry, named: Named) -> str:
        fields = "\n".join(
            f"{name}\t{named.text(text)}"
            for name, text in entry.fields
            if not self.options.ignores(name)
        )
        return f"{entry.head}\t{named.text(entry.result)}\n{fields}"

    def _alike(self, a: list[Seen], b: list[Seen]) -> list[tuple[Seen, Seen]]:
        """Pairs of the same call with other fields: half of them the same, or the path."""
        if max(len(a), len(b)) > options.DISTINCT // 10:
            return []
        pairs = []
        left = list(b)
        for mine in a:
            fields = {(name, self.a.text(text)) for name, text in mine.entry.fields}
            best, score = None, 0.0
            for other in left:
                if other.entry.head != mine.entry.head:
                    continue
                theirs = {(name, self.b.text(text)) for name, text in other.entry.fields}
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


def _change(change: str, process: str, seen: Seen, named: Named) -> CallChange:
    entry = seen.entry
    result, subject = named.text(entry.result), named.label(entry.subject)
    made = CallChange(change, process, entry.head, result, subject)
    if change == named.lone:
        made.fields += (named.only(name, named.text(text)) for name, text in entry.fields)
    else:
        paths = (text for name, text in entry.fields if name.endswith("pathname"))
        made.path = next(paths, "")
    return made
