"""Real calls about programs, ids, pins and tokens, against what their callers know of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.decoded import Run, Traced, plain
from tests.support.needs import needs_tool
from tests.support.running import LOADERS, ROOT

pytestmark = pytest.mark.usefixtures("needs_bpf")


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
            tracer.wait(60)
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


BY_ID = {
    "PROG": ("PROG_GET_FD_BY_ID", "PROG_GET_NEXT_ID"),
    "MAP": ("MAP_GET_FD_BY_ID", "MAP_GET_NEXT_ID"),
    "BTF": ("BTF_GET_FD_BY_ID", "BTF_GET_NEXT_ID"),
    "LINK": ("LINK_GET_FD_BY_ID", "LINK_GET_NEXT_ID"),
}


def test_ids(run: Run) -> None:
    traced = run("loaders/ids")
    assert set(traced.facts["got"]) == set(BY_ID)
    for kind, fact in traced.facts["got"].items():
        opening, asking = BY_ID[kind]
        opened = traced.calls(opening)[0]
        assert opened["args"]["attr"][f"{kind.lower()}_id"] == fact["id"]
        assert (opened["ret"], opened["fd"]["id"]) == (fact["fd"], fact["id"])
        asked = traced.calls(asking)
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
