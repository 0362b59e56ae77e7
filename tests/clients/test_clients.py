"""Clients that people use: what is printed of their attachments agrees with bpftool.

libbpf-tools, bpftool itself, bpftrace and BCC run under bpfstrace; when they
have attached, bpftool shows links, perf events and programs, and each of those
that are the client's must have been told, with the same program and target.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bpftool_view import (
    Facts,
    View,
    same_link,
    same_map,
    same_prog,
    tables_of,
    under_bpfstrace,
    view,
)
from tests.support.needs import needs_tool
from tests.support.running import FIXTURES, Ran, run_cli
from tests.tracees.loaders import _common as loaders

pytestmark = pytest.mark.usefixtures("needs_bpf")

PATIENCE = 60.0


def descendants(pid: int) -> set[int]:
    """A process and all below it."""
    found = {pid}
    for entry in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parts[2])):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) in found:
            found.add(int(entry.parts[2]))
    return found


class Client:
    """A client under bpfstrace, and bpftool's view of when all was attached."""

    def __init__(self, ran: Ran, shown: View, pids: set[int]) -> None:
        self.ran = ran
        self.view = shown
        self.perf = [entry for entry in shown.perf if entry["pid"] in pids]
        self.progs = {
            line["fd"]["id"]
            for line in ran.calls("BPF_PROG_LOAD")
            if line["ret"] != -1 and "probe" not in line
        }
        self.links = {
            number: link
            for number, link in shown.links.items()
            if link.get("prog_id") in self.progs
        }


def run_client(folder: Path, words: list[str], ready: Callable[[View, set[int]], bool]) -> Client:
    """Runs a client until bpftool sees what ``ready`` waits for, and ends it with SIGINT."""
    with under_bpfstrace(folder, [], words) as (process, ran):
        until = time.monotonic() + PATIENCE
        while True:
            pids = descendants(process.pid)
            shown = view()
            if ready(shown, pids):
                break
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until, "nothing was attached"
            time.sleep(0.1)
        time.sleep(0.3)  # the last of several
        pids |= descendants(process.pid)
        shown = view()
        tracees = descendants(process.pid) - {process.pid}
        os.kill(min(tracees), signal.SIGINT)
    return Client(ran, shown, pids)


def agrees(client: Client) -> None:
    """Everything that bpftool sees of the client was said, and said right."""
    objects = {"prog": same_prog, "map": same_map, "link": same_link}
    for line in client.ran.lines:
        said = [*line.get("fds", {}).values(), *(line.get(key) or {} for key in ("fd", "prog"))]
        for ours in said:
            if not isinstance(ours, dict) or ours.get("kind") not in objects:
                continue
            theirs = client.view.of(ours["kind"]).get(ours.get("id", 0))
            if theirs is not None:
                objects[ours["kind"]](ours, theirs)
    told = [line for line in client.ran.attachments() if line["verb"] == "attached"]
    by_link = {line["link"]["id"]: line for line in told if "link" in line}
    for number, link in client.links.items():
        assert by_link[number]["prog"]["id"] == link["prog_id"]
        link_agrees(by_link[number], link)
    for event in client.perf:
        assert any(
            line["prog"]["id"] == event["prog_id"] and perf_agrees(line["target"], event)
            for line in told
        ), event
    table = {row["id"]: row for row in tables_of(client.ran.text)["programs"]}
    for line in told:
        assert line["target"] in table[str(line["prog"]["id"])]["attached to"]


def link_agrees(line: Facts, link: Facts) -> None:
    """A link's target, as far as bpftool 7.1 tells it."""
    if "tp_name" in link:
        assert line["target"].split()[-1] == link["tp_name"]
    if link.get("attach_type") in ("trace_fentry", "trace_fexit", "trace_raw_tp"):
        kind = {"trace_raw_tp": "tp_btf"}.get(link["attach_type"])
        assert line["target"].startswith(kind or link["attach_type"].removeprefix("trace_"))


def perf_agrees(target: str, event: Facts) -> bool:
    """A perf event's target."""
    kind = event["fd_type"]
    if kind == "tracepoint":
        return target.endswith(f":{event['tracepoint']}")
    if kind in ("uprobe", "uretprobe"):
        return target.startswith(f"{kind} {event['filename']}:")
    if kind in ("kprobe", "kretprobe"):
        return target == f"{kind} {event['func']}"
    return kind == "raw_tracepoint" and target.split()[-1] == event["tracepoint"]


def has_links(shown: View, pids: set[int]) -> bool:
    return any(entry["pid"] in pids for entry in shown.perf)


@pytest.mark.parametrize("tool", ["opensnoop", "execsnoop", "biolatency", "runqlat"])
def test_libbpf_tools(tool: str, tmp_path: Path, tracefs: Path) -> None:
    needs_tool("bpftool", tool)
    if subprocess.run(["timeout", "-s", "INT", "1", tool], capture_output=True).returncode == 1:
        pytest.skip(f"{tool} does not work on this kernel")
    client = run_client(tmp_path, [tool], has_links)
    assert client.progs
    assert client.links or client.perf
    agrees(client)
    assert client.ran.attachments()


def test_bpftrace_uprobes_and_a_perf_event_array(tmp_path: Path) -> None:
    needs_tool("bpftool", "bpftrace")
    libc = next(
        line.split()[-1]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if "libc.so" in line
    )
    script = (
        f'uprobe:{libc}:getppid {{ printf("%d\\n", pid); }} '
        f"uretprobe:{libc}:getppid {{ @ = count(); }}"
    )
    client = run_client(
        tmp_path, ["bpftrace", "-e", script],
        lambda shown, pids: sum(entry["pid"] in pids for entry in shown.perf) >= 2,
    )  # fmt: skip
    agrees(client)
    targets = {line["target"] for line in client.ran.attachments()}
    assert {f"uprobe {libc}:getppid", f"uretprobe {libc}:getppid"} <= targets
    # What printf goes through: an array whose values are perf events.
    arrays = [
        line
        for line in client.ran.calls("BPF_MAP_UPDATE_ELEM")
        for each in line["fds"].values()
        if each.get("map_type") == 4  # BPF_MAP_TYPE_PERF_EVENT_ARRAY
    ]
    rings = [line for line in client.ran.calls("BPF_MAP_CREATE")
             if line["args"]["attr"]["map_type"] == "BPF_MAP_TYPE_RINGBUF"]  # fmt: skip
    assert arrays or rings
    for line in arrays:
        (event,) = [each for each in line["fds"].values() if each["kind"] == "perf_event"]
        assert event["name"] == "software bpf-output"


def test_bcc_perf_buffer(tmp_path: Path) -> None:
    """As recorded: each CPU's event in the buffer's map, by its name."""
    trace = next((FIXTURES / "bcc-perf-buffer").glob("trace.jsonl*"))
    out = tmp_path / "out.jsonl"
    done = run_cli("replay", "--json", str(out), "-o", os.devnull, str(trace))
    assert done.returncode == 0
    ran = Ran(0, "", "", "", [json.loads(line) for line in out.read_text().splitlines()])
    put = [
        {each["kind"]: each.get("name") for each in line["fds"].values()}
        for line in ran.calls("BPF_MAP_UPDATE_ELEM")
    ]
    assert {"map": "events", "perf_event": "software bpf-output"} in put


def test_bpftool_on_a_cgroup(tmp_path: Path) -> None:
    """loadall, cgroup attach and detach, of programs that stay pinned."""
    needs_tool("bpftool", "clang")
    cgroup2 = next(
        (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()
         if line.split()[2] == "cgroup2"),
        None,
    )  # fmt: skip
    if cgroup2 is None:
        pytest.skip("no cgroup v2 is mounted")
    cgroup = Path(cgroup2) / f"clients.{os.getpid()}"
    place = tmp_path / "bpffs"
    place.mkdir()
    (tmp_path / "two.c").write_text(
        'char l[] __attribute__((section("license"), used)) = "GPL";\n'
        '__attribute__((section("cgroup_skb/egress"), used)) int let_out(void *c) { return 1; }\n'
        '__attribute__((section("cgroup_skb/ingress"), used)) int let_in(void *c) { return 1; }\n'
    )
    subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", "-c", "two.c", "-o", "two.o"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    subprocess.run(["mount", "-t", "bpf", "bpf", str(place)], check=True)
    cgroup.mkdir()
    shown = tmp_path / "shown"
    script = f"""set -e; cd {tmp_path}
        bpftool prog loadall two.o {place}/progs
        bpftool cgroup attach {cgroup} egress pinned {place}/progs/let_out multi
        bpftool cgroup attach {cgroup} ingress pinned {place}/progs/let_in multi
        bpftool -j cgroup show {cgroup} >{shown}
        bpftool cgroup detach {cgroup} ingress pinned {place}/progs/let_in"""
    try:
        with under_bpfstrace(tmp_path, [], ["sh", "-c", script]) as (_, ran):
            pass
        assert ran.code == 0, ran.stderr
        theirs = {
            (f"cgroup_skb {each['attach_type'].removeprefix('cgroup_inet_')} on {cgroup}",
             each["id"], each["name"])
            for each in json.loads(shown.read_text())
        }  # fmt: skip
        ours = {
            (line["target"], line["prog"]["id"], line["prog"]["name"])
            for line in ran.attachments()
            if line["verb"] == "attached"
        }
        assert ours == theirs
        (gone,) = [line for line in ran.attachments() if line["verb"] == "detached"]
        assert gone["target"] == f"cgroup_skb ingress on {cgroup}"
        rows = {row["name"]: row["why"] for row in tables_of(ran.text)["left behind"]}
        assert f"attached to cgroup_skb egress on {cgroup}" in rows["let_out"]
        assert "attached" not in rows["let_in"]
    finally:
        subprocess.run(["umount", str(place)], check=True)
        cgroup.rmdir()


def test_bpftool_shows_a_link_from_before(tmp_path: Path) -> None:
    needs_tool("bpftool")
    kit = loaders.Kit()
    with kit.at_end:
        try:
            prog = kit.prog("RAW_TRACEPOINT", loaders.returning(0), "elder")
            link = loaders.call("RAW_TRACEPOINT_OPEN", name=b"sys_enter\0", prog_fd=prog).ret
        except loaders.Refused as why:
            pytest.skip(str(why))
        number = loaders.link_facts(link)["id"]
        text = tmp_path / "text"
        done = run_cli("-o", str(text), "bpftool", "-j", "link", "show", "id", str(number))
        assert done.returncode == 0, done.stderr
        said = text.read_text()
        label = f"link raw_tracepoint id={number} (from before) -> raw tracepoint sys_enter"
        assert f"<{label}>" in said
        os.close(link)
        os.close(prog)


def test_bcc_on_a_uprobe(tmp_path: Path, tracefs: Path) -> None:
    if subprocess.run(["/usr/bin/python3", "-c", "import bcc"], capture_output=True).returncode:
        pytest.skip("python3-bpfcc is not installed")
    if not os.path.isdir(f"/lib/modules/{os.uname().release}/build"):
        pytest.skip("BCC needs kernel headers")
    needs_tool("bpftool")
    folder = Path(shutil.copytree(FIXTURES / "bcc-uprobe", tmp_path / "work"))
    program = ["env", "-C", str(folder), "/usr/bin/python3", "hello.py"]
    with under_bpfstrace(tmp_path, [], program) as (process, ran):
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "attached\n"
        shown, pids = view(), descendants(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
    client = Client(ran, shown, pids)
    assert len(client.perf) == 2
    agrees(client)
