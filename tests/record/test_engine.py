"""The ptrace engine on real tracees.

Each test runs the engine in a process of its own (tests/support/engine_runs.py), which
writes what its sink was told as JSON lines; the tests compare exit status and output with
an untraced run, and look at what was told.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.support.engine_runs import (
    LIMIT,
    Tracer,
    python,
    read_events,
    state_of,
    tracer_of,
    wait_for,
)
from tests.support.running import ROOT

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


def test_siginfo_is_intact(trace: Tracer, mode: dict[str, Any], engine_c: str) -> None:
    plain = subprocess.run([engine_c, "siginfo"], capture_output=True, text=True, timeout=LIMIT)
    traced = trace(engine_c, "siginfo", **mode)
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
    wait_for(lambda: any(it in state_of(pid) for it in (" (stopped)", "T (", "t (")))
    process.stdin.write("\n")
    process.stdin.flush()
    time.sleep(0.3)
    assert process.poll() is None
    os.kill(pid, signal.SIGCONT)
    assert process.communicate(timeout=LIMIT)[0] == "end\n"
    assert process.returncode == 0


def test_stop_survives_kill(trace: Tracer) -> None:
    """A group-stopped tracee can be killed."""
    process, path = trace.start(python("import os,signal; os.kill(os.getpid(), 19)"), follow=True)
    pid = wait_for(lambda: [e[1] for e in read_events(path) if e[0] == "execed"])[0]
    wait_for(lambda: "t (" in state_of(pid))
    time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    assert process.wait(LIMIT) == -signal.SIGKILL


def test_restarted_call(trace: Tracer, engine_c: str) -> None:
    plain = subprocess.run([engine_c, "restart"], capture_output=True, text=True, timeout=LIMIT)
    for seccomp in (True, False):
        traced = trace(engine_c, "restart", follow=True, seccomp=seccomp, stops={"read": [2, [1]]})
        assert traced.stdout == plain.stdout == "alarm\n1 x\n"
        first = traced.all("execed")[0][1]
        told = [
            (event[0], event[2] if event[0] == "exit" else 0)
            for event in traced.events
            if event[0] in ("entry", "exit") and event[1] == first
        ]
        assert told == [("entry", 0), ("exit", -512), ("entry", 0), ("exit", 1)]


@pytest.mark.parametrize("seccomp", [True, False])
def test_every_way_to_have_children(trace: Tracer, engine_c: str, seccomp: bool) -> None:
    done = trace(engine_c, "ways", follow=True, seccomp=seccomp)
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
def test_children_are_left_alone(trace: Tracer, engine_c: str, mode: dict[str, Any]) -> None:
    done = trace(engine_c, "ways", **mode)
    assert done.returncode == 0
    assert done.markers() == ["/marker-parent"]
    assert not done.all("forked")
    assert {event[1] for event in done.events} == {done.all("execed")[0][1]}


def test_untraced_children_run_on(trace: Tracer) -> None:
    """Without follow a background process is not waited for, nor harmed."""
    done = trace("sh", "-c", "sleep 30 >/dev/null 2>&1 & echo $!")
    pid = int(done.stdout)
    try:
        wait_for(lambda: "S (sleeping)" in state_of(pid))
        assert tracer_of(pid) == 0
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("what", ["exec-thread", "exec-zombie"])
def test_exec_from_a_thread(trace: Tracer, mode: dict[str, Any], engine_c: str, what: str) -> None:
    done = trace(engine_c, what, **mode)
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


def test_zombie_leader(trace: Tracer, mode: dict[str, Any], engine_c: str) -> None:
    """The first thread ends, others live on; then all are killed."""
    done = trace(engine_c, "zombie-leader", **mode)
    assert done.returncode == -signal.SIGKILL
    if mode.get("follow"):
        assert "/marker-zombie" in done.markers()


@pytest.mark.parametrize("seccomp", [True, False])
def test_many_children_and_threads(trace: Tracer, engine_c: str, seccomp: bool) -> None:
    done = trace(engine_c, "forks", "500", follow=True, seccomp=seccomp)
    assert (done.stdout, done.returncode) == ("500\n", 0)
    assert done.markers() == ["/marker-child"] * 500
    assert len(done.all("forked")) == 500
    assert len(done.all("exited")) == 501
    done = trace(engine_c, "threads", "1000", follow=True, seccomp=seccomp)
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
def test_storm(trace: Tracer, engine_c: str, seccomp: bool) -> None:
    """Threads that are born, call, execute and get killed, all at once."""
    for _ in range(3):
        done = trace(engine_c, "storm", str(STORM_ROUNDS), follow=True, seccomp=seccomp)
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


# -- tracees that filter and trace ---------------------------------------------------


# -- attaching ----------------------------------------------------------------------


