"""Programs that were attached by ways that are not traced: looked for when the trace ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bpftool_view import bpftool
from tests.support.needs import needs_tool
from tests.support.running import run_cli

pytestmark = pytest.mark.usefixtures("needs_bpf")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[int]:
    """A process in a network namespace of its own, where a program outlives who attaches it."""
    needs_tool("ip", "tc", "clang", "unshare", "nsenter", "bpftool")
    (tmp_path / "both.c").write_text(
        '__attribute__((section("tc"),used)) int letgo(void *c){return 0;}\n'
        '__attribute__((section("xdp"),used)) int pass(void *c){return 2;}\n'
        'char l[] __attribute__((section("license"),used)) = "GPL";\n'
    )
    subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", "-c", "both.c", "-o", "both.o"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    with subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo ready; exec cat"], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.communicate()


ATTACH = """ip link set lo up
tc qdisc add dev lo clsact
tc filter add dev lo ingress bpf da obj both.o sec tc
ip link set dev lo xdpgeneric obj both.o sec xdp"""


def traced(folder: Path, pid: int, script: str, *options: str) -> tuple[str, list[dict[str, str]]]:
    text, trace = folder / "text", folder / "trace.jsonl"
    done = run_cli(
        "-f", "-o", str(text), "--json", str(trace), *options,
        "nsenter", "--net", "--target", str(pid), "unshare", "--mount", "sh", "-ec",
        f"mount -t bpf bpf /sys/fs/bpf\n{script}", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    again = run_cli("replay", str(trace))
    assert again.stdout == text.read_text()
    return text.read_text(), [json.loads(line) for line in trace.read_text().splitlines()]


def test_what_stands_at_the_end_is_told(tmp_path: Path, elsewhere: int) -> None:
    text, lines = traced(tmp_path, elsewhere, ATTACH)
    (theirs,) = bpftool("net", "show", pid=elsewhere)
    ids = {each["id"] for each in theirs["tc"] + theirs["xdp"]}
    assert {line["key"] for line in lines if line.get("kind") == "standing"} == ids
    ends = [line.split(" -> ")[1] for line in text.splitlines() if "seen at the end" in line
            and " -> " in line]
    told = [line.split(" in net:")[0] for line in ends]
    assert told == ["tc ingress on lo", "xdp on lo (skb)"]
    assert "not attached" not in text
    left = text[text.index("left behind") :]
    assert "attached to tc ingress on lo in net:[" in left
    assert "attached to xdp on lo (skb) in net:[" in left


def test_what_is_gone_by_then_was_not_seen(tmp_path: Path, elsewhere: int) -> None:
    """It was attached for a while; nobody looked, and nothing is denied."""
    script = f"{ATTACH}\nip link set dev lo xdpgeneric off\ntc qdisc del dev lo clsact"
    text, _ = traced(tmp_path, elsewhere, script)
    assert "not seen attached  pass (xdp, " in text
    assert "not seen attached (netlink is not traced)" in text
    assert "\nnot attached" not in text


def test_traced_netlink_is_told_as_it_was_seen(tmp_path: Path, elsewhere: int) -> None:
    text, _ = traced(tmp_path, elsewhere, ATTACH, "-e", "trace=bpf,netlink")
    assert "seen at the end" not in text
    assert "xdp on lo (skb) via netlink" in text


@pytest.mark.parametrize(
    "name", ["{", "[[1,2]]", '[["xdp",{"ifindex":"x"}]]', "[[[]]]", "[1]", '"x"']
)
def test_a_damaged_fact_says_nothing(name: str, tmp_path: Path) -> None:
    from bpftrace_sys.trace.inventory import places_of

    assert places_of(name) == []
