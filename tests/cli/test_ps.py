"""bpfstrace ps against bpftool, and against what loaders know of themselves.

Others load programs at the same time: an id counts that bpftool shows before and after.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.support.bpftool_view import bpftool
from tests.support.needs import needs_tool
from tests.support.running import LOADERS, alive, environment, run_cli, without_capabilities
from tests.support.terminal import commands, on_terminal

sys.path.insert(0, str(LOADERS))

from _common import libc_function

from tests.support.ps import Line, Told, ps

pytestmark = pytest.mark.usefixtures("needs_bpf")

LOADED = (
    "cgroup_attach", "flow_dissector", "iter", "netfilter", "perf_link", "pin", "raw_tracepoint",
    "sk_lookup", "sockmap", "struct_ops", "tail_calls", "tcx", "tracefs_uprobe",
    "tracepoint_perf", "uprobe_multi", "uprobe_perf", "xdp_link",
)  # fmt: skip
"""Loaders that keep something alive, one way of attaching each."""


class Shown:
    """All loaders alive: bpftool before, ps, bpftool after."""

    def __init__(self, folder: Path) -> None:
        from contextlib import ExitStack

        with ExitStack() as stack:
            self.facts = {name: stack.enter_context(alive(name, folder)) for name in LOADED}
            self.before = {kind: bpftool(kind, "show") for kind in ("prog", "map", "link", "btf")}
            self.look = ps()
            self.after = {kind: bpftool(kind, "show") for kind in ("prog", "map", "link", "btf")}
            self.perf = bpftool("perf", "show")
            self.net = {
                name: bpftool("net", "show", pid=self.facts[name]["pid"])[0]
                for name in ("tcx", "xdp_link", "flow_dissector")
            }
            self.cgroup = bpftool("cgroup", "show", self.facts["cgroup_attach"]["cgroup"])
            self.text = run_cli("ps").stdout

    def stable(self, kind: str) -> dict[int, Line]:
        """What bpftool showed before and after alike."""
        later = {entry["id"] for entry in self.after[kind]}
        return {entry["id"]: entry for entry in self.before[kind] if entry["id"] in later}


@pytest.fixture(scope="module")
def shown(needs_bpf: None, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    needs_tool("bpftool", "nsenter")
    return Shown(tmp_path_factory.mktemp("ps"))


@pytest.mark.parametrize("kind", ["prog", "map", "link", "btf"])
def test_no_id_is_missing_and_none_made_up(kind: str, shown: Shown) -> None:
    ours, stable = shown.look.of(kind), shown.stable(kind)
    assert stable
    assert not stable.keys() - ours.keys()
    known = {entry["id"] for view in (shown.before, shown.after) for entry in view[kind]}
    loaders = {
        each["id"] for facts in shown.facts.values() for each in facts.get(f"{kind}s", ())
    }
    # Between the two looks others may have come and gone; ours have not.
    assert {number for number in ours if number in loaders} <= known


def test_programs_are_as_bpftool_has_them(shown: Shown) -> None:
    names = {
        "bytes_xlated": "xlated_prog_len", "bytes_jited": "jited_prog_len", "uid": "created_by_uid",
        "bytes_memlock": "memlock", "btf_id": "btf_id",
    }  # fmt: skip
    for number, entry in shown.stable("prog").items():
        line = shown.look.objects["prog", number]
        assert line["object"]["tag"] == entry["tag"]
        if isinstance(entry["type"], str):  # Debian's bpftool has numbers for newer ones
            assert line["object"]["type"] == entry["type"]
        assert line["object"].get("name", "") == entry.get("name", "")
        for theirs, ours in names.items():
            assert line["info"].get(ours, 0) == entry.get(theirs, 0), theirs
        assert line["info"].get("map_ids", []) == entry.get("map_ids", [])
        assert abs(line["info"]["loaded"] // 10**9 - entry["loaded_at"]) <= 2


def test_maps_and_links_are_as_bpftool_has_them(shown: Shown) -> None:
    for number, entry in shown.stable("map").items():
        line = shown.look.objects["map", number]
        assert line["object"].get("name", "") == entry.get("name", "")
        assert line["info"]["max_entries"] == entry["max_entries"]
        assert line["info"]["value_size"] == entry["bytes_value"]
        assert line["info"].get("map_flags", 0) == entry["flags"]
        assert line["info"].get("frozen", 0) == entry.get("frozen", 0)
        if "bytes_memlock" in entry:
            assert line["info"].get("memlock", 0) == entry["bytes_memlock"]
    for number, entry in shown.stable("link").items():
        line = shown.look.objects["link", number]
        assert line["info"]["prog_id"] == entry.get("prog_id", line["info"]["prog_id"])
        if isinstance(entry["type"], str):
            assert line["object"]["type"] == entry["type"]
        for name in ("tp_name", "target_name", "cgroup_id", "netns_ino", "map_id"):
            if name in entry:
                assert line["info"].get(name, 0) == entry[name], name


def test_holders_are_the_loaders_own_fds(shown: Shown) -> None:
    checked = 0
    for name, facts in shown.facts.items():
        for kind in ("prog", "map", "link", "btf"):
            for each in facts.get(f"{kind}s", ()):
                line = shown.look.objects[kind, each["id"]]
                mine = [holder for holder in line["holders"] if holder["pid"] == facts["pid"]]
                if not os.path.exists(f"/proc/{facts['pid']}/fd/{each['fd']}") and not mine:
                    continue
                (holder,) = mine
                assert each["fd"] in holder["fds"], name
                assert holder["exe"] == os.path.realpath(sys.executable)
                checked += 1
    assert checked > 30


TARGETS = {
    "cgroup_attach": {
        "egress": "cgroup_skb egress on {cgroup}", "device": "cgroup_device on {cgroup}",
    },
    "flow_dissector": {"dissect": "flow_dissector on net:[{netns_ino}]"},
    "netfilter": {"nf_accept": "netfilter ipv4 local_in priority -128"},
    "perf_link": {"on_getpgrp": "uprobe {libc}:getpgrp"},
    "raw_tracepoint": {"by_id": "tp_btf sched_switch", "by_link": "tp_btf sched_switch"},
    "sk_lookup": {"choose_socket": "sk_lookup on net:[{netns_ino}]"},
    "struct_ops": {
        "ssthresh": "struct_ops tcp_congestion_ops.ssthresh of map congestion id={map}",
        "cong_avoid": "struct_ops tcp_congestion_ops.cong_avoid of map congestion id={map}",
    },
    "sockmap": {"on_stream": "sk_skb_stream_verdict on map socks id={map}"},
    "tail_calls": {"first": "tail call 0 of map jumps id={map}"},
    "tcx": dict.fromkeys(("first", "second"), "tcx ingress on lo in net:[{ns}]"),
    "tracefs_uprobe": {"on_getppid": "uprobe {libc}:getppid"},
    "tracepoint_perf": {"on_getpgid": "tracepoint syscalls:sys_enter_getpgid"},
    "uprobe_multi": {"on_any": "uprobe_multi {libc}:getppid, getpgrp, getegid"},
    "xdp_link": {
        "xdp_pass": "xdp on veth_a (drv) in net:[{ns}]",
        "xdp_drop": "xdp on lo (skb) in net:[{ns}]",
    },
}  # fmt: skip
"""By loader and program. In words of a trace (docs/objects.md), but for the namespace."""


@pytest.mark.parametrize("name", TARGETS)
def test_targets(name: str, shown: Shown) -> None:
    facts = shown.facts[name]
    words = {
        "libc": libc_function("getppid")[0],
        "map": next((each["id"] for each in facts.get("maps", ())), 0),
        "ns": next((place["info"].get("netns") for place in _places(shown, facts)), 0),
        **facts,
    }
    numbers = {each["name"]: each["id"] for each in facts["progs"]}
    for prog, target in TARGETS[name].items():
        assert target.format(**words) in shown.look.targets("prog", numbers[prog])


def _places(shown: Shown, facts: Line) -> list[Line]:
    return [
        place
        for each in facts.get("progs", ())
        for place in shown.look.objects["prog", each["id"]]["attached"]
    ]


def test_a_return_probe_is_one(shown: Shown) -> None:
    (prog,) = shown.facts["uprobe_perf"]["progs"]
    kinds = {target.partition(" ")[0] for target in shown.look.targets("prog", prog["id"])}
    assert kinds == {"uprobe", "uretprobe"}


def test_iterators_say_over_what(shown: Shown) -> None:
    facts = shown.facts["iter"]
    said = {each["name"]: shown.look.targets("prog", each["id"]) for each in facts["progs"]}
    assert said["each_task"] == {f"iter task over tid {facts['pid']}"}
    number = facts["maps"][0]["id"]
    assert said["each_elem"] == {f"iter bpf_map_elem over map table id={number}"}


def test_pins_are_found_in_another_mount_namespace_too(shown: Shown) -> None:
    facts = shown.facts["pin"]
    for kind in ("map", "link"):
        (each,) = facts[f"{kind}s"]
        (pin,) = shown.look.objects[kind, each["id"]]["pins"]
        assert pin.endswith(f"{facts['bpffs']}/{kind}")


def test_perf_events_are_bpftools(shown: Shown) -> None:
    ours = {
        (holder["pid"], fd): line
        for (kind, _), line in shown.look.objects.items()
        if kind == "perf_event"
        for holder in line["holders"]
        for fd in holder["fds"]
    }
    pids = {facts["pid"] for facts in shown.facts.values()}
    checked = 0
    for entry in shown.perf:
        line = ours.get((entry["pid"], entry["fd"]))
        if entry["pid"] not in pids or line is None:
            continue  # bpftool shows raw tracepoints' links as well
        assert line["info"]["attached_prog"] == entry["prog_id"]
        assert line["info"]["fd_type"] == entry["fd_type"]
        checked += 1
    assert checked >= 4


def test_devices_are_bpftools(shown: Shown) -> None:
    def of(name: str) -> set[tuple[str, int]]:
        return {
            (target, prog["id"])
            for prog in shown.facts[name]["progs"]
            for target in shown.look.targets("prog", prog["id"])
        }

    xdp = {(target.split()[2], number) for target, number in of("xdp_link")}
    theirs = {(each["devname"], each["id"]) for each in shown.net["xdp_link"]["xdp"]}
    assert xdp == theirs
    assert theirs
    dissector = {number for _, number in of("flow_dissector")}
    assert {each["id"] for each in shown.net["flow_dissector"]["flow_dissector"]} == dissector


def test_cgroups_are_bpftools(shown: Shown) -> None:
    path = shown.facts["cgroup_attach"]["cgroup"]
    ours = {
        number
        for number, line in shown.look.of("prog").items()
        for place in line["attached"]
        if place["way"] == "cgroup" and place["info"].get("path") == path
    }
    assert {entry["id"] for entry in shown.cgroup} == ours
    assert ours


def test_a_detached_link_is_told_as_such(shown: Shown) -> None:
    facts = shown.facts["cgroup_attach"]
    gone = [each for each in facts["links"] if each.get("cgroup_id") == 0] or facts["links"][:1]
    targets = {shown.look.objects["link", each["id"]]["object"]["target"] for each in gone}
    assert targets == {"cgroup_inet_sock_create (detached)"}


def test_text_has_every_name(shown: Shown) -> None:
    for facts in shown.facts.values():
        for each in facts.get("progs", ()):
            assert f" {each['id']}  {each['tag']}" in shown.text
    assert shown.text.startswith("programs\n  name")
    titles = [block.split("\n", 1)[0] for block in shown.text.split("\n\n")]
    assert titles[:5] == ["programs", "maps", "links", "BTF", "processes"]


def test_lines_are_of_the_schema(shown: Shown) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(run_cli("schema").stdout)
    check = jsonschema.Draft202012Validator(schema)
    for line in shown.look.lines:
        check.validate(line)
    assert shown.look.lines[0]["type"] == "machine"
    assert shown.look.lines[-1] == {"type": "end", "status": {}}


def test_a_thread_with_fds_of_its_own(tmp_path: Path) -> None:
    """unshare(CLONE_FILES) in a thread: its fds are in no other's /proc/PID/fd."""
    script = tmp_path / "apart.py"
    script.write_text(
        "import ctypes, os, sys, threading, json\n"
        f"sys.path.insert(0, {str(LOADERS)!r})\n"
        "from _common import Kit\n"
        "def work():\n"
        "    ctypes.CDLL(None).unshare(0x400)\n"
        "    kit = Kit()\n"
        "    fd = kit.map('ARRAY', 4, 8, 1, 'apart')\n"
        "    print(json.dumps([kit.facts['maps'][0]['id'], fd]), flush=True)\n"
        "    sys.stdin.readline()\n"
        "    os._exit(0)\n"
        "threading.Thread(target=work).start()\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        number, fd = json.loads(process.stdout.readline())
        assert not os.path.exists(f"/proc/{process.pid}/fd/{fd}")
        look = ps()
        process.stdin.close()
    (holder,) = look.objects["map", number]["holders"]
    assert (holder["pid"], holder["fds"]) == (process.pid, [fd])


def test_without_capabilities_what_is_hidden_is_said(tmp_path: Path) -> None:
    """Nothing of others is claimed not to be there."""
    needs_tool("setpriv")
    with alive("tail_calls", tmp_path) as facts:
        done = without_capabilities("ps", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    look = Told(done.stdout)
    unseen = {line["what"]: line["why"] for line in look.lines if line["type"] == "unseen"}
    assert {f"{kind} of others" for kind in ("programs", "maps", "links", "BTF")} <= unseen.keys()
    assert any("have open" in what for what in unseen)
    assert ("prog", facts["progs"][0]["id"]) not in look.objects


INHERITED = f"""
import json, os, sys
sys.path.insert(0, {str(LOADERS)!r})
from _common import *
kit = Kit()
kit.map("ARRAY", 4, 8, 1, "left_map")
kit.prog("SOCKET_FILTER", returning(1), "left_prog")
for each in (*kit.facts["maps"], *kit.facts["progs"]):
    os.set_inheritable(each["fd"], True)
print(json.dumps(kit.facts), flush=True)
os.execvp("setpriv", ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "cat"])
"""


def test_without_capabilities_what_equals_hold_is_seen() -> None:
    """By the fds of a process that is not more privileged: all but what the kernel hides."""
    needs_tool("setpriv")
    with subprocess.Popen(
        [sys.executable, "-c", INHERITED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        while Path(f"/proc/{process.pid}/comm").read_text() != "cat\n":
            time.sleep(0.01)
        done = without_capabilities("ps", "--json")
        process.communicate()
    assert (done.returncode, done.stderr) == (0, "")
    look = Told(done.stdout)
    (prog,), (array,) = facts["progs"], facts["maps"]
    line = look.objects["prog", prog["id"]]
    assert (line["object"]["name"], line["object"]["tag"]) == ("left_prog", prog["tag"])
    assert line["holders"][0]["pid"] == process.pid
    assert line["holders"][0]["fds"] == [prog["fd"]]
    assert look.objects["map", array["id"]]["object"]["name"] == "left_map"
    unseen = {line["what"]: line["why"] for line in look.lines if line["type"] == "unseen"}
    if "xlated_prog_len" not in line["info"]:
        assert "CAP_BPF" in unseen["sizes of programs"]


def test_arguments() -> None:
    assert "usage: bpfstrace ps" in run_cli("ps", "--help").stdout
    done = run_cli("ps", "aux")
    assert done.returncode == 2
    assert "bpfstrace -- ps aux" in done.stderr
    done = run_cli("ps", "--watch", "soon")
    assert done.returncode == 2
    assert "0.1 to 86400" in done.stderr
    assert run_cli("ps", "--watch").returncode == 2


def test_a_full_disk_is_told() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bpftrace_sys", "ps"], stdout=full, stderr=subprocess.PIPE,
            text=True, env=environment(), check=False,
        )  # fmt: skip
    assert done.returncode == 125
    assert done.stderr == "bpfstrace: output to <stdout> was lost: No space left on device\n"


def test_a_program_called_ps_is_traced() -> None:
    if shutil.which("ps") is None:
        pytest.skip("ps is not installed")
    done = run_cli("-o", os.devnull, "--", "ps", "-p", str(os.getpid()))
    assert done.returncode == 0
    assert str(os.getpid()) in done.stdout


def test_a_terminal_is_never_scrolled_while_watching(tmp_path: Path) -> None:
    """20 lines of 60 columns."""
    anew = b"\x1b[H\x1b[J"
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
    with alive("tcx", tmp_path), subprocess.Popen(
        [sys.executable, "-m", "bpftrace_sys", "ps", "--watch=0.1"], stdout=theirs,
        env=environment(),
    ) as process:  # fmt: skip
        said = b""
        while said.count(anew) < 3:
            said += os.read(ours, 1 << 16)
        process.send_signal(2)
    os.close(theirs)
    os.close(ours)
    assert process.returncode == 0
    for frame in said.decode().split(anew.decode())[1:3]:
        lines = frame.replace("\r", "").split("\n")
        assert lines[2] == "programs"
        assert len(lines) <= 20
        assert all(len(line) <= 60 for line in lines)


def test_colours_and_names_cannot_be_mistaken(tmp_path: Path) -> None:
    env = environment(TERM="xterm-256color")
    del env["NO_COLOR"]
    with alive("tcx", tmp_path):
        code, said = on_terminal([sys.executable, "-m", "bpftrace_sys", "ps"], env=env)
    assert code == 0
    assert not commands(said)
    assert "tcx ingress on lo" in said.replace("\n        ", " ")


def test_watch_looks_again() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bpftrace_sys", "ps", "--json", "--watch=0.1"],
        stdout=subprocess.PIPE, text=True, env=environment(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        times = []
        for line in process.stdout:
            entry = json.loads(line)
            if entry["type"] == "machine":
                times.append(entry["time"])
            if len(times) == 3:
                process.send_signal(2)
                break
        process.stdout.read()
    assert times == sorted(times)
    assert process.returncode == 0
