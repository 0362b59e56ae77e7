"""Programs of tests/tracees/stacks, and the stacks that were printed of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.needs import c_compiler
from tests.support.running import TRACEES, Ran

SOURCES = TRACEES / "stacks"

VARIANTS = {
    "plain": ["-fomit-frame-pointer"],
    "static-pie": ["-fomit-frame-pointer", "-static-pie"],
    "no-pie": ["-fno-omit-frame-pointer", "-no-pie"],
}


def built(folder: Path, name: str, *flags: str, source: str = "tracee.c") -> str:
    """A program; built once."""
    compiler = c_compiler()
    out = folder / name
    if not out.exists():
        subprocess.run(
            [compiler, "-O2", "-fno-optimize-sibling-calls", "-w", *flags, "-o", str(out),
             str(SOURCES / source)],
            check=True, capture_output=True,
        )  # fmt: skip
    return str(out)


def frames_of(ran: Ran) -> list[list[str]]:
    """The functions of each stack."""
    return [[frame.get("symbol", "?") for frame in line["stack"]] for line in ran.calls("bpf")]
