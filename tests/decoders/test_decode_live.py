"""What is decoded of real calls, against what their callers know of them.

The tracees are the loaders of ``tests/tracees/loaders`` and ``odd_calls.py``: they
print what they passed and what the kernel answered, read with layouts of their
own.  bpftool has its word where it prints the same.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.decoded import Run, Traced, flat, plain
from tests.support.needs import needs_tool
from tests.support.running import LOADERS, ROOT, run_cli

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


# ---------------------------------------------------------------- programs


def test_test_run(run: Run) -> None:
    """Data and context in and out, what was too long, and what came in place of the context."""
    traced = run("loaders/prog_test_run")
    whole, short, context, syscall = traced.attrs("PROG_TEST_RUN")
    facts = traced.facts["xdp"]
    packet = plain(whole["data_in"])
    assert packet == bytes(range(64))
    out = plain(whole["data_out"])
    assert (len(out), out[0], out[1:] == packet[1:]) == (facts["size"], facts["first"], True)
    assert plain(whole["retval"]) == facts["retval"]
    assert whole["data_size_out"] == {"before": 256, "after": 64}
    assert whole["repeat"] == 10
    assert traced.calls("PROG_TEST_RUN")[1]["errno"] == "ENOSPC"
    assert short["data_size_out"] == {"before": 16, "after": 64}
    assert plain(short["data_out"]) == out[:16]
    mark = plain(context["ctx_out"])[8:12]
    assert int.from_bytes(mark, "little") == traced.facts["sched_cls"]["mark"]
    assert plain(context["ctx_in"])[32] == 5
    numbers = syscall["ctx_in"]["value"]
    assert int.from_bytes(plain(numbers["before"]), "little") == 41
    assert int.from_bytes(plain(numbers["after"]), "little") == traced.facts["syscall"]["ctx"]


def test_prog_info_arrays(run: Run) -> None:
    """Every array that OBJ_GET_INFO_BY_FD fills, in the length that the kernel said."""
    traced = run("loaders/info")
    facts = traced.facts
    (info,) = [
        plain(attr["info"])
        for attr in traced.attrs("OBJ_GET_INFO_BY_FD", name="answer")
        if plain(attr["info"])["map_ids"]
    ]
    counts = facts["counts"]
    assert info["map_ids"] == facts["map_ids"]
    assert len(info["jited_prog_insns"]) == counts["jited_prog_insns"]
    assert [tag["tag"].hex() for tag in info["prog_tags"]] == facts["prog_tags"]
    pairs = zip(facts["func_info"][::2], facts["func_info"][1::2], strict=True)
    assert [(each["insn_off"], each["type_id"]) for each in info["func_info"]] == list(pairs)
    for name in ("jited_ksyms", "jited_func_lens", "line_info", "jited_line_info"):
        assert len(info[name]) == counts[name], name
    assert sum(info["jited_func_lens"]) == counts["jited_prog_insns"]
    # Of the kernel's addresses, each function's first is that of its first line.
    assert info["jited_line_info"][0] == info["jited_ksyms"][0]
    assert info["verified_insns"] == facts["verified_insns"]
    assert (info["gpl_compatible"], info["created_by_uid"]) == (1, os.getuid())
    slots = sum(2 if "(18)" in line["text"] else 1 for line in info["xlated_prog_insns"])
    assert slots * 8 == counts["xlated_prog_insns"]


def test_translated_listing(tmp_path: Path) -> None:
    """xlated_prog_insns line by line as ``bpftool prog dump xlated`` prints it."""
    needs_tool("bpftool")
    end = tmp_path / "end"
    trace = tmp_path / "trace.jsonl"
    command = [
        *(sys.executable, "-m", "bpftrace_sys", "-o", os.devnull, "--json", str(trace)),
        *(sys.executable, str(LOADERS / "info.py"), "--wait", str(end)),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as tracer:
        try:
            assert tracer.stdout is not None
            facts = json.loads(tracer.stdout.readline())
            number = next(p["id"] for p in facts["progs"] if p["name"] == "answer")
            dumped = subprocess.run(
                ["bpftool", "prog", "dump", "xlated", "id", str(number)],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
        finally:
            end.touch()
            tracer.wait(30)
    traced = Traced(trace, facts)
    (info,) = [
        plain(attr["info"])
        for attr in traced.attrs("OBJ_GET_INFO_BY_FD", name="answer")
        if plain(attr["info"])["map_ids"]
    ]
    ours = [(line["pc"], line["text"]) for line in info["xlated_prog_insns"]]
    theirs = [
        (int(found[1]), found[2])
        for line in dumped.splitlines()
        if (found := re.fullmatch(r" *(\d+): (\([0-9a-f]{2}\) .*)", line))
    ]
    # bpftool calls a subprogram by its symbol, which has the tag in it.
    assert [(pc, re.sub(r"#bpf_prog_\w{16}_", "#", text)) for pc, text in theirs] == ours
    sources = [line["src"] for line in info["xlated_prog_insns"] if "src" in line]
    assert sources == [line[2:] for line in dumped.splitlines() if line.startswith("; ")]
    assert [line["fn"].partition("(")[0] for line in info["xlated_prog_insns"] if "fn" in line] == [
        line.partition("(")[0] for line in dumped.splitlines() if re.match(r"\w.*:$", line)
    ]


def test_btf_info(run: Run) -> None:
    """BTF that the kernel gave back is what was loaded."""
    traced = run("loaders/info")
    (load,) = traced.attrs("BTF_LOAD")
    blobs = [
        plain(attr["info"])["btf"]
        for attr in traced.attrs("OBJ_GET_INFO_BY_FD", id=traced.facts["btfs"][0]["id"])
    ]
    given = plain(load["btf"])
    back = next(blob for blob in blobs if blob)
    data = bytes.fromhex(given["hex"]) if isinstance(given, dict) else given
    same = bytes.fromhex(back["hex"]) if isinstance(back, dict) else back
    assert same == data
    assert load["btf_size"] == len(data) == traced.facts["btfs"][0]["size"]


def test_stats(run: Run) -> None:
    traced = run("loaders/stats")
    (stats,) = traced.calls("ENABLE_STATS")
    assert stats["args"]["attr"]["enable_stats"]["type"] == "BPF_STATS_RUN_TIME"
    assert stats["ret"] == traced.facts["stats_fd"]
    infos = [plain(attr["info"]) for attr in traced.attrs("OBJ_GET_INFO_BY_FD", name="counted")]
    assert infos[-1]["run_cnt"] == traced.facts["run_cnt"]
    assert (infos[-1]["run_time_ns"] > 0) is traced.facts["timed"]


def test_stream(run: Run) -> None:
    traced = run("loaders/stream")
    reads = traced.attrs("PROG_STREAM_READ_BY_FD")
    if not reads:
        pytest.skip("no streams on this kernel")
    assert [read["stream_id"] for read in reads[:2]] == ["BPF_STREAM_STDOUT", "BPF_STREAM_STDERR"]
    for read, name in zip(reads, ("stdout", "stderr"), strict=False):
        text = plain(read["stream_buf"])
        said = traced.facts[name].encode()
        assert text == said if said else read["stream_buf"]["absent"] == "empty"


def test_bound_map(run: Run) -> None:
    traced = run("odd_calls")
    prog, array = traced.facts["programs"]["bound"]
    assert traced.attrs("PROG_BIND_MAP") == [{"prog_fd": prog, "map_fd": array, "flags": 0}]
    # Younger than most kernels; what was asked is shown in any case.
    assert traced.attrs("PROG_ASSOC_STRUCT_OPS") == [
        {"map_fd": array, "prog_fd": prog, "flags": "0x1"}
    ]


def test_signature_and_fd_array(run: Run) -> None:
    """The newest end of PROG_LOAD; the kernel does not take this signature."""
    traced = run("odd_calls")
    (load,) = traced.attrs("PROG_LOAD", prog_name="signed")
    _, array = traced.facts["programs"]["bound"]
    assert plain(load["fd_array"]) == [array, array]
    assert load["fd_array_cnt"] == 2
    assert plain(load["signature"]) == b"not a signature"
    assert (load["signature_size"], load["keyring_id"]) == (15, -3)


def test_signature_and_fd_array_are_not_there(run: Run) -> None:
    """An attr of 152 bytes ends before the signature: nothing is made up."""
    for attr in run("loaders/info").attrs("PROG_LOAD"):
        assert "signature" not in attr
        assert "fd_array_cnt" in attr


# ---------------------------------------------------------------- ids, pins, tokens


def test_ids(run: Run) -> None:
    traced = run("loaders/ids")
    for kind, fact in traced.facts["got"].items():
        opened = traced.calls(f"{kind}_GET_FD_BY_ID")[0]
        assert opened["args"]["attr"][f"{kind.lower()}_id"] == fact["id"]
        assert (opened["ret"], opened["fd"]["id"]) == (fact["fd"], fact["id"])
        asked = traced.calls(f"{kind}_GET_NEXT_ID")
        ids = [plain(line["args"]["attr"]["next_id"]) for line in asked[:-1]]
        assert (fact["id"] in ids) is traced.facts["seen"][kind]
        assert [line["args"]["attr"]["start_id"] for line in asked[1:]] == ids
        assert asked[-1]["errno"] == "ENOENT"


def test_pins(run: Run) -> None:
    traced = run("loaders/pin")
    place = traced.facts["bpffs"]
    pins = traced.attrs("OBJ_PIN")
    assert [plain(pin["pathname"]) for pin in pins[:3]] == [
        f"{place}/{name}" for name in ("prog", "map", "link")
    ]
    gets = traced.calls("OBJ_GET")
    for line, name in zip(gets, ("prog", "map", "link"), strict=False):
        fact = traced.facts["got"][name]
        assert (line["ret"], line["fd"]["id"]) == (fact["fd"], fact["id"])
    traced.refused("OBJ_GET with a path_fd")
    relative = gets[3]["args"]["attr"]
    assert plain(relative["pathname"]) == "map"
    assert relative["file_flags"] == ["BPF_F_RDONLY", "BPF_F_PATH_FD"]
    assert gets[3]["fds"][str(relative["path_fd"])]["kind"] == "file"


def test_token(run: Run) -> None:
    traced = run("loaders/bpf_token")
    child = traced.facts.get("child", {})
    made = [line for line in traced.calls("TOKEN_CREATE") if not line.get("errno")]
    if not made:
        pytest.skip("no tokens on this kernel")
    assert made[0]["ret"] == child["token"]
    bpffs = made[0]["args"]["attr"]["token_create"]["bpffs_fd"]
    assert made[0]["fds"][str(bpffs)]["kind"] == "file"
    (info,) = [
        plain(attr["info"])
        for attr in traced.attrs("OBJ_GET_INFO_BY_FD")
        if "allowed_progs" in (plain(attr["info"]) or {})
    ]
    assert info["allowed_progs"] == child["allowed_progs"]
    (used,) = traced.attrs("MAP_CREATE", map_name="with_token", map_token_fd=child["token"])
    assert "BPF_F_TOKEN_FD" in used["map_flags"]


def test_common_attrs(run: Run) -> None:
    """The two more arguments, also where the kernel does not know them yet."""
    good, bad = run("loaders/common_attrs").calls("BPF_MAP_CREATE|BPF_COMMON_ATTRS")
    for line, key_size in ((good, 4), (bad, 8)):
        assert line["args"]["attr"]["key_size"] == key_size
        common = plain(line["args"]["attr_common"])
        assert (common["log_size"], common["log_level"]) == (4096, 1)
        assert line["args"]["size_common"] == 24
        assert isinstance(common["log_buf"], str)


# ---------------------------------------------------------------- links


def link(traced: Traced, **wanted: Any) -> dict[str, Any]:
    """The first LINK_CREATE with these fields."""
    return traced.attrs("LINK_CREATE", **wanted)[0]


def test_iterators(run: Run) -> None:
    """The member of union bpf_iter_link_info that the program's target wants."""
    traced = run("loaders/iter")
    if not traced.facts.get("links"):
        pytest.skip("no iterators on this kernel")
    task, element = traced.attrs("LINK_CREATE")
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
    assert [line["args"] for line in Traced(again, traced.facts).syscalls] == [
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
    multi = plain(found[0]["kprobe_multi"])
    assert multi["cnt"] == len(multi["syms"] or multi["addrs"])
    assert all(isinstance(name, str) for name in multi["syms"] or [])


def test_perf_link(run: Run) -> None:
    traced = run("loaders/perf_link")
    traced.refused("PMU uprobe")
    made = link(traced)
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
        assert named[0]["tracing"]["cookie"] == "0xb1ffee"


def test_struct_ops(run: Run) -> None:
    """A link of a map: the fd goes by the name that the kernel has for it."""
    traced = run("loaders/struct_ops")
    if not traced.facts.get("links"):
        pytest.skip("no struct_ops link on this kernel")
    made = link(traced)
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


# ---------------------------------------------------------------- perf


def events(traced: Traced) -> list[dict[str, Any]]:
    """perf_event_open calls, in order."""
    return traced.calls("perf_event_open")


SIZES = [
    *(f"size {size}" for size in (64, 72, 80, 96, 104, 112, 120, 128, 136, 144, 0, 63, 5, 76)),
    "size 200, zeros",
    "size 200, a byte",
    "size 5000",
]
LAST = {
    64: "config1", 72: "config2", 80: "branch_sample_type", 96: "clockid", 104: "sample_regs_intr",
    112: "sample_max_stack", 120: "__reserved_3", 128: "sig_data", 136: "config3", 144: "config4",
}  # fmt: skip


@pytest.mark.parametrize("step", SIZES)
def test_attr_sizes(run: Run, step: str) -> None:
    """Fields end where the size says, and the size is shown as the kernel left it."""
    traced = run("odd_calls")
    line = events(traced)[SIZES.index(step)]
    said = traced.facts["attrs"]
    assert (line["ret"] if line["ret"] >= 0 else -line["errnum"]) == said[step]
    attr = line["args"]["attr"]
    size = int(re.findall(r"\d+", step)[0])
    versions = {f"PERF_ATTR_SIZE_VER{version}": size for version, size in enumerate(LAST)}
    after = plain(attr["size"])
    assert versions.get(after, after) == said[f"{step}: size after"]
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
