"""The instruction decoder, against the kernel, bpftool and LLVM.

What is compared with what: docs/instructions.md.
"""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from decoders.formats import insn as isa
from decoders.formats.insn import CallSite, Insn, calls, insns, targets, written
from decoders.formats.insn_text import InsnNames, comment, disasm, listing, text
from decoders.formats.insn_wordings import VARIANTS, WORDINGS
from decoders.uapi import const, helpers
from tests.support import bpf_asm as asm
from tests.support.bpf_asm import R0, R1, R2, R3, R10
from tests.support.bpf_programs import PROGRAMS


def one(data: bytes) -> str:
    """The text of the first instruction."""
    return text(next(insns(data)))


# ---------------------------------------------------------------------------
# The encoding


def test_the_numbers_are_the_headers() -> None:
    ours = {f"BPF_{name}": value for name, value in vars(isa).items() if isinstance(value, int)}
    theirs = {name: value for name, value in vars(const).items() if name.startswith("BPF_PSEUDO_")}
    assert theirs.items() <= ours.items()
    assert len(theirs) >= 8


def test_a_wide_instruction_takes_two_slots() -> None:
    data = asm.mov(R1, -1) + asm.ld_imm64(R2, 0xFEDCBA9876543210) + asm.exit_()
    first, wide, last = insns(data)
    assert first == Insn(0, 0xB7, 1, 0, 0, -1)
    assert (wide.pc, wide.slots, wide.wide, wide.truncated) == (1, 2, True, False)
    assert wide.imm64 == 0xFEDCBA9876543210
    assert (last.pc, last.slots, last.wide) == (3, 1, False)


@pytest.mark.parametrize("kept", range(8, 16))
def test_an_array_that_ends_within_a_wide_instruction(kept: int) -> None:
    data = asm.exit_() + asm.ld_imm64(R1, 0x57202C6F6C6C6548)[:kept]
    _, wide = insns(data)
    assert wide.truncated
    assert wide.slots == 1
    assert text(wide) == "(18) r1 = 0x6c6c6548"
    assert comment(wide) == "its second slot is missing"
    assert list(disasm(data)) == ["   0: (95) exit", "   1: (18) r1 = 0x6c6c6548"]


def test_a_second_slot_that_is_not_empty_is_told() -> None:
    data = asm.ld_imm64(R1, 1)[:8] + asm.mov(R0, 5)
    (wide,) = insns(data)
    assert text(wide) == "(18) r1 = 0x500000001"
    assert comment(wide) == "its second slot is not empty: 0x000000b7"


@given(st.binary(max_size=400))
@example(b"\x18" * 9)
def test_any_bytes_decode(data: bytes) -> None:
    found = list(insns(data))
    slots = [pc for insn in found for pc in range(insn.pc, insn.pc + insn.slots)]
    assert slots == list(range(len(data) // 8))
    names = InsnNames(kfunc=lambda _id, _off: "a\nb", xlated=bool(len(data) % 2))
    lines = list(listing(found, names))
    assert [line.pc for line in lines] == [insn.pc for insn in found]
    for line in (*disasm(data), *(f"{line.text}{line.comment}" for line in lines)):
        assert line.isprintable()
    assert set(targets(found)) <= {insn.pc for insn in found}
    assert {site.pc for site in calls(found)} <= {insn.pc for insn in found}
    assert len(list(disasm(data))) == len(found)


# ---------------------------------------------------------------------------
# The wording, as far as no oracle is needed


def test_the_lessons_listing() -> None:
    program = next(program for program in PROGRAMS if program.name == "stack_string")
    lines = list(listing(insns(program.build(None))))  # type: ignore[arg-type]
    assert [(line.pc, line.text, line.comment) for line in lines] == [
        (0, "(b7) r1 = 33", "!"),
        (1, "(6b) *(u16 *)(r10 -4) = r1", None),
        (2, "(b7) r1 = 1684828783", "orld"),
        (3, "(63) *(u32 *)(r10 -8) = r1", None),
        (4, "(18) r1 = 0x57202c6f6c6c6548", "Hello, W"),
        (6, "(7b) *(u64 *)(r10 -16) = r1", None),
        (7, "(bf) r1 = r10", None),
        (8, "(07) r1 += -16", None),
        (9, "(b7) r2 = 14", None),
        (10, "(85) call bpf_trace_printk#6", None),
        (11, "(b7) r0 = 0", None),
        (12, "(95) exit", None),
    ]


# Forms that Linux 6.18 refuses before it prints anything.
UNSEEN = {
    asm.raw(0x0D, R3): "(0d) gotox r3",
    asm.raw(0xC2): "(c2) nospec",
    asm.raw(0xDA): "(da) nospec",
    asm.raw(0x99, R1, R2, -8): "(99) r1 = *((null) *)(r2 -8)",
    asm.raw(0x38, imm=-4): "(38) r0 = *(u64 *)skb[-4]",
    asm.raw(0x96): "(96) if w0 exit 0x0 goto pc+0",
    asm.raw(0x0E, R1, R2): "(0e) if w1 jmp w2 goto pc+0",
    asm.raw(0xE5, R1, R2, 3, -1): "(e5) if r1 (null) 0xffffffff goto pc+3",
    asm.raw(0xE7, R1, imm=4): "(e7) r1 (null) 4",
    asm.raw(0x86, imm=6): "(86) call bpf_trace_printk#6",
    asm.raw(0x85, 0, 7, 0, 6): "(85) call unknown#6",
    asm.raw(0x00): "BUG_ld_00",
    asm.raw(0x01): "BUG_ldx_01",
    asm.raw(0xE2): "BUG_st_e2",
    asm.raw(0x03): "BUG_03",
}


@pytest.mark.parametrize(("data", "wanted"), UNSEEN.items(), ids=UNSEEN.values())
def test_forms_that_the_kernel_does_not_let_us_see(data: bytes, wanted: str) -> None:
    assert one(data) == wanted


def test_every_code_has_a_wording() -> None:
    assert len(WORDINGS) == 256
    for code, wording in enumerate(WORDINGS):
        if wording.startswith("BUG_"):
            assert wording.endswith(f"_{code:02x}")
        else:
            assert wording.startswith(f"({code:02x}) ")
    assert all(
        wording.startswith(f"({code:02x}) ")
        for code, variants in VARIANTS.items()
        for wording in variants.wordings.values()
    )


def test_helpers_are_named() -> None:
    assert one(asm.call(0)) == "(85) call bpf_unspec#0"
    for number, name in helpers.bpf_func_id.items():
        assert one(asm.call(number)) == f"(85) call bpf_{name}#{number}"
    assert one(asm.call(len(helpers.bpf_func_id) + 1000)).startswith("(85) call unknown#")


# ---------------------------------------------------------------------------
# Comments, targets, calls


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (asm.mov(R1, 33) + asm.store("u16", R10, -4, R1), "!"),
        (asm.mov(R1, 33) + asm.store("u8", R10, -4, R1), "!"),
        (asm.mov(R1, 33) + asm.store("u32", R10, -4, R1), None),  # more likely a number
        (asm.mov(R1, 33) + asm.store("u16", R10, -4, R2), None),
        (asm.mov(R1, 33), None),
        (asm.mov(R1, 0) + asm.store("u16", R10, -4, R1), None),
        (asm.mov(R1, 10) + asm.store("u16", R10, -4, R1), None),  # a newline alone
        (asm.mov(R1, 0x0A21) + asm.store("u32", R10, -4, R1), "!\\n"),
        (asm.mov(R1, 0x3031), None),
        (asm.mov(R1, 0x00636261), "abc"),
        (asm.mov(R1, 0x61006162), None),  # a NUL in the middle
        (asm.mov(R1, 0x2F2A2F2A), "*\\/*\\/"),
        (asm.alu("mov", R1, 0x646C726F, wide=False), "orld"),
        (asm.alu("add", R1, 0x646C726F), None),
        (asm.store_imm("u32", R10, -4, 0x646C726F), "orld"),
        (asm.store_imm("u64", R10, -8, 0x646C726F), "orld"),
        (asm.store_imm("u8", R10, -4, 0x646C7241), "A"),
        (asm.store_imm("u32", R10, -4, 42), None),
        (asm.ld_imm64(R1, 0x0A646C726F77206F), "o world\\n"),
        (asm.ld_imm64(R1, 0x6261), None),
        (asm.ld_imm64(R1, 0x2020202020202020), None),
        (asm.ld_imm64(R1, 0xFF20202020202041), None),
        (asm.ld_imm64(R1, 5, asm.MAP_FD), "map fd 5 counts"),
        (asm.ld_imm64(R1, 6, asm.MAP_FD), "map fd 6"),
        (asm.ld_imm64(R1, 5, asm.MAP_VALUE, 16), "map fd 5 counts, value +16"),
        (asm.ld_imm64(R1, 77, asm.BTF_ID, 0), "BTF id 77 runqueues"),
        (asm.ld_imm64(R1, 4, asm.FUNC, 0), "callback at 5 each\\x1b"),
        (asm.ld_imm64(R1, 1, asm.MAP_IDX), "map fd_array[1] jumps"),
        (asm.ld_imm64(R1, 2, asm.MAP_IDX_VALUE, -8), "map fd_array[2], value -8"),
        (asm.ld_imm64(R1, 2, 9), "src_reg 9 has no meaning"),
    ],
)
def test_comments(data: bytes, wanted: str | None) -> None:
    names = InsnNames(
        maps={5: "counts"},
        fd_array={1: "jumps"},
        subprogs={5: "each\x1b"},
        variable=lambda number, _: "runqueues" if number == 77 else None,
    )
    first, *rest = insns(data)
    assert comment(first, names, rest[0] if rest else None) == wanted


def test_names_of_calls() -> None:
    names = InsnNames(
        subprogs={12: "inner"},
        kfunc=lambda number, off: {(70, 0): "bpf_rcu_read_lock", (70, 1): "mine"}.get(
            (number, off)
        ),
    )

    def named(data: bytes) -> str:
        return text(next(insns(data))._replace(pc=10), names)

    assert named(asm.call(1, asm.CALL_SUBPROG)) == "(85) call pc+1#inner"
    assert named(asm.call(2, asm.CALL_SUBPROG)) == "(85) call pc+2"
    assert named(asm.call(70, asm.CALL_KFUNC)) == "(85) call bpf_rcu_read_lock#70"
    assert named(asm.call(70, asm.CALL_KFUNC, 1)) == "(85) call mine#70"
    assert named(asm.call(71, asm.CALL_KFUNC)) == "(85) call kernel-function#71"
    assert named(asm.call(6)) == "(85) call bpf_trace_printk#6"


def test_targets_and_calls() -> None:
    data = (
        asm.jmp("jeq", R1, 0, 3)  # 0 -> 4
        + asm.ld_imm64(R2, 6, asm.FUNC, 0)  # 1 -> 8
        + asm.call(6, asm.CALL_SUBPROG)  # 3 -> 10
        + asm.gotol(1)  # 4 -> 6
        + asm.call(6)  # 5
        + asm.call(900, asm.CALL_KFUNC, 2)  # 6
        + asm.exit_()
        + asm.may_goto(1)  # 8 -> 10, also a subprogram
        + asm.goto(100)  # 9 -> nowhere
        + asm.exit_()  # 10
    )
    program = list(insns(data))
    assert targets(program) == {4: "jump", 6: "jump", 8: "callback", 10: "subprog"}
    assert list(calls(program)) == [
        CallSite(3, "subprog", 10),
        CallSite(5, "helper", 6),
        CallSite(6, "kfunc", 900, 2),
    ]
    assert [line.target for line in listing(program)][-1] == "subprog"


def test_a_tail_call_says_where_it_goes() -> None:
    to = asm.ld_imm64(R2, 5, asm.MAP_FD) + asm.mov(R3, 3)
    names = InsnNames(maps={5: "jumps"})

    def said(data: bytes) -> str | None:
        return [line.comment for line in listing(insns(data), names)][-1]

    assert said(to + asm.call(12)) == "map fd 5 jumps, index 3"
    assert said(to + asm.load("u32", R3, R1, 0) + asm.call(12)) == "map fd 5 jumps"
    assert said(to + asm.mov_reg(R2, R1) + asm.call(12)) is None
    assert said(to + asm.call(7) + asm.call(12)) is None
    # Another path leads to the call, so what was set before it says nothing.
    assert said(asm.jmp("jeq", R1, 0, 3) + to + asm.call(12)) is None


@pytest.mark.parametrize(
    ("data", "registers"),
    [
        (asm.mov(R1, 0), {1}),
        (asm.ld_imm64(R2, 0), {2}),
        (asm.load("u8", R3, R1, 0), {3}),
        (asm.store("u8", R3, 0, R1), set()),
        (asm.ld_abs("u8", 0), {0, 1, 2, 3, 4, 5}),
        (asm.call(1), {0, 1, 2, 3, 4, 5}),
        (asm.atomic("add", "u64", R3, 0, R1), set()),
        (asm.atomic("fetch_add", "u64", R3, 0, R1), {1}),
        (asm.atomic("xchg", "u64", R3, 0, R1), {1}),
        (asm.atomic("cmpxchg", "u64", R3, 0, R1), {0}),
        (asm.atomic("load_acquire", "u64", R3, 0, R1), {3}),
        (asm.atomic("store_release", "u64", R3, 0, R1), set()),
        (asm.jmp("jeq", R1, 0, 0), set()),
    ],
)
def test_registers_written(data: bytes, registers: set[int]) -> None:
    assert written(next(insns(data))) == registers


def test_a_million_instructions_take_seconds() -> None:
    data = asm.mov(R1, 5) + asm.ld_imm64(R2, 77) + asm.jmp("jeq", R1, 0, -3)
    data = data * (1_000_000 // 4)
    start = time.process_time()
    assert sum(1 for _ in disasm(data)) == 750_000
    assert time.process_time() - start < 10  # 0.8 s where it was written
