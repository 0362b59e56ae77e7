"""What the engine tells of calls; and tracees that filter and trace, too."""

from __future__ import annotations

import os
import platform
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from decoders.raw import AUDIT_ARCH_I386, AUDIT_ARCH_X86_64
from tests.support.engine_runs import LIMIT, Tracer, python, read_events, wait_for


def test_result_and_memory(trace: Tracer, mode: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    code = (
        "import os\n"
        f"os.open({str(tmp_path / 'there')!r}, os.O_RDONLY)\n"
        "try: os.open('/marker-missing', 0)\n"
        "except OSError: pass\n"
    )
    done = trace(*python(code), **mode)
    there = done.result(str(tmp_path / "there"))
    assert there is not None
    assert there[2] >= 3
    assert there[3] is False
    missing = done.result("/marker-missing")
    assert missing is not None
    assert missing[2:] == [-2, True]
    comm = {event[3] for event in done.all("entry")}
    assert comm == {Path(sys.executable).name[:15]} or len(comm) == 1


def test_no_exit_stop_when_not_wanted(trace: Tracer, mode: dict[str, Any]) -> None:
    done = trace(*python("open('/dev/null')"), exits=False, **mode)
    assert "/dev/null" in done.paths()
    assert not done.all("exit")


def test_argument_rule(trace: Tracer, mode: dict[str, Any]) -> None:
    code = (
        "import fcntl, array\n"
        "for request in (0x5401, 0x541b, 0x5413):\n"
        "    try: fcntl.ioctl(0, request, array.array('i', [0] * 64))\n"
        "    except OSError: pass\n"
    )
    done = trace(*python(code), stops={"ioctl": [1, [0x541B]]}, **mode)
    assert [event[7][1] for event in done.all("entry")] == [0x541B]


def test_name_follows_prctl(trace: Tracer) -> None:
    code = (
        "import ctypes, os\n"
        "def mark(n):\n"
        "    try: os.open('/marker-%d' % n, 0)\n"
        "    except OSError: pass\n"
        "mark(1); ctypes.CDLL(None).prctl(15, b'renamed'); mark(2)\n"
    )
    done = trace(*python(code), follow=True)
    comms = {event[8]: event[3] for event in done.all("entry")}
    assert comms["/marker-1"] != "renamed"
    assert comms["/marker-2"] == "renamed"
    # Our own interest in prctl is not the sink's.
    assert {event[6] for event in done.all("entry")} == {"openat"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x86-64's other ABIs")
@pytest.mark.parametrize("seccomp", [True, False])
def test_i386_and_x32_calls(trace: Tracer, engine_c: str, seccomp: bool) -> None:
    plain = subprocess.run([engine_c, "compat"], capture_output=True, text=True, timeout=LIMIT)
    if plain.returncode:
        pytest.skip("the kernel has no 32-bit calls")
    done = trace(engine_c, "compat", follow=True, seccomp=seccomp)
    assert done.stdout == plain.stdout
    calls = {event[8]: event for event in done.all("entry") if event[8]}
    i386 = calls["/marker-i386"]
    assert i386[4:7] == [AUDIT_ARCH_I386, 295, "openat"]
    assert i386[7][0] == 0xFFFFFF9C  # AT_FDCWD, 32 bits wide
    result = done.result("/marker-i386")
    assert result is not None
    assert result[2:] == [-2, True]
    assert calls["/marker-native"][4] == AUDIT_ARCH_X86_64
    # An x32 call is not mistaken for another one: it is not shown, but it is said.
    assert "/marker-x32" not in calls
    (note,) = done.all("note")
    assert "x32" in note[2]


def test_killed_in_a_call(trace: Tracer) -> None:
    """No exit comes, but the end does, and it is the right one."""
    fifo = trace.folder / "fifo"
    os.mkfifo(fifo)
    process, path = trace.start(["cat", str(fifo)], follow=True)  # nobody ever writes to it
    (pid,) = wait_for(lambda: [e[1] for e in read_events(path) if str(fifo) in e])
    os.kill(pid, signal.SIGKILL)
    assert process.wait(LIMIT) == -signal.SIGKILL
    events = read_events(path)
    assert events[-2][:2] == ["entry", pid]
    assert events[-1] == ["exited", pid, None, signal.SIGKILL]


def test_told_promptly(trace: Tracer) -> None:
    """What a tracee did is handed on though it then sleeps for ever."""
    code = "import os,time\ntry: os.open('/marker-x', 0)\nexcept OSError: pass\ntime.sleep(600)"
    process, path = trace.start(python(code), follow=True)
    wait_for(lambda: [e for e in read_events(path) if e[0] == "entry" and e[8] == "/marker-x"])
    process.terminate()  # passed on to the tracee
    assert process.wait(LIMIT) == -signal.SIGTERM


def test_injected_result(trace: Tracer, mode: dict[str, Any], tmp_path: Path) -> None:
    """A call that is skipped returns what it is told to, and has no effect."""
    made = tmp_path / "made"
    code = (
        "import os\n"
        f"try: os.open({str(made)!r}, os.O_CREAT)\n"
        "except OSError as error: print(error.errno)\n"
        "print(os.open('/marker-ok', 0))\n"
    )
    done = trace(*python(code), inject={str(made): -38, "/marker-ok": 77}, **mode)
    assert done.stdout == "38\n77\n"
    assert not made.exists()
    result = done.result(str(made))
    assert result is not None
    assert result[2:] == [-38, True]
    result = done.result("/marker-ok")
    assert result is not None
    assert result[2:] == [77, False]


@pytest.mark.parametrize("seccomp", [True, False])
def test_error_in_the_sink(trace: Tracer, seccomp: bool) -> None:
    """It comes out of run(), which can then go on."""
    code = (
        "import os\nfor n in range(3):\n  try: os.open('/marker-%d' % n, 0)\n  except OSError: pass"
    )
    options = {"raise": "/marker-1"}
    done = trace(*python(code), follow=True, seccomp=seccomp, **options)
    assert done.returncode == 0
    assert done.all("raised")
    assert done.markers() == ["/marker-0", "/marker-1", "/marker-2"]


def test_watch_for_a_while(trace: Tracer, mode: dict[str, Any]) -> None:
    """Further calls of one thread stop between two calls of the sink's choice."""
    code = (
        "import os\n"
        "def mark(name):\n"
        "    try: os.open('/marker-' + name, 0)\n"
        "    except OSError: pass\n"
        "def gone():\n"
        "    try: os.unlink('/marker-none', dir_fd=0)\n"
        "    except OSError: pass\n"
        "gone(); mark('watch'); gone(); gone()\n"
        "if not os.fork(): gone(); mark('child'); os._exit(0)\n"
        "os.wait(); mark('unwatch'); gone(); mark('end'); gone()\n"
    )
    for exits in (True, False):
        done = trace(*python(code), exits=exits, **mode)
        assert done.returncode == 0
        told = [e[8] or e[6] for e in done.all("entry") if e[6] == "unlinkat" or "/marker" in e[8]]
        wanted = ["/marker-watch", "unlinkat", "unlinkat", "/marker-unwatch", "/marker-end"]
        if mode.get("follow"):
            wanted.insert(3, "/marker-child")
        assert told == wanted
        assert len(done.all("exit")) == (len(done.all("entry")) if exits else 0)


def test_own_filter_that_refuses(trace: Tracer, engine_c: str) -> None:
    """Calls that the tracee's own filter refuses are seen all the same."""
    plain = subprocess.run([engine_c, "own-errno"], capture_output=True, text=True, timeout=LIMIT)
    assert plain.stdout == "-1 1\n-1 1\n"
    for seccomp in (True, False):
        done = trace(engine_c, "own-errno", follow=True, seccomp=seccomp, stops={"bpf": None})
        assert done.stdout == plain.stdout
        assert [event[7][0] for event in done.all("entry")] == [9999, 9998]
        assert [event[2:] for event in done.all("exit")] == [[-1, True]] * 2


def test_own_filter_without_a_tracer(trace: Tracer, mode: dict[str, Any], engine_c: str) -> None:
    """A filter's SECCOMP_RET_TRACE fails the call with ENOSYS, traced by us or not."""
    plain = subprocess.run([engine_c, "own-trace"], capture_output=True, text=True, timeout=LIMIT)
    assert plain.stdout == "-1 38\n-1 38\n"
    done = trace(engine_c, "own-trace", stops={"bpf": None}, **mode)
    assert done.stdout == plain.stdout
    calls = 2 if mode.get("follow") else 1
    assert [event[7][0] for event in done.all("entry")] == [9999, 9998][:calls]
    assert [event[2:] for event in done.all("exit")] == [[-38, True]] * calls


@pytest.mark.parametrize("how", ["prctl", "call", "killed", "filtered"])
def test_strict_mode(trace: Tracer, mode: dict[str, Any], engine_c: str, how: str) -> None:
    """The kernel refuses it to whoever has a filter: who has ours only is confined by us."""
    command = [engine_c, "strict", how]
    plain = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    done = trace(*command, **mode)
    assert (done.stdout, done.returncode) == (plain.stdout, plain.returncode)
    assert ("strict 0 0\n" in plain.stdout) is (how != "filtered")
    assert plain.returncode == (-signal.SIGKILL if how == "killed" else 3)
    assert done.markers() == {"killed": ["/marker-killed"],
                              "filtered": ["/marker-filtered"]}.get(how, [])  # fmt: skip


# For 32-bit ARM: prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); a filter that hands getpid to a tracer;
# getpid with 77 in the second argument's register; exit(0) if that failed with ENOSYS, and
# nothing but the first argument's register has changed.
ARM_FILTERS = bytes.fromhex(
    "ac70a0e3 2600a0e3 0110a0e3 0020a0e3 0030a0e3 0040a0e3 000000ef"  # r7 = 172; svc 0
    "1600a0e3 0210a0e3 2c208fe2 000000ef"  # the same, PR_SET_SECCOMP, 2, &struct sock_fprog
    "1470a0e3 4d10a0e3 0160a0e1 000000ef"  # r7 = 20; r1 = r6 = 77; svc 0
    "260070e3 0100a013 0000a003 060051e1 02008013 0170a0e3 000000ef"  # compare; r7 = 1; svc 0
    "04000000 b4000100"  # struct sock_fprog, and its four struct sock_filter
    "2000000000000000 1500000114000000 060000000700f07f 060000000000ff7f"
)


@pytest.mark.skipif(platform.machine() != "aarch64", reason="aarch64's other ABI")
def test_a_32_bit_arm_program(trace: Tracer, tmp_path: Path, mode: dict[str, Any]) -> None:
    """We do not know its calls, but what we do to one must not harm it."""
    at = 0x10000
    size = 84 + len(ARM_FILTERS)
    engine_c = tmp_path / "arm"
    engine_c.write_bytes(
        struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 2, 40, 1, at + 84, 52, 0,
                    0x05000400, 52, 32, 1, 40, 0, 0)
        + struct.pack("<8I", 1, 0, at, at, size, size, 5, 0x1000) + ARM_FILTERS
    )  # fmt: skip
    engine_c.chmod(0o755)
    try:
        plain = subprocess.run([engine_c], timeout=LIMIT).returncode
    except OSError:
        pytest.skip("the kernel has no 32-bit calls")
    assert plain == 0
    done = trace(str(engine_c), **mode)
    assert done.returncode == 0
    assert "an architecture that bpfstrace does not know" in done.all("note")[0][2]


def test_tracee_that_traces(trace: Tracer, engine_c: str) -> None:
    done = trace(engine_c, "traceme", follow=True)
    assert done.stdout == "-1 1\n"
    (note,) = done.all("note")
    assert "one tracer only" in note[2]


def test_clone_untraced(trace: Tracer, engine_c: str, mode: dict[str, Any]) -> None:
    """CLONE_UNTRACED hides a child from any tracer: such children are traced without it, and
    the calls that our filter hands to the tracer do not fail there."""
    done = trace(engine_c, "clone-untraced", **mode)
    assert done.returncode == 0
    wanted = ["/marker-untraced", "/marker-clone3"]
    if os.uname().machine in ("x86_64", "aarch64"):
        wanted += ["/marker-register", "/marker-shares"]
    assert done.markers() == (wanted if mode.get("follow") else [])
    notes = [note[2] for note in done.all("note")]
    assert len(notes) == (len(wanted) if mode.get("follow") else 0)
    assert all("CLONE_UNTRACED: it is traced all the same" in note for note in notes)


def test_i386_clone_untraced(trace: Tracer, engine_c: str, mode: dict[str, Any]) -> None:
    alone = subprocess.run([engine_c, "compat-untraced"], timeout=LIMIT).returncode
    if alone:
        pytest.skip("the kernel has no 32-bit calls")
    done = trace(engine_c, "compat-untraced", **mode)
    assert done.returncode == 0
    assert done.markers() == (["/marker-i386"] if mode.get("follow") else [])
