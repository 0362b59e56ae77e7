"""Why an object was refused where it was put: each case for real, by a loader that ends at once."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable

import pytest

from tests.support.running import TRACEES, Ran

pytestmark = pytest.mark.usefixtures("needs_bpf")

EXPECTED = {
    "other type": "map jumps id=N is used by prog tc_entry id=N, a sched_cls program, and so is "
    "for sched_cls programs; prog xdp_tail id=N is an xdp one",
    "late": "map jumps id=N is used by prog tc_entry id=N, a sched_cls program, and so is for "
    "sched_cls programs; this is an xdp one",
    "a map": "fd N is a map, and a prog_array holds programs",
    "more entries": "map larger id=N differs from the template of map outer id=N: "
    "max_entries N instead of N",
    "another kind": "map hashed id=N differs from the template of map outer id=N: "
    "map_type hash instead of array",
    "nested": "inner_map_fd is map outer id=N, itself a map of maps: they go one level deep",
    "of programs": "inner_map_fd is map jumps id=N: a prog_array cannot be inside of a map",
    "a pipe": "fd N is pipe:[N], not a socket",
    "two modes": "flags asks for skb and drv mode; an attachment has one",
    "too many arguments": "prog args id=N reads argument N at N, and sys_enter has N: "
    "sys_enter(struct pt_regs *regs, long int id)",
    "a category": "a raw tracepoint has no category: its name is sched_switch, "
    "not sched:sched_switch",
    "a batch": "N of N elements were done; at element N: map small id=N is full",
    "a dot": "a.b has a dot, and names on a bpf file system have none (bpf_lookup())",
    "nothing there": "nothing is pinned at /sys/fs/bpf/no_such_pin",
    "past the record": "prog far id=N reads up to byte N of its context (at N), and the record of "
    "tracepoint syscalls:sys_enter_close ends at N",
}
"""By case; numbers that differ from run to run, and others, read N."""


def numbered(text: str) -> str:
    """A reason with its numbers as N; those within names stay."""
    return re.sub(r"(?<![\w.])\d+(?![\w.])", "N", text)


def test_each_refusal_has_its_reason(traced: Callable[..., Ran]) -> None:
    ran = traced(["-f"], sys.executable, str(TRACEES / "refused_objects.py"))
    cases = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("[")]
    assert {name for name, _ in cases} == set(EXPECTED), ran.stdout
    refused = [
        line
        for line in ran.calls()
        if line["ret"] == -1 and line["syscall"] in ("bpf", "ioctl") and line.get("explanation")
    ]
    reasons = {numbered(line["explanation"][0]) for line in refused}
    assert set(EXPECTED.values()) <= reasons, set(EXPECTED.values()) - reasons


def test_replay_says_the_same(traced: Callable[..., Ran]) -> None:
    from tests.support.running import run_cli

    ran = traced(["-f"], sys.executable, str(TRACEES / "refused_objects.py"))
    again = run_cli("replay", "-", input="\n".join(json.dumps(line) for line in ran.lines) + "\n")
    live = [line for line in ran.text.splitlines() if line.startswith("  why: ")]
    assert live
    assert [line for line in again.stdout.splitlines() if line.startswith("  why: ")] == live
