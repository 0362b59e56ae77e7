"""How tracing starts: programs that are spawned, processes that are attached to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine_runs import (
    LIMIT,
    Trace,
    Tracer,
    python,
    read_events,
    state_of,
    tracer_of,
    wait_for,
)
from tests.support.running import ROOT


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
    assert {tracer_of(int(t)) for t in os.listdir(f"/proc/{busy.pid}/task")} == {0}
    # On a busy machine it may still be on its way there.
    wait_for(lambda: "S (sleeping)" in state_of(busy.pid))
    time.sleep(0.5)
    assert busy.poll() is None  # and no child failed


def test_attach_to_a_stopped_process(trace: Tracer, busy: subprocess.Popen[str]) -> None:
    """It stays stopped under us, and after us."""
    busy.send_signal(signal.SIGSTOP)
    wait_for(lambda: "T (stopped)" in state_of(busy.pid))
    process, path = trace.start([], attach=[busy.pid], follow=True)
    wait_for(lambda: [e for e in read_events(path) if e[0] == "attached"])
    time.sleep(0.3)
    assert not [e for e in read_events(path) if e[0] == "entry"]
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT) == 0
    time.sleep(0.2)
    wait_for(lambda: "T (stopped)" in state_of(busy.pid))
    busy.send_signal(signal.SIGCONT)
    wait_for(lambda: "S (sleeping)" in state_of(busy.pid))


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
    wait_for(lambda: "S (sleeping)" in state_of(busy.pid))


def test_attach_is_refused_in_words(trace: Tracer, busy: subprocess.Popen[str]) -> None:
    done = trace(attach=[2**22 - 1])
    assert (done.returncode, done.stderr) == (3, f"no process {2**22 - 1}\n")
    done = trace(attach=[2])
    assert done.returncode == 3
    assert "kernel thread" in done.stderr or "no process" in done.stderr
    zombie = subprocess.Popen(["true"])
    wait_for(lambda: "Z (zombie)" in state_of(zombie.pid))
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
