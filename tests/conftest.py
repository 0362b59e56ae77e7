"""What tests share: running bpfstrace as a person would, and what this machine can do."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "fixtures"
TIMEOUT = 240  # an emulated processor is 20 times slower

# In the background of a script both are ignored, and so they would be by all that tests start.
for _number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(
            _number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bless", action="store_true", help="rewrite golden outputs from what comes out now"
    )
    parser.addoption(
        "--vm", action="store_true", help="also boot virtual machines: tests/test_vm.py, minutes"
    )


@pytest.fixture
def bless(request: pytest.FixtureRequest) -> bool:
    """Whether goldens are to be rewritten."""
    return bool(request.config.getoption("--bless"))


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
    return subprocess.run(
        [sys.executable, "-m", "bpftrace_sys", *words],
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=timeout,
        check=False,
        **kwargs,
    )


@pytest.fixture
def traced(tmp_path: Path) -> Any:
    """Traces a program: ``traced([options], program, arg, ...) -> Ran``."""

    def run(options: list[str], *program: str, **kwargs: Any) -> Ran:
        text, trace = tmp_path / "trace.txt", tmp_path / "trace.jsonl"
        done = run_cli("-o", str(text), "--json", str(trace), *options, *program, **kwargs)
        lines = [json.loads(line) for line in trace.read_text().splitlines()]
        return Ran(done.returncode, done.stdout, done.stderr, text.read_text(), lines)

    return run


def _may_bpf() -> str | None:
    """None if bpf(2) works here, else why not."""
    if os.geteuid() != 0:
        return "needs root"
    libc = ctypes.CDLL(None, use_errno=True)
    numbers = {"x86_64": 321, "aarch64": 280}
    number = numbers.get(os.uname().machine)
    if number is None:
        return f"bpf(2) is not known on {os.uname().machine}"
    attr = ctypes.create_string_buffer(12)
    libc.syscall(number, 11, attr, 12)
    error = ctypes.get_errno()
    return None if error in (0, 2) else f"bpf(2) is refused here: {os.strerror(error)}"


@pytest.fixture(scope="session")
def needs_bpf() -> None:
    """Skips where bpf(2) does not work."""
    why = _may_bpf()
    if why is not None:
        pytest.skip(why)


def needs_tool(*names: str) -> None:
    """Skips where a program is not installed."""
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")


def c_compiler() -> str:
    """clang, or else GCC; skips where there is neither."""
    found = shutil.which("clang") or shutil.which("gcc")
    if found is None:
        pytest.skip("no C compiler")
    return found


@pytest.fixture(scope="session")
def tracefs(needs_bpf: None) -> Path:
    """tracefs's mount point; skips where there is none."""
    for path in ("/sys/kernel/tracing", "/sys/kernel/debug/tracing"):
        if os.path.exists(f"{path}/events"):
            return Path(path)
    pytest.skip("tracefs is not mounted")
