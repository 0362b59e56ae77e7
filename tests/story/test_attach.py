"""Every way of attaching: a sentence each, about a real attachment, checked against bpftool.

tests/tracees/loaders attach on this kernel; what it lacks was recorded in a virtual
machine (fixtures/).  ``SAID`` is written from what the loaders do, ``links``,
``perf`` and ``net`` are what bpftool says while they live.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.story.attach.rows import ROWS
from tests.support.bpftool_view import Facts, Traced, bpftool, trace_of, under_bpfstrace
from tests.support.loaders import EXPECTED, NAMES, skip_if_it_lacks_more
from tests.support.needs import needs_tool
from tests.support.running import FIXTURES, Ran, run_cli

needs = pytest.mark.usefixtures("needs_bpf")
Said = tuple[str, str | None, str, str]
UPROBE, TRACEPOINT = "the uprobe PMU", "perf event"


def cgroup(facts: Facts) -> list[Said]:
    """PROG_ATTACH, PROG_DETACH, a link that is updated and detached, links that stay."""
    path, link = facts["cgroup"], "link"
    return [
        ("attached", "egress", f"cgroup_skb egress on {path}", ""),
        ("detached", "egress", f"cgroup_skb egress on {path}", ""),
        ("attached", "first", f"cgroup_inet_sock_create on {path}", link),
        ("replaced", "second", f"cgroup_inet_sock_create on {path}", link),
        ("detached", "second", f"cgroup_inet_sock_create on {path}", link),
        ("attached", "egress", f"cgroup_skb egress on {path}", ""),
        ("attached", "device", f"cgroup_device on {path}", link),
    ]


def map_id(facts: Facts, name: str) -> str:
    (found,) = [each["id"] for each in facts["maps"] if each["name"] == name]
    return f"map {name} id={found}"


SAID: dict[str, Callable[[Facts], list[Said]]] = {
    "cgroup_attach": cgroup,
    "flow_dissector": lambda facts: [
        ("attached", "dissect", "flow_dissector", ""),
        ("detached", "dissect", "flow_dissector", ""),
        ("attached", "dissect", f"flow_dissector on net:[{facts['netns_ino']}]", "link"),
    ],
    "ids": lambda facts: [("attached", "by_id", "cgroup_skb ingress on *", "link")],
    "info": lambda facts: [("attached", "egress", "cgroup_skb egress on *", "link")],
    "iter": lambda facts: [
        ("attached", "each_task", f"iter task over tid {facts['pid']}", "link"),
        ("attached", "each_elem", f"iter bpf_map_elem over {map_id(facts, 'table')}", "link"),
    ],
    "netfilter": lambda facts: [
        ("attached", "nf_accept", "netfilter ipv4 local_in priority -128", "link")
    ],
    "perf_link": lambda facts: [
        ("attached", "on_getpgrp", f"uprobe {facts['path']}:getpgrp", UPROBE)
    ],
    "pin": lambda facts: [("attached", "kept_prog", "cgroup_skb ingress on *", "link")],
    "raw_tracepoint": lambda facts: [
        ("attached", "by_name", "raw tracepoint sys_enter", ""),
        ("attached", "by_name", "raw tracepoint sys_exit", ""),
        ("attached", "by_id", "tp_btf sched_switch", ""),
        ("attached", "by_link", "tp_btf sched_switch", "link"),
    ],
    "reuseport": lambda facts: [
        ("attached", "accept_all", "socket filter on socket:*", ""),
        ("attached", "take_second", "reuseport group of socket:*", ""),
        ("detached", "accept_all", "socket filter on socket:*", ""),
    ],
    "sk_lookup": lambda facts: [
        ("attached", "choose_socket", f"sk_lookup on net:[{facts['netns_ino']}]", "link")
    ],
    "sockmap": lambda facts: [
        ("attached", "on_message", f"sk_msg_verdict on {map_id(facts, 'socks')}", ""),
        ("attached", "on_stream", f"sk_skb_stream_verdict on {map_id(facts, 'socks')}", ""),
        ("detached", "on_stream", f"sk_skb_stream_verdict on {map_id(facts, 'socks')}", ""),
        ("attached", "on_stream", f"sk_skb_stream_verdict on {map_id(facts, 'socks')}", "link"),
    ],
    "struct_ops": lambda facts: [
        ("attached", "congestion", "struct_ops tcp_congestion_ops", "link")
    ],
    "tail_calls": lambda facts: [
        ("attached", "first", f"tail call 0 of {map_id(facts, 'jumps')}", "map"),
        ("attached", "last", f"tail call 2 of {map_id(facts, 'jumps')}", "map"),
        ("detached", "last", f"tail call 2 of {map_id(facts, 'jumps')}", "map"),
    ],
    "tcx": lambda facts: [
        ("attached", "second", "tcx ingress on lo", "link"),
        ("attached", "first", "tcx ingress on lo", "link"),
        ("attached", "first", "tcx egress on lo", ""),
        ("detached", "first", "tcx egress on lo", ""),
    ],
    "tracefs_uprobe": lambda facts: [
        ("attached", "on_getppid", f"uprobe {facts['path']}:getppid", "tracefs")
    ],
    "tracepoint_perf": lambda facts: [
        ("attached", "on_getpgid", f"tracepoint {facts['tracepoint']}", TRACEPOINT)
    ],
    "tun": lambda facts: [
        ("attached", "steer", f"tun steering on {facts['device']}", ""),
        ("attached", "keep_all", f"tun filter on {facts['device']}", ""),
        ("detached", "steer", f"tun steering on {facts['device']}", ""),
    ],
    "uprobe_multi": lambda facts: [
        ("attached", "on_any", f"uprobe_multi {facts['path']}:getppid, getpgrp, getegid", "link")
    ],
    "uprobe_perf": lambda facts: [
        ("attached", "on_getppid", f"uprobe {facts['path']}:getppid", UPROBE),
        ("attached", "on_getppid", f"uretprobe {facts['path']}:getppid", UPROBE),
        ("disabled", "on_getppid", f"uretprobe {facts['path']}:getppid", UPROBE),
    ],
    "xdp_link": lambda facts: [
        ("attached", "xdp_pass", "xdp on lo (skb)", "link"),
        ("replaced", "xdp_drop", "xdp on lo (skb)", "link"),
        ("attached", "xdp_pass", "xdp on veth_a (drv)", "link"),
    ],
}
"""What the loaders attach; * stands for what they do not tell."""
NOTHING_HERE = {"freplace", "kcm", "kprobe_multi", "netkit"}
"""What this kernel refuses: the fixtures show them."""


def matches(said: Said, expected: Said) -> bool:
    target = re.escape(expected[2]).replace(r"\*", ".+")
    return (
        said[:2] == expected[:2]
        and said[3] == expected[3]
        and re.fullmatch(target, said[2]) is not None
    )


@pytest.fixture
def traced_loader(name: str, tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """The trace of the loader that a test is about."""
    needs_tool("bpftool")
    trace = trace_of(name, tmp_path_factory)
    skip_if_it_lacks_more(trace.facts, EXPECTED[name])
    return trace


@needs
@pytest.mark.parametrize("name", SAID)
def test_what_is_attached_is_said(name: str, traced_loader: Traced) -> None:
    said, expected = traced_loader.attachments, SAID[name](traced_loader.facts)
    assert len(said) == len(expected), said
    for ours, theirs in zip(said, expected, strict=True):
        assert matches(ours, theirs), (ours, theirs)


@needs
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SAID) - NOTHING_HERE - {"errors"}))
def test_nothing_is_attached_where_nothing_is(name: str, traced_loader: Traced) -> None:
    assert traced_loader.attachments == []


@needs
@pytest.mark.parametrize("name", SAID)
def test_the_text_has_each_sentence_once(name: str, traced_loader: Traced) -> None:
    text = traced_loader.ran.text
    for verb, prog, target, via in traced_loader.attachments:
        arrow = "-x" if verb == "detached" else "->"
        tail = "" if via in ("", "link", "map") else f" via {via}"
        bound = r"(, CPUs? [\d,-]+)?(, pid \d+)?"
        what = rf"{re.escape(target)}{bound}{re.escape(tail)}"
        line = rf"^{verb}  (map )?{prog}( \(.*\))? {arrow} {what}$"
        said = traced_loader.attachments
        same = [each for each in said if each[:3] == (verb, prog, target)]
        assert len(re.findall(line, text, re.MULTILINE)) == len(same)


@needs
@pytest.mark.parametrize("name", SAID)
def test_programs_are_those_of_the_loader(name: str, traced_loader: Traced) -> None:
    progs = {prog["name"]: prog for prog in traced_loader.facts.get("progs", ())}
    for line in traced_loader.ran.attachments():
        prog = line["prog"]
        if prog["kind"] == "prog":
            theirs = progs[prog["name"]]
            assert (prog["id"], prog["tag"]) == (theirs["id"], theirs["tag"])
            assert prog["type"] == theirs["type"].lower()


@needs
@pytest.mark.parametrize("name", SAID)
def test_links_are_bpftools(name: str, traced_loader: Traced) -> None:
    """Each link that bpftool sees of the loader's programs was told, with its program."""
    own = {prog["id"] for prog in traced_loader.facts.get("progs", ())}
    theirs = {
        number: link
        for number, link in traced_loader.view.links.items()
        if link.get("prog_id") in own
    }
    told: dict[int, dict[str, Any]] = {}
    for line in traced_loader.ran.attachments():
        if "link" in line:
            told[line["link"]["id"]] = line  # the last word counts
    assert set(theirs) <= set(told)
    for number, link in theirs.items():
        line = told[number]
        assert line["prog"]["id"] == link["prog_id"]
        if isinstance(link["type"], str):
            assert line["link"]["type"] == link["type"]
        if "tp_name" in link:
            assert line["target"] in (
                f"raw tracepoint {link['tp_name']}", f"tp_btf {link['tp_name']}"
            )  # fmt: skip
        if "target_name" in link and link["type"] == "iter":
            assert line["target"].startswith(f"iter {link['target_name']}")
        if "map_id" in link:
            assert line["target"].endswith(f"id={link['map_id']}")
        if "netns_ino" in link:
            assert line["target"].endswith(f"net:[{link['netns_ino']}]")
        if "devname" in link:
            assert line["target"].split(" (")[0].endswith(f"on {link['devname']}")


@needs
@pytest.mark.parametrize("name", ["tracepoint_perf", "uprobe_perf", "tracefs_uprobe", "perf_link"])
def test_perf_events_are_bpftools(name: str, traced_loader: Traced) -> None:
    """bpftool perf: pid, fd and program; what it probes, with the offset that the ELF file has."""
    facts = traced_loader.facts
    theirs = [each for each in traced_loader.view.perf if each["pid"] == facts["pid"]]
    attached = [each for each in traced_loader.attachments if each[0] == "attached"]
    assert len(theirs) == len(attached) == len(facts["events"])
    for mine, event, said in zip(facts["events"], theirs, attached, strict=True):
        assert event["fd"] == mine["fd"]
        assert event["prog_id"] == facts["progs"][0]["id"]
        if event["fd_type"] == "tracepoint":
            assert said[2] == f"tracepoint syscalls:{event['tracepoint']}"
        else:
            assert said[2].startswith(f"{event['fd_type']} {event['filename']}:")
            assert event["offset"] == facts["offset"]


@needs
def test_cgroup_is_bpftools(tmp_path_factory: pytest.TempPathFactory) -> None:
    needs_tool("bpftool")
    from tests.support.bpftool_view import loader

    with loader("cgroup_attach", tmp_path_factory.mktemp("cgroup")) as trace:
        skip_if_it_lacks_more(trace.facts, EXPECTED["cgroup_attach"])
        shown = bpftool("cgroup", "show", trace.facts["cgroup"])
    standing: dict[str, str] = {}
    for verb, prog, target, _ in trace.attachments:
        standing[target] = "" if verb == "detached" else str(prog)
    words = {"egress": "cgroup_skb egress", "cgroup_inet_egress": "cgroup_skb egress"}
    for entry in shown:
        kind = words.get(entry["attach_type"], entry["attach_type"])
        kind = {"device": "cgroup_device"}.get(kind, kind)
        assert standing.pop(f"{kind} on {trace.facts['cgroup']}") == entry["name"]
    assert not any(standing.values())


# ---------------------------------------------------------------- netlink


def netlink_trace(folder: Path, script: str) -> tuple[Ran, list[Any]]:
    """A shell script with a veth pair in a network namespace of its own, and bpftool net's view.

    ``view`` in the script is where bpftool looks.
    """
    needs_tool("ip", "tc", "clang", "bpftool", "unshare")
    for name in ("pass", "letgo"):
        kind, result = {"pass": ("xdp", 2), "letgo": ("tc", 0)}[name]
        (folder / f"{name}.c").write_text(
            '__attribute__((section("license"), used)) char l[] = "GPL";\n'
            f'__attribute__((section("{kind}"), used)) int {name}(void *ctx) {{ return {result}; }}'
        )
        subprocess.run(
            ["clang", "-O2", "-g", "-target", "bpf", "-c", f"{name}.c", "-o", f"{name}.o"],
            cwd=folder,
            check=True,
        )
    shown = folder / "shown"
    lines = [
        f"cd {folder}; set -e; mount -t bpf bpf /sys/fs/bpf",
        "ip link add v0 type veth peer name v1",
        f"view() {{ bpftool -j net show >>{shown}; }}",
        script,
    ]
    program = ["unshare", "--net", "--mount", "sh", "-c", "\n".join(lines)]
    with under_bpfstrace(folder, ["-e", "trace=netlink"], program) as (_, ran):
        pass
    assert ran.code == 0, ran.stderr + ran.text
    import json

    views = [json.loads(line)[0] for line in shown.read_text().replace("][", "]\n[").splitlines()]
    return ran, views


def told(ran: Ran) -> list[tuple[str, str, str]]:
    return [
        (line["verb"], line["prog"]["name"], line["target"])
        for line in ran.attachments()
        if line["via"] == "netlink"
    ]


@needs
def test_xdp_over_netlink_by_iproute2(tmp_path: Path) -> None:
    ran, (view, after) = netlink_trace(
        tmp_path,
        """ip link set v0 xdp obj pass.o sec xdp
        ip link set v1 xdpgeneric obj pass.o sec xdp
        view
        ip link set v0 xdp obj pass.o sec xdp && exit 1 # there is one already
        ip -force link set v0 xdp obj pass.o sec xdp
        ip link set v0 xdp off
        view""",
    )
    assert told(ran) == [
        ("attached", "pass", "xdp on v0 (drv)"),
        ("attached", "pass", "xdp on v1 (skb)"),
        ("replaced", "pass", "xdp on v0 (drv)"),
        ("detached", "pass", "xdp on v0 (drv)"),
    ]
    modes = {"drv": "driver", "skb": "generic"}
    lines = ran.attachments()
    said = {
        (each["target"].split()[2], modes[each["target"][-4:-1]], each["prog"]["id"])
        for each in lines[:2]
    }
    assert said == {(each["devname"], each["mode"], each["id"]) for each in view["xdp"]}
    assert [each["devname"] for each in after["xdp"]] == ["v1"]
    roles = [step["role"] for step in lines[0]["steps"]]
    assert roles == ["load", "attach", "answer"]


@needs
def test_tc_over_netlink(tmp_path: Path) -> None:
    ran, (view, after) = netlink_trace(
        tmp_path,
        """tc qdisc add dev v0 clsact
        tc filter add dev v0 ingress bpf da obj letgo.o sec tc
        tc filter add dev v0 egress bpf obj letgo.o sec tc
        view
        tc filter del dev v0 egress
        view
        tc qdisc del dev v0 clsact""",
    )
    assert told(ran) == [
        ("attached", "letgo", "tc ingress on v0"),
        ("attached", "letgo", "tc egress on v0"),
        ("detached", "letgo", "tc egress on v0"),
        ("detached", "letgo", "tc ingress on v0"),
    ]
    said = {(each["target"], each["prog"]["id"]) for each in ran.attachments()[:2]}
    assert said == {
        (f"tc {each['kind'].split('/')[1]} on {each['devname']}", each["id"]) for each in view["tc"]
    }
    assert len(after["tc"]) == 1


@needs
def test_xdp_over_netlink_by_bpftool_and_libbpf(tmp_path: Path) -> None:
    ran, (view,) = netlink_trace(
        tmp_path,
        """bpftool prog load pass.o /sys/fs/bpf/pinned
        bpftool net attach xdpgeneric pinned /sys/fs/bpf/pinned dev v1
        view
        bpftool net detach xdpgeneric dev v1""",
    )
    assert told(ran) == [
        ("attached", "pass", "xdp on v1 (skb)"),
        ("detached", "pass", "xdp on v1 (skb)"),
    ]
    assert ran.attachments()[0]["prog"]["id"] == view["xdp"][0]["id"]


@needs
def test_netlink_is_watched_only_where_asked_for(tmp_path: Path) -> None:
    """And only on netlink: what goes over other sockets is nobody's business."""
    done = run_cli(
        "-f", "-e", "trace=netlink", "-o", str(tmp_path / "with"), "python3", "-c",
        "import socket; a, b = socket.socketpair(); a.send(b'hello'); b.recv(9);"
        "n = socket.socket(16, 3, 0); n.bind((0, 0)); n.send(bytes(16))",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "with").read_text()
    assert "hello" not in text
    assert text.count("sendto(") == 1
    done = run_cli("-f", "-o", str(tmp_path / "without"), "ip", "link", "show")
    assert "send" not in (tmp_path / "without").read_text()


# ---------------------------------------------------------------- fixtures


def replayed(name: str) -> str:
    trace = next((FIXTURES / name).glob("trace.jsonl*"), None)
    if trace is None:
        pytest.skip(f"fixtures/{name} has no recording")
    done = run_cli("replay", str(trace))
    assert done.returncode == 0, done.stderr
    return done.stdout


RECORDED = {
    "bcc-kprobe-hello": [r"hello_world \(.*\) -> kprobe do_sys_openat2 via the kprobe PMU"],
    "bcc-kretprobe-fentry": [
        r"returned \(.*\) -> kretprobe do_sys_openat2 via the kprobe PMU",
        r"do_unlinkat \(tracing, .*\) -> fentry do_unlinkat",
        r"do_unlinkat \(tracing, .*\) -> fexit do_unlinkat",
    ],
    "bpftrace-kprobe": [r".*do_nanosleep.* -> k(ret)?probe do_nanosleep via the kprobe PMU"],
    "libbpf-vfsstat": [r"\w+ \(.*\) -> fentry vfs_read"],
    "freplace": [r"new_verdict \(ext, .*\) -> freplace verdict of prog xdp_main id=\d+"],
    "kprobe-multi": [r"on_any \(.*\) -> kprobe_multi do_sys_openat2, vfs_read"],
    "netkit": [r"nk_pass \(sched_cls, .*\) -> netkit primary on primary"],
    "kcm": [r"parse_length \(.*\) -> kcm parser of socket:\[\d+\]"],
    "xdp-link": [r"pass \(.*\) -> xdp on veth0 \((default|drv)\)"],
    "cgroup-attach": [r"\w+ \(cgroup_skb, .*\) -> cgroup_skb egress on /sys/fs/cgroup\S*"],
    "bpftrace-profile": [
        r".* \(perf_event, .*\) -> software cpu-clock 49 Hz, CPUs 0-1 via perf event"
    ],
}


@pytest.mark.parametrize("name", RECORDED)
def test_what_was_recorded_elsewhere_is_said(name: str) -> None:
    text = replayed(name)
    for sentence in RECORDED[name]:
        assert re.search(rf"^attached  {sentence}$", text, re.MULTILINE), text[-3000:]


def test_each_row_has_a_test() -> None:
    """The commands that attach, and who of the above makes them."""
    assert set(ROWS) == {
        "BPF_MAP_UPDATE_ELEM",  # tail_calls, struct_ops
        "BPF_MAP_DELETE_ELEM",  # tail_calls
        "TUNSETSTEERINGEBPF",  # tun
        "TUNSETFILTEREBPF",
        "SIOCKCMATTACH",  # kcm
        "setsockopt",  # reuseport
        "PERF_EVENT_IOC_SET_BPF",  # uprobe_perf and others
        "BPF_RAW_TRACEPOINT_OPEN",  # raw_tracepoint
        "BPF_LINK_CREATE",  # perf_link and others
        "BPF_PROG_ATTACH",  # cgroup_attach, sockmap, tcx, flow_dissector
        "BPF_PROG_DETACH",
        "BPF_LINK_UPDATE",  # cgroup_attach, xdp_link
        "BPF_LINK_DETACH",
    }
