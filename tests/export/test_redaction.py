"""Redacted traces: nothing planted is left in any encoding, structure is, and all commands work."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpftrace_sys.cli.redact import main
from bpftrace_sys.export.redaction import StandIns
from bpftrace_sys.trace.facts import RecordedFacts
from bpftrace_sys.trace.items import Fact
from bpftrace_sys.trace.reader import Reader
from decoders.decode import decode
from decoders.raw import RawCall
from tests.support.running import FIXTURES, run_cli

NAMES = sorted(path.name for path in FIXTURES.iterdir() if (path / "trace.jsonl.gz").exists())
PLANTS = {
    name: b"Zq7" + name.encode() + b"Kx9" + b"Wv3"[: 9 - len(name)]
    for name in (
        "argv", "comm", "key", "value", "found", "pin", "licence", "log", "uprobe", "open",
        "file", "data", "rawtp", "filter", "attr", "btf", "link",
    )
}  # fmt: skip
"""What a program has that nobody else is to see, by where it has it."""
PROGRAM = f"PLANTS = {PLANTS!r}\n" + r"""
import ctypes, os, platform, struct, tempfile
libc = ctypes.CDLL(None)
NR = {"x86_64": (321, 298), "aarch64": (280, 241)}[platform.machine()]
keep = []

def ptr(data, size=0):
    keep.append(ctypes.create_string_buffer(data, max(size, len(data) + 1)))
    return ctypes.addressof(keep[-1])

def bpf(cmd, attr):
    return libc.syscall(NR[0], cmd, ctypes.create_string_buffer(attr, len(attr)), len(attr))

def padded(name, size=32):
    return PLANTS[name].ljust(size, b".")

libc.prctl(15, PLANTS["comm"])  # PR_SET_NAME
insns = ptr(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
log = ptr(PLANTS["log"], 4096)
prog = bpf(5, struct.pack("<IIQQIIQII16sI", 1, 2, insns, ptr(b"GPL"), 0, 0, 0, 0, 0,
                          b"shown", 0)) & 0xFFFFFFFF
bpf(5, struct.pack("<IIQQIIQII16sI", 1, 2, insns, ptr(PLANTS["licence"]), 1, 4096, log, 0, 0,
                   b"refused!", 0))
# A map, set and read; what is beside the key in memory is in the attr, too.
fd = bpf(0, struct.pack("<7I16s", 1, 32, 32, 4, 0, 0, 0, b"table")) & 0xFFFFFFFF
key, value = ptr(padded("key")), ptr(padded("value"))
bpf(2, struct.pack("<IxxxxQQQ", fd, key, value, 0) + padded("attr", 96).replace(b".", b"\0"))
bpf(2, struct.pack("<IxxxxQQQ", fd, ptr(b"k" * 32), ptr(padded("found")), 0))
bpf(1, struct.pack("<IxxxxQQQ", fd, ptr(b"k" * 32), ptr(b"", 64), 0))
bpf(4, struct.pack("<IxxxxQQQ", fd, key, ptr(b"", 64), 0))
bpf(6, struct.pack("<QII", ptr(b"/sys/fs/bpf/no/" + PLANTS["pin"]), fd, 0))
bpf(10, struct.pack("<IIIIQQ", prog, 0, 64, 0, ptr(padded("data", 64)), 0) + bytes(48))
bpf(17, struct.pack("<QIIQ", ptr(PLANTS["rawtp"]), prog, 0, 0))
bpf(18, struct.pack("<QQIII", ptr(padded("btf", 64)), log, 64, 4096, 1))
attr = bytearray(120)
struct.pack_into("<II", attr, 0, 8, 120)
struct.pack_into("<QQ", attr, 56, ptr(b"/tmp/" + PLANTS["uprobe"]), 16)
libc.syscall(NR[1], bytes(attr), -1, 0, -1, 8)
event = bytearray(120)
struct.pack_into("<II", event, 0, 1, 120)
event = libc.syscall(NR[1], bytes(event), 0, -1, -1, 8)
libc.ioctl(event, 0x40082406, ctypes.c_void_p(ptr(PLANTS["filter"])))  # PERF_EVENT_IOC_SET_FILTER
libc.open(b"/sys/kernel/tracing/events/" + PLANTS["open"] + b"/id", 0)
with tempfile.TemporaryDirectory() as folder:
    file = os.open(os.path.join(os.fsencode(folder), PLANTS["file"]), os.O_RDWR | os.O_CREAT)
    bpf(8, struct.pack("<IIIIII", file, file, 8, 0, 0, 0))  # PROG_ATTACH
"""
NOT_SEEN = {"link"}
"""Of PLANTS, those that the program does nothing with: what a search finds is not by chance."""
KEPT = {"btf": "BTF is code"}


def pieces(path: Path) -> Iterator[bytes]:
    """All bytes that a trace holds: its text, and what its pieces unpack to."""
    data = path.read_bytes()
    yield gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    for item in Reader(str(path)):
        if isinstance(item, RawCall):
            yield from (chunk.data for chunk in item.chunks)


def found(path: Path, secrets: dict[str, bytes]) -> set[str]:
    """Which of the secrets stand in a trace: as they are, backwards, in hex, as numbers."""
    whole = b"\0\0".join(pieces(path))
    low = whole.lower()
    return {
        name
        for name, secret in secrets.items()
        if secret in whole
        or secret.hex().encode() in low
        or secret[:8][::-1].hex().encode() in low
        or str(int.from_bytes(secret[:8], "little")).encode() in whole
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of the program."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "plant.py").write_text(PROGRAM)
    trace = folder / "trace.jsonl"
    words = [sys.executable, "-S", str(folder / "plant.py"), PLANTS["argv"].decode()]
    done = run_cli("-f", "-o", "/dev/null", "--json", str(trace), *words)
    assert done.returncode == 0, done.stderr
    return trace


def redacted(trace: Path, out: Path, *words: str) -> Path:
    done = run_cli("redact", str(trace), "-o", str(out), *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert out.stat().st_mode & 0o777 == 0o600
    return out


@pytest.mark.live
def test_nothing_planted_is_left(planted: Path, needs_bpf: None, tmp_path: Path) -> None:
    assert found(planted, PLANTS) == set(PLANTS) - NOT_SEEN
    out = redacted(planted, tmp_path / "out.jsonl")
    assert found(out, PLANTS) == set(KEPT)
    # What has a name in the listing has it still.
    text = run_cli("replay", str(out)).stdout
    assert 'prog_name="shown"' in text
    assert "<map table" in text
    assert "(b7) r0 = 0" in text


@pytest.mark.live
@pytest.mark.parametrize(
    ("kept", "names"),
    [
        ("values", {"key", "value", "found", "data"}),
        ("strings", {"licence", "rawtp", "filter"}),
        ("paths", {"pin", "uprobe", "open", "file"}),
        ("argv", {"argv", "comm"}),
    ],
)
def test_what_is_to_stay_stays(
    planted: Path, needs_bpf: None, tmp_path: Path, kept: str, names: set[str]
) -> None:
    out = redacted(planted, tmp_path / "out.jsonl", "--keep", kept)
    left = found(out, PLANTS) - set(KEPT)
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
