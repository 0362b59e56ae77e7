"""Where the text goes: -o, -A, -ff, commands, stdout."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from tests.support.asking import ASK, CALL
from tests.support.running import run_cli

pytestmark = pytest.mark.usefixtures("needs_bpf")


def asked(*options: str) -> None:
    """Traces ASK."""
    done = run_cli("-e", "trace=bpf", *options, sys.executable, "-c", ASK)
    assert done.returncode == 0, done.stderr


def test_a_file_a_thread(tmp_path: Path) -> None:
    base = tmp_path / "out"
    script = f"{sys.executable} -c '{ASK}'; true"
    done = run_cli("-ff", "-e", "trace=bpf", "-o", str(base), "sh", "-c", f"({script}); {script}")
    assert done.returncode == 0, done.stderr
    files = sorted(tmp_path.glob("out.*"))
    assert len(files) == 2
    for file in files:
        tid = file.name.rpartition(".")[2]
        text = file.read_text()
        assert text.count(CALL) == 3
        assert set(re.findall(r"^\[(\d+)\]", text, re.M)) == {tid}
    # What concerns no thread alone stands in the file itself, which is made for that only.
    assert not base.exists()
    made = run_cli("-ff", "-o", str(base), sys.executable, "-m", "bpftrace_sys.hello")
    assert made.returncode == 0, made.stderr
    assert base.read_text().lstrip().startswith("programs\n")
    missing = run_cli("-ff", "-o", str(tmp_path / "no" / "out"), "true")
    assert (missing.returncode, "No such file" in missing.stderr) == (125, True)


def test_without_a_file_nothing_is_split() -> None:
    """As strace: -ff is -f then."""
    script = f"({sys.executable} -c '{ASK}'); true"
    done = run_cli("-ff", "-e", "trace=bpf", "sh", "-c", script)
    assert done.stderr.count(CALL) == 3, done.stderr


def test_a_file_a_thread_in_strace_s_style(tmp_path: Path) -> None:
    base = tmp_path / "out"
    done = run_cli(
        "-ff", "--style", "strace", "-e", "trace=bpf", "-o", str(base), sys.executable, "-c", ASK
    )
    assert done.returncode == 0, done.stderr
    [file] = tmp_path.glob("out.*")
    assert file.read_text().count("bpf(BPF_PROG_GET_NEXT_ID, {start_id=0, ") == 3


@pytest.mark.parametrize("mark", "|!")
@pytest.mark.parametrize("options", [(), ("-D",), ("--style", "strace")])
def test_text_to_a_command(mark: str, options: tuple[str, ...], tmp_path: Path) -> None:
    """It gets the text and its end, is nobody's child whom we trace, and is waited for."""
    got, started = tmp_path / "got", tmp_path / "started"
    command = f"{mark}echo $PPID > {started}; tr a-z A-Z > {got}.part; mv {got}.part {got}"
    # With -D nobody waits for the tracer; -p holds nothing here, so this is a child at most.
    script = f"{ASK}import os\ntry: os.wait()\nexcept ChildProcessError: print('no child')\n"
    done = run_cli("-e", "trace=bpf", "-o", command, *options, sys.executable, "-c", script)
    assert done.stdout.splitlines()[-1] == "no child", done
    assert done.stderr == ""
    if "-D" in options:
        deadline = time.monotonic() + 60
        while not got.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert got.read_text().count(CALL.upper()) == 3
    assert not (tmp_path / command).exists()


def test_a_command_that_reads_nothing_disturbs_nobody() -> None:
    done = run_cli("-e", "trace=bpf", "-o", "|exit 0", sys.executable, "-c", ASK + "sys.exit(7)\n")
    assert len(done.stdout.splitlines()) == 3
    assert (done.returncode, done.stderr) in (
        (7, ""),  # what was written went into the pipe before
        (125, "bpfstrace: output to |exit 0 was lost: Broken pipe\n"),
    )


def test_text_to_stdout(tmp_path: Path) -> None:
    done = run_cli("-o", "-", "-e", "trace=bpf", sys.executable, "-c", ASK, cwd=tmp_path)
    assert done.stdout.count(CALL) == 3
    assert done.stderr == ""
    assert not list(tmp_path.iterdir())


def test_append(tmp_path: Path) -> None:
    """-A leaves what stands in the file, and what is written to it meanwhile."""
    text = tmp_path / "text"
    text.write_text("before\n")
    for options in (["-A", "-o", str(text)], ["--output-append-mode", f"--output={text}"]):
        asked(*options)
    assert text.read_text().startswith("before\n")
    assert text.read_text().count(CALL) == 6
    asked("-o", str(text))
    assert text.read_text().count(CALL) == 3
