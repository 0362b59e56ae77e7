"""Programs of up to millions of instructions: no more is copied than the kernel would read.

bpf_prog_load() (kernel/bpf/syscall.c) refuses more than BPF_MAXINSNS of a caller without CAP_BPF
and CAP_SYS_ADMIN, and more than BPF_COMPLEXITY_LIMIT_INSNS of anybody, before it reads one of them.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.record.ebpf import loader
from decoders.formats import insn as isa
from decoders.walk import measures
from tests.support.needs import c_compiler
from tests.support.running import TRACEES, environment, run_cli
from tests.support.updates import lines_of

pytestmark = pytest.mark.usefixtures("needs_bpf")

BAD_FLAGS = "80000000"
"""prog_flags with a bit that means nothing: EINVAL before anything else is looked at."""
ALL = measures.BPF_COMPLEXITY_LIMIT_INSNS
UNPRIVILEGED = (
    "the kernel takes at most 4096 (BPF_MAXINSNS) without CAP_BPF, and reads none of more"
)
ANYBODY = "the kernel takes at most 1000000 (BPF_COMPLEXITY_LIMIT_INSNS), and reads none of more"


@pytest.fixture(scope="module")
def loads(tmp_path_factory: pytest.TempPathFactory) -> str:
    """large_loads.c, compiled; where other users may execute it."""
    binary = tmp_path_factory.mktemp("large") / "loads"
    source = TRACEES / "large_loads.c"
    subprocess.run([c_compiler(), "-O1", "-w", "-o", binary, source], check=True)
    return str(binary)


def peaked(
    *words: str, limit: int | None = None, most: int = ALL
) -> tuple[int, str, str, float, int]:
    """Runs bpfstrace: exit code, stdout, stderr, its seconds of processor time, its peak in MB.

    Those of the program are not counted: they would be its parent's children's.
    """
    script = (
        "import resource, sys\n"
        "from bpftrace_sys.cli.main import main\n"
        "from decoders.walk import measures\n"
        f"measures.BPF_COMPLEXITY_LIMIT_INSNS = {most}\n"
        "code = main(sys.argv[1:])\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        # Not ru_maxrss, which counts what there was before execve: all of pytest.
        "peak = open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]\n"
        "print('used', used.ru_utime + used.ru_stime, int(peak) >> 10, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True, text=True, env=environment(), preexec_fn=limited, check=False,
    )  # fmt: skip
    stderr, _, used = done.stderr.rpartition("used ")
    seconds, peak = used.split()
    return done.returncode, done.stdout, stderr, float(seconds), int(peak)


def test_the_limits_are_the_kernel_s(loads: str) -> None:
    """What it says of itself: a header, and what it answers root."""
    header = Path("/usr/include/linux/bpf_common.h").read_text()
    found = re.search(r"#define\s+BPF_MAXINSNS\s+(\d+)", header)
    assert found is not None
    assert int(found[1]) == measures.BPF_MAXINSNS
    # A type that there is not: EINVAL, once the count is all right.
    script = (
        "import ctypes, struct, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for count in map(int, sys.argv[2:]):\n"
        "    attr = ctypes.create_string_buffer(struct.pack('<IIQQ', 999, count, 8, 8), 144)\n"
        "    libc.syscall(int(sys.argv[1]), 5, attr, 144)\n"
        "    print(ctypes.get_errno())\n"
    )
    number = {"x86_64": "321"}.get(os.uname().machine, "280")
    words = [sys.executable, "-c", script, number, str(ALL), str(ALL + 1)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    at_most, above = map(int, done.stdout.split())
    assert above == 7  # E2BIG
    assert at_most != 7


@pytest.mark.parametrize("engine", ["ptrace", "bpf"])
@pytest.mark.parametrize("who", ["nobody", "namespace"])
def test_of_a_caller_without_privileges(
    who: str, engine: str, loads: str, tmp_path: Path
) -> None:
    trace, out = tmp_path / "trace.jsonl", tmp_path / "out"
    counts = ["4096", "4097", "2000000"]
    code, said, stderr, seconds, peak = peaked(
        "--engine", engine, "-f", "-v", "-o", str(out), "--json", str(trace),
        loads, who, "0", *counts,
    )  # fmt: skip
    assert (code, stderr) == (7, ""), stderr
    assert [line.split(":")[0] for line in said.splitlines()] == counts
    assert seconds < 8
    assert peak < 150
    text = out.read_text()
    assert "instructions unreadable" not in text
    assert re.findall(r"(\d+) more instruction(s?) not read: (.*)", text) == [
        ("1", "", UNPRIVILEGED), ("1995904", "s", UNPRIVILEGED),
    ]  # fmt: skip
    calls = loads_of(lines_of(trace))
    assert [call["args"]["attr"]["insn_cnt"] for call in calls] == list(map(int, counts))
    for call in calls:
        assert len(call["args"]["attr"]["insns"]["value"]) == 4096
        copied = max(chunk[2] if len(chunk) > 2 else 0 for chunk in call["raw"]["entry"])
        assert copied <= 8 * 4096
    # Only where the count decides, the caller is looked at; EPERM asks for him, too.
    assert all("cred" in call["raw"]["extra"] for call in calls[1:])
    assert "tag" in calls[0]
    assert "tag" not in calls[1]
    assert calls[2]["args"]["attr"]["insns"]["unread"] == 1995904
    again = run_cli("replay", "-v", str(trace))
    assert (again.returncode, again.stdout) == (0, text)


def loads_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The PROG_LOADs of a trace."""
    return [line for line in lines if line.get("args", {}).get("cmd") == "BPF_PROG_LOAD"]


def test_of_root(loads: str, tmp_path: Path) -> None:
    """With a fifth of the limit, which is long enough. So much is copied, and less is listed."""
    out = tmp_path / "out"
    code, _, stderr, _, peak = peaked(
        "-o", str(out), loads, "root", "0", "2000000", most=ALL // 5
    )
    assert (code, stderr) == (7, "")
    assert peak < 75
    text = out.read_text()
    assert text.count("(b7) r0 = 1\n") == isa.LISTED
    assert f"\n          {ALL // 5 - isa.LISTED} more instructions not listed\n" in text
    assert f"\n          1800000 more instructions not read: {ANYBODY}\n        ],\n" in text
    assert "why: insn_cnt 2000000 is above 1000000 (BPF_COMPLEXITY_LIMIT_INSNS)\n" in text


def test_out_of_memory_a_call_loses_its_text(loads: str, tmp_path: Path) -> None:
    """Never the program its life, nor the calls that follow theirs."""
    out, trace = tmp_path / "out", tmp_path / "trace.jsonl"
    dropped = 0
    for megabytes in (60, 66, 72, 80, 90, 100):
        code, said, stderr, _, _ = peaked(
            "-o", str(out), "--json", str(trace), loads, "root", BAD_FLAGS, "150000",
            limit=megabytes << 20,
        )  # fmt: skip
        assert said == "150000: EINVAL\n"
        assert "Traceback" not in stderr
        if not stderr.startswith("bpfstrace: JsonLines: no memory is left (`ulimit -v` is"):
            continue  # enough, or too little for the text, too
        assert code == 125
        lines = lines_of(trace)
        assert not loads_of(lines)
        assert [line["errno"] for line in lines if line["type"] == "syscall"] == ["EFAULT"]
        assert lines[-1]["type"] == "end"
        dropped += 1
        break
    assert dropped, stderr


def test_the_image_is_of_these_sources() -> None:
    """The programs know the same limits."""
    folder = Path(loader.__file__).parent
    walk = (folder / "walk.h").read_text()
    for name in ("BPF_MAXINSNS", "BPF_COMPLEXITY_LIMIT_INSNS"):
        assert f"#define {name} {getattr(measures, name)}\n" in walk
