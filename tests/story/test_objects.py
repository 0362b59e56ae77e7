"""Every fd is an object: what a trace says of programs, maps and links is what bpftool sees.

Each loader of tests/tracees/loaders runs under bpfstrace; while it lives, bpftool takes
its view.  All ids of the trace that bpftool sees must be the same objects there:
name, type, tag, sizes, the program of a link.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.bpftool_view import (
    Traced,
    same_link,
    same_map,
    same_prog,
    trace_of,
    under_bpfstrace,
)
from tests.support.loaders import EXPECTED, NAMES
from tests.support.needs import needs_tool

pytestmark = pytest.mark.usefixtures("needs_bpf")

OBJECTLESS = {"errors", "common_attrs", "bpf_token", "pidfd_getfd"}
"""Loaders whose objects are gone, or are a child's, when they tell."""


@pytest.fixture
def traced_loader(name: str, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """The trace of the loader that a test is about."""
    needs_tool("bpftool")
    return trace_of(name, tmp_path_factory)


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


def test_programs_and_maps_inside_maps_have_names(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """What is put into a map is an fd, what comes out an id: both are an object."""
    needs_tool("bpftool")
    jumps = trace_of("tail_calls", tmp_path_factory)
    (last,) = [prog for prog in jumps.facts["progs"] if prog["name"] == "last"]
    assert f"value={{prog_id={last['id']} /* last */}}" in jumps.ran.text
    assert f"<prog last id={last['id']}>" in jumps.ran.text
    inner = trace_of("map_in_map", tmp_path_factory)
    names = {each["id"]: each["name"] for each in inner.facts["maps"]}
    for number in inner.facts["inner_ids"]:
        assert f"<map {names[number]} id={number}>" in inner.ran.text
    number = inner.facts["inner_ids"][1]
    assert f"map_id={number} /* {names[number]} */" in inner.ran.text


TAILS = """
struct { int (*type)[3]; unsigned *key; unsigned *value; int (*max_entries)[2]; }
    tails __attribute__((section(".maps"), used));
char l[] __attribute__((section("license"), used)) = "GPL";
__attribute__((section("socket"), used)) int into_tail(void *c) { return *(int *)&tails ? 1 : 2; }
"""


def test_a_program_array_with_btf_holds_programs(tmp_path: Path) -> None:
    """libbpf gives such arrays types of __u32: an fd in one is a program all the same."""
    needs_tool("bpftool", "clang")
    (tmp_path / "tails.c").write_text(TAILS)
    build = ["clang", "-O2", "-g", "-target", "bpf", "-c", "tails.c", "-o", "tails.o"]
    subprocess.run(build, cwd=tmp_path, check=True)
    script = f"""set -e; cd {tmp_path}; mkdir fs; mount -t bpf bpf fs
        bpftool prog load tails.o fs/p pinmaps fs
        bpftool map update pinned fs/tails key 1 0 0 0 value pinned fs/p
        umount fs"""
    with under_bpfstrace(tmp_path, [], ["sh", "-c", script]) as (_, ran):
        pass
    assert ran.code == 0, ran.stderr
    assert any(line["target"].startswith("tail call 1 of map tails") for line in ran.attachments())
    (update,) = ran.calls("BPF_MAP_UPDATE_ELEM")
    assert {"into_tail", "tails"} <= {each.get("name") for each in update["fds"].values()}


def test_every_loader_is_looked_at() -> None:
    assert set(NAMES) == set(EXPECTED)
