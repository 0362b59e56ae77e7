"""``bpfstrace repro``: reproducers that do again what was recorded, and tell when it differs."""

from __future__ import annotations

import ast
import os
import random
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.cli.messages import DONE, OWN_FAILURE, TROUBLE
from bpftrace_sys.cli.options import UsageError
from bpftrace_sys.cli.repro import main
from bpftrace_sys.export import reproducer_c, reproducer_python
from bpftrace_sys.export.reproducer import Collector
from bpftrace_sys.export.reproducer_part import part, range_of
from bpftrace_sys.export.reproduction import (
    FD,
    Buffer,
    Chars,
    Close,
    Handle,
    Issue,
    LeftOut,
    Looked,
    Nowhere,
    Number,
    Part,
    Reproduction,
)
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.whole_trace import read
from decoders.raw import Chunk, RawCall
from tests.support.needs import c_compiler, needs_tool
from tests.support.rewriting import items, recording, save
from tests.support.running import FIXTURES, LOADERS, ROOT, run_cli

ALL = sorted(path.parent.name for path in FIXTURES.glob("*/trace.jsonl.gz"))


def where(name: str) -> str:
    """The machine that a recording was made on."""
    with (FIXTURES / name / "manifest.toml").open("rb") as file:
        return str(tomllib.load(file)["where"])


HERE = [name for name in ALL if where(name) == "host"]


def made_of(trace: Path) -> Reproduction:
    found: list[Collector] = []

    def make(model: Model) -> Collector:
        found.append(Collector(model))
        return found[0]

    read(str(trace), make)
    return found[0].finish()


def text_of(made: Reproduction) -> str:
    return "".join(reproducer_python.write(made))


def write(trace: Path, to: Path, *options: str) -> Path:
    assert main([str(trace), "-o", str(to), *options]) == DONE
    return to


def ran(script: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", str(script), *options],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def verdicts(output: str) -> dict[str, int]:
    """The numbers of the last lines: ``as recorded``, ``DIFFER``, ..."""
    found = re.search(r"^(\d+) calls: (.*)$", output, re.MULTILINE)
    assert found is not None, output
    words = dict(part.split(" ", 1)[::-1] for part in found[2].split(", "))
    counted = {word.replace("DIFFERS", "DIFFER"): int(number) for word, number in words.items()}
    assert sum(counted.values()) == int(found[1])
    return counted


# ------------------------------------------------------------------ all recordings


@pytest.mark.parametrize("name", HERE)
def test_calls_return_what_they_returned(name: str, tmp_path: Path, needs_bpf: None) -> None:
    """Every recording of this machine, as it was recorded."""
    script = write(recording(name), tmp_path / "repro.py")
    done = ran(script, "--as-recorded")
    counted = verdicts(done.stdout)
    issued = len(made_of(recording(name)).issues)
    assert set(counted) <= {"as recorded", "that may differ"}, done.stdout
    assert sum(counted.values()) == issued
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize("name", ALL)
def test_the_file_is_python_that_others_have(name: str, tmp_path: Path) -> None:
    """Nothing but the standard library, and nothing newer than Python 3.8."""
    script = write(recording(name), tmp_path / "repro.py")
    assert script.stat().st_mode & 0o777 == 0o600
    tree = ast.parse(script.read_text(), feature_version=(3, 8))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    assert {alias.name for node in imports for alias in node.names} <= sys.stdlib_module_names
    froms = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert froms == ["__future__", "typing"]


@pytest.mark.parametrize(
    "loader",
    ["flow_dissector", "map_in_map", "perf_link", "pin", "struct_ops", "tcx", "tracefs_uprobe"],
)
def test_other_ways_of_attaching(loader: str, traced: Any, tmp_path: Path, needs_bpf: None) -> None:
    """Namespaces, pins elsewhere, operations of structs, probes by tracefs: traced just now."""
    program = str(LOADERS / f"{loader}.py")
    traced(["-f"], sys.executable, program)
    done = ran(write(tmp_path / "trace.jsonl", tmp_path / "repro.py"), "--as-recorded")
    assert set(verdicts(done.stdout)) <= {"as recorded", "that may differ"}, done.stdout
    assert done.returncode == 0


def test_all_is_tidied_up(tmp_path: Path, needs_bpf: None) -> None:
    """No pin, no cgroup, no program stays."""
    before = leftovers()
    for name in ("cgroup-attach", "bpftool-loadall", "xdp-link"):
        assert ran(write(recording(name), tmp_path / f"{name}.py")).returncode == 0
    assert leftovers() == before


def leftovers() -> set[str]:
    roots = ("/sys/fs/bpf", "/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/tmp")
    names = [name for root in roots if os.path.isdir(root) for name in os.listdir(root)]
    return {name for name in names if "repro" in name or "fixture" in name or "count" in name}


@pytest.mark.parametrize("name", ["bpftool-loadall", "cgroup-attach", "i386-tracee", "xdp-link"])
def test_c_does_the_same(name: str, tmp_path: Path, needs_bpf: None) -> None:
    source = write(recording(name), tmp_path / "repro.c", "--c")
    program = tmp_path / "repro"
    built = subprocess.run(
        [c_compiler(), "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert verdicts(done.stdout)["as recorded"] == len(made_of(recording(name)).issues)
    assert done.returncode == 0


# ------------------------------------------------------------------ differences


def test_a_changed_instruction_is_told(tmp_path: Path, needs_bpf: None) -> None:
    """``r0 = 0`` before the exit becomes ``r5 = 0``: the verifier no longer takes it."""
    script = write(recording("xdp-attach"), tmp_path / "repro.py")
    text = script.read_text()
    attr = re.search(r"insns\((PROGRAM_\d+)\)\),  +# insns\n(?:.*\n){1,9}.*b'pass'", text)
    assert attr is not None
    start = text.index(f'\n{attr[1]} = """')
    end = text.index('"""\n', start + 20)
    program, count = re.subn(r"\nb700", "\nb705", text[start:end], count=1)
    assert count == 1
    script.write_text(text[:start] + program + text[end:])
    done = ran(script)
    assert done.returncode == 1
    line = next(line for line in done.stdout.splitlines() if "DIFFERS" in line)
    assert re.search(r"BPF_PROG_LOAD pass +fd +EACCES +DIFFERS$", line)
    assert "R0 !read_ok" in done.stdout  # the verifier's words, though no log was asked for
    counted = verdicts(done.stdout)
    assert counted["DIFFER"] == 1


def test_who_was_refused_had_fewer_privileges(tmp_path: Path, needs_bpf: None) -> None:
    script = write(recording("eperm"), tmp_path / "repro.py")
    done = ran(script)
    assert done.returncode == 1
    assert verdicts(done.stdout) == {"DIFFER": 4}
    assert "try --as-recorded" in done.stdout
    assert verdicts(ran(script, "--as-recorded").stdout) == {"as recorded": 4}


@pytest.mark.live
def test_without_root_it_says_what_it_could_not_do(tmp_path: Path) -> None:
    """No traceback, whoever runs it."""
    needs_tool("setpriv")
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    script = write(recording("bpftool-loadall"), tmp_path / "repro.py")
    script.chmod(0o644)
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
         "/usr/bin/python3", str(script)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "not issued" in done.stdout


# ------------------------------------------------------------------ parts


def seqs(made: Reproduction) -> list[int]:
    return [step.seq for step in made.issues]


def test_a_part_has_what_it_depends_on() -> None:
    """The ioctl that enables an event needs the event, its program, and the program's BTF."""
    whole = made_of(recording("bcc-kprobe-hello"))
    enable = next(step.seq for step in whole.issues if step.what == "PERF_EVENT_IOC_ENABLE")
    chosen = part(whole, enable, enable)
    assert [step.what for step in chosen.issues] == [
        "BPF_BTF_LOAD",
        "BPF_PROG_LOAD hello_world",
        "perf_event_open kprobe do_sys_openat2",
        "PERF_EVENT_IOC_SET_BPF",
        "PERF_EVENT_IOC_ENABLE",
    ]


@pytest.mark.parametrize("name", ["bcc-uprobe", "bpftool-loadall", "cgroup-attach", "xdp-link"])
def test_parts_run_alone(name: str, tmp_path: Path, needs_bpf: None) -> None:
    """A part in the middle of each recording returns what it returned in the whole."""
    whole = made_of(recording(name))
    numbers = seqs(whole)
    middle = numbers[len(numbers) // 2]
    script = write(recording(name), tmp_path / "repro.py", "--seq", f"{middle}-{middle}")
    done = ran(script, "--as-recorded")
    assert set(verdicts(done.stdout)) <= {"as recorded", "that may differ"}, done.stdout
    assert re.search(rf"^ +{middle} ", done.stdout, re.MULTILINE)
    assert done.returncode == 0


@pytest.mark.parametrize("name", ALL)
def test_parts_name_only_what_is_there(name: str) -> None:
    whole = made_of(recording(name))
    for step in whole.issues:
        chosen = part(whole, step.seq, step.seq)
        made = {each.made for each in chosen.issues}
        assert all(each.handles <= made for each in chosen.issues)
        assert seqs(chosen)[-1] == step.seq
        assert seqs(chosen) == sorted(seqs(chosen))


def test_ranges(capsys: pytest.CaptureFixture[str]) -> None:
    assert range_of("7") == (7, 7)
    assert range_of("3-9") == (3, 9)
    assert range_of("-9") == (1, 9)
    assert range_of("3-")[0] == 3
    for text in ("", "x", "3-9-", "1e3", "--", "-"):
        with pytest.raises(UsageError, match="--seq"):
            main(["--seq", text, str(recording("eperm"))])
    assert main([str(recording("eperm")), "--seq", "900-"]) == DONE
    assert "there are no such calls" in capsys.readouterr().err


# ------------------------------------------------------------------ the command


def test_the_head_says_what_is_not_as_it_was(tmp_path: Path) -> None:
    head = write(recording("i386-tracee"), tmp_path / "a.py").read_text().partition("import")[0]
    assert "8 of these calls were made in 32-bit mode" in head
    assert "holds memory of the recorded process" in head
    head = write(recording("bpftool-loadall"), tmp_path / "b.py").read_text().partition("import")[0]
    assert re.search(r"\d+ threads made these calls; here one makes them", head)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    done = run_cli("repro", str(recording("kcm")), "-o", str(tmp_path / "repro.py"))
    assert done.returncode == DONE
    assert "call 3 (SIOCKCMATTACH) is left out: fd 4, socket:[" in done.stderr
    assert "holds memory of the traced program" in done.stderr
    assert "# 3: SIOCKCMATTACH: not issued" in (tmp_path / "repro.py").read_text()


def test_a_damaged_trace_is_written_as_far_as_it_goes(tmp_path: Path) -> None:
    header, found = items(recording("bpftool-loadall"))
    whole = save(tmp_path / "whole.jsonl", header, found)
    lines = whole.read_text().splitlines(keepends=True)
    cut = tmp_path / "cut.jsonl"
    cut.write_text("".join(lines[: len(lines) // 2]))
    done = run_cli("repro", str(cut), "-o", str(tmp_path / "repro.py"))
    assert done.returncode == TROUBLE
    assert "what stood before is written" in done.stderr
    assert "The trace is not whole" in (tmp_path / "repro.py").read_text()


def test_wrong_arguments_and_files(tmp_path: Path) -> None:
    assert run_cli("repro").returncode == 2
    assert run_cli("repro", "--nothing", "x").returncode == 2
    done = run_cli("repro", str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (TROUBLE, "")
    done = run_cli("repro", str(recording("eperm")), "-o", str(tmp_path / "no" / "file"))
    assert done.returncode == OWN_FAILURE
    assert "No such file" in done.stderr
    done = run_cli("repro", "--help")
    assert done.returncode == 0
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_stdout_holds_the_program(tmp_path: Path) -> None:
    done = run_cli("repro", str(recording("eperm")))
    assert done.stdout == write(recording("eperm"), tmp_path / "repro.py").read_text()


# ------------------------------------------------------------------ hostile traces

PWNED = (
    'x"""\n)*/ */ #error pwned\nPWNED = __import__("os").abort()\n\\ '
    "\'\'\' ??/ \u2028 \udc80 \x1b[31m %s %(prog)d"
)


def hostile() -> Reproduction:
    """Text of an enemy's wherever there is text."""
    handle = Handle("prog_x", 1, "prog 1")
    listing = [("b700000000000000", PWNED), ("9500000000000000", PWNED)]
    program = Buffer("insns", 16, bytes(16), listing=listing)
    parts = [
        Part(0, 4, Number(1), PWNED),
        Part(8, 8, program, PWNED),
        Part(48, 16, Chars(PWNED.encode("utf-8", "surrogatepass")[:16]), PWNED),
        Part(72, 4, Looked("vmlinux_type", (PWNED, 7)), PWNED),
        Part(80, 8, Buffer("p", 64, PWNED.encode("utf-8", "surrogatepass"), path=True), PWNED),
        Part(88, 8, Buffer("t", 9, b"ninebytes", torn=True), PWNED),
        Part(96, 8, Nowhere(), PWNED),
    ]
    attr = Buffer("attr", 128, parts=parts)
    steps: list[Issue | Close | LeftOut] = [
        Issue(1, PWNED, "bpf", [Number(5), attr, Number(128)], FD, PWNED, PWNED, handle),
        Close(handle, PWNED),
        LeftOut(2, PWNED, PWNED),
    ]
    return Reproduction(PWNED, PWNED, PWNED, steps, [PWNED])


def test_nothing_of_the_trace_becomes_code(tmp_path: Path) -> None:
    text = text_of(hostile())
    (tmp_path / "repro.py").write_text(text)
    assert "--as-recorded" in ran(tmp_path / "repro.py", "--help").stdout
    tree = ast.parse(text)
    assert not any(isinstance(node, ast.Name) and node.id == "PWNED" for node in ast.walk(tree))
    assert "\x1b" not in text
    source = "".join(reproducer_c.write(hostile()))
    assert "\x1b" not in source
    path = tmp_path / "repro.c"
    path.write_text(source, encoding="utf-8", errors="backslashreplace")
    built = subprocess.run(
        [c_compiler(), "-fsyntax-only", "-trigraphs", "-Wall", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert "pwned" not in built.stderr


def damaged(found: list[Any], seed: int) -> Iterator[Any]:
    """Calls with some bytes and registers changed."""
    rng = random.Random(seed)
    for item in found:
        if isinstance(item, RawCall) and rng.random() < 0.7:
            chunks = []
            for chunk in item.chunks:
                data = bytearray(chunk.data)
                for _ in range(rng.randrange(3) if data else 0):
                    data[rng.randrange(min(len(data), 160))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
                chunks.append(Chunk(chunk.stage, chunk.addr, bytes(data), chunk.wanted))
            item = item.replace(chunks=chunks)
        yield item


@pytest.mark.parametrize("name", ["bpftool-loadall", "cgroup-attach", "freplace", "perf-record"])
def test_damaged_calls_make_a_program_all_the_same(name: str, tmp_path: Path) -> None:
    """Whatever the bytes say: it is Python, and not larger than what it is made of."""
    header, found = items(recording(name))
    for seed in range(4):
        trace = save(tmp_path / f"{seed}.jsonl", header, damaged(found, seed))
        made = made_of(trace)
        text = text_of(made)
        ast.parse(text)
        assert len(made.issues) + len(made.left_out) > 3
        assert len(text) < 40_000 + 8 * trace.stat().st_size
        assert not [step for step in made.left_out if "could not be followed" in step.why]


def test_the_runtime_is_whole() -> None:
    """What the files of the runtime name, is there when they stand in one file."""
    text = text_of(Reproduction("", "", ""))
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--select", "F", "--stdin-filename", "x.py", "-"],
        input=text, capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
