"""``import bpftrace_sys``: what programs get of traces."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

import bpftrace_sys
from bpftrace_sys import api
from bpftrace_sys.cli.check import main as check_main
from tests.support.running import FIXTURES, LOADERS, ROOT, run_cli

ALL = sorted(path.parent.name for path in FIXTURES.glob("*/trace.jsonl.gz"))


def recording(name: str) -> Path:
    return FIXTURES / name / "trace.jsonl.gz"


def lines_of(name: str) -> list[dict[str, Any]]:
    with gzip.open(recording(name), "rt") as file:
        return [json.loads(line) for line in file]


# ------------------------------------------------------------------ the names


def test_names_are_the_same_everywhere() -> None:
    """In api's __all__, in the package's, and in the stub that type checkers read."""
    assert sorted(api.__all__) == sorted(set(bpftrace_sys.__all__) - {"__version__"})
    stub = (ROOT / "bpftrace_sys" / "__init__.pyi").read_text()
    assert re.findall(r"^from bpftrace_sys\.api import (\w+) as \1$", stub, re.M) == sorted(
        api.__all__
    )
    for name in api.__all__:
        assert getattr(bpftrace_sys, name) is getattr(api, name)
    assert set(dir(bpftrace_sys)) >= set(api.__all__)
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = bpftrace_sys.nothing_of_ours  # type: ignore[attr-defined]


def test_importing_costs_nothing() -> None:
    """The command line's start is as it was; names are imported when they are used."""
    code = (
        "import sys, bpftrace_sys; before = [m for m in sys.modules if 'bpftrace' in m]; "
        "bpftrace_sys.open_trace; print(before, 'bpftrace_sys.api.trace' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['bpftrace_sys'] True\n"


def test_users_are_typed(tmp_path: Path) -> None:
    """mypy --strict takes a program that uses what the page shows, and knows the types."""
    (tmp_path / "user.py").write_text(
        "import bpftrace_sys\n"
        "trace = bpftrace_sys.open_trace('x')\n"
        "names: list[str] = trace.programs['a'].helpers\n"
        "for call in trace.calls('prog_load', failed=True):\n"
        "    seq: int = call.seq\n"
        "run: bpftrace_sys.Run = bpftrace_sys.run(['true'], timeout=3)\n"
        "code: int = run.returncode\n"
        "for outside in bpftrace_sys.check(run, 'l').outside:\n"
        "    text: str = outside.text\n"
        "wrong: int = trace.kernel\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "user.py")],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, done.stdout
    assert "user.py:10:" in errors[0]


def test_the_page_is_current_and_its_examples_run(tmp_path: Path, needs_bpf: None) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gen_api.py"), "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    page = (ROOT / "docs" / "api.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page.partition("## check")[0], re.S)
    assert len(examples) == 5
    trace = tmp_path / "trace.jsonl.gz"
    shutil.copy(recording("bcc-kprobe-hello"), trace)
    lock = tmp_path / "bpf.lock.toml"
    assert check_main([str(trace), "--lock", str(lock), "--update"]) == 0
    lock.write_text(lock.read_text().replace("bpf_trace_printk", "bpf_other"))
    code = "".join(examples).replace('"python3"', repr(sys.executable))
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "kprobe 38dd440716c4900f ['bpf_trace_printk'] ['kprobe do_sys_openat2']" in ran.stdout
    assert "calls the helper bpf_trace_printk call #5, insn 10" in ran.stdout


# ------------------------------------------------------------------ saved traces


@pytest.mark.parametrize("name", ALL)
def test_what_the_manifest_says_is_there(name: str) -> None:
    """Programs, targets, tags and errors that were written down before there was a recording."""
    with (FIXTURES / name / "manifest.toml").open("rb") as file:
        expect = tomllib.load(file).get("expect", {})
    trace = bpftrace_sys.open_trace(recording(name))
    names = [program.name for program in trace.programs]
    probes = [call.args["attr"]["prog_name"] for call in trace.calls("prog_load")]
    functions = [insn.function for program in trace.programs for insn in program.instructions[:1]]
    for program in expect.get("programs", []):
        # BCC names a program otherwise than its function.
        assert any(program[:15] in known for known in (*names, *probes, *functions))
    targets = [target for program in trace.programs for target in program.attached_to]
    for target in expect.get("targets", []):
        assert any(target in known for known in targets), (target, targets)
    for tag in expect.get("tags", []):
        assert any(program.tag == tag for program in trace.programs)
    failed = {call.errno for call in trace.calls(failed=True)}
    assert failed >= set(expect.get("errors", []))


@pytest.mark.parametrize("name", ["cgroup-attach", "libbpf-execsnoop", "perf-record"])
def test_calls_are_those_of_the_file(name: str) -> None:
    """As it reads today: what a file holds decoded is the word of who recorded it."""
    told = run_cli("replay", "-q", "-o", os.devnull, "--json", "-", str(recording(name)))
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    lines = [line for line in lines if line["type"] == "syscall"]
    assert [line["seq"] for line in lines] == [
        line["seq"] for line in lines_of(name) if line["type"] == "syscall"
    ]
    calls = list(bpftrace_sys.open_trace(recording(name)))
    assert [call.seq for call in calls] == [line["seq"] for line in lines]
    for call, line in zip(calls, lines, strict=True):
        assert call.args == line["args"]
        assert (call.pid, call.tid, call.comm) == (line["pid"], line["tid"], line["comm"])
        assert (call.time, call.duration) == (line["time"], line["duration"])
        assert call.errno == line.get("errno")
        assert call.failed == ("errno" in line)


def test_calls_can_be_chosen() -> None:
    trace = bpftrace_sys.open_trace(recording("verifier-reject"))
    lines = [line for line in lines_of("verifier-reject") if line["type"] == "syscall"]

    def seqs(*args: Any, **kwargs: Any) -> list[int]:
        return [call.seq for call in trace.calls(*args, **kwargs)]

    loads = [line["seq"] for line in lines if line["args"].get("cmd") == "BPF_PROG_LOAD"]
    assert seqs("prog_load") == seqs("BPF_PROG_LOAD") == seqs("PROG_*") == loads
    assert seqs("prog_load", failed=True) == [16, 17]
    assert seqs("prog_load", failed=False) == [seq for seq in loads if seq not in (16, 17)]
    assert seqs("bpf") == [line["seq"] for line in lines if line["syscall"] == "bpf"]
    assert seqs() == [line["seq"] for line in lines]
    assert seqs(pid=1) == []
    assert set(seqs("prog_load", probes=False)) < set(loads)
    assert seqs("nothing") == []


def test_instructions_are_those_of_the_listing() -> None:
    """The golden listing of the lesson's hello world, which bpftool showed the same."""
    trace = bpftrace_sys.open_trace(recording("bcc-kprobe-hello"))
    program = trace.programs["hello_world"]
    golden = (FIXTURES / "bcc-kprobe-hello" / "golden.txt").read_text()
    assert program.size == 13
    for insn in program.instructions:
        assert re.search(rf"^ +{insn.pc}: {re.escape(insn.text)}", golden, re.M), insn
        if insn.source:
            assert insn.source in golden
    assert program.helpers == ["bpf_trace_printk"]
    assert program.kfuncs == []


def test_a_refused_program_says_why() -> None:
    trace = bpftrace_sys.open_trace(recording("verifier-reject"))
    program = trace.programs["forgetful"]
    assert program.id is None
    assert program.refused is not None
    assert program.refused.errno == "EACCES"
    assert program.refused.message == "R0 invalid mem access 'map_value_or_null'"
    place = program.refused.place
    assert place is not None
    assert place.where == "./reject.c:20:10"
    assert [refusal.seq for refusal in trace.refusals] == [17]  # 16 was tried again
    assert (trace.exit_code, trace.signal) == (255, None)
    assert program.helpers == ["bpf_map_lookup_elem"]


def test_maps_links_and_attachments() -> None:
    trace = bpftrace_sys.open_trace(recording("xdp-link"))
    (link,) = [each for each in trace.links if each.type == "xdp"]
    assert link.program == "pass"
    assert "xdp on veth0" in link.target
    assert trace.programs["pass"].attached_to == [link.target]
    (attached,) = [each for each in trace.attachments if each.verb == "attached"]
    assert (attached.program, attached.target) == ("pass", link.target)
    counts = bpftrace_sys.open_trace(recording("bpftool-loadall")).maps["packets"]
    assert counts.operations > 0


def test_names_that_are_not_there() -> None:
    programs = bpftrace_sys.open_trace(recording("bcc-kprobe-hello")).programs
    with pytest.raises(KeyError, match="no program is named 'x'; there are: hello_world"):
        _ = programs["x"]
    assert "hello_world" in programs
    assert "x" not in programs
    assert programs[0].name == "hello_world"
    assert len(programs[0:1]) == 1
    assert programs.names == ["hello_world"]


# ------------------------------------------------------------------ damaged traces


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    lines = lines_of("bpftool-loadall")
    path = tmp_path / "cut.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines[: len(lines) // 2]))
    return path


def test_a_truncated_trace_is_an_error_where_it_ends(cut: Path) -> None:
    trace = bpftrace_sys.open_trace(cut)
    assert next(iter(trace)).seq == 1  # reading has only begun
    with pytest.raises(bpftrace_sys.TraceError, match="without its end line"):
        list(trace)
    with pytest.raises(bpftrace_sys.TraceError, match="without its end line"):
        _ = trace.programs


def test_or_it_is_told_as_far_as_it_goes(cut: Path) -> None:
    trace = bpftrace_sys.open_trace(cut, partial=True)
    assert len(list(trace)) > 3
    assert "without its end line" in trace.damage
    assert trace.exit_code is None
    assert len(trace.programs) + len(trace.maps) > 0


def test_no_trace_at_all(tmp_path: Path) -> None:
    for path in (tmp_path / "none", ROOT / "README.md", tmp_path):
        with pytest.raises(bpftrace_sys.TraceError):
            bpftrace_sys.open_trace(path)


# ------------------------------------------------------------------ comparing


def test_diff_is_the_command_s() -> None:
    a, b = recording("bpftool-loadall"), recording("bpftool-loadall-o1")
    found = bpftrace_sys.diff(bpftrace_sys.open_trace(a), b)
    assert found
    done = run_cli("diff", str(a), str(b))
    assert str(found) == done.stdout.rstrip("\n")
    assert found.json == json.loads(run_cli("diff", "--json", str(a), str(b)).stdout)
    assert not bpftrace_sys.diff(a, a)
    only = bpftrace_sys.diff(a, b, only=["maps"])
    assert len(only.lines) < len(found.lines)
    with pytest.raises(ValueError, match="nonsense"):
        bpftrace_sys.diff(a, b, only=["nonsense"])


def test_check_is_the_command_s(tmp_path: Path, cut: Path) -> None:
    trace, lock = recording("bcc-kprobe-hello"), tmp_path / "l.toml"
    assert check_main([str(trace), "--lock", str(lock), "--update"]) == 0
    assert bpftrace_sys.check(trace, lock).verdict == "within"
    lock.write_text(lock.read_text().replace("bpf_trace_printk", "x"))
    verdict = bpftrace_sys.check(bpftrace_sys.open_trace(trace), lock)
    assert [each.text for each in verdict.outside] == [
        "program hello_world (kprobe) calls the helper bpf_trace_printk"
    ]
    place = verdict.outside[0].where.place
    assert place is not None
    assert place.line == 15
    with pytest.raises(bpftrace_sys.TraceError):
        bpftrace_sys.check(cut, lock)
    partial = bpftrace_sys.check(bpftrace_sys.open_trace(cut, partial=True), lock)
    assert partial.verdict == "trouble"
    with pytest.raises(bpftrace_sys.LockError):
        bpftrace_sys.check(trace, tmp_path / "none.toml")


# ------------------------------------------------------------------ running

HELLO = [sys.executable, "-m", "bpftrace_sys.hello"]


def test_a_command_is_traced(needs_bpf: None) -> None:
    done = bpftrace_sys.run(HELLO, timeout=120)
    assert done.returncode == 0
    assert "hello_world -> " in done.stdout
    assert done.programs["hello_world"].attached_to
    path = Path(done.path)
    assert path.exists()
    assert len(list(done)) > 3
    del done
    assert not path.exists()


@pytest.mark.live
def test_a_trace_is_kept_where_it_is_told(tmp_path: Path) -> None:
    kept = tmp_path / "t.jsonl.gz"
    kept.write_text("something else")
    done = bpftrace_sys.run(["sh", "-c", "echo out; echo err >&2; exit 3"], save=kept)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    del done
    assert bpftrace_sys.open_trace(kept).exit_code == 3
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.live
def test_how_a_command_is_run(tmp_path: Path) -> None:
    words = ["sh", "-c", 'pwd; cat; echo "$X"; kill -9 $$']
    done = bpftrace_sys.run(
        words, cwd=tmp_path, input="read\n", env={**os.environ, "X": "set"}, follow=False
    )
    assert done.stdout == f"{tmp_path}\nread\nset\n"
    assert done.returncode == -signal.SIGKILL
    assert done.signal == signal.SIGKILL


def test_calls_can_be_made_to_fail(needs_bpf: None) -> None:
    done = bpftrace_sys.run(HELLO, inject=["bpf(prog_load):error=EPERM"], syscalls="bpf")
    assert {call.errno for call in done.calls("prog_load")} == {"EPERM"}
    assert not list(done.calls("perf_event_open"))


@pytest.mark.live
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["no-such-program-here"], "no such program"),
        (["/etc/passwd"], "not executable"),
        ([], "no command"),
    ],
)
def test_what_cannot_be_run(words: list[str], why: str) -> None:
    with pytest.raises(bpftrace_sys.RunError, match=why):
        bpftrace_sys.run(words)


def test_wrong_options_are_told() -> None:
    with pytest.raises(bpftrace_sys.RunError, match="nonsense"):
        bpftrace_sys.run(["true"], options=["--nonsense"])


@pytest.mark.live
def test_what_takes_too_long_is_ended() -> None:
    begun = time.monotonic()
    with pytest.raises(bpftrace_sys.RunTimeoutError) as failure:
        bpftrace_sys.run(["sh", "-c", "sleep 4711 & sleep 4712"], timeout=2)
    assert time.monotonic() - begun < 60
    assert failure.value.trace is not None
    assert failure.value.trace.argv[0] == "sh"
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            assert words[:2] not in ([b"sleep", b"4711"], [b"sleep", b"4712"])


@pytest.mark.live
def test_the_caller_is_not_disturbed() -> None:
    """From several threads at once: its handlers, mask, children and descriptors stay its own."""
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    other = subprocess.Popen(["sh", "-c", "read x; exit 7"], stdin=subprocess.PIPE)
    fds = set(os.listdir("/proc/self/fd"))
    codes: list[int] = []

    def work(number: int) -> None:
        codes.append(bpftrace_sys.run(["sh", "-c", f"exit {number}"]).returncode)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [0, 1, 2]
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == handlers
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    assert set(os.listdir("/proc/self/fd")) == fds
    assert other.poll() is None
    other.communicate(b"\n")
    assert other.returncode == 7


def test_a_loader_that_is_refused(needs_bpf: None) -> None:
    done = bpftrace_sys.run([sys.executable, str(LOADERS / "errors.py")])
    found = {(refusal.command, refusal.errno) for refusal in done.refusals}
    assert ("BPF_PROG_LOAD", "EACCES") in found or ("BPF_PROG_LOAD", "EINVAL") in found
    assert all(refusal.errno in refusal.text for refusal in done.refusals)
