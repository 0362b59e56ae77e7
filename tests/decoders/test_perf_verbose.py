"""What ``perf -vvv`` says that it passes to perf_event_open(2), beside what we saw.

perf prints every field of perf_event_attr that is not zero (those that its
version knows), so a field that it leaves out has to be zero in ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from decoders.uapi import perf, system
from tests.support.needs import needs_tool

BLOCK = re.compile(
    r"^perf_event_attr:\n((?:  .*\n)*)-{10,}\n((?:(?!perf_event_attr:)sys_perf_event_open.*\n)*)",
    re.MULTILINE,
)
OPENED = re.compile(
    r"^sys_perf_event_open: pid (-?\d+)  cpu (-?\d+)  group_fd (-?\d+)  "
    r"flags (0x[0-9a-f]+|0)(?: = (\d+))?$"
)
LISTS = {
    "sample_type": "PERF_SAMPLE_",
    "read_format": "PERF_FORMAT_",
    "branch_sample_type": "PERF_SAMPLE_BRANCH_",
}
"""Fields that perf prints as names, and what it leaves out of them."""
NUMBERS = {
    name: number
    for module in (perf, system)
    for table in vars(module).values()
    if isinstance(table, dict)
    for number, name in table.items()
    if isinstance(name, str) and isinstance(number, int)
}
UNIONS = {
    "sample_freq": "sample_period",
    "wakeup_watermark": "wakeup_events",
    "bp_addr": "config1",
    "kprobe_func": "config1",
    "uprobe_path": "config1",
    "bp_len": "config2",
    "probe_offset": "config2",
    "kprobe_addr": "config2",
}
"""Members of unions, by the one that stands for all of them here."""


@dataclass
class Said:
    """An attr that perf printed, and the calls that it made with it."""

    fields: dict[str, int] = field(default_factory=dict)
    opened: list[dict[str, int | None]] = field(default_factory=list)


def said(text: str) -> list[Said]:
    """What perf printed."""
    found = []
    for block, calls in BLOCK.findall(text):
        attr = Said()
        for line in block.splitlines():
            match = re.fullmatch(r"  (\{ \w+, \w+ \}|\w+) +(\S+)", line)
            assert match is not None, line
            name, value = match.groups()
            name = name.strip("{ }").split(", ")[0]
            name = UNIONS.get(name, name)
            if name in LISTS:
                prefix = LISTS[name]
                attr.fields[name] = sum(NUMBERS[prefix + each] for each in value.split("|"))
            else:
                attr.fields[name] = int(value, 0)
        for line in calls.splitlines():
            opened = OPENED.match(line)
            if opened is not None:
                pid, cpu, group, flags, ret = opened.groups()
                numbers = (int(pid), int(cpu), int(group), int(flags, 0), int(ret) if ret else None)
                names = ("pid", "cpu", "group_fd", "flags", "ret")
                attr.opened.append(dict(zip(names, numbers, strict=True)))
        found.append(attr)
    return found


def number(value: Any) -> int:
    """The number of a value in our JSON."""
    if value is None:
        return 0
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, list):
        return sum(number(each) for each in value)
    if isinstance(value, dict):
        return number(value.get("addr", value.get("value", value.get("before"))))
    return NUMBERS[value] if value in NUMBERS else int(value, 0)


def fields_of(attr: dict[str, Any]) -> dict[str, int]:
    """The numbers of an attr in our JSON, unions under one name."""
    registers = {"sample_regs_user", "sample_regs_intr"}
    masks = {name: index for index, name in perf.perf_regs_x86.items()}
    masks |= {name: index for index, name in perf.perf_regs_arm64.items()}
    found = {}
    for name, value in attr.items():
        if name in registers and isinstance(value, list):
            found[name] = sum(
                1 << masks[each] if each in masks else number(each) for each in value
            )
        else:
            found[UNIONS.get(name, name)] = number(value)
    return found


def called(line: dict[str, Any]) -> dict[str, int | None]:
    """How a perf_event_open was called, as in Said.opened."""
    args = line["args"]
    return {
        "pid": number(args["pid"]),
        "cpu": number(args["cpu"]),
        "group_fd": number(args["group_fd"]),
        "flags": number(args["flags"]),
        "ret": line["ret"] if line["ret"] >= 0 else None,
    }


def not_zero(fields: dict[str, int]) -> dict[str, int]:
    """The fields that are not zero."""
    return {name: value for name, value in fields.items() if value}


RUNS = {
    "stat": ["stat", "-vvv", "-e", "task-clock,page-faults,context-switches"],
    "stat-group": ["stat", "-vvv", "-e", "{cpu-clock,minor-faults,dummy}", "-a"],
    "stat-hardware": ["stat", "-vvv", "-e", "cycles:u,dTLB-load-misses:k,r1a8,instructions:pp"],
    "stat-breakpoint": ["stat", "-vvv", "-e", "mem:0x404000/8:w,mem:0x404008/4:rw"],
    "record": ["record", "-vvv", "-e", "cpu-clock"],
    "record-callers": ["record", "-vvv", "-e", "cpu-clock", "--call-graph", "dwarf,4096", "-d"],
    "record-period": ["record", "-vvv", "-e", "cpu-clock", "-c", "100000", "-k", "monotonic", "-W"],
    "record-registers": ["record", "-vvv", "-e", "task-clock", "--user-regs=ip,sp", "--per-thread"],
    "record-branches": ["record", "-vvv", "-e", "cpu-clock", "-j", "any_call,u"],
    "record-depth": ["record", "-vvv", "-e", "cpu-clock/max-stack=7/", "-g", "--switch-events"],
}


@pytest.mark.parametrize("run", RUNS)
def test_attr_that_perf_prints(run: str, tmp_path: Path, traced: Any, needs_bpf: None) -> None:
    """Every field that perf prints agrees, and what it does not print is zero."""
    needs_tool("perf")
    words = ["perf", *RUNS[run]]
    if words[1] == "record":
        words += ["-o", str(tmp_path / "perf.data")]
    ran = traced(["-f"], *words, "--", "true")
    told = said(ran.stderr + ran.stdout)
    ours = iter(ran.calls("perf_event_open"))
    compared = 0
    for attr in told:
        for opened in attr.opened:
            # perf also tries things out without a word: those calls are passed over.
            line = next((line for line in ours if called(line) == opened), None)
            assert line is not None, f"{opened} is not in the trace"
            found = fields_of(line["args"]["attr"])
            assert not_zero(found) == not_zero(attr.fields)
            compared += 1
    assert compared, ran.stderr


def test_parser_knows_what_perf_prints() -> None:
    """Names, unions and results of a block in perf's words."""
    rule = "-" * 60
    text = f"""{rule}
perf_event_attr:
  type                             5
  { '{ sample_period, sample_freq }' }   4000
  sample_type                      IP|TID
  { '{ bp_addr, config1 }' }             0x404000
{rule}
sys_perf_event_open: pid 7  cpu -1  group_fd -1  flags 0x8 = 3
sys_perf_event_open: pid 7  cpu 1  group_fd -1  flags 0x8
sys_perf_event_open failed, error -2
"""
    (attr,) = said(text)
    assert attr.fields == {
        "type": 5, "sample_period": 4000, "sample_type": 3, "config1": 0x404000,
    }  # fmt: skip
    assert [opened["ret"] for opened in attr.opened] == [3, None]
