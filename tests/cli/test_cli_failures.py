"""The command line: what cannot be done is told, with the exit code that says so."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.asking import ASKS, PYTHON, plain, run, script
from tests.support.running import environment

NOBODY = 65534


def test_not_found() -> None:
    done = run("no-such-program-at-all")
    assert done.returncode == 127
    assert done.stderr == "bpfstrace: no-such-program-at-all: no such program in PATH\n"
    done = run("./no-such-program")
    assert done.returncode == 127
    assert done.stderr == "bpfstrace: ./no-such-program: no such program\n"
    assert run("/etc/passwd/x").returncode == 127
    assert run("").returncode == 127


def test_not_executable(place: Path) -> None:
    script(place, "data", "just text\n", 0o644)
    done = run("./data", cwd=place)
    assert done.returncode == 126
    assert done.stderr.startswith("bpfstrace: ./data: Permission denied")
    done = run(".", cwd=place)
    assert (done.returncode, done.stderr) == (126, "bpfstrace: .: is a directory\n")
    done = run(str(place))
    assert (done.returncode, done.stderr) == (126, f"bpfstrace: {place}: is a directory\n")


def test_a_script_without_its_first_line(place: Path) -> None:
    script(place, "hello.py", "print('hello')\n")
    script(place, "other", "echo hello\n")
    done = run("./hello.py", cwd=place)
    assert done.returncode == 126
    assert done.stderr == (
        "bpfstrace: Exec format error: hello.py has no #! line; "
        "try: bpfstrace python3 hello.py\n"
    )
    done = run("./other", cwd=place)
    assert done.returncode == 126
    assert done.stderr == "bpfstrace: Exec format error: other has no #! line\n"
    # What it advises works.
    assert run("-q", "python3", "hello.py", cwd=place).stdout == "hello\n"


def test_a_program_for_another_machine(place: Path) -> None:
    elf = bytearray(Path("/bin/true").read_bytes())
    elf[18:20] = struct.pack("<H", 8)  # e_machine: MIPS
    (place / "mips").write_bytes(elf)
    (place / "mips").chmod(0o755)
    done = run(str(place / "mips"))
    assert done.returncode == 126
    assert "Exec format error" in done.stderr
    assert "#!" not in done.stderr


def test_an_interpreter_that_is_not_there(place: Path) -> None:
    script(place, "odd", "#!/opt/no/such/python9 -x\n")
    done = run(str(place / "odd"))
    assert done.returncode == 127
    assert "#! line names /opt/no/such/python9" in done.stderr


@pytest.mark.parametrize("option", ["-o", "--json"])
@pytest.mark.parametrize(
    ("path", "why"), [("/nonexistent/file", "No such file"), ("/", "Is a directory")]
)
def test_output_that_cannot_be_opened(option: str, path: str, why: str, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    done = run(option, path, "touch", str(witness))
    assert done.returncode == 125
    assert done.stderr.startswith(f"bpfstrace: cannot write {path}: {why}")
    assert not witness.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "words", [["-o", "fifo", "true"], ["replay", "fifo"], ["diff", "fifo", "x"]]
)
def test_who_waits_can_be_interrupted(
    words: list[str], number: signal.Signals, tmp_path: Path
) -> None:
    """Opening a FIFO waits for who opens its other end."""
    os.mkfifo(tmp_path / "fifo")
    waiting = subprocess.Popen(
        [PYTHON, "-m", "bpftrace_sys", *words], cwd=tmp_path, env=environment(),
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    place = Path(f"/proc/{waiting.pid}/wchan")
    while place.read_text() != "wait_for_partner":
        assert waiting.poll() is None
    waiting.send_signal(number)
    assert waiting.communicate(timeout=60) == (None, "")
    assert waiting.returncode == -number


@pytest.mark.parametrize("option", ["-o", "--json"])
def test_output_that_fills_up_is_told_and_the_tracee_goes_on(option: str, tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    program = ASKS + f"open({str(witness)!r}, 'w').close()"
    done = run(option, "/dev/full", PYTHON, "-c", program)
    assert done.returncode == 125
    assert "output to /dev/full was lost: No space left on device" in done.stderr
    assert witness.exists()


def test_a_pipe_that_closes_does_not_stop_the_tracee(tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    program = ASKS * 200 + f"open({str(witness)!r}, 'w').close()"
    words = [PYTHON, "-m", "bpftrace_sys", "--json", "-", "-o", os.devnull, PYTHON, "-c", program]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as traced:
        assert traced.stdout is not None
        assert traced.stderr is not None
        traced.stdout.readline()
        traced.stdout.close()
        stderr = traced.stderr.read().decode()
        assert traced.wait(60) != 0
    assert witness.exists()
    assert "Traceback" not in stderr


def forbidding_ptrace() -> str:
    """Python that installs a seccomp filter under which ptrace(2) fails, and executes argv."""
    number = {"x86_64": 101, "aarch64": 117}[os.uname().machine]
    return (
        "import ctypes, os, struct, sys\n"
        f"rows = [(0x20, 0, 0, 0), (0x15, 0, 1, {number}), (6, 0, 0, 0x50001), "
        "(6, 0, 0, 0x7FFF0000)]\n"
        "code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *r) for r in rows))\n"
        "prog = struct.pack('HxxxxxxQ', len(rows), ctypes.addressof(code))\n"
        "libc = ctypes.CDLL(None)\n"
        "assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, prog, 0, 0) == 0\n"
        "os.execv(sys.argv[1], sys.argv[1:])\n"
    )


@pytest.mark.parametrize("options", [[], ["--no-seccomp"], ["-f"]])
def test_where_ptrace_is_forbidden(options: list[str], tmp_path: Path) -> None:
    witness = tmp_path / "ran"
    done = plain(
        PYTHON, "-c", forbidding_ptrace(), PYTHON, "-m", "bpftrace_sys", *options,
        "touch", str(witness), env=environment(),
    )  # fmt: skip
    stderr = done.stderr.decode()
    assert done.returncode == 125
    assert stderr.startswith("bpfstrace: ptrace is not permitted here: Operation not permitted")
    assert "container" in stderr
    assert stderr.count("\n") == 1
    assert not witness.exists()


def test_under_another_tracer(tmp_path: Path) -> None:
    """Who follows us has what we start before we could have it."""
    witness = tmp_path / "ran"
    for options, code in ((["-f"], 125), ([], 0)):
        outer = [PYTHON, "-m", "bpftrace_sys", *options, "-o", os.devnull]
        done = plain(
            *outer, PYTHON, "-m", "bpftrace_sys", "-q", "touch", str(witness), env=environment()
        )
        assert done.returncode == code
        assert witness.exists() is (code == 0)
        said = [line for line in done.stderr.decode().splitlines() if "not permitted here" in line]
        assert len(said) == (code != 0)
        assert all(re.search(r"\(\S+ \(\d+\) traces bpfstrace and", line) for line in said)


as_nobody = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become nobody")

# Everything is imported before, since nobody may be unable to read where it is installed;
# and a process that changed its user may not be traced, nor its children before their execve.
AS_NOBODY = f"""\
import ctypes, importlib, os, pkgutil, sys
import bpftrace_sys, decoders
for package in (bpftrace_sys, decoders):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
from bpftrace_sys.cli.main import main
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0  # PR_SET_DUMPABLE
sys.exit(main(sys.argv[1:]))
"""


def nobody(*words: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """bpfstrace as a user without rights."""
    done = subprocess.run(
        [PYTHON, "-c", AS_NOBODY, *words],
        capture_output=True, text=True, timeout=60, check=False, env=environment(), **kwargs,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


@as_nobody
@pytest.mark.parametrize("options", [[], ["--no-seccomp"]])
def test_without_privileges_the_refusals_are_shown(options: list[str]) -> None:
    done = nobody("-q", *options, "/usr/bin/python3", "-c", ASKS)
    assert done.returncode == 0
    assert re.search(r"bpf\(BPF_PROG_GET_NEXT_ID, .*\) = -1 EPERM \(Operation not permitted\)",
                     done.stderr)


@as_nobody
def test_a_program_that_may_be_executed_but_not_read(place: Path) -> None:
    # The kernel lets nobody look into such a process: what stands there is said to be
    # unreadable, and its own work goes on.
    copy = place / "python"
    copy.write_bytes(Path("/usr/bin/python3").resolve().read_bytes())
    copy.chmod(0o711)
    done = nobody(str(copy), "-S", "-c", ASKS + "print('done')")
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "bpf(BPF_PROG_GET_NEXT_ID, " in done.stderr
    assert "unreadable address" in done.stderr
