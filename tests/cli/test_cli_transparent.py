"""A tracee does not notice: exit codes, signals, streams and children."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.asking import ASKS, PYTHON, plain, run
from tests.support.running import environment

ENDS = {
    "true": ["true"],
    "false": ["false"],
    "exit 7": ["sh", "-c", "exit 7"],
    "exit 255": ["sh", "-c", "exit 255"],
    "pipeline": ["sh", "-c", "printf 'b\\na\\n' | sort | tr a-z A-Z; exit 5"],
    "broken pipe": ["sh", "-c", "yes | head -n 2"],
    "TERM": ["sh", "-c", "echo before; kill -TERM $$; echo after"],
    "KILL": ["sh", "-c", "echo before; kill -KILL $$; echo after"],
    "SEGV": ["sh", "-c", "echo before; kill -SEGV $$; echo after"],
    "INT": ["sh", "-c", "kill -INT $$"],
    "PIPE": ["sh", "-c", "kill -PIPE $$"],
    "real-time signal": ["sh", "-c", "kill -40 $$"],
    "real fault": [PYTHON, "-c", "import ctypes; ctypes.string_at(0)"],
    "abort": [PYTHON, "-c", "import os; os.abort()"],
    "child dies": ["sh", "-c", "sh -c 'kill -KILL $$'; echo $?"],
    "handled": ["sh", "-c", "trap 'echo got it; exit 4' USR1; kill -USR1 $$; sleep 5"],
    "ignored": ["sh", "-c", "trap '' TERM; kill -TERM $$; echo alive"],
    "both streams": ["sh", "-c", "echo out; echo err >&2; exit 1"],
    "binary": [PYTHON, "-c", "import os; os.write(1, bytes(range(256)))"],
    "signal state": [
        "sh", "-c", "grep -E '^(SigBlk|SigIgn|SigCgt|NoNewPrivs)' /proc/self/status; umask",
    ],
    "environment": [
        PYTHON, "-S", "-c", "import os; print(sorted(k for k in os.environ if k != '_'))",
    ],
    "descriptors": ["sh", "-c", "ls /proc/$$/fd"],
    "stdin": ["sh", "-c", "read a; cat; echo first $a"],
}  # fmt: skip
MODES = {
    "": [],
    "-f": ["-f"],
    "--no-seccomp": ["--no-seccomp"],
    "-f --no-seccomp": ["-f", "--no-seccomp"],
}
SEVERAL = ("exit 7", "pipeline", "TERM", "KILL", "SEGV", "child dies", "handled", "stdin")
"""What is tried without the filter, too."""


@pytest.mark.parametrize(
    ("end", "mode"),
    [(end, mode) for end in ENDS for mode in MODES if "no" not in mode or end in SEVERAL],
)
def test_a_tracee_does_not_notice(end: str, mode: str, tmp_path: Path) -> None:
    env = environment()
    text = tmp_path / "text"
    given = {"input": b"one\ntwo\nthree\n", "env": env}
    alone = plain(*ENDS[end], **given)
    traced = plain(
        PYTHON, "-m", "bpftrace_sys", *MODES[mode], "-o", str(text), *ENDS[end], **given
    )
    if end == "signal state" and os.geteuid() != 0:
        pytest.skip("without CAP_SYS_ADMIN a filter needs no_new_privs, which shows")
    assert traced.returncode == alone.returncode
    assert traced.stdout == alone.stdout
    assert traced.stderr == alone.stderr
    # Behind it may stand what was not followed.
    last = next(line for line in reversed(text.read_text().splitlines()) if "+++" in line)
    if alone.returncode < 0:
        try:
            name = signal.Signals(-alone.returncode).name
        except ValueError:
            name = f"signal {-alone.returncode}"
        assert f"+++ killed by {name}" in last
    else:
        assert last.endswith(f"+++ exited with {alone.returncode} +++")


@pytest.mark.parametrize("everybody", [True, False])
def test_a_signal_from_outside_reaches_the_tracee(everybody: bool) -> None:
    program = (
        "import os, signal, time; signal.signal(15, lambda *_: os._exit(9)); "
        "print('up', flush=True); [time.sleep(0.1) for _ in range(300)]"
    )
    words = [PYTHON, "-m", "bpftrace_sys", "-q", PYTHON, "-S", "-c", program]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        start_new_session=True,
    ) as traced:  # fmt: skip
        assert traced.stdout is not None
        assert traced.stdout.readline() == b"up\n"
        # To everybody, as timeout(1) does; or to bpfstrace, which hands it on.
        (os.killpg if everybody else os.kill)(traced.pid, signal.SIGTERM)
        assert traced.wait(60) == 9


def test_a_child_that_is_not_followed_lives_on(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    started = time.monotonic()
    done = run("-q", "sh", "-c", f"(sleep 1; echo later > {witness}) >/dev/null 2>&1 & exit 6")
    assert done.returncode == 6
    for _ in range(1200):
        if witness.exists():
            break
        time.sleep(0.05)
    assert witness.exists(), time.monotonic() - started


def test_forks_are_followed_with_f_only() -> None:
    command = f"{PYTHON} -c '{ASKS}'"
    alone = run("-q", "sh", "-c", f"{command.replace('nowhere', 'x')}; true")
    followed = run("-q", "-f", "sh", "-c", f"{command.replace('nowhere', 'x')}; true")
    assert "BPF_PROG_GET_NEXT_ID" not in alone.stderr
    assert "BPF_PROG_GET_NEXT_ID" in followed.stderr
