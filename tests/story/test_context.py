"""What programs are given, against the kernel's own tables, BTF and the verifier's rewriting."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given as when
from hypothesis import strategies as st

from bpftrace_sys.record.machine.prototypes import Prototypes
from bpftrace_sys.story import context
from bpftrace_sys.story.context import (
    PASSED,
    REGISTERS,
    STRUCTS,
    ArgumentsLayout,
    FieldsLayout,
    RegistersLayout,
    StructLayout,
    fields_of,
    params_of,
)
from decoders.arch import AUDIT_ARCH_AARCH64, AUDIT_ARCH_X86_64
from decoders.formats import btf
from decoders.formats import insn as isa
from decoders.formats.btf_c import func_prototype
from decoders.formats.ctx_flow import Access, accesses
from decoders.uapi.layouts import LAYOUTS
from tests.support import bpf_asm as asm
from tests.support.bpf_asm import R0, R1, R2, R3, R6, R7, R8, R10
from tests.support.bpftool_view import trace_of

VMLINUX = Path("/sys/kernel/btf/vmlinux")
MACHINE = {"x86_64": AUDIT_ARCH_X86_64, "aarch64": AUDIT_ARCH_AARCH64}.get(os.uname().machine, 0)


@pytest.fixture(scope="module")
def vmlinux() -> btf.Btf:
    if not VMLINUX.exists():
        pytest.skip("this kernel has no BTF")
    return btf.parse(VMLINUX.read_bytes())


# ---------------------------------------------------------------------------
# The tables


def test_the_contexts_are_the_kernels(vmlinux: btf.Btf) -> None:
    """struct bpf_ctx_convert (kernel/bpf/btf.c) has a member for each program type."""
    table = vmlinux.find("bpf_ctx_convert", btf.Kind.STRUCT)
    if table is None:
        pytest.skip("this kernel has no networking programs")
    theirs = {}
    for member in table.members:
        name = re.fullmatch(r"BPF_PROG_TYPE_(\w+)_prog", member.name)
        found = vmlinux.resolve(member.type)
        if name and found is not None and found.name in LAYOUTS:
            theirs[name[1]] = found.name
    assert len(theirs) > 15
    assert {kind: struct for kind, struct in theirs.items() if kind in STRUCTS} == STRUCTS
    # What is given in another way: registers, tracepoints' fields, arguments.
    others = {"PERF_EVENT", "KPROBE", "NETFILTER", *context.ARGUMENTS}
    assert set(theirs) - set(STRUCTS) <= others


def test_registers_are_the_kernels(vmlinux: btf.Btf) -> None:
    if MACHINE not in REGISTERS:
        pytest.skip("unknown machine")
    struct = vmlinux.find("user_pt_regs" if MACHINE == AUDIT_ARCH_AARCH64 else "pt_regs")
    assert struct is not None
    theirs: list[str] = []
    for member in struct.members:
        found = vmlinux.resolve(member.type)
        assert found is not None
        name = member.name
        if found.kind == btf.Kind.ARRAY:
            theirs += [f"{name}[{index}]" for index in range(found.nelems)]
        else:
            # cs and ss stand in unions with what FRED adds (Linux 6.9).
            theirs.append(name)
    ours = REGISTERS[MACHINE]
    assert len(theirs) == len(ours)
    for one, other in zip(theirs, ours, strict=True):
        assert one in (other, "")
    assert set(PASSED[MACHINE]) <= set(ours)


def test_what_a_perf_event_gives_is_the_kernels(vmlinux: btf.Btf) -> None:
    struct = vmlinux.find("bpf_perf_event_data", btf.Kind.STRUCT)
    if struct is None or MACHINE not in REGISTERS:
        pytest.skip("this kernel has no such programs, or is of an unknown machine")
    layout = RegistersLayout(MACHINE, sampled=True)
    for member in struct.members[1:]:
        assert layout.name(member.bit_offset // 8, 8) == f"ctx->{member.name}"
    assert [member.name for member in struct.members] == ["regs", *context.SAMPLE]
    assert RegistersLayout(MACHINE).name(struct.members[1].bit_offset // 8, 8) is None
    netfilter = vmlinux.find("bpf_nf_ctx", btf.Kind.STRUCT)
    if netfilter is not None:
        assert [member.name for member in netfilter.members] == [
            context.declared(text) for text in context.NETFILTER
        ]


# ---------------------------------------------------------------------------
# The flow


def found(*code: bytes) -> list[Access]:
    return accesses(list(isa.insns(b"".join(code))))


def test_accesses_are_followed_through_moves() -> None:
    assert found(
        asm.mov_reg(R6, R1),
        asm.load("u32", R2, R6, 4),
        asm.mov_reg(R7, R6),
        asm.call(5),
        asm.load("u64", R3, R7, 16),
        asm.load("u64", R3, R1, 16),  # the call has changed r1
        asm.store("u32", R6, 8, R3),
        asm.mov(R0, 0),
        asm.exit_(),
    ) == [Access(1, 4, 4, False), Access(4, 16, 8, False), Access(6, 8, 4, True)]


def test_what_is_not_certain_is_not_told() -> None:
    # r7 holds the context on one way only.
    assert found(
        asm.mov_reg(R6, R1),
        asm.mov(R7, 0),
        asm.jmp("jeq", R1, 0, 1),
        asm.mov_reg(R7, R6),
        asm.load("u32", R2, R7, 0),
        asm.load("u32", R2, R6, 0),
        asm.exit_(),
    ) == [Access(5, 0, 4, False)]
    # An offset, the lower half, the stack, a subprogram's own r1, an indirect jump.
    assert found(asm.alu("add", R1, 8), asm.load("u32", R2, R1, 0), asm.exit_()) == []
    assert found(
        asm.alu_reg("mov", R6, R1, wide=False), asm.load("u32", R2, R6, 0), asm.exit_()
    ) == []
    assert found(
        asm.store("u64", R10, -8, R1), asm.load("u64", R8, R10, -8),
        asm.load("u32", R2, R8, 0), asm.exit_(),
    ) == []  # fmt: skip
    assert found(
        asm.call(1, asm.CALL_SUBPROG), asm.exit_(), asm.load("u32", R2, R1, 0), asm.exit_()
    ) == []
    assert found(asm.raw(isa.GOTOX, R6), asm.load("u32", R2, R1, 0), asm.exit_()) == []


def test_a_loop_ends() -> None:
    assert found(
        asm.mov_reg(R6, R1),
        asm.load("u32", R2, R6, 0),
        asm.mov_reg(R6, R2),
        asm.jmp("jne", R2, 0, -3),
        asm.exit_(),
    ) == []


@when(st.binary(max_size=400))
def test_any_bytes_are_followed(data: bytes) -> None:
    program = list(isa.insns(data))
    assert {access.pc for access in accesses(program)} <= {insn.pc for insn in program}


# ---------------------------------------------------------------------------
# Names


def test_names_of_accesses() -> None:
    skb = StructLayout(LAYOUTS["__sk_buff"])
    assert skb.name(0, 4) == "ctx->len"
    assert skb.name(48, 4) == "ctx->cb[0]"
    assert skb.name(56, 4) == "ctx->cb[2]"
    assert skb.name(16, 2) == "ctx->protocol"
    assert skb.name(18, 2) == "ctx->protocol +2"
    assert skb.name(4096, 4) is None
    plain = RegistersLayout(AUDIT_ARCH_X86_64)
    assert plain.name(112, 8) == "ctx->di: argument 1"
    assert plain.name(80, 8) == "ctx->ax"
    assert plain.name(113, 4) is None
    params = ["int dfd", "const char *filename"]
    known = RegistersLayout(AUDIT_ARCH_X86_64, params)
    assert known.name(104, 8) == "ctx->si: const char *filename"
    assert known.name(96, 8) == "ctx->dx"
    assert RegistersLayout(AUDIT_ARCH_AARCH64, params).name(0, 8) == "ctx->regs[0]: int dfd"
    after = RegistersLayout(AUDIT_ARCH_X86_64, params, returns=True)
    assert after.name(80, 8) == "ctx->ax: what it returns"
    assert after.name(112, 8) == "ctx->di"
    arguments = ArgumentsLayout(params, returns=True)
    assert [arguments.name(at, 8) for at in (0, 8, 16, 24)] == [*params, "what it returns", None]
    fields = FieldsLayout(fields_of("int dfd@16+8;const char * filename@24+8;char comm[16]@32+16"))
    assert fields.name(24, 8) == "args->filename"
    assert fields.name(36, 4) == "args->comm +4"
    assert fields.name(8, 4) is None


@pytest.mark.parametrize(
    ("prototype", "params"),
    [
        ("int f(void)", []),
        ("int f(int a, char *b)", ["int a", "char *b"]),
        ("void f(int (*cb)(int, void *), int a[3])", ["int (*cb)(int, void *)", "int a[3]"]),
        ("nonsense", []),
        (")(", []),
    ],
)
def test_parameters_of_a_prototype(prototype: str, params: list[str]) -> None:
    assert params_of(prototype) == params


@when(st.text(max_size=300))
def test_any_text_of_a_fact_is_taken(text: str) -> None:
    params_of(text)
    fields_of(text)
    context.declared(text)


# ---------------------------------------------------------------------------
# Declarations


def test_declarations_are_the_kernels(vmlinux: btf.Btf) -> None:
    ours = Prototypes(vmlinux)
    functions = [
        found.name
        for found in map(vmlinux.type, list(vmlinux.ids_of(btf.Kind.FUNC))[::2000])
        if found is not None
    ]
    assert len(functions) > 10
    for name in functions:  # by a scan first, then by the index
        found = vmlinux.find(name, btf.Kind.FUNC)
        assert found is not None
        assert ours.function(name) == func_prototype(vmlinux, found.id)
        assert ours.of_type(found.id) == ours.function(name)
    assert ours.function("no_such_function") is None
    switch = vmlinux.find("btf_trace_sched_switch", btf.Kind.TYPEDEF)
    if switch is not None:
        said = ours.of_type(switch.id)
        assert said is not None
        assert said == ours.tracepoint("sched_switch")
        assert [context.declared(param) for param in params_of(said)][:3] == [
            "preempt", "prev", "next",
        ]  # fmt: skip
    ops = vmlinux.find("tcp_congestion_ops", btf.Kind.STRUCT)
    if ops is not None:
        at = next(index for index, member in enumerate(ops.members) if member.name == "ssthresh")
        assert ours.member(ops.id, at) == "ssthresh(struct sock *)"
        assert ours.member(ops.id, 9999) is None


# ---------------------------------------------------------------------------
# Traced


def test_a_tracepoints_fields_are_told(
    tmp_path_factory: pytest.TempPathFactory, tracefs: Path
) -> None:
    told = trace_of("tracepoint_perf", tmp_path_factory)
    lines = [line for line in told.ran.attachments() if line["verb"] == "attached"]
    assert lines
    for line in lines:
        category, name = line["target"].removeprefix("tracepoint ").split(":")
        format_ = (tracefs / "events" / category / name / "format").read_text()
        fields = [
            field for field in re.findall(r"field:([^;]+);", format_) if " common_" not in field
        ]
        assert line["given"]["what"] == "args: " + ", ".join(fields)
