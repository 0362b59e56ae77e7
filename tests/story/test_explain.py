"""Explanations of refusals, each provoked for real on the running kernel.

tests/tracees/refusals.py provokes; what is expected is written here by hand, from what
the case does, or comes from how the kernel itself behaves: a capability that is
said to be lacking is one that, added, makes the kernel accept.
"""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.support.needs import needs_tool
from tests.support.refusals import WORKLOAD, cases, group, refused, why
from tests.support.running import LOADERS, Ran, run_cli

pytestmark = pytest.mark.usefixtures("needs_bpf")
CAPS = ("CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN")


# ---------------------------------------------------------------- capabilities


def test_the_capabilities_that_are_lacking(traced: Callable[..., Ran]) -> None:
    """For every program and map type and every set of capabilities.

    The kernel accepts a type with a set of capabilities if it does not say EPERM.
    What is said to be lacking must be what, added, makes it accept, and no less.
    """
    ran = group(traced, "capabilities")
    outcome: dict[tuple[str, frozenset[str]], bool] = {}
    for name, number, caps in json.loads(ran.stdout):
        outcome[(name, frozenset(caps))] = number != errno.EPERM
    checked = 0
    for (name, number, held), line in cases(ran):
        if number != errno.EPERM:
            continue
        said = why(line)
        caps = frozenset(held)
        if name.startswith("command"):
            assert said.endswith("needs CAP_SYS_ADMIN, which the caller lacks"), (name, said)
            continue
        # The smallest sets that would do, by the kernel's own answers.
        enough = [
            frozenset(more)
            for count in range(1, 4)
            for more in combinations(sorted(set(CAPS) - caps), count)
            if outcome[(name, caps | frozenset(more))]
        ]
        if not outcome[(name, frozenset(CAPS))]:
            # Refused for another reason too: that must not be put down to capabilities.
            assert caps != frozenset(CAPS) or "CAP_" not in said, (name, said)
            continue
        needed = set(re.findall(r"CAP_\w+", said.split(" (or CAP_SYS_ADMIN)")[0]))
        assert needed - caps == enough[0], (name, held, said)
        assert len(enough[0]) == len(min(enough, key=len))
        checked += 1
    assert checked > 150


def test_a_user_namespace_is_said(traced: Callable[..., Ran]) -> None:
    needs_tool("unshare")
    ran = traced([], "unshare", "--user", "--map-root-user", sys.executable, WORKLOAD, "maps")
    if ran.code != 0 and not refused(ran):
        pytest.skip("no user namespaces here")
    assert "in the first user namespace" in why(refused(ran)[0])


# ---------------------------------------------------------------- maps


def test_numbers_of_maps(traced: Callable[..., Ran]) -> None:
    """Each map type with one number changed: what the kernel refuses, we say why.

    The unchanged map is accepted, so the changed number is the reason; it must be
    named, and with the case's own value.
    """
    ran = group(traced, "maps")
    for name, number in json.loads(ran.stdout):
        assert not name.endswith("good") or number == 0, name
    lacking = []
    for (name, number), line in cases(ran):
        if number != errno.EINVAL:
            continue
        field = name.split()[1]
        said = why(line)
        if field == "map_flags":
            named = re.search(r"BPF_F_|map_flags has unknown bits: 0x40000000", said) is not None
        else:
            named = field in said
        if not named:
            lacking.append((name, said))
    assert not lacking, "\n".join(map(str, lacking))


# ---------------------------------------------------------------- one by one

EXPECTED: dict[str, str] = {
    "beyond the attr": "this kernel's bpf_attr ends at {bpf_attr}; not zero beyond it: byte 170",
    "more than a page": "attr is 5000 bytes, more than a page",
    "no instructions": "insn_cnt is 0",
    "index past the end": "index 7 is past the end: map array id={id} has 2 entries",
    "full map": "map table id={id} is full: max_entries is 1",
    "full queue": "map queue id={id} is full: max_entries is 1",
    "huge element": "key_size + value_size = 5242884 is more than the kernel allocates for one"
    " element (4 MiB)",
    "command": "this kernel knows no bpf command 200",
    "after the last field": "byte 12 of attr is not zero, after the last field of BPF_MAP_FREEZE",
    "program type": "this kernel knows no bpf_prog_type 250",
    "map type": "this kernel knows no bpf_map_type 250",
    "program flags": "prog_flags has unknown bits: 0x40000000",
    "name with a space": "prog_name holds ' ': only letters, digits, _ and . may be in a name",
    "name without an end": "prog_name has no NUL within its 16 bytes",
    "map name": "map_name holds '/': only letters, digits, _ and . may be in a name",
    "attach type for loading": "a cgroup_sock_addr program is not for expected_attach_type 250",
    "attach type missing": "a cgroup_sockopt program is for expected_attach_type"
    " BPF_CGROUP_SETSOCKOPT or BPF_CGROUP_GETSOCKOPT, not BPF_CGROUP_INET_INGRESS",
    "attach type not wanted": "a syscall program takes no expected_attach_type, and has 3",
    "attach_btf_id not wanted": "a socket_filter program takes no attach_btf_id",
    "log_level": "log_level 64 has unknown bits: 0x40",
    "log_buf without size": "log_buf is given with a log_size of 0",
    "log_size without buffer": "log_size is 128, but log_buf is NULL",
    "fd not open": "map_fd 999 is not open",
    "fd of a file": "map_fd {map_fd} is /dev/null, not a map",
    "fd of a program": "map_fd {map_fd} is a program, not a map",
    "map fd in the program": "instruction 0 names map fd 999, which is not open",
    "insns unreadable": "insns points to 0x1, which cannot be read",
    "license unreadable": "license points to 0x1, which cannot be read",
    "key unreadable": "key points to 0x1, which cannot be read",
    "attr unreadable": "the attr itself, at 0x1, cannot be read",
    "key exists": "the key is in map table id={id} already, and BPF_NOEXIST asks for a new one",
    "array element exists": "every element of an array exists, and BPF_NOEXIST asks for none",
    "key must exist": "the key is not in map table id={id}, and BPF_EXIST asks for one that is",
    "key not there": "the key is not in map table id={id}",
    "index not there": "index 7 is past the end: map array id={id} has 2 entries",
    "last key": "that was the last key",
    "lookup flags": "a lookup cannot have BPF_NOEXIST",
    "delete from array": "elements of an array cannot be deleted",
    "frozen": "map frozen id={id} is frozen: it can be read only, by system calls",
    "frozen already": "map frozen id={id} is frozen: it can be read only, by system calls",
    "frozen while it is mapped": "map mapped id={id} is mapped for writing, or is being written to:"
    " it cannot be frozen now",
    "read-only fd": "the fd of map reader id={id} is for reading only: BPF_F_RDONLY",
    "pin not on bpffs": "/tmp is on {tmp}; pins live on a bpf file system (mount -t bpf)",
    "pin in no directory": "there is no directory /sys/fs/bpf/no",
    "pin taken": "{more} exists already",
    "no pin": "nothing is pinned at /sys/fs/bpf/no_such_pin",
    "directory for a pin": "/sys/fs/bpf is a directory, not a pin",
    "file for a pin": "/proc/version is on proc, not on a bpf file system: it is no pin",
    "raw tracepoint": "there is no tracepoint no_such_tracepoint",
    "wrong program for link": "BPF_XDP takes an xdp program, not a socket_filter one",
    "loaded for another hook": "prog connect id={id} was loaded for BPF_CGROUP_INET4_CONNECT, and"
    " is to be attached as BPF_CGROUP_INET6_CONNECT",
    "flags are right, the name is not": "prog_name holds ' ': only letters, digits, _ and . may be"
    " in a name",
    "unknown attach type": "this kernel knows no bpf_attach_type 250",
    "no device": "there is no network device of index 99999",
    "no device to query": "there is no network device of index 99999",
    "no file to probe": "there is no file /no/such/file",
    "no task to probe": "there is no task 4194303",
    "delete from bloom filter": "maps of type bloom_filter have no BPF_MAP_DELETE_ELEM",
    "short packet": "data_size_in 4 is less than an Ethernet header (14)",
    "not to be test run": "kprobe programs cannot be test run",
    "unknown id": "no program has id 2147483632 any more, or yet",
    "no batches": "maps of type queue have no BPF_MAP_LOOKUP_BATCH",
    "not BTF": "the blob does not begin with BTF's magic number: 00 00",
    "perf size": "this kernel's perf_event_attr ends at {perf_event_attr}; not zero beyond it:"
    " byte 199",
    "perf no task and no cpu": "pid and cpu are both -1: an event needs a task or a CPU",
    "perf no such cpu": "there is no CPU 4000: {possible} are possible",
    "perf no such task": "there is no task 4194303",
    "perf no such type": "no PMU of this machine has type 134217727",
    "perf no such tracepoint": "no tracepoint has id 2147483647",
    "perf no such file": "there is no file /no/such/file",
    "program for another event": "a tracepoint program does not fit the event software cpu-clock:"
    " that takes a perf_event one",
    "no program for an event": "arg {arg} is /dev/null, not a program",
    "event with a program": "the event tracepoint syscalls:sys_enter_getpgid has prog tp id={more}"
    " already",
    "signal": "a signal came while the verifier was at work; loaders try again",
}


def kernel_size(ctype: str) -> int:
    """sizeof(ctype), by bpftool's own reading of the kernel's BTF."""
    needs_tool("bpftool")
    dump = subprocess.run(
        ["bpftool", "-j", "btf", "dump", "file", "/sys/kernel/btf/vmlinux"],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    kind, name = ctype.split()
    for found in re.finditer(rb'\{"id":\d+,"kind":"%s","name":"%s","size":(\d+)' % (
        kind.upper().encode(), name.encode()), dump):  # fmt: skip
        return int(found[1])
    raise LookupError(ctype)


@pytest.fixture
def single(traced: Callable[..., Ran]) -> list[tuple[list[Any], dict[str, Any]]]:
    """The group of all other reasons."""
    return cases(group(traced, "single"))


def test_every_other_reason(single: list[tuple[list[Any], dict[str, Any]]]) -> None:
    figures = {
        "bpf_attr": kernel_size("union bpf_attr"),
        "perf_event_attr": kernel_size("struct perf_event_attr"),
        "possible": Path("/sys/devices/system/cpu/possible").read_text().strip(),
        "tmp": subprocess.run(
            ["stat", "-f", "-c", "%T", "/tmp"], capture_output=True, text=True, check=True
        ).stdout.strip().replace("ext2/ext3", "ext4"),
    }  # fmt: skip
    wrong = []
    names = [entry[0] for entry, _ in single]
    for (name, _number, *more), line in single:
        fields: dict[str, Any] = {**figures, "more": more[0] if more else None}
        for made in line.get("fds", {}).values():
            if made.get("id") is not None:
                fields.setdefault("id", made["id"])
        attr = line["args"].get("attr")
        fields["map_fd"] = attr.get("map_fd") if isinstance(attr, dict) else None
        fields["arg"] = line["args"].get("arg")
        expected = EXPECTED[name].format(**fields)
        said = line.get("explanation", [""])[0]
        if said != expected:
            wrong.append((name, said, expected))
    assert not wrong, "\n".join(map(str, wrong))
    assert set(EXPECTED) == set(names)


def test_replay_says_the_same(traced: Callable[..., Ran], tmp_path: Path) -> None:
    ran = group(traced, "single")
    done = run_cli("replay", str(tmp_path / "trace.jsonl"))
    assert done.stdout == ran.text
    assert ran.text.count("\n  why: ") >= len(EXPECTED)


LACKING: dict[str, str] = {
    "query": "BPF_PROG_QUERY needs CAP_NET_ADMIN (or CAP_SYS_ADMIN), which the caller lacks",
    "arena": "verifier: CAP_BPF and CAP_PERFMON are required to use arena",
    "tracepoint": "kernel.perf_event_paranoid is {level} and the caller has no CAP_PERFMON (or"
    " CAP_SYS_ADMIN): no tracepoints of the kernel's",
}


def test_what_takes_more_than_cap_bpf(traced: Callable[..., Ran]) -> None:
    level = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    found = cases(group(traced, "lacking"))
    for (name, number), line in found:
        if name == "tracepoint" and number != errno.EPERM:
            continue  # a level above 2 (Debian's, Android's) refuses all events with EACCES
        assert line["explanation"][0] == LACKING[name].format(level=level), name
    if -1 < level <= 2:
        assert {entry[0] for entry, _ in found} == set(LACKING)


# ---------------------------------------------------------------- perf events as nobody


def test_paranoid(traced: Callable[..., Ran]) -> None:
    needs_tool("setpriv", "perf")
    level = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    if level < 2:
        pytest.skip(f"kernel.perf_event_paranoid is {level}")
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    ran = traced(["-f"], *nobody, "perf", "stat", "-e", "cpu-clock:k", "-a", "true")
    found = [line for line in refused(ran) if line["errno"] == "EACCES"]
    assert found
    assert why(found[0]).startswith(
        f"kernel.perf_event_paranoid is {level} and the caller has no CAP_PERFMON"
    )


def test_an_unprivileged_loader(traced: Callable[..., Ran]) -> None:
    """All that it does is a probe that is refused: the fold says why."""
    needs_tool("setpriv", "opensnoop")
    disabled = int(Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text())
    nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    ran = traced([], *nobody, "opensnoop")
    assert "refused with EPERM" in ran.text
    assert "a tracepoint program needs CAP_BPF and CAP_PERFMON" in ran.text
    assert ("; kernel.unprivileged_bpf_disabled is set" in ran.text) == bool(disabled)


# ---------------------------------------------------------------- source

BAD_C = """
#define SEC(name) __attribute__((section(name), used))
struct ctx { int len; };
SEC("socket") int reads_too_far(struct ctx *ctx)
{
	int *far = (int *)((char *)ctx + 4000);
	return *far;
}
char _license[] SEC("license") = "GPL";
"""


def test_a_source_line_and_a_retry(traced: Callable[..., Ran], tmp_path: Path) -> None:
    """libbpf loads without a log first, then again with one: one story, with the C line."""
    needs_tool("clang", "bpftool")
    source = tmp_path / "bad.bpf.c"
    source.write_text(BAD_C)
    built = subprocess.run(
        ["clang", "-target", "bpf", "-g", "-O2", "-c", source.name, "-o", "bad.o"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    ran = traced([], "bpftool", "prog", "load", str(tmp_path / "bad.o"), "/sys/fs/bpf/no_such")
    loads = [
        line
        for line in ran.calls("BPF_PROG_LOAD")
        if line["args"]["attr"].get("prog_name") == "reads_too_far"
    ]
    assert len(loads) > 1, ran.text
    again = loads[1]["retry"]
    assert (again["attempt"], again["first"]) == (2, loads[0]["seq"])
    assert again["changed"]["log_level"][0] == "0"
    assert loads[1]["explanation"][0].startswith("verifier: ")
    number = BAD_C.split("\n").index("\treturn *far;") + 1
    assert f"bad.bpf.c:{number}:" in why(loads[1])
    assert "return *far;" in why(loads[1])
    assert "again: attempt 2 of this, after " in ran.text
    assert ran.text.count("reads_too_far(") <= 2  # the listing stands at the first attempt only


def test_a_log_that_does_not_fit(traced: Callable[..., Ran]) -> None:
    loader = LOADERS / "errors.py"
    if not loader.exists():
        pytest.skip("tests/tracees/loaders/errors.py is not there")
    ran = traced(["-f"], sys.executable, str(loader))
    found = [line for line in refused(ran) if line["errno"] == "ENOSPC"]
    assert found
    for line in found:
        size = line["args"]["attr"]["log_size"]
        true = line["args"]["attr"]["log_true_size"]["after"]
        assert true > size
        assert why(line) == f"the log needs {true} bytes, log_size is {size}"
