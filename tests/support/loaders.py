"""The loaders of tests/tracees/loaders, and what each tells where the kernel does everything.

They are the tracees of other tests; here is made sure that they do what they
say.  On Linux 6.18 without kprobes (see ``EXPECTED`` for the details):

====================  ==========================================================
uprobe_perf           works: uprobe and uretprobe through the PMU
tracepoint_perf       works; needs tracefs
raw_tracepoint        works: by name, with a cookie, by BTF id, by LINK_CREATE
perf_link             works
uprobe_multi          works
kprobe_multi          loads; LINK_CREATE is EOPNOTSUPP (no fprobe)
xdp_link              works: generic mode on lo, driver mode on a veth
tcx                   works
netkit                loads; no such devices (EOPNOTSUPP)
cgroup_attach         works; needs a cgroup v2 mount
iter                  works: a task, a map's elements
netfilter             works
sockmap               works: PROG_ATTACH, and a link (Linux 6.10)
sk_lookup             works
flow_dissector        works
struct_ops            works: a TCP congestion control
freplace              target loads; PROG_LOAD of EXT programs is EPERM
tail_calls            works
map_in_map            works
map_ops               works
scm_rights            works
pidfd_getfd           works
dup_fork_exec         works
pin                   works: on a bpffs of its own
prog_test_run         works
info                  works
ids                   works
bpf_token             works: in a user namespace with a delegated bpffs
stream                works: the kfunc to print with may find no memory
stats                 works
reuseport             works: also SO_ATTACH_BPF
tun                   works; needs /dev/net/tun
kcm                   loads; no AF_KCM sockets (EAFNOSUPPORT)
tracefs_uprobe        works; needs tracefs
errors                works: all refusals come as expected
common_attrs          EINVAL: BPF_COMMON_ATTRS is younger
====================  ==========================================================

A kernel that refuses more makes a test skip; one that refuses less is fine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.support.running import LOADERS

NAMES = sorted(path.stem for path in LOADERS.glob("[a-z]*.py"))

Facts = dict[str, Any]


class Expected(NamedTuple):
    """What a loader tells where the kernel does everything that Linux 6.18 does."""

    check: Callable[[Facts], bool] = lambda facts: True
    always: dict[str, str] = {}  # refusals that are the loader's purpose  # noqa: RUF012
    here: dict[str, str] = {}  # refusals of this kernel, for what it lacks  # noqa: RUF012
    gone: tuple[str, ...] = ()  # names of objects that are gone before the end


def same_object(*facts: Facts) -> bool:
    """Whether these are facts of one object."""
    return len({(fact["id"], fact["name"]) for fact in facts}) == 1


def links(facts: Facts, *types: str) -> bool:
    """Whether the links are of these types, in this order, and of programs of the loader's."""
    progs = {prog["id"] for prog in facts["progs"]}
    return [link["type"] for link in facts["links"]] == list(types) and all(
        link["prog_id"] in progs for link in facts["links"]
    )


def ran(count: int) -> Callable[[Facts], bool]:
    """Whether the program counted so many events."""
    return lambda facts: bool(facts["hits"] == count)


ABSENT = "ENOENT"
EXPECTED: dict[str, Expected] = {
    "uprobe_perf": Expected(ran(6)),
    "tracepoint_perf": Expected(lambda facts: facts["ran"] and facts["number"] > 0),
    "raw_tracepoint": Expected(
        lambda facts: (
            links(facts, *["RAW_TRACEPOINT"] * 4)
            and [link["cookie"] for link in facts["links"]] == [0, 0xC00C1E, 0, 0xB1FFEE]
            and [link["name"] for link in facts["links"]]
            == ["sys_enter", "sys_exit", "sched_switch", "sched_switch"]
        )
    ),
    "perf_link": Expected(
        lambda facts: (
            links(facts, "PERF_EVENT")
            and facts["hits"] == 1
            and facts["links"][0]["offset"] == facts["offset"]
            and facts["links"][0]["cookie"] == 0xC00C1E
            and facts["task_fd_query"]["name"] == facts["path"]
        )
    ),
    "uprobe_multi": Expected(
        lambda facts: (
            links(facts, "UPROBE_MULTI")
            and facts["hits"] == 2
            and facts["links"][0]["name"] == facts["path"]
        )
    ),
    "kprobe_multi": Expected(here={"LINK_CREATE TRACE_KPROBE_MULTI": "EOPNOTSUPP"}),
    "xdp_link": Expected(
        lambda facts: links(facts, "XDP", "XDP") and facts["updated"] == facts["progs"][1]["id"]
    ),
    "tcx": Expected(
        lambda facts: (
            links(facts, "TCX", "TCX")
            and facts["ingress"]["ids"] == [prog["id"] for prog in facts["progs"]]
            and facts["egress"] == {"attached": 1, "detached": 0}
        )
    ),
    "netkit": Expected(here={"netkit device": "EOPNOTSUPP"}),
    "cgroup_attach": Expected(
        lambda facts: (
            links(facts, "CGROUP", "CGROUP")
            and facts["queried"]["ids"] == [facts["progs"][0]["id"]]
            and (facts["left"], facts["effective"]) == (0, 1)
            and facts["updated"] == facts["progs"][2]["id"]
            and facts["links"][0]["cgroup_id"] == facts["cgroup_id"]
            and facts["detached_cgroup_id"] == 0
        ),
        always={"PROG_ATTACH with an old revision": "ESTALE"},
    ),
    "iter": Expected(
        lambda facts: (
            links(facts, "ITER", "ITER")
            and [link["name"] for link in facts["links"]] == ["task", "bpf_map_elem"]
            and facts["links"][1]["map_id"] == facts["maps"][0]["id"]
            and (facts["task"], facts["map_elem"]) == ("task\n" * 2, "elem\n" * 2)
        )
    ),
    "netfilter": Expected(
        lambda facts: links(facts, "NETFILTER") and facts["links"][0]["priority"] == -128
    ),
    "sockmap": Expected(
        lambda facts: (
            links(facts, "SOCKMAP")
            and facts["received"] == "through on_message"
            and facts["left"] == 0
        )
    ),
    "sk_lookup": Expected(
        lambda facts: links(facts, "NETNS") and facts["links"][0]["netns_ino"] == facts["netns_ino"]
    ),
    "flow_dissector": Expected(
        lambda facts: links(facts, "NETNS") and facts["queried"] == [facts["progs"][0]["id"]]
    ),
    "struct_ops": Expected(
        lambda facts: facts["available"] and facts["links"][0]["map_id"] == facts["maps"][0]["id"]
    ),
    "freplace": Expected(
        lambda facts: facts["before"] == 2 and facts.get("after", 1) == 1,
        here={"PROG_LOAD EXT": "EPERM"},
    ),
    "tail_calls": Expected(
        lambda facts: (
            facts["results"] == [100, 101, 102, 101]
            and facts["looked_up"] == facts["progs"][2]["id"]
        )
    ),
    "map_in_map": Expected(
        lambda facts: set(facts["looked_up"].values()) == {facts["inner_ids"][1]}
    ),
    "map_ops": Expected(
        lambda facts: (
            (facts["looked_up"], facts["keys"], facts["taken"]) == (4, [0, 1, 2], 1)
            and (facts["batch"], facts["left"]) == ([*range(100, 108)], [4, 5, 6, 7])
            and (facts["queue"], facts["trie"]) == ([7, 8], 16)
            and facts["percpu"] == [*range(1, facts["cpus"] + 1)]
        ),
        always={
            "next key behind the last": ABSENT,
            "lookup of an absent key": ABSENT,
            "update of a key that exists, NOEXIST": "EEXIST",
            "update without room": "E2BIG",
            "lookup batch to the end": ABSENT,
            "lookup and delete batch to the end": ABSENT,
            "delete from an array": "EINVAL",
            "update beyond an array": "E2BIG",
            "update of a frozen map": "EPERM",
        },
    ),
    "scm_rights": Expected(
        lambda facts: same_object(facts["received"], facts["maps"][0]) and facts["value"] == 4242
    ),
    "pidfd_getfd": Expected(
        lambda facts: same_object(facts["taken"], facts["child"]) and facts["child"]["value"] == 77
    ),
    "dup_fork_exec": Expected(
        lambda facts: (
            same_object(
                facts["maps"][0],
                *(facts[how] for how in ("dup", "reused", "forked", "executed")),
            )
            and facts["value"] == 1
        ),
        gone=("other",),
    ),
    "pin": Expected(
        lambda facts: (
            facts["pinned"] == ["link", "map"]
            and same_object(facts["got"]["prog"], facts["progs"][0])
            and same_object(facts["got"]["map"], facts["maps"][0], facts["relative"])
        ),
        always={"OBJ_PIN where something is": "EEXIST", "OBJ_PIN outside a bpffs": "EPERM"},
    ),
    "prog_test_run": Expected(
        lambda facts: (
            facts["xdp"] == {"retval": 2, "first": 0xAA, "size": 64, "rest_is_same": True}
            and facts["sched_cls"] == {"retval": 5, "mark": 7}
            and facts["syscall"] == {"retval": 42, "ctx": 42}
        ),
        always={"data_out too small": "ENOSPC"},
    ),
    "info": Expected(
        lambda facts: (
            facts["map_ids"] == [facts["maps"][0]["id"]]
            and facts["counts"]["func_info"] == facts["counts"]["prog_tags"] == 2
            and facts["counts"]["line_info"] == 3
            and facts["counts"]["xlated_prog_insns"] == 8 * facts["progs"][0]["insns"]
            and facts["btf_is_ours"]
        )
    ),
    "ids": Expected(
        lambda facts: (
            all(facts["seen"].values())
            and same_object(facts["got"]["PROG"], facts["progs"][0])
            and same_object(facts["got"]["MAP"], facts["maps"][0])
            and same_object(facts["got"]["BTF"], facts["btfs"][0])
            and facts["got"]["LINK"]["id"] == facts["links"][0]["id"]
        ),
        always={
            **{
                f"{kind}_GET_NEXT_ID behind the last": ABSENT
                for kind in ("PROG", "MAP", "BTF", "LINK")
            },
            "PROG_GET_FD_BY_ID of none": ABSENT,
        },
    ),
    "bpf_token": Expected(
        lambda facts: (
            facts["child"]["without"] == "EPERM" and facts["child"]["map"]["name"] == "with_token"
        ),
        always={"TOKEN_CREATE in the first user namespace": "EOPNOTSUPP"},
    ),
    "stream": Expected(
        lambda facts: (
            facts["stdout"] == ("hello, stream\n" if facts.get("printed") == 0 else "")
            and facts["stderr"] == ""
        ),
        always={"PROG_STREAM_READ_BY_FD of no such stream": ABSENT},
    ),
    "stats": Expected(lambda facts: facts["run_cnt"] == 5 and facts["timed"]),
    "reuseport": Expected(lambda facts: facts["received"] == "for the second"),
    "tun": Expected(lambda facts: facts["device"] == "bpfstrace0"),
    "kcm": Expected(here={"socket(AF_KCM)": "EAFNOSUPPORT"}),
    "tracefs_uprobe": Expected(lambda facts: facts["hits"] == 1 and facts["number"] > 0),
    "common_attrs": Expected(
        lambda facts: facts["refused"]["bad"] == "EINVAL",
        always={"bad": "EINVAL"},
        here={"good": "EINVAL"},
    ),
    "errors": Expected(
        lambda facts: (
            "R2 !read_ok" in facts["logs"]["uninitialised register, log level 1"]
            and "; return never_set; @ refused.c:2"
            in facts["logs"]["uninitialised register, log level 2"]
            and len(facts["logs"]["uninitialised register, log of 64 bytes"]) == 63
        ),
        always={
            "PROG_LOAD as nobody": "EPERM",
            "MAP_CREATE as nobody": "EPERM",
            "BTF_LOAD as nobody": "EPERM",
            "perf_event_open of another CPU's events as nobody": "EACCES",
            "PROG_GET_NEXT_ID as nobody": "EPERM",
            "PROG_LOAD with a byte beyond the attr": "E2BIG",
            "MAP_CREATE of more than a page": "E2BIG",
            "perf_event_open with a byte beyond the attr": "E2BIG",
            "command 200": "EINVAL",
            "program type 250": "EINVAL",
            "map type 250": "EINVAL",
            "program flag 1 << 30": "EINVAL",
            "map flag 1 << 30": "EINVAL",
            "program name with a space": "EINVAL",
            "map name with a slash": "EINVAL",
            "program name without an end": "EINVAL",
            "array with keys of 8 bytes": "EINVAL",
            "attach type 250": "EINVAL",
            "attach type of another program type": "EINVAL",
            "BTF that is none": "EINVAL",
            "program of no instructions": "E2BIG",
            "uninitialised register, no log": "EACCES",
            "uninitialised register, log of 64 bytes": "ENOSPC",
            "uninitialised register, log level 1": "EACCES",
            "uninitialised register, log level 2": "EACCES",
            "read beyond the stack": "EACCES",
            "jump out of range": "EINVAL",
            "instruction that is never reached": "EINVAL",
            "unknown opcode": "EINVAL",
            "accepted, but the log is too small": "ENOSPC",
            "raw tracepoint that is none": ABSENT,
            "id of a tracepoint that is none": ABSENT,
            "tracepoint 0x7fffffff": "EINVAL",
            "uprobe in no file": ABSENT,
            "OBJ_GET of no file": ABSENT,
            "fd that is not open": "EBADF",
            "fd of something else": "EINVAL",
            "map fd in a program that is not open": "EBADF",
            "insns at an unreadable address": "EFAULT",
            "license at an unreadable address": "EFAULT",
            "key at an unreadable address": "EFAULT",
            "attr at an unreadable address": "EFAULT",
            "element that exists": "EEXIST",
            "map frozen twice": "EPERM",
            "XDP link where one is": "EBUSY",
            "map beyond all memory": "ENOMEM",
            "no more fds": "EMFILE",
        },
    ),
}


def skip_if_it_lacks_more(facts: Facts, expected: Expected) -> None:
    """Skip where this kernel refuses what Linux 6.18 does."""
    known = expected.always | expected.here
    more = {step: why for step, why in facts["refused"].items() if step not in known}
    if more:
        pytest.skip(f"this kernel refuses {more}")
