"""Every form of instruction, against the kernel, bpftool, LLVM and the table in the documents."""

from __future__ import annotations

import itertools
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.formats import insn as isa
from decoders.formats.insn import Insn, insns
from decoders.formats.insn_text import InsnNames, listing, text
from decoders.formats.insn_wordings import VARIANTS, WORDINGS
from decoders.uapi import helpers
from tests.support import bpf_asm as asm
from tests.support.bpf_asm import R0, R1, R2, R3, R10
from tests.support.bpf_programs import PROGRAMS, Outcome, Program, loaded
from tests.support.examples import examples
from tests.support.named_tests import functions_of
from tests.support.running import ROOT


@pytest.fixture(scope="module")
def kernel() -> None:
    """Skip where programs cannot be loaded."""
    if reason := asm.why_not():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def live_table(kernel: None) -> None:
    """Skip where the kernel's log has no table of live registers."""
    with loaded(PROGRAMS[0]) as outcome:
        if not outcome.live:
            pytest.skip('this kernel prints no "Live regs before insn:" table (Linux 6.16 does)')


def tool(*names: str) -> str:
    """The first of these programs that is installed; skips where none is."""
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.skip(f"not installed: {' or '.join(names)}")


def function_name(btf_id: int, off: int) -> str | None:
    """The kernel's functions by BTF id."""
    if off:
        return None
    return next(
        (name for name, number in asm.vmlinux_ids("func").items() if number == btf_id), None
    )


def without_address(line: str) -> str:
    """A line with the address out that the verifier has put into an ld_imm64."""
    return re.sub(r"^(\(18\) r\d+ = 0x)[0-9a-f]+$", r"\1", line)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_line_of_the_verifiers_table(live_table: None, program: Program) -> None:
    names = InsnNames(kfunc=function_name)
    with loaded(program) as outcome:
        assert (outcome.fd >= 0) == program.accepted, outcome.log
        ours = {insn.pc: insn for insn in insns(outcome.insns)}
        assert list(outcome.live) == list(ours)
        assert outcome.walked
        for pc, line in (*outcome.live.items(), *outcome.walked):
            insn = ours[pc]
            said = text(insn, names)
            if insn.wide and insn.src not in (0, asm.FUNC):
                # The kernel has the map's or variable's address in its place by then.
                said, line = without_address(said), without_address(line)
            assert said == line


def every_code(codes: range) -> Iterator[tuple[Insn, bytes]]:
    """Each code with many values in its other fields, each in a program of its own."""
    atomics = (*asm.ATOMIC_OPS.values(), 0x02, 0xE0, 0xB0)
    offs = (0, 1, -1, 2, 8, 16, 24, 32)
    tail = asm.mov(R0, 0) + asm.mov(R0, 0) + asm.exit_()
    for code in codes:
        imms = atomics if code & 0xE7 == asm.STX | asm.ATOMIC else (0, 1, 5, -5, 16, 64, 0x10001)
        second = asm.raw(0, imm=7) if code == asm.LD | asm.DW else b""
        for src, off, imm in itertools.product(range(4), offs, imms):
            data = asm.raw(code, R3, src, off, imm) + second + tail
            yield next(insns(data)), data


def test_every_code_that_the_kernel_lists(live_table: None) -> None:
    seen: set[int] = set()
    names = InsnNames(kfunc=function_name)
    for insn, data in every_code(range(256)):
        if insn.code == isa.CALL_K and insn.src == isa.PSEUDO_KFUNC_CALL:
            continue  # these ids name no function; test_every_line... has some that do
        with asm.prog_load(data, "tracepoint", log_level=2, log_size=1 << 14) as result:
            line = Outcome(data, result.fd, result.errno, result.log).live.get(0)
        if line is not None:
            assert text(insn, names) == line
            seen.add(insn.code)
    # The others are refused before there is a listing ("unknown opcode", "reserved fields").
    assert len(seen) >= 100
    assert {0x05, 0x06, 0x18, 0xBF, 0xC3, 0xDB, 0xD7, 0xE5} <= seen


# ---------------------------------------------------------------------------
# The table in the documentation

DOCS = ROOT / "docs" / "instructions.md"
PLACEHOLDERS = {
    "{dst}": "D", "{src}": "S", "{off:+d}": "+OFF", "{imm}": "IMM", "{imm:+d}": "+IMM",
    "{uimm:#x}": "0xIMM", "{imm64:#x}": "0xIMM64", "{name}": "NAME", "{to}": "TO",
    "{origin}": "FROM",
}  # fmt: skip
GENERAL = (
    (r"^\([0-9a-f]{2}\) ", ""),
    (r"^(BUG(?:_\w+)?)_[0-9a-f]{2}$", r"\1_xx"),
    (r"\bwD\b", "rD"),
    (r"\bwS\b", "rS"),
    (r"\b([us])(?:8|16|32|64)\b", r"\1SIZE"),
    (r"\)wS\b", ")rS"),
    (r"atomic64", "atomic"),
    (r"_fetch_\w+", "_fetch_op"),
    (r" s?(?:[-+*/%|&^]|<<|>>)= ", " op= "),
    (r"(?<=^if rD) (?:s?[<>]=?|==|!=|&|jmp|exit) ", " op "),
)


def form(wording: str) -> str:
    """A wording of the tables, with what only differs by code, size or operator made one."""
    for braces, word in PLACEHOLDERS.items():
        wording = wording.replace(braces, word)
    for pattern, word in GENERAL:
        wording = re.sub(pattern, word, wording)
    return wording


def form_of(insn: Insn) -> str:
    """The form that an instruction has."""
    wording = WORDINGS[insn.code]
    if variants := VARIANTS.get(insn.code):
        wording = variants.wordings.get(getattr(insn, variants.by), wording)
    return form(wording)


def test_the_table_of_forms(kernel: None) -> None:
    section = DOCS.read_text().partition("## Every form")[2].partition("\n## ")[0]
    table = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in cells] for cells in table]
    known = {form(wording) for wording in every_wording()}
    assert sorted(row[0].strip("`") for row in rows) == sorted(known)
    built = {}
    for program in PROGRAMS:
        with loaded(program) as outcome:
            built[program.name] = {form_of(insn) for insn in insns(outcome.insns)}
    for wanted, _, programs, other in rows:
        for name in filter(None, programs.split(", ")):
            assert wanted.strip("`") in built[name], f"{name} has no {wanted}"
        for name in re.findall(r"`(test_\w+)`", other):
            assert name in functions_of("test_insn.py") | functions_of("test_insn_oracles.py")
        assert programs or other, f"nothing proves {wanted}"


def every_wording() -> Iterator[str]:
    """All of both tables."""
    yield from WORDINGS
    for variants in VARIANTS.values():
        yield from variants.wordings.values()


# ---------------------------------------------------------------------------
# bpftool, which has the same dialect and prints what no kernel would load

# Answers bpftool's question for a program's instructions with those in a file.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

long syscall(long number, ...)
{
    long (*next)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (number != BPF_NUMBER || a[0] != 15)
        return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    char *info = (char *)(uintptr_t)((uint64_t *)a[1])[1];
    char *insns;
    memcpy(&insns, info + 32, 8);
    long result = next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    FILE *file = fopen(getenv("BPF_INSNS"), "rb");
    fseek(file, 0, SEEK_END);
    uint32_t size = ftell(file);
    rewind(file);
    if (insns)
        size = fread(insns, 1, size, file);
    fclose(file);
    memcpy(info + 20, &size, 4);
    return result;
}
"""


def bpftool_prints(folder: Path, data: bytes) -> list[str]:
    """What ``bpftool prog dump xlated`` makes of these instructions."""
    bpftool = tool("bpftool")
    source, shim, file = folder / "shim.c", folder / "shim.so", folder / "insns"
    number = asm.syscall_number()
    source.write_text(SHIM.replace("BPF_NUMBER", str(number)))
    file.write_bytes(data)
    subprocess.run(
        [tool("cc", "gcc", "clang"), "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True
    )
    with asm.prog_load(asm.mov(R0, 0) + asm.exit_()) as victim:
        run = subprocess.run(
            [bpftool, "prog", "dump", "xlated", "id", str(asm.prog_info(victim.fd).id)],
            env={"LD_PRELOAD": str(shim), "BPF_INSNS": str(file)},
            stdout=subprocess.PIPE,
            check=True,
        )
    return run.stdout.decode().splitlines()


def newer_than_7_1(insn: Insn) -> bool:
    """Forms that bpftool 7.1 (Linux 6.1) does not know, or words otherwise."""
    variants = VARIANTS.get(insn.code)
    return (
        (insn.code & 0xF7) in (0xD7,)  # bswap
        or insn.code & 0xE7 == isa.LDX | isa.MEMSX
        or insn.code in (isa.GOTOL, isa.GOTOX)
        or (insn.code & 0xF0 == isa.CALL and insn.code & 7 in (isa.JMP, isa.JMP32) and not insn.imm)
        or (insn.code == isa.MAY_GOTO and insn.src == 0)
        or (variants is not None and variants.by == "off" and insn.off in variants.wordings)
        or insn.imm in (isa.LOAD_ACQ, isa.STORE_REL)
        or (insn.wide and insn.src > 0 > insn.imm)  # a map's id, unsigned then
    )


def test_what_bpftool_prints_for_every_code(kernel: None, tmp_path: Path) -> None:
    data = b"".join(data[: 8 * insn.slots] for insn, data in every_code(range(256)))
    names = InsnNames(xlated=True)
    theirs = bpftool_prints(tmp_path, data)
    ours = list(insns(data))
    assert len(theirs) == len(ours) > 50_000
    seen: set[int] = set()
    for insn, line in zip(ours, theirs, strict=True):
        if newer_than_7_1(insn):
            continue
        if insn.code & 0xF0 == isa.CALL and insn.code & 7 in (isa.JMP, isa.JMP32):
            if insn.src == isa.PSEUDO_CALL:
                line = line.partition("#")[0]
            elif insn.src or insn.imm not in helpers.bpf_func_id:
                continue  # bpftool has an address for these
        seen.add(insn.code)
        # bpftool puts a space before numbers of more than three digits.
        assert f"{insn.pc:4}: {text(insn, names)}" == line.removeprefix(" " * (insn.pc > 999))
    assert set(range(256)) - seen <= {0x06, 0x0D, 0x81, 0x89, 0x91, 0x99, 0xD7, 0xDF}


def kernel_symbols() -> dict[int, str]:
    rows = (line.split() for line in Path("/proc/kallsyms").read_text().splitlines())
    return {int(row[0], 16): row[2] for row in rows if row[1] in "tTwW"}


@pytest.mark.parametrize(
    "name", ["stack_string", "map_fd", "map_value", "subprogs", "callback", "tail_call", "helpers"]
)
def test_what_the_kernel_gives_back_as_bpftool_prints_it(kernel: None, name: str) -> None:
    bpftool = tool("bpftool")
    program = next(program for program in PROGRAMS if program.name == name)
    with loaded(program) as outcome:
        info = asm.prog_info(outcome.fd)
        theirs = subprocess.run(
            [bpftool, "prog", "dump", "xlated", "id", str(info.id)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        symbols = kernel_symbols()
    base = next((at for at, symbol in symbols.items() if symbol == "__bpf_call_base"), None)
    if not base:
        pytest.skip("this kernel shows no address of __bpf_call_base")
    names = InsnNames(
        xlated=True,
        address=lambda distance: symbols.get(base + distance),
    )
    lines = [line for line in theirs.splitlines() if re.match(r" *\d+: ", line)]
    for insn, line in zip(insns(info.xlated), lines, strict=True):
        if newer_than_7_1(insn):  # such as the per-cpu address that a helper became
            continue
        # bpftool names subprograms by the kernel's symbols, bpf_prog_TAG_NAME.
        wanted = re.sub(r"(call pc[+-]\d+)#.*", r"\1", line)
        assert f"{insn.pc:4}: {text(insn, names)}" == wanted


# ---------------------------------------------------------------------------
# LLVM: another reader, so that bpf_asm.py is not wrong in the way in which the decoder is

LLVM = {
    "r1 = 33": asm.mov(R1, 33),
    "r1 += -16": asm.alu("add", R1, -16),
    "r1 -= r2": asm.alu_reg("sub", R1, R2),
    "w1 *= 5": asm.alu("mul", R1, 5, wide=False),
    "w1 /= w2": asm.alu_reg("div", R1, R2, wide=False),
    "r1 |= 7": asm.alu("or", R1, 7),
    "r1 &= r2": asm.alu_reg("and", R1, R2),
    "r1 <<= 3": asm.alu("lsh", R1, 3),
    "w1 >>= 3": asm.alu("rsh", R1, 3, wide=False),
    "r1 s>>= r2": asm.alu_reg("arsh", R1, R2),
    "r1 ^= r2": asm.alu_reg("xor", R1, R2),
    "r1 = -r1": asm.neg(R1),
    "w1 = -w1": asm.neg(R1, wide=False),
    "r1 = be16 r1": asm.endian(R1, "be", 16),
    "r1 = le64 r1": asm.endian(R1, "le", 64),
    "r1 = 6278066737626506568 ll": asm.ld_imm64(R1, 0x57202C6F6C6C6548),
    "w1 = *(u16 *)(r10 - 4)": asm.load("u16", R1, R10, -4),
    "*(u8 *)(r10 - 4) = w1": asm.store("u8", R10, -4, R1),
    "*(u64 *)(r10 - 16) = r1": asm.store("u64", R10, -16, R1),
    "r0 = *(u16 *)skb[12]": asm.ld_abs("u16", 12),
    "r0 = *(u8 *)skb[r2]": asm.ld_ind("u8", R2, 0),
    "if r1 == 5 goto +3": asm.jmp("jeq", R1, 5, 3),
    "if r1 s> r2 goto -1": asm.jmp_reg("jsgt", R1, R2, -1),
    "if w1 != 5 goto +3": asm.jmp("jne", R1, 5, 3, wide=False),
    "if w1 s<= w2 goto +3": asm.jmp_reg("jsle", R1, R2, 3, wide=False),
    "goto -2": asm.goto(-2),
    "call 6": asm.call(6),
    "exit": asm.exit_(),
    "lock *(u64 *)(r1 + 0) += r2": asm.atomic("add", "u64", R1, 0, R2),
    "lock *(u64 *)(r1 + 8) ^= r2": asm.atomic("xor", "u64", R1, 8, R2),
    "r2 = atomic_fetch_or((u64 *)(r1 + 0), r2)": asm.atomic("fetch_or", "u64", R1, 0, R2),
    "w2 = atomic_fetch_and((u32 *)(r1 + 4), w2)": asm.atomic("fetch_and", "u32", R1, 4, R2),
    "r2 = xchg_64(r1 + 0, r2)": asm.atomic("xchg", "u64", R1, 0, R2),
    "r0 = cmpxchg_64(r1 + 0, r0, r2)": asm.atomic("cmpxchg", "u64", R1, 0, R2),
    "w0 = cmpxchg32_32(r1 + 4, w0, w2)": asm.atomic("cmpxchg", "u32", R1, 4, R2),
}


def test_llvm_reads_what_we_assemble() -> None:
    llvm_mc = tool("llvm-mc", "llvm-mc-14", "llvm-mc-15", "llvm-mc-16", "llvm-mc-19")
    run = subprocess.run(
        [llvm_mc, "-disassemble", "-triple=bpfel", "-mcpu=v3", "-mattr=+alu32"],
        input="".join(" ".join(f"{byte:#04x}" for byte in data) + "\n" for data in LLVM.values()),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = [line.strip() for line in run.stdout.splitlines()]
    assert [line for line in lines if not line.startswith(".")] == list(LLVM)


@examples(300)
@given(st.binary(min_size=8, max_size=8))
def test_assembling_undoes_decoding(data: bytes) -> None:
    (insn,) = insns(data)
    assert asm.raw(insn.code, insn.dst, insn.src, insn.off, insn.imm) == data
    assert struct.unpack("<BBhi", data)[2:] == (insn.off, insn.imm)


POISON = {
    195896080: "libbpf's mark of a CO-RE relocation that failed",
    2_001_000_003: "libbpf's mark of a map that was not created: the object's map 3",
    2_002_000_000: "libbpf's mark of a kfunc that was not found: extern 0",
}


@pytest.mark.parametrize("imm", POISON)
def test_what_libbpf_did_not_find(imm: int) -> None:
    (line,) = listing(list(isa.insns(asm.raw(0x85, imm=imm))))
    assert line.comment is not None
    assert line.comment.startswith(POISON[imm])
