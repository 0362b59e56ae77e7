"""The text: layout and width, folding, and that nothing of a tracee's steers a terminal."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.render.text_quoting import octets, quoted
from bpftrace_sys.story.targets import printable
from tests.support.running import FIXTURES, environment, run_cli
from tests.support.terminal import commands, on_terminal

PYTHON = sys.executable
MAIN = [PYTHON, "-m", "bpftrace_sys"]

# A loader whose every string is hostile: escape sequences, markup, C1 controls as bytes and as
# UTF-8, a bidi override, invalid UTF-8, line ends, what ends a C comment or string.
EVIL = (
    b"\x1b]0;owned\x07\x1b[2J[red]m[/red]\x9b31m\xc2\x9b1m\xe2\x80\xae\xff\r\n"
    b"\x7f\\'\"*/ %s {0} end"
)
HOSTILE = f"""\
import ctypes, os, platform, struct
EVIL = {EVIL!r}
""" + r"""
libc = ctypes.CDLL(None)
NR = {"x86_64": (321, 298), "aarch64": (280, 241)}[platform.machine()]
keep = []

def ptr(data):
    keep.append(ctypes.create_string_buffer(data))
    return ctypes.addressof(keep[-1])

def bpf(cmd, attr):
    return libc.syscall(NR[0], cmd, ctypes.create_string_buffer(attr, len(attr)), len(attr))

def short(text):
    return text[:15].ljust(16, b"\0")

libc.prctl(15, EVIL[:15])  # PR_SET_NAME
insns = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
log = ctypes.create_string_buffer(EVIL * 3 + b"\n" + EVIL, 4096)
at_log = ctypes.addressof(log)
for name in (EVIL, b"ok"):
    bpf(5, struct.pack("<IIQQIIQII16sI", 1, 2, ptr(insns), ptr(EVIL), 1, len(log), at_log, 0, 0,
                       short(name), 0))
bpf(0, struct.pack("<7I16s", 2, 4, 8, 1, 0, 0, 0, short(EVIL)))
fd = bpf(0, struct.pack("<7I16s", 1, 60, 60, 4, 0, 0, 0, short(b"fine"))) & 0xFFFFFFFF
bpf(2, struct.pack("<IxxxxQQQ", fd, ptr(EVIL[:60].ljust(60)), ptr(EVIL[:60].ljust(60)), 0))
bpf(6, struct.pack("<QII", ptr(b"/sys/fs/bpf/" + EVIL), fd, 0))
bpf(7, struct.pack("<QII", ptr(b"/sys/fs/bpf/" + EVIL), 0, 0))
bpf(17, struct.pack("<QIIQ", ptr(EVIL), 5, 0, 0))
names = b"\0" + EVIL + b"\0"
types = struct.pack("<IIII", 1, 1 << 24, 4, 32 | 1 << 24)
btf = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
btf += types + names
bpf(18, struct.pack("<QQIII", ptr(btf), at_log, len(btf), len(log), 1))
attr = bytearray(120)
struct.pack_into("<II", attr, 0, 8, 120)  # a PMU's number; on most machines the uprobes'
struct.pack_into("<QQ", attr, 56, ptr(b"/tmp/" + EVIL), 16)
libc.syscall(NR[1], bytes(attr), -1, 0, -1, 8)
flat = EVIL.replace(b"/", b"")
for path in (b"/sys/fs/bpf/" + EVIL, b"/sys/bus/event_source/devices/" + flat + b"/type",
             b"/sys/kernel/tracing/events/" + flat + b"/x\x1b[1m/id"):
    libc.open(path, 0)
# Files of that name whose fds appear in calls.
import tempfile
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(os.fsencode(folder), flat)
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    bpf(8, struct.pack("<IIIIII", file, file, 8, 0, 0, 0))       # PROG_ATTACH
    bpf(28, struct.pack("<IIII", file, file, 0, 0) + bytes(32))  # LINK_CREATE
    libc.ioctl(file, 0x40042408, file)                           # PERF_EVENT_IOC_SET_BPF
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The loader as a program, in a folder and a file of hostile names."""
    folder = tmp_path_factory.mktemp("hostile")
    path = folder / os.fsdecode(EVIL.replace(b"/", b"") + b".py")
    path.write_text(HOSTILE)
    return [PYTHON, "-S", str(path)]


SHOWN = {
    "default": [],
    "-v": ["-v"],
    "-s 1000": ["-s", "1000"],
    "all calls": ["-e", "trace=bpf,ioctl,openat,perf_event_open"],
    "-c": ["-c"],
    "--style strace": ["--style", "strace"],
    "-q --no-insns": ["-q", "--no-insns"],
}


@pytest.mark.parametrize("options", SHOWN)
@pytest.mark.live
def test_nothing_hostile_reaches_a_pipe(options: str, hostile: list[str]) -> None:
    done = run_cli("-f", *SHOWN[options], *hostile)
    assert done.returncode == 0, done.stderr
    assert commands(done.stderr) == set()
    assert "\x1b" not in done.stderr
    if options != "-c":
        assert done.stderr.count("owned") > 8


@pytest.mark.parametrize("options", SHOWN)
@pytest.mark.live
def test_nothing_hostile_reaches_a_terminal(options: str, hostile: list[str]) -> None:
    env = environment(TERM="xterm-256color")
    del env["NO_COLOR"]
    code, text = on_terminal([*MAIN, "-f", *SHOWN[options], *hostile], env=env)
    assert code == 0, text
    assert commands(text) == set()
    # Of the colours all are ours: none is what the tracee sent.
    assert "\x1b[2J" not in text
    assert "\x1b[31m" not in text
    if options != "-c":
        # rich takes its markup for what it is: text.
        assert "[red]m" in text


@pytest.mark.live
def test_nothing_hostile_reaches_a_terminal_from_replay(
    hostile: list[str], tmp_path: Path
) -> None:
    trace = tmp_path / "t.jsonl"
    done = run_cli("-f", "-o", os.devnull, "--json", str(trace), *hostile)
    assert done.returncode == 0, done.stderr
    assert commands(trace.read_text()) == set()
    env = environment(TERM="xterm-256color")
    del env["NO_COLOR"]
    code, text = on_terminal([*MAIN, "replay", "-v", str(trace)], env=env, columns=40)
    assert code == 0, text
    assert commands(text) == set()


@pytest.mark.live
def test_a_hostile_program_name_in_a_failure(tmp_path: Path) -> None:
    name = os.fsdecode(EVIL.replace(b"/", b""))
    done = run_cli(f"./{name}", cwd=tmp_path)
    assert done.returncode == 127
    assert commands(done.stderr) == set()
    path = tmp_path / name
    path.write_text("no script\n")
    path.chmod(0o755)
    done = run_cli(f"./{name}", cwd=tmp_path)
    assert done.returncode == 126
    assert commands(done.stderr) == set()
    done = run_cli("replay", str(path))
    assert done.returncode == 2
    assert commands(done.stderr) == set()
    path.write_text(f"#!/no/{name}\n", errors="surrogateescape")
    assert commands(run_cli(f"./{name}", cwd=tmp_path).stderr) == set()
    for option in ("-o", "--json"):
        assert commands(run_cli(option, f"/no/{name}", "true").stderr) == set()
    assert commands(run_cli(f"--{name}", "true").stderr) == set()
    assert commands(run_cli("-e", f"trace={name}", "true").stderr) == set()


def test_printable_leaves_nothing_that_a_terminal_obeys() -> None:
    for code in (*range(0x3000), *range(0xD800, 0x10000), *range(0xE0000, 0xE0200), 0x10FFFF):
        shown = printable(f"a{chr(code)}b")
        assert commands(shown) == set(), hex(code)
        assert "\n" not in shown
        assert (shown[0], shown[-1]) == ("a", "b")
        if chr(code).isalnum():
            assert shown == f"a{chr(code)}b"


@pytest.mark.parametrize(
    ("data", "limit", "whole", "text"),
    [
        (b"GPL", 64, True, '"GPL"'),
        (b"", 64, True, '""'),
        (b"abcdef", 3, True, '"abc"...'),
        (b"abc", 3, True, '"abc"'),
        (b"abc", 3, False, '"abc"...'),
        (b"a", 0, True, '""...'),
        (b'say "hi"\\', 64, True, r'"say \"hi\"\\"'),
        (b"\t\r\n\0\x1b\x7f", 64, True, r'"\t\r\n\x00\x1b\x7f"'),
        ("größe".encode(), 64, True, '"größe"'),
        (b"\xff\xfe", 64, True, r'"\xff\xfe"'),
        ("\u202e\x9b".encode(), 64, True, r'"\u202e\x9b"'),
    ],
)
def test_quoted(data: bytes, limit: int, whole: bool, text: str) -> None:
    assert quoted(data, limit, whole) == text


def test_bytes_are_a_string_where_they_are_one() -> None:
    assert octets(b"hello\0\0\0", 64) == '"hello\\0\\0\\0"'
    assert octets(b"\1\2\3\4", 64) == "[01 02 03 04]"
    assert octets(bytes(100), 4) == "[00 00 00 00]..."
    assert commands(octets(EVIL, 1000)) == set()


# ------------------------------------------------------------------ layout

TRACE = FIXTURES / "bcc-kprobe-hello" / "trace.jsonl.gz"


def text_of(*options: str, trace: Path = TRACE, columns: int | None = None) -> str:
    """A replayed trace; on a terminal of so many columns, or in a pipe."""
    if columns is None:
        done = run_cli("replay", *options, str(trace))
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout
    words = [*MAIN, "replay", *options, str(trace)]
    code, text = on_terminal(words, env=environment(), columns=columns)
    assert code == 0
    return text


def test_long_structures_go_over_lines_and_short_ones_do_not() -> None:
    text = text_of()
    load = next(part for part in text.split("\n[") if 'prog_name="hello_world"' in part)
    lines = load.splitlines()
    assert lines[0].endswith("bpf(BPF_PROG_LOAD, {")
    assert lines[1].startswith(" " * 8 + "prog_type=BPF_PROG_TYPE_KPROBE,")
    last = r"      }, \d+\) = \d+<prog hello_world id=\d+ tag=38dd440716c4900f>"
    assert re.match(last, lines[-1])
    assert re.search(r"^\[\d+\] ioctl\(\d+<kprobe do_sys_openat2>, PERF_EVENT_IOC_ENABLE, 0\) = 0$",
                     text, re.MULTILINE)
    # insns= stands alone, its lines are deeper, its bracket is closed where it was opened.
    opened = lines.index("        insns=[")
    closed = lines.index("        ],")
    assert all(line.startswith(" " * 10) for line in lines[opened + 1 : closed])


def test_comments_of_a_listing_stand_in_one_column() -> None:
    listing = [line for line in text_of().splitlines() if re.match(r" +>? *\d+: \(", line)]
    columns = {line.index("/*") for line in listing if "/*" in line}
    assert len(columns) == 1


def test_zeros_are_folded_unless_v() -> None:
    folded, whole = text_of(), text_of("-v")
    assert ", ...\n" in folded
    assert "prog_ifindex=" not in folded
    assert "prog_ifindex=0" in whole
    assert "..." not in next(
        line for line in whole.splitlines() if "PERF_ATTR_SIZE" in line
    )
    assert "sample_type=0" in whole


def test_no_insns_folds_a_listing_to_a_word() -> None:
    text = text_of("--no-insns")
    assert "(95) exit" not in text
    assert "insns=/* 13 instructions */" in text


def test_the_string_limit() -> None:
    trace = FIXTURES / "bpftool-loadall" / "trace.jsonl.gz"
    short, long = text_of("-s", "4", trace=trace), text_of("-s", "4000", trace=trace)
    assert len(short) < len(long)
    assert "..." in short


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("name", ["bcc-kprobe-hello", "cgroup-attach", "verifier-reject"])
def test_any_width_works_and_says_the_same(columns: int, name: str) -> None:
    trace = FIXTURES / name / "trace.jsonl.gz"
    text = text_of("-q", trace=trace, columns=columns)
    wide = text_of("-q", trace=trace, columns=1000)

    def bare(text: str) -> str:
        return re.sub(r"\s+", "", text).replace(",]", "]")

    assert bare(text) == bare(wide)
    # What can be broken is: fields of a struct leave the width only if one alone is too long.
    for line in text.splitlines():
        if re.match(r" {8}\w+=", line) and len(line) > columns:
            assert len(re.findall(r'(?:"[^"]*"|[^ ])+', line)) == 1, line


def test_width_without_a_size_is_harmless() -> None:
    # A terminal that says 0 columns, as under some serial lines.
    assert text_of(columns=0) == text_of(columns=80)


def test_columns_of_the_environment_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = text_of(columns=200)
    monkeypatch.setenv("COLUMNS", "200")
    assert text_of(columns=70) == wide
    monkeypatch.setenv("COLUMNS", "nonsense")
    assert text_of(columns=200) == wide


def test_the_reason_is_painted_and_a_refusing_log_is_not_green() -> None:
    trace = FIXTURES / "verifier-reject" / "trace.jsonl.gz"
    env = {**environment(), "TERM": "xterm-256color"}
    env.pop("NO_COLOR", None)
    code, text = on_terminal([*MAIN, "replay", "-q", str(trace)], env=env)
    assert code == 0
    (why,) = [line for line in text.splitlines() if "why: " in line]
    assert why.startswith("\x1b[1;31m  why: ")
    log = [line for line in text.splitlines() if "R0 invalid mem access" in line and line != why]
    assert log
    assert not [line for line in log if "\x1b[32m" in line]


# ------------------------------------------------------------------ failures, logs

ODD = """\
import ctypes, platform, struct
libc = ctypes.CDLL(None)
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
def bpf(cmd, data):
    return libc.syscall(number, cmd, ctypes.create_string_buffer(data, len(data)), len(data))
bpf(0, struct.pack("<5I", 0x7777, 4, 4, 1, 0x80000001))
bpf(999, bytes(16))
bpf(11, bytes(12) + bytes(range(1, 9)))
libc.syscall(number, 0, 8, 20)
libc.syscall(number, 1, 0, 0)
"""


@pytest.mark.live
def test_unknown_values_are_shown_as_numbers() -> None:
    done = run_cli("-q", PYTHON, "-S", "-c", ODD)
    text = done.stderr
    assert re.search(r"map_type=0x7777 /\* bpf_map_type \?\?\? \*/", text)
    assert "map_flags=BPF_F_NO_PREALLOC|0x80000000" in text
    assert "bpf(0x3e7 /* bpf_cmd ??? */" in text
    # Bytes beyond what is known of a command are shown, never dropped.
    assert "extra_data=[05 06 07 08]" in text
    assert "bpf(BPF_MAP_CREATE, /* unreadable address */, 20) = -1 EFAULT (Bad address)" in text
    assert "bpf(BPF_MAP_LOOKUP_ELEM, NULL, 0) = -1 E" in text


ZEROS = ODD.partition("bpf(0,")[0] + """\
import os
bpf(0, struct.pack("<6I", 12, 4, 4, 1, 0, 0))  # ARRAY_OF_MAPS
bpf(0, struct.pack("<6I", 1, 4, 4, 1, 0, 0))
bpf(20, struct.pack("<4I4Q", os.getpid(), 0, 0, 0, 0, 0, 0, 0))
for flags in (0, 4):  # BPF_F_REPLACE
    bpf(8, struct.pack("<6IQ", 5, 6, 0, flags, 0, 0, 0))
    bpf(29, struct.pack("<4I", 6, 7, flags, 0))
for flags in (0, 8, 1 << 13):  # BPF_F_BEFORE, BPF_F_LINK
    bpf(28, struct.pack("<6IQ", 6, 1, 46, flags, 0, 0, 0))  # BPF_TCX_INGRESS
"""


@pytest.mark.live
def test_a_zero_stays_where_the_kernel_takes_it_for_an_fd() -> None:
    done = run_cli("-q", PYTHON, "-S", "-c", ZEROS)
    calls = done.stderr.replace("\n  ", " ").split("] bpf(")[1:]
    said = {
        name: [f"{name}=0" in call for call in calls if call.startswith(f"BPF_{command}, ")]
        for name, command in (
            ("inner_map_fd", "MAP_CREATE"),
            ("fd", "TASK_FD_QUERY"),
            ("replace_bpf_fd", "PROG_ATTACH"),
            ("old_prog_fd", "LINK_UPDATE"),
            ("relative_fd", "LINK_CREATE"),
        )
    }
    assert said == {
        "inner_map_fd": [True, False],
        "fd": [True],
        "replace_bpf_fd": [False, True],
        "old_prog_fd": [False, True],
        # With flags that only say where, no anchor is meant (bpf_mprog_tuple_relative).
        "relative_fd": [False, False, True],
    }
    assert "tcx={" not in next(call for call in calls if call.startswith("BPF_LINK_CREATE"))


def test_a_verifiers_log_is_shown_line_by_line() -> None:
    trace = FIXTURES / "verifier-reject" / "trace.jsonl.gz"
    short, whole = text_of(trace=trace), text_of("-v", trace=trace)
    assert 'log_buf="""\n' in short
    assert "-1 EACCES (Permission denied)" in short
    assert len(whole) > len(short)
    assert not any(unicodedata.category(char) == "Cc" and char != "\n" for char in whole)


def test_a_log_of_one_line_is_not_cut(needs_bpf: None) -> None:
    done = run_cli("-q", PYTHON, "-S", "-c", HOSTILE)
    assert re.search(r'log_buf="processed 2 insns [^"]* mark_read 0\\n"', done.stderr)


@pytest.mark.live
def test_paths_with_a_newline_stay_on_their_line() -> None:
    done = run_cli("-q", PYTHON, "-S", "-c", HOSTILE)
    paths: list[Any] = re.findall(r'pathname="(.*)', done.stderr)
    assert len(paths) >= 2
    assert all("\\r\\n" in path and "end" in path for path in paths)


@pytest.mark.live
def test_it_says_how_it_ended() -> None:
    assert run_cli("sh", "-c", "kill -KILL $$").stderr.endswith("+++ killed by SIGKILL +++\n")
    assert run_cli("sh", "-c", "exit 3").stderr.endswith("+++ exited with 3 +++\n")


def test_programs_never_attached_are_named(needs_bpf: None) -> None:
    done = run_cli(PYTHON, "-S", "-c", HOSTILE)
    assert re.search(r"^not attached  ok \(socket_filter, 2 insns, tag [0-9a-f]{16}\)$",
                     done.stderr, re.MULTILINE)
    assert "not attached" not in text_of()


def test_a_zero_that_has_a_name_is_no_zero() -> None:
    # interval:s:1 counts PERF_COUNT_SW_CPU_CLOCK, which is 0; sum_sizes is for a cgroup's egress.
    text = text_of(trace=FIXTURES / "bpftrace-profile" / "trace.jsonl.gz")
    assert "type=PERF_TYPE_SOFTWARE, config=PERF_COUNT_SW_CPU_CLOCK," in text
    assert "config=" not in text_of()  # of a kprobe it is a number, and no return probe


def test_listings_have_no_empty_source_lines() -> None:
    trace = FIXTURES / "verifier-reject" / "trace.jsonl.gz"
    text = text_of(trace=trace)
    assert re.search(r"^ +; ", text, re.MULTILINE)
    assert not re.search(r"^ +;$", text, re.MULTILINE)
    assert re.search(r"^ +;", text_of("-v", trace=trace), re.MULTILINE)
