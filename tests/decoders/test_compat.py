"""32-bit programs: the same calls as a 64-bit program makes decode to the same fields.

The workload is that of fixtures/i386-tracee, built twice: as it is, and with its one
way of making a system call replaced by x86-64's.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.needs import needs_tool
from tests.support.running import FIXTURES, run_cli

pytestmark = [
    pytest.mark.usefixtures("needs_bpf"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64's other ABI"),
]

FLAGS = [
    "-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-fno-stack-protector",
]  # fmt: skip
NATIVE = [
    # What differs between the two ABIs, as (there, here).
    ("I386_EXIT = 1, I386_IOCTL = 54, I386_PERF_EVENT_OPEN = 336, I386_BPF = 357",
     "I386_EXIT = 60, I386_IOCTL = 16, I386_PERF_EVENT_OPEN = 298, I386_BPF = 321"),
    ('"int $0x80"', '"mov %6, %%r8\\n\\tmov %4, %%rdx\\n\\tmov %5, %%r10\\n\\tsyscall"'),
    ('"b"(a), "c"(b), "d"(c), "S"(d), "D"(e)',
     '"D"((long)a), "S"((long)b), "r"((long)c), "r"((long)d), "r"((long)e)'),
    (': "memory"', ': "memory", "rcx", "rdx", "r8", "r10", "r11"'),
    ("(int)&", "(int)(long)&"),
    ("(int)attr", "(int)(long)attr"),
    ("(u32)p", "(u32)(u64)p"),
]  # fmt: skip


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The workload as a 32-bit and as a 64-bit program."""
    needs_tool("clang", "ld")
    folder = tmp_path_factory.mktemp("compat")
    source = (FIXTURES / "i386-tracee" / "tracee.c").read_text()
    (folder / "i386.c").write_text(source)
    for there, here in NATIVE:
        assert there in source, there
        source = source.replace(there, here)
    (folder / "native.c").write_text(source)
    built = {}
    # Addresses below 4 GiB, so that they fit the workload's ints.
    for name, flags in (("i386", ["-m32"]), ("native", ["-m64", "-no-pie"])):
        built[name] = str(folder / name)
        subprocess.run(
            ["clang", *FLAGS, *flags, "-o", built[name], str(folder / f"{name}.c")], check=True
        )
    return built


PASSING = re.compile(r"0x[0-9a-f]{5,}")
"""Addresses."""


def calls_of(program: str, options: list[str], tmp_path: Path) -> list[dict[str, Any]]:
    """The calls of a run, as far as they do not differ between two runs."""
    trace = tmp_path / "trace.jsonl"
    done = run_cli("-f", *options, "-o", str(tmp_path / "text"), "--json", str(trace), program)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    return [line for line in lines if line["type"] == "syscall"]


def comparable(value: Any) -> Any:
    """Without addresses, ids, digests and times."""
    if isinstance(value, dict):
        return {
            key: comparable(member)
            for key, member in value.items()
            if key not in ("addr", "id", "time", "duration", "pid", "tid", "comm", "raw", "arch")
            and not key.endswith("_id")
        }
    if isinstance(value, list):
        return [comparable(member) for member in value]
    return PASSING.sub("ADDRESS", value) if isinstance(value, str) else value


@pytest.mark.parametrize("seccomp", [[], ["--no-seccomp"]])
@pytest.mark.parametrize("selected", [["-e", "trace=bpf"], []])
def test_same_fields(
    programs: dict[str, str], tmp_path: Path, selected: list[str], seccomp: list[str]
) -> None:
    """Every field of every call."""
    i386, native = (
        calls_of(programs[name], [*selected, *seccomp], tmp_path) for name in ("i386", "native")
    )
    assert [call["args"].get("cmd") for call in i386[:4]] == [
        "BPF_MAP_CREATE",
        "BPF_MAP_UPDATE_ELEM",
        "BPF_MAP_LOOKUP_ELEM",
        "BPF_PROG_LOAD",
    ]
    assert len(i386) == (4 if selected else 8)
    assert comparable(i386) == comparable(native)
    # It was not the same program twice.
    assert {call["raw"]["arch"] for call in i386} == {0x40000003}
    assert {call["raw"]["arch"] for call in native} == {0xC000003E}
    create, update, lookup, load = (call["args"]["attr"] for call in i386[:4])
    assert create["map_name"] == "ticks"
    assert (create["key_size"], create["value_size"], create["max_entries"]) == (4, 8, 4)
    assert "44332211" in json.dumps(update["key"])
    for elem in (update, lookup):
        assert "1122334455667788" in json.dumps(elem["value"])
    assert load["prog_name"] == "on_clock"
    assert len(load["insns"]["value"]) == 3  # the first takes two slots


def test_replays_alike(programs: dict[str, str], tmp_path: Path) -> None:
    """A recording says of itself what architecture its calls are of."""
    calls_of(programs["i386"], [], tmp_path)
    again = run_cli("replay", str(tmp_path / "trace.jsonl"))
    assert again.stdout == (tmp_path / "text").read_text()
    assert "on_clock" in again.stdout


def test_as_strace_has_it(programs: dict[str, str], tmp_path: Path) -> None:
    """strace names the same commands of the same 32-bit calls."""
    needs_tool("strace")
    done = subprocess.run(
        [str(shutil.which("strace")), "-e", "trace=bpf", programs["i386"]],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [call["args"]["cmd"] for call in calls_of(programs["i386"], [], tmp_path)[:4]]
    assert re.findall(r"^bpf\((\w+)", done.stderr, re.MULTILINE) == ours
