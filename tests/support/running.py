"""Running bpfstrace as a person would, and where things are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "fixtures"
TRACEES = ROOT / "tests" / "tracees"
LOADERS = TRACEES / "loaders"
TIMEOUT = 240  # an emulated processor is 20 times slower


@dataclass
class Ran:
    """A finished bpfstrace: exit code (negative: signal), its streams, text and JSON."""

    code: int
    stdout: str
    stderr: str
    text: str
    lines: list[dict[str, Any]]

    def calls(self, command: str | None = None) -> list[dict[str, Any]]:
        """The syscall lines; of one bpf command or syscall if given."""
        found = [line for line in self.lines if line["type"] == "syscall"]
        if command is None:
            return found
        return [
            line
            for line in found
            if command in (line["syscall"], line["args"].get("cmd"), line["args"].get("request"))
        ]

    def attachments(self) -> list[dict[str, Any]]:
        """The attachment lines."""
        return [line for line in self.lines if line["type"] == "attachment"]


def environment(**more: str) -> dict[str, str]:
    """The environment of a run: our own packages first, no colours, C locale."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    env.update(more)
    return env


def run_cli(
    *words: str, timeout: float = TIMEOUT, **kwargs: Any
) -> subprocess.CompletedProcess[str]:
    """``bpfstrace WORDS``, captured."""
    kwargs.setdefault("env", environment())
    before = watching() if "bpf" in words or "-a" in words else None
    ran = subprocess.run(
        [sys.executable, "-m", "bpftrace_sys", *words],
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=timeout,
        check=False,
        **kwargs,
    )
    if before is not None:
        detached(before)
    return ran


def watching() -> set[int]:
    """The ids of the eBPF engine's programs that are there, whoever has loaded them."""
    if shutil.which("bpftool") is None:
        return set()
    shown = subprocess.run(["bpftool", "-j", "prog"], capture_output=True, check=False).stdout
    return {
        one["id"] for one in json.loads(shown or "[]")
        if str(one.get("name", "")).startswith("bpfstrace_")
    }  # fmt: skip


def detached(before: set[int]) -> None:
    """Waits until the eBPF engine has let go, which it does behind its end: else whoever lists
    programs next would find other ones a moment later. Somebody else's may stay: for a while."""
    deadline = time.monotonic() + 5
    while watching() - before and time.monotonic() < deadline:
        time.sleep(0.05)


@contextmanager
def alive(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """A loader that has done its work and waits, and what it says of it."""
    release = folder / f"{name}.release"
    with subprocess.Popen(
        [sys.executable, str(LOADERS / f"{name}.py"), "--wait", str(release)],
        stdout=subprocess.PIPE, text=True, env=environment(),
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            facts = json.loads(process.stdout.readline())
            yield facts
        finally:
            release.touch()
            process.wait(60)


def without_capabilities(*words: str) -> subprocess.CompletedProcess[str]:
    """``bpfstrace WORDS`` as a root who may read files, and nothing else."""
    return subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all",
         sys.executable, "-m", "bpftrace_sys", *words],
        capture_output=True, text=True, env=environment(), check=False, timeout=TIMEOUT,
    )  # fmt: skip
