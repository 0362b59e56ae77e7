"""The recorded fixtures: each replays to its goldens and holds what its manifest promises.

``pytest --bless tests/render/test_fixtures.py`` rewrites goldens; look at the difference
before you commit it.  docs/testing.md says against what they were checked.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import record

from bpftrace_sys.cli.main import main
from bpftrace_sys.trace.kernel_view import KernelView
from bpftrace_sys.trace.reader import Reader
from decoders.formats import native, native_targets
from tests.support.native_code import llvm_mc, same_operands
from tests.support.needs import needs_tool
from tests.support.running import FIXTURES, ROOT, environment

NAMES = record.all_names()
LESSON = "bcc-kprobe-hello"
SIZE_LIMIT = 4 << 20
"""Bytes of all fixtures together: they are cloned with the source."""


def trace_of(name: str) -> str:
    return str(FIXTURES / name / record.TRACE)


@cache
def replayed(name: str, *options: str) -> str:
    """What ``bpfstrace replay`` prints of a fixture."""
    out = io.StringIO()
    with redirect_stdout(out):
        code = main(["replay", *options, trace_of(name)])
    assert code == 0
    return out.getvalue()


LONG = ("libbpf-execsnoop", "libbpf-opensnoop-6.1", "libbpf-tcpconnect")
"""Thousands of instructions that nobody would look through: kept without listings."""


def text(name: str) -> str:
    """The golden text: as a person sees it."""
    return replayed(name, *(["--no-insns"] if name in LONG else []))


def json_without_raw(name: str) -> str:
    """The golden JSON: what was decoded, without the bytes that it was decoded from."""
    lines = []
    for line in jsonl(name):
        line.pop("raw", None)
        lines.append(json.dumps(line) + "\n")
    return "".join(lines)


def jsonl(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _json(name).splitlines()]


@cache
def _json(name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bpftrace_sys", "replay", "-q", "-o", os.devnull,
         "--json", "/dev/stdout", trace_of(name)],
        capture_output=True, text=True, check=True, env=environment(),
    )  # fmt: skip
    return done.stdout


GOLDENS: dict[str, tuple[Callable[[str], str], tuple[str, ...]]] = {
    "golden.txt": (text, tuple(NAMES)),
    # JSON is large, and the same decoding: one of each loader is enough.
    "golden.jsonl": (json_without_raw, (LESSON, "xdp-link")),
}
"""By file: what makes it, and of which fixtures it is kept."""
KEPT = [(name, file) for file, (_, names) in GOLDENS.items() for name in names]


@pytest.mark.parametrize(("name", "file"), KEPT, ids=lambda value: value)
def test_replay_gives_the_golden_output(name: str, file: str, bless: bool) -> None:
    path = FIXTURES / name / file
    now = GOLDENS[file][0](name)
    if bless:
        path.write_text(now)
    assert path.exists(), "no golden yet: look at the output, then pytest --bless"
    assert now == path.read_text(), "if that is an improvement: pytest --bless"


def test_every_golden_belongs_to_a_fixture() -> None:
    there = {path.relative_to(FIXTURES) for path in FIXTURES.rglob("golden*")}
    assert there - {Path(name, file) for name, file in KEPT} == set()


def test_fixtures_are_small() -> None:
    assert sum(path.stat().st_size for path in FIXTURES.rglob("*") if path.is_file()) < SIZE_LIMIT


# ------------------------------------------------------------------ what they show

WANTED = {
    "the lesson's kprobe hello, Debian 6.1": (LESSON, "vm-6.1", "bcc"),
    "kretprobe and fentry, Debian 6.1": ("bcc-kretprobe-fentry", "vm-6.1", "bcc"),
    "BCC uprobe": ("bcc-uprobe", "host", "bcc"),
    "BCC tracepoint": ("bcc-tracepoint", "host", "bcc"),
    "bpftrace: kprobe": ("bpftrace-kprobe", "vm-6.1", "bpftrace"),
    "bpftrace: uprobe": ("bpftrace-uprobe", "host", "bpftrace"),
    "bpftrace: tracepoint": ("bpftrace-tracepoint", "host", "bpftrace"),
    "bpftrace: profile, interval, software": ("bpftrace-profile", "host", "bpftrace"),
    "libbpf-tools: opensnoop": ("libbpf-opensnoop", "host", "opensnoop"),
    "the same on Debian 6.1": ("libbpf-opensnoop-6.1", "vm-6.1", "opensnoop"),
    "libbpf-tools: execsnoop": ("libbpf-execsnoop", "host", "execsnoop"),
    "libbpf-tools: tcpconnect": ("libbpf-tcpconnect", "vm-6.1", "tcpconnect"),
    "libbpf-tools: vfsstat": ("libbpf-vfsstat", "vm-6.1", "vfsstat"),
    "bpftool loadall with pinned maps": ("bpftool-loadall", "host", "bpftool"),
    "the same compiled by clang -O1": ("bpftool-loadall-o1", "host", "bpftool"),
    "XDP by netlink": ("xdp-attach", "host", "ip"),
    "XDP by a link": ("xdp-link", "host", "libbpf"),
    "cgroup": ("cgroup-attach", "host", "bpftool"),
    "rejected by the verifier": ("verifier-reject", "host", "bpftool"),
    "EPERM as an ordinary user": ("eperm", "host", "bpftool"),
    "a perf record session": ("perf-record", "host", "perf"),
    "an i386 tracee": ("i386-tracee", "host", "tracee"),
    "a Go program with cilium/ebpf": ("cilium-features", "host", "cilium"),
    "hello world on aarch64": ("aarch64-hello", "vm-6.12-aarch64", "hello"),
    "a cgroup on aarch64": ("aarch64-cgroup", "vm-6.12-aarch64", "cgroup"),
}
"""What the library of recordings has at least: fixture, machine, client."""


@pytest.mark.parametrize("what", WANTED)
def test_the_library_is_complete(what: str) -> None:
    name, where, client = WANTED[what]
    fixture = record.load(name)
    assert fixture.where == where
    workload = [(fixture.folder / file).read_text() for file in fixture.files]
    assert any(client in each for each in (*fixture.command, *workload))
    with gzip.open(trace_of(name), "rt") as file:
        header = json.loads(file.readline())
    if fixture.guest is None:
        assert not header["kernel"].startswith("6.1.")
    else:
        assert header["kernel"].startswith(f"{fixture.guest.series}.")
    assert header["machine"] == ("aarch64" if where.endswith("-aarch64") else "x86_64")


@pytest.mark.parametrize("name", NAMES)
def test_the_recording_holds_what_its_manifest_promises(name: str) -> None:
    """On the decoded trace, where recording looked for words only."""
    expect = record.load(name).expect
    lines = jsonl(name)
    calls = [line for line in lines if line["type"] == "syscall"]
    told = {
        "commands": {call["args"].get(key) for call in calls for key in ("cmd", "request")},
        "syscalls": {call["syscall"] for call in calls},
        "errors": {call["errno"] for call in calls if "errno" in call},
        "tags": {call["fd"].get("tag") for call in calls if "fd" in call},
    }
    for key, found in told.items():
        assert set(expect.get(key, ())) <= found
    loads = [call for call in calls if call["args"].get("cmd") == "BPF_PROG_LOAD"]
    names = {call.get("fd", {}).get("name", "") for call in loads}
    names |= {call["args"]["attr"].get("prog_name") or "" for call in loads}
    for program in expect.get("programs", ()):
        # BCC leaves out what kind of probe it is.
        plain = re.sub(r"^(tracepoint|k(ret)?func)__", "", program)
        assert any((found and plain.startswith(found)) or found == program for found in names)
    targets = [line["target"] for line in lines if line["type"] == "attachment"]
    for target in expect.get("targets", ()):
        assert any(target in each for each in targets)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_was_left_undecoded(name: str) -> None:
    for line in jsonl(name):
        assert "problem" not in line


@pytest.mark.parametrize("name", NAMES)
def test_json_of_a_replay_replays_to_itself(name: str, tmp_path: Path) -> None:
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    first.write_text(_json(name))
    with redirect_stdout(io.StringIO()):
        assert main(["replay", "--json", str(second), str(first)]) == 0
    assert second.read_text() == first.read_text()
    out = io.StringIO()
    with redirect_stdout(out):
        assert main(["replay", str(second)]) == 0
    assert out.getvalue() == replayed(name)


# ------------------------------------------------------------------ the lesson


def _in_order(words: list[str], where: str) -> Iterator[int]:
    at = 0
    for word in words:
        at = where.index(word, at)
        yield at
        at += len(word)


def test_the_lessons_listing() -> None:
    """Line for line as in the lesson, where bpftool printed it; but for helper numbers."""
    listing = [
        "; int hello_world(void *ctx)",
        "0: (b7) r1 = 33",
        '; ({ char _fmt[] = "Hello, World!"; bpf_trace_printk_(_fmt, sizeof(_fmt)); });',
        "1: (6b) *(u16 *)(r10 -4) = r1",
        "2: (b7) r1 = 1684828783",
        "3: (63) *(u32 *)(r10 -8) = r1",
        "4: (18) r1 = 0x57202c6f6c6c6548",
        "6: (7b) *(u64 *)(r10 -16) = r1",
        "7: (bf) r1 = r10",
        "8: (07) r1 += -16",
        "9: (b7) r2 = 14",
        "10: (85) call bpf_trace_printk#6",
        "; return 0;",
        "11: (b7) r0 = 0",
        "12: (95) exit",
    ]
    shown = [
        line.partition("/*")[0].strip()
        for line in text(LESSON).splitlines()
        if re.match(r"\s+(;|\d+: \()", line)
    ]
    assert shown == listing


PRINTK = '; ({ char _fmt[] = "Hello, World!"; bpf_trace_printk_(_fmt, sizeof(_fmt)); });'
LESSONS_NATIVE_CODE = [
    "; int hello_world(void *ctx)",
    "0: nopl   0x0(%rax,%rax,1)",
    "5: xchg   %ax,%ax",
    "7: push   %rbp",
    "8: mov    %rsp,%rbp",
    "b: sub    $0x10,%rsp",
    "12: mov    $0x21,%edi",
    PRINTK,
    "17: mov    %di,-0x4(%rbp)",
    "1b: mov    $0x646c726f,%edi",
    "20: mov    %edi,-0x8(%rbp)",
    "23: movabs $0x57202c6f6c6c6548,%rdi",
    "2d: mov    %rdi,-0x10(%rbp)",
    "31: mov    %rbp,%rdi",
    "34: add    $0xfffffffffffffff0,%rdi",
    "38: mov    $0xe,%esi",
    "3d: call   0xffffffffd8c7e834",
    "; return 0;",
    "42: xor    %eax,%eax",
    "44: leave",
    "45: ret",
]
"""As bpftool printed it there; its address of the call is not the kernel's."""
OTHER_WORDS = {
    "nopl   (%rax,%rax)": "nopl   0x0(%rax,%rax,1)",
    "nop": "xchg   %ax,%ax",
    "add    $-0x10,%rdi": "add    $0xfffffffffffffff0,%rdi",
}
"""The same bytes in capstone's words, and in those of the lesson's bpftool."""


def test_the_lessons_native_code() -> None:
    shown = []
    printed = replayed(LESSON, "-q", "--no-insns", "-e", "kernel=jited")
    for line in printed.partition("native code  ")[2].split("\n\n")[0].splitlines():
        line = line.removesuffix("   /* line 0 */")
        found = re.match(r"\s+(; .*|[0-9a-f]+: .*)", line)
        if found and not found[1].endswith(": int3"):  # later kernels guard what lies behind
            at, colon, code = found[1].partition(": ")
            shown.append(at + colon + OTHER_WORDS.get(code, code))
    call = next(line for line in shown if "call" in line)
    assert call.endswith("<bpf_trace_printk>")
    shown[shown.index(call)] = LESSONS_NATIVE_CODE[16]
    assert shown == LESSONS_NATIVE_CODE


def test_the_lessons_native_code_stands_beside_its_instructions() -> None:
    (view,) = [
        line
        for line in jsonl(LESSON)
        if line["type"] == "kernel_view" and line["prog"].get("name") == "hello_world"
    ]
    assert {row["what"] for row in view["map"]} == {"unchanged"}
    (function,) = view["jited"]
    assert function["symbol"] == "bpf_prog_38dd440716c4900f_hello_world"
    text_at = {row["offset"]: row["text"] for row in function["insns"]}
    beside = {row["pc"]: [text_at[at] for at in row["jited"]] for row in view["map"]}
    assert beside[2] == ["mov    $0x646c726f,%edi"]
    assert beside[9] == ["mov    $0xe,%esi"]
    assert beside[12][:2] == ["leave", "ret"]


def test_what_the_lessons_program_is_given() -> None:
    assert (
        "  given   long int do_sys_openat2(int dfd, const char *filename, struct open_how *how)\n"
    ) in text(LESSON)


def test_aarch64s_native_code_as_llvm_mc_reads_it() -> None:
    needs_tool("llvm-mc")
    count = 0
    for item in Reader(trace_of("aarch64-hello")):
        if not isinstance(item, KernelView):
            continue
        assert item.mapping is not None
        assert item.mapping.problem == ""
        names = item.symbols.get
        for addr, code in item.info.functions():
            ours = list(native.disassemble(code, addr, item.machine, name=names))
            theirs = llvm_mc(code, "aarch64")
            assert len(ours) == len(theirs)
            for insn, their in zip(ours, theirs, strict=True):
                mnemonic, _, operands = insn.text.partition(" ")
                assert mnemonic == their.mnemonic
                if mnemonic not in ("ldr", "b", "bl") or "[" in operands:
                    assert same_operands(operands, their.operands), (insn, their)
                count += 1
            shown = {insn.target for insn in ours if insn.target is not None}
            assert shown <= set(native_targets.aarch64(code, addr))
            called = [insn.text for insn in ours if insn.text.startswith("blr")]
            assert called == ["blr    x10 <bpf_trace_printk>"]
    assert count > 30


def test_the_lessons_program_and_its_tag() -> None:
    (load,) = [
        line
        for line in jsonl(LESSON)
        if line["type"] == "syscall" and line.get("fd", {}).get("name") == "hello_world"
    ]
    attr = load["args"]["attr"]
    assert (attr["prog_type"], attr["insn_cnt"]) == ("BPF_PROG_TYPE_KPROBE", 13)
    assert load["fd"]["tag"] == "38dd440716c4900f"  # the kernel's, as bpftool lists it
    assert load["tag"]["sha1"] == "38dd440716c4900f"  # ours, of the instructions
    assert (load["ret"], load["fd"]["kind"]) == (4, "prog")


def test_the_lessons_four_steps() -> None:
    """Load, the PMU's type, the event, attach; then it is enabled."""
    lines = jsonl(LESSON)
    (attached,) = [
        line for line in lines if line["type"] == "attachment" and line["verb"] == "attached"
    ]
    assert attached["prog"]["name"] == "hello_world"
    assert attached["target"] == "kprobe do_sys_openat2"
    assert [step["role"] for step in attached["steps"]] == [
        "load", "type", "event", "attach", "enable",
    ]  # fmt: skip
    seqs = [step["seq"] for step in attached["steps"]]
    assert seqs == sorted(seqs)
    by_seq = {line["seq"]: line for line in lines if line["type"] == "syscall"}
    load, kind, event, attach, enable = (by_seq[seq] for seq in seqs)
    assert load["args"]["cmd"] == "BPF_PROG_LOAD"
    assert "/sys/bus/event_source/devices/kprobe/type" in json.dumps(kind["args"])
    assert event["syscall"] == "perf_event_open"
    assert "do_sys_openat2" in json.dumps(event["args"]["attr"])
    assert (attach["args"]["request"], attach["args"]["fd"], attach["args"]["arg"]) == (
        "PERF_EVENT_IOC_SET_BPF", event["ret"], load["ret"],
    )  # fmt: skip
    assert (enable["args"]["request"], enable["args"]["fd"]) == (
        "PERF_EVENT_IOC_ENABLE", event["ret"],
    )  # fmt: skip
    words = ["BPF_PROG_LOAD, {", "(95) exit", "kprobe/type", "perf_event_open({", "_SET_BPF"]
    words += ["_ENABLE", "attached"]
    assert len(list(_in_order(words, text(LESSON)))) == len(words)
    assert "hello_world" in text(LESSON)


# ------------------------------------------------------------------ no BPF, no root

AS_NOBODY = """
import os, pkgutil, importlib, sys
import bpftrace_sys, decoders
for package in (bpftrace_sys, decoders):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
import gzip
if os.geteuid() == 0:
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
    assert "CapEff:\\t0000000000000000" in open("/proc/self/status").read()
from bpftrace_sys.cli.main import main
sys.exit(main(["replay", "-"]))
"""


@pytest.mark.live
def test_replay_needs_no_privileges_and_no_bpf(tmp_path: Path) -> None:
    """As nobody, and strace sees no call that would ask anything of the kernel's BPF."""
    needs_tool("strace")
    log = tmp_path / "strace"
    calls = "bpf,perf_event_open,ptrace,process_vm_readv,kcmp,setns,socket,mount"
    with open(trace_of(LESSON), "rb") as file:
        done = subprocess.run(
            ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={calls}",
             "-e", "signal=none", sys.executable, "-c", AS_NOBODY],
            stdin=file, capture_output=True, text=True, env=environment(), check=False,
        )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == text(LESSON)
    assert log.read_text() == ""


def test_a_recording_can_be_made_again(tmp_path: Path, needs_bpf: None) -> None:
    """One of them: the script, the manifest and the program still fit together."""
    needs_tool("clang", "bpftool", "llvm-strip")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "record.py"), "--out", str(tmp_path), "eperm"],
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    made = tmp_path / "eperm" / record.TRACE

    def shape(trace: str | Path) -> list[tuple[Any, ...]]:
        with gzip.open(trace, "rt") as file:
            lines = [json.loads(line) for line in file]
        return [
            (line["args"]["cmd"], line.get("errno"))
            for line in lines
            if line["type"] == "syscall" and line["syscall"] == "bpf"
        ]

    assert shape(made)
    assert shape(made) == shape(trace_of("eperm"))


@pytest.mark.parametrize("name", ["aarch64-hello", "aarch64-cgroup"])
def test_aarch64_has_its_own_numbers(name: str) -> None:
    """The kernel's numbers of that architecture, by hand: include/uapi/asm-generic/unistd.h."""
    numbers = {"bpf": 280, "perf_event_open": 241, "ioctl": 29, "openat": 56}
    calls = [line for line in jsonl(name) if line["type"] == "syscall"]
    assert {call["raw"]["arch"] for call in calls} == {0xC00000B7}  # AUDIT_ARCH_AARCH64
    assert {(call["syscall"], call["raw"]["nr"]) for call in calls} <= set(numbers.items())


def test_aarch64_has_its_own_open_flags() -> None:
    """O_DIRECTORY is 040000 there, which is O_DIRECT on x86-64."""
    (call,) = [line for line in jsonl("aarch64-cgroup") if line.get("syscall") == "openat"]
    assert int(call["raw"]["args"][2], 0) == 0o2040000
    assert call["args"]["flags"] == ["O_RDONLY", "O_DIRECTORY", "O_CLOEXEC"]
