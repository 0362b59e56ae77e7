"""-e kernel= on people's tools, against bpftool's dump of the same programs with source lines."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.bpftool_view import bpftool
from tests.support.needs import needs_tool
from tests.support.running import environment

PATIENCE = 120.0  # a busy machine, and libbpf reads the kernel's BTF
pytestmark = pytest.mark.usefixtures("needs_bpf")

# bpftool 7.1 prints these moves of the verifier's own as plain ones (Linux 6.9).
PERCPU = re.compile(r"r(\d+) = &\(void __percpu \*\)\(r(\d+)\)")


def views(trace: Path) -> list[dict[str, Any]]:
    """The views in a trace that is still being written."""
    if not trace.exists():
        return []
    whole = [line for line in trace.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [line for line in map(json.loads, whole) if line["type"] == "kernel_view"]


def dump(prog_id: int) -> list[dict[str, Any]] | None:
    """What bpftool prints of a program; None where it is gone."""
    try:
        found: list[dict[str, Any]] = bpftool("prog", "dump", "xlated", "id", str(prog_id), "linum")
    except AssertionError:
        return None
    return found


@pytest.mark.parametrize("tool", ["opensnoop", "runqlat"])
def test_listings_with_source_lines_are_bpftools(tool: str, tmp_path: Path) -> None:
    needs_tool(tool, "bpftool")
    trace = tmp_path / "trace.jsonl"
    with subprocess.Popen(
        [sys.executable, "-m", "bpftrace_sys", "-q", "-e", "kernel=xlated,map", "-o", "/dev/null",
         "--json", str(trace), tool],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            dumps: dict[int, list[dict[str, Any]]] = {}
            until = time.monotonic() + PATIENCE
            # Feature probes come and go; the tool's own programs stay.
            while time.monotonic() < until and process.poll() is None:
                named = [line["prog"]["id"] for line in views(trace) if len(line["xlated"]) > 12]
                dumps = {number: found for number in named if (found := dump(number))}
                if len(dumps) >= 3:
                    break
                time.sleep(0.3)
            assert len(dumps) >= 3, f"{tool} loaded no programs that stay"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    lines = 0
    for view in views(trace):
        theirs = dumps.get(view["prog"]["id"])
        if theirs is None:
            continue
        assert "problem" not in view
        assert {row["what"] for row in view["map"]} >= {"unchanged"}
        assert len(theirs) == len(view["xlated"])
        for one, other in zip(view["xlated"], theirs, strict=True):
            text = PERCPU.sub(r"r\1 = r\2", one["text"])
            assert text == other["disasm"]
            assert one.get("src", "").strip() == other.get("src", "").strip().replace("\n", "\\")
            # bpftool sets an asterisk apart from its name.
            proto = re.sub(r"\* (?=\w+[,)])", "*", other.get("proto", ""))
            assert one.get("fn", "") == proto
            lines += 1
    assert lines > 100
