"""-k: stacks frame by frame as ``strace -k`` unwinds them, of programs of all kinds."""

from __future__ import annotations

import lzma
import platform
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bpftrace_sys.record.proc import read_text
from tests.support.needs import needs_tool
from tests.support.running import TIMEOUT, environment, run_cli
from tests.support.unwound import VARIANTS, built, frames_of

pytestmark = pytest.mark.usefixtures("needs_bpf")
needs_i386 = pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64's other ABI")
CALLS = "trace=bpf,perf_event_open"
ELSEWHERE = {
    # .debug_frame, which strace's libunwind does not read.
    "debug-frame": ["-fomit-frame-pointer", "-fno-asynchronous-unwind-tables", "-g"],
    "packed": ["-fomit-frame-pointer", "-fno-asynchronous-unwind-tables", "-g", "-gz=zlib"],
}
PLACES = ["deep", "aligned", "signalled", "alternate", "threaded", "faulted"]
FUNCTIONS = {"ask", "deep", "sized", "aligned", "handler", "signalled", "faulting", "after_fault",
             "faulted", "thread", "main"}  # fmt: skip


class Seen(NamedTuple):
    """A frame as it is printed."""

    file: str
    symbol: str
    place: str


FRAME = re.compile(r" > ([^(]*)\((.*)\) \[0x([0-9a-f]+)\]$")
CALL = re.compile(r"(?:^|[\] ])(bpf\(\w+|perf_event_open\()")


def stacks(text: str) -> list[tuple[str, list[Seen]]]:
    """The stacks below the calls, not those below signals and exits."""
    found: list[tuple[str, list[Seen]]] = []
    below = False
    for line in text.splitlines():
        if not line.startswith(" > "):
            call = CALL.search(line)
            below = call is not None
            if call is not None:
                found.append((call[1], []))
        elif below:
            frame = FRAME.match(line)
            assert frame is not None, line
            found[-1][1].append(Seen(frame[1], frame[2], frame[3]))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stacks")


def needs_strace_k() -> None:
    needs_tool("strace")
    said = subprocess.run(["strace", "-V"], capture_output=True, text=True).stdout
    if "stack-trace=" not in said:
        pytest.skip("strace is not installed with stack traces")


def theirs(folder: Path, *command: str) -> list[tuple[str, list[Seen]]]:
    """What strace -k says."""
    needs_strace_k()
    out = folder / "strace.txt"
    subprocess.run(
        ["strace", "-f", "-k", "-e", CALLS, "-o", str(out), *command],
        capture_output=True, check=True, timeout=TIMEOUT,
    )  # fmt: skip
    return stacks(out.read_text(errors="replace"))


def ours(folder: Path, *command: str) -> list[tuple[str, list[Seen]]]:
    """What bpfstrace -k says."""
    out = folder / "ours.txt"
    done = run_cli("-f", "-k", "--style", "strace", "-e", CALLS, "-o", str(out), *command)
    assert done.returncode == 0, done.stderr
    assert "bpfstrace" not in done.stderr
    return stacks(out.read_text())


def places(found: list[tuple[str, list[Seen]]]) -> list[tuple[str, list[tuple[str, str]]]]:
    return [(call, [(seen.file, seen.place) for seen in frames]) for call, frames in found]


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_frame_is_where_strace_has_it(variant: str, folder: Path) -> None:
    program = built(folder, variant, *VARIANTS[variant])
    expected, found = theirs(folder, program, *PLACES), ours(folder, program, *PLACES)
    assert places(found) == places(expected)
    assert len(found) == len(PLACES)
    # strace names the symbol before, whatever its size; of these we know that it is theirs.
    compared = 0
    for (_, one), (_, other) in zip(found, expected, strict=True):
        for seen, known in zip(one, other, strict=True):
            if known.symbol.split("+")[0] in FUNCTIONS:
                assert seen.symbol == known.symbol
                compared += 1
    assert compared > 40
    assert [frames[1].symbol.split("+")[0] for _, frames in found] == ["ask"] * len(PLACES)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_frame_is_where_libgcc_has_it(variant: str, folder: Path, traced: Any) -> None:
    """The program's own backtrace(3), which is there where strace -k is not (aarch64)."""
    program = built(folder, f"{variant}-tells", *VARIANTS[variant], "-DTELL")
    ran = traced(["-f", "-k", "-e", CALLS], program, *PLACES)
    expected = [line.split() for line in ran.stdout.splitlines()]
    # Within ask() the one is at its call of backtrace, the other at that of syscall.
    found = [[frame["addr"] for frame in line["stack"][2:]] for line in ran.calls("bpf")]
    assert found == expected
    assert len(found) == len(PLACES)
    deep, aligned, signalled, alternate, threaded, faulted = (
        [name for name in frames[1:] if name in FUNCTIONS] for frames in frames_of(ran)
    )
    assert deep == ["ask", *["deep"] * 31, "main"]
    assert aligned == ["ask", "sized", "aligned", "main"]
    assert signalled == alternate == ["ask", "handler", "signalled", "main"]
    assert threaded == ["ask", "sized", "thread"]
    assert faulted == ["ask", "after_fault", "faulting", "faulted", "main"]
    if platform.machine() == "aarch64":  # on x86-64 it is libc's, and has no name
        assert [frames_of(ran)[at][3] for at in (2, 3, 5)] == ["__kernel_rt_sigreturn"] * 3
    assert all("stack_ended" not in line for line in ran.calls("bpf"))


@pytest.mark.parametrize("variant", sorted(ELSEWHERE))
def test_unwind_info_for_debuggers_only(variant: str, folder: Path, traced: Any) -> None:
    """The same functions as with .eh_frame, which strace confirms."""
    ran = [
        traced(["-f", "-k", "-e", CALLS], built(folder, name, *flags), *PLACES)
        for name, flags in ((variant, ELSEWHERE[variant]), ("plain", VARIANTS["plain"]))
    ]
    assert frames_of(ran[0]) == frames_of(ran[1])
    assert len(frames_of(ran[0])) == len(PLACES)


def test_python_through_ctypes(folder: Path) -> None:
    script = folder / "ask.py"
    script.write_text(
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None)\n"
        "number = {'x86_64': 321, 'aarch64': 280}[os.uname().machine]\n"
        "for _ in range(2):\n"
        "    libc.syscall(number, 11, ctypes.create_string_buffer(12), 12)\n"
    )
    needs_tool("/usr/bin/python3")
    command = ["/usr/bin/python3", "-S", str(script)]
    expected, found = theirs(folder, *command), ours(folder, *command)
    assert places(found) == places(expected)
    assert [len(frames) > 10 for _, frames in found] == [True, True]
    assert any(seen.symbol.startswith("ffi_call+") for seen in found[0][1])


def test_bpftool_loads_a_program(folder: Path) -> None:
    needs_tool("bpftool", "clang")
    source = folder / "prog.c"
    source.write_text(
        'char l[] __attribute__((section("license"), used)) = "GPL";\n'
        '__attribute__((section("xdp"), used)) int let(void *c) { return 1; }\n'
    )
    subprocess.run(
        ["clang", "-O2", "-g", "-target", "bpf", "-c", str(source), "-o", str(folder / "prog.o")],
        check=True,
    )
    bpffs = folder / "bpffs"
    bpffs.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(bpffs)], check=True)
    try:
        command = ["bpftool", "prog", "load", str(folder / "prog.o"), str(bpffs / "pin")]
        expected = theirs(folder, *command)
        (bpffs / "pin").unlink()
        found = ours(folder, *command)
    finally:
        subprocess.run(["umount", str(bpffs)], check=True)
    assert places(found) == places(expected)
    assert "bpf(BPF_PROG_LOAD" in [call for call, _ in found]
    assert all(frames for _, frames in found)


@pytest.mark.parametrize(
    "command",
    [
        ["biolatency", "1", "1"],
        ["bpftrace", "-e", "tracepoint:syscalls:sys_enter_getppid { @ = count(); } "
         "BEGIN { exit(); }"],
    ],
    ids=["libbpf", "bpftrace"],
)
def test_libbpf_and_bpftrace(command: list[str], folder: Path, tracefs: Path) -> None:
    """Tools in C and in C++, with LLVM in the process."""
    needs_tool(command[0])
    needs_strace_k()
    if subprocess.run(command, capture_output=True, timeout=TIMEOUT).returncode:
        pytest.skip(f"{command[0]} does not work on this kernel")
    expected, found = (
        # How much there is to read differs from run to run; what is set up does not.
        [place for place in places(run(folder, *command)) if "_ELEM" not in place[0]
         and "_KEY" not in place[0]]
        for run in (theirs, ours)
    )  # fmt: skip
    assert len(found) > 2
    assert found == expected
    assert len(found) > 10


@needs_i386
def test_a_32_bit_program(folder: Path, traced: Any) -> None:
    """Its source says who calls whom; and each call instruction leads to the callee."""
    program = built(
        folder, "i386", "-m32", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie",
        "-fno-stack-protector", "-fomit-frame-pointer", "-fasynchronous-unwind-tables",
        source="i386.c",
    )  # fmt: skip
    ran = traced(["-k"], program)
    assert frames_of(ran) == [
        ["ask", *["deep"] * 6, "start", "_start"],
        ["ask", "handler", "__kernel_sigreturn", "signalled", "start", "_start"],
    ]
    image = Path(program).read_bytes()
    stack = ran.calls("bpf")[0]["stack"]
    for callee, caller in pairwise(stack):
        behind = int(caller["file_offset"], 16)
        op, distance = struct.unpack("<Bi", image[behind - 5 : behind])
        assert op == 0xE8  # call
        assert int(caller["addr"], 16) + distance == int(callee["addr"], 16) - callee["offset"]
    assert all("stack_ended" not in line for line in ran.calls("bpf"))


@needs_i386
def test_without_a_search_table(folder: Path, traced: Any) -> None:
    """.eh_frame alone: its entries are gone through."""
    flags = ["-m32", "-static", "-nostdlib", "-ffreestanding", "-fno-pie", "-no-pie",
             "-fno-stack-protector", "-fomit-frame-pointer", "-fasynchronous-unwind-tables",
             "-Wl,--no-eh-frame-hdr"]  # fmt: skip
    program = built(folder, "no-header", *flags, source="i386.c")
    ran = traced(["-k"], program)
    assert frames_of(ran)[0] == ["ask", *["deep"] * 6, "start", "_start"]


def test_the_map_is_of_the_moment_of_the_call(folder: Path, traced: Any) -> None:
    """A library that is loaded between two calls, and whose file is unlinked before the next."""
    program = built(folder, "plain", *VARIANTS["plain"])
    library = built(folder, "library.so", "-shared", "-fPIC", source="library.c")
    copy = folder / "late\033[31m.so"
    shutil.copy(library, copy)
    ran = traced(["-k"], program, "loaded", str(copy))
    before, during, after = frames_of(ran)
    assert before[1:4] == after[1:4] == ["ask", "loaded", "main"]
    assert during[1:5] == ["ask", "through", "loaded", "main"]
    assert ran.calls("bpf")[1]["stack"][2]["file"] == f"{copy} (deleted)"
    assert "\033" not in ran.text
    assert "late\\x1b[31m.so (deleted)(through+0x" in ran.text


def test_code_that_was_made_at_run_time(folder: Path, traced: Any) -> None:
    """By its frame pointer, with the name in perf's map; and (x86) by its end."""
    program = built(folder, "plain", *VARIANTS["plain"])
    ran = traced(["-k"], program, "framed")
    [framed] = frames_of(ran)
    assert framed[1:5] == ["ask", "made \033[31mup", "made", "main"]
    assert "file" not in ran.calls("bpf")[0]["stack"][2]
    assert "\033" not in ran.text
    assert re.search(r" > \[anon\]\(made \\x1b\[31mup\+0x(6|c)\) \[0x", ran.text)
    if platform.machine() == "x86_64":
        [frameless] = frames_of(traced(["-k"], program, "frameless"))
        assert frameless[1:5] == ["ask", "?", "made", "main"]


def test_a_process_whose_first_thread_has_ended(folder: Path, traced: Any) -> None:
    """/proc/PID/maps is empty then; those of the other threads are not."""
    program = built(folder, "plain", *VARIANTS["plain"])
    ran = traced(["-f", "-k"], program, "leaderless")
    [stack] = frames_of(ran)
    assert stack[1:3] == ["ask", "left_behind"]
    assert all("stack_ended" not in line for line in ran.calls("bpf"))


def test_why_a_stack_ends_early(folder: Path, traced: Any) -> None:
    program = built(folder, "plain", *VARIANTS["plain"])
    ran = traced(["-k"], program, "deeper", "large", "lost")
    deeper, large, lost = ran.calls("bpf")
    assert len(deeper["stack"]) == 256
    assert deeper["stack_ended"] == "more than 256 frames"
    assert [frame["symbol"] for frame in large["stack"]][1:] == ["ask", "sized"]
    assert large["stack_ended"] == "stack goes on beyond the copy"
    # On aarch64 the way back from a leaf is in a register.
    known = ["lost", "main"] if platform.machine() == "aarch64" else ["lost"]
    assert [frame["symbol"] for frame in lost["stack"]] == known
    assert lost["stack_ended"] == "no stack at the stack pointer"
    assert " > ... no stack at the stack pointer\n" in ran.text


def test_a_program_that_only_it_can_see(folder: Path, traced: Any) -> None:
    """In a mount namespace of its own, that is gone with it."""
    needs_tool("unshare")
    program = built(folder, "static-pie", *VARIANTS["static-pie"])
    place = folder / "mount"
    place.mkdir()
    script = f"mount -t tmpfs none {place} && cp {program} {place}/inside && exec {place}/inside "
    ran = traced(["-k", "-f"], "unshare", "-m", "sh", "-c", f"{script} deep")
    assert ran.code == 0, ran.stderr
    [stack] = frames_of(ran)
    assert stack.count("deep") == 31
    assert not (place / "inside").exists()


def test_symbols_that_were_packed_away(folder: Path, traced: Any) -> None:
    """.gnu_debugdata, as distributions make it."""
    needs_tool("objcopy", "strip")
    program = built(folder, "static-pie", *VARIANTS["static-pie"])
    debug, small = folder / "debug", folder / "mini"
    subprocess.run(["objcopy", "--only-keep-debug", program, str(debug)], check=True)
    (folder / "debug.xz").write_bytes(lzma.compress(debug.read_bytes()))
    subprocess.run(["strip", "-o", str(small), program], check=True)
    bare = traced(["-k"], str(small), "deep")
    subprocess.run(
        ["objcopy", "--add-section", f".gnu_debugdata={folder}/debug.xz", str(small)], check=True
    )
    ran = traced(["-k"], str(small), "deep")
    whole = traced(["-k"], program, "deep")
    assert frames_of(ran) == frames_of(whole)
    # Without names the frames are the same, and have none.
    assert [len(frames) for frames in frames_of(bare)] == [len(frames) for frames in frames_of(ran)]
    assert set(frames_of(bare)[0]) == {"?"}


def test_attached_to(folder: Path) -> None:
    program = built(folder, "plain", *VARIANTS["plain"])
    out = folder / "attached.txt"
    with subprocess.Popen([program, "waiting"]) as tracee:
        try:
            tracer = subprocess.Popen(
                [sys.executable, "-m", "bpftrace_sys", "-k", "-o", str(out), "-p",
                 str(tracee.pid)], env=environment(), stderr=subprocess.PIPE,
            )  # fmt: skip
            until = time.monotonic() + TIMEOUT
            while time.monotonic() < until and "(main+" not in (read_text(str(out)) or ""):
                assert tracer.poll() is None
                time.sleep(0.05)
            tracer.send_signal(signal.SIGINT)
            _, said = tracer.communicate(timeout=TIMEOUT)
            assert said == b""
        finally:
            tracee.kill()
    text = out.read_text()
    assert re.search(r"\(ask\+.*\n > .*\(waiting\+.*\n > .*\(main\+", text), text
