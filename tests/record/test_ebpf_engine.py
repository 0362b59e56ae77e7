"""The eBPF engine, live: the same trace as by ptrace, none missing, and what is lost is counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.record.ebpf import engine as engine_module
from bpftrace_sys.record.ebpf.engine import Told, Wanted, Watch
from decoders.events import Lost
from decoders.raw import AUDIT_ARCH_I386, RawCall
from tests.support.running import LOADERS, ROOT, TRACEES, environment, run_cli
from tests.support.schema import check

sys.path.insert(0, str(ROOT / "tools"))

import compare_engines

from tests.support.updates import UPDATES, lines_of

pytestmark = pytest.mark.usefixtures("needs_bpf")


# ---------------------------------------------------------------- the same as by ptrace


@pytest.mark.parametrize(
    "name",
    ["cgroup_attach", "info", "iter", "map_in_map", "map_ops", "struct_ops", "xdp_link"],
)
def test_both_engines_tell_the_same(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same calls, seen by both at once: names, results and decoded arguments are equal."""
    command = [sys.executable, str(LOADERS / f"{name}.py")]
    probe = subprocess.run(command, capture_output=True, check=False, env=environment())
    if probe.returncode:
        pytest.skip(f"{name} does not run here")
    same = compare_engines.compare(name, command, ROOT, 0, 10)
    assert same, capsys.readouterr().out


def test_both_engines_tell_odd_calls_alike(capsys: pytest.CaptureFixture[str]) -> None:
    """Attrs of every size, too little room, bytes that nobody knows, pointers to nowhere."""
    command = [sys.executable, str(TRACEES / "odd_calls.py")]
    assert compare_engines.compare("odd_calls", command, ROOT, 0, 10), capsys.readouterr().out


# ---------------------------------------------------------------- none missing


def test_threads_and_forks_are_counted_whole(tmp_path: Path) -> None:
    """8 threads and 3 forks of 4 threads, 300 updates each: all are there, or said to be lost."""
    script = UPDATES + (
        "def many(count):\n"
        "    threads = [threading.Thread(target=work, args=(300,)) for _ in range(count)]\n"
        "    [thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        "for _ in range(3):\n"
        "    if not os.fork(): many(4); os._exit(0)\n"
        "many(8)\n"
        "for _ in range(3): os.wait()\n"
    )
    trace = tmp_path / "trace.jsonl"
    ran = run_cli(
        "--engine", "bpf", "-f", "-q", "-o", "/dev/null", "--json", str(trace),
        "-e", "bpf=map_create,map_update_elem", sys.executable, "-c", script,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = lines_of(trace)
    check(lines[:100])
    counted = Counter(
        line["tid"]
        for line in lines
        if line["type"] == "syscall" and line["args"]["cmd"] == "BPF_MAP_UPDATE_ELEM"
    )
    assert sorted(counted.values()) == [300] * 20
    numbers = [line["seq"] for line in lines if line["type"] == "syscall"]
    assert sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers)))


def test_loss_is_counted_exactly() -> None:
    """Nobody reads while 3,000 calls are made: what is not there is what is said to be lost."""
    engine = Watch(Wanted(everybody=False, ring=1 << 16))
    engine.open()
    items: list[Any] = []
    losses: list[Lost] = []
    engine.tell(Told(items.append, lost=losses.append))
    try:
        subprocess.run([sys.executable, "-c", UPDATES + "work(2999)"], check=True)
        while engine.read():
            pass
    finally:
        engine.close()
    seen = [item for item in items if isinstance(item, RawCall) and item.nr != engine._openat]
    assert 0 < len(seen) < 3000
    assert sum(lost.calls for lost in losses) >= 3000 - len(seen)
    made = engine.lost.calls + engine.records.read
    assert made == max(item.seq for item in items if isinstance(item, RawCall)) or engine.lost.calls
    assert engine.lost.calls + len(seen) == 3000


def test_records_that_go_over_the_ring_s_end() -> None:
    """64 KB hold some 190 of these calls: 3,000, read as they come, are all there and whole."""
    engine = Watch(Wanted(everybody=False, ring=1 << 16))
    engine.open()
    items: list[Any] = []
    engine.tell(Told(items.append))
    script = UPDATES + (
        "import sys\n"
        "for _ in range(30):\n"
        "    work(99)\n"
        "    print(flush=True); sys.stdin.readline()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        for _ in range(30):
            child.stdout.readline()
            while engine.read():
                pass
            child.stdin.write(b"\n")
            child.stdin.flush()
    finally:
        child.communicate()
        engine.close()
    assert not engine.lost
    updates = [one for one in items if isinstance(one, RawCall) and one.args[0] == 2]
    assert len(updates) == 30 * 99
    assert {tuple(len(chunk.data) for chunk in call.chunks) for call in updates} == {(32, 4, 8)}
    assert {call.fds[0].kind for call in updates} == {"map"}


def test_the_reader_is_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """By calls whose long pieces go ahead of them, too; each of ten, after all was read."""
    monkeypatch.setattr(engine_module, "LONGEST", 3600.0)
    script = UPDATES + (
        "import sys\n"
        "insns = ctypes.create_string_buffer(8 * 1000)\n"
        "for _ in range(10):\n"
        "    sys.stdin.readline()\n"
        "    bpf(5, struct.pack('<IIQQ', 1, 1000, ctypes.addressof(insns), 0).ljust(48, b'\\0'))\n"
        "sys.stdin.readline()\n"
    )
    engine = Watch(Wanted(everybody=False, ring=1 << 20))
    engine.open()
    items: list[Any] = []
    engine.tell(Told(items.append))
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    assert child.stdin is not None
    killer = threading.Timer(120, child.kill)
    killer.start()
    try:
        for number in range(10):
            child.stdin.write(b"go\n")
            child.stdin.flush()

            def loads() -> int:
                return sum(isinstance(one, RawCall) and one.args[0] == 5 for one in items)

            while loads() <= number:
                if not engine.read():
                    engine.wait(None)
                assert child.poll() is None, "nobody woke us"
    finally:
        killer.cancel()
        child.communicate()
        engine.close()


def test_loss_is_told(tmp_path: Path) -> None:
    """On stderr at once, in the text, in the tables, in JSON; and the status is 125."""
    trace = tmp_path / "trace.jsonl"
    # It floods while bpfstrace, stopped, cannot read.
    script = UPDATES + (
        "import signal\n"
        "os.kill(os.getppid(), signal.SIGSTOP)\n"
        "work(3000)\n"
        "os.kill(os.getppid(), signal.SIGCONT)\n"
    )
    out = tmp_path / "out.txt"
    ran = run_cli(
        "--engine", "bpf", "--ring", "64K", "-o", str(out), "--json", str(trace),
        sys.executable, "-c", script,
    )  # fmt: skip
    assert ran.returncode == 125
    assert "calls were lost" in ran.stderr
    lines = lines_of(trace)
    check([line for line in lines if line["type"] != "syscall"])
    told = sum(
        line["calls"] for line in lines
        if line["type"] == "process" and line["event"] == "lost"
    )  # fmt: skip
    assert told > 0
    assert lines[-1]["status"]["lost"]["calls"] == told
    text = out.read_text()
    assert f"lost: {told} calls" in text
    assert "these tables are not whole" in text
    again = run_cli("replay", str(trace))
    assert again.stdout == text


# ---------------------------------------------------------------- whom


def started(*words: str, stderr: Any = subprocess.PIPE) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bpftrace_sys", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True,
        env=environment(),
    )  # fmt: skip


def until(condition: Any, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "that did not come"
        time.sleep(0.02)
    return found


def test_everybody(tmp_path: Path) -> None:
    """Who asks is told before what they ask; Ctrl-C ends it, with tables and status 0."""
    out, trace = tmp_path / "out.txt", tmp_path / "trace.jsonl"
    watching = started("-a", "-e", "bpf=map_create", "-o", str(out), "--json", str(trace))
    name = f"here{os.getpid() % 1000}"
    script = tmp_path / "makes_a_map.py"
    script.write_text(
        UPDATES
        + f"bpf(0, struct.pack('<7I16s', 2, 4, 8, 1, 0, 0, 0, b'{name}').ljust(72, b'\\0'))"
    )

    def seen() -> bool:
        subprocess.run([sys.executable, str(script), "an argument"], check=True)
        return out.exists() and name in out.read_text()

    until(seen)
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=60)
    assert (watching.returncode, said) == (0, "")
    lines = lines_of(trace)
    check(lines)
    (first,) = [
        line for line in lines
        if line["type"] == "syscall" and (line["args"].get("attr") or {}).get("map_name") == name
    ][:1]  # fmt: skip
    who = next(
        line for line in lines
        if line["type"] == "process" and line["event"] == "who" and line["pid"] == first["pid"]
    )  # fmt: skip
    assert lines.index(who) < lines.index(first)
    assert who["argv"][-1] == "an argument"
    assert (who["uid"], who["parent"]) == (0, os.getpid())
    assert f"[{first['pid']}] is " in out.read_text()
    assert "(uid 0, child of " in out.read_text()
    assert run_cli("replay", str(trace)).stdout == out.read_text()


def test_a_process_that_runs(tmp_path: Path) -> None:
    """-p: its threads; it is not stopped, and goes on afterwards."""
    script = UPDATES + (
        "import sys, time\n"
        "def go():\n"
        "    while True: work(1); time.sleep(0.01)\n"
        "threading.Thread(target=go, daemon=True).start()\n"
        "sys.stdin.read()\n"
    )
    tracee = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    trace = tmp_path / "trace.jsonl"
    watching = started(
        "--engine", "bpf", "-p", str(tracee.pid), "-q", "-o", "/dev/null", "--json", str(trace)
    )
    try:
        until(lambda: trace.exists() and trace.read_text().count("BPF_MAP_UPDATE_ELEM") > 3)
        watching.send_signal(signal.SIGINT)
        watching.wait(60)
        assert tracee.poll() is None
    finally:
        tracee.communicate(b"", timeout=60)
    assert watching.returncode == -signal.SIGINT  # as by ptrace
    calls = [line for line in lines_of(trace) if line["type"] == "syscall"]
    assert {line["pid"] for line in calls} == {tracee.pid}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-p", "4194303"), "cannot watch process 4194303: there is no such process"),
        (("-k", "true"), "--engine bpf cannot do -k"),
        (("-e", "trace=bpf,netlink", "true"), "--engine bpf traces bpf, "),
        (("--uid", "nobody-of-that-name", "true"), "there is no such user"),
        (("--cgroup", "/no/such", "true"), "No such file or directory"),
        (("--cgroup", "/", "true"), "not a folder of cgroup2"),
        (("/no/such/program",), "/no/such/program"),
    ],
)
def test_what_cannot_be_is_said(words: tuple[str, ...], said: str) -> None:
    ran = run_cli("--engine", "bpf", *words)
    assert ran.returncode in (2, 125, 127)
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_program_s_status_is_ours() -> None:
    assert run_cli("--engine", "bpf", "sh", "-c", "exit 7").returncode == 7
    assert run_cli("--engine", "bpf", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM


def test_killed_it_leaves_nothing(tmp_path: Path) -> None:
    """Programs and maps go with the process that holds them."""
    trace = tmp_path / "trace.jsonl"
    watching = started("-a", "-q", "-o", "/dev/null", "--json", str(trace))
    until(trace.exists)
    fds = Path(f"/proc/{watching.pid}/fdinfo")

    def numbers() -> set[str]:
        found = set()
        for path in fds.iterdir():
            for line in path.read_text().splitlines():
                if line.startswith("prog_id:"):
                    found.add(line.split()[1])
        return found

    ids = until(numbers)
    watching.kill()
    watching.communicate()

    def gone() -> bool:
        shown = [
            subprocess.run(["bpftool", "prog", "show", "id", one], capture_output=True, check=False)
            for one in ids
        ]
        return all(one.returncode for one in shown)

    until(gone)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 32-bit tracee."""
    path = tmp_path_factory.mktemp("narrow") / "tracee"
    source = ROOT / "fixtures" / "i386-tracee" / "tracee.c"
    clang = [
        "clang", "-m32", "-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-pie",
        "-fno-stack-protector", "-o", str(path), str(source),
    ]  # fmt: skip
    if os.uname().machine != "x86_64" or subprocess.run(clang, check=False).returncode:
        pytest.skip("needs clang -m32 on x86-64")
    return path


def test_a_32_bit_program_is_seen_by_raw_tracepoints(narrow: Path) -> None:
    engine = Watch(Wanted(everybody=False, ring=1 << 16, kinds=("raw_tracepoint",)))
    engine.open()
    items: list[Any] = []
    engine.tell(Told(items.append))
    try:
        subprocess.run([str(narrow)], check=True)
        while engine.read():
            pass
    finally:
        engine.close()
    calls = [item for item in items if isinstance(item, RawCall)]
    assert {call.arch for call in calls} == {AUDIT_ARCH_I386}
    assert len(calls) == 8
    assert all(chunk.data for call in calls for chunk in call.chunks)


def test_a_32_bit_program_is_said_to_be_unseen(narrow: Path) -> None:
    """By tracepoints; where fentry works it is seen."""
    ran = run_cli("--engine", "bpf", str(narrow))
    assert ran.returncode == 0
    assert ("runs a 32-bit program" in ran.stderr) != ("BPF_MAP_CREATE" in ran.stderr)
