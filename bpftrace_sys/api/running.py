"""Tracing a command from a program.

A child process traces, and hands its trace over in a file. ptrace(2) belongs to the thread that
attached, waits take the events of all children of a process, and what reaches a tracer (signals,
its terminal, its time) reaches the tracees: in the caller's own process tracing would disturb its
threads, its signal handlers and the children that it waits for, and be disturbed by them. So here
nothing is touched: no handler, no other child, no descriptor but those of the one child.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bpftrace_sys.api.trace import Trace
from bpftrace_sys.common import BpfstraceError
from bpftrace_sys.trace.items import TraceError

START: Final = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from bpftrace_sys.cli.main import run; run()"
)
"""What the child runs: this very package, wherever the caller has it from."""
GRACE: Final = 5.0
"""Seconds that a child which is to end may take."""


class RunError(BpfstraceError):
    """A command that could not be traced; says why."""


class RunTimeoutError(RunError):
    """A command that took longer than it may; it was ended.

    ``trace`` holds what it had done (it is not whole), or None.
    """

    def __init__(self, message: str, trace: Trace | None) -> None:
        super().__init__(message)
        self.trace = trace


class Run(Trace):
    """The trace of a command that has run.

    The file goes with the object, unless ``run`` was told where to keep it.
    """

    returncode: int
    """The command's exit code; negative: the signal that ended it."""
    stdout: str
    stderr: str
    """What it wrote, where that was captured; else empty."""


def run(
    command: Sequence[str | os.PathLike[str]],
    *,
    follow: bool = True,
    syscalls: str | None = None,
    inject: Sequence[str] = (),
    options: Sequence[str] = (),
    save: str | os.PathLike[str] | None = None,
    timeout: float | None = None,
    input: str | None = None,
    capture: bool = True,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> Run:
    """Runs a command under bpfstrace, and gives its trace.

    ``follow``: its children and threads are traced, too (``-f``). ``syscalls``: only these
    (``-e trace=``), as ``"bpf,perf_event_open"``. ``inject``: calls to make fail, as
    ``"bpf(prog_load):error=EPERM"``. ``options``: further ones of bpfstrace's command line.
    ``save``: where to keep the trace; a name ending in .gz or .zst is compressed.
    ``timeout``: seconds, after which the command is ended and RunTimeoutError raised.
    ``input``: what it reads from stdin, else the caller's stdin. ``capture``: its output goes
    to ``stdout`` and ``stderr`` of the result, else to the caller's. ``cwd``, ``env``: its
    working directory and environment, else the caller's.

    A command that fails is no error (see ``returncode``). RunError where it cannot be found,
    executed or traced: tracing needs ptrace(2), and mostly root.
    """
    words = [os.fspath(word) for word in command]
    if not words:
        raise RunError("no command to run")
    if not sys.executable:
        raise RunError("there is no Python interpreter to run bpfstrace with (sys.executable)")
    folder = None
    if save is None:
        folder = tempfile.TemporaryDirectory(prefix="bpfstrace-run-")
        path = os.path.join(folder.name, "trace.jsonl")
    else:
        path = os.path.abspath(save)
        if os.path.exists(path):
            os.unlink(path)  # what is read afterwards is of this run
    arguments = [sys.executable, "-c", START, _package_folder()]
    # The text is for nobody: -c makes the least of it.
    arguments += ["--no-config", "-o", os.devnull, "-c", "--json", path]
    arguments += ["-f"] * follow
    arguments += [] if syscalls is None else ["-e", f"trace={syscalls}"]
    for rule in inject:
        arguments += ["-e", f"inject={rule}"]
    try:
        done = _finished([*arguments, *options, "--", *words], timeout, input, capture, cwd, env)
        made = _opened(path, done)
    except BaseException:
        if folder is not None:
            folder.cleanup()
        raise
    if folder is not None:
        weakref.finalize(made, folder.cleanup)
    return made


def _package_folder() -> str:
    """The folder that this package is imported from."""
    here = os.path.abspath(__file__)
    return os.path.dirname(os.path.dirname(os.path.dirname(here)))


def _finished(
    arguments: list[str],
    timeout: float | None,
    input: str | None,
    capture: bool,
    cwd: Any,
    env: Mapping[str, str] | None,
) -> subprocess.CompletedProcess[str]:
    pipe = subprocess.PIPE if capture else None
    child = subprocess.Popen(
        arguments,
        stdin=None if input is None else subprocess.PIPE,
        stdout=pipe,
        stderr=pipe,
        cwd=cwd,
        env=env,
        text=True,
        encoding="utf-8",
        errors="backslashreplace",
    )
    with child:
        try:
            out, err = child.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            _end(child)
            path = arguments[arguments.index("--json") + 1]
            raise RunTimeoutError(
                f"the command took longer than {timeout} s", _partial(path)
            ) from None
        except BaseException:
            _end(child)
            raise
    return subprocess.CompletedProcess(arguments, child.returncode, out or "", err or "")


def _end(child: subprocess.Popen[str]) -> None:
    """Ends the tracer, which takes its tracees with it."""
    child.send_signal(signal.SIGTERM)
    try:
        child.communicate(timeout=GRACE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()


def _partial(path: str) -> Trace | None:
    """What a command had done; read now, for the file may go."""
    try:
        trace = Trace(path, partial=True)
        _ = trace.programs
        return trace
    except TraceError:
        return None


def _opened(path: str, done: subprocess.CompletedProcess[str]) -> Run:
    try:
        made = Run(path)
        error = made._story.ending.error
    except TraceError as damage:
        raise RunError(_said(done) or str(damage)) from None
    if error:
        raise RunError(_said(done) or error)
    made.returncode = done.returncode
    made.stdout, made.stderr = done.stdout, done.stderr
    return made


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """What bpfstrace itself complained of."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("bpfstrace: ")]
    return "\n".join(line.removeprefix("bpfstrace: ") for line in lines)
