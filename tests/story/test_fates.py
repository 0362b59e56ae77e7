"""What is said of where programs are attached and were, held against what the tracee did."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.story.objects import scope, spans
from tests.support.bpftool_view import tables_of, under_bpfstrace
from tests.support.running import TRACEES, Ran, run_cli

FATES = str(TRACEES / "fates.py")


@pytest.mark.offline
def test_cpus_are_written_as_the_kernel_writes_them() -> None:
    assert spans([0, 1, 2, 3]) == "0-3"
    assert spans([0, 2, 3, 7]) == "0,2-3,7"
    assert spans([]) == ""
    assert scope([1, 0], None) == ", CPUs 0-1"
    assert scope([3], 12) == ", CPU 3, pid 12"
    assert scope([], None) == ""


Story = tuple[Ran, dict[str, Any]]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The trace, and what the tracee says it did."""
    folder = tmp_path_factory.mktemp("fates")
    with under_bpfstrace(folder, (), [sys.executable, FATES]) as (process, ran):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()
        facts = json.loads(line)
    assert ran.code == 0, ran.stderr
    return ran, facts


def cells(text: str) -> dict[str, str]:
    """The last column of the table of programs."""
    return {row["name"]: row["attached to"] for row in tables_of(text)["programs"]}


@pytest.mark.usefixtures("needs_bpf")
def test_each_program_has_its_fate(story: Story) -> None:
    ran, facts = story
    where = ", CPU{} {}".format("s" if len(facts["cpus"]) > 1 else "", spans(facts["cpus"]))
    told = cells(ran.text)
    assert told["sampled"] == f"software cpu-clock 99 Hz{where}"
    assert told["stopped"] == f"was attached to software cpu-clock every 500 ms{where}, disabled"
    assert told["faults"] == f"software page-faults, pid {facts['pid']}"
    if "watched" in facts:
        place = f"{facts['watched']:#x}"
        assert told["watched"] == f"breakpoint w 8 bytes at {place}, pid {facts['pid']}"
    target = f"cgroup_skb egress on {facts['cgroup']}"
    assert told["left"] == f"was attached to {target}, detached"
    assert told["ran"] == "run 6 times by BPF_PROG_TEST_RUN"
    assert told["refused"].startswith("not attached (PERF_EVENT_IOC_SET_BPF EINVAL")
    lacking = not Path("/sys/bus/event_source/devices/kprobe").exists()
    file = "/sys/bus/event_source/devices/kprobe/type"
    reason = f" (openat {file} ENOENT: this kernel has no kprobes (CONFIG_KPROBE_EVENTS))"
    assert told["probing"] == "not attached" + (reason if lacking else "")
    assert told["alone"] == "not attached"


@pytest.mark.usefixtures("needs_bpf")
def test_lines_at_the_end_name_only_what_is_idle(story: Story) -> None:
    ran, _ = story
    idle = re.findall(r"^not attached  (\w+) ", ran.text, re.MULTILINE)
    assert idle == ["refused", "probing", "alone"]
    assert re.search(
        r"^run  ran \(socket_filter, .*\), 6 times by BPF_PROG_TEST_RUN$", ran.text, re.MULTILINE
    )


@pytest.mark.usefixtures("needs_bpf")
def test_events_of_all_cpus_are_told_once(story: Story) -> None:
    ran, facts = story
    for name, verb in (("sampled", "attached"), ("stopped", "attached"), ("stopped", "disabled")):
        assert len(re.findall(rf"^{verb}  {name} ", ran.text, re.MULTILINE)) == 1
    more = len(facts["cpus"]) - 1
    if more:
        others = f"{more} other CPUs" if more > 1 else "the other CPU"
        assert ran.text.count(f"  ...     the same for {others}\n") == 2
    # The JSON has each.
    lines = [line for line in ran.attachments() if line["prog"]["name"] == "sampled"]
    assert [line["cpu"] for line in lines] == facts["cpus"]
    assert {line["target"] for line in lines} == {"software cpu-clock 99 Hz"}
    faults = [line for line in ran.attachments() if line["prog"]["name"] == "faults"]
    assert [line["task"] for line in faults] == [facts["pid"]]


@pytest.mark.usefixtures("needs_bpf")
def test_replay_says_the_same(story: Story, tmp_path: Path) -> None:
    ran, _ = story
    trace = tmp_path / "trace.jsonl"
    trace.write_text("".join(json.dumps(line) + "\n" for line in ran.lines))
    assert run_cli("replay", str(trace)).stdout == ran.text


@pytest.mark.usefixtures("needs_bpf")
def test_what_is_not_traced_is_not_denied(tmp_path: Path) -> None:
    with under_bpfstrace(
        tmp_path, ("-e", "trace=bpf"), [sys.executable, FATES]
    ) as (process, ran):
        assert process.stdout is not None
        assert process.stdout.readline(), process.communicate()
    told = cells(ran.text)
    for name in ("sampled", "stopped", "faults", "refused", "probing"):
        assert told[name] == "attachment not traced (ioctl is not traced)"
    assert "detached" in told["left"]
    assert told["alone"] == "not attached"
    assert re.search(
        r"^attachment not traced  sampled \(.*\), ioctl is not traced$", ran.text, re.MULTILINE
    )
    with under_bpfstrace(
        tmp_path, ("-e", "bpf=prog_load"), [sys.executable, FATES]
    ) as (process, ran):
        assert process.stdout is not None
        assert process.stdout.readline(), process.communicate()
    assert cells(ran.text)["alone"] == "not seen attached (-e bpf=prog_load leaves calls out)"
