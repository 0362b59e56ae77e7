"""Real perf events, against what their callers know of them."""

from __future__ import annotations

import os
import re
from typing import Any

import pytest

from tests.support.decoded import Run, Traced, plain

pytestmark = pytest.mark.usefixtures("needs_bpf")


def events(traced: Traced) -> list[dict[str, Any]]:
    """perf_event_open calls, in order."""
    return traced.calls("perf_event_open")


SIZES = [
    *(f"size {size}" for size in (64, 72, 80, 96, 104, 112, 120, 128, 136, 144, 0, 63, 5, 76)),
    "size 200, zeros",
    "size 200, a byte",
    "size 5000",
]
VERSIONS = {
    "PERF_ATTR_SIZE_VER0": (64, "config1"),
    "PERF_ATTR_SIZE_VER1": (72, "config2"),
    "PERF_ATTR_SIZE_VER2": (80, "branch_sample_type"),
    "PERF_ATTR_SIZE_VER3": (96, "clockid"),
    "PERF_ATTR_SIZE_VER4": (104, "sample_regs_intr"),
    "PERF_ATTR_SIZE_VER5": (112, "sample_max_stack"),
    "PERF_ATTR_SIZE_VER6": (120, "__reserved_3"),
    "PERF_ATTR_SIZE_VER7": (128, "sig_data"),
    "PERF_ATTR_SIZE_VER8": (136, "config3"),
    "PERF_ATTR_SIZE_VER9": (144, "config4"),
}
LAST = dict(VERSIONS.values())


@pytest.mark.parametrize("step", SIZES)
def test_attr_sizes(run: Run, step: str) -> None:
    """Fields end where the size says, and the size is shown as the kernel left it."""
    traced = run("odd_calls")
    line = events(traced)[SIZES.index(step)]
    said = traced.facts["attrs"]
    assert (line["ret"] if line["ret"] >= 0 else -line["errnum"]) == said[step]
    attr = line["args"]["attr"]
    size = int(re.findall(r"\d+", step)[0])
    after = plain(attr["size"])
    assert VERSIONS.get(after, (after,))[0] == said[f"{step}: size after"]
    names = [name for name in attr if name != "extra_data"]
    if size in LAST:
        assert names[-1] == LAST[size]
    elif size == 0:
        assert names[-1] == LAST[64]
    elif size < 8:
        assert names == ["type", "size"]
    elif size > 144:
        assert names[-1] == LAST[144]
    assert ("extra_data" in attr) is (step == "size 200, a byte")
    assert attr["type"] == "PERF_TYPE_SOFTWARE"


def test_attr_types(run: Run) -> None:
    """What a type makes of config and its fellows."""
    traced = run("odd_calls")
    registers, breakpoint_, cache, hardware, sigtrap = (
        line["args"]["attr"] for line in events(traced)[len(SIZES) : len(SIZES) + 5]
    )
    if os.uname().machine == "x86_64":
        assert registers["sample_regs_user"] == ["PERF_REG_X86_AX", "PERF_REG_X86_IP"]
    assert registers["sample_type"] == ["PERF_SAMPLE_IP", "PERF_SAMPLE_REGS_USER"]
    assert registers["sample_period"] == 1000
    assert [breakpoint_["type"], cache["type"], hardware["type"]] == [
        "PERF_TYPE_BREAKPOINT", "PERF_TYPE_HW_CACHE", "PERF_TYPE_HARDWARE",
    ]  # fmt: skip
    assert breakpoint_["bp_type"] == "HW_BREAKPOINT_W"
    assert int(breakpoint_["bp_addr"], 16) == traced.facts["attrs"]["variable"]
    assert breakpoint_["bp_len"] == "HW_BREAKPOINT_LEN_4"
    assert cache["config"]["name"] == (
        "PERF_COUNT_HW_CACHE_RESULT_MISS<<16|PERF_COUNT_HW_CACHE_OP_WRITE<<8"
        "|PERF_COUNT_HW_CACHE_DTLB"
    )
    assert hardware["config"]["value"] == hex(4 << 32 | 1)
    assert hardware["config"]["name"].endswith("<<32|PERF_COUNT_HW_INSTRUCTIONS")
    assert (sigtrap["sig_data"], sigtrap["sigtrap"], sigtrap["remove_on_exec"]) == (
        "0xdeadbeef", 1, 1,
    )  # fmt: skip


def test_ioctls(run: Run) -> None:
    """Every request of a perf event: a number, an fd, or what its pointer leads to."""
    traced = run("odd_calls")
    facts = traced.facts["ioctls"]

    def args(request: str) -> list[Any]:
        return [plain(c["args"]["arg"]) for c in traced.calls(f"PERF_EVENT_IOC_{request}")]

    assert args("DISABLE") == [[]]
    assert args("RESET") == [[]]
    assert args("ENABLE") == [[], ["PERF_IOC_FLAG_GROUP"]]
    assert args("REFRESH") == [3]
    assert args("ID") == [{"id": facts["id"]}]
    assert args("PERIOD") == [{"period": 12345}]
    assert args("SET_OUTPUT") == [facts["output"][0], -1]
    assert args("PAUSE_OUTPUT") == [1]
    assert args("SET_FILTER") == ["prev_pid == 1"]
    (modify,) = args("MODIFY_ATTRIBUTES")
    assert (modify["type"], modify["config"]) == ("PERF_TYPE_SOFTWARE", "PERF_COUNT_SW_DUMMY")
    by_name = {fact["name"]: fact for fact in traced.facts["progs"]}
    assert by_name["on_switch"]["fd"] in args("SET_BPF")
    event = next(
        line for line in events(traced) if line["args"]["attr"]["type"] == "PERF_TYPE_TRACEPOINT"
    )
    assert event["args"]["attr"]["config"] == {
        "value": facts["tracepoint"],
        "name": "sched:sched_switch",
    }


def test_query_bpf(run: Run) -> None:
    """As many ids as the kernel wrote: not what else stood in the caller's array."""
    traced = run("odd_calls")
    facts = traced.facts["ioctls"]
    whole, none, many = traced.calls("PERF_EVENT_IOC_QUERY_BPF")
    for line, room in ((whole, 4), (none, 0), (many, 65)):
        ret, _, count, *ids = facts[f"query {room}"]
        assert (line["ret"] if line["ret"] >= 0 else -line["errnum"]) == ret
        arg = plain(line["args"]["arg"])
        assert arg["ids_len"] == room
        if ret == 0 or (ret == -28 and room):
            assert arg["prog_cnt"] == count
            assert arg["ids"] == ids[: min(count, room)]
    assert plain(whole["args"]["arg"])["ids"] == [
        fact["id"] for fact in traced.facts["progs"] if fact["name"] == "on_switch"
    ]
