"""CPython's own tests of processes, threads and signals, under ``bpfstrace -f`` and without.

All of them run traced; those that do not pass there are run again untraced, and have
to end in the same way.  That is the same answer as from running all of them twice.
"""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.support.running import environment

SUITES = [
    "test_subprocess",
    "test_signal",
    "test_threading",
    "test_fork1",
    "test_posix",
    "test_pty",
    "test_multiprocessing_main_handling",
]
AT_ONCE = 4
"""Suites that run at the same time: they sleep more than they work."""
LEFT_OUT = [
    # The same tests as POSIXProcessTestCase's, but for how communicate() waits.
    "test.test_subprocess.ProcessTestCaseNoPoll.*",
    # fork_wait's, which test_fork1 runs as ForkTest.test_wait as well.
    "test.fork_wait.*",
]
LIMIT = 150


def run(tracer: list[str], folder: Path, words: list[str]) -> dict[str, str]:
    """Each test's verdict: passed, failure, error or skipped."""
    report = folder / "junit.xml"
    report.unlink(missing_ok=True)
    done = subprocess.run(
        [*tracer, sys.executable, "-m", "test", "-v", "--junit-xml", str(report), *words],
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=LIMIT,
        check=False,
        cwd=folder,
        env=environment(),
    )
    assert report.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    verdicts = {}
    for case in ET.parse(report).iter("testcase"):
        # What a test printed is no verdict.
        tags = [child.tag for child in case if not child.tag.startswith("system-")]
        verdicts[case.get("name", "")] = tags[0] if tags else "passed"
    return verdicts


def cases() -> set[str]:
    """What there is to run."""
    patterns = [word for pattern in LEFT_OUT for word in ("-i", pattern)]
    done = subprocess.run(
        [sys.executable, "-m", "test", "--list-cases", *patterns, *SUITES],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    return set(done.stdout.split())


def test_same_verdicts(tmp_path: Path) -> None:
    """Test by test."""
    found = subprocess.run(
        [sys.executable, "-c", "import test.libregrtest, test.test_subprocess"],
        capture_output=True,
        check=False,
    )
    if found.returncode:
        pytest.skip("this Python comes without its own tests")
    text = tmp_path / "text"
    tracer = [sys.executable, "-m", "bpftrace_sys", "-f", "-o", str(text)]
    patterns = [word for pattern in LEFT_OUT for word in ("-i", pattern)]
    traced = run(tracer, tmp_path, [f"-j{AT_ONCE}", *patterns, *SUITES])
    assert "Traceback" not in text.read_text()
    missing = cases() - traced.keys()
    assert not missing
    assert sum(verdict == "passed" for verdict in traced.values()) > 500
    others = sorted(name for name, verdict in traced.items() if verdict != "passed")
    if not others:
        return
    patterns = [word for name in others for word in ("-m", name)]
    plain = run([], tmp_path, [*patterns, *SUITES])
    assert {name: traced[name] for name in others} == {
        name: plain.get(name, "not run") for name in others
    }
