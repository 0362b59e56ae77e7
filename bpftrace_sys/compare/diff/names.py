"""One name for an object and its partner, and texts and fields in these names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from bpftrace_sys.compare.canonical.entries import Entry
from bpftrace_sys.compare.diff.differences import FieldChange
from bpftrace_sys.compare.diff.options import Options
from bpftrace_sys.compare.diff.pairing import Pair
from bpftrace_sys.compare.diff.side import Side
from decoders.records import NamedTuple


class Named:
    """A trace, and the names of its objects."""

    def __init__(self, side: Side, lone: Literal["added", "removed"]) -> None:
        self.side = side
        self.lone: Literal["added", "removed"] = lone
        """What has happened to something that is in this trace only."""
        self.labels = [""] * len(side.objects)
        self.alone: set[int] = set()
        """Objects that have no partner."""
        self.uses: Counter[int] = Counter()
        """Calls about those, which are not told one by one."""

    def text(self, text: str) -> str:
        """A text with names for the references in it."""
        if "\0" not in text:
            return text
        # ref() puts a NUL at either side of each number.
        return "".join(
            self.labels[int(part)] if at % 2 and part.isdigit() else part
            for at, part in enumerate(text.split("\0"))
        )

    def label(self, number: int | None) -> str:
        """The name of an object; empty where there is none."""
        return "" if number is None else self.labels[number]

    def only(self, name: str, text: str) -> FieldChange:
        """A field that this trace alone has."""
        if self.lone == "removed":
            return FieldChange(name, text, None)
        return FieldChange(name, None, text)


class Both(NamedTuple):
    """Both traces with names for their objects, and what is compared."""

    a: Named
    b: Named
    options: Options

    def fields(self, one: Entry, two: Entry) -> list[FieldChange]:
        """The fields that differ between an entry of a's and one of b's."""
        a = {name: self.a.text(text) for name, text in one.fields}
        b = {name: self.b.text(text) for name, text in two.fields}
        return [
            FieldChange(name, a.get(name), b.get(name))
            for name in [*a, *(name for name in b if name not in a)]
            # Asked of all, so that it is known which of the words to ignore are names.
            if not self.options.ignores(name) and a.get(name) != b.get(name)
        ]


def name_objects(pairs: Sequence[Pair], a: Named, b: Named) -> None:
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
    for known in reversed(b.side.objects):
        if known.number not in made_b:
            waiting.setdefault((known.base, known.found), []).append(known.number)
    for known in a.side.objects:
        if known.number not in made_a:
            ready = waiting.get((known.base, known.found))
            if ready:
                partner[known.number] = ready.pop()
    taken: Counter[str] = Counter()

    def label(base: str) -> str:
        taken[base] += 1
        return base if taken[base] == 1 else f"{base}#{taken[base]}"

    with_partner = set(partner.values())
    for known in a.side.objects:
        if known.number in partner:
            name = label(known.base)
            a.labels[known.number] = name
            b.labels[partner[known.number]] = name
    for known in a.side.objects:
        if known.number not in partner:
            a.labels[known.number] = label(known.base)
            a.alone.add(known.number)
    for known in b.side.objects:
        if known.number not in with_partner:
            b.labels[known.number] = label(known.base)
            b.alone.add(known.number)
