"""Runs the ptrace engine in a process of its own, for tests: this very file, as a script.

It writes what its sink was told as JSON lines; the tests compare exit status and output with
an untraced run, and look at what was told.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bpftrace_sys.record.ptrace import family, own_signals
from bpftrace_sys.record.ptrace.engine import (
    ArgRule,
    AttachError,
    Engine,
    SpawnError,
    StopFilter,
    Tracee,
)
from decoders import arch as arches
from tests.support.running import ROOT

LIMIT = 240  # seconds for any one tracee, on an emulated processor, too

# -- the engine's side ----------------------------------------------------------


class Recorder:
    """A sink that writes down what it is told, one JSON array a line."""

    def __init__(self, path: str, options: dict[str, Any]) -> None:
        self.file = open(path, "w", buffering=1)  # noqa: SIM115
        self.options = options
        self.engine: Engine | None = None
        self.queued: list[list[Any]] = []

    def tell(self, *event: Any) -> None:
        self.queued.append(list(event))

    def entry(
        self, tracee: Tracee, arch: int, nr: int, args: tuple[int, ...], time_ns: int
    ) -> bool:
        name = arches.name(arch, nr)
        path = ""
        if name in ("openat", "open"):
            path = os.fsdecode(tracee.memory.cstr(args[1 if name == "openat" else 0], 4096))
        self.tell("entry", tracee.tid, tracee.pid, tracee.comm, arch, nr, name, list(args), path)
        if self.options.get("raise") == path != "":
            self.options["raise"] = None
            raise ZeroDivisionError("out of the sink")
        if path == "/marker-watch" and self.engine is not None:
            self.engine.watch(tracee, StopFilter({"unlinkat": None}))
        elif path == "/marker-unwatch" and self.engine is not None:
            self.engine.watch(tracee, None)
        inject = self.options.get("inject", {}).get(path or name)
        if inject is not None:
            assert self.engine is not None
            assert self.engine.inject(tracee, inject)
            return True
        return self.options.get("exits", True) is True

    def exit(self, tracee: Tracee, ret: int, failed: bool, time_ns: int) -> None:
        self.tell("exit", tracee.tid, ret, failed)

    def work(self) -> bool:
        queued, self.queued = self.queued, []
        for event in queued:
            self.file.write(json.dumps(event) + "\n")
        return False

    def forked(self, parent: Tracee, child_tid: int, child_pid: int, how: str) -> None:
        self.tell("forked", parent.tid, child_tid, child_pid, how)

    def execed(self, tracee: Tracee) -> None:
        self.tell("execed", tracee.tid, tracee.former_tid, tracee.arch, tracee.comm)

    def exited(self, tracee: Tracee, code: int | None, signal: int | None, core: bool) -> None:
        self.tell("exited", tracee.tid, code, signal)

    def note(self, tracee: Tracee | None, text: str) -> None:
        self.tell("note", tracee.tid if tracee else None, text)


def _no_thread(*_: Any) -> int:
    raise RuntimeError("can't start new thread")


def drive(path: str, options: dict[str, Any], argv: Sequence[str]) -> int:
    rules = {
        name: None if rule is None else ArgRule(rule[0], frozenset(rule[1]))
        for name, rule in options.get("stops", {"openat": None}).items()
    }
    sink = Recorder(path, options)
    engine = Engine(
        sink,
        follow=options.get("follow", False),
        stops=StopFilter(rules),
        use_seccomp=options.get("seccomp", True),
        quiet_children=options.get("quiet", False),
        on_interrupt=options.get("on_interrupt", "wait"),
    )
    sink.engine = engine
    try:
        for pid in options.get("attach", ()):
            engine.attach(pid)
            sink.tell("attached", pid)
        if argv:
            engine.spawn(
                argv,
                argv0=options.get("argv0"),
                user=options.get("user"),
                env=options.get("env"),
                background=options.get("background", 0),
            )
    except AttachError as error:
        print(error, file=sys.stderr)
        return 3
    except SpawnError as error:
        print(json.dumps([error.errno, error.stage, error.path, error.script]), file=sys.stderr)
        return error.exit_code
    if "late" in options:
        from tests.support.late_stops import LateStops

        LateStops(options["late"]).begin(set(engine.tracees))
    if options.get("no_threads"):
        own_signals._thread.start_new_thread = _no_thread  # type: ignore[assignment]
    if options.get("blind"):
        family._may_name = lambda *_: False  # as if nobody could have made a child that waits
    while True:
        try:
            status = engine.run()
            break
        except ZeroDivisionError:
            sink.tell("raised")
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        time.sleep(5)
    return code


# -- the tests' side --------------------------------------------------------------


class Trace:
    """What a finished run left behind."""

    def __init__(self, events: list[list[Any]], done: subprocess.CompletedProcess[str]) -> None:
        self.events = events
        self.returncode = done.returncode
        self.stdout = done.stdout
        self.stderr = done.stderr

    def all(self, what: str) -> list[list[Any]]:
        return [event for event in self.events if event[0] == what]

    def paths(self) -> list[str]:
        return [event[8] for event in self.events if event[0] == "entry"]

    def markers(self) -> list[str]:
        return [path for path in self.paths() if path.startswith("/marker")]

    def result(self, path: str) -> list[Any] | None:
        """The exit that follows the entry of a call with that path."""
        for index, event in enumerate(self.events):
            if event[0] == "entry" and event[8] == path:
                for later in self.events[index + 1 :]:
                    if later[0] == "exit" and later[1] == event[1]:
                        return later
        return None


def read_events(path: Path) -> list[list[Any]]:
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


class Tracer:
    """Runs the engine, with a time limit, and cleans up behind it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.started: list[subprocess.Popen[str]] = []

    def command(self, argv: Sequence[str], **options: Any) -> tuple[list[str], Path]:
        self.count += 1
        path = self.folder / f"events{self.count}"
        path.touch()
        command = [sys.executable, __file__, str(path), json.dumps(options), *argv]
        return command, path

    def start(
        self, argv: Sequence[str], *, popen: dict[str, Any] | None = None, **options: Any
    ) -> tuple[subprocess.Popen[str], Path]:
        command, path = self.command(argv, **options)
        process = subprocess.Popen(
            command, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, **(popen or {})
        )
        self.started.append(process)
        return process, path

    def __call__(self, *argv: str, popen: dict[str, Any] | None = None, **options: Any) -> Trace:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **(popen or {})}
        process, path = self.start(argv, popen=pipes, **options)
        out, err = process.communicate(timeout=LIMIT)
        done = subprocess.CompletedProcess(argv, process.returncode, out, err)
        assert "Traceback" not in (err or ""), err
        return Trace(read_events(path), done)

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait(60)
            for pipe in (process.stdout, process.stderr, process.stdin):
                if pipe is not None:
                    pipe.close()


def wait_for(condition: Any, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError("did not come about in time")


if __name__ == "__main__":
    sys.exit(drive(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]))


def python(code: str) -> list[str]:
    """A command that runs code by a Python without site-packages."""
    return [sys.executable, "-S", "-E", "-c", code]


def state_of(pid: int) -> str:
    """The State line of a process; empty where it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""
    return next(line for line in text.splitlines() if line.startswith("State:"))


def tracer_of(pid: int) -> int:
    """Who traces a thread; 0 where nobody does."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("TracerPid:"):
            return int(line.split()[1])
    return 0
