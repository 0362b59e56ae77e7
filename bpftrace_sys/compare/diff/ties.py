"""Attachments: which are in one trace only, or lead to another target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bpftrace_sys.compare.diff.differences import TieChange
from bpftrace_sys.compare.diff.names import Both, Named
from bpftrace_sys.compare.diff.options import Options


def ties(both: Both) -> Iterator[TieChange]:
    """The attachments that differ: those with another target, those gone, those new."""
    a = _keys(both.a, both.options)
    b = _keys(both.b, both.options)
    gone, new = list((a - b).elements()), list((b - a).elements())
    for verb, prog, target, via in list(gone):
        other = next((tie for tie in new if tie[:2] == (verb, prog)), None)
        if other is not None:
            gone.remove((verb, prog, target, via))
            new.remove(other)
            if other[2] == target:
                # The same, by another way.
                yield TieChange("changed", verb, prog, f"{target} ({other[3]})", other[3],
                                f"{target} ({via})")  # fmt: skip
            else:
                yield TieChange("changed", verb, prog, other[2], other[3], target)
    yield from (TieChange("removed", *tie, None) for tie in gone)
    yield from (TieChange("added", *tie, None) for tie in new)


def _keys(named: Named, options: Options) -> Counter[tuple[str, str, str, str]]:
    found: Counter[tuple[str, str, str, str]] = Counter()
    for tie, count in named.side.ties.items():
        via = "" if options.ignores("via") else tie.via
        found[tie.verb, named.text(tie.prog), tie.target, via] += count
    return found
