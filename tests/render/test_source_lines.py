"""Under which line of source an instruction stands: the verifier's log says the same."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.needs import needs_tool
from tests.support.running import run_cli

pytestmark = pytest.mark.live

SOURCE = """
typedef unsigned int u32;
#define SEC(name) __attribute__((section(name), used))
struct {
	int (*type)[1];
	u32 *key;
	u32 *value;
	int (*max_entries)[4];
} counts SEC(".maps");
static void *(*lookup)(void *, const void *) = (void *)1;
static long (*update)(void *, const void *, const void *, unsigned long long) = (void *)2;

SEC("socket") int count(void *ctx)
{
	u32 key = 1, one = 1;
	u32 *found = lookup(&counts, &key);

	if (found)
		return *found;
#line 70
	return update(&counts, &key, &one, 0);
}
char _license[] SEC("license") = "GPL";
"""
"""clang makes instructions of no line for the addresses of key and one; of lines from 70 on it
finds no text."""


def under(text: str) -> dict[int, str]:
    """The line of source above each instruction; empty for what is of line 0."""
    found: dict[int, str] = {}
    source = ""
    for line in text.splitlines():
        header = re.match(r"\s*;(?: (.*))?$", line)
        insn = re.match(r"\s*>?\s*(\d+): \(", line)
        if header is not None:
            source = header[1] or ""
        elif insn is not None:
            found.setdefault(int(insn[1]), "" if line.endswith("/* line 0 */") else source)
    return found


def test_the_verifier_says_the_same(needs_bpf: None, tmp_path: Path) -> None:
    """Both for what is of no line and for lines whose text BTF has not; in native code, too."""
    for tool in ("clang", "bpftool"):
        needs_tool(tool)
    (tmp_path / "lines.c").write_text(SOURCE)
    subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", "-c", "lines.c", "-o", "lines.o"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    pin = Path("/sys/fs/bpf") / f"lines{os.getpid()}"
    traced = run_cli(
        "-q", "-o", "trace.txt", "-e", "kernel=jited,map", "bpftool", "-d", "prog", "load",
        "lines.o", str(pin), cwd=tmp_path,
    )  # fmt: skip
    pin.unlink()
    log = (traced.stdout + traced.stderr).partition("-- BEGIN PROG LOAD LOG --")[2]
    theirs = under(re.sub(r"\A.*?^0: R1=ctx", "", log, flags=re.M | re.S))
    for pc, said in theirs.items():
        text, _, place = said.rpartition("@ ")
        file, _, line = place.rpartition(":")
        numbered = f"{tmp_path}/{file}:{line}" if line != "0" else ""
        theirs[pc] = text.strip() or numbered
    shown = (tmp_path / "trace.txt").read_text()
    listing = "; SEC(" + shown.partition("; SEC(")[2].partition("license=")[0]
    assert under(listing) == theirs
    stray = {pc for pc, source in theirs.items() if not source}
    assert stray
    assert any(source.endswith(":70") for source in theirs.values())
    # Side by side the same instructions are marked, and so is some of their native code.
    beside = shown.partition("\nbecame ")[2]
    marked = re.findall(r"^ +(\d+): .* \| .*/\* line 0 \*/$", beside, re.M)
    assert set(map(int, marked)) == stray
