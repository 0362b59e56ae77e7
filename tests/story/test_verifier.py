"""The verifier's verdict, read from logs of the running kernel and of others."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftrace_sys.record.capture.copying import Recorder
from bpftrace_sys.story.verifier.scan import place
from bpftrace_sys.story.verifier.verdict import verdict
from decoders.raw import ENTRY, EXIT, Chunk
from decoders.walk.memory import Snapshot
from tests.support import bpf_asm as asm
from tests.support.running import TRACEES, Ran

LOGS = Path(__file__).parent / "verifier_logs"

R0, R1, R2, R3, R6, R9, R10 = 0, 1, 2, 3, 6, 9, 10
REJECTED: dict[str, tuple[bytes, int | None, str]] = {
    "unset register": (asm.mov(R1, 1) + asm.mov_reg(R0, R2) + asm.exit_(), 1, "R2 !read_ok"),
    "beyond the stack": (asm.load("u64", R0, R10, 8) + asm.exit_(), 0, "invalid read from stack"),
    "beyond the context": (
        asm.mov(R0, 0) + asm.load("u32", R0, R1, 2000) + asm.exit_(),
        1,
        "invalid bpf_context access off=2000 size=4",
    ),
    "far jump": (asm.goto(10) + asm.mov(R0, 0) + asm.exit_(), 0, "jump out of range"),
    "unreachable": (
        asm.goto(1) + asm.exit_() + asm.mov(R0, 0) + asm.exit_(), 1, "unreachable insn 1",
    ),
    "opcode": (asm.raw(0xFF) + asm.exit_(), None, "unknown opcode ff"),
    "helper": (asm.raw(0x85, imm=9999) + asm.exit_(), 0, "invalid func unknown#9999"),
    "after a call": (
        asm.raw(0x85, imm=7) + asm.mov_reg(R3, R2) + asm.mov(R0, 0) + asm.exit_(), 1, "R2 !read_ok",
    ),
    "in a branch": (
        asm.mov(R0, 5) + asm.load("u32", R6, R1, 0) + asm.jmp("jeq", R6, 3, 1)
        + asm.mov_reg(R0, R9) + asm.exit_(),
        3,
        "R9 !read_ok",
    ),
    "no exit": (asm.mov(R0, 0), None, "last insn is not an exit or jmp"),
}  # fmt: skip
"""Programs with the instruction that is wrong (None: the kernel names none) and what it says."""


@pytest.mark.parametrize("name", REJECTED)
@pytest.mark.live
def test_the_rejected_instruction(name: str) -> None:
    insns, pc, words = REJECTED[name]
    log = asm.prog_load(insns, log_level=1).log
    found = verdict(log)
    assert found is not None, log
    assert words in found.message
    assert found.pc == pc


@pytest.mark.live
def test_state_before_the_instruction() -> None:
    found = verdict(asm.prog_load(REJECTED["after a call"][0], log_level=1).log)
    assert found is not None
    # What the call left is no value: R2 must not be told as it was before it.
    assert found.state is None


def test_the_log_of_an_older_kernel() -> None:
    log = (
        "func#0 @0\n0: R1=ctx(id=0,off=0,imm=0) R10=fp0\n0: (b7) r2 = 1\n"
        "1: R1=ctx(id=0,off=0,imm=0) R2_w=inv1 R10=fp0\n1: (61) r0 = *(u32 *)(r2 +4)\n"
        "R2 invalid mem access 'inv'\nprocessed 2 insns (limit 1000000) max_states_per_insn 0\n"
    )
    found = verdict(log)
    assert found is not None
    assert (found.message, found.pc) == ("R2 invalid mem access 'inv'", 1)
    assert found.state == "R2_w=inv1"


@given(
    st.lists(
        st.sampled_from(
            ["0: (b7) r0 = 0 ; R0=0", "R1=ctx() R10=fp0", "from 1 to 3: R0=1", "R2 !read_ok",
             "; a line", "7: (85) call x#1", "insn " + "9" * 5000, "R=", "\x1b"]
        )
        | st.text(max_size=20),
        max_size=30,
    )
)  # fmt: skip
def test_any_log(lines: list[str]) -> None:
    """A log is the tracee's memory: whatever stands there is read without an error."""
    verdict("\n".join(lines))


def test_a_long_log_is_no_burden() -> None:
    """Registers by the thousand, and states that grow: no more than a moment."""
    many = " ".join(f"R{number}=1 fp-{number}=2" for number in range(5000))
    log = many + "\n" + "1: (b7) r0 = 0 ; R0=0\n" * 3000 + "R2 !read_ok\n"
    began = time.process_time()
    assert verdict(log) is not None
    assert time.process_time() - began < 5


def test_no_reason_in_the_log() -> None:
    assert verdict("") is None
    assert verdict("processed 2 insns (limit 1000000) max_states_per_insn 0\n") is None



SCALAR = "R1=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))"
LOG_CASES: dict[str, tuple[tuple[str, ...], int, str | None]] = {
    "taken2": (("R0 invalid mem access 'scalar'",), 5, "R0=0"),
    "cb": (
        ("invalid unbounded variable-offset read from stack R2",),
        16,
        "frame1: R2=fp[0](off=-16,smin=0,smax=umax=0x3fffffffc,smax32=0x7ffffffc,"
        "umax32=0xfffffffc,var_off=(0x0; 0x3fffffffc))",
    ),
    "submitted": (("R1 invalid mem access 'scalar'",), 14, SCALAR),
    "loop": (("infinite loop detected at insn 8",), 8, None),
    "leak": (
        (
            "Unreleased reference id=2 alloc_insn=4",
            "BPF_EXIT instruction in main prog would lead to reference leak",
        ),
        9,
        None,
    ),
    "kfunc": (("R0 !read_ok",), 2, None),
    "tail": (("R1 invalid mem access 'scalar'",), 6, SCALAR),
    "badcore": (
        ("invalid func unknown#195896080",),
        1,
        "R1=trusted_ptr_task_struct()",
    ),
}
"""Logs of Linux 6.18: the verdict, the instruction, and what is certain of its registers."""


@pytest.mark.parametrize("name", LOG_CASES)
def test_a_kernels_log(name: str) -> None:
    found = verdict((LOGS / f"{name}.log").read_text())
    assert found is not None
    assert (found.lines, found.pc, found.state) == LOG_CASES[name]


def test_every_log_has_its_case() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == set(LOG_CASES)


def test_a_null_check_settles_the_copies() -> None:
    """R6 is a copy of R0: the check of R0 makes it a value too, and the log prints R0 alone."""
    log = (
        "0: R1=ctx() R10=fp0\n"
        "5: (85) call bpf_map_lookup_elem#1 ; R0=map_value_or_null(id=1,vs=8)\n"
        "6: (bf) r6 = r0   ; R0=map_value_or_null(id=1,vs=8) R6=map_value_or_null(id=1,vs=8)\n"
        "7: (15) if r0 == 0x0 goto pc+1   ; R0=map_value(vs=8)\n8: (79) r0 = *(u64 *)(r6 +8)\n"
        "invalid access to map value, value_size=8 off=8 size=8\n"
        "R6 min value is outside of the allowed memory range\n"
    )
    found = verdict(log)
    assert found is not None
    assert found.state is None
    assert found.lines == (
        "invalid access to map value, value_size=8 off=8 size=8",
        "R6 min value is outside of the allowed memory range",
    )


def test_a_packet_check_moves_all_packet_pointers() -> None:
    log = (
        "0: R1=ctx() R10=fp0\n0: (61) r2 = *(u32 *)(r1 +76) ; R2=pkt(r=0)\n"
        "1: (61) r3 = *(u32 *)(r1 +80) ; R3=pkt_end()\n2: (bf) r4 = r2 ; R2=pkt(r=0) R4=pkt(r=0)\n"
        "3: (07) r4 += 14 ; R4=pkt(off=14,r=0)\n4: (2d) if r4 > r3 goto pc+1 ; R3=pkt_end()\n"
        "5: (71) r0 = *(u8 *)(r2 +14)\n"
        "invalid access to packet, off=14 size=1, R2(id=0,off=14,r=14)\n"
        "R2 offset is outside of the packet\n"
    )
    found = verdict(log)
    assert found is not None
    assert (found.pc, found.state) == (5, None)


def test_a_void_helper_leaves_no_result() -> None:
    log = (
        "0: R1=ctx() R10=fp0\n0: (b7) r0 = 7 ; R0=7\n1: (85) call bpf_ringbuf_submit#132 ;\n"
        "2: (95) exit\nR0 !read_ok\n"
    )
    found = verdict(log)
    assert found is not None
    assert found.state is None


SCANNED: dict[str, tuple[bytes, int, str]] = {
    "opcode": (asm.mov(0, 0) + asm.raw(0xFF) + asm.exit_(), 1, "unknown opcode ff"),
    "map fd": (
        asm.mov(0, 0) + asm.raw(0x18, dst=1, src=1, imm=77) + asm.raw(0) + asm.exit_(),
        1,
        "fd 77 is not pointing to valid bpf_map",
    ),
}


@pytest.mark.parametrize("name", SCANNED)
@pytest.mark.live
def test_a_fault_without_an_index_is_found(name: str) -> None:
    insns, pc, words = SCANNED[name]
    found = verdict(asm.prog_load(insns, log_level=1).log)
    assert found is not None
    assert words in found.message
    assert place(found.lines, insns) == pc


def test_two_instructions_that_fit_are_no_evidence() -> None:
    twice = asm.raw(0xFF) * 2 + asm.exit_()
    assert place(("unknown opcode ff",), twice) is None


# ------------------------------------------------------------------ logs in memory


def test_a_log_that_was_never_written_is_nobodys_word(traced: Callable[..., Ran]) -> None:
    ran = traced([], sys.executable, str(TRACEES / "stale_log.py"))
    refused, rejected = ran.calls("BPF_PROG_LOAD")
    assert refused["explanation"] == ["prog_flags has unknown bits: 0x40000000"]
    assert "stale" not in ran.text
    assert rejected["explanation"][0] == "verifier: R3 !read_ok"


class Buffer:
    """A tracee's memory that is one string, of which the loader gave the size."""

    def __init__(self, addr: int, data: bytes) -> None:
        self.addr = addr
        self.data = data

    def read(self, addr: int, size: int) -> bytes:
        """As LiveMemory.read."""
        return self.data[addr - self.addr : addr - self.addr + size]

    def cstr(self, addr: int, limit: int) -> bytes:
        """As LiveMemory.cstr."""
        return self.read(addr, limit).partition(b"\0")[0]


@pytest.mark.parametrize("length", [0, 10, 99, 100, 101, 5000, 9_000_000])
def test_the_end_of_a_long_string_is_kept(length: int) -> None:
    words = (b"0123456789" * (length // 10 + 1))[:length]
    size, limit = 10_000_000, 100
    memory = Buffer(0x1000, words.ljust(size, b"\0"))
    recorder = Recorder(memory, EXIT, [])  # type: ignore[arg-type]
    start = recorder.late(0x1000, size, limit)
    data, ended = recorder.cstr(start, limit)
    assert (data, ended) == (words[-(limit - 1) :] if length >= limit else words, True)
    replayed = Snapshot(recorder.chunks)
    assert replayed.late(0x1000, size, limit) == start
    assert replayed.cstr(start, limit) == (data, True)


def test_what_the_kernel_did_not_write_is_not_looked_through() -> None:
    memory = Buffer(0x1000, b"x" * 1000)
    chunks = [Chunk(ENTRY, 0x1000, b"x" * 64, 64)]
    asked: list[int] = []
    read = memory.read

    def counted(addr: int, size: int) -> bytes:
        asked.append(size)
        return read(addr, size)

    memory.read = counted  # type: ignore[method-assign]
    assert Recorder(memory, EXIT, chunks).late(0x1000, 1 << 30, 100) == 0x1000  # type: ignore[arg-type]
    assert asked == [64]
