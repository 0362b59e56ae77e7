"""bpfstrace started to be killed, and what it left."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


def start(words: Sequence[str], out: Path, keep: int = -1) -> int:
    """``bpfstrace WORDS`` in a fork of ours, all its output in a file; its pid.

    ``keep``: an fd that it and its tracees hold open.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 97
    try:
        null = os.open(os.devnull, os.O_RDWR)
        file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for fd, new in ((null, 0), (file, 1), (file, 2)):
            os.dup2(fd, new)
        if keep >= 0:
            os.set_inheritable(keep, True)
        # Closes all that pytest has open, besides.
        for fd in range(3, 256):
            if fd != keep:
                with contextlib.suppress(OSError):
                    os.close(fd)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        from bpftrace_sys.cli.main import main

        code = main(list(words))
        sys.stdout.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def reap(pid: int) -> int:
    """Its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@dataclass
class Left:
    """What a killed bpfstrace left: the completed lines, and how it was replayed."""

    lines: list[str]
    rest: str
    replayed: list[str]
    code: int
    said: str


def whole_lines(trace: Path) -> tuple[list[str], str]:
    """The completed lines of a trace file, and what comes after the last of them."""
    if not trace.exists():
        return [], ""
    data = trace.read_bytes()
    if trace.suffix == ".gz":
        # What a tool of the same format makes of it.
        data = subprocess.run(["zcat"], input=data, capture_output=True, check=False).stdout
    elif trace.suffix == ".zst":
        import zstandard

        unpacker = zstandard.ZstdDecompressor().decompressobj()
        data = unpacker.decompress(data) if data else b""
    *lines, rest = data.decode("ascii").split("\n")
    return lines, rest


def replay(trace: Path, folder: Path) -> Left:
    """Reads a trace in a fork of ours."""
    lines, rest = whole_lines(trace)
    assert all(isinstance(json.loads(line), dict) for line in lines)
    again, said = folder / "again.jsonl", folder / "said"
    again.unlink(missing_ok=True)
    code = reap(start(["replay", "-o", os.devnull, "--json", str(again), str(trace)], said))
    replayed = again.read_text().splitlines() if again.exists() else []
    return Left(lines, rest, replayed, code, said.read_text())


def syscalls(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith('{"type":"syscall"')]


def check_left(left: Left, processes: int, note: str) -> None:
    """Every completed line is whole, none is missing between others, all can be replayed."""
    parsed = [json.loads(line) for line in left.lines]
    assert all(isinstance(line, dict) for line in parsed), note
    assert "Traceback" not in left.said, f"{note}: {left.said}"
    if not left.lines:
        assert left.code == 2, note
        assert "truncated" in left.said or "empty: no trace was written" in left.said, left.said
        return
    assert parsed[0]["type"] == "trace", note
    numbers = {line["seq"] for line in parsed if line["type"] == "syscall"}
    # Numbers are given when calls begin: but for those under way, none is missing.
    missing = max(numbers, default=0) - len(numbers)
    assert missing <= processes, f"{note}: {missing} calls are missing"
    assert syscalls(left.replayed) == syscalls(left.lines), note
    if parsed[-1]["type"] == "end" and not left.rest:
        assert (left.code, left.said) == (0, ""), note
    else:
        assert left.code == 2, f"{note}: {left.said}"
        assert "truncated" in left.said, f"{note}: {left.said}"
        assert "what stood before was replayed" in left.said, f"{note}: {left.said}"
        assert left.said.count("\n") == 1, f"{note}: {left.said}"
