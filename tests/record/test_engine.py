"""The ptrace engine on real tracees.

Each test runs the engine in a process of its own (tests/support/engine_runs.py), which
writes what its sink was told as JSON lines; the tests compare exit status and output with
an untraced run, and look at what was told.
"""

from __future__ import annotations

import json
import os
import platform
import pty
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from decoders.raw import AUDIT_ARCH_I386, AUDIT_ARCH_X86_64
from tests.support.engine_runs import LIMIT, Trace, Tracer, read_events, wait_for
from tests.support.running import ROOT


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-E", "-c", code]


MODES = {
    "follow": {"follow": True},
    "alone": {"follow": False},
    "no-seccomp": {"follow": True, "seccomp": False},
    "quiet": {"quiet": True},
}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> dict[str, Any]:
    return MODES[request.param]


@pytest.fixture
def program(many_modes: str) -> str:
    return many_modes


# -- transparency ---------------------------------------------------------------

ENDS = [
    (["true"], 0),
    (["false"], 1),
    (["sh", "-c", "exit 7"], 7),
    (["sh", "-c", "kill -9 $$"], -signal.SIGKILL),
    (["sh", "-c", "kill -TERM $$"], -signal.SIGTERM),
    (["sh", "-c", "kill -SEGV $$"], -signal.SIGSEGV),
    (["sh", "-c", "kill -TRAP $$"], -signal.SIGTRAP),
    (["sh", "-c", "echo a b | tr a-z A-Z | cat; exit 3"], 3),
    (["sh", "-c", "(exit 4); echo $?; true & wait; yes | head -2"], 0),
]


@pytest.mark.parametrize(("argv", "code"), ENDS, ids=[" ".join(argv) for argv, _ in ENDS])
def test_ends_as_untraced(trace: Tracer, mode: dict[str, Any], argv: list[str], code: int) -> None:
    plain = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT)
    traced = trace(*argv, **mode)
    assert plain.returncode == code
    assert (traced.returncode, traced.stdout, traced.stderr) == (code, plain.stdout, plain.stderr)


# Run by a shell, which leaves signals as they are.
STARTS = {
    "plain": "exec {}",
    "others ignored": "trap '' HUP INT TERM USR1 TSTP; exec {}",
    "fds": "exec 7</dev/null; exec {}",
}


@pytest.mark.parametrize("how", STARTS)
def test_same_start(trace: Tracer, mode: dict[str, Any], how: str) -> None:
    """Signals, fds, environment, ids: as bpfstrace itself was started."""
    argv = ["/bin/sh", "-c", "cat /proc/self/status | grep -E '^(Sig[BIC]|Shd|NoNew|Cap|Uid)'; "
            "ls /proc/$$/fd; env; pwd; umask; ulimit -a"]  # fmt: skip
    keep = {k: v for k, v in os.environ.items() if not k.startswith("LC_") and k != "LANG"}

    def run(command: list[str]) -> list[str]:
        quoted = " ".join(f"'{part.replace(chr(39), chr(39) + chr(92) + chr(39) * 2)}'"
                          for part in command)  # fmt: skip
        done = subprocess.run(
            ["/bin/sh", "-c", STARTS[how].format(quoted)],
            capture_output=True,
            text=True,
            timeout=LIMIT,
            env={**keep, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        return [
            line
            for line in done.stdout.splitlines()
            # Variables that the shell itself sets anew, and the pid in them.
            if not line.startswith(("_=", "OLDPWD=", "Seccomp"))
        ]

    command, _ = trace.command(argv, **mode)
    assert run(command) == run(argv)


def test_mask_and_child_signal(trace: Tracer) -> None:
    """A blocked signal stays blocked and an ignored SIGCHLD ignored in the tracee."""

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2, signal.SIGINT})
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    argv = ["grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"]
    plain = subprocess.run(argv, preexec_fn=prepare, capture_output=True, text=True)
    traced = trace(*argv, follow=True, popen={"preexec_fn": prepare})
    assert traced.returncode == 0
    assert traced.stdout == plain.stdout
    assert plain.stdout.startswith("SigBlk:\t0000000000000802")


def test_siginfo_is_intact(trace: Tracer, mode: dict[str, Any], program: str) -> None:
    plain = subprocess.run([program, "siginfo"], capture_output=True, text=True, timeout=LIMIT)
    traced = trace(program, "siginfo", **mode)
    assert "4711 1" in plain.stdout
    assert (traced.stdout, traced.returncode) == (plain.stdout, plain.returncode)


JOB = r"""
import os, signal, time
ready, go = os.pipe()
pid = os.fork()
if not pid:
    # Whoever runs the tests may have left an orphaned group, which SIGTSTP does not stop.
    os.setpgid(0, 0)
    os.kill(os.getpid(), {stop})
    os.read(ready, 1)
    os._exit(9)
_, status = os.waitpid(pid, os.WUNTRACED)
assert os.WIFSTOPPED(status) and os.WSTOPSIG(status) == {stop}, status
time.sleep(0.1)
assert os.waitpid(pid, os.WUNTRACED | os.WNOHANG)[0] == 0
os.kill(pid, signal.SIGCONT)
_, status = os.waitpid(pid, os.WCONTINUED)
assert os.WIFCONTINUED(status), status
os.write(go, b"x")
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 9
print("job done")
"""


@pytest.mark.parametrize("stop", [signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN])
def test_group_stop(trace: Tracer, mode: dict[str, Any], stop: int) -> None:
    """A stopped child is stopped for its parent, stays so, and continues."""
    done = trace(*python(JOB.format(stop=int(stop))), **mode)
    assert (done.stdout, done.returncode) == ("job done\n", 0), done.stderr


def test_stopped_from_outside(trace: Tracer, mode: dict[str, Any]) -> None:
    code = "import os; print(os.getpid(), flush=True); input(); print('end')"
    process, _ = trace.start(
        python(code), popen={"stdout": subprocess.PIPE, "stdin": subprocess.PIPE}, **mode
    )
    assert process.stdout is not None
    assert process.stdin is not None
    pid = int(process.stdout.readline())
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: " (stopped)" in _state(pid) or "T (" in _state(pid) or "t (" in _state(pid))
    process.stdin.write("\n")
    process.stdin.flush()
    time.sleep(0.3)
    assert process.poll() is None
    os.kill(pid, signal.SIGCONT)
    assert process.communicate(timeout=LIMIT)[0] == "end\n"
    assert process.returncode == 0


def _state(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""
    return next(line for line in text.splitlines() if line.startswith("State:"))


def test_stop_survives_kill(trace: Tracer) -> None:
    """A group-stopped tracee can be killed."""
    process, path = trace.start(python("import os,signal; os.kill(os.getpid(), 19)"), follow=True)
    pid = wait_for(lambda: [e[1] for e in read_events(path) if e[0] == "execed"])[0]
    wait_for(lambda: "t (" in _state(pid))
    time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    assert process.wait(LIMIT) == -signal.SIGKILL


def test_restarted_call(trace: Tracer, program: str) -> None:
    plain = subprocess.run([program, "restart"], capture_output=True, text=True, timeout=LIMIT)
    for seccomp in (True, False):
        traced = trace(program, "restart", follow=True, seccomp=seccomp, stops={"read": [2, [1]]})
        assert traced.stdout == plain.stdout == "alarm\n1 x\n"
        first = traced.all("execed")[0][1]
        told = [
            (event[0], event[2] if event[0] == "exit" else 0)
            for event in traced.events
            if event[0] in ("entry", "exit") and event[1] == first
        ]
        assert told == [("entry", 0), ("exit", -512), ("entry", 0), ("exit", 1)]


@pytest.mark.parametrize("seccomp", [True, False])
def test_every_way_to_have_children(trace: Tracer, program: str, seccomp: bool) -> None:
    done = trace(program, "ways", follow=True, seccomp=seccomp)
    assert done.returncode == 0, done.stderr
    assert sorted(done.markers()) == sorted(
        "/marker-" + name
        for name in
        ("fork", "vfork", "spawn", "clone3", "clone", "thread", "grandchild", "parent")
    )  # fmt: skip
    first = done.all("execed")[0][1]
    ways = [event[4] for event in done.all("forked")]
    assert sorted(ways) == sorted(
        # glibc's posix_spawn is a clone with CLONE_VFORK
        ["fork", "vfork", "vfork", "fork", "clone", "thread", "fork", "fork"]
    )
    pids = {event[8]: event[2] for event in done.all("entry")}
    assert pids["/marker-thread"] == first
    assert pids["/marker-fork"] != first
    # Each was announced before it said anything, and each has ended.
    known = {first}
    for event in done.events:
        if event[0] == "forked":
            assert event[1] in known
            known.add(event[2])
        elif event[0] in ("entry", "exit", "execed", "exited"):
            assert event[1] in known
    assert sorted(e[1] for e in done.all("exited")) == sorted(known)


@pytest.mark.parametrize("mode", ["alone", "quiet"], indirect=True)
def test_children_are_left_alone(trace: Tracer, program: str, mode: dict[str, Any]) -> None:
    done = trace(program, "ways", **mode)
    assert done.returncode == 0
    assert done.markers() == ["/marker-parent"]
    assert not done.all("forked")
    assert {event[1] for event in done.events} == {done.all("execed")[0][1]}


def test_untraced_children_run_on(trace: Tracer) -> None:
    """Without follow a background process is not waited for, nor harmed."""
    done = trace("sh", "-c", "sleep 30 >/dev/null 2>&1 & echo $!")
    pid = int(done.stdout)
    try:
        wait_for(lambda: "S (sleeping)" in _state(pid))
        assert _tracer(pid) == 0
    finally:
        os.kill(pid, signal.SIGKILL)


def _tracer(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("TracerPid:"):
            return int(line.split()[1])
    return 0


@pytest.mark.parametrize("what", ["exec-thread", "exec-zombie"])
def test_exec_from_a_thread(trace: Tracer, mode: dict[str, Any], program: str, what: str) -> None:
    done = trace(program, what, **mode)
    assert done.returncode == 5, done.stderr
    if not mode.get("follow"):
        return
    assert done.markers() == ["/marker-after"]
    first, second = done.all("execed")
    assert second[1] == first[1]
    assert second[2] != first[1]
    after = next(e for e in done.all("entry") if e[8] == "/marker-after")
    assert after[1:3] == [first[1], first[1]]
    # The leader's end is told before its id lives on as the new program.
    index = done.events.index(second)
    assert [e for e in done.events[:index] if e[0] == "exited" and e[1] == first[1]]
    threads = {e[2] for e in done.all("forked")} - {second[2]}
    assert threads <= {e[1] for e in done.all("exited")}


def test_zombie_leader(trace: Tracer, mode: dict[str, Any], program: str) -> None:
    """The first thread ends, others live on; then all are killed."""
    done = trace(program, "zombie-leader", **mode)
    assert done.returncode == -signal.SIGKILL
    if mode.get("follow"):
        assert "/marker-zombie" in done.markers()


@pytest.mark.parametrize("seccomp", [True, False])
def test_many_children_and_threads(trace: Tracer, program: str, seccomp: bool) -> None:
    done = trace(program, "forks", "500", follow=True, seccomp=seccomp)
    assert (done.stdout, done.returncode) == ("500\n", 0)
    assert done.markers() == ["/marker-child"] * 500
    assert len(done.all("forked")) == 500
    assert len(done.all("exited")) == 501
    done = trace(program, "threads", "1000", follow=True, seccomp=seccomp)
    assert done.returncode == 0
    assert len(done.markers()) == 1000
    assert {event[2] for event in done.all("entry")} == {done.all("execed")[0][1]}


def test_thousands_of_short_lives(trace: Tracer) -> None:
    """More children than the engine could keep; pids may come round again."""
    script = "i=0; while [ $i -lt 1500 ]; do (exit 0); i=$((i+1)); done; exit 6"
    done = trace("sh", "-c", script, follow=True)
    assert done.returncode == 6
    assert len(done.all("forked")) == 1500


def test_exec_bomb(trace: Tracer) -> None:
    """A program that executes itself over and over is followed to its end."""
    script = 'n=$1; [ "$n" -gt 0 ] && exec sh "$0" $((n-1)); exit 8'
    path = trace.folder / "bomb.sh"
    path.write_text(script)
    done = trace("sh", str(path), "200", follow=True)
    assert done.returncode == 8
    assert len(done.all("execed")) == 201


STORM_ROUNDS = 40


@pytest.mark.parametrize("seccomp", [True, False])
def test_storm(trace: Tracer, program: str, seccomp: bool) -> None:
    """Threads that are born, call, execute and get killed, all at once."""
    for _ in range(3):
        done = trace(program, "storm", str(STORM_ROUNDS), follow=True, seccomp=seccomp)
        assert (done.stdout, done.returncode) == (f"{STORM_ROUNDS}\n", 0)
        # Whoever was announced has ended, once; whoever spoke was announced.
        ended = [event[1] for event in done.all("exited")]
        known = {done.all("execed")[0][1]} | {event[2] for event in done.all("forked")}
        assert known == set(ended)


def test_background_process_is_waited_for(trace: Tracer) -> None:
    """With follow a daemon is traced to its end, which is later than its parent's."""
    done = trace(*python(
        "import os, time\n"
        "first = os.getpid()\n"
        "if not os.fork():\n"
        "    os.setsid()\n"
        "    while os.getppid() == first: time.sleep(0.001)\n"
        "    try: os.open('/marker-daemon', 0)\n"
        "    except OSError: pass\n"
        "    os._exit(5)\n"
        "os._exit(4)\n"), follow=True)  # fmt: skip
    assert done.returncode == 4
    assert done.markers() == ["/marker-daemon"]
    assert [event[2] for event in done.all("exited")] == [4, 5]


def test_pid_namespace(trace: Tracer) -> None:
    """Ids are told as we see them, not as a container's processes do."""
    unshare = ["unshare", "--fork", "--pid"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no PID namespaces for us")
    done = trace(*unshare, "sh", "-c", "echo $$; (true </dev/null); exit 3", follow=True)
    assert (done.stdout, done.returncode) == ("1\n", 3)
    known = {done.all("execed")[0][1]} | {event[2] for event in done.all("forked")}
    assert {event[1] for event in done.events} == known
    assert 1 not in known


@pytest.mark.parametrize("background", [1, 2, 3])
def test_tracer_in_the_background(trace: Tracer, background: int) -> None:
    """The program is what was started; the tracer is nobody's child."""
    code = (
        "import os\n"
        "print(os.getpid(), os.getpgrp() == os.getpid())\n"
        "open('/dev/null').close()\n"
        "raise SystemExit(6)\n"
    )
    process, path = trace.start(
        python(code),
        follow=True,
        background=background,
        popen={"stdout": subprocess.PIPE, "start_new_session": True},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"{process.pid} True\n"
    assert process.wait(LIMIT) == 6
    wait_for(lambda: ["exited", process.pid, 6, None] in read_events(path))
    assert "/dev/null" in [event[8] for event in read_events(path) if event[0] == "entry"]
    done = trace("/no/such/program", follow=True, background=background)
    assert done.returncode == 127


# -- calls ----------------------------------------------------------------------


def test_result_and_memory(trace: Tracer, mode: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    code = (
        "import os\n"
        f"os.open({str(tmp_path / 'there')!r}, os.O_RDONLY)\n"
        "try: os.open('/marker-missing', 0)\n"
        "except OSError: pass\n"
    )
    done = trace(*python(code), **mode)
    there = done.result(str(tmp_path / "there"))
    assert there is not None
    assert there[2] >= 3
    assert there[3] is False
    missing = done.result("/marker-missing")
    assert missing is not None
    assert missing[2:] == [-2, True]
    comm = {event[3] for event in done.all("entry")}
    assert comm == {Path(sys.executable).name[:15]} or len(comm) == 1


def test_no_exit_stop_when_not_wanted(trace: Tracer, mode: dict[str, Any]) -> None:
    done = trace(*python("open('/dev/null')"), exits=False, **mode)
    assert "/dev/null" in done.paths()
    assert not done.all("exit")


def test_argument_rule(trace: Tracer, mode: dict[str, Any]) -> None:
    code = (
        "import fcntl, array\n"
        "for request in (0x5401, 0x541b, 0x5413):\n"
        "    try: fcntl.ioctl(0, request, array.array('i', [0] * 64))\n"
        "    except OSError: pass\n"
    )
    done = trace(*python(code), stops={"ioctl": [1, [0x541B]]}, **mode)
    assert [event[7][1] for event in done.all("entry")] == [0x541B]


def test_name_follows_prctl(trace: Tracer) -> None:
    code = (
        "import ctypes, os\n"
        "def mark(n):\n"
        "    try: os.open('/marker-%d' % n, 0)\n"
        "    except OSError: pass\n"
        "mark(1); ctypes.CDLL(None).prctl(15, b'renamed'); mark(2)\n"
    )
    done = trace(*python(code), follow=True)
    comms = {event[8]: event[3] for event in done.all("entry")}
    assert comms["/marker-1"] != "renamed"
    assert comms["/marker-2"] == "renamed"
    # Our own interest in prctl is not the sink's.
    assert {event[6] for event in done.all("entry")} == {"openat"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64's other ABIs")
@pytest.mark.parametrize("seccomp", [True, False])
def test_i386_and_x32_calls(trace: Tracer, program: str, seccomp: bool) -> None:
    plain = subprocess.run([program, "compat"], capture_output=True, text=True, timeout=LIMIT)
    if plain.returncode:
        pytest.skip("the kernel has no 32-bit calls")
    done = trace(program, "compat", follow=True, seccomp=seccomp)
    assert done.stdout == plain.stdout
    calls = {event[8]: event for event in done.all("entry") if event[8]}
    i386 = calls["/marker-i386"]
    assert i386[4:7] == [AUDIT_ARCH_I386, 295, "openat"]
    assert i386[7][0] == 0xFFFFFF9C  # AT_FDCWD, 32 bits wide
    result = done.result("/marker-i386")
    assert result is not None
    assert result[2:] == [-2, True]
    assert calls["/marker-native"][4] == AUDIT_ARCH_X86_64
    # An x32 call is not mistaken for another one: it is not shown, but it is said.
    assert "/marker-x32" not in calls
    (note,) = done.all("note")
    assert "x32" in note[2]


def test_killed_in_a_call(trace: Tracer) -> None:
    """No exit comes, but the end does, and it is the right one."""
    fifo = trace.folder / "fifo"
    os.mkfifo(fifo)
    process, path = trace.start(["cat", str(fifo)], follow=True)  # nobody ever writes to it
    (pid,) = wait_for(lambda: [e[1] for e in read_events(path) if str(fifo) in e])
    os.kill(pid, signal.SIGKILL)
    assert process.wait(LIMIT) == -signal.SIGKILL
    events = read_events(path)
    assert events[-2][:2] == ["entry", pid]
    assert events[-1] == ["exited", pid, None, signal.SIGKILL]


def test_told_promptly(trace: Tracer) -> None:
    """What a tracee did is handed on though it then sleeps for ever."""
    code = "import os,time\ntry: os.open('/marker-x', 0)\nexcept OSError: pass\ntime.sleep(600)"
    process, path = trace.start(python(code), follow=True)
    wait_for(lambda: [e for e in read_events(path) if e[0] == "entry" and e[8] == "/marker-x"])
    process.terminate()  # passed on to the tracee
    assert process.wait(LIMIT) == -signal.SIGTERM


def test_injected_result(trace: Tracer, mode: dict[str, Any], tmp_path: Path) -> None:
    """A call that is skipped returns what it is told to, and has no effect."""
    made = tmp_path / "made"
    code = (
        "import os\n"
        f"try: os.open({str(made)!r}, os.O_CREAT)\n"
        "except OSError as error: print(error.errno)\n"
        "print(os.open('/marker-ok', 0))\n"
    )
    done = trace(*python(code), inject={str(made): -38, "/marker-ok": 77}, **mode)
    assert done.stdout == "38\n77\n"
    assert not made.exists()
    result = done.result(str(made))
    assert result is not None
    assert result[2:] == [-38, True]
    result = done.result("/marker-ok")
    assert result is not None
    assert result[2:] == [77, False]


@pytest.mark.parametrize("seccomp", [True, False])
def test_error_in_the_sink(trace: Tracer, seccomp: bool) -> None:
    """It comes out of run(), which can then go on."""
    code = (
        "import os\nfor n in range(3):\n  try: os.open('/marker-%d' % n, 0)\n  except OSError: pass"
    )
    options = {"raise": "/marker-1"}
    done = trace(*python(code), follow=True, seccomp=seccomp, **options)
    assert done.returncode == 0
    assert done.all("raised")
    assert done.markers() == ["/marker-0", "/marker-1", "/marker-2"]


def test_watch_for_a_while(trace: Tracer, mode: dict[str, Any]) -> None:
    """Further calls of one thread stop between two calls of the sink's choice."""
    code = (
        "import os\n"
        "def mark(name):\n"
        "    try: os.open('/marker-' + name, 0)\n"
        "    except OSError: pass\n"
        "def gone():\n"
        "    try: os.unlink('/marker-none', dir_fd=0)\n"
        "    except OSError: pass\n"
        "gone(); mark('watch'); gone(); gone()\n"
        "if not os.fork(): gone(); mark('child'); os._exit(0)\n"
        "os.wait(); mark('unwatch'); gone(); mark('end'); gone()\n"
    )
    for exits in (True, False):
        done = trace(*python(code), exits=exits, **mode)
        assert done.returncode == 0
        told = [e[8] or e[6] for e in done.all("entry") if e[6] == "unlinkat" or "/marker" in e[8]]
        wanted = ["/marker-watch", "unlinkat", "unlinkat", "/marker-unwatch", "/marker-end"]
        if mode.get("follow"):
            wanted.insert(3, "/marker-child")
        assert told == wanted
        assert len(done.all("exit")) == (len(done.all("entry")) if exits else 0)


# -- tracees that filter and trace ---------------------------------------------------


def test_own_filter_that_refuses(trace: Tracer, program: str) -> None:
    """Calls that the tracee's own filter refuses are seen all the same."""
    plain = subprocess.run([program, "own-errno"], capture_output=True, text=True, timeout=LIMIT)
    assert plain.stdout == "-1 1\n-1 1\n"
    for seccomp in (True, False):
        done = trace(program, "own-errno", follow=True, seccomp=seccomp, stops={"bpf": None})
        assert done.stdout == plain.stdout
        assert [event[7][0] for event in done.all("entry")] == [9999, 9998]
        assert [event[2:] for event in done.all("exit")] == [[-1, True]] * 2


def test_own_filter_without_a_tracer(trace: Tracer, mode: dict[str, Any], program: str) -> None:
    """A filter's SECCOMP_RET_TRACE fails the call with ENOSYS, traced by us or not."""
    plain = subprocess.run([program, "own-trace"], capture_output=True, text=True, timeout=LIMIT)
    assert plain.stdout == "-1 38\n-1 38\n"
    done = trace(program, "own-trace", stops={"bpf": None}, **mode)
    assert done.stdout == plain.stdout
    calls = 2 if mode.get("follow") else 1
    assert [event[7][0] for event in done.all("entry")] == [9999, 9998][:calls]
    assert [event[2:] for event in done.all("exit")] == [[-38, True]] * calls


@pytest.mark.parametrize("how", ["prctl", "call", "killed", "filtered"])
def test_strict_mode(trace: Tracer, mode: dict[str, Any], program: str, how: str) -> None:
    """The kernel refuses it to whoever has a filter: who has ours only is confined by us."""
    command = [program, "strict", how]
    plain = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    done = trace(*command, **mode)
    assert (done.stdout, done.returncode) == (plain.stdout, plain.returncode)
    assert ("strict 0 0\n" in plain.stdout) is (how != "filtered")
    assert plain.returncode == (-signal.SIGKILL if how == "killed" else 3)
    assert done.markers() == {"killed": ["/marker-killed"],
                              "filtered": ["/marker-filtered"]}.get(how, [])  # fmt: skip


# For 32-bit ARM: prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); a filter that hands getpid to a tracer;
# getpid with 77 in the second argument's register; exit(0) if that failed with ENOSYS, and
# nothing but the first argument's register has changed.
ARM_FILTERS = bytes.fromhex(
    "ac70a0e3 2600a0e3 0110a0e3 0020a0e3 0030a0e3 0040a0e3 000000ef"  # r7 = 172; svc 0
    "1600a0e3 0210a0e3 2c208fe2 000000ef"  # the same, PR_SET_SECCOMP, 2, &struct sock_fprog
    "1470a0e3 4d10a0e3 0160a0e1 000000ef"  # r7 = 20; r1 = r6 = 77; svc 0
    "260070e3 0100a013 0000a003 060051e1 02008013 0170a0e3 000000ef"  # compare; r7 = 1; svc 0
    "04000000 b4000100"  # struct sock_fprog, and its four struct sock_filter
    "2000000000000000 1500000114000000 060000000700f07f 060000000000ff7f"
)


@pytest.mark.skipif(platform.machine() != "aarch64", reason="aarch64's other ABI")
def test_a_32_bit_arm_program(trace: Tracer, tmp_path: Path, mode: dict[str, Any]) -> None:
    """We do not know its calls, but what we do to one must not harm it."""
    at = 0x10000
    size = 84 + len(ARM_FILTERS)
    program = tmp_path / "arm"
    program.write_bytes(
        struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 40, 1, at + 84, 52, 0,
                    0x05000400, 52, 32, 1, 40, 0, 0)
        + struct.pack("<8I", 1, 0, at, at, size, size, 5, 0x1000) + ARM_FILTERS
    )  # fmt: skip
    program.chmod(0o755)
    try:
        plain = subprocess.run([program], timeout=LIMIT).returncode
    except OSError:
        pytest.skip("the kernel has no 32-bit calls")
    assert plain == 0
    done = trace(str(program), **mode)
    assert done.returncode == 0
    assert "an architecture that bpfstrace does not know" in done.all("note")[0][2]


def test_tracee_that_traces(trace: Tracer, program: str) -> None:
    done = trace(program, "traceme", follow=True)
    assert done.stdout == "-1 1\n"
    (note,) = done.all("note")
    assert "one tracer only" in note[2]


def test_clone_untraced(trace: Tracer, program: str, mode: dict[str, Any]) -> None:
    """CLONE_UNTRACED hides a child from any tracer: such children are traced without it, and
    the calls that our filter hands to the tracer do not fail there."""
    done = trace(program, "clone-untraced", **mode)
    assert done.returncode == 0
    wanted = ["/marker-untraced", "/marker-clone3"]
    if os.uname().machine in ("x86_64", "aarch64"):
        wanted += ["/marker-register", "/marker-shares"]
    assert done.markers() == (wanted if mode.get("follow") else [])
    notes = [note[2] for note in done.all("note")]
    assert len(notes) == (len(wanted) if mode.get("follow") else 0)
    assert all("CLONE_UNTRACED: it is traced all the same" in note for note in notes)


def test_i386_clone_untraced(trace: Tracer, program: str, mode: dict[str, Any]) -> None:
    alone = subprocess.run([program, "compat-untraced"], timeout=LIMIT).returncode
    if alone:
        pytest.skip("the kernel has no 32-bit calls")
    done = trace(program, "compat-untraced", **mode)
    assert done.returncode == 0
    assert done.markers() == (["/marker-i386"] if mode.get("follow") else [])


# -- starting -------------------------------------------------------------------------


def refused(done: Trace) -> list[Any]:
    error: list[Any] = json.loads(done.stderr)
    return error


def test_spawn_errors(trace: Tracer, mode: dict[str, Any], tmp_path: Path) -> None:
    script = tmp_path / "hello.py"
    script.write_text("print('hello')\n")
    done = trace(str(script), **mode)
    assert (done.returncode, refused(done)) == (126, [13, "exec", str(script), False])
    script.chmod(0o755)
    done = trace(str(script), **mode)
    assert (done.returncode, refused(done)) == (126, [8, "exec", str(script), True])
    missing = str(tmp_path / "missing")
    done = trace(missing, **mode)
    assert (done.returncode, refused(done)) == (127, [2, "exec", missing, False])
    done = trace("no-such-program-anywhere", **mode)
    assert (done.returncode, refused(done)[:3]) == (127, [2, "exec", "no-such-program-anywhere"])
    done = trace(str(tmp_path), **mode)
    assert (done.returncode, refused(done)[0]) == (126, 13)
    assert not done.events


def test_found_through_path(trace: Tracer, tmp_path: Path) -> None:
    """As execvp: entries that are no file or may not be executed are passed over."""
    for name, bits in (("a", 0o644), ("b", 0o755)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "prog").write_text(f"#!/bin/sh\necho {name}\n")
        (folder / "prog").chmod(bits)
    path = f"/nonexistent:{tmp_path}/a:{tmp_path}/b:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    command, _ = trace.command(["prog"], follow=True)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT)
    assert done.stdout == "b\n"
    (tmp_path / "b" / "prog").unlink()
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 126
    assert json.loads(done.stderr)[:3] == [13, "exec", f"{tmp_path}/a/prog"]


def test_argv0_and_environment(trace: Tracer) -> None:
    done = trace("/bin/sh", "-c", "echo $0 $X; env | wc -l", "me", env={"X": "1", "PATH": "/bin"})
    assert done.stdout.splitlines()[0] == "me 1"
    done = trace(sys.executable, "-S", "-E", "-c", "print(open('/proc/self/cmdline').read()[:4])",
                 argv0="fake")  # fmt: skip
    assert done.stdout == "fake\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_user(trace: Tracer, mode: dict[str, Any]) -> None:
    done = trace("/bin/sh", "-c", "id -u; id -g; grep NoNew /proc/self/status", user="nobody",
                 **mode)  # fmt: skip
    uid, gid, new = done.stdout.splitlines()
    assert (uid, gid, new) == ("65534", "65534", "NoNewPrivs:\t0")
    done = trace("true", user="no-such-user", **mode)
    assert done.returncode == 125
    assert refused(done)[1] == "user"


# -- attaching ----------------------------------------------------------------------

BUSY = """
import os, threading, time, sys
def loop(name):
    while True:
        try: os.open('/marker-' + name, 0)
        except OSError: pass
        time.sleep(0.02)
for name in ('a', 'b'):
    threading.Thread(target=loop, args=(name,), daemon=True).start()
print('ready', flush=True)
for n in range(100000):
    time.sleep(0.05)
    if n % 4 == 0:
        threading.Thread(target=lambda: None).start()
        pid = os.fork()
        if not pid:
            try: os.open('/marker-child', 0)
            except OSError: pass
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(python(BUSY), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_attach_and_detach(
    trace: Tracer, busy: subprocess.Popen[str], follow: bool, by: signal.Signals
) -> None:
    process, path = trace.start([], attach=[busy.pid], follow=follow)
    wanted = {"/marker-a", "/marker-b"} | ({"/marker-child"} if follow else set())
    wait_for(lambda: wanted <= {e[8] for e in read_events(path) if e[0] == "entry"})
    time.sleep(0.3)
    process.send_signal(by)
    assert process.wait(LIMIT) == 0
    paths = {event[8] for event in read_events(path) if event[0] == "entry"}
    assert ("/marker-child" in paths) is follow
    assert busy.poll() is None
    assert {_tracer(int(t)) for t in os.listdir(f"/proc/{busy.pid}/task")} == {0}
    # On a busy machine it may still be on its way there.
    wait_for(lambda: "S (sleeping)" in _state(busy.pid))
    time.sleep(0.5)
    assert busy.poll() is None  # and no child failed


def test_attach_to_a_stopped_process(trace: Tracer, busy: subprocess.Popen[str]) -> None:
    """It stays stopped under us, and after us."""
    busy.send_signal(signal.SIGSTOP)
    wait_for(lambda: "T (stopped)" in _state(busy.pid))
    process, path = trace.start([], attach=[busy.pid], follow=True)
    wait_for(lambda: [e for e in read_events(path) if e[0] == "attached"])
    time.sleep(0.3)
    assert not [e for e in read_events(path) if e[0] == "entry"]
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT) == 0
    time.sleep(0.2)
    wait_for(lambda: "T (stopped)" in _state(busy.pid))
    busy.send_signal(signal.SIGCONT)
    wait_for(lambda: "S (sleeping)" in _state(busy.pid))


def test_attached_process_that_ends(trace: Tracer) -> None:
    reader = subprocess.Popen(["sh", "-c", "read line; exit 4"], stdin=subprocess.PIPE)
    process, path = trace.start([], attach=[reader.pid], follow=True)
    wait_for(lambda: [e for e in read_events(path) if e[0] == "attached"])
    reader.communicate(b"\n", LIMIT)
    assert reader.returncode == 4
    assert process.wait(LIMIT) == 0
    assert ["exited", reader.pid, 4, None] in read_events(path)


def test_attached_outlives_a_killed_tracer(trace: Tracer, busy: subprocess.Popen[str]) -> None:
    process, path = trace.start([], attach=[busy.pid], follow=True)
    wait_for(lambda: [e for e in read_events(path) if e[0] == "entry"])
    process.kill()
    process.wait(60)
    time.sleep(0.5)
    assert busy.poll() is None
    wait_for(lambda: "S (sleeping)" in _state(busy.pid))


def test_attach_is_refused_in_words(trace: Tracer, busy: subprocess.Popen[str]) -> None:
    done = trace(attach=[2**22 - 1])
    assert (done.returncode, done.stderr) == (3, f"no process {2**22 - 1}\n")
    done = trace(attach=[2])
    assert done.returncode == 3
    assert "kernel thread" in done.stderr or "no process" in done.stderr
    zombie = subprocess.Popen(["true"])
    wait_for(lambda: "Z (zombie)" in _state(zombie.pid))
    done = trace(attach=[zombie.pid])
    assert done.returncode == 3
    assert "zombie" in done.stderr
    zombie.wait()
    process, path = trace.start([], attach=[busy.pid], follow=True)
    wait_for(lambda: [e for e in read_events(path) if e[0] == "attached"])
    done = trace(attach=[busy.pid])
    assert done.returncode == 3
    assert f"already traced by {Path(f'/proc/{process.pid}/comm').read_text().strip()}" in (
        done.stderr
    )
    assert str(process.pid) in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_attach_to_a_foreign_process(trace: Tracer, busy: subprocess.Popen[str]) -> None:
    code = (
        "import os, sys\n"
        "from bpftrace_sys.record.ptrace.engine import *\n"
        "from bpftrace_sys.record.ptrace import registers\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: Engine(None, follow=True, stops=StopFilter({})).attach(int(sys.argv[1]))\n"
        "except AttachError as error: print(error, error.errno)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(busy.pid)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert f"not permitted to trace process {busy.pid}" in done.stdout
    assert "another user" in done.stdout or "ptrace_scope" in done.stdout
    assert done.stdout.endswith(" 1\n")


# -- ends of the tracer -----------------------------------------------------------


@pytest.mark.parametrize("seccomp", [True, False])
def test_spawned_dies_with_a_killed_tracer(trace: Tracer, seccomp: bool) -> None:
    code = "import os\nos.fork()\nprint(os.getpid(), flush=True)\nimport time; time.sleep(600)"
    process, _ = trace.start(
        python(code), follow=True, seccomp=seccomp, popen={"stdout": subprocess.PIPE}
    )
    assert process.stdout is not None
    pids = [int(process.stdout.readline()) for _ in range(2)]
    process.kill()
    process.wait(60)
    for pid in pids:
        wait_for(lambda pid=pid: _state(pid) in ("", "State:\tZ (zombie)"))


def terminal(command: list[str], env: dict[str, str]) -> tuple[int, int]:
    """Run a command as the foreground job of a terminal: its pid, the other end."""
    pid, end = pty.fork()
    if pid == 0:
        os.execve(command[0], command, env)
    return pid, end


def read_until(end: int, what: bytes) -> bytes:
    seen = b""
    deadline = time.monotonic() + 60
    why = "nothing else came"
    while what not in seen and time.monotonic() < deadline:
        if select.select([end], [], [], 0.2)[0]:
            try:
                seen += os.read(end, 4096)
            except OSError as error:
                why = f"then nobody was there: {error}"
                break
    assert what in seen, (seen, why)
    return seen


# An interpreter notes a signal, and calls the handler before its next instruction. If one
# comes just before a system call that sleeps, that is after the sleep: so short ones.
INTERACTIVE = """
import os, signal, time
def stop(*_):
    os.write(1, b'tidied up')
    os._exit(3)
signal.signal(signal.SIGINT, stop)
print('ready', flush=True)
while True:
    time.sleep(0.1)
"""


def test_ctrl_c_goes_to_the_tracee(trace: Tracer, mode: dict[str, Any]) -> None:
    command, path = trace.command(python(INTERACTIVE), **mode)
    pid, end = terminal(command, {**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        read_until(end, b"ready")
        os.write(end, b"\x03")
        read_until(end, b"tidied up")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 3
    finally:
        os.close(end)
    assert read_events(path)[-1][0] == "exited"


def test_ctrl_z_stops_the_job(trace: Tracer, mode: dict[str, Any]) -> None:
    """Both stop; for the shell the job has stopped; both continue."""
    code = "print('ready', flush=True); print(input() + ' heard', flush=True)"
    # Between us and the job stands what a shell would be: not in its group, same session.
    shell = (
        "import os, signal, sys\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    os.setpgid(0, 0)\n"
        "    signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n"
        "    os.tcsetpgrp(0, os.getpgrp())\n"
        "    signal.signal(signal.SIGTTOU, signal.SIG_DFL)\n"
        f"    os.execv(sys.executable, {trace.command(python(code), **mode)[0]!r})\n"
        "print('before', os.waitstatus_to_exitcode(0), flush=True)\n"
        "_, status = os.waitpid(pid, os.WUNTRACED)\n"
        "print('stopped by', os.WIFSTOPPED(status) and os.WSTOPSIG(status), flush=True)\n"
        "os.killpg(pid, signal.SIGCONT)\n"
        "_, status = os.waitpid(pid, os.WUNTRACED)\n"
        "print('ended with', os.WIFEXITED(status) and os.WEXITSTATUS(status), flush=True)\n"
        "os._exit(0)\n"
    )
    pid, end = terminal([sys.executable, "-c", shell], {**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        read_until(end, b"ready")
        os.write(end, b"\x1a")
        read_until(end, b"stopped by 20")
        time.sleep(0.2)
        os.write(end, b"word\n")
        seen = read_until(end, b"ended with 0")
        assert b"word heard" in seen
        os.waitpid(pid, 0)
    finally:
        os.close(end)


def test_signals_that_end_it(trace: Tracer) -> None:
    """on_interrupt: end gives the tracee the signal; and then SIGKILL."""
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    process, _ = trace.start(
        python(code), follow=True, on_interrupt="end", popen={"stdout": subprocess.PIPE}
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    time.sleep(0.3)
    assert process.poll() is None

    def ended() -> bool:
        process.terminate()  # two that come before it looks are one
        return process.poll() is not None

    wait_for(ended)
    assert process.returncode == -signal.SIGKILL


def in_vfork(
    trace: Tracer, program: str, *words: str, **options: Any
) -> tuple[subprocess.Popen[str], Path, int]:
    """A program that waits in a vfork: its tracer, what that tells, and the child."""
    process, path = trace.start(
        [program, "waits-in-vfork", *words],
        popen={"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}, **options,
    )  # fmt: skip
    assert process.stdout is not None
    child = int(process.stdout.readline())
    # The child has spoken; its parent need not be asleep yet.
    parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    wait_for(lambda: "D (disk sleep)" in _state(parent))
    return process, path, parent


@pytest.mark.parametrize("on_interrupt", ["wait", "end"])
def test_ends_in_a_vfork(
    trace: Tracer, mode: dict[str, Any], program: str, on_interrupt: str
) -> None:
    """A traced process that waits for a vfork's child notices nothing but SIGKILL."""
    process, path, parent = in_vfork(trace, program, on_interrupt=on_interrupt, **mode)
    process.terminate()
    wait_for(lambda: ["exited", parent, None, signal.SIGTERM] in read_events(path))
    assert process.stdin is not None
    process.stdin.close()  # where it is traced, the child's end is waited for
    assert process.wait(LIMIT) == -signal.SIGTERM


def test_a_handler_waits_for_the_vfork(trace: Tracer, mode: dict[str, Any], program: str) -> None:
    """What would not kill it untraced does not, either."""
    process, _, _ = in_vfork(trace, program, "handler", **mode)
    process.terminate()
    time.sleep(0.2)
    assert process.poll() is None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(LIMIT) == 8


@pytest.mark.parametrize("no_threads", [False, True])
@pytest.mark.parametrize("rounds", range(4))
def test_a_signal_ends_any_sleep(trace: Tracer, rounds: int, no_threads: bool) -> None:
    """Once stops have come often enough for us to sleep in waitpid, no blocked signal ends
    that: whenever it comes, it must be noticed."""
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: os._exit(7))\n"
        "for _ in range(100): os.getpid(); time.sleep(0.0005)\n"
        f"print('ready', flush=True); time.sleep({rounds} * 0.0008)\n"
        "os.getpid()\n"
        "while True: time.sleep(0.5)\n"  # untraced: no stop of its own wakes us
    )
    process, _ = trace.start(
        python(code), follow=True, stops={"getpid": None}, no_threads=no_threads,
        popen={"stdout": subprocess.PIPE},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(LIMIT) == 7
