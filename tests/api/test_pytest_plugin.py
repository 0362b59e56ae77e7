"""The pytest plugin, by pytest's own pytester: recordings, assertions, and what a failure says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from bpftrace_sys.cli.check import main as check
from tests.support.needs import needs_tool
from tests.support.running import FIXTURES, ROOT

pytest_plugins = ["pytester"]

HELLO = FIXTURES / "bcc-kprobe-hello" / "trace.jsonl.gz"
REJECT = FIXTURES / "verifier-reject" / "trace.jsonl.gz"


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder with recordings, whose tests find the plugin by its entry point."""
    shutil.copy(HELLO, pytester.path / "hello.jsonl.gz")
    shutil.copy(REJECT, pytester.path / "reject.jsonl.gz")
    return pytester


OPTIONS = ("-p", "no:cacheprovider", "--strict-markers")


def outcome(suite: pytest.Pytester, *options: str) -> pytest.RunResult:
    return suite.runpytest_inprocess(*OPTIONS, *options)


def alone(suite: pytest.Pytester, *options: str) -> pytest.RunResult:
    """In a process of its own, where nothing of these tests is."""
    return suite.runpytest_subprocess(*OPTIONS, "-p", "no:hypothesispytest", *options)


# ------------------------------------------------------------------ recordings


def test_a_recording_is_replayed_without_root(suite: pytest.Pytester) -> None:
    """All that a test asks for, of a kernel that has kprobes, on any machine."""
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.bpf_recorded("hello.jsonl.gz")
        def test_hello(bpf_trace):
            trace = bpf_trace(["/somewhere/python3", "hello.py"])
            assert trace.returncode == 0
            trace.assert_loaded("hello_world")
            trace.assert_attached("hello_world", "kprobe do_sys_openat2")
            trace.assert_attached("hello_world", "kprobe *")
            trace.assert_attached("hello_world")
            trace.assert_only_helpers("hello_world", "bpf_trace_printk")
            trace.assert_only_helpers("*", "bpf_*")
            trace.assert_nothing_refused()
            assert trace.programs["hello_world"].tag == "38dd440716c4900f"
            assert [call.seq for call in trace.calls("btf_load")] == [3]
            assert len(list(trace)) == len(list(trace.trace))
        """
    )
    outcome(suite).assert_outcomes(passed=1)


def test_failures_say_why_with_the_source_line(suite: pytest.Pytester) -> None:
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.bpf_recorded("reject.jsonl.gz")
        def test_reject(bpf_trace):
            bpf_trace("bpftool prog load reject.o /x").assert_attached("forgetful", "xdp *")

        @pytest.mark.bpf_recorded("hello.jsonl.gz")
        def test_target(bpf_trace):
            bpf_trace("python3 hello.py").assert_attached("hello_world", "xdp on lo")

        @pytest.mark.bpf_recorded("hello.jsonl.gz")
        def test_helper(bpf_trace):
            bpf_trace("python3 hello.py").assert_only_helpers("hello_world", "bpf_ktime_get_ns")

        @pytest.mark.bpf_recorded("hello.jsonl.gz")
        def test_name(bpf_trace):
            bpf_trace("python3 hello.py").assert_loaded("hello")

        @pytest.mark.bpf_recorded("reject.jsonl.gz")
        def test_refused(bpf_trace):
            bpf_trace("bpftool").assert_nothing_refused()
        """
    )
    done = outcome(suite)
    done.assert_outcomes(failed=5)
    done.stdout.fnmatch_lines(
        [
            "*AssertionError: the kernel refused the program 'forgetful': EACCES",
            "*verifier: R0 invalid mem access 'map_value_or_null'",
            "*of ./reject.c:20:10: [*]count += 1;",
            "*- bpfstrace: bpftool prog load reject.o * -*",
            "exit code 255",
            "refused: BPF_PROG_LOAD of forgetful = EACCES",
            "*hello_world was not attached to 'xdp on lo'; it was attached to: kprobe do_sys_op*",
            "*hello_world calls bpf_trace_printk",
            "*10: (85) call bpf_trace_printk#6*; /virtual/main.c:15:37: *bpf_trace_printk_*",
            "*no program 'hello' was loaded; there are: hello_world",
            "*the kernel refused 1 calls",
        ]
    )
    assert "pytest_plugin.py" not in done.stdout.str()  # nothing of ours in the way


def test_a_lock_file(suite: pytest.Pytester) -> None:
    lock = suite.path / "bpf.lock.toml"
    assert check([str(HELLO), "--lock", str(lock), "--update"]) == 0
    narrow = lock.read_text().replace('"bpf_trace_printk"', '"bpf_other"')
    (suite.path / "narrow.toml").write_text(narrow)
    suite.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.bpf_recorded("hello.jsonl.gz")

        def test_within(bpf_trace):
            assert bpf_trace("python3 x").assert_matches_lock("bpf.lock.toml").verdict == "within"

        def test_outside(bpf_trace):
            bpf_trace("python3 x").assert_matches_lock("narrow.toml")
        """
    )
    done = outcome(suite)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(
        [
            "*outside narrow.toml:",
            "*calls the helper bpf_trace_printk  [[]call #5, insn 10[]]*/virtual/main.c:15:37*",
        ]
    )


@pytest.mark.parametrize(
    ("mark", "command", "why"),
    [
        ('"none.jsonl.gz"', "x", "none.jsonl.gz: No such file*pytest --bpf-record records it"),
        ('"hello.jsonl.gz"', "./other", "is a recording of /usr/bin/python3 hello.py, not of *"),
        ("", "x", "@pytest.mark.bpf_recorded takes one file"),
        ('"test_it.py"', "x", "not a bpfstrace trace*"),
    ],
)
def test_what_is_wrong_with_a_recording(
    suite: pytest.Pytester, mark: str, command: str, why: str
) -> None:
    suite.makepyfile(
        test_it=f"""
        import pytest

        @pytest.mark.bpf_recorded({mark})
        def test_it(bpf_trace):
            bpf_trace("{command}")
        """
    )
    done = outcome(suite)
    assert done.parseoutcomes().get("passed", 0) == 0
    done.stdout.fnmatch_lines([f"*{why}*"])


def test_recording_and_replaying(suite: pytest.Pytester, needs_bpf: None) -> None:
    """--bpf-record runs the commands; without it they need not even be there."""
    loader = suite.path / "loader"
    loader.write_text(f"#!/bin/sh\nexec {sys.executable} -m bpftrace_sys.hello\n")
    loader.chmod(0o755)
    suite.makepyfile(
        """
        import pytest

        @pytest.mark.bpf_recorded("recordings/loader.jsonl.gz")
        def test_loader(bpf_trace):
            trace = bpf_trace(["./loader"], timeout=100)
            assert trace.returncode == 0
            trace.assert_attached("hello_world")
            again = bpf_trace(["./loader", "again"])
            assert again.argv == ["./loader", "again"]
        """
    )
    outcome(suite).assert_outcomes(failed=1)  # nothing is recorded yet
    outcome(suite, "--bpf-record").assert_outcomes(passed=1)
    folder = suite.path / "recordings"
    assert sorted(os.listdir(folder)) == ["loader-2.jsonl.gz", "loader.jsonl.gz"]
    loader.unlink()
    outcome(suite).assert_outcomes(passed=1)
    done = outcome(suite, "--bpf-record")
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*./loader: *no such program*"])


# ------------------------------------------------------------------ without recordings


def test_commands_are_run(suite: pytest.Pytester, needs_bpf: None) -> None:
    suite.makepyfile(
        f"""
        def test_hello(bpf_trace):
            trace = bpf_trace([{sys.executable!r}, "-m", "bpftrace_sys.hello"], timeout=100)
            assert "hello_world -> " in trace.stdout
            trace.assert_attached("hello_world")

        def test_failing(bpf_trace):
            trace = bpf_trace("sh -c 'echo no >&2; exit 4'")
            assert (trace.returncode, trace.stderr) == (4, "no\\n")
            assert trace.programs.names == []
        """
    )
    outcome(suite).assert_outcomes(passed=2)


def test_the_plugin_is_light(suite: pytest.Pytester) -> None:
    """Where no test asks for it, nothing of ours is imported but the plugin."""
    suite.makepyfile(
        """
        import sys

        def test_it():
            ours = {name for name in sys.modules if name.startswith(("bpftrace_sys", "decoders"))}
            ours.remove("bpftrace_sys.testing.pytest_plugin")
            assert ours == {"bpftrace_sys", "bpftrace_sys.testing"}
        """
    )
    alone(suite).assert_outcomes(passed=1)
    assert "bpf_trace" in alone(suite, "--fixtures").stdout.str()
    assert "bpf_recorded(file)" in alone(suite, "--markers").stdout.str()


def test_the_page_s_examples_run(suite: pytest.Pytester) -> None:
    """As they stand in docs/pytest.md, but that the first is replayed as well."""
    page = (ROOT / "docs" / "pytest.md").read_text()
    first, second = re.findall(r"```python\n(.*?)```", page, re.S)
    marker = '@pytest.mark.bpf_recorded("hello.jsonl.gz")\n'
    assert first.startswith("def test_loader(bpf_trace):\n")
    text = f"import pytest\n\n{marker}{first}\n{second.replace('test_loader', 'test_again')}"
    suite.makepyfile(text.replace("./loader", "./python3").replace("/loader.", "/hello."))
    (suite.path / "recordings").mkdir()
    shutil.copy(HELLO, suite.path / "recordings" / "hello.jsonl.gz")
    assert check([str(HELLO), "--lock", str(suite.path / "bpf.lock.toml"), "--update"]) == 0
    outcome(suite).assert_outcomes(passed=2)


# ------------------------------------------------------------------ a real loader's tests


def test_a_loader_s_own_suite(suite: pytest.Pytester, needs_bpf: None) -> None:
    """libbpf-tools' opensnoop and bpftool, tested as their authors might: recorded, then
    replayed where neither is to be found, and without a single capability."""
    needs_tool("opensnoop", "bpftool", "setpriv")
    folder = suite.path / "suite"
    shutil.copytree(ROOT / "tests" / "tracees" / "loader_suite", folder)
    (folder / "test_loaders.py.txt").rename(folder / "test_loaders.py")
    alone(suite, "--bpf-record", "suite").assert_outcomes(passed=3)
    powerless = [str(shutil.which("setpriv")), "--inh-caps=-all", "--bounding-set=-all"]
    done = subprocess.run(
        [*powerless, sys.executable, "-m", "pytest", *OPTIONS, "-q", str(folder)],
        capture_output=True, text=True, check=False, cwd=folder,
        env={**os.environ, "PATH": "/nowhere", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "3 passed" in done.stdout, done.stdout + done.stderr
