"""Where programs stand attached, in words: each way, also where this kernel has it not.

What real kernels tell is in tests/cli/test_ps.py; the fields here are as Linux 6.12 and 6.1
told them in a virtual machine.
"""

from __future__ import annotations

from typing import Any

import pytest

from bpftrace_sys.story.inventory import Machine
from bpftrace_sys.story.standing import ROWS, PlaceText, link_target, via
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.inventory import Holder, Inventory, ObjectState, Place, Unseen
from bpftrace_sys.trace.kernel_fields import Info
from decoders.raw import FdFact

FACTS = {
    ("btf_vmlinux", 7): "vfs_read",
    ("btf_vmlinux", 8): "bpf_lsm_file_open",
    ("btf_vmlinux", 9): "btf_trace_sched_switch",
    ("btf_vmlinux", 10): "bpf_struct_ops_tcp_congestion_ops",
    ("func_of 4", 3): "verdict",
    ("module_type nf_tables", 5): "nft_do_chain",
    ("ksym", 0xFFFFFFFF81000000): "do_sys_openat2",
    ("ksym", 0xFFFFFFFF81000100): "vfs_write",
    ("usym /bin/bash", 0x1234): "readline",
    ("tracepoint_named sys_enter_openat", 0): "syscalls:sys_enter_openat",
    ("device", 3): "eth0",
    ("map", 60): "elsewhere",
}
STATES = {
    ("prog", 1): ObjectState("prog", 1, "on_ext", Info({"type": 28})),
    ("prog", 2): ObjectState("prog", 2, "on_tracing", Info({"type": 26})),
    ("prog", 3): ObjectState("prog", 3, "on_lsm", Info({"type": 29, "attach_btf_id": 8})),
    ("prog", 4): ObjectState("prog", 4, "xdp_main", Info({"type": 6})),
    ("map", 50): ObjectState("map", 50, "jumps", Info({"btf_vmlinux_value_type_id": 10})),
    ("btf", 1): ObjectState("btf", 1, "vmlinux", Info({"kernel_btf": 1})),
    ("btf", 40): ObjectState("btf", 40, "nf_tables", Info({"kernel_btf": 1})),
}


@pytest.fixture
def words() -> PlaceText:
    facts = RecordedFacts({}, 1)
    facts.known.update(FACTS)
    return PlaceText(facts, STATES)


OBJECT, KERNEL = {"target_obj_id": 1}, 0xFFFFFFFF81000000
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("tracing", {**OBJECT, "attach_type": 24, "target_btf_id": 7}, "fentry vfs_read"),
    ("tracing", {**OBJECT, "attach_type": 25, "target_btf_id": 7}, "fexit vfs_read"),
    ("tracing", {**OBJECT, "attach_type": 26, "target_btf_id": 7}, "fmod_ret vfs_read"),
    ("tracing", {**OBJECT, "attach_type": 27, "target_btf_id": 8}, "lsm file_open"),
    ("tracing", {**OBJECT, "attach_type": 24, "target_btf_id": 99}, "fentry BTF id 99"),
    (
        "tracing", {"target_obj_id": 40, "attach_type": 24, "target_btf_id": 5},
        "fentry nft_do_chain [nf_tables]",
    ),
    (
        "tracing", {"target_obj_id": 4, "target_btf_id": 3, "prog_id": 1},
        "freplace verdict of prog xdp_main id=4",
    ),
    (
        "tracing", {"target_obj_id": 4, "attach_type": 24, "target_btf_id": 3, "prog_id": 2},
        "fentry verdict of prog xdp_main id=4",
    ),
    ("raw_tracepoint", {"tp_name": "sched_switch"}, "raw tracepoint sched_switch"),
    ("raw_tracepoint", {"tp_name": "sched_switch", "prog_id": 2}, "tp_btf sched_switch"),
    ("kprobe_multi", {"addrs": [KERNEL, KERNEL + 0x100], "count": 2},
     "kprobe_multi do_sys_openat2, vfs_write"),
    ("kprobe_multi", {"addrs": [KERNEL] * 5, "count": 5, "flags": 1},
     "kretprobe_multi do_sys_openat2, do_sys_openat2, do_sys_openat2 and 2 more"),
    ("kprobe_multi", {"addrs": [0, 0, 0], "count": 3}, "kprobe_multi 3 functions"),
    ("kprobe_multi", {}, "kprobe_multi ?"),
    ("uprobe_multi", {"path": "/bin/bash", "offsets": [0x1234, 0x5], "count": 2},
     "uprobe_multi /bin/bash:readline, 0x5"),
    ("uprobe_multi", {}, "uprobe_multi ?:?"),
    ("perf_event", {"fd_type": "kprobe", "probe": "vfs_read", "probe_offset": 4},
     "kprobe vfs_read+0x4"),
    ("perf_event", {"fd_type": "kretprobe", "probe_addr": KERNEL}, "kretprobe do_sys_openat2"),
    ("perf_event", {"fd_type": "kprobe"}, "kprobe ?"),
    ("perf_event", {"fd_type": "uprobe", "probe": "/bin/bash", "probe_offset": 0x1234},
     "uprobe /bin/bash:readline"),
    ("perf_event", {"fd_type": "uretprobe", "probe": "/bin/bash", "probe_offset": 0x99},
     "uretprobe /bin/bash:0x99"),
    ("perf_event", {"fd_type": "tracepoint", "probe": "sys_enter_openat"},
     "tracepoint syscalls:sys_enter_openat"),
    ("perf_event", {"fd_type": "tracepoint", "probe": "twice_there"}, "tracepoint twice_there"),
    ("perf_event", {"fd_type": "event", "event_type": 1, "config": 0}, "software cpu-clock"),
    ("perf_event", {"fd_type": "event", "event_type": 0, "config": 1}, "hardware instructions"),
    ("perf_event", {"fd_type": "event", "event_type": 4, "config": 0xC0}, "raw config=0xc0"),
    ("perf_event", {"fd_type": "event", "event_type": 99, "config": 1}, "pmu 99 config=0x1"),
    ("perf_event", {}, "perf event ?"),
    ("cgroup", {"attach_type": 1, "path": "/cgroup/x"}, "cgroup_skb egress on /cgroup/x"),
    ("cgroup", {"attach_type": 6, "cgroup_id": 77}, "cgroup_device on cgroup id 77"),
    ("cgroup", {"attach_type": 43, "path": "/c", "prog_id": 3}, "lsm file_open on /c"),
    ("cgroup", {"attach_type": 2}, "cgroup_inet_sock_create (detached)"),
    ("xdp", {"ifindex": 3, "device": "v0", "mode": "drv"}, "xdp on v0 (drv)"),
    ("xdp", {"ifindex": 3}, "xdp on eth0"),
    ("xdp", {"ifindex": 8}, "xdp on ifindex 8"),
    ("xdp", {}, "xdp (detached)"),
    ("tcx", {"attach_type": 46, "ifindex": 3, "netns": 42}, "tcx ingress on eth0 in net:[42]"),
    ("netkit", {"attach_type": 55, "ifindex": 3}, "netkit peer on eth0"),
    ("tc", {"ifindex": 3, "parent": 0xFFFFFFF3}, "tc egress on eth0"),
    ("tc", {"ifindex": 3, "parent": 0x10000}, "tc on eth0 parent 1:0"),
    ("action", {"index": 4}, "tc action, index 4"),
    ("netns", {"attach_type": 36, "netns_ino": 42}, "sk_lookup on net:[42]"),
    ("netns", {"attach_type": 17}, "flow_dissector (detached)"),
    ("sockmap", {"attach_type": 7, "map_id": 60}, "sk_msg_verdict on map elsewhere id=60"),
    ("prog_array", {"index": 2, "map_id": 50}, "tail call 2 of map jumps id=50"),
    ("devmap", {"index": 2, "map_id": 50}, "xdp devmap 2 of map jumps id=50"),
    ("cpumap", {"index": 0, "map_id": 50}, "xdp cpumap 0 of map jumps id=50"),
    ("tracing_multi", {"attach_type": 59, "addrs": [KERNEL], "count": 9},
     "fentry_multi do_sys_openat2 and 8 more"),
    ("struct_ops", {"map_id": 50}, "struct_ops tcp_congestion_ops"),
    ("struct_ops", {"map_id": 50, "member": "data.init"},
     "struct_ops tcp_congestion_ops.init of map jumps id=50"),
    ("struct_ops", {"map_id": 61}, "struct_ops ?"),
    ("iter", {"target_name": "task", "pid": 9}, "iter task over pid 9"),
    ("iter", {"target_name": "cgroup", "cgroup_id": 5}, "iter cgroup over cgroup id 5"),
    ("iter", {"target_name": "bpf_prog"}, "iter bpf_prog"),
    ("netfilter", {"pf": 2, "hooknum": 1, "priority": -128},
     "netfilter ipv4 local_in priority -128"),
    ("of_a_newer_kernel", {"ifindex": 3}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("way", "info", "text"), CASES)
def test_words(way: str, info: dict[str, Any], text: str, words: PlaceText) -> None:
    assert words.target(Place(way, Info(info))) == text


def test_each_way_is_tried() -> None:
    assert set(ROWS) <= {way for way, _, _ in CASES}


def test_a_link_by_its_fdinfo_is_worded_alike(words: PlaceText) -> None:
    told = FdFact(3, 0, "link", {"link_type": "tcx", "link_id": 2, "ifindex": 3, "attach_type": 46})
    assert link_target(told, words.facts) == "tcx ingress on eth0"
    # Of a perf event older kernels' fdinfo tells nothing: nothing is said.
    assert link_target(FdFact(3, 0, "link", {"link_type": "perf", "link_id": 2}), words.facts) == ""


def test_by_what_means() -> None:
    assert via(Place("tcx", Info({"link_id": 4}))) == "link"
    assert via(Place("xdp", Info({}))) == "netlink"
    assert via(Place("perf_event", Info({"pid": 1}))) == "perf event"
    assert via(Place("cgroup", Info({}))) == ""


def machine(*objects: ObjectState, unseen: tuple[Unseen, ...] = ()) -> Machine:
    return Machine(Inventory(0, list(objects), list(unseen)), RecordedFacts({}, 1))


def test_what_nobody_was_seen_to_hold_is_not_said_to_be_held_by_nobody() -> None:
    prog = ObjectState("prog", 1, "alone", Info({"type": 1, "xlated_prog_len": 16}))
    (table,) = machine(prog).tables()
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert cells["attached to"] == "not seen attached"
    assert cells["held by"] == "something unseen"


def test_what_holds_what() -> None:
    holder = Holder(12, "loader", [3])
    place = Place("tcx", Info({"link_id": 7, "ifindex": 1, "device": "lo", "attach_type": 46}))
    prog = ObjectState("prog", 1, "p", Info({"type": 3, "map_ids": [2], "btf_id": 4}), [place])
    made = machine(
        prog,
        ObjectState("map", 2, "m", Info({"type": 1}), pins=["/sys/fs/bpf/m"]),
        ObjectState("link", 7, "", Info({"type": 11, "prog_id": 1}), [place], holders=[holder]),
        ObjectState("btf", 4, "", Info({"btf_size": 10})),
    )
    held = {(state.kind, state.id): made.held_by(state) for state, _ in made.objects}
    assert held == {
        ("prog", 1): "link id=7",
        ("map", 2): "pin /sys/fs/bpf/m, prog p id=1",
        ("link", 7): "12 (loader)",
        ("btf", 4): "prog p id=1",
    }


def test_runs_a_second_are_those_between_two_looks() -> None:
    def state(runs: int) -> ObjectState:
        info = Info({"type": 3, "run_cnt": runs, "run_time_ns": runs * 7})
        return ObjectState("prog", 1, "p", info)

    earlier = Inventory(1_000_000_000, [state(100)])
    later = Inventory(3_000_000_000, [state(300)])
    table = Machine(later, RecordedFacts({}, 1), earlier).programs()
    cells = dict(zip(table.columns, table.rows[0], strict=True))
    assert (cells["runs"], cells["ns a run"], cells["runs/s"]) == ("300", "7", "100")


def test_what_was_not_seen_is_a_table() -> None:
    (table,) = machine(unseen=(Unseen("pins", "hidden\x1b[1m"),)).tables()
    assert (table.title, table.rows) == ("not seen", [("pins", "hidden\\x1b[1m")])
