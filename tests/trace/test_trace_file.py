"""Trace files that are not what they should be: each is named, with its line, and never a crash."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.trace import pieces
from bpftrace_sys.trace import reader as trace_file
from bpftrace_sys.trace.items import End, TraceError
from bpftrace_sys.trace.pieces import CALL_LIMIT, Pieces, pack, unpack
from bpftrace_sys.trace.reader import LINE_LIMIT, VERSION, Reader
from bpftrace_sys.trace.writer import open_for_writing
from decoders.raw import AUDIT_ARCH_X86_64, RawCall
from tests.support.running import run_cli

HEADER: dict[str, Any] = {
    "type": "trace", "format": "bpfstrace", "version": 1, "bpfstrace": "0.1.0",
    "argv": ["./loader"], "kernel": "6.18.0", "machine": "x86_64", "cpus": 2,
    "start": 1_700_000_000_000_000_000, "pmu_types": {"uprobe": 8}, "options": {},
}  # fmt: skip
CALL: dict[str, Any] = {
    "type": "syscall", "seq": 1, "time": 1_700_000_000_000_000_001, "duration": 1000,
    "pid": 7, "tid": 7, "comm": "loader", "syscall": "bpf", "ret": -1, "errno": "EPERM",
    "errnum": 1,
    "raw": {
        "arch": AUDIT_ARCH_X86_64, "nr": 321, "args": ["0xb", "0x1000", "0xc", "0x0", "0x0", "0x0"],
        "entry": [["0x1000", base64.b64encode(bytes(12)).decode()]],
    },
}  # fmt: skip
END: dict[str, Any] = {"type": "end", "status": {"code": 0}}


def write(path: Path, *lines: dict[str, Any] | str | bytes) -> Path:
    """A file of lines; what is not a dict stands there as it is."""
    with path.open("wb") as file:
        for line in lines:
            if isinstance(line, dict):
                file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
            else:
                file.write(line.encode() if isinstance(line, str) else line)
    return path


def refused(path: Path, *options: str) -> tuple[str, str]:
    """What replay prints and complains: exit 2, one line, no traceback."""
    done = run_cli("replay", *options, str(path))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    prefix = f"bpfstrace: {path}"
    assert done.stderr.startswith(prefix)
    return done.stdout, done.stderr.removeprefix(prefix).removeprefix(":").rstrip("\n")


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A whole trace of two calls."""
    return write(tmp_path / "good.jsonl", HEADER, CALL, {**CALL, "seq": 2}, END)


def test_a_whole_trace_is_read(good: Path) -> None:
    items = list(Reader(str(good)))
    assert [type(item) for item in items] == [RawCall, RawCall, End]
    done = run_cli("replay", str(good))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("bpf(BPF_PROG_GET_NEXT_ID, {start_id=0, ...}, 12) = -1 EPERM") == 2


# ------------------------------------------------------------------ nothing of it can be read


def test_no_such_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "none")[1] == " No such file or directory"
    assert refused(tmp_path)[1] == " Is a directory"


def test_empty(tmp_path: Path) -> None:
    assert refused(write(tmp_path / "e"))[1] == " empty: no trace was written here"
    assert "empty" in refused(write(tmp_path / "e", "\n\n"))[1]


FOREIGN: dict[str, tuple[bytes, str]] = {
    "text": (b"Hello, this is a letter.\nYours\n", "1: not a bpfstrace trace: not JSON"),
    "other JSON": (b'{"a": 1}\n', "1: not a bpfstrace trace: its first line is not our header"),
    "a JSON list": (b"[1, 2]\n", "1: not a JSON object"),
    "ELF": (Path("/bin/true").read_bytes(), "1: not a bpfstrace trace"),
    "UTF-16": ("{}\n".encode("utf-16"), "1: not a bpfstrace trace"),
    "zeros": (bytes(100), "1: not a bpfstrace trace"),
    "not UTF-8": (b'{"type":"trace","format":"\xff\xfe"}\n', "1: not a bpfstrace trace: not UTF-8"),
    "half a header": (b'{"type":"trace","format":"bpf', "1: the line ends in the middle"),
    "strace": (b'execve("/bin/true", ["true"], 0x7ffd) = 0\n', "1: not a bpfstrace trace"),
    "half gzip": (gzip.compress(b"x" * 10_000)[:30], "1: "),
    "gzip of text": (gzip.compress(b"hello\n"), "1: not a bpfstrace trace: not JSON"),
    "gzip magic only": (b"\x1f\x8b", "1: "),
    "broken gzip": (b"\x1f\x8b" + bytes(range(100)), "1: "),
    "broken zstd": (b"\x28\xb5\x2f\xfd" + bytes(range(100)), "1: "),
    "escape sequences": (b"\x1b]0;owned\x07\n", "1: not a bpfstrace trace: not JSON"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_trace(what: str, tmp_path: Path) -> None:
    data, why = FOREIGN[what]
    stdout, message = refused(write(tmp_path / "foreign", data))
    assert stdout == ""
    assert message.startswith(why)
    assert message.isprintable()


@pytest.mark.parametrize("version", [VERSION + 1, 1000])
def test_a_newer_version_is_named(version: int, tmp_path: Path) -> None:
    path = write(tmp_path / "t", {**HEADER, "version": version}, CALL, END)
    assert refused(path)[1] == (
        f"1: written in version {version} of the format; this bpfstrace reads up to "
        f"version {VERSION}: use a newer bpfstrace"
    )


@pytest.mark.parametrize("version", [None, "1", "\x1b[31m", True, 0, -1, 1.5, [], {}])
def test_a_version_that_is_none(version: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "t", {**HEADER, "version": version}, CALL, END)
    assert refused(path)[1] == "1: the header names no version of the format"


# ------------------------------------------------------------------ some of it can be read


def shows(stdout: str, calls: int) -> None:
    """That the readable part was replayed."""
    assert stdout.count("bpf(BPF_PROG_GET_NEXT_ID") == calls


def test_truncated_between_lines(tmp_path: Path) -> None:
    stdout, message = refused(write(tmp_path / "t", HEADER, CALL))
    shows(stdout, 1)
    assert message == (
        "2: the trace ends without its end line: truncated, or still being written; "
        "what stood before was replayed"
    )


def test_truncated_anywhere(good: Path, tmp_path: Path) -> None:
    # In process: each place of a file where it may have been cut.
    data = good.read_bytes()
    starts = [0, *(at + 1 for at, byte in enumerate(data) if byte == 10)]
    for size in [*range(20, len(data) - 1, 7), *(start + 1 for start in starts[1:-1])]:
        path = write(tmp_path / "cut", data[:size])
        line = sum(start < size for start in starts)
        found = []
        with pytest.raises(TraceError) as raised:
            found.extend(Reader(str(path)))
        assert raised.value.line == line, data[:size][-20:]
        assert "ends" in raised.value.why
        assert len(found) in (max(0, line - 2), max(0, line - 1))


BAD_LINES: dict[str, tuple[Any, str]] = {
    "not JSON": ("{nonsense}\n", "not JSON"),
    "not an object": ("17\n", "not a JSON object"),
    "a key twice": (
        json.dumps(CALL)[:-1] + ',"seq":2}\n', "not JSON: the key 'seq' stands twice in one object",
    ),
    "a key twice, deep": (
        json.dumps(CALL).replace('"nr"', '"arch":1,"nr"') + "\n", "the key 'arch' stands twice",
    ),
    "nested deeply": ('{"type":"x","a":' + "[" * 100_000 + "]" * 100_000 + "}\n", "nested too"),
    "not UTF-8": (b'{"type":"\xff\xfe\xfd"}\n', "not UTF-8"),
    "a number of 10000 digits": ('{"type":"x","a":' + "9" * 10_000 + "}\n", "not JSON"),
    "no raw": ({**CALL, "raw": None}, "a damaged line: a syscall without raw"),
    "seq a string": ({**CALL, "seq": "1"}, "a damaged line: seq is not a number"),
    "pid missing": ({k: v for k, v in CALL.items() if k != "pid"}, "pid is not a number"),
    "args a number": ({**CALL, "raw": {**CALL["raw"], "args": 5}}, "raw.args is not a list"),
    "args not hex": ({**CALL, "raw": {**CALL["raw"], "args": ["\x1b[1m"]}}, "a damaged line"),
    "a chunk of three letters": (
        {**CALL, "raw": {**CALL["raw"], "entry": ["abc"]}}, "a chunk of raw.entry is not",
    ),
    "not base64": (
        {**CALL, "raw": {**CALL["raw"], "entry": [["0x0", "!!"]]}}, "cannot be unpacked",
    ),
    "not zlib": (
        {**CALL, "raw": {**CALL["raw"], "entry": [["0x0", {"z": "AAAA"}]]}}, "cannot be unpacked",
    ),
    "an unseen piece": (
        {**CALL, "raw": {**CALL["raw"], "entry": [["0x0", 99]]}}, "piece 99 of raw has not been",
    ),
    "a tag that is none": (
        {**CALL, "raw": {**CALL["raw"], "fds": [[3, 0, "prog", {"prog_tag": "\x1b[2J"}]]}},
        "prog_tag of an fd is not in hex",
    ),
    "an exit code in letters": (
        {"type": "process", "event": "exit", "time": 1, "pid": 7, "tid": 7, "code": "\x1b[2J"},
        "code is not a number",
    ),
    "a user in letters": (
        {"type": "process", "event": "who", "time": 1, "pid": 7, "tid": 7, "uid": "root"},
        "uid is not a number",
    ),
    "a command line that is none": (
        {"type": "process", "event": "who", "time": 1, "pid": 7, "tid": 7, "argv": [["x"]]},
        "a word of argv is not a string",
    ),
    "a fork without child": (
        {"type": "process", "event": "fork", "time": 1, "pid": 7, "tid": 7}, "a fork without child",
    ),
    "fact without key": ({"type": "fact", "kind": "prog", "name": "x"}, "key is not a number"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_LINES)
def test_a_bad_line_in_the_middle(what: str, tmp_path: Path) -> None:
    line, why = BAD_LINES[what]
    stdout, message = refused(write(tmp_path / "t", HEADER, CALL, line, {**CALL, "seq": 3}, END))
    shows(stdout, 1)
    assert message.startswith("3: ")
    assert why in message
    assert message.endswith("; what stood before was replayed")
    assert message.isprintable()
    assert len(message) < 300


def test_unknown_lines_and_fields_are_passed_over(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t", {**HEADER, "weather": "fine"}, {"type": "from the future", "x": [1]},
        {**CALL, "mood": "good", "raw": {**CALL["raw"], "new": {"a": 1}}}, END,
    )  # fmt: skip
    done = run_cli("replay", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    shows(done.stdout, 1)


def test_events_go_through_as_they_stand(tmp_path: Path) -> None:
    """Those of a newer version, too, with what they say; and how the trace ended."""
    at = {"type": "process", "time": 5, "pid": 7, "tid": 7}
    events = [
        {**at, "event": "fork", "child": 8, "child_tid": 8, "how": "vfork"},
        {**at, "event": "exec", "former_tid": 9},
        {**at, "event": "exit", "signal": 11, "core": True},
        {**at, "event": "exit", "code": 0},
        {**at, "event": "who", "comm": "a", "argv": ["a", "b"], "uid": 0, "parent": 1},
        {**at, "event": "lost", "calls": 3, "pieces": 0, "events": 0},
        {**at, "event": "frozen", "for": ["a", "while"], "code": "none"},
    ]
    status = {"code": 0, "error": "why", "lost": {"calls": 3, "pieces": 0, "events": 0}}
    lines = [HEADER, CALL, *events, {"type": "end", "status": status}]
    path = write(tmp_path / "t", *lines)
    done = run_cli("replay", "--json", "-", str(path))
    assert done.returncode == 0
    assert "+++ killed by SIGSEGV (core dumped) +++\n" in done.stderr
    assert "[7] is a b (uid 0, child of 1)\n--- lost: 3 calls," in done.stderr.replace("[7] -", "-")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line for line in told if line["type"] in ("process", "end")] == lines[2:]


# ------------------------------------------------------------------ size


class Endless(io.RawIOBase):
    """A file without an end and without newlines."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.head or b" " * len(buffer)
        self.head = b""
        buffer[: len(data)] = data
        self.given += len(data)
        return len(data)


def test_a_line_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_file, "LINE_LIMIT", 1 << 20)
    source = Endless(json.dumps(HEADER).encode() + b"\n")
    monkeypatch.setattr(Reader, "_open", lambda self, path: io.BufferedReader(source))
    reader = Reader("endless")
    with pytest.raises(TraceError, match=r"^endless:2: a line of more than 1048576 bytes"):
        list(reader)
    assert source.given < 4 << 20


def test_a_compression_bomb(tmp_path: Path) -> None:
    # 300 MB of spaces in 300 kB.
    path = tmp_path / "bomb.jsonl.gz"
    assert LINE_LIMIT <= 256 << 20
    with gzip.open(path, "wb", 9) as file:
        file.write(json.dumps(HEADER).encode() + b"\n" + json.dumps(CALL).encode() + b"\n")
        for _ in range(300):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    stdout, message = refused(path)
    shows(stdout, 1)
    assert message.startswith(f"3: a line of more than {LINE_LIMIT} bytes")


def test_a_bomb_of_newlines(tmp_path: Path) -> None:
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", 9) as file:
        file.write(json.dumps(HEADER).encode() + b"\n" + b"\n" * 100_000)
    assert "blank lines" in refused(path)[1]


def test_a_bomb_in_a_piece(tmp_path: Path) -> None:
    def bomb(count: int, size: int) -> dict[str, Any]:
        packed = base64.b64encode(zlib.compress(bytes(size), 9)).decode()
        entry = [[hex(at << 32), {"z": packed}] for at in range(count)]
        return {**CALL, "raw": {**CALL["raw"], "entry": entry}}

    stdout, message = refused(write(tmp_path / "one", HEADER, CALL, bomb(1, 100 << 20), END))
    shows(stdout, 1)
    assert "unpacks to more than" in message
    stdout, message = refused(write(tmp_path / "many", HEADER, CALL, bomb(40, 8 << 20), END))
    assert f"the raw of one call unpacks to more than {CALL_LIMIT} bytes" in message


# ------------------------------------------------------------------ pieces, compression


@pytest.mark.parametrize("data", [b"", b"x", b"ab" * 40, bytes(1000), bytes(range(256)) * 4])
def test_pieces_come_back(data: bytes) -> None:
    written, read = Pieces(), Pieces()
    for _ in range(3):
        packed = json.loads(json.dumps(pack(data, written)))
        assert unpack(packed, read) == data
    assert isinstance(packed, int) == (len(data) >= pieces.NUMBERED)


@pytest.mark.parametrize(("bound", "most"), [("REMEMBERED", 1000), ("KNOWN", 2)])
def test_forgotten_pieces_are_written_again(
    bound: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, bound, most)
    written, read = Pieces(), Pieces()
    import random

    source = random.Random(1)
    blobs = [source.randbytes(300) for _ in range(6)]
    for _ in range(300):
        data = source.choice(blobs)
        assert unpack(json.loads(json.dumps(pack(data, written))), read) == data
        assert len(written._by_number) <= 2


MAGIC = {".jsonl": b"{", ".jsonl.gz": b"\x1f\x8b", ".jsonl.zst": b"\x28\xb5\x2f\xfd"}


@pytest.mark.parametrize("suffix", MAGIC)
def test_compressed_files_are_written_and_read(suffix: str, good: Path, tmp_path: Path) -> None:
    if suffix.endswith(".zst"):
        pytest.importorskip("zstandard")
    path = tmp_path / f"copy{suffix}"
    done = run_cli("replay", "-q", "--json", str(path), str(good))
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_bytes().startswith(MAGIC[suffix])
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(list(Reader(str(path)))) == 3
    # Also under a name that says nothing: what it is, is seen from its beginning.
    plain = tmp_path / "nameless"
    path.rename(plain)
    again = run_cli("replay", "-q", str(plain))
    assert again.stdout == done.stdout != ""
    with plain.open("rb") as file:
        piped = run_cli("replay", "-q", "-", stdin=file)
    assert (piped.returncode, piped.stdout) == (0, done.stdout)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated_compressed_files(suffix: str, tmp_path: Path) -> None:
    if suffix == ".zst":
        pytest.importorskip("zstandard")
    import random

    path = tmp_path / f"t.jsonl{suffix}"
    out = open_for_writing(str(path))
    with out:
        out.write(json.dumps(HEADER) + "\n")
        for seq in range(1, 4000):
            noise = base64.b64encode(random.Random(seq).randbytes(30)).decode()
            out.write(json.dumps({**CALL, "seq": seq, "noise": noise}) + "\n")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    stdout, message = refused(path, "-q")
    line = int(message.split(":")[0])
    assert line > 100
    shows(stdout, line - 2)
    assert "truncated" in message or "ends in the middle" in message


def test_zst_without_the_package_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(TraceError, match=r"pip install 'bpfstrace\[zstd\]'"):
        open_for_writing(str(tmp_path / "t.zst"))
    assert not list(tmp_path.iterdir())
