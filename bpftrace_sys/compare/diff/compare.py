"""The comparison of two whole traces, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bpftrace_sys.compare.diff import options as limits
from bpftrace_sys.compare.diff.calls import Calls
from bpftrace_sys.compare.diff.differences import Differences, ObjectChange, ProbeChange, uncounted
from bpftrace_sys.compare.diff.loaded import changed, lone
from bpftrace_sys.compare.diff.names import Both, Named, name_objects
from bpftrace_sys.compare.diff.options import Options
from bpftrace_sys.compare.diff.pairing import Pair, pair_things
from bpftrace_sys.compare.diff.side import Side
from bpftrace_sys.compare.diff.ties import ties

PARTS: Final = (("prog", "progs"), ("map", "maps"), ("btf", "btf"))
"""Kinds of things, in the order in which they are told, and what the options call them."""


def compare(a: Side, b: Side, options: Options) -> Differences:
    """Compares two whole traces."""
    pairs = pair_things(a, b)
    both = Both(Named(a, "removed"), Named(b, "added"), options)
    name_objects(pairs, both.a, both.b)
    compared = options.compared
    found = Differences(compared=compared)
    if "calls" in compared:
        # First of all: this counts the uses of what is in one trace only.
        found.calls += Calls(both).all()
    for kind, part in PARTS:
        if part in compared:
            found.objects += _things(kind, pairs, both)
    if compared >= {"progs", "maps"} and a.more_things != b.more_things:
        found.calls.append(uncounted("programs, maps or BTF", limits.ONE_BY_ONE, "bpf"))
    if "attachments" in compared and not options.ignores("target"):
        found.ties += ties(both)
        if a.more_ties != b.more_ties:
            found.calls.append(uncounted("attachments", limits.ONE_BY_ONE, "attachments"))
    if "probes" in compared and not options.ignores("probe"):
        found.probes += _probes(a.probes, b.probes)
    return found


def _things(kind: str, pairs: list[Pair], both: Both) -> Iterator[ObjectChange]:
    for left, right in pairs:
        thing = left or right
        if thing is None or thing.kind != kind:
            continue
        if left is None or right is None:
            yield lone(thing, both.b if left is None else both.a, both.options)
        elif (change := changed(left, right, both)) is not None:
            yield change


def _probes(a: dict[str, set[str]], b: dict[str, set[str]]) -> Iterator[ProbeChange]:
    for name in dict.fromkeys((*a, *b)):
        if a.get(name) != b.get(name):
            yield ProbeChange(name, _results(a, name), _results(b, name))


def _results(probes: dict[str, set[str]], name: str) -> str | None:
    found = probes.get(name)
    return None if found is None else ", ".join(sorted(found))
