"""Faults of our own, planted: the program lives, the trace is finished, the exit code is 125."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.running import FIXTURES, ROOT, environment

HELLO = [sys.executable, "-m", "bpftrace_sys.hello"]
BROKEN = """
import sys
from bpftrace_sys.cli.main import main
{plant}
sys.exit(main(sys.argv[1:]))
"""
RAISE = "\ndef broken(*args, **words): raise ValueError('planted')\n"
PLACES = {
    "the model": "from bpftrace_sys.story.model import Model\nModel.observe = broken",
    "attachments": (
        "from bpftrace_sys.story.attach.attachments import Attachments\n"
        "Attachments.after = broken"
    ),
    "probes": "from bpftrace_sys.story.probes.watch import Probes\nProbes.watch = broken",
    "the exit stop": (
        "from bpftrace_sys.record.capture.copying import CallCopier\nCallCopier.leave = broken"
    ),
    "out of memory": (
        "from bpftrace_sys.story.model import Model\n"
        "def broken(*args): raise MemoryError\nModel.observe = broken"
    ),
}


def run(plant: str, *words: str) -> subprocess.CompletedProcess[str]:
    """bpfstrace with a fault in it."""
    code = BROKEN.format(plant=RAISE + plant)
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True, text=True, env=environment(), cwd=ROOT, check=False,
    )  # fmt: skip


def lines(path: Path) -> list[dict[str, object]]:
    """A trace's lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.usefixtures("needs_bpf")
@pytest.mark.parametrize("place", PLACES)
def test_a_fault_costs_a_call_its_meaning(place: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    done = run(PLACES[place], "-f", "--json", str(trace), *HELLO)
    assert done.returncode == 125
    assert "Hello" in done.stdout or "hello" in done.stdout
    said = "no memory is left" if place == "out of memory" else "a fault of bpfstrace's own"
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    found = lines(trace)
    assert found[-1]["type"] == "end"
    assert any("BPF_PROG_LOAD" in str(line) for line in found)


@pytest.mark.usefixtures("needs_bpf")
def test_a_broken_output_is_dropped_and_the_other_goes_on(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    plant = "from bpftrace_sys.render.text import TextRenderer\nTextRenderer.call = broken"
    done = run(plant, "-f", "--json", str(trace), *HELLO)
    assert done.returncode == 125
    assert "TextRenderer: ValueError: planted; this output ends here" in done.stderr
    whole = lines(trace)
    assert whole[-1]["type"] == "end"
    assert sum("BPF_PROG_LOAD" in str(line) for line in whole) >= 1


ENGINE = {
    "a call's begin": ("ptrace.calls", "Calls.begins"),
    "any other stop": ("ptrace.other_stops", "OtherStops.handle"),
    "letting go": ("ptrace.other_stops", "OtherStops.let_go"),
    "a birth": ("ptrace.family", "Family.born"),
    "a sleep": ("ptrace.engine", "Engine._sleep"),
    "an entry": ("capture.sink", "Capture.entry"),
    "the work after": ("capture.sink", "Capture.work"),
}
"""Functions of the ptrace engine that an attached process cannot be traced without."""
RING = {
    "the ring": ("ebpf.ring", "Ring.drain"),
    "a record": ("ebpf.records", "Records.record"),
    "the start": ("ebpf.engine", "Watch.spawned"),
    "the rows": ("ebpf.engine", "Watch._set_rows"),
    "the end": ("ebpf.engine", "Watch.stop"),
}
"""Functions of the eBPF engine."""
TOLD = "bpfstrace: a fault of bpfstrace's own: ValueError: planted"


def planted(place: tuple[str, str]) -> str:
    """Code that breaks a function of ``record/``."""
    module, function = place
    kind = function.partition(".")[0]
    return f"from bpftrace_sys.record.{module} import {kind}\n{function} = broken"


def finished(done: subprocess.CompletedProcess[str], trace: Path, hint: bool = True) -> None:
    """One sentence, 125, and a trace that has its end."""
    assert done.returncode == 125, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("bpfstrace: ")]
    assert len(told) == 1, done.stderr
    assert told[0].startswith(TOLD)
    assert ("--debug shows where" in told[0]) is hint
    assert ("Traceback" not in done.stderr) is hint
    found = lines(trace)
    assert found[0]["type"] == "trace"
    assert found[-1] == {"type": "end", "status": {"error": "ValueError: planted"}}


class Attached:
    """A process that waits, is attached to by a broken bpfstrace, and goes on."""

    CODE = (
        "import subprocess, sys; print(0, flush=True); input()\n"
        "import os; os.close(os.open('/sys/fs/bpf', os.O_RDONLY))\n"
        "print(subprocess.run([sys.executable, '-c', 'print(7)'], capture_output=True).stdout)"
    )

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "0\n"

    def traced(
        self, plant: str, *words: str, idle: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """What bpfstrace says, once the process has been let on its way; ``idle``: the process
        goes on when bpfstrace has ended."""
        code = BROKEN.format(plant=RAISE + plant)
        tracer = subprocess.Popen(
            [sys.executable, "-c", code, *words, "-p", str(self.process.pid)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), cwd=ROOT,
        )  # fmt: skip
        status = Path(f"/proc/{self.process.pid}/status")
        while tracer.poll() is None and f"TracerPid:\t{tracer.pid}\n" not in status.read_text():
            time.sleep(0.01)
        if idle:
            tracer.wait(timeout=60)
        said, _ = self.process.communicate("\n", timeout=60)
        assert (self.process.returncode, said) == (0, "b'7\\n'\n")
        out, err = tracer.communicate(timeout=60)
        return subprocess.CompletedProcess("", tracer.returncode, out, err)


@pytest.mark.usefixtures("needs_bpf")
@pytest.mark.parametrize("place", ENGINE)
def test_a_fault_of_the_engine_lets_go_of_whom_it_is_attached_to(
    place: str, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.jsonl"
    words = ("-f", "--json", str(trace))
    done = Attached().traced(planted(ENGINE[place]), *words, idle=place == "a sleep")
    finished(done, trace)


@pytest.mark.usefixtures("needs_bpf")
@pytest.mark.parametrize("place", ["any other stop", "a sleep", "an entry"])
def test_a_fault_of_the_engine_lets_a_program_live(place: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    # At its end it is quiet for so long that the engine sleeps, however busy the machine.
    program = ["sh", "-c", '"$@"; sleep 1', "sh", *HELLO] if place == "a sleep" else HELLO
    done = run(planted(ENGINE[place]), "-f", "--json", str(trace), *program)
    finished(done, trace)
    assert "ello" in done.stdout


@pytest.mark.usefixtures("needs_bpf")
def test_where_the_engine_failed_is_shown_with_debug(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    plant = planted(ENGINE["an entry"])
    done = Attached().traced(plant, "--debug", "-f", "--json", str(trace))
    finished(done, trace, hint=False)
    assert "ValueError: planted" in done.stderr.splitlines()[-1]


@pytest.mark.usefixtures("needs_bpf")
@pytest.mark.parametrize("place", RING)
def test_a_fault_of_the_ebpf_engine(place: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    done = run(planted(RING[place]), "--engine", "bpf", "--json", str(trace), *HELLO)
    if "cannot" in done.stderr and TOLD not in done.stderr:
        pytest.skip(done.stderr.strip())
    finished(done, trace)
    if place != "the rows":  # before there is a program
        assert "ello" in done.stdout


def test_a_fault_in_replay() -> None:
    trace = str(FIXTURES / "verifier-reject" / "trace.jsonl.gz")
    plant = "import bpftrace_sys.story.explain as e\ne.explain = broken"
    done = run(plant, "replay", trace)
    assert done.returncode == 125
    assert "not decoded whole, a fault of bpfstrace's own: BPF_PROG_LOAD: ValueError" in done.stdout
    assert "Traceback" not in done.stderr
    debugged = run(plant, "replay", "--debug", trace)
    assert "Traceback" in debugged.stderr
    assert debugged.returncode == 125


def test_where_half_an_answer_is_none_it_is_refused() -> None:
    trace = str(FIXTURES / "verifier-reject" / "trace.jsonl.gz")
    plant = "from bpftrace_sys.story.model import Model\nModel.observe = broken"
    done = run(plant, "diff", trace, trace)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith("bpfstrace: a fault of bpfstrace's own: ValueError: planted")
    assert "Traceback" in run(plant, "diff", "--debug", trace, trace).stderr
