"""What is decoded of real calls, against what their callers know of them.

The tracees are the loaders of ``tests/tracees/loaders`` and ``odd_calls.py``: they
print what they passed and what the kernel answered, read with layouts of their
own.  bpftool has its word where it prints the same.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.decoded import Run, flat, plain

pytestmark = pytest.mark.usefixtures("needs_bpf")


# ---------------------------------------------------------------- every tracee

# Those of the others take long, or are about processes and not about calls.
LOADED = (
    *("bpf_token", "cgroup_attach", "common_attrs", "errors", "freplace", "ids", "info", "iter"),
    *("kprobe_multi", "map_in_map", "map_ops", "netfilter", "perf_link", "pin", "prog_test_run"),
    *("raw_tracepoint", "sk_lookup", "sockmap", "stats", "stream", "struct_ops", "tcx", "tun"),
    *("uprobe_multi", "xdp_link"),
)
USED = ["odd_calls", *(f"loaders/{name}" for name in LOADED)]


@pytest.mark.parametrize("name", USED)
def test_nothing_is_lost(run: Run, name: str) -> None:
    """No mistakes of ours; what this kernel made its own programs pass has names for all of it."""
    traced = run(name)
    for line in traced.syscalls:
        assert "problem" not in line
        text = json.dumps(line["args"])
        assert "not captured" not in text or unknown_fd(line), text
        if name not in ("odd_calls", "loaders/errors"):
            assert "extra_data" not in text, text


def unknown_fd(line: dict[str, Any]) -> bool:
    """Whether it is a call about a map whose fd is none: then nobody knows its sizes."""
    return line.get("errno") in ("EBADF", "EINVAL") and "map_fd" in line["args"].get("attr", {})


@pytest.mark.parametrize("name", USED)
def test_objects(run: Run, name: str) -> None:
    """Loads and creations show what OBJ_GET_INFO_BY_FD told the tracee of the result."""
    traced = run(name)
    for fact in traced.facts.get("maps", []):
        found = traced.attrs("MAP_CREATE", map_name=fact["name"])
        assert any(
            (
                attr["map_type"].removeprefix("BPF_MAP_TYPE_"),
                attr["key_size"], attr["value_size"], attr["max_entries"],
            )
            == (fact["type"], fact["key_size"], fact["value_size"], fact["max_entries"])
            for attr in found
        ), fact  # fmt: skip
    for fact in traced.facts.get("progs", []):
        loads = [
            line
            for line in traced.calls("PROG_LOAD", prog_name=fact["name"])
            if line.get("fd", {}).get("id") == fact["id"]
        ]
        (load,) = loads
        attr = load["args"]["attr"]
        assert attr["prog_type"] == f"BPF_PROG_TYPE_{fact['type']}"
        assert load["ret"] == fact["fd"]
        assert load["fd"]["tag"] == fact["tag"]
        assert len(attr["insns"]["value"]) <= attr["insn_cnt"]
    for fact in traced.facts.get("links", []):
        infos = [
            plain(attr["info"])
            for attr in traced.attrs("OBJ_GET_INFO_BY_FD", id=fact["id"])
            if plain(attr["info"])["type"].startswith("BPF_LINK_TYPE")
        ]
        assert infos
        assert {info["type"] for info in infos} == {f"BPF_LINK_TYPE_{fact['type']}"}
        assert {info["prog_id"] for info in infos} >= {fact["prog_id"]}
        told = [flat(info) for info in infos]
        for name_ in ("cgroup_id", "netns_ino", "ifindex"):
            if name_ in fact:
                assert fact[name_] in [details[name_] for details in told]
        if "attach_type" in fact:
            assert told[0]["attach_type"] == f"BPF_{fact['attach_type']}"


# ---------------------------------------------------------------- maps


def test_elements(run: Run) -> None:
    """Keys and values of every way to get at them, as the loader passed and got them."""
    traced = run("loaders/map_ops")
    facts = traced.facts
    table = facts["maps"][0]["fd"]

    def number(value: Any) -> int:
        data = plain(value)
        assert isinstance(data, bytes)
        return int.from_bytes(data, "little")

    updates = traced.attrs("MAP_UPDATE_ELEM", map_fd=table)[:3]
    assert [(number(a["key"]), number(a["value"])) for a in updates] == [(0, 0), (1, 1), (2, 4)]
    assert updates[0]["flags"] == ["BPF_ANY"]
    lookup, absent = traced.attrs("MAP_LOOKUP_ELEM", map_fd=table)
    assert (number(lookup["key"]), number(lookup["value"])) == (2, facts["looked_up"])
    assert number(absent["key"]) == 99
    assert absent["value"]["absent"] == "not written"
    *following, last = traced.attrs("MAP_GET_NEXT_KEY", map_fd=table)
    assert following[0]["key"] is None
    assert sorted(number(each["next_key"]) for each in following) == facts["keys"]
    assert last["next_key"]["absent"] == "not written"
    (taken,) = traced.attrs("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=table)
    assert (number(taken["key"]), number(taken["value"])) == (1, facts["taken"])
    (deleted, _) = traced.attrs("MAP_DELETE_ELEM")
    assert number(deleted["key"]) == 0
    exists = traced.calls("MAP_UPDATE_ELEM", map_fd=table)[-1]
    assert (exists["args"]["attr"]["flags"], exists["errno"]) == (["BPF_NOEXIST"], "EEXIST")

    queue = next(fact["fd"] for fact in facts["maps"] if fact["type"] == "QUEUE")
    pops = traced.attrs("MAP_LOOKUP_AND_DELETE_ELEM", map_fd=queue)
    assert [number(pop["value"]) for pop in pops] == facts["queue"]
    assert [pop["key"] for pop in pops] == [None, None]


def test_per_cpu_values(run: Run) -> None:
    """A value of each possible CPU, rounded up to 8 bytes."""
    traced = run("loaders/map_ops")
    percpu = next(fact["fd"] for fact in traced.facts["maps"] if fact["type"] == "PERCPU_ARRAY")
    (lookup,) = traced.attrs("MAP_LOOKUP_ELEM", map_fd=percpu)
    data = plain(lookup["value"])
    assert len(data) == 8 * traced.facts["cpus"]
    values = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
    assert values == traced.facts["percpu"]


def test_batches(run: Run) -> None:
    """As many keys and values as the kernel counted; and where to go on."""
    traced = run("loaders/map_ops")

    def numbers(value: Any, size: int) -> list[int]:
        data = plain(value)
        return [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]

    (update,) = traced.attrs("MAP_UPDATE_BATCH")
    assert numbers(update["keys"], 4) == list(range(8))
    assert numbers(update["values"], 8) == list(range(100, 108))
    assert update["count"] == 8
    (lookup,) = traced.calls("MAP_LOOKUP_BATCH")
    assert lookup["errno"] == "ENOENT"
    batch = lookup["args"]["attr"]["batch"]
    assert batch["count"] == {"before": 16, "after": 8}
    assert sorted(numbers(batch["values"], 8)) == traced.facts["batch"]
    assert len(plain(batch["out_batch"])) == 4
    assert batch["in_batch"] is None
    (deleted,) = traced.attrs("MAP_DELETE_BATCH")
    assert numbers(deleted["keys"], 4) == list(range(4))
    (taken,) = traced.attrs("MAP_LOOKUP_AND_DELETE_BATCH")
    assert sorted(numbers(taken["keys"], 4)) == traced.facts["left"]


def test_freeze(run: Run) -> None:
    traced = run("loaders/map_ops")
    (frozen,) = traced.calls("MAP_FREEZE")
    assert frozen["args"]["attr"]["map_fd"] == traced.facts["maps"][3]["fd"]
    assert frozen["ret"] == 0


def test_flags_that_none_expects(run: Run) -> None:
    """A member that a command does not use is shown where it is set; a CPU in the flags is one."""
    traced = run("odd_calls")
    (frozen,) = traced.attrs("MAP_FREEZE")
    assert frozen["flags"] == ["BPF_NOEXIST", "BPF_F_LOCK"]
    *_, lookup = traced.attrs("MAP_LOOKUP_ELEM")
    assert lookup["flags"] == ["BPF_F_CPU", "1<<32"]


def test_bytes_that_nobody_knows(run: Run) -> None:
    """What follows the newest field is shown; zeros there are not."""
    zeros, byte = run("odd_calls").attrs("MAP_CREATE", map_name="")[:2]
    assert "extra_data" not in zeros
    data = plain(byte["extra_data"])
    assert data.strip(b"\0") == b"\t"
    # 96 bytes are ours.
    assert len(data) == 256 - 96
    assert data[200 - 96] == 9
