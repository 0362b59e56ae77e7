"""Every fd is an object: what a trace says of programs, maps and links is what bpftool sees.

Each loader of tests/loaders runs under bpfstrace; while it lives, bpftool takes
its view.  All ids of the trace that bpftool sees must be the same objects there:
name, type, tag, sizes, the program of a link.
"""

from __future__ import annotations

import pytest

from decoders.uapi import names
from tests.bpftool_view import Facts, Traced, trace_of
from tests.conftest import needs_tool
from tests.test_loaders import EXPECTED, NAMES

pytestmark = pytest.mark.usefixtures("needs_bpf")

OBJECTLESS = {"errors", "common_attrs", "bpf_token", "pidfd_getfd"}
"""Loaders whose objects are gone, or are a child's, when they tell."""


@pytest.fixture
def traced_loader(name: str, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """The trace of the loader that a test is about."""
    needs_tool("bpftool")
    return trace_of(name, tmp_path_factory)


def same_prog(ours: Facts, theirs: Facts) -> None:
    assert ours.get("name", "") == theirs.get("name", "")
    assert ours["tag"] == theirs["tag"]
    if isinstance(theirs["type"], str) and "type" in ours:
        assert ours["type"] == theirs["type"]


def same_map(ours: Facts, theirs: Facts) -> None:
    assert ours.get("name", "") == theirs.get("name", "")
    sizes = (theirs["bytes_key"], theirs["bytes_value"], theirs["max_entries"])
    assert (ours["key_size"], ours["value_size"], ours["max_entries"]) == sizes
    kind = names.bpf_map_type[ours["map_type"]].removeprefix("BPF_MAP_TYPE_").lower()
    if isinstance(theirs["type"], str):
        assert kind == theirs["type"]


def same_link(ours: Facts, theirs: Facts) -> None:
    if isinstance(theirs.get("type"), str):
        assert ours["type"] == theirs["type"]


SAME = {"prog": same_prog, "map": same_map, "link": same_link}


@pytest.mark.parametrize("name", NAMES)
def test_objects_are_bpftools(name: str, traced_loader: Traced) -> None:
    trace = traced_loader
    compared = 0
    for (kind, number), said in trace.objects().items():
        theirs = trace.view.of(kind).get(number) if kind in SAME else None
        if theirs is None:
            continue
        for ours in said:
            SAME[kind](ours, theirs)
            compared += 1
    assert compared or name in OBJECTLESS


@pytest.mark.parametrize("name", NAMES)
def test_no_object_that_the_loader_tells_of_is_missing(name: str, traced_loader: Traced) -> None:
    trace = traced_loader
    objects = trace.objects()
    for kind in ("prog", "map", "link", "btf"):
        for mine in trace.facts.get(f"{kind}s", ()):
            assert (kind, mine["id"]) in objects
            if kind in ("prog", "map"):
                assert {each.get("name", "") for each in objects[(kind, mine["id"])]} == {
                    mine["name"]
                }


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_a_loaders_own_is_from_before(name: str, traced_loader: Traced) -> None:
    trace = traced_loader
    own = {("prog", each["id"]) for each in trace.facts.get("progs", ())}
    own |= {("map", each["id"]) for each in trace.facts.get("maps", ())}
    for key, said in trace.objects().items():
        if key in own:
            assert all("origin" not in each for each in said)
    assert not [line for line in trace.ran.calls() if "mismatch" in line]


def test_every_loader_is_looked_at() -> None:
    assert set(NAMES) == set(EXPECTED)
