"""bpftrace_sys.hello: its program against the lesson's tag, the kernel and bpftool."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import time

import pytest

from bpftrace_sys import hello
from decoders.formats.tag import tags
from tests.support import bpf_asm
from tests.support.running import ROOT

pytestmark = pytest.mark.live

COMMAND = [sys.executable, "-m", "bpftrace_sys.hello"]
INSNS = b"".join(struct.pack("<BBhi", *insn) for insn in hello.INSNS)
NOBODY = 65534

needs_bpf = pytest.mark.skipif(bpf_asm.why_not() is not None, reason=str(bpf_asm.why_not()))


def run(*args: str, command: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """The program, to its end."""
    return subprocess.run(
        [*(command or COMMAND), *args], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def present(name: str) -> bool:
    """Whether this kernel has what the probe needs."""
    probe = next(probe for probe in hello.PROBES if probe.name == name)
    return probe.missing() is None


def test_it_is_the_lessons_program() -> None:
    assert len(hello.INSNS) == 13
    assert tags(INSNS).sha1 == "38dd440716c4900f"


def test_the_message_is_what_the_immediates_spell() -> None:
    stores = [insn[3] for insn in hello.INSNS[:6] if insn[0] in (0xB7, 0x18, 0x00)]
    tail, middle, head, second = stores
    spelt = struct.pack("<iii", head, second, middle) + struct.pack("<H", tail)
    assert spelt == hello.MESSAGE + b"\0"


@needs_bpf
@pytest.mark.parametrize("name", [None, *(probe.name for probe in hello.PROBES)])
def test_it_says_hello(name: str | None) -> None:
    if name is not None and not present(name):
        done = run("--probe", name)
        assert done.returncode == 1
        assert "ENOENT" in done.stderr
        assert done.stderr.count("\n") == 1
        return
    done = run(*(("--probe", name) if name else ()))
    assert (done.returncode, done.stderr) == (0, "")
    first = done.stdout.splitlines()[0]
    chosen = name or next(probe.name for probe in hello.PROBES if present(probe.name))
    assert first.startswith(f"hello_world -> {chosen} ")
    if chosen != hello.PROBES[0].name and name is None:
        assert "no kprobe PMU" in first


@needs_bpf
def test_its_line_comes_out_of_the_trace_pipe() -> None:
    if not os.access(f"{hello.tracefs()}/trace_pipe", os.R_OK):
        pytest.skip("tracefs is not mounted, so nothing can be read from trace_pipe")
    done = run("--probe", "uprobe")
    if "cannot be read" in done.stdout:
        pytest.skip(done.stdout.splitlines()[-1])
    assert re.search(r"-\d+ .*: Hello, World!$", done.stdout.splitlines()[1]), done.stdout


@needs_bpf
@pytest.mark.skipif(not shutil.which("bpftool"), reason="bpftool is not installed")
def test_the_kernel_sees_what_we_meant() -> None:
    if not present("uprobe"):
        pytest.skip("this kernel has no uprobe PMU")
    with subprocess.Popen(
        [*COMMAND, "--probe", "uprobe", "--seconds", "60"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        try:
            events = []
            for _ in range(200):  # the first line is printed before the program is attached
                time.sleep(0.05)
                shown = subprocess.check_output(["bpftool", "-j", "perf", "show"], text=True)
                # bpftool 7.1 repeats a task's events for each of its threads.
                events = [event for event in json.loads(shown) if event["pid"] == child.pid]
                if events:
                    break
            event = events[0]
            number = str(event["prog_id"])
            prog = json.loads(
                subprocess.check_output(["bpftool", "-j", "prog", "show", "id", number])
            )
            dump = subprocess.check_output(
                ["bpftool", "prog", "dump", "xlated", "id", number], text=True
            )
        finally:
            child.kill()
    path, offset = hello.user_function()
    assert event["fd_type"] == "uprobe"
    assert (event["filename"], event["offset"]) == (path, offset)
    assert (prog["name"], prog["type"], prog["gpl_compatible"]) == ("hello_world", "kprobe", True)
    assert prog["tag"] in tags(INSNS)
    for _, _, _, text in hello.LINES:
        assert f"; {text}" in dump
    assert dump.startswith("int hello_world(void * ctx):\n")


@needs_bpf
def test_a_kernel_that_refuses_the_btf_gets_the_program_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = hello.debug_info()
    for info in (good._replace(btf=b"nonsense"), good._replace(line_info=bytes(48))):
        monkeypatch.setattr(hello, "debug_info", lambda info=info: info)
        fd = hello.load_program(hello.PROG_TYPE_KPROBE)
        try:
            assert bpf_asm.prog_info(fd).name == "hello_world"
        finally:
            os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to stop being root")
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
def test_without_privileges_the_kernel_refuses() -> None:
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    # Our virtual environment may be unreadable to nobody.
    if subprocess.run([*drop, sys.executable, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"{sys.executable} cannot be run by nobody")
    done = run(command=[*drop, *COMMAND])
    assert done.returncode == 1
    assert re.fullmatch(r"hello: bpf\(BPF_PROG_LOAD\): EPERM \(.*\); .*root.*\n", done.stderr), (
        done.stderr
    )


def test_nothing_but_the_standard_library_is_loaded() -> None:
    code = "import sys, bpftrace_sys.hello; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = run("-c", code, command=[sys.executable, "-S"]).stdout.split()
    assert set(loaded) - sys.stdlib_module_names == {"__main__", "bpftrace_sys"}
