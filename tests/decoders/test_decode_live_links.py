"""Real calls about links, against what their callers know of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.decoded import Run, Traced, plain
from tests.support.running import run_cli

pytestmark = pytest.mark.usefixtures("needs_bpf")


def link(traced: Traced, **wanted: Any) -> dict[str, Any]:
    """The first LINK_CREATE with these fields."""
    return traced.attrs("LINK_CREATE", **wanted)[0]


def test_iterators(run: Run) -> None:
    """The member of union bpf_iter_link_info that the program's target wants."""
    traced = run("loaders/iter")
    if not traced.facts.get("links"):
        pytest.skip("no iterators on this kernel")
    task, element = traced.attrs("LINK_CREATE")
    assert task["attach_type"] == element["attach_type"] == "BPF_TRACE_ITER"
    assert plain(task["iter_info"]) == {
        "task": {"tid": traced.facts["pid"], "pid": 0, "pid_fd": 0}
    }
    assert plain(element["iter_info"]) == {"map": {"map_fd": traced.facts["maps"][0]["fd"]}}
    first, second = traced.calls("ITER_CREATE")
    links = [fact["fd"] for fact in traced.facts["links"]]
    assert [c["args"]["attr"]["iter_create"]["link_fd"] for c in (first, second)] == links
    infos = [
        plain(attr["info"])
        for attr in traced.attrs("OBJ_GET_INFO_BY_FD")
        if "iter" in plain(attr["info"])
    ]
    assert [info["iter"]["target_name"] for info in infos] == [None, "task", None, "bpf_map_elem"]
    # Also where the caller did not ask for the target's name.
    assert [info["iter"].get("task") for info in infos[:2]] == [
        {"tid": traced.facts["pid"], "pid": 0}
    ] * 2
    assert {info["iter"]["map"]["map_id"] for info in infos[2:]} == {traced.facts["maps"][0]["id"]}


def test_iterators_of_a_replay(run: Run, tmp_path: Path) -> None:
    """What a program walks is a fact of the trace: replay knows it as well."""
    traced = run("loaders/iter")
    again = tmp_path / "again.jsonl"
    done = run_cli("replay", "-o", os.devnull, "--json", str(again), str(traced.path))
    assert done.returncode == 0, done.stderr
    replayed = Traced(again, traced.facts)
    made = replayed.attrs("LINK_CREATE")
    assert {attr["attach_type"] for attr in made} <= {"BPF_TRACE_ITER"}
    assert [line["args"] for line in replayed.syscalls] == [
        line["args"] for line in traced.syscalls
    ]


def test_uprobe_multi(run: Run) -> None:
    traced = run("loaders/uprobe_multi")
    traced.refused("LINK_CREATE TRACE_UPROBE_MULTI")
    multi = plain(link(traced)["uprobe_multi"])
    facts = traced.facts
    assert multi["path"] == facts["path"]
    assert [int(offset, 16) for offset in multi["offsets"]] == list(facts["offsets"].values())
    assert [int(cookie, 16) for cookie in multi["cookies"]] == list(facts["cookies"].values())
    assert (multi["cnt"], multi["pid"], multi["ref_ctr_offsets"]) == (3, facts["pid"], None)
    told = next(
        plain(attr["info"])["uprobe_multi"]
        for attr in traced.attrs("OBJ_GET_INFO_BY_FD")
        if plain(attr["info"]).get("uprobe_multi", {}).get("path")
    )
    assert told["path"] == facts["path"]


def test_kprobe_multi(run: Run) -> None:
    """Names behind an array of pointers, also where the kernel cannot attach."""
    traced = run("loaders/kprobe_multi")
    found = traced.attrs("LINK_CREATE")
    if not found:
        pytest.skip("the program did not load")
    assert plain(found[0]["attach_type"]) == "BPF_TRACE_KPROBE_MULTI"
    multi = plain(found[0]["kprobe_multi"])
    assert multi["cnt"] == len(multi["syms"] or multi["addrs"])
    assert all(isinstance(name, str) for name in multi["syms"] or [])


def test_perf_link(run: Run) -> None:
    traced = run("loaders/perf_link")
    traced.refused("PMU uprobe")
    made = link(traced)
    assert made["attach_type"] == "BPF_PERF_EVENT"
    assert made["perf_event"]["bpf_cookie"] == "0xc00c1e"
    assert made["target_fd"] == traced.facts["events"][0]["fd"]
    (query,) = traced.attrs("TASK_FD_QUERY")
    facts = traced.facts["task_fd_query"]
    assert plain(query["buf"]) == facts["name"] == traced.facts["path"]
    assert plain(query["buf_len"]) == len(facts["name"])
    assert plain(query["prog_id"]) == facts["prog_id"]
    assert plain(query["fd_type"]) == "BPF_FD_TYPE_UPROBE"
    assert int(plain(query["probe_offset"]), 16) == facts["probe_offset"]
    info = next(
        plain(attr["info"])["perf_event"]
        for attr in reversed(traced.attrs("OBJ_GET_INFO_BY_FD"))
        if "perf_event" in (plain(attr["info"]) or {})
    )
    assert info["type"] == "BPF_PERF_EVENT_UPROBE"
    assert info["uprobe"]["file_name"] == traced.facts["path"]
    assert int(info["uprobe"]["offset"], 16) == traced.facts["offset"]


def test_short_task_fd_query(run: Run) -> None:
    """Of a name that did not fit, what did; none where there was no room."""
    traced = run("odd_calls")
    facts = traced.facts["queries"]
    short, none = traced.attrs("TASK_FD_QUERY")
    assert traced.calls("TASK_FD_QUERY")[0]["errno"] == "ENOSPC"
    assert plain(short["buf"]) == facts["short name"]
    assert short["buf_len"] == {"before": 8, "after": len(facts["path"])}
    assert none["buf"]["absent"] == "empty"
    assert plain(none["buf_len"]) == len(facts["path"])


def test_cgroup(run: Run) -> None:
    """Attach, query, detach, and a link that is updated."""
    traced = run("loaders/cgroup_attach")
    facts = traced.facts
    first = traced.attrs("PROG_ATTACH")[0]
    assert first["attach_type"] == "BPF_CGROUP_INET_EGRESS"
    assert first["attach_flags"] == ["BPF_F_ALLOW_MULTI"]
    query, left, *_ = traced.attrs("PROG_QUERY")
    assert plain(query["prog_ids"]) == facts["queried"]["ids"]
    assert query["prog_cnt"] == {"before": 8, "after": len(facts["queried"]["ids"])}
    assert plain(query["attach_flags"]) == ["BPF_F_ALLOW_MULTI"]
    assert plain(left["prog_cnt"]) == facts["left"]
    effective = traced.attrs("PROG_QUERY")[-1]
    assert effective["query_flags"] == ["BPF_F_QUERY_EFFECTIVE"]
    assert plain(effective["prog_cnt"]) == facts["effective"]
    detached = traced.attrs("PROG_DETACH")[0]
    assert detached["attach_bpf_fd"] == first["attach_bpf_fd"]
    assert detached["attach_type"] == first["attach_type"]
    (update,) = traced.attrs("LINK_UPDATE")
    fds = {fact["name"]: fact["fd"] for fact in facts["progs"]}
    assert (update["new_prog_fd"], update["old_prog_fd"]) == (fds["second"], fds["first"])
    assert update["flags"] == ["BPF_F_REPLACE"]
    (detach,) = traced.attrs("LINK_DETACH")
    assert detach["link_fd"] == facts["links"][0]["fd"]
    revised = traced.attrs("PROG_ATTACH")[1]
    assert revised["expected_revision"] == facts["revision"]


def test_query_without_room(run: Run) -> None:
    """Of two programs the one that there was room for, and how many there are."""
    traced = run("odd_calls")
    (line,) = traced.calls("PROG_QUERY")
    query = line["args"]["attr"]["query"]
    assert line["errno"] == "ENOSPC"
    assert query["prog_cnt"] == {"before": 1, "after": 2}
    assert plain(query["prog_ids"]) == traced.facts["queries"]["ids"][:1]


def test_tcx(run: Run) -> None:
    """A device by its index, an order among programs, ``count`` in place of prog_cnt."""
    traced = run("loaders/tcx")
    traced.refused("LINK_CREATE TCX_INGRESS")
    second, first = traced.attrs("LINK_CREATE")
    assert plain(second["target_ifindex"]) == 1
    fds = {fact["name"]: fact["fd"] for fact in traced.facts["progs"]}
    assert first["flags"] == ["BPF_F_BEFORE"]
    assert first["tcx"]["relative_fd"] == fds["second"]
    query = traced.attrs("PROG_QUERY")[0]
    facts = traced.facts["ingress"]
    assert plain(query["count"]) == facts["count"]
    assert plain(query["prog_ids"]) == facts["ids"]
    assert plain(query["revision"]) == facts["revision"]
    assert "prog_cnt" not in query
    attach = traced.attrs("PROG_ATTACH")[0]
    assert plain(attach["target_ifindex"]) == 1


def test_netfilter(run: Run) -> None:
    traced = run("loaders/netfilter")
    traced.refused("LINK_CREATE NETFILTER")
    assert link(traced)["netfilter"] == {
        "pf": "NFPROTO_IPV4", "hooknum": "NF_INET_LOCAL_IN", "priority": -128, "flags": [],
    }  # fmt: skip


def test_xdp(run: Run) -> None:
    """Flags of a link that are XDP's own."""
    traced = run("loaders/xdp_link")
    traced.refused("LINK_CREATE XDP")
    links = traced.attrs("LINK_CREATE")
    assert links[0]["flags"] == ["XDP_FLAGS_SKB_MODE"]
    assert plain(links[0]["target_ifindex"]) == 1
    if len(links) > 1:
        assert links[1]["flags"] == ["XDP_FLAGS_DRV_MODE"]


def test_raw_tracepoints(run: Run) -> None:
    traced = run("loaders/raw_tracepoint")
    opened = traced.attrs("RAW_TRACEPOINT_OPEN")
    assert plain(opened[0]["name"]) == "sys_enter"
    if "RAW_TRACEPOINT_OPEN with a cookie" not in traced.facts["refused"]:
        assert (plain(opened[1]["name"]), opened[1]["cookie"]) == ("sys_exit", "0xc00c1e")
    load = traced.attrs("PROG_LOAD", prog_name="by_id")[0]
    assert load["attach_btf_id"] == {
        "value": traced.facts["attach_btf_id"],
        "name": traced.facts["attach_btf_name"],
    }
    named = traced.attrs("LINK_CREATE")
    if named:
        assert plain(named[0]["attach_type"]) == "BPF_TRACE_RAW_TP"
        assert named[0]["tracing"]["cookie"] == "0xb1ffee"


def test_struct_ops(run: Run) -> None:
    """A link of a map: the fd goes by the name that the kernel has for it."""
    traced = run("loaders/struct_ops")
    if not traced.facts.get("links"):
        pytest.skip("no struct_ops link on this kernel")
    made = link(traced)
    assert made["attach_type"] == "BPF_STRUCT_OPS"
    assert made["map_fd"] == traced.facts["maps"][0]["fd"]
    assert "prog_fd" not in made
    (create,) = traced.attrs("MAP_CREATE")
    assert create["btf_vmlinux_value_type_id"] == {
        "value": traced.facts["value_btf_id"],
        "name": traced.facts["value_type"],
    }
    loads = traced.attrs("PROG_LOAD")
    assert {load["attach_btf_id"]["name"] for load in loads} == {traced.facts["struct"]}


def test_freplace(run: Run) -> None:
    """An extension has no attach type of its own, and its BTF id is of another program's BTF."""
    traced = run("loaders/freplace")
    loads = traced.attrs("PROG_LOAD", prog_type="BPF_PROG_TYPE_EXT")
    if not loads:
        pytest.skip("no target was loaded")
    assert all(isinstance(load["attach_btf_id"], int) for load in loads)
    targets = {fact["fd"] for fact in traced.facts["progs"]}
    assert {load["attach_prog_fd"] for load in loads} <= targets


def test_namespaces(run: Run) -> None:
    traced = run("loaders/sk_lookup")
    traced.refused("LINK_CREATE SK_LOOKUP")
    made = link(traced)
    assert made["target_fd"] == traced.facts["netns"]
    assert made["attach_type"] == "BPF_SK_LOOKUP"
    assert "target_btf_id" not in made


def test_tun(run: Run) -> None:
    """An fd behind a pointer, in ioctls that are not perf's."""
    traced = run("loaders/tun")
    if not traced.facts.get("progs"):
        pytest.skip(f"no tun devices here: {traced.facts['refused']}")
    fds = [fact["fd"] for fact in traced.facts["progs"]]
    for request, fd in zip(("TUNSETSTEERINGEBPF", "TUNSETFILTEREBPF"), fds, strict=True):
        line, *_ = traced.calls(request)
        assert plain(line["args"]["arg"]) == {"fd": fd}
