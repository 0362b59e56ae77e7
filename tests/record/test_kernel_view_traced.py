"""-e kernel= on traced programs: recorded, shown, replayed, and which instruction became which."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.story import kernel_view
from bpftrace_sys.trace.kernel_view import KernelView
from bpftrace_sys.trace.reader import Reader
from decoders.formats import insn as isa
from decoders.formats.ctx_flow import accesses
from decoders.formats.prog_info import ProgInfo
from decoders.raw import RawCall
from tests.support import bpf_asm as asm
from tests.support.bpftool_view import bpftool, under_bpfstrace
from tests.support.needs import needs_tool
from tests.support.running import ROOT, Ran, environment, run_cli
from tests.support.schema import check

PROGRAM = [sys.executable, "-m", "tests.tracees.kernel_view_programs"]


DUMPED = ("subprogs", "callback", "tail_call", "array_lookup", "ctx_xdp", "ctx_moved")
"""Programs that bpftool dumps meanwhile; test_kernel_view.py has all others."""


@dataclass
class Traced:
    """A trace of kernel_view_programs, and bpftool's dumps taken while they were loaded."""

    ran: Ran
    path: Path
    ids: dict[str, int]
    dumps: dict[str, list[dict[str, Any]]]

    def view(self, name: str) -> dict[str, Any]:
        """The line of a program."""
        (found,) = [
            line for line in self.ran.lines
            if line["type"] == "kernel_view" and line["prog"]["id"] == self.ids[name]
        ]  # fmt: skip
        return found


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, needs_bpf: None) -> Traced:
    folder = tmp_path_factory.mktemp("kernel_view")
    release = folder / "release"
    with under_bpfstrace(
        folder, ["-e", "kernel=xlated,jited,map"], [*PROGRAM, "--wait", str(release)]
    ) as (process, ran):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        ids: dict[str, int] = json.loads(line)["ids"]
        dumps = {}
        if shutil.which("bpftool") is not None:
            dumps = {
                name: bpftool("prog", "dump", "xlated", "id", str(number))
                for name, number in ids.items()
                if name in DUMPED
            }
        release.touch()
    assert (ran.code, ran.stderr) == (0, "")
    return Traced(ran, folder / "trace.jsonl", ids, dumps)


def test_every_load_has_a_view(traced: Traced) -> None:
    loads = [
        line["seq"] for line in traced.ran.calls("BPF_PROG_LOAD") if line["ret"] is not None
        and line["ret"] >= 0
    ]  # fmt: skip
    views = [line for line in traced.ran.lines if line["type"] == "kernel_view"]
    assert len(traced.ids) > 15
    assert [line["seq"] for line in views] == loads
    assert {line["prog"]["id"] for line in views} >= set(traced.ids.values())
    # Right behind its load, but for facts.
    order = [line for line in traced.ran.lines if line["type"] in ("syscall", "kernel_view")]
    for before, line in pairwise(order):
        if line["type"] == "kernel_view":
            assert before["seq"] == line["seq"]


def test_the_lines_are_as_the_schema_says(traced: Traced) -> None:
    check(traced.ran.lines)


def test_translated_as_bpftool_printed_it_meanwhile(traced: Traced) -> None:
    if not traced.dumps:
        pytest.skip("bpftool is not installed")
    lines = same = 0
    for name, dump in traced.dumps.items():
        ours = [row["text"] for row in traced.view(name)["xlated"]]
        theirs = [row["disasm"] for row in dump if "disasm" in row]
        assert len(ours) == len(theirs), name
        lines += len(ours)
        same += sum(one == other for one, other in zip(ours, theirs, strict=True))
    # What differs is named in test_kernel_view.py: forms newer than bpftool 7.1, kfuncs' names.
    assert same > lines * 3 // 4 > 40


def test_replay_prints_and_writes_the_same(traced: Traced, tmp_path: Path) -> None:
    again = tmp_path / "again.jsonl"
    done = run_cli(
        "replay", "-e", "kernel=xlated,jited,map", "--json", str(again), str(traced.path)
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert again.read_bytes() == traced.path.read_bytes()
    assert done.stdout == traced.ran.text
    assert "native code" not in run_cli("replay", str(traced.path)).stdout


def test_intel_syntax_and_chosen_programs(traced: Traced) -> None:
    done = run_cli(
        "replay", "-q", "--no-insns", "-e", "kernel=jited,intel", "-e", "prog=array_lookup",
        str(traced.path),
    )  # fmt: skip
    assert done.stdout.count("native code  ") == 1
    if os.uname().machine == "x86_64":
        assert "mov    rbp, rsp" in done.stdout


def test_without_views_replay_says_so(tmp_path: Path) -> None:
    path = ROOT / "fixtures" / "xdp-link" / "trace.jsonl.gz"
    done = run_cli("replay", "-e", "kernel=xlated", "-o", os.devnull, str(path))
    assert "it is recorded with -e kernel=" in done.stderr


@pytest.mark.parametrize("words", ["kernel=", "kernel=none", "kernel=xlated,nothing"])
def test_wrong_words_are_named(words: str) -> None:
    done = run_cli("-e", words, "true")
    assert done.returncode == 2
    assert "xlated, jited, map" in done.stderr


# ---------------------------------------------------------------------------
# Which became which


def loads_and_views(path: Path) -> list[tuple[list[isa.Insn], KernelView]]:
    """The instructions that were passed, and the views of them."""
    found = []
    load: RawCall | None = None
    for item in Reader(str(path)):
        if isinstance(item, RawCall):
            load = item
        elif isinstance(item, KernelView):
            assert load is not None
            chunks = {chunk.addr: chunk.data for chunk in load.chunks}
            attr = chunks[load.args[1]]
            insns = chunks[int.from_bytes(attr[8:16], "little")]
            found.append((list(isa.insns(insns)), item))
    return found


def test_jumps_land_on_the_image_of_their_target(traced: Traced) -> None:
    jumps = programs = 0
    for insns, view in loads_and_views(traced.path):
        mapping = view.mapping
        assert mapping is not None
        assert mapping.problem == "", view.info.name
        programs += 1
        after = {insn.pc: insn for insn in isa.insns(view.info.xlated)}
        for insn in insns:
            distance = isa.jump_distance(insn)
            image = mapping.images.get(insn.pc)
            if distance is None or image is None or image not in after:
                continue
            target = mapping.images.get(insn.pc + 1 + distance)
            theirs = isa.jump_distance(after[image])
            if target is None or theirs is None:
                continue  # may_goto becomes a counter; a branch never taken is gone
            assert image + 1 + theirs == target, (view.info.name, insn)
            jumps += 1
    assert programs > 15
    assert jumps > 50


def test_every_image_is_an_instruction_and_in_order(traced: Traced) -> None:
    for insns, view in loads_and_views(traced.path):
        assert view.mapping is not None
        images = view.mapping.images
        starts = {insn.pc for insn in isa.insns(view.info.xlated)}
        order = [images[insn.pc] for insn in insns if insn.pc in images]
        assert set(order) <= starts
        assert order == sorted(set(order))


def fates(traced: Traced, name: str) -> list[tuple[str, int | None, list[int]]]:
    return [(row["what"], row.get("pc"), row["xlated"]) for row in traced.view(name)["map"]]


def test_dead_code_is_removed(traced: Traced) -> None:
    assert fates(traced, "dead_code") == [
        ("unchanged", 0, [0]),
        ("changed", 1, [1]) if len(traced.view("dead_code")["xlated"]) == 4 else
        ("removed", 1, []),
        ("removed", 2, []),
        ("removed", 3, []),
        ("unchanged", 4, [len(traced.view("dead_code")["xlated"]) - 2]),
        ("unchanged", 5, [len(traced.view("dead_code")["xlated"]) - 1]),
    ]  # fmt: skip


def test_context_accesses_are_rewritten(traced: Traced) -> None:
    found = fates(traced, "ctx_xdp")
    assert [what for what, _, _ in found[:3]] == ["changed", "changed", "grown"]
    assert [len(image) for _, _, image in found[:3]] == [1, 1, 3]
    assert [what for what, _, _ in found[3:]] == ["unchanged", "unchanged"]
    skb = fates(traced, "ctx_skb")
    assert {what for what, _, _ in skb[:2]} <= {"changed", "grown"}


def test_what_we_take_for_the_context_the_verifier_does_too(traced: Traced) -> None:
    """It rewrites each access to a struct of the UAPI, and to nothing else of these programs."""
    by_id = {number: name for name, number in traced.ids.items()}
    told = 0
    for insns, view in loads_and_views(traced.path):
        name = by_id.get(view.info.id, "")
        if view.info.type not in (1, 6) or name not in traced.ids:  # socket filter, XDP
            continue
        ours = {access.pc for access in accesses(insns)}
        after = {pc: what for what, pc, _ in fates(traced, name)}
        rewritten = {
            insn.pc
            for insn in insns
            if insn.code & 7 in (isa.LDX, isa.ST, isa.STX)
            and after[insn.pc] in ("changed", "grown")
        }
        assert ours <= rewritten | {pc for pc, what in after.items() if what == "removed"}, name
        if name.startswith("ctx_"):
            assert ours == rewritten, name
            told += len(ours)
    assert told == 8


def test_a_lookup_is_written_out(traced: Traced) -> None:
    found = fates(traced, "array_lookup")
    call = next(image for what, pc, image in found if pc == 5)
    text = [row["text"] for row in traced.view("array_lookup")["xlated"] if row["pc"] in call]
    assert len(text) > 3
    assert not any("call" in line for line in text)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86-64's code by hand")
def test_native_code_stands_beside_what_it_was_made_of(traced: Traced) -> None:
    """The lesson's program, by hand: which bytes each instruction is compiled to."""
    rows = traced.view("stack_string")
    text = {row["offset"]: row["text"] for row in rows["jited"][0]["insns"]}
    by_pc = {row["pc"]: [text[at] for at in row["jited"]] for row in rows["map"]}
    assert by_pc[0][-1] == "mov    $0x21,%edi"
    assert "push   %rbp" in by_pc[0]
    assert by_pc[1] == ["mov    %di,-0x4(%rbp)"]
    assert by_pc[2] == ["mov    $0x646c726f,%edi"]
    assert by_pc[3] == ["mov    %edi,-0x8(%rbp)"]
    assert by_pc[4] == ["movabs $0x57202c6f6c6c6548,%rdi"]
    assert by_pc[6] == ["mov    %rdi,-0x10(%rbp)"]
    assert by_pc[7] == ["mov    %rbp,%rdi"]
    assert by_pc[9] == ["mov    $0xe,%esi"]
    assert "<bpf_trace_printk>" in by_pc[10][0]
    assert by_pc[11] == ["xor    %eax,%eax"]
    assert by_pc[12][0] == "leave"


def test_a_copy_that_cannot_be_is_said(tmp_path: Path) -> None:
    """A map that is gone when the copy is to be loaded."""
    from bpftrace_sys.record.machine import prog_info
    from bpftrace_sys.record.machine.copied_load import mapping
    from decoders.raw import AUDIT_ARCH_X86_64, ENTRY, Chunk, FdFact

    with asm.prog_load(asm.mov(0, 0) + asm.exit_(), "socket_filter") as program:
        info = prog_info.fetch(program.fd)
    code = asm.ld_imm64(1, 9, asm.MAP_FD) + asm.mov(0, 0) + asm.exit_()
    attr = (1).to_bytes(4, "little") + (4).to_bytes(4, "little") + (0x1000).to_bytes(8, "little")
    raw = RawCall(
        1, 0, 1, 1, "x", AUDIT_ARCH_X86_64, 321, (5, 0x2000, len(attr), 0, 0, 0), 3,
        chunks=[Chunk(ENTRY, 0x2000, attr, len(attr)), Chunk(ENTRY, 0x1000, code, len(code))],
        fds=[FdFact(9, ENTRY, "map", {"map_id": 0x7FFFFFFF})],
    )  # fmt: skip
    assert "map id=2147483647 cannot be opened" in mapping(raw, info).problem
    raw.fds = []
    assert "its fd 9 was is not known" in mapping(raw, info).problem
    raw.chunks = []
    assert "its attr was not seen" in mapping(raw, info).problem


def test_btf_that_was_not_traced_is_fetched_with_the_program() -> None:
    done = run_cli(
        "-q", "--no-insns", "-e", "bpf=prog_load", "-e", "kernel=xlated",
        sys.executable, "-m", "bpftrace_sys.hello", cwd=ROOT,
    )  # fmt: skip
    assert "BPF_BTF_LOAD" not in done.stderr
    assert '; bpf_trace_printk("Hello, World!");' in done.stderr


# ---------------------------------------------------------------------------
# What stands in the way


def without(capability: str, *words: str) -> str:
    """What bpfstrace prints of the hello world, both without a capability of root's."""
    needs_tool("setpriv")
    done = subprocess.run(
        ["setpriv", f"--bounding-set=-{capability}", f"--inh-caps=-{capability}",
         sys.executable, "-m", "bpftrace_sys", "-q", "--no-insns", *words,
         sys.executable, "-m", "bpftrace_sys.hello"],
        capture_output=True, text=True, env=environment(), cwd=ROOT, check=True,
    )  # fmt: skip
    return done.stderr


def test_without_syslog_addresses_are_hidden_and_no_name_is_wrong() -> None:
    restrict = Path("/proc/sys/kernel/kptr_restrict")
    before = restrict.read_text()
    # kallsyms_show_value(): at 0 it is the profiler's paranoia that decides.
    paranoid = int(Path("/proc/sys/kernel/perf_event_paranoid").read_text())
    change = int(before) == 0 and paranoid <= 1
    if change:
        restrict.write_text("1")  # means nothing to who has CAP_SYSLOG
    try:
        said = without("syslog", "-e", "kernel=xlated,jited")
    finally:
        if change:
            restrict.write_text(before)
    assert "kernel: its native code is hidden: this needs CAP_SYSLOG" in said
    assert "kernel: names of what it calls are hidden" in said
    assert "(85) call hidden#0" in said
    assert "unspec" not in said
    assert "native code  " not in said


def test_without_sys_admin_the_fd_still_gives_all_but_the_copy() -> None:
    said = without("sys_admin", "-e", "kernel=xlated,jited,map")
    assert "<bpf_trace_printk>" in said
    assert '; bpf_trace_printk("Hello, World!");' in said
    assert re.search(r"not known: its btf id=\d+ cannot be opened: Operation not permitted", said)


BOUND = """
import ctypes, socket, struct
from tests.support import bpf_asm as asm
code = ctypes.create_string_buffer(asm.mov(0, 2) + asm.exit_())
gpl = ctypes.create_string_buffer(b"GPL")
attr = struct.pack("<IIQQIIQII16sII", 6, 2, ctypes.addressof(code), ctypes.addressof(gpl),
                   0, 0, 0, 0, 1 << 6, b"bound", socket.if_nametoindex("bound0"), 37)
asm.bpf(5, attr + bytes(144 - len(attr)))
"""


def test_a_program_that_is_bound_to_a_device() -> None:
    """BPF_F_XDP_DEV_BOUND_ONLY (Linux 6.3): the kernel's own code, but no copy without care."""
    needs_tool("ip", "unshare")
    script = (
        "ip link add bound0 type veth peer name bound1 && "
        '"$0" -m bpftrace_sys -q --no-insns -e kernel=xlated,jited,map "$0" -c "$1"'
    )
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", script, sys.executable, BOUND],
        capture_output=True, text=True, env=environment(), cwd=ROOT,
    )  # fmt: skip
    if "Invalid argument" in done.stderr:
        pytest.skip("this kernel binds no programs to such devices")
    assert "not known: it is bound to a device" in done.stderr
    assert "translated  bound id=" in done.stderr
    assert "native code  bound id=" in done.stderr


def test_of_an_offloaded_program_there_is_no_native_code_to_show() -> None:
    """Of one on a card the kernel gives the card's code, and no symbols."""
    head = bytearray(232)
    head[16:20] = (8).to_bytes(4, "little")  # jited_prog_len
    head[20:24] = (16).to_bytes(4, "little")  # xlated_prog_len
    head[80:84] = (3).to_bytes(4, "little")  # ifindex
    arrays = {"jited_prog_insns": bytes(8), "xlated_prog_insns": asm.mov(0, 2) + asm.exit_()}
    view = KernelView(0, ProgInfo(bytes(head), arrays), "x86_64")
    assert kernel_view.native(view, kernel_view.Known()) == []
    said = list(kernel_view.reasons(view))
    assert any("offloaded to the device with ifindex 3" in line for line in said)


# ---------------------------------------------------------------------------
# Cost, and what is imported


def test_capstone_is_imported_only_for_native_code(tmp_path: Path) -> None:
    trap = tmp_path / "capstone.py"
    trap.write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\nraise ImportError\n")
    env = environment()
    env["PYTHONPATH"] = f"{tmp_path}:{env['PYTHONPATH']}"
    program = [sys.executable, "-m", "bpftrace_sys.hello"]
    words = [sys.executable, "-m", "bpftrace_sys", "-e"]
    for chosen, imported in (("kernel=xlated,map", False), ("kernel=jited", True)):
        done = subprocess.run(
            [*words, chosen, *program], env=env, capture_output=True, text=True, cwd=ROOT
        )
        assert (tmp_path / "imported").exists() is imported, done.stderr
    assert "pip install 'bpfstrace[jit]'" in done.stderr


def test_the_fetch_is_quick(needs_bpf: None) -> None:
    from bpftrace_sys.record.machine import prog_info

    with asm.prog_load(asm.mov(0, 0) * 2000 + asm.exit_(), "socket_filter") as program:
        best = 1e9
        for _ in range(200):
            began = time.perf_counter()
            prog_info.fetch(program.fd)
            best = min(best, time.perf_counter() - began)
    assert best < 0.02
