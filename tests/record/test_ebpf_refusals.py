"""By eBPF: what is evidence of a refused call's moment, and what comes too late to be any."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from bpftrace_sys.record.capture.world import World
from bpftrace_sys.record.ebpf import late_world
from bpftrace_sys.record.ebpf.engine import Since, Told, Wanted, Watch
from bpftrace_sys.record.ebpf.worlds import keeping
from bpftrace_sys.record.machine import bpf
from decoders.raw import RawCall
from tests.support.bpftool_view import bpftool
from tests.support.needs import needs_tool
from tests.support.refusals import refused, told
from tests.support.refused_hooks import CGROUPS, DEVICES, QUERIES, WORKLOAD, of_cgroups
from tests.support.running import TRACEES, Ran, environment

pytestmark = pytest.mark.usefixtures("needs_bpf")

LATE = {
    "a task that is not there",
    *("below one alone", "a link below one alone", "a link beside one alone"),
    *("several beside one alone", "one alone beside several", "stale", "a stale link"),
}
"""Cases whose evidence was looked at when the record was read: it may not be said."""
EXPECTED = {"queries": QUERIES, "cgroups": CGROUPS, "devices": DEVICES}


@pytest.fixture
def by_ebpf(traced: Callable[..., Ran]) -> Callable[..., Ran]:
    """As ``traced``, by the engine made of eBPF."""
    return lambda options, *program: traced(["--engine", "bpf", *options], *program)


@pytest.mark.parametrize("name", list(EXPECTED))
def test_what_is_said_is_what_ptrace_says(name: str, by_ebpf: Callable[..., Ran]) -> None:
    """The workload attaches, is refused, detaches and ends, and nobody waits for us."""
    # Not by group(), which keeps the trace for others: this one may lack reasons.
    ran = by_ebpf([], sys.executable, WORKLOAD, name)
    assert ran.code == 0, ran.stderr
    said = told(ran)
    expected = of_cgroups(said) if name == "cgroups" else EXPECTED[name]
    assert set(said) >= set(expected)
    for case, text in expected.items():
        assert said[case] == text or (case in LATE and not said[case]), case


def test_a_loader_that_is_gone(by_ebpf: Callable[..., Ran]) -> None:
    """Of paths: the loader has our root, and ends at once."""
    script = str(TRACEES / "refused_objects.py")
    lines = refused(by_ebpf(["-f"], sys.executable, script))
    said = " ".join(" ".join(line.get("explanation", ())) for line in lines)
    assert "a.b has a dot" in said
    assert "nothing is pinned at /sys/fs/bpf/no_such_pin" in said


def test_a_filter_of_the_callers_own_hides_the_call(by_ebpf: Callable[..., Ran]) -> None:
    """The programs run where the kernel begins with a call, and it does not: docs say so."""
    ran = by_ebpf([], sys.executable, WORKLOAD, "filtered")
    assert len([entry for entry in json.loads(ran.stdout) if entry[1]]) == 4
    assert refused(ran) == []


ONE_ALONE = """
import os, sys
sys.path.insert(0, {folder!r})
sys.argv[1:] = []
from _common import *
kit = Kit()
cgroup, path = own_cgroup(kit, "late")
where = dict(target_fd=cgroup, attach_type=ATTACH["CGROUP_INET_INGRESS"])
first = kit.prog("CGROUP_SKB", returning(1), "first", "CGROUP_INET_INGRESS")
second = kit.prog("CGROUP_SKB", returning(1), "second", "CGROUP_INET_INGRESS")
call("PROG_ATTACH", attach_bpf_fd=first, **where)
try:
    call("PROG_ATTACH", attach_bpf_fd=second, attach_flags=2, **where)
except OSError as error:
    assert error.errno == 1
else:
    sys.exit("was not refused")
{then}
print("done", flush=True)
sys.stdin.readline()
call("PROG_DETACH", attach_bpf_fd={there}, **where)
os.rmdir(path)
"""
CHANGED = """
call("PROG_DETACH", attach_bpf_fd=first, **where)
call("PROG_ATTACH", attach_bpf_fd=second, **where)
"""


def refused_call(then: str, there: str) -> tuple[RawCall, World]:
    """What is read of the refused PROG_ATTACH when the program has done ``then`` as well."""
    engine = Watch(Wanted(everybody=False))
    engine.open()
    found: list[tuple[RawCall, World]] = []

    def take(item: Any) -> None:
        worlds = [part for part in getattr(item, "carried", ()) if isinstance(part, World)]
        if worlds:
            found.append((item, worlds[0]))

    engine.tell(Told(keeping(take, engine)))
    script = ONE_ALONE.format(folder=str(TRACEES / "loaders"), then=then, there=there)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=environment(), text=True,
    ) as child:  # fmt: skip
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "done\n"
            while engine.read():
                pass
        finally:
            child.communicate("\n", timeout=60)
            engine.close()
    assert child.returncode == 0
    ((raw, world),) = found
    world.close()
    return raw, world


def test_a_hook_where_nothing_was_attached_since(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_world, "LATE", 10**12)
    _, world = refused_call("", "first")
    assert world.hook is not None
    level, flags, progs, path = world.hook.split(" ")
    assert (level, flags) == ("0", "0")
    assert progs.isdecimal()
    assert "/late." in path


def test_a_hook_where_something_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that stands there now is older than the call, too, and was not in its way."""
    monkeypatch.setattr(late_world, "LATE", 10**12)
    assert refused_call(CHANGED, "second")[1].hook is None


def test_a_look_that_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_world, "LATE", -(10**12))
    assert refused_call("", "first")[1].hook is None


def test_a_program_that_is_younger_than_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_world, "LATE", 10**12)
    monkeypatch.setattr(bpf, "load_time", lambda prog_id: 1 << 62)
    assert refused_call("", "first")[1].hook is None


def test_when_a_program_was_loaded() -> None:
    """As bpftool has it, in seconds since the epoch."""
    needs_tool("bpftool")
    import time

    boot = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for entry in bpftool("prog", "show")[:5]:
        loaded = bpf.load_time(entry["id"])
        assert loaded is None or abs((boot + loaded) // 10**9 - entry["loaded_at"]) <= 1
    assert bpf.load_time(0x7FFFFFF0) is None


def test_what_has_come_since_a_record() -> None:
    """Of calls that are read when all were made: what follows each."""
    engine = Watch(Wanted(everybody=False, calls=("bpf",)))
    engine.open()
    seen: list[tuple[int, Since]] = []

    def take(item: Any) -> None:
        if isinstance(item, RawCall):
            seen.append((item.args[0], engine.since()))

    engine.tell(Told(take))
    script = ONE_ALONE.format(folder=str(TRACEES / "loaders"), then="", there="first")
    try:
        subprocess.run([sys.executable, "-c", script], input="\n", text=True, check=True,
                       stdout=subprocess.DEVNULL, env=environment())  # fmt: skip
        while engine.read():
            pass
    finally:
        engine.close()
    # PROG_ATTACH, the one that is refused, PROG_DETACH, and the program's end.
    assert [each for each in seen if each[0] in (8, 9)] == [
        (8, Since.ATTACHED), (8, Since.ATTACHED), (9, Since.SOMETHING),
    ]  # fmt: skip
