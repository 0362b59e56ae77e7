"""Tables generated anew for a kernel that there is not: nothing breaks, and one report says what
is missing.

The copy has one more command, type of map, of program, of link, attach type, helper, ioctl and
some fields (tests/support/newer_tables.py), and no row for any of them.
"""

from __future__ import annotations

import json
import re
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest
from uapi_gen.missing import Lack, missing, report

from tests.support.newer_tables import ENUM, FLAG, copied, run
from tests.support.running import FIXTURES, LOADERS, ROOT
from tests.support.uapi_tables import FACTS

OLDER = ("bcc-uprobe", "libbpf-vfsstat", "xdp-link", "netkit", "cgroup-attach")
"""Recordings in which nothing is new."""
COMMANDS = (
    "replay {}", "replay -v {}", "replay -c {}", "replay --canonical {}",
    "replay -v --style strace {}", "replay -e bpf=map_invert {}",
    "replay -q -o /dev/null --json - {}",
    "replay -q -o /dev/null --events - {}", "diff {} {}", "check {} --lock out/lock.toml --update",
    "check {} --lock out/lock.toml", "extract {} -o out/objects", "report {} -o out/page.html",
    "perfetto {} -o out/timeline", "redact {} -o out/redacted.jsonl", "repro {} -o out/again.py",
    "schema",
)  # fmt: skip
EVERYTHING = """
import contextlib, importlib, io, json, pkgutil, sys
import bpftrace_sys, decoders
from bpftrace_sys.cli.main import main
for package in (bpftrace_sys, decoders):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
"""Imports every module, and runs commands one after the other."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the product with the newer tables, and with all made of them that is made."""
    folder = copied(tmp_path_factory.mktemp("newer"))
    for tool in ("gen_uapi.py render", "gen_walks.py", "gen_steps.py"):
        name, *words = tool.split()
        done = run(folder, f"tools/{name}", *words)
        said = re.findall(r"^gen_uapi: (\w+) is in no table", done.stderr, re.MULTILINE)
        assert done.returncode == 0, done.stderr
        assert said == ([FLAG, ENUM] if name == "gen_uapi.py" else []), done.stderr
    done = run(folder, str(ROOT / "tests" / "support" / "newer_calls.py"), "new.jsonl")
    assert done.returncode == 0, done.stderr
    (folder / "out").mkdir()
    return folder


def outcomes(place: Path, commands: list[list[str]]) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each command of the copy."""
    done = run(place, "-c", EVERYTHING, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def told(place: Path) -> dict[str, str]:
    """What each of COMMANDS prints of the calls with what is new."""
    found = outcomes(place, [command.replace("{}", "new.jsonl").split() for command in COMMANDS])
    assert [code for code, _, _ in found] == [0] * len(COMMANDS), found
    assert not [err for _, _, err in found if "fault" in err or "Traceback" in err]
    return {command: out for command, (_, out, _) in zip(COMMANDS, found, strict=True)}


# ------------------------------------------------------------------ what is new


def test_walks_are_what_they_were(place: Path) -> None:
    """What no declaration explains leads nowhere."""
    walks = ("decoders/walk/table.py", "decoders/walk/bpf_table.py")
    for path in (*walks, "bpftrace_sys/record/ebpf/steps.py"):
        assert (place / path).read_text() == (ROOT / path).read_text(), path


@pytest.mark.parametrize(
    "line",
    [
        "map_type=BPF_MAP_TYPE_MOEBIUS, key_size=4,",
        "= 3<map strip id=1 moebius 4/8>",
        "prog_type=BPF_PROG_TYPE_ORACLE, insn_cnt=2,",
        "0: (85) call bpf_ask_oracle#212",
        "expected_attach_type=BPF_ORACLE_SPEAKS, omen=77, ...",
        "attach_type=BPF_ORACLE_SPEAKS, oracle={riddle=0x5eed}, ...",
        "= 5<link oracle id=5 -> oracle_speaks on fd 0 <?>>",
        "attached  pythia (oracle, 2 insns, tag 0000000000000000) -> oracle_speaks on fd 9 <?>",
        "bpf(BPF_MAP_INVERT, {map_invert={map_fd=3, flags=1, mirror=0xabc}}, 16) = 0",
        "info={type=BPF_MAP_TYPE_MOEBIUS, id=1, key_size=0, sides=0x1, ...}",
        "info={type=BPF_PROG_TYPE_ORACLE, id=7, omens=0x3, ...}",
        "info={type=BPF_LINK_TYPE_ORACLE, id=5, prog_id=7, oracle={riddle=0x5eed}}",
        "ioctl(6<perf event ?>, PERF_EVENT_IOC_PROPHESY, 0x7f0000000000) = 0",
    ],
)
def test_text(told: dict[str, str], line: str) -> None:
    """What was put into the calls is told by its names, and as numbers."""
    assert line in told["replay {}"]


def test_no_reason_is_made_up(told: dict[str, str]) -> None:
    """Two calls with what is new failed with EINVAL; nobody knows why."""
    assert told["replay {}"].count("= -1 EINVAL") == 2
    assert "why:" not in told["replay {}"]
    assert "extra_data" not in told["replay -v {}"]


def test_strace_style(told: dict[str, str]) -> None:
    """As strace shows what it has no decoder for: an address, bytes."""
    lines = told["replay -v --style strace {}"].splitlines()
    assert "bpf(BPF_MAP_INVERT, 0x7f0000000000, 16) = 0" in lines
    assert "ioctl(6, PERF_EVENT_IOC_PROPHESY, 0x7f0000000000) = 0" in lines
    assert any('extra_data="\\xed\\x5e\\x00' in line for line in lines)


def test_json(told: dict[str, str]) -> None:
    lines = [json.loads(line) for line in told["replay -q -o /dev/null --json - {}"].splitlines()]
    attrs: list[dict[str, Any]] = [
        line["args"].get("attr", {}) for line in lines if line["type"] == "syscall"
    ]
    assert attrs[0]["map_type"] == "BPF_MAP_TYPE_MOEBIUS"
    assert attrs[1]["omen"] == 77
    assert attrs[2]["link_create"]["oracle"] == {"riddle": "0x5eed"}
    assert attrs[5] == {"map_invert": {"map_fd": 3, "flags": 1, "mirror": "0xabc"}}


def test_selected(told: dict[str, str]) -> None:
    shown = told["replay -e bpf=map_invert {}"]
    assert re.findall(r"bpf\((\w+)", shown) == ["BPF_MAP_INVERT"] * 2


FIELDS = """    "crystal_fd" / OPT_FD,
    "omen_len" / U32,
    "omen" / In(Blob(this.omen_len)),
    "moon" / X64,
    "tide" / U32,
    "ebb" / U32,
"""


def test_six_fields_are_a_small_difference(place: Path) -> None:
    """Of the walk's table: structs are called by the way to them, not by their number."""
    declaration = place / "decoders" / "declare" / "bpf_map_attr.py"
    before = declaration.read_text()
    table = place / "decoders" / "walk" / "bpf_table.py"
    old = table.read_text().splitlines()
    last = '    "excl_prog_hash_size" / U32,\n    "_" / Padding(4),\n'
    assert before.count(last) == 1
    declaration.write_text(before.replace(last, last + FIELDS))
    try:
        done = run(place, "tools/gen_walks.py")
        assert (done.returncode, done.stderr) == (0, "")
        new = table.read_text().splitlines()
    finally:
        declaration.write_text(before)
        table.write_text("\n".join(old) + "\n")
    assert "crystal_fd" in "\n".join(new)
    changed = [line for line in unified_diff(old, new, n=0) if re.match(r"[+-](?![+-])", line)]
    assert 0 < len(changed) <= 20


# ------------------------------------------------------------------ what is not


def test_older_recordings_are_told_as_before(place: Path) -> None:
    """By the goldens."""
    words, golden = [], []
    for name in OLDER:
        text = FIXTURES / name / "golden.txt"
        words.append(["replay", str(FIXTURES / name / "trace.jsonl.gz")])
        golden.append(text.read_text())
    found = outcomes(place, words)
    assert [code for code, _, _ in found] == [0] * len(OLDER)
    for name, (_, out, _), wanted in zip(OLDER, found, golden, strict=True):
        assert out == wanted, name


@pytest.mark.parametrize("engine", ["ptrace", "bpf"])
def test_live(place: Path, engine: str, needs_bpf: None) -> None:
    done = run(
        place, "-m", "bpftrace_sys", "-f", "--engine", engine, "-o", "live.txt",
        "python3", str(LOADERS / "raw_tracepoint.py"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = (place / "live.txt").read_text()
    assert "bpf(BPF_RAW_TRACEPOINT_OPEN, " in text
    assert re.search(r"^attached .* -> raw tracepoint ", text, re.MULTILINE)


# ------------------------------------------------------------------ what is missing


def test_nothing_is_missing_here() -> None:
    assert missing(json.loads(FACTS.read_text())) == []
    assert report([]) == "every row is there\n"


REPORT = """\
bpf command BPF_MAP_INVERT
    decoders/declare/bpf_attr.py: COMMANDS
    decoders/commands.py: TRAITS
    bpftrace_sys/render/strace/rows.py: ROWS
    bpftrace_sys/story/explain/last_fields.py: LAST_FIELDS
    docs/coverage.md: its rows
attach type BPF_ORACLE_SPEAKS
    decoders/declare/bpf_link.py: VARIANTS or NO_VARIANT
    bpftrace_sys/story/attach/link_targets.py: TARGETS or NO_LINK
    bpftrace_sys/story/explain/attach.py: ATTACH_PROGS or NO_PROGS
    bpftrace_sys/export/section_names.py: SECTIONS, USUAL or NO_SECTION
    bpftrace_sys/render/strace/rows.py: LINK_ROWS
type of map BPF_MAP_TYPE_MOEBIUS
    bpftrace_sys/story/explain/maps.py: MAP_RULES or NO_RULE
type of program BPF_PROG_TYPE_ORACLE
    bpftrace_sys/story/context.py: LOADED or NOT_LOADED
    bpftrace_sys/export/section_names.py: SECTIONS
type of link BPF_LINK_TYPE_ORACLE
    decoders/declare/bpf_info.py: LINK_DETAILS
ioctl PERF_EVENT_IOC_PROPHESY
    decoders/declare/perf_ioctl.py: REQUESTS
    decoders/commands.py: IOCTLS
    bpftrace_sys/render/strace/rows.py: IOCTLS
    docs/coverage.md: its rows
flag BPF_F_GIBBERISH
    tools/uapi_gen/spec.py: TABLES or HELPER_FLAGS
enum bpf_riddle
    tools/uapi_gen/spec.py: TABLES or OTHER_ENUMS
field bpf_prog_info: omens
    decoders/declare/bpf_info.py: its struct
field bpf_map_info: sides
    decoders/declare/bpf_info.py: its struct
field bpf_link_info: oracle.riddle
    decoders/declare/bpf_info.py: its struct
field bpf_attr.PROG_LOAD: omen
    decoders/declare/bpf_attr.py: its struct
field bpf_attr.link_create: oracle.riddle
    decoders/declare/bpf_link.py: its struct
last field bpf_attr.PROG_LOAD
    bpftrace_sys/story/explain/last_fields.py: LAST_FIELDS or BEYOND
docs/extending.md says what each row holds, and what else belongs to it.
"""


def test_the_report_names_all_that_is_new(place: Path) -> None:
    done = run(place, "tools/gen_uapi.py", "missing")
    assert done.stdout == REPORT
    assert (done.returncode, done.stderr) == (1, "")


def test_the_report_names_places_that_are_there() -> None:
    rows = re.findall(r"^    (\S+): (.+)$", REPORT, re.MULTILINE)
    assert len(rows) > 20
    for file, tables in rows:
        text = (ROOT / file).read_text()
        for name in re.findall(r"[A-Z_]{4,}", tables):
            assert re.search(rf"^{name}\b", text, re.MULTILINE), (file, name)


def test_lacks_are_told_by_what_they_are_about() -> None:
    lacks = [Lack("ioctl", "A", "x.py", "ROWS"), Lack("ioctl", "A", "y.py", "ROWS")]
    assert report(lacks).splitlines()[:3] == ["ioctl A", "    x.py: ROWS", "    y.py: ROWS"]
