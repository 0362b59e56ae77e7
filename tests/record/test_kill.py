"""What is left when things end badly: bpfstrace killed, its output gone, a tracee killed.

The random rounds run bpfstrace in forks of the test process, so that a round costs
milliseconds and not the start of an interpreter; they kill it, look at what it has
written, and hold a replay of that against the same lines.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import pkgutil
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.needs import needs_tool
from tests.support.running import environment, run_cli

pytestmark = pytest.mark.usefixtures("needs_bpf")

ROUNDS = {"": 200, ".gz": 40, ".zst": 20}
"""Kills of bpfstrace in a fork of ours, by kind of trace file."""
TEXT_ROUNDS = {"-o": 80, "-ff -o": 60, "--style=strace -o": 40}
"""The same where there is only text (without the tables at the end), by options."""
REPLAYED = 4
"""Of so many trace files one is replayed; the lines of all are looked at."""
SLOW_ROUNDS = 12
"""Kills of a bpfstrace that was started as a person starts it: imports and all."""
ENOUGH = 15.0
"""Seconds, for one kind of output, after which half of the rounds will do: 220 in all."""
PATIENCE = 20.0

TRACEE = r"""
#include <linux/bpf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static long bpf(int cmd, union bpf_attr *attr) { return syscall(SYS_bpf, cmd, attr, sizeof *attr); }

static int load(void)
{
    static struct bpf_insn insns[] = {{.code = 0xb7}, {.code = 0x95}};
    static char log[4096];
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
    attr.insn_cnt = 2;
    attr.insns = (unsigned long)insns;
    attr.license = (unsigned long)"GPL";
    attr.log_level = 1;
    attr.log_size = sizeof log;
    attr.log_buf = (unsigned long)log;
    strcpy(attr.prog_name, "returns_zero");
    return bpf(BPF_PROG_LOAD, &attr);
}

/* A round of real work: a map, entries of changing bytes, a program. */
static int work(int salt)
{
    union bpf_attr attr;
    int map, prog;
    unsigned key;
    unsigned char value[200];
    memset(&attr, 0, sizeof attr);
    attr.map_type = BPF_MAP_TYPE_HASH;
    attr.key_size = 4;
    attr.value_size = sizeof value;
    attr.max_entries = 8;
    strcpy(attr.map_name, "counters");
    map = bpf(BPF_MAP_CREATE, &attr);
    if (map < 0) return 1;
    for (key = 0; key < 8; key++) {
        memset(value, salt * 8 + key, sizeof value);
        memset(&attr, 0, sizeof attr);
        attr.map_fd = map;
        attr.key = (unsigned long)&key;
        attr.value = (unsigned long)value;
        if (bpf(BPF_MAP_UPDATE_ELEM, &attr)) return 2;
    }
    prog = load();
    if (prog < 0) return 3;
    close(prog);
    close(map);
    return 0;
}

/* For as long as it takes: only a signal ends this call. */
static int run_for_ever(void)
{
    static unsigned char data[64];
    union bpf_attr attr;
    int prog = load();
    if (prog < 0) return 3;
    puts("running");
    fflush(stdout);
    memset(&attr, 0, sizeof attr);
    attr.test.prog_fd = prog;
    attr.test.data_in = (unsigned long)data;
    attr.test.data_size_in = sizeof data;
    attr.test.repeat = 0xffffffff;
    bpf(BPF_PROG_TEST_RUN, &attr);
    return 9;
}

/* work ROUNDS PROCESSES CODE WITNESS | forever */
int main(int argc, char **argv)
{
    int i, status, failed = 0;
    sigset_t ends;
    /* A child's end, which no traced process ignores, may fail a PROG_LOAD with EAGAIN. */
    sigemptyset(&ends);
    sigaddset(&ends, SIGCHLD);
    sigprocmask(SIG_BLOCK, &ends, 0);
    if (argc > 1 && !strcmp(argv[1], "forever")) return run_for_ever();
    if (argc < 6) return 99;
    for (i = 1; i < atoi(argv[3]); i++)
        if (!fork()) {
            int k;
            for (k = 0; k < atoi(argv[2]); k++) failed |= work(k);
            _exit(failed);
        }
    for (i = 0; i < atoi(argv[2]); i++) failed |= work(i);
    while (wait(&status) > 0) failed |= status;
    if (failed) return 98;
    if (*argv[5]) fclose(fopen(argv[5], "w"));
    return atoi(argv[4]);
}
"""


@pytest.fixture(scope="module")
def tracee(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program above."""
    compiler = shutil.which("cc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("tracee")
    (folder / "tracee.c").write_text(TRACEE)
    binary = str(folder / "tracee")
    subprocess.run([compiler, "-O1", "-o", binary, str(folder / "tracee.c")], check=True)
    return binary


# -- bpfstrace killed ---------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """What a live trace and a replay import, so that the forks need not."""
    import bpftrace_sys

    for found in pkgutil.walk_packages(bpftrace_sys.__path__, "bpftrace_sys."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    importlib.import_module("decoders.decode")


def start(words: Sequence[str], out: Path, keep: int = -1) -> int:
    """``bpfstrace WORDS`` in a fork of ours, all its output in a file; its pid.

    ``keep``: an fd that it and its tracees hold open.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 97
    try:
        null = os.open(os.devnull, os.O_RDWR)
        file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for fd, new in ((null, 0), (file, 1), (file, 2)):
            os.dup2(fd, new)
        if keep >= 0:
            os.set_inheritable(keep, True)
        # Closes all that pytest has open, besides.
        for fd in range(3, 256):
            if fd != keep:
                with contextlib.suppress(OSError):
                    os.close(fd)
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        from bpftrace_sys.cli.main import main

        code = main(list(words))
        sys.stdout.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def reap(pid: int) -> int:
    """Its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@dataclass
class Left:
    """What a killed bpfstrace left: the completed lines, and how it was replayed."""

    lines: list[str]
    rest: str
    replayed: list[str]
    code: int
    said: str


def whole_lines(trace: Path) -> tuple[list[str], str]:
    """The completed lines of a trace file, and what comes after the last of them."""
    if not trace.exists():
        return [], ""
    data = trace.read_bytes()
    if trace.suffix == ".gz":
        # What a tool of the same format makes of it.
        data = subprocess.run(["zcat"], input=data, capture_output=True, check=False).stdout
    elif trace.suffix == ".zst":
        import zstandard

        unpacker = zstandard.ZstdDecompressor().decompressobj()
        data = unpacker.decompress(data) if data else b""
    *lines, rest = data.decode("ascii").split("\n")
    return lines, rest


def replay(trace: Path, folder: Path) -> Left:
    """Reads a trace in a fork of ours."""
    lines, rest = whole_lines(trace)
    assert all(isinstance(json.loads(line), dict) for line in lines)
    again, said = folder / "again.jsonl", folder / "said"
    again.unlink(missing_ok=True)
    code = reap(start(["replay", "-o", os.devnull, "--json", str(again), str(trace)], said))
    replayed = again.read_text().splitlines() if again.exists() else []
    return Left(lines, rest, replayed, code, said.read_text())


def syscalls(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith('{"type":"syscall"')]


def check_left(left: Left, processes: int, note: str) -> None:
    """Every completed line is whole, none is missing between others, all can be replayed."""
    parsed = [json.loads(line) for line in left.lines]
    assert all(isinstance(line, dict) for line in parsed), note
    assert "Traceback" not in left.said, f"{note}: {left.said}"
    if not left.lines:
        assert left.code == 2, note
        assert "truncated" in left.said or "empty: no trace was written" in left.said, left.said
        return
    assert parsed[0]["type"] == "trace", note
    numbers = {line["seq"] for line in parsed if line["type"] == "syscall"}
    # Numbers are given when calls begin: but for those under way, none is missing.
    missing = max(numbers, default=0) - len(numbers)
    assert missing <= processes, f"{note}: {missing} calls are missing"
    assert syscalls(left.replayed) == syscalls(left.lines), note
    if parsed[-1]["type"] == "end" and not left.rest:
        assert (left.code, left.said) == (0, ""), note
    else:
        assert left.code == 2, f"{note}: {left.said}"
        assert "truncated" in left.said, f"{note}: {left.said}"
        assert "what stood before was replayed" in left.said, f"{note}: {left.said}"
        assert left.said.count("\n") == 1, f"{note}: {left.said}"


def wait_end(end: int) -> bool:
    """Whether all that held the other end of a pipe are gone in time."""
    return bool(select.select([end], [], [], PATIENCE)[0]) and not os.read(end, 1)


class Kills:
    """Rounds of killing: each at another moment of what an unharmed run takes."""

    def __init__(self, words: list[str], folder: Path, rounds: int) -> None:
        self.words = words
        self.out = folder / "out"
        self.rounds = rounds
        self.done = 0
        self.began = time.monotonic()
        assert reap(start(words, self.out)) == 0, self.out.read_text()
        self.usual = time.monotonic() - self.began
        self.seed = random.randrange(1 << 32)

    def __iter__(self) -> Iterator[str]:
        """Yields after each kill, with what to say where something is wrong."""
        choose = random.Random(self.seed)
        for number in range(self.rounds):
            if number > self.rounds // 2 and time.monotonic() - self.began > ENOUGH:
                return  # a slow or busy machine
            note = f"seed {self.seed}, round {number}"
            ours, theirs = os.pipe()
            try:
                pid = start(self.words, self.out, keep=theirs)
                os.close(theirs)
                time.sleep(choose.uniform(0, self.usual * 1.05))
                os.kill(pid, signal.SIGKILL)
                assert reap(pid) in (-signal.SIGKILL, 0), self.out.read_text()
                assert wait_end(ours), f"{note}: a tracee lives on"
            finally:
                os.close(ours)
            self.done += 1
            yield note


@pytest.mark.parametrize("suffix", ROUNDS)
def test_killed_at_random_moments(tracee: str, tmp_path: Path, suffix: str) -> None:
    """SIGKILL at any moment: the tracees die too, and what was written can be used."""
    if suffix == ".zst":
        pytest.importorskip("zstandard")
    trace = tmp_path / f"trace.jsonl{suffix}"
    words = [
        "-f", "-o", str(tmp_path / "text"), "--json", str(trace),
        tracee, "work", "5", "3", "0", "",
    ]  # fmt: skip
    kills = Kills(words, tmp_path, ROUNDS[suffix])
    check_left(replay(trace, tmp_path), 0, "unharmed")
    trace.unlink()
    cut = found = 0
    for note in kills:
        if not trace.exists():
            continue
        lines, rest = whole_lines(trace)
        assert all(isinstance(json.loads(line), dict) for line in lines), note
        if kills.done % REPLAYED == 0:
            check_left(replay(trace, tmp_path), 3, note)
        cut += not lines or bool(rest) or json.loads(lines[-1])["type"] != "end"
        found += bool(syscalls(lines))
        trace.unlink()
    # Else the moments were badly chosen, and nothing was tested.
    assert cut > kills.done // 4
    assert suffix or found > kills.done // 8


def alike(text: str) -> list[str]:
    """Lines but for what differs from run to run: ids and addresses."""
    return re.sub(r"\b(?:0x[0-9a-f]+|\d+)\b", "#", text).split("\n")


@pytest.mark.parametrize("options", TEXT_ROUNDS)
def test_text_killed_at_random_moments(tracee: str, tmp_path: Path, options: str) -> None:
    """Of the text every line is there up to the last, which alone may be cut."""
    processes = 3 if "-ff" in options else 1
    words = [
        "-fq", *options.split(), str(tmp_path / "text"),
        tracee, "work", "12", str(processes), "0", "",
    ]  # fmt: skip
    kills = Kills(words, tmp_path, TEXT_ROUNDS[options])

    def take() -> list[str]:
        found = []
        for path in tmp_path.glob("text*"):
            found.append(path.read_text())
            path.unlink()
        return found

    models = [alike(text) for text in take() if text]
    assert len(models) >= processes
    cut = 0
    for note in kills:
        for text in take():
            *lines, rest = alike(text)
            alikes = [model for model in models if model[: len(lines)] == lines]
            assert alikes, f"{note}: {lines}"
            assert any(model[len(lines)].startswith(rest.rstrip("#")) for model in alikes), note
            cut += bool(lines) and all(len(lines) < len(model) - 1 for model in alikes)
    assert cut > kills.done // 16


def test_killed_while_it_starts(tracee: str, tmp_path: Path) -> None:
    """The same for a bpfstrace from its first instruction on, imports included."""
    trace = tmp_path / "trace.jsonl"
    words = ["-f", "-o", os.devnull, "--json", str(trace), tracee, "work", "5", "3", "0", ""]
    command = [sys.executable, "-m", "bpftrace_sys", *words]
    began = time.monotonic()
    assert run_cli(*words).returncode == 0
    usual = time.monotonic() - began
    for number in range(SLOW_ROUNDS):
        trace.unlink(missing_ok=True)
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment()
        ) as process:
            time.sleep(usual * number / SLOW_ROUNDS)
            process.kill()
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], PATIENCE)[0]
            said = process.stdout.read()  # its end comes when the tracees are gone as well
        assert b"Traceback" not in said
        if trace.exists():
            check_left(replay(trace, tmp_path), 3, f"round {number}")


def test_text_is_there_before_the_end(tracee: str, tmp_path: Path) -> None:
    """What has been seen can be read while the tracee runs on, and after a kill."""
    text, trace = tmp_path / "text", tmp_path / "trace.jsonl"
    words = ["-o", str(text), "--json", str(trace), tracee, "forever"]
    with subprocess.Popen(
        [sys.executable, "-m", "bpftrace_sys", *words], stdout=subprocess.PIPE, env=environment()
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"running\n"
            deadline = time.monotonic() + PATIENCE
            while "returns_zero" not in text.read_text() and time.monotonic() < deadline:
                time.sleep(0.02)
            shown = text.read_text()
        finally:
            process.kill()
    assert "returns_zero" in shown
    assert shown.endswith("\n")
    check_left(replay(trace, tmp_path), 1, "killed")


# -- a tracee killed ------------------------------------------------------------------


@pytest.mark.parametrize("options", [["-f"], [], ["--no-seccomp", "-f"]])
def test_tracee_killed_in_a_call(tracee: str, tmp_path: Path, options: list[str]) -> None:
    """The call that it was in is shown, as one that never returned; live and replayed."""
    text, trace = tmp_path / "text", tmp_path / "trace.jsonl"
    command = [
        sys.executable, "-m", "bpftrace_sys", *options,
        "-o", str(text), "--json", str(trace), tracee, "forever",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        (pid,) = map(int, Path(children).read_text().split())
        wait_for_call(pid)
        os.kill(pid, signal.SIGKILL)
        assert process.wait(PATIENCE) == -signal.SIGKILL
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    call = [line for line in lines if line["type"] == "syscall"][-1]
    assert call["args"]["cmd"] in ("BPF_PROG_RUN", "BPF_PROG_TEST_RUN")
    assert "ret" not in call or call["ret"] is None
    assert call["args"]["attr"]["test"]["repeat"] == 0xFFFFFFFF
    assert lines[-1] == {"type": "end", "status": {"signal": signal.SIGKILL}}
    shown = text.read_text()
    assert re.search(r"^\[\d+\] bpf\(BPF_PROG_(TEST_)?RUN", shown, re.M)
    assert ") = ? (unfinished)\n" in shown
    assert f"[{pid}] +++ killed by SIGKILL +++" in shown
    assert run_cli("replay", str(trace)).stdout == shown


def wait_for_call(pid: int) -> None:
    """Until a tracee runs in the kernel: it is on a CPU, and not about to stop."""
    deadline = time.monotonic() + PATIENCE
    busy = 0
    while busy < 5 and time.monotonic() < deadline:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0]
        busy = busy + 1 if state == "R" else 0
        time.sleep(0.02)


# -- an output that goes away -----------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "bpfstrace-test", str(place)]
    needs_tool("mount", "umount")
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


WORK = 100
CALLS = 10
"""bpf() calls in a round of the tracee's work."""


def unharmed(tracee: str, tmp_path: Path, rounds: int = WORK) -> list[str]:
    """A tracee that exits with 98 if any of its calls failed, and leaves a witness if not."""
    return [tracee, "work", str(rounds), "1", "3", str(tmp_path / "witness")]


FILLING = {
    "text": ["-o", "{}/text"],
    "verbose text": ["-v", "-o", "{}/text"],
    "as strace's": ["--style=strace", "-o", "{}/text"],
    "a file a thread": ["-ff", "-o", "{}/text"],
    "json": ["-o", "/dev/null", "--json", "{}/trace.jsonl"],
    "json.gz": ["-o", "/dev/null", "--json", "{}/trace.jsonl.gz"],
    "json.zst": ["-o", "/dev/null", "--json", "{}/trace.jsonl.zst"],
}


@pytest.mark.parametrize("kind", FILLING)
def test_disk_full(tracee: str, tmp_path: Path, small: Path, kind: str) -> None:
    """The loss is told once, the exit code says it, the tracee has noticed nothing."""
    if kind.endswith("zst"):
        pytest.importorskip("zstandard")
    options = [word.format(small) for word in FILLING[kind]]
    if "." in kind:  # what compresses well would fit after all
        (small / "ballast").write_bytes(bytes(60 << 10))
    done = run_cli("-f", *options, *unharmed(tracee, tmp_path))
    assert (tmp_path / "witness").exists()
    assert done.returncode == 125
    assert done.stdout == ""
    written = sorted(path for path in small.iterdir() if path.name != "ballast")
    assert sorted(done.stderr.splitlines()) == [
        f"bpfstrace: output to {path} was lost: {os.strerror(errno.ENOSPC)}" for path in written
    ]
    if kind == "json":
        check_left(replay(written[0], tmp_path), 1, kind)
    elif "json" in kind:
        left = replay(written[0], tmp_path)
        assert left.code == 2
        assert "truncated" in left.said or "empty" in left.said


def test_only_one_of_two_outputs_is_lost(tracee: str, tmp_path: Path, small: Path) -> None:
    """The other goes on, and is whole."""
    trace = tmp_path / "trace.jsonl"
    done = run_cli(
        "-f", "-o", str(small / "text"), "--json", str(trace), *unharmed(tracee, tmp_path)
    )
    assert done.returncode == 125
    assert done.stderr.count("was lost") == 1
    left = replay(trace, tmp_path)
    check_left(left, 0, "the other")
    assert left.code == 0
    assert len(syscalls(left.lines)) == WORK * CALLS


def test_size_limit(tracee: str, tmp_path: Path) -> None:
    """A file that may not grow any further (ulimit -f): as a full disk, no signal."""
    text = tmp_path / "text"
    script = 'ulimit -f 16; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "bpftrace_sys", "-f", "-o", str(text),
         *unharmed(tracee, tmp_path)],
        capture_output=True, text=True, env=environment(), check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 125
    assert (tmp_path / "witness").exists()
    assert done.stderr == (
        f"bpfstrace: output to {text} was lost: {os.strerror(errno.EFBIG)}\n"
    )


PIPES = {
    "stderr": ("{} 2>&1 >/dev/null | head -n 1", ""),
    "json": ("{} -o /dev/null --json - | head -n 1", "<stdout>"),
    "both": ("{} --json - 2>&1 | head -n 1", ""),
    "-o": ("{} -o /dev/stdout | head -n 1", "/dev/stdout"),
}


@pytest.mark.parametrize("kind", PIPES)
def test_closed_pipe(tracee: str, tmp_path: Path, kind: str) -> None:
    """``| head -n 1``: its own stdout and stderr are all that bpfstrace loses."""
    pipeline, name = PIPES[kind]
    traced = " ".join(unharmed(tracee, tmp_path))
    code, options = tmp_path / "code", pipeline.split(" | ")[0].format("")
    script = (
        f"{{ {sys.executable} -m bpftrace_sys -f {options} {traced}; echo $? >{code}; }}"
        f" | {pipeline.split(' | ')[1]}"
    )
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, env=environment(), check=False,
        timeout=60,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 1
    assert (tmp_path / "witness").exists()
    assert code.read_text() == "125\n"
    wanted = f"bpfstrace: output to {name} was lost: {os.strerror(errno.EPIPE)}\n"
    assert done.stderr == (wanted if name else "")


REDIRECTIONS = [">&-", "2>&-", "<&-", ">&- 2>&- <&-"]


def test_streams_that_were_closed_before(tracee: str, tmp_path: Path) -> None:
    """``>&-``, ``2>&-``: nothing of ours lands in a file of the tracee's."""
    for redirection in REDIRECTIONS:
        witness = tmp_path / "witness"
        witness.unlink(missing_ok=True)
        trace = tmp_path / "trace.jsonl"
        script = f'exec "$@" {redirection}'
        done = subprocess.run(
            ["sh", "-c", script, "sh", sys.executable, "-m", "bpftrace_sys", "-f", "--json",
             str(trace), *unharmed(tracee, tmp_path, 2)],
            capture_output=True, text=True, env=environment(), check=False, timeout=60,
        )  # fmt: skip
        assert witness.exists(), redirection
        assert witness.read_text() == "", redirection
        assert "Traceback" not in done.stderr, redirection
        check_left(replay(trace, tmp_path), 0, redirection)



@pytest.mark.parametrize("options", [["-f"], ["--no-seccomp"]])
def test_closed_streams_stay_closed(tmp_path: Path, options: list[str]) -> None:
    """The tracee finds the same fds as without us."""
    listing = tmp_path / "fds"
    words = [
        sys.executable, "-S", "-E", "-c",
        "import os, sys; print(os.listdir('/proc/self/fd'), file=open(sys.argv[1], 'w'))",
        str(listing),
    ]  # fmt: skip
    tracer = [sys.executable, "-m", "bpftrace_sys", *options, "--json", str(tmp_path / "trace")]
    for redirection in REDIRECTIONS:
        seen = []
        for command in (words, [*tracer, *words]):
            listing.unlink(missing_ok=True)
            script = f'exec "$@" {redirection}'
            subprocess.run(
                ["sh", "-c", script, "sh", *command],
                capture_output=True, env=environment(), check=False, timeout=60,
            )  # fmt: skip
            seen.append(listing.read_text())
        assert seen[0] == seen[1], redirection


def test_json_to_a_closed_stdout(tmp_path: Path) -> None:
    """What was asked for cannot be had: said before the program runs."""
    witness = tmp_path / "witness"
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "bpftrace_sys",
         "--json", "-", "touch", str(witness)],
        capture_output=True, text=True, env=environment(), check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 125
    assert done.stderr == "bpfstrace: cannot write -: stdout is closed\n"
    assert not witness.exists()


def test_a_file_a_thread_for_thousands(tmp_path: Path) -> None:
    """-ff: a thread's file is closed with it; there may be more than may be open at once."""
    script = (
        "ulimit -n 64; exec \"$@\""
    )
    calls = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None)\n"
        "for _ in range(150):\n"
        "    if not os.fork():\n"
        "        libc.syscall(321 if os.uname().machine == 'x86_64' else 280, 99, 0, 0)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "bpftrace_sys", "-ff", "-q",
         "-o", str(tmp_path / "text"), sys.executable, "-S", "-E", "-c", calls],
        capture_output=True, text=True, env=environment(), check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    files = list(tmp_path.glob("text.*"))
    assert len(files) == 150
    assert all("bpf(" in file.read_text() for file in files)


def test_what_waits_to_be_told_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracee that is faster than the telling waits for it; loops, captured by plan, as well."""
    from types import SimpleNamespace

    from bpftrace_sys.record.capture import sink as capture
    from bpftrace_sys.record.capture.loops import Plan
    from decoders.raw import AUDIT_ARCH_X86_64, FdFact, RawCall

    monkeypatch.setattr(capture, "WAITING", 40)
    told: list[Any] = []
    sink = capture.Capture()
    sink.begin(told.append)
    sink._row(AUDIT_ARCH_X86_64, 321)
    tracee: Any = SimpleNamespace(tid=7, pid=7, memory=None)
    plan = Plan((), (), FdFact(3, 0, "map", {}))
    for seq in range(1000):
        raw = RawCall(seq, 0, 7, 7, "", AUDIT_ARCH_X86_64, 321, (2, 0, 0, 0, 0, 0))
        sink._pending[7] = (raw, plan, None)
        sink.exit(tracee, -2, True, 1)
        assert seq + 1 - len(told) <= 41
    sink.drain()
    assert [raw.seq for raw in told] == list(range(1000))
