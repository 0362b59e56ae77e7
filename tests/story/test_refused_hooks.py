"""Why a question, an attachment or a detachment was refused: each case for real."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.needs import needs_tool
from tests.support.refusals import cases, group, told, why
from tests.support.refused_hooks import DEVICES, QUERIES, WORKLOAD, of_cgroups
from tests.support.running import LOADERS, Ran, run_cli

pytestmark = pytest.mark.usefixtures("needs_bpf")

def the_same_again(ran: Ran, tmp_path: Path) -> None:
    """What a replay prints."""
    assert run_cli("replay", str(tmp_path / "trace.jsonl")).stdout == ran.text


def test_questions(traced: Callable[..., Ran], tmp_path: Path) -> None:
    ran = group(traced, "queries", WORKLOAD)
    said = told(ran)
    assert {name: text for name, text in said.items() if not name.startswith("of ")} == QUERIES
    the_same_again(ran, tmp_path)
    # The fd is an int, whatever the struct says.
    (line,) = [line for entry, line in cases(ran) if entry[0] == "no fd"]
    assert line["args"]["attr"]["info"]["bpf_fd"] == -2
    assert "bpf_fd=-2," in ran.text


def test_hooks_that_have_no_answer(traced: Callable[..., Ran]) -> None:
    """Fd -1: the kernel says EBADF or ENODEV for a hook that it answers for, EINVAL else."""
    ran = group(traced, "queries", WORKLOAD)
    outcomes = {entry[0][3:]: (entry[1], why(line)) for entry, line in cases(ran)
                if entry[0].startswith("of ")}  # fmt: skip
    assert len(outcomes) > 50
    for hook, (number, said) in outcomes.items():
        none = said == f"BPF_PROG_QUERY has no answer for BPF_{hook}"
        built = said.startswith("this kernel is built without CONFIG_")
        # Only what is looked up after the hook can be wrong with it.
        assert (none or built) == (number == 22), (hook, number, said)


def test_a_token_that_libbpf_asks_for(traced: Callable[..., Ran]) -> None:
    ran = group(traced, "tokens", WORKLOAD)
    probe, line = ran.calls("BPF_TOKEN_CREATE")
    assert probe["errno"] == line["errno"] == "EOPNOTSUPP"
    assert probe["probe"] == "BPF tokens in this user namespace"
    assert why(line) == (
        "tokens are for callers in a user namespace of their own; in the first one capabilities "
        "decide"
    )
    assert "1 feature probe, unsupported: BPF tokens in this user namespace" in ran.text
    assert ran.text.split("\ncalls\n")[0].count("BPF_TOKEN_CREATE") == 1


def test_a_token_is_named_where_one_counts(traced: Callable[..., Ran]) -> None:
    needs_tool("unshare")
    ran = traced([], "unshare", "--user", "--map-root-user", sys.executable, WORKLOAD, "admin")
    if ran.code:
        pytest.skip("no user namespaces here")
    outcomes: dict[str, Any] = {entry[0]: why(line) for entry, line in cases(ran)}
    assert set(outcomes) == {entry[0] for entry in json.loads(ran.stdout)}
    with_token = {name for name, said in outcomes.items() if "(or a BPF token)" in said}
    members = Path("/sys/kernel/btf/vmlinux").read_bytes()
    expected = {"PROG_LOAD"} if b"\0prog_token_fd\0" in members else set()
    expected |= {"BTF_GET_FD_BY_ID"} if b"\0fd_by_id_token_fd\0" in members else set()
    assert with_token == expected
    assert all("in the first user namespace" in said for said in outcomes.values())


def test_cgroups(traced: Callable[..., Ran], tmp_path: Path) -> None:
    ran = group(traced, "cgroups", WORKLOAD)
    said = told(ran)
    assert said == of_cgroups(said)
    the_same_again(ran, tmp_path)


def test_devices(traced: Callable[..., Ran], tmp_path: Path) -> None:
    ran = group(traced, "devices", WORKLOAD)
    assert told(ran) == DEVICES
    the_same_again(ran, tmp_path)
    most = next(why(line) for entry, line in cases(ran) if "more than a hook" in entry[0])
    assert "has 63 programs" in most  # so many were attached: the next one was refused
    stale = next(why(line) for entry, line in cases(ran) if entry[0] == "stale")
    asked, now = map(int, re.findall(r" (\d+)", stale))
    assert (asked, now) == (77, 2)  # one attachment: from 1 to 2


UPROBES = {
    "past the end": "offset {past:#x} is past the end of {path}, which has {size:#x} bytes",
    "a folder": "/usr is a directory: uprobes are in regular files",
    "a device": "/dev/null is a device: uprobes are in regular files",
    "no pages": "/proc/version is on proc, whose files have no pages that could be probed",
    "an odd counter": "ref_ctr_offset 0x201 is odd: what counts there has two bytes",
    "another counter": "ref_ctr_offset is 0x200 for offset 0x1000, and 0x100 in uprobe {path}",
    "another counter of a link": "ref_ctr_offset is 0x300 for offset 0x1000, and 0x100 in uprobe "
    "{path}",
    "a link past the end": "offset {past:#x} is past the end of {path}, which has {size:#x} bytes",
    "a link to a folder": "/usr is a directory: uprobes are in regular files",
    "a link to no place": "cnt is 0: there is nothing to probe",
    "a link to a million places": "cnt 1048577 is more than 1048576",
    "a negative place": "offset 0x8000000000000000 is negative",
    "flags of a link": "flags has unknown bits: 0x8",
}


def test_uprobes(traced: Callable[..., Ran], tmp_path: Path) -> None:
    needs_tool("readelf")
    ran = group(traced, "uprobes", WORKLOAD)
    said = {entry[0]: why(line).partition(f"{sys.executable}:")[0] + "|" for entry, line in
            cases(ran)}  # fmt: skip
    size = Path(sys.executable).stat().st_size
    expected = {
        name: text.format(path=sys.executable, size=size, past=size + 1)
        for name, text in UPROBES.items()
    }
    counters = {name for name in UPROBES if name.startswith("another counter")}
    for name in counters:
        expected[name] = expected[name].removesuffix(sys.executable)
    assert said == {name: f"{text}|" for name, text in expected.items()}
    the_same_again(ran, tmp_path)


def test_a_uprobe_that_never_fires(traced: Callable[..., Ran]) -> None:
    """Of readelf, where code is; the ELF header is not in it, the uprobes of libc are."""
    needs_tool("readelf")
    segments = subprocess.run(
        ["readelf", "-lW", sys.executable], capture_output=True, text=True, check=True
    ).stdout
    found = re.findall(r"LOAD +(0x\S+) +\S+ +\S+ +(0x\S+) +\S+ +R E", segments)
    assert found
    assert not any(int(at, 16) <= 0x10 < int(at, 16) + int(size, 16) for at, size in found)
    ran = group(traced, "uprobes", WORKLOAD)
    place = f"{sys.executable}:0x10 (no code there: it never fires)"
    targets = [line["target"] for line in ran.attachments() if line["verb"] == "attached"]
    assert len(targets) == 2
    assert all(place in target for target in targets)
    live = traced([], sys.executable, str(LOADERS / "uprobe_multi.py"))
    assert "uprobe_multi /" in live.text
    assert "never fires" not in live.text


@pytest.mark.parametrize("options", [[], ["--no-seccomp"]])
def test_a_filter_of_the_callers_own(
    traced: Callable[..., Ran], tmp_path: Path, options: list[str]
) -> None:
    ran = traced(options, sys.executable, WORKLOAD, "filtered")
    assert [entry for entry in json.loads(ran.stdout) if entry[1]] == [
        ["load", 1], ["kernel", 1], ["no access", 13], ["no such call", 38],
    ]  # fmt: skip
    for line in [line for line in ran.calls() if line["ret"] == -1]:
        said = "a seccomp filter of the caller's own gave that answer; the kernel was not asked"
        assert why(line) == said
    assert [line["ret"] >= 0 for line in ran.calls("BPF_MAP_CREATE")] == [True]
    the_same_again(ran, tmp_path)


PROBE_FILES = {
    "a long name": ["Event name is too long", f"p:uprobes/{'x' * 70} /bin/true:0x2000", 10],
    "no such file": ["Failed to find the given file", "p:uprobes/M /no/such/file:0x2000", 12],
    "a folder in a line": ["Not a regular file", "p:uprobes/M /usr:0x2000", 12],
    "no such register": ["Invalid register name", "p:uprobes/M /bin/true:0x2000 a=%zz", 31],
    "a function for an offset": [
        "/bin/true:main is not a path, a colon and a number", "p:uprobes/M /bin/true:main",
    ],
    "no such event": ["there is no event uprobes/no_such_event", "-:uprobes/no_such_event"],
    "the second line": ["/bin/true is not a path, a colon and a number", "p:bad /bin/true"],
}  # fmt: skip
"""What is said; the line, with M for the event's name; and the column of the caret."""


def test_lines_for_tracefs(
    traced: Callable[..., Ran], tmp_path: Path, tracefs: Path
) -> None:
    ran = group(traced, "probe_files", WORKLOAD)
    found = {}
    for (name, _number), line in cases(ran):
        text, whole, *caret = line["explanation"]
        mine = re.search(r"refused\d+", whole)
        column = len(caret[0]) - 1 if caret else None
        if mine is not None:
            whole = whole.replace(mine[0], "M")
            column = None if column is None else column - len(mine[0]) + 1
        found[name] = [text, whole] + ([] if column is None else [column])
    assert found == PROBE_FILES
    the_same_again(ran, tmp_path)
