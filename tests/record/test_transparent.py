"""What a tracer could disturb (transparent.c), the same traced and untraced.

docs/trust.md lists what is meant by transparent, and which test shows it.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.needs import needs_tool
from tests.support.running import environment, run_cli

LIMIT = 120
BPFSTRACE = [sys.executable, "-m", "bpftrace_sys"]
CASES = {
    "itimers": "setitimer (three clocks), alarm",
    "timers": "timer_create with a signal and a thread, timerfd",
    "restarts": "nanosleep, poll, select, epoll_wait, futex, read; with signals, with stops",
    "clones CGROUP": "clone3: PIDFD, CLEAR_SIGHAND, INTO_CGROUP, NEWPID, PARENT; clone: VFORK",
    "spawns": "posix_spawn with file actions, masks, groups, sessions, errors",
    "daemons FILE": "daemon(3), orphans of a subreaper, PR_SET_PDEATHSIG",
    "threads 3000 exec": "thousands of threads that an execve ends",
    "threads 3000 exit": "thousands of threads that exit ends",
}
MODES = {"": [], "-f": ["-f"], "-f --no-seccomp": ["-f", "--no-seccomp"]}


@pytest.fixture(scope="module")
def cgroup() -> Iterator[str]:
    """A cgroup of version 2 to start a child in; a folder that is none where there is none."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in mounts:
        if mount[2] == "cgroup2":
            folder = Path(mount[1], f"bpfstrace-{os.getpid()}")
            try:
                folder.mkdir()
            except OSError:
                break
            yield str(folder)
            folder.rmdir()
            return
    yield "/nonexistent/none"


@pytest.fixture(scope="module")
def alone(program: str, cgroup: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a case says untraced, with its exit code; each is run once."""

    @functools.cache
    def run(case: str) -> tuple[str, int]:
        words = words_of(case, cgroup, tmp_path_factory.mktemp("alone"))
        done = subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=LIMIT, check=False
        )
        return done.stdout + done.stderr, done.returncode

    return run


def words_of(case: str, cgroup: str, folder: Path) -> list[str]:
    """The arguments of a case."""
    return [{"CGROUP": cgroup, "FILE": str(folder / "file")}.get(w, w) for w in case.split()]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES)
def test_the_same_as_untraced(
    program: str, cgroup: str, alone: Any, tmp_path: Path, case: str, mode: str
) -> None:
    done = run_cli(
        *MODES[mode], "-o", os.devnull, program, *words_of(case, cgroup, tmp_path), timeout=LIMIT
    )
    said, code = alone(case)
    assert done.stdout + done.stderr == said
    assert done.returncode == code
    assert said.count("\n") > 1 or code == 5


# ------------------------------------------------------------------ many


def traced(folder: Path, *words: str) -> tuple[list[dict[str, Any]], str, int, int]:
    """bpfstrace -f: its JSON lines, the program's stdout, the exit code, and the most
    memory that bpfstrace held, in KiB."""
    trace = folder / "trace.jsonl"
    with open(folder / "out", "w+") as out:
        process = subprocess.Popen(
            [*BPFSTRACE, "-f", "-q", "--json", str(trace), "-o", os.devnull, *words],
            stdout=out, env=environment(),
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said = out.read()
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    return lines, said, process.returncode, usage.ru_maxrss


def events(lines: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    return [line for line in lines if line.get("event") == what]


def test_ten_thousand_short_lives(program: str, tmp_path: Path) -> None:
    """All of them are told of, with their own exit codes, in bounded memory."""
    count = 10_000
    _, _, _, little = traced(tmp_path, program, "children", "500", "50")
    lines, said, code, much = traced(tmp_path, program, "children", str(count), "50")
    assert code == 0
    assert said == f"{sum(number % 251 for number in range(count))}\n"
    assert len(events(lines, "fork")) == count
    ends = events(lines, "exit")
    assert len(ends) == count + 1
    codes = Counter(line["code"] for line in ends)
    assert codes == Counter([number % 251 for number in range(count)] + [0])
    # Trees of what happened would take many times that.
    assert much - little < 8 << 10


def test_exec_bomb(program: str, tmp_path: Path) -> None:
    """A process that executes itself a thousand times is one process, in bounded memory."""
    _, _, _, little = traced(tmp_path, program, "bomb", "10")
    lines, _, code, much = traced(tmp_path, program, "bomb", "1000")
    assert code == 8
    assert len(events(lines, "exec")) == 1001
    assert len({line["pid"] for line in events(lines, "exec")}) == 1
    assert much - little < 8 << 10


REUSE = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
def bpf(command, *words):
    attr = ctypes.create_string_buffer(b"".join(w if type(w) is bytes else
        w.to_bytes(4, "little") for w in words).ljust(128, b"\\0"), 128)
    return libc.syscall(number, command, attr, 128)
for count in range(int(sys.argv[1])):
    # The next process gets the number after this one.
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write("5000")
    pid = os.fork()
    if not pid:
        fd = bpf(0, 2, 4, 8, 1, 0, 0, 0, b"reused_%d" % count)  # an array map
        if count % 3 == 0:
            os.close(fd)
            fd = bpf(0, 2, 4, 8, 1, 0, 0, 0, b"second_%d" % count)
        bpf(22, fd)  # freeze it
        if count % 5 == 0:
            os.kill(os.getpid(), 9)
        os._exit(count % 251)
    assert pid == 5001, pid
    os.waitpid(pid, 0)
"""


def test_pids_that_come_again(needs_bpf: None, tmp_path: Path) -> None:
    """Two hundred processes of the same number: none is taken for another."""
    needs_tool("unshare")
    count = 200
    trace = tmp_path / "trace.jsonl"
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", *BPFSTRACE, "-f", "-q", "-o",
         str(tmp_path / "text"), "--json", str(trace),
         sys.executable, "-S", "-E", "-c", REUSE, str(count)],
        capture_output=True, text=True, env=environment(), timeout=LIMIT, check=False,
    )  # fmt: skip
    if "unshare failed" in done.stderr:
        pytest.skip("no PID namespaces for us")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    mine = [line for line in lines if line.get("pid") == 5001]
    assert sum(line["child"] == 5001 for line in events(lines, "fork")) == count
    ends = events(mine, "exit")
    assert [line.get("signal") or line["code"] for line in ends] == [
        9 if number % 5 == 0 else number % 251 for number in range(count)
    ]
    # What a number means is the new process's: each froze the map that it had made last.
    text = (tmp_path / "text").read_text()
    frozen = re.findall(r"bpf\(BPF_MAP_FREEZE, \{\s*map_fd=\d+<map (\w+) id=\d+>", text)
    assert frozen == [
        f"{'second' if number % 3 == 0 else 'reused'}_{number}" for number in range(count)
    ]


# ------------------------------------------------------------------ rights


@pytest.fixture
def setuid() -> Iterator[dict[str, str]]:
    """``id``, set-user-ID root and set-user-ID nobody, in a folder that all may read."""
    if os.geteuid() != 0:
        pytest.skip("only root can make set-user-ID programs")
    # Not below pytest's own folder, which each pytest that starts closes to others.
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    found = {}
    for name, uid in (("root", 0), ("nobody", 65534)):
        path = folder / f"id-{name}"
        shutil.copyfile(shutil.which("id") or "/usr/bin/id", path)
        os.chown(path, uid, uid)
        path.chmod(0o6755)
        found[name] = str(path)
    yield found
    shutil.rmtree(folder)


@pytest.mark.parametrize("mode", MODES)
def test_setuid_programs_under_root(setuid: dict[str, str], mode: str) -> None:
    """They get their rights; for a program run with -u, too."""
    plain = subprocess.run([setuid["nobody"], "-u"], capture_output=True, text=True, check=True)
    if plain.stdout != "65534\n":
        pytest.skip("set-user-ID programs do not work on this file system")
    for words, wanted in (
        ([setuid["nobody"], "-u"], "65534"),
        ([setuid["nobody"], "-ru"], "0"),
        (["sh", "-c", f"{setuid['nobody']} -u"], "65534"),
        (["-u", "nobody", setuid["root"], "-u"], "0"),
        (["-u", "nobody", setuid["root"], "-ru"], "65534"),
        (["-u", "nobody", setuid["root"], "-g"], "0"),
    ):
        done = run_cli("-q", *MODES[mode], *words)
        assert (done.stdout.strip(), done.returncode) == (wanted, 0), words


def test_user_with_all_groups(setuid: dict[str, str]) -> None:
    """-u is su's user: uid, gid, all groups. HOME and the like stay ours, as with strace."""
    import grp
    import pwd

    groups = [name for name in grp.getgrall() if name.gr_mem] or [grp.getgrgid(0)]
    users = [name for name in groups[0].gr_mem if _known(name)] or ["nobody"]
    user = pwd.getpwnam(users[0])
    for who in (user.pw_name, str(user.pw_uid)):
        done = run_cli("-q", "-u", who, "sh", "-c", "id -u; id -g; id -G; echo $HOME",
                       env=environment(HOME="/of/ours"))  # fmt: skip
        uid, gid, every, home = done.stdout.splitlines()
        assert (int(uid), int(gid)) == (user.pw_uid, user.pw_gid)
        assert {int(n) for n in every.split()} == set(os.getgrouplist(user.pw_name, user.pw_gid))
        assert home == "/of/ours"


def _known(name: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


# ------------------------------------------------------------------ told clearly


def test_a_tracer_under_bpfstrace() -> None:
    """Who wants to trace what we trace is told why it cannot, whom it wanted, and by whom."""
    needs_tool("strace")
    done = run_cli("-f", "-q", "sh", "-c", "sleep 1000 & strace -o /dev/null -p $!; kill $!")
    assert re.search(
        r"^bpfstrace: \[\d+\] strace asked to trace process \d+ with ptrace and was refused, since "
        r"bpfstrace traces it and a process has one tracer only$",
        done.stderr,
        re.M,
    )
    done = run_cli("-f", "-q", "strace", "-o", os.devnull, "true")
    assert "strace asked to trace itself with ptrace and was refused" in done.stderr
    assert done.returncode == 1  # strace's own


def test_an_unknown_architecture() -> None:
    """A program whose calls we have no table for is named, and nothing is decoded wrongly."""
    code = (
        "import sys\n"
        "from decoders import arch\n"
        "known = arch.of_machine()\n"
        "import bpftrace_sys.record.ptrace.engine\n"
        "arch.NAMES.pop(known[0])\n"
        "from bpftrace_sys.cli.main import main\n"
        "sys.exit(main(['--no-seccomp', '-q', '-f', 'sh', '-c', 'exit 4']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(),
        timeout=LIMIT, check=False,
    )  # fmt: skip
    assert "sh is a program of an architecture that bpfstrace does not know" in done.stderr
    assert done.returncode == 4
