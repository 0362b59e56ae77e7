"""Filters: by command in the seccomp filter itself, by result, program and path."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.cli.live import stop_filter
from bpftrace_sys.cli.options import parse
from decoders.raw import AUDIT_ARCH_X86_64
from decoders.uapi import names
from tests.support.running import LOADERS, TRACEES, Ran, environment, run_cli

WORKLOAD = str(TRACEES / "identity.py")
needs = pytest.mark.usefixtures("needs_bpf")
COMMANDS = {name.removeprefix("BPF_").lower(): number for number, name in names.bpf_cmd.items()}


def run(folder: Path, options: list[str], *words: str) -> Ran:
    """A tracee's trace under options."""
    text, trace = folder / "trace.txt", folder / "trace.jsonl"
    done = run_cli(
        "-f", "-o", str(text), "--json", str(trace), *options, sys.executable, *words
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    return Ran(done.returncode, done.stdout, done.stderr, text.read_text(), lines)


def commands(ran: Ran) -> set[str]:
    return {
        str(line["args"]["cmd"]).removeprefix("BPF_").lower()
        for line in ran.calls()
        if line["syscall"] == "bpf"
    }


ALL = {"map_create", "prog_load", "obj_get_info_by_fd", "map_lookup_elem", "map_freeze"}
BY_COMMAND: dict[str, set[str]] = {
    "prog_load": {"prog_load"},
    "prog_load,map_create": {"prog_load", "map_create"},
    "map_*": {"map_create", "map_lookup_elem", "map_freeze"},
    "map_*,!map_freeze": {"map_create", "map_lookup_elem"},
    "!map_*": {"prog_load", "obj_get_info_by_fd"},
    "!prog_load": ALL - {"prog_load"},
    "BPF_PROG_LOAD": {"prog_load"},
    "*": ALL,
    "link_create": set(),
}
"""-e bpf=..., and what of the workload's commands it leaves."""


@needs
@pytest.mark.parametrize("patterns", BY_COMMAND)
def test_commands(patterns: str, tmp_path: Path) -> None:
    ran = run(tmp_path, ["-e", f"bpf={patterns}"], WORKLOAD, "two")
    assert commands(ran) == BY_COMMAND[patterns]
    # The other calls are filtered by -e trace=, not by this.
    assert len(ran.calls("setsockopt")) == 2


@pytest.mark.parametrize("patterns", BY_COMMAND)
def test_unwanted_commands_do_not_stop(patterns: str) -> None:
    """The filter's own answer: which commands of bpf(2) it stops."""
    stops = stop_filter(parse(["-e", f"bpf={patterns}", "true"], "live"))
    stopped = {
        name
        for name, number in COMMANDS.items()
        if stops.wants(AUDIT_ARCH_X86_64, 321, (number, 0, 0, 0, 0, 0))
    }
    assert stopped & ALL == BY_COMMAND[patterns]
    # With BPF_COMMON_ATTRS it is the same command.
    common = {
        name
        for name, number in COMMANDS.items()
        if stops.wants(AUDIT_ARCH_X86_64, 321, (number | 1 << 16, 0, 0, 0, 0, 0))
    }
    assert common == stopped


@needs
def test_unwanted_commands_cost_nothing(tmp_path: Path) -> None:
    """Lookups in a loop: as fast as without a tracer, where they are not wanted."""

    def microseconds(*words: str) -> float:
        done = subprocess.run(
            [*words, sys.executable, WORKLOAD, "many"],
            capture_output=True, text=True, check=True, env=environment(),
        )  # fmt: skip
        return float(json.loads(done.stdout)["us"])

    tracer = [sys.executable, "-m", "bpftrace_sys", "-f", "-o", str(tmp_path / "out")]
    alone = microseconds()
    unwanted = microseconds(*tracer, "-e", "bpf=prog_load")
    wanted = microseconds(*tracer, "-e", "bpf=prog_load,map_lookup_elem")
    text = (tmp_path / "out").read_text()
    assert "MAP_LOOKUP_ELEM" in text
    assert unwanted < alone + (wanted - alone) / 3, (alone, unwanted, wanted)


@needs
@pytest.mark.parametrize(("option", "failed"), [("-z", {False}), ("-Z", {True})])
def test_by_result(option: str, failed: set[bool], tmp_path: Path) -> None:
    ran = run(tmp_path, [option], WORKLOAD, "two")
    assert {line["ret"] == -1 for line in ran.calls()} == failed
    if option == "-Z":
        assert {line["args"].get("cmd") for line in ran.calls("bpf")} == {"BPF_MAP_LOOKUP_ELEM"}
        assert ran.attachments() == []
    else:
        assert "MAP_LOOKUP_ELEM, " not in ran.text
        assert len(ran.attachments()) == 2


def named(line: dict[str, Any]) -> set[str]:
    found = [*line.get("fds", {}).values(), line.get("fd") or {}]
    return {each["name"] for each in found if each.get("kind") == "prog" and each.get("name")}


@needs
@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("prog_one", {"prog_one"}),
        ("prog_*", {"prog_one", "prog_two"}),
        ("*_two", {"prog_two"}),
        ("nobody", set()),
    ],
)
def test_by_program(pattern: str, left: set[str], tmp_path: Path) -> None:
    ran = run(tmp_path, ["-e", f"prog={pattern}"], WORKLOAD, "two")
    assert {name for line in ran.calls() for name in named(line)} == left
    assert all(named(line) & left for line in ran.calls())
    assert {line["prog"]["name"] for line in ran.attachments()} == left
    for name in left:
        whose = [line for line in ran.calls() if name in named(line)]
        # Loaded, looked at, attached: all that was done with it.
        assert [line["args"].get("cmd", line["syscall"]) for line in whose] == [
            "BPF_PROG_LOAD", "BPF_OBJ_GET_INFO_BY_FD", "setsockopt",
        ]  # fmt: skip


@needs
def test_a_programs_perf_event_is_its_own(tmp_path: Path) -> None:
    ran = run(tmp_path, ["-e", "prog=on_getppid"], str(LOADERS / "uprobe_perf.py"))
    assert [line["args"]["request"] for line in ran.calls("ioctl")] == [
        "PERF_EVENT_IOC_SET_BPF", "PERF_EVENT_IOC_ENABLE",
        "PERF_EVENT_IOC_SET_BPF", "PERF_EVENT_IOC_ENABLE", "PERF_EVENT_IOC_DISABLE",
    ]  # fmt: skip


@needs
def test_by_path(tmp_path: Path) -> None:
    whole = run(tmp_path, [], str(LOADERS / "pin.py"))
    (pin,) = {
        str(line["args"]["attr"]["pathname"]["value"])
        for line in whole.calls("BPF_OBJ_PIN")
        if str(line["args"]["attr"]["pathname"]["value"]).endswith("/map") and line["ret"] == 0
    }
    done = run_cli(
        "replay", "-P", pin, "--json", str(tmp_path / "left"), "-o", str(tmp_path / "text"),
        str(tmp_path / "trace.jsonl"),
    )  # fmt: skip
    assert done.returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "left").read_text().splitlines()]
    left = Ran(0, "", "", (tmp_path / "text").read_text(), lines)
    assert {line["args"]["cmd"] for line in left.calls()} == {"BPF_OBJ_PIN", "BPF_OBJ_GET"}
    assert all(line["args"]["attr"]["pathname"]["value"] == pin for line in left.calls())
    assert left.calls("BPF_OBJ_GET")[0]["fd"]["name"] == "kept_map"


@needs
def test_by_the_path_of_an_fd(tmp_path: Path) -> None:
    """A program's file and a tun device: paths that calls have to do with by their fds."""
    ran = run(tmp_path, ["-P", "/dev/net/tun"], str(LOADERS / "tun.py"))
    requests = {line["args"].get("request") for line in ran.calls()}
    if not requests:
        pytest.skip("there is no /dev/net/tun")
    assert requests == {"TUNSETSTEERINGEBPF", "TUNSETFILTEREBPF"}
    assert len(ran.attachments()) == 3


@needs
def test_names_stay_right_where_their_making_is_not_shown(tmp_path: Path) -> None:
    """A filter hides calls, not knowledge; and what it keeps from us is not 'from before'."""
    ran = run(tmp_path, ["-e", "bpf=map_freeze"], WORKLOAD, "two")
    (freeze,) = ran.calls("BPF_MAP_FREEZE")
    (used,) = freeze["fds"].values()
    assert used["name"] == "map_two"
    assert used["origin"] == "found"
    assert "from before" not in ran.text


def test_what_the_filter_hides_is_not_from_before(tmp_path: Path) -> None:
    """The map's making is not seen; it is no older than the trace for that."""
    out = tmp_path / "out.txt"
    words = ["-f", "-q", "-o", str(out), "-e", "bpf=map_freeze", sys.executable, WORKLOAD, "two"]
    assert run_cli(*words).returncode == 0
    (line,) = [line for line in out.read_text().splitlines() if "BPF_MAP_FREEZE" in line]
    assert "<map map_two id=" in line
    assert "from before" not in line
