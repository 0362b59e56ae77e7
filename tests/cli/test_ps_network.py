"""ps of what stands in the network (tc, maps of devices and CPUs), and of old kernels' links."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from bpftrace_sys.record.machine import network
from bpftrace_sys.record.machine.inventory import Look
from bpftrace_sys.story.standing import PlaceText
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.inventory import ObjectState, Place
from bpftrace_sys.trace.kernel_fields import Info
from decoders.formats.netlink import Message
from tests.support.bpftool_view import bpftool
from tests.support.needs import needs_tool
from tests.support.ps import ps
from tests.support.running import LOADERS

pytestmark = pytest.mark.usefixtures("needs_bpf")


def test_tc_filters_and_xdp_by_iproute2(tmp_path: Path) -> None:
    """In a namespace of its own, by ip and tc; bpftool net says the same."""
    needs_tool("ip", "tc", "clang", "bpftool", "unshare", "nsenter")
    source = tmp_path / "letgo.c"
    source.write_text(
        '__attribute__((section("tc"),used)) int letgo(void *c){return 0;}\n'
        '__attribute__((section("xdp"),used)) int pass(void *c){return 2;}\n'
        'char l[] __attribute__((section("license"),used)) = "GPL";\n'
    )
    subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", "-c", "letgo.c", "-o", "letgo.o"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    script = """set -e
        mount -t bpf bpf /sys/fs/bpf
        ip link set lo up
        tc qdisc add dev lo clsact
        tc filter add dev lo ingress prio 7 bpf da obj letgo.o sec tc
        tc filter add dev lo egress bpf obj letgo.o sec tc
        ip link set dev lo xdpgeneric obj letgo.o sec xdp
        echo ready; read line"""
    with subprocess.Popen(
        ["unshare", "--net", "--mount", "sh", "-c", script], cwd=tmp_path,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == "ready\n"
            netns = os.stat(f"/proc/{process.pid}/ns/net").st_ino
            look = ps()
            (theirs,) = bpftool("net", "show", pid=process.pid)
        finally:
            process.stdin.close()
    ours = {
        (target, number)
        for number in look.of("prog")
        for target in look.targets("prog", number)
        if target.endswith(f" in net:[{netns}]")
    }
    said = {target.removesuffix(f" in net:[{netns}]") for target, _ in ours}
    assert said == {"tc ingress on lo", "tc egress on lo", "xdp on lo (skb)"}
    assert {each["id"] for each in theirs["tc"] + theirs["xdp"]} == {number for _, number in ours}
    place = next(
        place
        for line in look.of("prog").values()
        for place in line["attached"]
        if "tc ingress" in place["target"] and place["info"].get("netns") == netns
    )
    assert (place["info"]["priority"], place["info"]["direct_action"]) == (7, 1)


def test_tc_actions_are_read() -> None:
    """From a message as tcf_fill_node() builds it: this kernel may have no act_bpf."""

    def attr(kind: int, data: bytes) -> bytes:
        return struct.pack("<HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)

    parms = attr(2, struct.pack("<IIIII", 3, 0, 0, 1, 1))
    number = attr(9, struct.pack("<I", 77))
    action = attr(1, b"bpf\0") + attr(2, parms + attr(6, b"letgo\0") + number)
    options = attr(2, attr(1, action))  # TCA_MATCHALL_ACT
    body = struct.pack("<BxxxiIII", 0, 5, 1, network.EGRESS, 9 << 16)
    body += attr(1, b"matchall\0") + attr(2, options) + attr(11, struct.pack("<I", 4))
    found = network.Devices(1, {5: "v0"})
    message = Message(len(body) + 16, network.RTM_NEWTFILTER, 2, 1, 0, body)
    network.filter_programs(message, 5, network.EGRESS, found)
    ((prog, place),) = found.progs
    assert (prog, place.way) == (77, "action")
    wanted = {"device": "v0", "priority": 9, "chain": 4, "name": "letgo"}
    assert wanted.items() <= place.info.items()
    here = Place("action", Info({**place.info, "netns": 0}))
    assert PlaceText(RecordedFacts({}, 1)).target(here) == "tc action egress on v0"


IN_MAPS = f"""
import json, os, sys
sys.path.insert(0, {str(LOADERS)!r})
from _common import *
own_net()
kit = Kit()
refused = {{}}
def put(kind, attach, key, value):
    try:
        prog = kit.prog("XDP", returning(2), "on_" + kind.lower(), attach)
        array = kit.map(kind, 4, 8, 4, kind.lower())
        call("MAP_UPDATE_ELEM", map_fd=array, key=u32s(key), value=u32s(value, prog))
    except OSError as error:
        refused[kind] = str(error)
put("CPUMAP", "XDP_CPUMAP", 0, 64)
put("DEVMAP", "XDP_DEVMAP", 3, 1)
put("DEVMAP_HASH", "XDP_DEVMAP", 70000, 1)
print(json.dumps({{**kit.facts, "refused": refused}}), flush=True)
sys.stdin.readline()
"""


def test_programs_of_devmaps_and_cpumaps() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", IN_MAPS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        facts = json.loads(process.stdout.readline())
        look = ps()
        process.communicate("\n")
    assert not facts["refused"]
    keys = {"cpumap": 0, "devmap": 3, "devmap_hash": 70000}
    maps = {each["name"]: each["id"] for each in facts["maps"]}
    for prog in facts["progs"]:
        name = prog["name"].removeprefix("on_")
        what = name.removesuffix("_hash")
        told = f"xdp {what} {keys[name]} of map {name} id={maps[name]}"
        assert look.targets("prog", prog["id"]) == {told}


def test_an_old_kernels_link_is_completed_by_its_event() -> None:
    """Linux 6.1 tells nothing of a perf_event link: its only event does, if it is the only one."""
    look = Look()
    prog = look._add("prog", 5, {"type": 2, "xlated_prog_len": 16})
    look._add("link", 2, {"type": 7, "prog_id": 5})
    ((link, place),) = look._links
    look._attach(5, place)
    probe = {"fd_type": "uprobe", "probe": "/bin/sh", "probe_offset": 4}
    event = ObjectState(
        "perf_event", 9, "", Info({"attached_prog": 5, "pid": 1, "fd": 6, **probe})
    )
    look._events[9] = event
    look._attach_event(event)
    assert prog.places == link.places == [place]
    assert place.info.items() >= {"link_id": 2, **probe}.items()
    assert PlaceText(RecordedFacts({}, 1)).target(place) == "uprobe /bin/sh:0x4"
