"""Why kprobes were refused, by a recording of a kernel that has them (Debian's Linux 6.12)."""

from __future__ import annotations

import json
import re

import pytest

from tests.support.running import FIXTURES, run_cli

pytestmark = pytest.mark.offline

EXPECTED = [
    "BLACK is one of the functions that cannot be probed (debugfs, kprobes/blacklist)",
    "the kernel has no function no_such_function",
    "the kernel has no function SPLIT, but SPLIT.isra.0",
    "vfs_read+0x1 is inside of an instruction",
    "a kretprobe is at a function's beginning, and this one at vfs_read+0x5",
    "the kernel has no function no_such_function",
    "the kernel has no function SPLIT, but SPLIT.isra.0",
    "BLACK is not traceable: available_filter_functions does not have it",
    "vfs_read is named twice",
    "Invalid probed address or symbol",
    "Invalid register name",
]
"""In the order of fixtures/refused-kprobes/kprobes.py, which asked the kernel's own lists for a
function of the blacklist (BLACK) and for one of which only a part is there (SPLIT)."""


def test_each_kprobe_has_its_reason() -> None:
    trace = FIXTURES / "refused-kprobes" / "trace.jsonl.gz"
    done = run_cli("replay", "--json", "-", "-o", "/dev/null", str(trace))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    refused = [
        line for line in lines
        if line["type"] == "syscall" and line["ret"] == -1 and line["syscall"] != "openat"
    ]  # fmt: skip
    said = [line["explanation"][0] for line in refused]
    black = said[0].split()[0]
    split = re.search(r"function (\w+), but", said[2])
    assert split is not None
    assert [text.replace(black, "BLACK").replace(split[1], "SPLIT") for text in said] == EXPECTED
    assert [line["errno"] for line in refused] == [
        "EINVAL", "ENOENT", "ENOENT", "EILSEQ", "EINVAL", "ESRCH", "ESRCH", "ESRCH", "ESRCH",
        "EINVAL", "EINVAL",
    ]  # fmt: skip


def test_a_kernel_that_is_locked_down() -> None:
    """fixtures/lockdown: root with every capability, under lockdown=confidentiality."""
    trace = FIXTURES / "lockdown" / "trace.jsonl.gz"
    done = run_cli("replay", "--json", "-", "-o", "/dev/null", str(trace))
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    refused = [line for line in lines if line["type"] == "syscall" and line["ret"] == -1]
    assert [(line["syscall"], line["errno"]) for line in refused] == [
        ("perf_event_open", "EPERM"), ("bpf", "EINVAL"), ("openat", "EPERM"),
    ]  # fmt: skip
    event, load, _ = (line.get("explanation", []) for line in refused)
    assert event == ["the kernel is locked down (confidentiality): it has no kprobes then"]
    assert load[0] == "verifier: program of this type cannot use helper bpf_probe_read_kernel#113"
    assert load[-1] == "the kernel is locked down (confidentiality): no program reads its memory"
