"""Programs, maps and BTF: how partners differ, and what is in one trace only."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bpftrace_sys.compare.diff.differences import FieldChange, ObjectChange
from bpftrace_sys.compare.diff.instructions import instructions
from bpftrace_sys.compare.diff.names import Both, Named
from bpftrace_sys.compare.diff.options import Options
from bpftrace_sys.compare.diff.side import Loaded
from bpftrace_sys.compare.diff.texts import texts


def changed(left: Loaded, right: Loaded, both: Both) -> ObjectChange | None:
    """How partners differ; None if they do not."""
    one, two = left.entry, right.entry
    change = ObjectChange(left.kind, "changed", _name_of(left, both.a))
    if one.failed or two.failed:
        result_a = one.result if one.failed else "ok"
        result_b = two.result if two.failed else "ok"
        if result_a != result_b and not both.options.ignores("result"):
            change.fields.append(FieldChange("result", result_a, result_b))
        change.fields += _refusals(left, right, both.options)
    change.fields += both.fields(one, two)
    change.texts += texts(one, two, both.options)
    if one.insns is not None or two.insns is not None:
        instructions(change, one, two, both)
    return change if change.fields or change.hunks or change.texts else None


def _refusals(left: Loaded, right: Loaded, options: Options) -> Iterator[FieldChange]:
    """How often each was tried, and why it failed in the end."""
    one, two = (", then ".join(thing.attempts) for thing in (left, right))
    several = max(len(left.attempts), len(right.attempts)) > 1
    if one != two and several and not options.ignores("attempts"):
        yield FieldChange("attempts", one, two)
    a, b = left.entry, right.entry
    # Numbers in it are fds and ids, or stand in the log as well.
    other = a.result != b.result or _worded(a.reason) != _worded(b.reason)
    if other and a.reason != b.reason and not options.ignores("reason"):
        yield FieldChange("reason", a.reason or None, b.reason or None)


def _worded(reason: str) -> str:
    return re.sub(r"\d+", "0", reason)


def lone(thing: Loaded, named: Named, options: Options) -> ObjectChange:
    """What is in one trace only."""
    entry = thing.entry
    change = ObjectChange(thing.kind, named.lone, _name_of(thing, named))
    if entry.failed:
        change.fields.append(named.only("result", entry.result))
        if len(thing.attempts) > 1 and not options.ignores("attempts"):
            change.fields.append(named.only("attempts", ", then ".join(thing.attempts)))
        if entry.reason and not options.ignores("reason"):
            change.fields.append(named.only("reason", entry.reason))
    change.fields += (
        named.only(name, named.text(text))
        for name, text in entry.fields
        if not options.ignores(name)
    )
    if entry.insns is not None:
        count = entry.count
        if named.lone == "removed":
            change.insns_a, change.tag_a, change.removed = count, entry.tag, count
        else:
            change.insns_b, change.tag_b, change.added = count, entry.tag, count
    if entry.made is not None:
        change.uses = named.uses[entry.made]
    return change


def _name_of(thing: Loaded, named: Named) -> str:
    number = thing.entry.made
    return thing.base if number is None else named.labels[number]
