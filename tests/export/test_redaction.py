"""Redacted traces: nothing planted is left in any encoding, structure is, and all commands work."""

from __future__ import annotations

import ctypes
import socket
import subprocess
import sys
from collections.abc import Iterator
from json import loads
from pathlib import Path

import pytest

from bpftrace_sys.cli.redact import main
from bpftrace_sys.export.stand_ins import StandIns
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.items import Fact
from bpftrace_sys.trace.reader import Reader
from decoders.decode import decode
from decoders.raw import RawCall
from tests.support.redacted import found
from tests.support.running import FIXTURES, TRACEES, environment, run_cli
from tests.support.schema import check
from tests.tracees.planted import PLANTS

NAMES = sorted(path.name for path in FIXTURES.iterdir() if (path / "trace.jsonl.gz").exists())
HOST = "Zq7hostKx9Wv3"
SECRETS = {**PLANTS, "host": HOST.encode()}
NOT_SEEN = {"env", "perf"}
"""Of PLANTS, those that are in no trace: what a search finds is not by chance."""
def trace_it(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Traces the program, on a host of a planted name."""

    def elsewhere() -> None:
        ctypes.CDLL(None).unshare(0x04000000)  # CLONE_NEWUTS
        socket.sethostname(HOST)

    env = environment(PLANTED=PLANTS["env"].decode())
    plant = [sys.executable, "-S", str(TRACEES / "planted.py"), PLANTS["argv"].decode()]
    return run_cli(*words, *plant, str(folder), env=env, preexec_fn=elsewhere)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of the program."""
    folder = tmp_path_factory.mktemp("planted")
    trace = folder / "trace.jsonl"
    options = ["-f", "-k", "-e", "trace=netlink", "-o", "/dev/null", "--json", str(trace)]
    done = trace_it(folder, *options)
    assert done.returncode == 0, done.stderr
    return trace


def redacted(trace: Path, out: Path, *words: str) -> Path:
    done = run_cli("redact", str(trace), "-o", str(out), *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert out.stat().st_mode & 0o777 == 0o600
    return out


@pytest.mark.live
def test_nothing_planted_is_left(planted: Path, needs_bpf: None, tmp_path: Path) -> None:
    assert found([planted], SECRETS) == set(SECRETS) - NOT_SEEN
    out = redacted(planted, tmp_path / "out.jsonl")
    assert found([out], SECRETS) == set()
    # What has a name in the listing has it still.
    text = run_cli("replay", str(out)).stdout
    assert 'prog_name="shown"' in text
    assert "<map table" in text
    assert "(b7) r0 = 0" in text


@pytest.mark.live
@pytest.mark.parametrize("engine", ["ptrace", "bpf"])
def test_nothing_planted_is_left_in_any_output(
    needs_bpf: None, tmp_path: Path, engine: str
) -> None:
    """Redacted while it is traced; the trace is one that all commands take."""
    outputs = [tmp_path / name for name in ("text", "json", "report", "events")]
    text, json, *_ = outputs
    words = [f"--{path.name}={path}" for path in outputs[1:]]
    words += ["-k", "-e", "trace=netlink"] if engine == "ptrace" else ["--engine", "bpf"]
    (tmp_path / "in").mkdir()
    done = trace_it(tmp_path / "in", "-f", "--redact", "-o", str(text), *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert found(outputs, SECRETS) == set()
    told = text.read_text()
    for word in ('prog_name="shown"', "<map table", "(b7) r0 = 0", 'license="GPL"'):
        assert word in told
    # What was told live and what is told of the trace is the same.
    again = run_cli("replay", *(["-k"] if engine == "ptrace" else []), str(json))
    assert (again.returncode, again.stdout) == (0, told)
    check([loads(line) for line in json.read_text().splitlines()])


@pytest.mark.live
@pytest.mark.parametrize("engine", ["ptrace", "bpf"])
def test_no_call_of_a_loop_is_lost(needs_bpf: None, tmp_path: Path, engine: str) -> None:
    """What is short cut without --redact, is told in full with it."""
    text, json = tmp_path / "text", tmp_path / "json"
    secret, loop = "Zq7loopKx9Wv3", str(TRACEES / "secret_loop.py")
    words = ["--engine", engine, "-q", "--redact", "-v", "-o", str(text), "--json", str(json)]
    done = run_cli(*words, "-e", "trace=bpf", sys.executable, "-S", loop, "500", secret)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [loads(line) for line in json.read_text().splitlines()]
    calls = [line for line in lines if line["type"] == "syscall"]
    assert [line["seq"] for line in calls] == list(range(1, 502))
    assert text.read_text().count("BPF_MAP_UPDATE_ELEM") == 500
    assert found([text, json], {"value": secret.encode()}) == set()


@pytest.mark.live
@pytest.mark.parametrize("hidden", ["argv", "paths,host", "!strings"])
def test_some_is_redacted_live(needs_bpf: None, tmp_path: Path, hidden: str) -> None:
    json = tmp_path / "json"
    done = trace_it(tmp_path, "-f", f"--redact={hidden}", "-o", "/dev/null", "--json", str(json))
    assert done.returncode == 0, done.stderr
    left = found([json], SECRETS)
    assert ("argv" in left) == (hidden == "paths,host")
    assert ("host" in left) == (hidden == "argv")
    assert ("pin" in left) == (hidden == "argv")
    assert ("key" in left) == (hidden != "!strings")
    assert "rawtp" in left
    said = {"!strings": "values,paths,argv,host"}.get(hidden, hidden)
    assert Reader(str(json)).header.options["redacted"] == sorted(said.split(","))


@pytest.mark.live
@pytest.mark.parametrize(
    ("kept", "names"),
    [
        ("values", {"key", "value", "found", "data", "netlink", "netdev"}),
        ("strings", {"licence", "rawtp", "filter", "netdev"}),
        ("paths", {"pin", "uprobe", "open", "file", "cgroup", "stack", "btf"}),
        ("argv", {"argv", "comm"}),
        ("host", {"host"}),
    ],
)
def test_what_is_to_stay_stays(
    planted: Path, needs_bpf: None, tmp_path: Path, kept: str, names: set[str]
) -> None:
    out = redacted(planted, tmp_path / "out.jsonl", "--keep", kept)
    left = found([out], SECRETS)
    assert names <= left
    # A log is data where it was not written, and a string where it was.
    assert left - names <= {"attr", "log"}


def calls(path: Path) -> Iterator[tuple[RawCall, RecordedFacts]]:
    reader = Reader(str(path))
    facts = RecordedFacts.of(reader.header)
    for item in reader:
        if isinstance(item, Fact):
            facts.learn(item.kind, item.key, item.name)
        elif isinstance(item, RawCall):
            yield item, facts


@pytest.mark.parametrize("name", NAMES)
def test_structure_stays(name: str, tmp_path: Path) -> None:
    trace, out = FIXTURES / name / "trace.jsonl.gz", tmp_path / "out.jsonl"
    assert main([str(trace), "-o", str(out)]) == 0
    same: dict[bytes, bytes] = {}
    for (before, facts), (after, _) in zip(calls(trace), calls(out), strict=True):
        one, other = decode(before, facts), decode(after, facts)
        assert (one.command, other.problem) == (other.command, one.problem)
        assert (before.seq, before.ret, before.args) == (after.seq, after.ret, after.args)
        insns = one.attr("attr", "insns"), other.attr("attr", "insns")
        assert insns[0] == insns[1]
        for was, now in zip(before.chunks, after.chunks, strict=True):
            assert (was.addr, was.wanted, len(was.data)) == (now.addr, now.wanted, len(now.data))
            if was.data != now.data and len(was.data) < 16:
                # The same stands for the same, as it is taken: octets, a text or a path.
                assert same.setdefault(was.data + bytes([now.data.isalpha()]), now.data)


@pytest.mark.parametrize("name", ["bcc-kprobe-hello", "libbpf-tcpconnect", "xdp-link"])
def test_all_commands_take_it(name: str, tmp_path: Path) -> None:
    trace = FIXTURES / name / "trace.jsonl.gz"
    out = redacted(trace, tmp_path / "out.jsonl.gz")
    replayed = run_cli("replay", str(out))
    assert (replayed.returncode, replayed.stderr) == (0, "")
    assert run_cli("diff", "-q", str(out), str(out)).returncode == 0
    assert run_cli("report", str(out), "-o", str(tmp_path / "page.html")).returncode == 0
    lock = tmp_path / "lock.toml"
    assert run_cli("check", str(out), "--lock", str(lock), "--update").returncode == 0
    assert run_cli("check", str(out), "--lock", str(lock)).returncode == 0
    whole, hidden = tmp_path / "whole", tmp_path / "hidden"
    assert (
        run_cli("extract", str(trace), "-o", str(whole)).returncode
        == run_cli("extract", str(out), "-o", str(hidden)).returncode
    )


def test_stand_ins() -> None:
    made, other = StandIns(), StandIns()
    assert made.word(b"secret") == made.word(b"secret") != other.word(b"secret")
    assert len(made.octets(b"12345678")) == 8
    path = made.path(b"/sys/fs/bpf/secret/of/me\0")
    assert path.startswith(b"/sys/fs/bpf/")
    assert path.split(b"/")[4] == made.word(b"secret")
    assert (path.count(b"/"), path[-1:], b"secret" in path) == (6, b"\0", False)
    assert made.path(b"/proc/sys/kernel/../../../home/me").endswith(b"/" + made.word(b"me"))
    text = made.text(b"one\ntwo\0")
    assert (text[3:4], text[-1:], text[:3]) == (b"\n", b"\0", made.word(b"one"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--redact=all,some"], "'some' is none of values, strings, paths, argv, host"),
        (["--redact", "-e", "kernel=xlated"], "cannot be had with --redact"),
        (["--redact", "-P", "/secret"], "-P chooses by paths, which --redact hides"),
    ],
)
def test_what_does_not_go_together(words: list[str], said: str) -> None:
    done = run_cli(*words, "true")
    assert done.returncode == 2
    assert said in done.stderr


def test_mistakes_are_told(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl.gz"
    trace.write_bytes((FIXTURES / "bcc-kprobe-hello" / "trace.jsonl.gz").read_bytes())
    for words, said in (
        ([str(trace)], "takes one trace and a file"),
        ([str(trace), "-o", str(trace)], "is the trace itself"),
        ([str(trace), "-o", "x", "--keep", "all"], "not 'all'"),
        ([str(tmp_path / "none"), "-o", "x"], "No such file"),
    ):
        done = run_cli("redact", *words)
        assert done.returncode == 2
        assert said in done.stderr
    out = tmp_path / "out.jsonl"
    trace.write_bytes(trace.read_bytes()[:2000])
    done = run_cli("redact", str(trace), "-o", str(out))
    assert (done.returncode, "what stood before is written" in done.stderr) == (2, True)
