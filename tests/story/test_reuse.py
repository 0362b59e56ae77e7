"""A pinned map that is not what the object declares: libbpf finds it too, and gives up."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.needs import needs_tool
from tests.support.running import Ran, run_cli

pytestmark = pytest.mark.usefixtures("needs_bpf")
NAME = f"again_{os.getpid()}"
PINS = Path("/sys/fs/bpf")

SOURCE = """
#define SEC(name) __attribute__((section(name), used))
#define __uint(name, val) int (*name)[val]
#define __type(name, val) typeof(val) *name
struct {
	__uint(type, TYPE); __uint(max_entries, ENTRIES); __uint(pinning, 1);
	__type(key, int); __type(value, VALUE);
} NAME SEC(".maps");
static void *(*lookup)(void *, const void *) = (void *)1;
SEC("socket") int counts(void *ctx)
{
	int key = 0;
	return lookup(&NAME, &key) != 0;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture
def built(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Builds the object with another definition of the map."""
    needs_tool("clang", "bpftool")
    source = tmp_path / "again.bpf.c"
    source.write_text(SOURCE)

    def build(kind: int = 1, entries: int = 8, value: str = "long") -> str:
        made = tmp_path / f"{kind}_{entries}_{value}.o"
        defines = {"TYPE": kind, "ENTRIES": entries, "VALUE": value, "NAME": NAME}
        words = [f"-D{name}={text}" for name, text in defines.items()]
        subprocess.run(
            ["clang", "-target", "bpf", "-g", "-O2", *words, "-c", str(source), "-o", str(made)],
            check=True,
        )
        return str(made)

    yield build
    for pin in (NAME, f"{NAME}_prog"):
        (PINS / pin).unlink(missing_ok=True)


def test_a_pinned_map_of_another_kind(
    traced: Callable[..., Ran], built: Callable[..., str], tmp_path: Path
) -> None:
    prog = PINS / f"{NAME}_prog"
    done = subprocess.run(
        ["bpftool", "prog", "load", built(), str(prog)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr

    def opened(**changes: object) -> tuple[list[str], str, Ran]:
        """What is said of the pin, and what libbpf says."""
        prog.unlink(missing_ok=True)
        ran = traced([], "bpftool", "prog", "load", built(**changes), str(prog))
        (line,) = [
            line for line in ran.calls("BPF_OBJ_GET")
            if str(PINS / NAME) == line["args"]["attr"]["pathname"]["value"]
        ]  # fmt: skip
        assert line["ret"] >= 0
        refused = re.search("parameter mismatch", ran.stderr + ran.stdout)
        return line.get("differs", []), refused[0] if refused else "", ran

    assert opened()[:2] == ([], "")
    assert opened(entries=16)[:2] == (
        ["max_entries is 8, and .maps of the object asks for 16"], "parameter mismatch",
    )  # fmt: skip
    said, theirs, ran = opened(kind=2, value="int")
    assert theirs
    assert said == [
        "map_type is hash, and .maps of the object asks for array",
        "value_size is 8, and .maps of the object asks for 4",
    ]
    # The only word of it: no call is refused.
    assert not [line for line in ran.calls() if line["ret"] == -1 and not line.get("probe")]
    for text in said:
        assert f"  other than declared: {text}\n" in ran.text
    assert run_cli("replay", str(tmp_path / "trace.jsonl")).stdout == ran.text
