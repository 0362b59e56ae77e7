"""``bpfstrace check``: real recordings against lock files, and what must never pass."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import struct
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftrace_sys.cli.check import main as check
from bpftrace_sys.cli.messages import DIFFERENT, DONE, TROUBLE
from bpftrace_sys.common.output_files import OutputError
from bpftrace_sys.compare.policy.deeds import deeds_of
from bpftrace_sys.compare.policy.lock_file import (
    Lock,
    Map,
    Program,
    dumps,
    literal,
    load,
    matches,
    updated,
)
from tests.support.running import FIXTURES, ROOT, run_cli

HELLO = FIXTURES / "bcc-kprobe-hello" / "trace.jsonl.gz"
LOADALL = FIXTURES / "bpftool-loadall" / "trace.jsonl.gz"
LOADALL_O1 = FIXTURES / "bpftool-loadall-o1" / "trace.jsonl.gz"
OPENSNOOP = FIXTURES / "libbpf-opensnoop" / "trace.jsonl.gz"
ALL = sorted(FIXTURES.glob("*/trace.jsonl.gz"))

Edit = Callable[[dict[str, Any]], "dict[str, Any] | None"]


def lines_of(trace: Path) -> list[dict[str, Any]]:
    with gzip.open(trace, "rt") as file:
        return [json.loads(line) for line in file]


def edited(trace: Path, to: Path, edit: Edit) -> Path:
    """A copy of a trace with lines changed, or left out where ``edit`` gives None."""
    changed = [edit(line) for line in lines_of(trace)]
    to.write_text("".join(json.dumps(line) + "\n" for line in changed if line is not None))
    return to


@pytest.fixture
def lock_of(tmp_path: Path) -> Callable[..., Path]:
    def make(trace: Path, *options: str, name: str = "bpf.lock.toml") -> Path:
        path = tmp_path / name
        assert check([str(trace), "--lock", str(path), "--update", *options]) == DONE
        return path

    return make


# ------------------------------------------------------------------ real recordings


@pytest.mark.parametrize("trace", ALL, ids=lambda path: path.parent.name)
@pytest.mark.parametrize("ending", ["toml", "json"])
def test_what_update_writes_allows_the_trace(trace: Path, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"lock.{ending}"
    assert check([str(trace), "--lock", str(path), "--update"]) == DONE
    first = path.read_bytes()
    assert check([str(trace), "--lock", str(path)]) == DONE
    assert check([str(trace), "--lock", str(path), "--update"]) == DONE
    assert path.read_bytes() == first


def test_the_lessons_program_is_locked_by_what_it_is(lock_of: Callable[..., Path]) -> None:
    """Name, tag and helper as the lesson and bpftool show them."""
    table = tomllib.loads(lock_of(HELLO).read_text())
    (program,) = table["program"]
    assert program["name"] == "hello_world"
    assert program["type"] == "kprobe"
    assert "38dd440716c4900f" in program["tags"]
    assert program["helpers"] == ["bpf_trace_printk"]
    assert program["attach"] == ["kprobe do_sys_openat2"]
    assert "map" not in table


def test_helpers_and_maps_are_those_of_the_source(lock_of: Callable[..., Path]) -> None:
    source = (FIXTURES / "bpftool-loadall" / "programs.c").read_text()
    called = set(re.findall(r"\b(bpf_(?:map|get|probe|ktime)\w+)\(", source))
    table = tomllib.loads(lock_of(LOADALL).read_text())
    assert {name for row in table["program"] for name in row["helpers"]} == called
    assert {row["name"] for row in table["map"]} == {"packets", "totals"}
    manifest = tomllib.loads((FIXTURES / "bpftool-loadall" / "manifest.toml").read_text())
    assert [row["name"] for row in table["program"]] == sorted(manifest["expect"]["programs"])


def test_feature_probes_are_left_out(lock_of: Callable[..., Path]) -> None:
    loaded = [
        line["args"]["attr"].get("prog_name")
        for line in lines_of(OPENSNOOP)
        if line["type"] == "syscall" and line["args"].get("cmd") == "BPF_PROG_LOAD"
    ]
    programs = tomllib.loads(lock_of(OPENSNOOP).read_text())["program"]
    assert len(loaded) > len(programs) == 4
    assert all("sys_e" in row["name"] for row in programs)


def test_another_compilation_changes_tags_only(
    lock_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = lock_of(LOADALL)
    capsys.readouterr()
    assert check([str(LOADALL_O1), "--lock", str(path)]) == DIFFERENT
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.endswith(f": {len(rest)}")
    assert rest
    assert all(" has the tag " in line for line in rest)
    path = lock_of(LOADALL, "--no-tags")
    assert tomllib.loads(path.read_text())["program"][0]["tags"]  # listed all the same
    assert check([str(LOADALL_O1), "--lock", str(path)]) == DONE
    # A later update keeps the decision, unless told otherwise.
    lock_of(LOADALL)
    assert check([str(LOADALL_O1), "--lock", str(path)]) == DONE
    lock_of(LOADALL, "--tags")
    assert check([str(LOADALL_O1), "--lock", str(path)]) == DIFFERENT


def test_one_lock_for_two_kernels(lock_of: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "both.toml"
    other = FIXTURES / "libbpf-opensnoop-6.1" / "trace.jsonl.gz"
    words = [str(OPENSNOOP), str(other), "--lock", str(path)]
    assert check([*words, "--update"]) == DONE
    assert check(words) == DONE


def _without(path: Path, text: str) -> None:
    old = path.read_text()
    assert text in old
    path.write_text(old.replace(text, "", 1))


@pytest.mark.parametrize(
    ("taken", "told"),
    [
        ('helpers = ["bpf_trace_printk"]', "calls the helper bpf_trace_printk  [call #"),
        ('attach = ["kprobe do_sys_openat2"]', "is attached to kprobe do_sys_openat2  [call #"),
        ('"38dd440716c4900f", "c21893ee8040b45c"', "has the tag 38dd440716c4900f or c218"),
    ],
)
def test_what_is_outside_is_named_with_its_call(
    taken: str, told: str, lock_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = lock_of(HELLO)
    _without(path, taken)
    capsys.readouterr()
    assert check([str(HELLO), "--lock", str(path)]) == DIFFERENT
    _, line = capsys.readouterr().out.splitlines()
    assert line.startswith("  program hello_world (kprobe) ")
    assert told in line


def test_pins_and_maps_outside(
    lock_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = lock_of(LOADALL)
    text = path.read_text().replace('    "/sys/fs/bpf/maps/totals",\n', "")
    text = text.replace("value_size = 24", "value_size = 16")
    path.write_text(text)
    capsys.readouterr()
    assert check([str(LOADALL), "--lock", str(path)]) == DIFFERENT
    _, *rest = capsys.readouterr().out.splitlines()
    assert [line.partition("  [call #")[0].strip() for line in rest] == [
        "map totals (array 4/24)",
        "pin at /sys/fs/bpf/maps/totals",
    ]


def test_another_program_is_outside_in_all_that_it_does(
    lock_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = lock_of(LOADALL)
    capsys.readouterr()
    assert check([str(HELLO), "--lock", str(path)]) == DIFFERENT
    out = capsys.readouterr().out
    assert "outside" in out.splitlines()[0]
    assert "  program hello_world (kprobe)  [call #" in out
    assert len(out.splitlines()) == 5


def test_refused_loads_count(
    lock_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """What a kernel in CI refuses another one may take."""
    path = lock_of(HELLO)
    capsys.readouterr()
    reject = FIXTURES / "verifier-reject" / "trace.jsonl.gz"
    assert check([str(reject), "--lock", str(path)]) == DIFFERENT
    out = capsys.readouterr().out
    assert re.search(r"program forgetful \(\w+\)  \[call #\d+, refused with EACCES\]", out)


def test_live(tmp_path: Path, needs_bpf: None) -> None:
    """From the command line, tracing a program that the lock does not know."""
    hello, lock = tmp_path / "hello.jsonl.gz", tmp_path / "lock.toml"
    program = [sys.executable, "-m", "bpftrace_sys.hello"]
    run_cli("-f", "--json", str(hello), "-o", str(tmp_path / "text"), *program)
    assert run_cli("check", str(hello), "--lock", str(lock), "--update").returncode == 0
    assert run_cli("check", str(hello), "--lock", str(lock)).returncode == 0
    done = run_cli("check", str(OPENSNOOP), "--lock", str(lock))
    assert done.returncode == 1
    assert "calls the helper bpf_perf_event_output" in done.stdout


# ------------------------------------------------------------------ never a pass


def _trouble(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert check(list(words)) == TROUBLE
    told = capsys.readouterr()
    assert "within" not in told.out
    assert told.err.startswith("bpfstrace: ")
    return told.err


def test_a_truncated_trace(
    lock_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lock_of(HELLO)
    whole = gzip.decompress(HELLO.read_bytes())
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    assert "truncated" in _trouble(capsys, str(cut), "--lock", str(path))
    before = path.read_bytes()
    _trouble(capsys, str(cut), "--lock", str(path), "--update")
    assert path.read_bytes() == before
    # A whole one beside it does not help.
    capsys.readouterr()
    assert check([str(HELLO), str(cut), "--lock", str(path)]) == TROUBLE
    no_end = edited(HELLO, tmp_path / "e", lambda line: None if line["type"] == "end" else line)
    assert "end line" in _trouble(capsys, str(no_end), "--lock", str(path))


def test_a_trace_whose_instructions_are_missing(
    lock_of: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lock_of(HELLO)

    def edit(line: dict[str, Any]) -> dict[str, Any]:
        if line["type"] == "syscall" and line["args"].get("cmd") == "BPF_PROG_LOAD":
            # The attr stays, what it points at goes.
            line["raw"]["entry"] = line["raw"]["entry"][:1]
        return line

    text = _trouble(
        capsys, str(edited(HELLO, tmp_path / "t", edit)), "--lock", str(path)
    )
    assert "lacks its instructions" in text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"traced": ["openat"]}, "without bpf"),
        ({"narrowed": ["-e prog=x"]}, "-e prog=x"),
    ],
)
def test_a_partial_trace(
    options: dict[str, Any],
    told: str,
    lock_of: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = lock_of(HELLO)

    def edit(line: dict[str, Any]) -> dict[str, Any]:
        if line["type"] == "trace":
            line["options"].update(options)
        return line

    trace = edited(HELLO, tmp_path / "t", edit)
    assert told in _trouble(capsys, str(trace), "--lock", str(path))


def test_a_trace_saved_with_a_filter_says_so(tmp_path: Path, lock_of: Callable[..., Path]) -> None:
    path, some = lock_of(HELLO), tmp_path / "some.jsonl"
    run_cli("replay", "-Z", "--json", str(some), str(HELLO))
    done = run_cli("check", str(some), "--lock", str(path))
    assert done.returncode == 2
    assert "-Z" in done.stderr


def test_a_trace_of_nothing_is_told_from_a_failed_one(
    tmp_path: Path, lock_of: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = lock_of(HELLO)

    def edit(line: dict[str, Any]) -> dict[str, Any] | None:
        if line["type"] == "end":
            return {"type": "end", "status": {"error": "no such program"}}
        return line if line["type"] == "trace" else None

    trace = edited(HELLO, tmp_path / "t", edit)
    assert "no such program" in _trouble(capsys, str(trace), "--lock", str(path))


BAD_LOCKS = {
    "": "version",
    "version = 2": "newer bpfstrace",
    "version = 1\nhelper = []": "unknown key 'helper'",
    "version = 1\npin_tags = 1": "pin_tags",
    "version = 1\npins = [1]": "not a string",
    "version = 1\nprogram = [1]": "not a table",
    "version = 1\n[[program]]\nname = 'x'": "program 1 lacks type",
    "version = 1\n[[program]]\nname = 'x'\ntype = 'xdp'\nhelpers = 'all'": "helpers",
    "version = 1\n[[map]]\nname = 'x'\ntype = 'hash'\nkey_size = true\nvalue_size = 1": "key_size",
    "version = 1\nversion = 1": "overwrite",
    "\0": "",
}


@pytest.mark.parametrize("text", BAD_LOCKS, ids=range(len(BAD_LOCKS)))
def test_a_lock_file_that_is_not_right(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "lock.toml"
    path.write_text(text)
    told = _trouble(capsys, str(HELLO), "--lock", str(path))
    assert BAD_LOCKS[text] in told
    # --update must not throw away what it does not understand either.
    _trouble(capsys, str(HELLO), "--lock", str(path), "--update")
    assert path.read_text() == text


def test_other_trouble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--update writes it" in _trouble(capsys, str(HELLO), "--lock", str(tmp_path / "no"))
    assert "missing.jsonl" in _trouble(
        capsys, str(tmp_path / "missing.jsonl"), "--lock", str(tmp_path / "l"), "--update"
    )
    assert not (tmp_path / "l").exists()
    twice = tmp_path / "twice.json"
    twice.write_text('{"version": 1, "pins": [], "pins": ["*"]}')
    assert "stands twice" in _trouble(capsys, str(HELLO), "--lock", str(twice))
    with pytest.raises(OutputError, match="cannot write"):
        check([str(HELLO), "--lock", str(tmp_path / "no" / "l"), "--update"])
    for words in ([str(HELLO)], ["--lock", "x"], [str(HELLO), "--lock", "x", "--no-tags"]):
        done = run_cli("check", *words)
        assert done.returncode == 2
        assert done.stdout == ""


# ------------------------------------------------------------------ hostile and rare traces


def _first_attr(line: dict[str, Any]) -> tuple[bytearray, list[Any]]:
    chunk = line["raw"]["entry"][0]
    return bytearray(base64.b64decode(chunk[1])), chunk


def test_a_name_with_a_star_allows_only_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def named(name: bytes) -> Edit:
        def edit(line: dict[str, Any]) -> dict[str, Any]:
            if line["type"] == "syscall" and line["args"].get("cmd") == "BPF_PROG_LOAD":
                if line["args"]["attr"]["prog_name"] != "hello_world":
                    return line
                attr, chunk = _first_attr(line)
                at = bytes(attr).index(b"hello_world")
                attr[at : at + 16] = name.ljust(16, b"\0")
                struct.pack_into("<I", attr, 80, 0)  # func_info_cnt, which names it too
                chunk[1] = base64.b64encode(attr).decode()
            return line

        return edit

    star = edited(HELLO, tmp_path / "star", named(b"hel*\x1b[31m"))
    path = tmp_path / "lock.toml"
    assert check([str(star), "--lock", str(path), "--update"]) == DONE
    assert check([str(star), "--lock", str(path)]) == DONE
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "\x1b" not in path.read_text()
    assert check([str(HELLO), "--lock", str(path)]) == DIFFERENT


def test_a_probe_that_is_attached_counts(tmp_path: Path) -> None:
    """A disguise as libbpf's own test of names does not help a program that is used."""

    def edit(line: dict[str, Any]) -> dict[str, Any]:
        if line["type"] == "syscall" and line["args"].get("cmd") == "BPF_PROG_LOAD":
            attr, chunk = _first_attr(line)
            at = bytes(attr).find(b"hello_world")
            if at > 0:
                attr[at : at + 16] = b"libbpf_nametest\0"
                struct.pack_into("<I", attr, 80, 0)
                struct.pack_into("<I", attr, 4, 2)  # insn_cnt
                chunk[1] = base64.b64encode(attr).decode()
                line["raw"]["entry"][1][1] = base64.b64encode(
                    struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
                ).decode()
                del line["raw"]["entry"][2:]
        return line

    found = deeds_of(str(edited(HELLO, tmp_path / "t", edit)))
    assert {deed.prog[0] for deed in found if deed.kind == "program"} == {"libbpf_nametest"}


def test_patterns_and_notes_of_people_stay(lock_of: Callable[..., Path]) -> None:
    path = lock_of(LOADALL)
    text = path.read_text()
    pins = 'pins = ["/sys/fs/bpf/*", "/gone/*"]'
    text = re.sub(r"pins = \[.*?\]", pins, text, count=1, flags=re.S)
    text = text.replace('name = "sum_sizes"', 'name = "sum_*"\nnote = "for billing"')
    text = text.replace('name = "totals"', 'name = "totals"\nnote = "24: three counters"')
    path.write_text(text)
    assert check([str(LOADALL), "--lock", str(path)]) == DONE
    table = tomllib.loads(lock_of(LOADALL).read_text())
    assert table["pins"] == ["/sys/fs/bpf/*"]
    assert [(row["name"], row.get("note")) for row in table["program"]] == [
        ("count_packets", None),
        ("sum_*", "for billing"),
    ]
    assert [row.get("note") for row in table["map"]] == [None, "24: three counters"]


# ------------------------------------------------------------------ the file

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
sets = st.sets(texts, max_size=4)
programs = st.builds(Program, texts, texts, sets, sets, sets, sets, texts)
maps = st.builds(Map, texts, texts, st.integers(0, 2**32), st.integers(0, 2**32), texts)
locks = st.builds(
    Lock, st.lists(programs, max_size=3), st.lists(maps, max_size=3), sets, sets, st.booleans()
)


@given(locks)
def test_toml_and_json_say_the_same(lock: Lock) -> None:
    """Read by the standard library, which did not write it."""
    toml = tomllib.loads(dumps(lock, "x.toml"))
    assert {"program": [], "map": [], **toml} == json.loads(dumps(lock, "x.json"))


@given(texts, texts)
def test_a_literal_matches_itself_and_nothing_else(one: str, other: str) -> None:
    assert matches(literal(one), one)
    assert matches(literal(one), other) is (one == other)
    assert matches("*", other)
    assert matches(literal(one) + "*", one + other)


def test_load_gives_back_what_dumps_wrote(tmp_path: Path) -> None:
    found = deeds_of(str(OPENSNOOP))
    lock = updated(None, found, None)
    for name in ("a.toml", "b.json"):
        path = tmp_path / name
        path.write_text(dumps(lock, name))
        assert dumps(load(str(path)), "c.toml") == dumps(lock, "c.toml")
    assert not [deed for deed in found if not lock.allows(deed)]


def test_docs_example_is_real(lock_of: Callable[..., Path]) -> None:
    """The lock file in the docs is what comes out."""
    docs = (ROOT / "docs" / "check.md").read_text()
    shown = re.search(r"```toml\n(.*?)```", docs, re.S)
    assert shown is not None
    assert shown[1] == lock_of(HELLO).read_text()


def test_is_written_whole_or_not_at_all(tmp_path: Path, lock_of: Callable[..., Path]) -> None:
    path = lock_of(HELLO)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    shutil.rmtree(tmp_path)
