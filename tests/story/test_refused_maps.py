"""Why a map was not made, or not put into another: each case for real.

Where a table says what types do, the kernel is asked of every type that it makes.
"""

from __future__ import annotations

import errno
import json
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bpftrace_sys.story.explain import explain
from bpftrace_sys.story.explain.held import NOT_INSIDE, OF_ONE_LENGTH
from bpftrace_sys.story.explain.map_btf import NO_BTF
from bpftrace_sys.story.model import Model
from bpftrace_sys.trace.facts import RecordedFacts
from tests.support.refusals import cases, group, noted, refusal, why
from tests.support.running import TRACEES, Ran, run_cli

pytestmark = pytest.mark.usefixtures("needs_bpf")
WORKLOAD = str(TRACEES / "refused_maps.py")

SIZES = {
    "no list without elements": "a lru_hash allocates its elements first: no BPF_F_NO_PREALLOC",
    "a list per CPU on a node": "BPF_F_NO_COMMON_LRU and BPF_F_NUMA_NODE exclude each other",
    "no such node": "NUMA node 999 is not online: {nodes} is",
    "neither way": "BPF_F_RDONLY_PROG and BPF_F_WRONLY_PROG exclude each other",
    "too deep": "value_size {deep} is {frames} frames; kernel.perf_event_max_stack is {depth}",
    "too deep by build id": "value_size {deeper} is {frames} frames; kernel.perf_event_max_stack "
    "is {depth}",
    "too much for a CPU": "value_size 40000 is more than the 32 KiB that the kernel allocates for "
    "each CPU",
    "too much in a hash for a CPU": "value_size 32769 is more than the 32 KiB that the kernel "
    "allocates for each CPU",
    "too much in a queue": "value_size 5242880 is more than the kernel allocates at once (4 MiB)",
    "too long a key": "key_size 513 is more than a program's stack of 512 bytes",
    "too many buckets": "max_entries 134217729 is more than a hash has buckets for (2^27)",
    "too many traces": "max_entries 2147483649 is more than a stack_trace has buckets for (2^31)",
    "too many CPUs": "max_entries of a cpumap is at most CONFIG_NR_CPUS, {cpus}, not 1048576",
    "too large an arena": "max_entries 1048577 is more than the pages of an arena (4 GiB)",
    "too much in a storage": "value_size 1048576 is more than a storage holds (64 KiB)",
    "more than there is": "the 1073741824 entries of an array take at least 1048576.0 GiB, and "
    "the machine has {memory}",
    "extra": "map_extra is for bloom_filter and arena maps; here it is 0x3",
    "extra functions": "map_extra 0x10 is more than 15 hash functions",
}
BTF = {
    "a key alone": "btf_key_type_id is 1 and btf_value_type_id 0: a key's BTF needs a value's",
    "a value alone": "btf_key_type_id is 0: a hash has BTF of both, key and value",
    "an array's value alone": "btf_key_type_id is 0: an array has BTF of both, key and value",
    "no section": "btf_value_type_id 2 stands without a key's: it must be a DATASEC, as .data",
    "a small value": "btf_value_type_id 1 (int) has 4 bytes, and value_size is 8",
    "a large key": "btf_key_type_id 2 (eight) has 8 bytes, and key_size is 4",
    "a function as a value": "btf_value_type_id 4 is no type of that BTF that has a size",
    "no such type": "btf_value_type_id 99 is no type of that BTF that has a size",
    "the kernel's": "btf_vmlinux_value_type_id is for struct_ops maps; here it is 1",
}


def told(ran: Ran) -> dict[str, str]:
    """The reason of each case that was refused."""
    return {entry[0]: why(line) for entry, line in cases(ran)}


def memory() -> str:
    """What free(1) prints from."""
    found = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    assert found is not None
    return f"{int(found[1]) / (1 << 20):.1f} GiB"


def test_what_there_is_no_room_for(traced: Callable[..., Ran], tmp_path: Path) -> None:
    ran = group(traced, "sizes", WORKLOAD)
    depth = int(Path("/proc/sys/kernel/perf_event_max_stack").read_text())
    config = subprocess.run(["zcat", "/proc/config.gz"], capture_output=True, text=True, check=True)
    cpus = re.search(r"CONFIG_NR_CPUS=(\d+)", config.stdout)
    assert cpus is not None
    said = {
        name: text.format(
            nodes=Path("/sys/devices/system/node/online").read_text().strip(), frames=depth + 1,
            deep=8 * (depth + 1), deeper=32 * (depth + 1), depth=depth, cpus=cpus[1],
            memory=memory(),
        )
        for name, text in SIZES.items()
    }  # fmt: skip
    assert told(ran) == said
    again = run_cli("replay", str(tmp_path / "trace.jsonl"))
    assert again.stdout == ran.text


def test_btf_that_is_not_the_maps(traced: Callable[..., Ran]) -> None:
    ran = group(traced, "btf", WORKLOAD)
    said = told(ran)
    assert {name: text for name, text in said.items() if name in BTF} == BTF
    outcomes = {name: number for name, number in json.loads(ran.stdout) if name.startswith("both")}
    refused = {name.split()[2] for name, number in outcomes.items() if number == 524}
    assert refused <= NO_BTF
    assert {kind for kind in NO_BTF if f"both of {kind}" in outcomes} == refused
    assert len(refused) > 9
    for kind in refused:
        assert said[f"both of {kind}"].endswith(f"{kind.lower()} takes no BTF of keys and values")


def test_what_may_be_inside_of_a_map(traced: Callable[..., Ran]) -> None:
    """A template of every type, and one that is only longer: the kernel's answers, and ours."""
    ran = group(traced, "inside", WORKLOAD)
    said = told(ran)
    outcomes = dict(json.loads(ran.stdout))
    for kind in ("ARRAY_OF_MAPS", "HASH_OF_MAPS"):
        assert re.fullmatch(r"inner_map_fd \d+ is /dev/null, not a map", said[f"no map in {kind}"])
        assert said[f"no fd in {kind}"] == "inner_map_fd 999 is not open"
    templates = {name.split()[1]: number for name, number in outcomes.items() if "template" in name}
    assert {kind for kind, number in templates.items() if number} == NOT_INSIDE & set(templates)
    for kind in NOT_INSIDE & set(templates):
        assert re.fullmatch(
            rf"inner_map_fd is map template id=\d+: a {kind.lower()} cannot be inside of a map",
            said[f"template {kind}"],
        )
    longer = {name.split()[1]: number for name, number in outcomes.items() if "longer" in name}
    assert {kind for kind, number in longer.items() if number} == OF_ONE_LENGTH
    for kind in OF_ONE_LENGTH:
        assert re.fullmatch(
            r"map longer id=\d+ differs from the template of map outer id=\d+: max_entries 4 "
            r"instead of 2",
            said[f"longer {kind}"],
        )


def test_memory_that_was_not_free() -> None:
    """As a machine would answer that has 8 GiB, and 1 free: of 4 CPUs' values."""
    facts = RecordedFacts({}, 4)
    facts.learn("why memory MemTotal", 0, str(8 << 30))
    facts.learn("why memory MemAvailable", 1, str(1 << 30))

    def said(kind: int, key: int, value: int, entries: int) -> list[str]:
        attr = struct.pack("<4I", kind, key, value, entries).ljust(64, b"\0")
        call = noted(refusal(errno.ENOMEM, attr, 0), facts)
        return explain(call, Model(facts), facts)

    array, per_cpu_array, per_cpu_hash, lpm = 2, 6, 5, 11
    assert said(array, 4, 1, 1 << 20) == []
    assert said(array, 4, 2044, 1 << 20) == [
        "the 1048576 entries of an array take at least 2.0 GiB, and 1.0 GiB were free"
    ]
    assert said(per_cpu_array, 4, 1024, 1 << 22) == [
        "the 4194304 entries of a percpu_array take at least 16.0 GiB, 4 CPUs' values each, and "
        "the machine has 8.0 GiB"
    ]
    assert said(per_cpu_hash, 4, 1024, 1 << 19) == [
        "the 524288 entries of a percpu_hash take at least 2.0 GiB, 4 CPUs' values each, and "
        "1.0 GiB were free"
    ]
    assert said(lpm, 8, 1024, 1 << 31) == []  # allocated one by one


def test_what_maps_of_fds_hold(traced: Callable[..., Ran], tmp_path: Path) -> None:
    ran = group(traced, "values", WORKLOAD)
    said = {name: re.sub(r"\b(fd|id=) ?\d+", r"\1N", text) for name, text in told(ran).items()}
    expected = {"a long queue": "a queue of 20000 packets: a cpumap's takes 16384"}
    if "version 1" in said:
        expected["version 1"] = (
            "fdN is /sys/fs/cgroup/memory, a cgroup of version 1; a cgroup_array holds those of 2"
        )
    for kind, words in (
        ("PROG_ARRAY", "a prog_array holds programs"),
        ("ARRAY_OF_MAPS", "an array_of_maps holds maps"),
        ("HASH_OF_MAPS", "a hash_of_maps holds maps"),
        ("PERF_EVENT_ARRAY", "a perf_event_array holds perf events"),
        ("CGROUP_ARRAY", "a cgroup_array holds cgroups"),
    ):
        of = words.partition(" holds")[0]
        expected[f"a file in {kind}"] = f"fdN is /dev/null, and {words}"
        expected[f"no fd in {kind}"] = "fdN, the value, is not open"
        other = "a map" if kind == "PROG_ARRAY" else "a program"
        expected[f"another in {kind}"] = f"fdN is {other}, and {words}"
        if not kind.startswith("HASH"):
            flags = f"elements of {of} are updated with flags 0 (BPF_ANY) only"
            expected[f"flags in {kind}"] = flags
        if kind.endswith("_OF_MAPS"):
            expected[f"the end of {kind}"] = (
                "that was the end of map table id=N; elements that were read now: 1"
            )
    assert said == expected
    again = run_cli("replay", str(tmp_path / "trace.jsonl"))
    assert again.stdout == ran.text
