"""Identity: an fd is named for what it is, however it came to be; lies are noticed.

tests/tracees/identity.py is the tracee and says what is true.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.record.machine.fds import FdLookup
from bpftrace_sys.record.machine.newest_ids import highest
from decoders.raw import ENTRY
from tests.support import bpf_asm as asm
from tests.support.bpftool_view import bpftool, seen
from tests.support.needs import needs_tool
from tests.support.running import TRACEES, Ran, run_cli
from tests.tracees.loaders import _common as loaders

pytestmark = pytest.mark.usefixtures("needs_bpf")
WORKLOAD = str(TRACEES / "identity.py")


def run(folder: Path, *words: str, options: tuple[str, ...] = (), **how: Any) -> tuple[Ran, Any]:
    """A case under bpfstrace: the trace, and what the tracee says."""
    text, trace = folder / "trace.txt", folder / "trace.jsonl"
    done = run_cli(
        "-f", "-o", str(text), "--json", str(trace), *options, sys.executable, WORKLOAD, *words,
        **how,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    ran = Ran(done.returncode, done.stdout, done.stderr, text.read_text(), lines)
    return ran, json.loads(done.stdout)


def enabled(ran: Ran) -> list[list[Any]]:
    """[function, fd] of each ENABLE, as the trace names it."""
    found = []
    for line in ran.calls("PERF_EVENT_IOC_ENABLE"):
        fd = line["args"]["fd"]
        found.append([line["fds"][str(fd)].get("name", "?").rpartition(":")[2], fd])
    return found


@pytest.mark.parametrize("case", ["numbers", "forked", "passed", "taken"])
def test_perf_events_are_known_by_any_number(case: str, tmp_path: Path) -> None:
    ran, said = run(tmp_path, case)
    ours = enabled(ran)
    if case in ("forked", "passed"):  # two processes: their order is not the tracee's telling
        assert sorted(ours) == sorted(said["used"])
    else:
        assert ours == said["used"]


@pytest.mark.parametrize("case", ["numbers", "passed"])
def test_without_ids_a_number_in_use_anew_gets_no_wrong_name(case: str, tmp_path: Path) -> None:
    """A trace whose kernel could not tell ids of some events: unknown, but never another."""
    ran, said = run(tmp_path, case)
    spoiled = tmp_path / "spoiled.jsonl"
    with spoiled.open("w") as file:
        for line in ran.lines:
            if line["type"] == "syscall" and line["args"].get("request"):
                for fact in line["raw"].get("fds", ()):
                    _without_id(fact)
            file.write(json.dumps(line) + "\n")
    again = tmp_path / "again.jsonl"
    done = run_cli("replay", "--json", str(again), "-o", os.devnull, str(spoiled))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in again.read_text().splitlines()]
    for name, _ in enabled(Ran(0, "", "", "", lines)):
        assert name == "?"
    assert said["used"]


def _without_id(fact: Any) -> None:
    info = fact["info"] if isinstance(fact, dict) else fact[-1]
    info.pop("perf_event_id", None)


def test_many_numbers_of_one_map(tmp_path: Path) -> None:
    """dup, dup2 over a closed number, fork, exec; SCM_RIGHTS; pidfd_getfd."""
    needs_tool("bpftool")
    trace = seen("dup_fork_exec", tmp_path)
    number = trace.facts["maps"][0]["id"]
    fds = {
        int(fd)
        for line in trace.ran.calls()
        for fd, each in line.get("fds", {}).items()
        if each.get("id") == number
    }
    facts = trace.facts
    used = {facts[how]["fd"] for how in ("dup", "reused", "forked", "executed")}
    assert used <= fds
    assert {each["name"] for each in trace.objects()[("map", number)]} == {"one_of_many"}
    pids = {
        line["pid"]
        for line in trace.ran.calls()
        if any(each.get("id") == number for each in line.get("fds", {}).values())
    }
    assert {facts["forked"]["pid"], facts["executed"]["pid"]} <= pids


@pytest.mark.parametrize(("name", "key"), [("scm_rights", "received"), ("pidfd_getfd", "taken")])
def test_an_fd_from_another_process(name: str, key: str, tmp_path: Path) -> None:
    needs_tool("bpftool")
    trace = seen(name, tmp_path)
    there = trace.facts[key]
    used = [
        line["fds"][str(there["fd"])]
        for line in trace.ran.calls("BPF_MAP_UPDATE_ELEM")
        if str(there["fd"]) in line.get("fds", {})
    ]
    assert used
    assert all((each["id"], each["name"]) == (there["id"], there["name"]) for each in used)


# ---------------------------------------------------------------- from before


@pytest.fixture
def elder(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Objects that are older than the trace, and a bpffs with a pin."""
    kit = loaders.Kit()
    with kit.at_end:
        place = tmp_path / "bpffs"
        place.mkdir()
        try:
            loaders.mount(kit, "bpf", place)
            table = kit.map("ARRAY", 4, 8, 1, "elder_map")
            prog = kit.prog("KPROBE", loaders.counting(table), "elder_prog")
            event = loaders.perf_event(
                loaders.pmu("uprobe"), text=b"/bin/true", config2=_code_offset("/bin/true")
            )
        except loaders.Refused as why:
            pytest.skip(str(why))
        import fcntl

        fcntl.ioctl(event, loaders.PERF_EVENT_IOC_SET_BPF, prog)
        path, offset = loaders.libc_function("getegid")
        bare = loaders.perf_event(loaders.pmu("uprobe"), text=path.encode(), config2=offset)
        loaders.call("OBJ_PIN", pathname=os.fsencode(place / "pin") + b"\0", bpf_fd=table, size=16)
        kit.at_end.callback((place / "pin").unlink)
        fds = {"event": event, "bare": bare, "map": table, "prog": prog}
        for fd in fds.values():
            os.set_inheritable(fd, True)
        yield {**fds, "pin": str(place / "pin"), "progs": kit.facts["progs"],
               "maps": kit.facts["maps"]}  # fmt: skip
        for fd in fds.values():
            os.close(fd)


def _code_offset(path: str) -> int:
    """The offset of an executable segment's first bytes."""
    from elftools.elf.elffile import ELFFile

    with open(path, "rb") as file:
        for segment in ELFFile(file).iter_segments("PT_LOAD"):
            if segment["p_flags"] & 1:
                return int(segment["p_offset"]) + 16
    raise AssertionError(path)


def test_what_is_from_before_is_named_and_marked(elder: dict[str, Any], tmp_path: Path) -> None:
    fds = [elder[key] for key in ("event", "bare", "map", "prog")]
    ran, said = run(tmp_path, "inherited", *map(str, fds), elder["pin"], pass_fds=fds)
    got = {each: f"id={elder[f'{each}s'][0]['id']}" for each in ("map", "prog")}
    assert f"<map elder_map {got['map']} (from before)>" in ran.text
    assert f"<prog elder_prog {got['prog']} (from before)>" in ran.text
    # The program of an event tells what it probes; a bare event nobody can tell from others.
    assert f"{elder['bare']}<perf event ? (from before)>" in ran.text
    assert f"{elder['event']}<uprobe /bin/true:" in ran.text
    for line in ran.calls("BPF_OBJ_GET"):
        assert line["fd"]["origin"] == "before"
        assert (line["fd"]["name"], line["fd"]["id"]) == ("elder_map", said["pinned"]["id"])
    for line in ran.calls("BPF_MAP_CREATE"):
        assert "origin" not in line["fd"]
    assert "young id=" in ran.text
    assert not [line for line in ran.text.splitlines() if "young" in line and "before" in line]


def test_the_ledger_says_what_is_from_before(elder: dict[str, Any], tmp_path: Path) -> None:
    fds = [elder[key] for key in ("event", "bare", "map", "prog")]
    ran, _ = run(tmp_path, "inherited", *map(str, fds), elder["pin"], pass_fds=fds)
    (row,) = [line for line in ran.text.splitlines() if line.startswith("  elder_prog")]
    assert row.endswith("(from before the trace)")


def test_watermarks_are_the_highest_ids() -> None:
    needs_tool("bpftool")
    made = [asm.map_create("array", 4, 8, 4) for _ in range(3)]
    found = highest()
    shown = {entry["id"] for entry in bpftool("map", "show")}
    assert found["map"] == max(shown)
    later = asm.map_create("array", 4, 8, 4)
    assert highest()["map"] > found["map"]
    for each in (*made, later):
        os.close(each.fd)


def test_a_perf_events_id_leaves_no_fd_behind() -> None:
    event = loaders.perf_event(1, 9)  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY
    lookup = FdLookup()
    before = len(os.listdir("/proc/self/fd"))
    first = lookup.fact(os.getpid(), event, ENTRY)
    assert first is not None
    assert first.id
    again = lookup.fact(os.getpid(), event, ENTRY)
    assert again == first
    lookup.close()
    assert len(os.listdir("/proc/self/fd")) <= before
    os.close(event)


# ---------------------------------------------------------------- lies


@pytest.mark.parametrize(
    ("case", "kind", "field", "command"),
    [
        ("lying_map", "map", "value_size", "BPF_MAP_CREATE"),
        ("lying_name", "map", "name", "BPF_MAP_CREATE"),
        ("lying_prog", "prog", "tag", "BPF_PROG_LOAD"),
    ],
)
def test_memory_that_changes_is_noticed(
    case: str, kind: str, field: str, command: str, tmp_path: Path
) -> None:
    """What the trace says of an object is what the kernel made; where it was not what had been
    read, the call says so."""
    for _ in range(5):  # the memory changes when it is that process's turn
        if _lies(case, kind, field, command, tmp_path):
            return
    pytest.skip("the memory never changed between two looks at it")


def _lies(case: str, kind: str, field: str, command: str, folder: Path) -> int:
    """How many calls were noticed to be lies; all are checked."""
    ran, said = run(folder, case)
    truth = dict(said["made"])
    lied = honest = 0
    for line in ran.calls(command):
        made = line.get("fd", {})
        if made.get("id") not in truth or made["kind"] != kind:
            continue
        true = truth[made["id"]]
        assert made.get(field, "") == true
        if field == "tag":
            read = true if true in line["tag"].values() else None
        else:
            attr = line["args"]["attr"]
            read = attr["map_name"] if field == "name" else attr[field]
        if read == true:
            honest += 1
            assert "mismatch" not in line
        else:
            lied += 1
            assert line["mismatch"]
    assert lied + honest == len(truth)
    assert ran.text.count("not as it was read: ") >= lied
    return lied
