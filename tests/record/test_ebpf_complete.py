"""What the eBPF engine tells is all there is: of maps that come and go under one number, processes
that are killed in a call, storms of forks and execs, pids that come again, and beside others who
watch."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.record.ebpf.engine import Told, Wanted, Watch
from decoders.events import Exec, Exit, Fork, ProcessEvent
from decoders.raw import RawCall
from tests.support.running import environment, run_cli
from tests.support.updates import UPDATES, lines_of

pytestmark = pytest.mark.usefixtures("needs_bpf")

BPF = ("bpf",)


class Watching:
    """A Watch of what we start, and what it tells."""

    def __init__(self, **wanted: Any) -> None:
        self.engine = Watch(Wanted(**{"everybody": False, "calls": BPF, "ring": 8 << 20, **wanted}))
        self.items: list[Any] = []

    def read(self) -> None:
        while self.engine.read():
            pass

    def calls(self, command: int) -> list[RawCall]:
        """Of one command."""
        return [one for one in self.items if isinstance(one, RawCall) and one.args[0] == command]

    def events(self, what: type) -> list[ProcessEvent]:
        """Of one kind."""
        events = [one for one in self.items if isinstance(one, ProcessEvent)]
        return [one for one in events if isinstance(one.what, what)]


@contextmanager
def watching(**wanted: Any) -> Iterator[Watching]:
    one = Watching(**wanted)
    one.engine.open()
    one.engine.tell(Told(one.items.append))
    try:
        yield one
    finally:
        one.engine.close()


def run(script: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True
    )
    return done.stdout


# ---------------------------------------------------------------- maps that come and go


def test_maps_of_one_number_in_turn() -> None:
    """Each is told as what it was in that call, and frozen from when it was."""
    script = UPDATES + (
        "import json\n"
        "for turn in range(60):\n"
        "    kind, value = (1, 8) if turn % 3 else (2, 16 + turn)\n"
        "    table = bpf(0, struct.pack('<4I', kind, 4, value, 4 + turn).ljust(72, b'\\0'))\n"
        "    key, room = ctypes.create_string_buffer(4), ctypes.create_string_buffer(value)\n"
        "    where = map(ctypes.addressof, (key, room))\n"
        "    attr = struct.pack('<IIQQQ', table, 0, *where, 0)\n"
        "    info = ctypes.create_string_buffer(88)\n"
        "    bpf(2, attr); bpf(2, attr)\n"
        "    bpf(15, struct.pack('<IIQ', table, 88, ctypes.addressof(info)))\n"
        "    frozen = turn % 2\n"
        "    if frozen: bpf(22, struct.pack('<I', table).ljust(16, b'\\0'))\n"
        "    bpf(1, attr)\n"
        "    print(json.dumps([*struct.unpack_from('<5I', info), frozen]))\n"
        "    os.close(table)\n"
    )
    with watching() as seen:
        said = [json.loads(line) for line in run(script).splitlines()]
        seen.read()
    names = ("map_type", "map_id", "key_size", "value_size", "max_entries")
    lookups, updates = seen.calls(1), seen.calls(2)
    told = [[call.fds[0].info[name] for name in names] for call in updates[::2]]
    assert told == [row[:5] for row in said]
    assert [call.fds[0].info for call in updates[::2]] == [c.fds[0].info for c in updates[1::2]]
    assert [[call.fds[0].info[name] for name in (*names, "frozen")] for call in lookups] == said


# ---------------------------------------------------------------- processes and threads


def test_storms_of_forks_and_execs() -> None:
    """Each fork has its exec and its end, and the call that it made in between."""
    script = UPDATES + (
        "import sys\n"
        "again = UPDATES + \"work(1); os._exit(int(sys.argv[1]))\"\n"
        "for turn in range(8):\n"
        "    for number in range(4):\n"
        "        if not os.fork():\n"
        "            work(1)\n"
        "            os.execv(sys.executable, ['python', '-c', again, str(number)])\n"
        "    for _ in range(4): os.wait()\n"
    ).replace("UPDATES +", f"{UPDATES!r} +")
    with watching(ring=32 << 20) as seen:
        run(script)
        seen.read()
    assert not seen.engine.lost
    children = [event.what.child for event in seen.events(Fork)]  # type: ignore[union-attr]
    assert len(children) == 32
    assert sorted(event.pid for event in seen.events(Exec)[1:]) == sorted(children)
    ends = {event.pid: event.what.code for event in seen.events(Exit)}  # type: ignore[union-attr]
    assert Counter(ends[child] for child in children) == {0: 8, 1: 8, 2: 8, 3: 8}
    assert Counter(call.pid for call in seen.calls(2)) == dict.fromkeys(children, 2)


def test_a_pid_that_comes_again() -> None:
    """In a pid namespace of its own, whose next pid it chooses: two programs of one number there
    are two processes, each with its own end. As told, numbers are those of the first namespace."""
    script = UPDATES + (
        "CLONE_NEWPID, CLONE_NEWNS = 0x20000000, 0x20000\n"
        "if libc.unshare(CLONE_NEWPID | CLONE_NEWNS): os._exit(77)\n"
        "def first():\n"
        "    libc.mount(b'none', b'/', None, 1 << 18 | 1 << 14, None)\n"
        "    libc.mount(b'proc', b'/proc', b'proc', 0, None)\n"
        "    for number in range(20):\n"
        "        open('/proc/sys/kernel/ns_last_pid', 'w').write('41')\n"
        "        child = os.fork()\n"
        "        if not child: work(number + 1); os._exit(number)\n"
        "        assert child == 42, child\n"
        "        os.waitpid(child, 0)\n"
        "    os._exit(0)\n"
        "child = os.fork()\n"
        "if not child: first()\n"
        "os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    with watching() as seen:
        done = subprocess.run([sys.executable, "-c", script], check=False)
        seen.read()
    if done.returncode:
        pytest.skip("no pid namespace, or no CONFIG_CHECKPOINT_RESTORE")
    counted = Counter(call.pid for call in seen.calls(2))
    ends = {event.pid: event.what.code for event in seen.events(Exit)}  # type: ignore[union-attr]
    assert sorted(counted.values()) == list(range(1, 21))
    assert {number: counted[pid] for pid, number in ends.items() if pid in counted} == {
        number: number + 1 for number in range(20)
    }


def test_a_process_that_is_killed_in_a_call() -> None:
    """While the kernel waits for a page that its handler never gives (userfaultfd): the call is
    told once, as the kernel ends it, and then the process's end."""
    script = UPDATES + (
        "import mmap, signal\n"
        "uffd_nr = {'x86_64': 323, 'aarch64': 282}[os.uname().machine]\n"
        "uffd = libc.syscall(uffd_nr, 0)\n"
        "if uffd < 0: os._exit(77)\n"
        "import fcntl\n"
        "fcntl.ioctl(uffd, 0xc018aa3f, bytearray(struct.pack('<QQQ', 0xaa, 0, 0)))\n"
        "room = mmap.mmap(-1, 4096)\n"
        "at = ctypes.addressof(ctypes.c_char.from_buffer(room))\n"
        "fcntl.ioctl(uffd, 0xc020aa00, bytearray(struct.pack('<QQQQ', at, 4096, 1, 0)))\n"
        "table = bpf(0, struct.pack('<4I', 2, 4, 8, 4).ljust(72, b'\\0'))\n"
        "key = ctypes.create_string_buffer(4)\n"
        "def ask(): bpf(2, struct.pack('<IIQQQ', table, 0, ctypes.addressof(key), at, 0))\n"
        "thread = threading.Thread(target=ask, daemon=True); thread.start()\n"
        "os.read(uffd, 32)\n"  # it waits
        "print('waits', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with watching() as seen:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
        seen.read()
    if done.returncode == 77:
        pytest.skip("no userfaultfd")
    assert done.stdout == b"waits\n", done.stderr
    (call,) = seen.calls(2)
    assert call.ret == -errno.EFAULT
    assert call.fds[0].kind == "map"
    assert {event.what.signal for event in seen.events(Exit)} >= {9}  # type: ignore[union-attr]


# ---------------------------------------------------------------- loss


def test_of_threads_and_forks_too_what_is_lost_is_what_is_missing() -> None:
    """Nobody reads meanwhile, and the ring holds some 190 calls of 4,800."""
    script = UPDATES + (
        "def many():\n"
        "    threads = [threading.Thread(target=work, args=(299,)) for _ in range(4)]\n"
        "    [thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
        "for _ in range(3):\n"
        "    if not os.fork(): many(); os._exit(0)\n"
        "many()\n"
        "for _ in range(3): os.wait()\n"
    )
    with watching(ring=1 << 16) as seen:
        run(script)
        seen.read()
        lost = seen.engine.lost
    calls = [one for one in seen.items if isinstance(one, RawCall)]
    assert 0 < len(calls) < 4800
    assert len(calls) + lost.calls == 4800
    assert lost.events > 0


# ---------------------------------------------------------------- beside others


def test_three_watchers_at_once(tmp_path: Path) -> None:
    """Two of the whole machine, one by ptrace of one of them: each tells the same calls of a
    program, and what the others do is calls like any."""
    names = ("one", "two")
    traces = {name: tmp_path / f"{name}.jsonl" for name in names}
    tracer = [sys.executable, "-m", "bpftrace_sys"]

    def words(name: str) -> list[str]:
        return [
            *tracer, "-a", "-q", "-e", "trace=bpf", "-e", "bpf=map_freeze", "-o", "/dev/null",
            "--json", str(traces[name]),
        ]  # fmt: skip

    outer = tmp_path / "outer.jsonl"
    started = [
        subprocess.Popen(words("one"), env=environment(), stdin=subprocess.DEVNULL),
        subprocess.Popen(
            [*tracer, "-f", "-q", "-o", "/dev/null", "--json", str(outer), *words("two")],
            env=environment(), stdin=subprocess.DEVNULL, start_new_session=True,
        ),
    ]  # fmt: skip
    try:
        asked = UPDATES + (
            "attr = struct.pack('<7I16s', 2, 4, 8, 1, 0, 0, 0, NAME)\n"
            "table = bpf(0, attr.ljust(72, b'\\0'))\n"
            "for _ in range(3): bpf(22, struct.pack('<I', table))\n"
        )
        for turn in range(1000):
            # Until both see what a program asks.
            name = b"turn%d" % turn
            child = subprocess.Popen([sys.executable, "-c", asked.replace("NAME", repr(name))])
            child.wait(60)
            if all(p.exists() and f'"{name.decode()}"' in p.read_text() for p in traces.values()):
                break
            assert [one.poll() for one in started] == [None, None]
    finally:
        started[0].send_signal(2)
        for pid in _children(started[1].pid):
            subprocess.run(["kill", "-INT", str(pid)], check=False)
        codes = [one.wait(60) for one in started]
    assert codes == [0, 0]
    found = []
    for name in names:
        lines = [line for line in lines_of(traces[name]) if line["type"] == "syscall"]
        mine = [line for line in lines if line["pid"] == child.pid]
        found.append([(line["tid"], line["args"], line.get("errno")) for line in mine])
    assert found[0] == found[1]
    assert [error for _, _, error in found[0]] == [None, "EPERM", "EPERM"]
    loads = [
        line["args"]["attr"]["prog_name"] for line in lines_of(outer)
        if line["type"] == "syscall" and line["args"].get("cmd") == "BPF_PROG_LOAD"
    ]  # fmt: skip
    assert {"bpfstrace_exit_", "bpfstrace_fork"} <= set(loads)


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in listed]


def test_a_watch_inside_of_a_watch(tmp_path: Path) -> None:
    """-f of a bpfstrace that watches by eBPF itself: both tell their own."""
    inner, outer = tmp_path / "inner.jsonl", tmp_path / "outer.jsonl"
    ran = run_cli(
        "--engine", "bpf", "-f", "-q", "-o", "/dev/null", "-e", "trace=bpf", "--json", str(outer),
        sys.executable, "-m", "bpftrace_sys", "--engine", "bpf", "-q", "-o", "/dev/null",
        "-e", "trace=bpf", "--json", str(inner), sys.executable, "-c", UPDATES + "work(3)",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr

    def updates(path: Path) -> list[Any]:
        return [
            (line["tid"], line["args"], line["ret"]) for line in lines_of(path)
            if line["type"] == "syscall" and line["args"]["cmd"] == "BPF_MAP_UPDATE_ELEM"
            and line["args"]["attr"]["value"]["addr"] != "NULL"
        ]  # fmt: skip

    mine = updates(inner)
    assert len(mine) == 3
    assert [one for one in updates(outer) if one[0] == mine[0][0]] == mine
