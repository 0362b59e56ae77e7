"""Faults of our own, planted: the program lives, the trace is finished, the exit code is 125."""

from __future__ import annotations

import json
import subprocess
import sys
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
