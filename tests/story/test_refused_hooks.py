"""Why a question, an attachment or a detachment was refused: each case for real."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.needs import needs_tool
from tests.support.refusals import cases, group, why
from tests.support.running import TRACEES, Ran, run_cli

pytestmark = pytest.mark.usefixtures("needs_bpf")
WORKLOAD = str(TRACEES / "refused_hooks.py")

QUERIES = {
    "a file of a task": "fd N of task N is neither a perf event nor a raw tracepoint",
    "an fd that is not open": "fd N of task N is not open",
    "a task that is not there": "there is no task N",
    "an event without a program": "fd N of task N is a perf event that has no program",
    "flags of a question": "flags is 0x1, and there are none",
    "no object": "bpf_fd N is /dev/null, no object of BPF's",
    "no fd": "bpf_fd -N is not open",
    "no cgroup": "target_fd N is /dev/null, not a cgroup",
    "a map for a cgroup": "target_fd N is a map, not a cgroup",
    "no namespace": "target_fd N is /dev/null, not a network namespace",
    "no map": "target_fd N is /dev/null, not a map",
    "no sockmap": "map array id=N is no sockmap or sockhash, which alone have BPF_SK_SKB_VERDICT",
    "a token of a file": "bpffs_fd N is /dev/null, not a bpf file system",
    "a token of a folder": "bpffs_fd N is /sys/fs/bpf/refused_N, not the root of its bpf file "
    "system",
}


def numbered(text: str) -> str:
    """A reason with its numbers as N; those within names stay, but for process ids."""
    return re.sub(r"(?<![\w.])\d+(?![\w.])|(?<=_)\d+\b", "N", text)


def told(ran: Ran) -> dict[str, str]:
    """The reason of each case that was refused."""
    return {entry[0]: numbered(why(line)) for entry, line in cases(ran)}


def the_same_again(ran: Ran, tmp_path: Path) -> None:
    """What a replay prints."""
    assert run_cli("replay", str(tmp_path / "trace.jsonl")).stdout == ran.text


def test_questions(traced: Callable[..., Ran], tmp_path: Path) -> None:
    ran = group(traced, "queries", WORKLOAD)
    said = told(ran)
    assert {name: text for name, text in said.items() if not name.startswith("of ")} == QUERIES
    the_same_again(ran, tmp_path)
    # The fd is an int, whatever the struct says.
    (line,) = [line for entry, line in cases(ran) if entry[0] == "no fd"]
    assert line["args"]["attr"]["info"]["bpf_fd"] == -2
    assert "bpf_fd=-2," in ran.text


def test_hooks_that_have_no_answer(traced: Callable[..., Ran]) -> None:
    """Fd -1: the kernel says EBADF or ENODEV for a hook that it answers for, EINVAL else."""
    ran = group(traced, "queries", WORKLOAD)
    outcomes = {entry[0][3:]: (entry[1], why(line)) for entry, line in cases(ran)
                if entry[0].startswith("of ")}  # fmt: skip
    assert len(outcomes) > 50
    for hook, (number, said) in outcomes.items():
        none = said == f"BPF_PROG_QUERY has no answer for BPF_{hook}"
        built = said.startswith("this kernel is built without CONFIG_")
        # Only what is looked up after the hook can be wrong with it.
        assert (none or built) == (number == 22), (hook, number, said)


def test_a_token_that_libbpf_asks_for(traced: Callable[..., Ran]) -> None:
    ran = group(traced, "tokens", WORKLOAD)
    probe, line = ran.calls("BPF_TOKEN_CREATE")
    assert probe["errno"] == line["errno"] == "EOPNOTSUPP"
    assert probe["probe"] == "BPF tokens in this user namespace"
    assert why(line) == (
        "tokens are for callers in a user namespace of their own; in the first one capabilities "
        "decide"
    )
    assert "1 feature probe, 1 unsupported: BPF tokens in this user namespace" in ran.text
    assert ran.text.split("\ncalls\n")[0].count("BPF_TOKEN_CREATE") == 1


def test_a_token_is_named_where_one_counts(traced: Callable[..., Ran]) -> None:
    needs_tool("unshare")
    ran = traced([], "unshare", "--user", "--map-root-user", sys.executable, WORKLOAD, "admin")
    if ran.code:
        pytest.skip("no user namespaces here")
    outcomes: dict[str, Any] = {entry[0]: why(line) for entry, line in cases(ran)}
    assert set(outcomes) == {entry[0] for entry in json.loads(ran.stdout)}
    with_token = {name for name, said in outcomes.items() if "(or a BPF token)" in said}
    members = Path("/sys/kernel/btf/vmlinux").read_bytes()
    expected = {"PROG_LOAD"} if b"\0prog_token_fd\0" in members else set()
    expected |= {"BTF_GET_FD_BY_ID"} if b"\0fd_by_id_token_fd\0" in members else set()
    assert with_token == expected
    assert all("in the first user namespace" in said for said in outcomes.values())
