"""Recordings, and the objects that are extracted of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from bpftrace_sys.cli.extract import main as extract
from bpftrace_sys.cli.messages import DONE
from bpftrace_sys.export.extraction import Extraction, files
from bpftrace_sys.story.model import Model
from bpftrace_sys.story.whole_trace import read
from decoders.call import inner_value
from decoders.values import Insns
from tests.support.running import FIXTURES

ALL = sorted(FIXTURES.glob("*/trace.jsonl.gz"))

HELLO = FIXTURES / "bcc-kprobe-hello" / "trace.jsonl.gz"


def extraction(trace: Path) -> Extraction:
    made: list[Extraction] = []

    def make(model: Model) -> Extraction:
        made.append(Extraction(model))
        return made[0]

    read(str(trace), make)
    return made[0]


def objects(trace: Path, to: Path) -> dict[Path, bytes]:
    """The object files of a trace, and the instructions that each one's load passed."""
    assert extract([str(trace), "-o", str(to)]) == DONE
    found = extraction(trace)
    made = [file for file in files(found) if file.name.endswith(".o")]
    insns = []
    for call in found.programs():
        value = inner_value(call.attr("attr", "insns"))
        assert isinstance(value, Insns)
        insns.append(value.data)
    return {to / file.name: data for file, data in zip(made, insns, strict=True)}


def bpftool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bpftool", *words], capture_output=True, text=True, check=False)
