"""``--style strace``: whole runs beside strace's own lines."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from decoders.formats import insn
from decoders.uapi import names, perf, system
from tests.support.needs import needs_tool
from tests.support.running import TRACEES, environment, run_cli

WORKLOAD = TRACEES / "strace_workload.py"


TRACED = "trace=bpf,perf_event_open,ioctl"
OURS = re.compile(r"(bpf|perf_event_open)\(|ioctl\(-?\d+, (PERF_|_IOC\(_IOC_NONE, 0x24)|\+\+\+")
VOLATILE = frozenset({"id", "btf_id", "btf_vmlinux_id", "load_time", "duration"}) | {
    "verified_insns",
    "jited_prog_len",
    "jited_prog_insns",
}
"""Fields that differ from run to run."""
LATER = frozenset({"log_buf", "stream_buf"})
"""Buffers that we show as the kernel left them; docs/strace-style.md."""
UNWRITTEN = frozenset({"buf", "prog_ids", "prog_attach_flags", "link_ids", "link_attach_flags"})
"""Buffers that strace shows, and we do not, where the kernel wrote nothing into them."""
CHANGED = frozenset({"retval", "data_size_out", "ctx_size_out", "attach_flags"})
"""Fields of which we also show what the kernel made of them."""
NAMED = frozenset(
    {"tracing", "cgroup", "kprobe_multi", "uprobe_multi", "defer_callchain", "defer_output"}
)
"""Fields of ours in which strace 7.2 shows bytes, or nothing."""
BYTES = frozenset({"extra_data", "__reserved_1", "..."})
"""Where strace shows, or says that there is, what it has no names for."""
FORMER = frozenset({"target_fd", "target_btf_id", "next_id", "open_flags"})
"""Fields that strace 6.1 shows of commands where 7.2 shows others, or none."""
NUMBERS = {
    name: number
    for module in (names, perf, system)
    for table in vars(module).values()
    if isinstance(table, dict)
    for number, name in table.items()
    if isinstance(name, str) and isinstance(number, int)
}
NUMBERS.update(BPF_W=0, BPF_H=8, BPF_B=16, BPF_DW=24, BPF_XADD=0xC0)
NUMBERS.update({f"BPF_REG_{number}": number for number in range(11)})
NUMBERS.update({f"BPF_{k}": v for k, v in vars(insn).items() if isinstance(v, int)})


def parts(text: str) -> list[str]:
    """Splits at the commas that stand in no quotes, brackets or comments."""
    found, depth, at, start = [], 0, 0, 0
    while at < len(text):
        if text[at] == '"':
            at += 1
            while text[at] != '"':
                at += 2 if text[at] == "\\" else 1
        elif text.startswith("/*", at):
            at = text.index("*/", at) + 1
        elif text[at] in "([{":
            depth += 1
        elif text[at] in ")]}":
            depth -= 1
        elif text[at] == "," and not depth:
            found.append(text[start:at].strip())
            start = at + 1
        at += 1
    found.append(text[start:].strip())
    return [part for part in found if part]


def number(text: str) -> int | None:
    """The number that names, shifts and bits of a text make; None if it is none."""
    total = 0
    for part in re.sub(r" ?/\*.*?\*/", "", text).split("|"):
        base, _, shift = part.partition("<<")
        try:
            value = NUMBERS[base] if base in NUMBERS else int(base, 0)
            total |= value << int(shift or "0")
        except ValueError:
            return None
    return total


class Comparison:
    """Compares lines field by field, and counts what agreed."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.agreed: Counter[str] = Counter()
        self.differ: list[str] = []

    def line(self, ours: str, theirs: str) -> None:
        """Two lines of the same call."""
        pattern = r"(\w+)\((.*)\) +(= .*)"
        left, right = re.fullmatch(pattern, ours), re.fullmatch(pattern, theirs)
        if left is None or right is None:
            if ours != theirs:
                self.differ.append(f"{ours}\n{theirs}")
            return
        before = len(self.differ)
        if left[1] != right[1] or left[3] != right[3]:
            self.differ.append("the call or its result")
        ours_, theirs_ = parts(left[2]), parts(right[2])
        if len(ours_) != len(theirs_):
            self.differ.append("how many arguments")
        self.agreed[ours_[0] if left[1] == "bpf" else left[1]] += 1
        for mine, its in zip(ours_, theirs_, strict=False):
            self.value("", mine, its)
        if len(self.differ) > before:
            self.differ[before:] = [
                "; ".join(self.differ[before:]) + f"\n  ours:   {ours}\n  strace: {theirs}"
            ]

    def value(self, name: str, ours: str, theirs: str) -> None:
        """One value."""
        if name in VOLATILE or name in LATER:
            return
        if name in CHANGED:
            ours = ours.partition(" => ")[0]
        if ours == theirs:
            self.agreed["fields"] += 1
            return
        if ours.startswith("{") and theirs.startswith("{"):
            self.struct(ours[1 : ours.rindex("}")], theirs[1 : theirs.rindex("}")])
        elif ours.startswith("[") and theirs.startswith("["):
            self.array(name, ours[1 : ours.rindex("]")], theirs[1 : theirs.rindex("]")])
        elif self.allowed(name, ours, theirs):
            self.agreed["allowed"] += 1
        elif " => " in ours and " => " in theirs:
            for mine, its in zip(ours.split(" => "), theirs.split(" => "), strict=True):
                self.value(name, mine, its)
        elif number(ours) is None or number(ours) != number(theirs):
            self.differ.append(f"{name}: {ours} is not {theirs}")
        elif self.strict and re.fullmatch("0x[0-9a-f]+|-?[0-9]+", theirs):
            self.differ.append(f"{name}: {ours} for the bare {theirs}")
        elif self.strict and not set(re.findall(r"[A-Z]\w+", theirs.partition("/*")[0])) <= set(
            re.findall(r"[A-Z]\w+", ours)
        ):
            self.differ.append(f"{name}: {ours} lacks a name of {theirs}")
        else:
            self.agreed["numbers"] += 1

    def allowed(self, name: str, ours: str, theirs: str) -> bool:
        """Whether one of the two shows no more than an address, and may."""
        if name == "iter_info":  # strace reads past the end
            return ours.startswith("0x") and theirs.startswith("[")
        if name in UNWRITTEN:
            return ours.startswith("0x") and theirs[0] in '["'
        return not self.strict and theirs.startswith("0x") and ours.startswith("{")

    def array(self, name: str, ours: str, theirs: str) -> None:
        """The elements of an array, as far as strace goes."""
        stop = ", ..."
        if theirs.endswith(stop):
            theirs = theirs.removesuffix(stop)
            if ours.startswith(theirs):
                return
        left, right = parts(ours), parts(theirs)
        if len(left) != len(right) and theirs.count("code=") != 4096:
            self.differ.append(f"{name}: {len(left)} elements, not {len(right)}")
        for mine, its in zip(left, right, strict=False):
            self.value("", mine, its)

    def struct(self, ours: str, theirs: str) -> None:
        """The fields of a struct, by name."""
        left = dict(part.partition("=")[::2] for part in parts(ours))
        right = dict(part.partition("=")[::2] for part in parts(theirs))
        common = [name for name in right if name in left]
        for name in common:
            if not (name in BYTES and left[name] != right[name]):
                self.value(name, left[name], right[name])
        more = set(left) - set(right) - BYTES
        fewer = set(right) - set(left) - BYTES
        if not self.strict:
            more = set()
            fewer -= FORMER
        if more - NAMED or fewer:
            self.differ.append(f"fields: only ours {sorted(more)}, only strace's {sorted(fewer)}")
        order = [name for name in left if name in right]
        if self.strict and order != common:
            self.differ.append(f"order: {order} is not {common}")


def lines_of(path: Path) -> Iterator[str]:
    """The lines that both tracers print, without what only one run can know."""
    for line in path.read_text("ascii").splitlines():
        if OURS.match(line):
            text = re.sub(r" /\* \d{4}-\d\d-\d\dT.*? \*/", "", line)
            yield re.sub(r"(PERF_EVENT_IOC_ID, )\[\d+\]", r"\1[ID]", text)


@pytest.mark.parametrize(
    ("group", "options"),
    [
        *((group, "-v") for group in ("maps", "progs", "files", "events", "noise")),
        ("events", ""), ("maps", "-y"), ("events", "-yy"), ("files", "-X raw"),
        ("maps", "-X verbose"), ("maps", "-e raw=bpf"), ("maps", "-e verbose=none"),
        ("maps", "-e inject=bpf:error=EPERM"),
    ],
)  # fmt: skip
def test_beside_strace(group: str, options: str, tmp_path: Path, needs_bpf: None) -> None:
    """Both trace the same program: line by line, the fields that both print agree."""
    needs_tool("strace")
    program = [sys.executable, str(WORKLOAD), group]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    words = [*options.split(), "-e", TRACED]
    done = run_cli("--style", "strace", *words, "-o", str(ours), *program)
    assert done.returncode == 0, done.stderr
    subprocess.run(
        ["strace", *words, "-o", str(theirs), *program],
        env=environment(), check=True, timeout=60, stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    version = subprocess.run(["strace", "-V"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"version (\d+)\.(\d+)", version)
    assert match is not None, version
    comparison = Comparison((int(match[1]), int(match[2])) >= (7, 2))
    left, right = list(lines_of(ours)), list(lines_of(theirs))
    assert len(left) == len(right)
    assert len(left) > 80
    for mine, its in zip(left, right, strict=True):
        comparison.line(mine, its)
    assert not comparison.differ, "\n".join(comparison.differ[:5])
    assert comparison.agreed["fields"] > 10 * len(left) // 4


def test_replay_says_the_same(tmp_path: Path, needs_bpf: None) -> None:
    """A recorded trace gives the lines of the live one."""
    live, trace = tmp_path / "live", tmp_path / "trace.jsonl"
    program = [sys.executable, str(WORKLOAD), "maps", "progs"]
    words = ["--style", "strace", "-e", TRACED]
    done = run_cli(*words, "-o", str(live), "--json", str(trace), *program)
    assert done.returncode == 0, done.stderr
    again = run_cli("replay", "--style", "strace", str(trace))
    assert again.stdout == live.read_text()


def test_comparison_can_fail() -> None:
    """The comparison above is no rubber stamp."""
    base = "bpf(BPF_MAP_FREEZE, {map_fd=3, a=BPF_F_RDONLY|0x40, s=\"x, }\"}, 4) = 0"
    for other, same in (
        (base, True),
        (base.replace("BPF_F_RDONLY|0x40", "0x48 /* BPF_F_??? */"), True),
        (base.replace("map_fd=3", "map_fd=4"), False),
        (base.replace("BPF_F_RDONLY|0x40", "0x48"), False),
        (base.replace("0x40", "0x41"), False),
        (base.replace('"x, }"', '"y, }"'), False),
        (base.replace("= 0", "= 1"), False),
        (base.replace("map_fd=3, ", ""), False),
        (base.replace(", 4)", ", 4, 5)"), False),
    ):
        comparison = Comparison(strict=True)
        comparison.line(base, other)
        assert (not comparison.differ) == same, other


LOG = r"""
import ctypes, os, struct
libc = ctypes.CDLL(None)
BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
insns = ctypes.create_string_buffer(struct.pack("<BBhi", 0xB7, 0, 0, 0) + b"\x95" + bytes(7))
licence = ctypes.create_string_buffer(b"GPL")
log = ctypes.create_string_buffer(4096)
for level, size in ((1, 4096), (1, 400), (0, 0), (1, 100)):
    log.raw = (b"x" * 299 + b"y" * 200).ljust(4096, b"\0")
    at = ctypes.addressof
    attr = struct.pack("<2I2Q2IQ", 1, 2, at(insns), at(licence), level, size, at(log))
    libc.syscall(BPF, 5, ctypes.create_string_buffer(attr, len(attr)), len(attr))
"""


@pytest.mark.parametrize("limit", ["32", "300", "600"])
def test_what_stood_in_the_log(limit: str, needs_bpf: None, tmp_path: Path) -> None:
    """As far as -s goes: with strace=7.2 the buffer is read as strace reads it, before the call."""
    needs_tool("strace")
    words = ["-s", limit, "-e", "trace=bpf", "-o"]
    program = [sys.executable, "-c", LOG]
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    run_cli("--style", "strace=7.2", *words, str(ours), *program)
    subprocess.run(["strace", *words, str(theirs), *program], check=True, env=environment())
    logs = [re.findall(r"log_buf=(\S+?)[,}]", path.read_text()) for path in (ours, theirs)]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 4
    assert logs[0][0].startswith('"xxx')
