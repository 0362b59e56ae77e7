"""What the kernel made of programs, against bpftool, llvm-mc, objdump and the kernel's symbols."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftrace_sys.record.machine import bpf, prog_info
from bpftrace_sys.record.machine.bpf import btf_data
from bpftrace_sys.record.machine.kallsyms import Kallsyms
from bpftrace_sys.story import kernel_view
from bpftrace_sys.story.context import FieldsLayout, fields_of
from bpftrace_sys.story.kernel_view import Known
from bpftrace_sys.trace.kernel_view import KernelView, Mapping, view_line, view_of
from bpftrace_sys.trace.pieces import Pieces, pack, unpack
from decoders.formats import btf, native, native_targets, prog_symbols
from decoders.formats import insn as isa
from decoders.formats.prog_info import ARRAYS, ROOM, ProgInfo
from decoders.uapi.layouts import LAYOUTS
from tests.support import bpf_asm as asm
from tests.support.bpf_asm import R0
from tests.support.bpf_programs import PROGRAMS, RETURN, Program, loaded
from tests.support.native_code import llvm_mc, objdump, same_operands

MACHINE = os.uname().machine


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    """Skip where programs cannot be loaded."""
    if reason := asm.why_not():
        pytest.skip(reason)


@lru_cache
def symbols() -> Kallsyms:
    return Kallsyms()


def view_at(fd: int) -> KernelView:
    """All that the kernel gives, with the names that its text needs."""
    info = prog_info.fetch(fd)
    base = symbols().call_base
    wanted = prog_symbols.wanted(info, MACHINE, base)
    return KernelView(0, info, MACHINE, call_base=base, symbols=symbols().names(wanted))


@lru_cache
def kernel_functions() -> dict[int, str]:
    return {number: name for name, number in asm.vmlinux_ids("func").items()}


def known(btf_id: int = 0) -> Known:
    """A program's BTF, and vmlinux's functions."""
    return Known(
        btf=own_btf(btf_id) if btf_id else None,
        kfunc=lambda type_id, off: None if off else kernel_functions().get(type_id),
    )


def own_btf(btf_id: int) -> object:
    data = btf_data(btf_id)
    assert data is not None
    return btf.parse(data)


def accepted() -> Iterator[tuple[Program, KernelView, int]]:
    """The test programs that this kernel takes."""
    for program in PROGRAMS:
        if not program.accepted:
            continue
        with loaded(program) as outcome:
            if outcome.fd >= 0:
                yield program, view_at(outcome.fd), outcome.fd


# ---------------------------------------------------------------------------
# The struct


def test_the_offsets_of_maps_are_the_headers() -> None:
    members = {member.path: member.offset for member in LAYOUTS["bpf_map_info"]}
    assert members["name"] == bpf.MAP_NAME_AT
    assert members["btf_vmlinux_value_type_id"] == bpf.MAP_VALUE_TYPE_AT


def test_the_offsets_are_the_headers() -> None:
    members = {member.path: member for member in LAYOUTS["bpf_prog_info"]}
    for row in ARRAYS:
        name = row.name
        count = {"jited_prog_insns": "jited_prog_len", "xlated_prog_insns": "xlated_prog_len"}
        assert members[name].offset == row.pointer_at
        assert members[count.get(name, f"nr_{name}")].offset == row.count_at
        if row.rec_size_at:
            assert members[f"{name}_rec_size"].offset == row.rec_size_at
    head = bytearray(ROOM)
    for member in members.values():
        if member.bit_size is None:
            head[member.offset : member.offset + member.size] = bytes(
                (member.offset + at) % 251 for at in range(member.size)
            )
    info = ProgInfo(bytes(head), {})
    for name, ours in (
        ("type", "type"), ("id", "id"), ("created_by_uid", "uid"),
        ("ifindex", "ifindex"), ("btf_id", "btf_id"), ("attach_btf_id", "attach_btf_id"),
        ("run_time_ns", "run_time_ns"),
        ("run_cnt", "run_cnt"), ("recursion_misses", "recursion_misses"),
        ("jited_prog_len", "jited_len"),
        ("xlated_prog_len", "xlated_len"),
    ):  # fmt: skip
        member = members[name]
        at = slice(member.offset, member.offset + member.size)
        assert getattr(info, ours) == int.from_bytes(head[at], "little"), name
    assert info.tag == head[8:16].hex()


@given(st.binary(max_size=300), st.dictionaries(st.sampled_from(ARRAYS), st.binary(max_size=200)))
def test_any_bytes_are_taken(head: bytes, arrays: dict[object, bytes]) -> None:
    named = {row.name: data for row, data in arrays.items()}  # type: ignore[attr-defined]
    view = KernelView(0, ProgInfo(head, named), MACHINE, call_base=1 << 63)
    kernel_view.translated(view, known())
    kernel_view.native(view, Known())
    list(kernel_view.reasons(view))
    prog_symbols.wanted(view.info, MACHINE, view.call_base)


# ---------------------------------------------------------------------------
# Against bpftool


def by_bpftool(fd: int) -> list[dict[str, object]]:
    if shutil.which("bpftool") is None:
        pytest.skip("bpftool is not installed")
    number = str(asm.prog_info(fd).id)
    done = subprocess.run(
        ["bpftool", "-j", "prog", "dump", "xlated", "id", number], capture_output=True, check=True
    )
    found: list[dict[str, object]] = json.loads(done.stdout)
    return found


# Forms that bpftool 7.1 does not know (the kernel's disassembler got them later).
NEWER = re.compile(
    r"\(s(8|16|32)\)|s[/%]=|\*\(s(8|16|32) \*\)|bswap|gotol|may_goto|addr_space_cast|__percpu"
    r"|load_acquire|store_release|nospec|BUG_"
)


def test_translated_as_bpftool_prints_it() -> None:
    lines = different = 0
    for program, view, fd in accepted():
        ours = kernel_view.translated(view, known(view.info.btf_id)).lines
        theirs = [str(row["disasm"]) for row in by_bpftool(fd) if "disasm" in row]
        assert len(ours) == len(theirs), program.name
        for row, text in zip(ours, theirs, strict=True):
            lines += 1
            if row.text == text:
                continue
            different += 1
            kfunc = re.match(r"\(85\) call \w+#", row.text) and text.startswith("(85) call 0x")
            assert kfunc or NEWER.search(row.text), (program.name, row.text, text)
    assert lines > 500
    assert different < lines / 4


def test_a_subprogram_is_called_by_the_kernels_name() -> None:
    program = next(program for program in PROGRAMS if program.name == "subprogs")
    with loaded(program) as outcome:
        view = view_at(outcome.fd)
        theirs = [str(row["disasm"]) for row in by_bpftool(outcome.fd) if "disasm" in row]
        listing = kernel_view.translated(view, known(view.info.btf_id))
        ours = [row.text for row in listing.lines]
        calls = [text for text in theirs if "call pc" in text]
        assert calls
        assert [text for text in ours if "call pc" in text] == calls


def test_what_is_read_of_the_context_is_named_in_what_was_left() -> None:
    code = (
        asm.mov_reg(6, 1) + asm.load("u64", 2, 6, 24) + asm.load("u64", 3, 6, 8)
        + asm.mov(R0, 0) + asm.exit_()
    )  # fmt: skip
    with asm.prog_load(code, "tracepoint") as program:
        view = view_at(program.fd)
    layout = FieldsLayout(fields_of("int dfd@16+8;const char * filename@24+8"))
    comments = {
        row.text: row.comment for row in kernel_view.translated(view, Known(layout=layout)).lines
    }
    assert comments["(79) r2 = *(u64 *)(r6 +24)"] == "args->filename"
    assert comments["(79) r3 = *(u64 *)(r6 +8)"] is None


# ---------------------------------------------------------------------------
# Native code


@pytest.mark.skipif(MACHINE not in native_targets.ARCHITECTURES, reason="no disassembler for it")
def test_native_code_as_llvm_mc_reads_it() -> None:
    if shutil.which("llvm-mc") is None:
        pytest.skip("llvm-mc is not installed")
    count = 0
    for program, view, _ in accepted():
        for addr, code in view.info.functions():
            ours = list(native.disassemble(code, addr, MACHINE))
            assert b"".join(code[i.offset : i.offset + i.size] for i in ours) == code
            theirs = llvm_mc(code, MACHINE)
            assert len(ours) == len(theirs), program.name
            for insn, their in zip(ours, theirs, strict=True):
                check_as_llvm(insn, their, addr, len(code))
                count += 1
    assert count > 900


def check_as_llvm(insn: native.NativeInsn, their: object, addr: int, size: int) -> None:
    """The same instruction, but for suffixes and for jumps, which llvm-mc tells as distances."""
    mnemonic, operands = their  # type: ignore[misc]
    text = insn.text.removeprefix("lock ") if insn.text.startswith("lock ") else insn.text
    lock = "lock " if insn.text.startswith("lock ") else ""
    ours, _, rest = text.partition(" ")
    ours = lock + ours
    assert mnemonic in (ours, *(ours + suffix for suffix in "bwlq")), (insn, their)
    if MACHINE == "x86_64" and (mnemonic[0] == "j" or mnemonic.startswith("call")):
        if "%" in operands:
            assert same_operands(rest, operands), (insn, their)
            return
        where = insn.target - addr if insn.target is not None else int(rest, 16)
        assert where - insn.offset - insn.size == int(operands, 0), (insn, their)
        return
    # llvm-mc leaves out that it is 1 by which is shifted.
    rest = rest.strip().removeprefix("$0x1,") if "$" not in operands else rest.strip()
    assert same_operands(rest, operands), (insn, their)


@pytest.mark.skipif(MACHINE != "x86_64", reason="objdump is this machine's")
@pytest.mark.parametrize("syntax", ["att", "intel"])
def test_native_code_in_objdumps_words(syntax: str) -> None:
    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed")
    count = 0
    for _, view, _ in accepted():
        for addr, code in view.info.functions():
            for insn, (at, size, their) in zip(
                native.disassemble(code, addr, MACHINE, syntax),
                objdump(code, addr, syntax),
                strict=True,
            ):
                assert (insn.offset, insn.size) == (at, size)
                text = re.sub(r"^lock +", "lock ", insn.text)
                ours = re.match(r"((?:lock )?\w+)", text)
                assert ours is not None
                if code[insn.offset : insn.offset + insn.size] == b"\x66\x90":
                    # xchg %ax,%ax to objdump, and a nop to everybody else (before Linux 6.2).
                    assert ours[1] == "nop"
                    continue
                said = SPELLED.get(ours[1], ours[1])
                assert said == SPELLED.get(their.mnemonic, their.mnemonic), (insn, their)
                count += 1
    assert count > 900


# What capstone and objdump call by two names.
SPELLED = {"movsxd": "movslq", "movabsq": "movabs", "movslq": "movslq", "nop": "nop", "nopl": "nop"}


def test_calls_lead_to_names() -> None:
    """Each helper that is called in translated code is called by the native code, too."""
    seen = 0
    for program, view, _ in accepted():
        helpers = {
            view.symbols.get((view.call_base + site.id) & (1 << 64) - 1)
            for site in isa.calls(
                isa.insns(view.info.xlated), xlated=True
            )
            if site.kind == "helper"
        } - {None}
        text = "\n".join(
            line.text for function in kernel_view.native(view, Known()) for line in function.lines
        )
        for name in helpers:
            assert f"<{name}>" in text, program.name
            seen += 1
    assert seen > 3


def test_targets_are_found_without_a_disassembler() -> None:
    for _, view, _ in accepted():
        for addr, code in view.info.functions():
            shown = {
                insn.target for insn in native.disassemble(code, addr, MACHINE) if insn.target
            }
            assert shown <= set(native_targets.ARCHITECTURES[MACHINE](code, addr))


def test_an_address_made_of_moves() -> None:
    """aarch64: mov/movk/movk, blr, as its JIT calls helpers (arch/arm64/net/bpf_jit_comp.c)."""
    # movn x10, #0x1234; movk x10, #0x8012, lsl #16; movk x10, #0x8000, lsl #32; blr x10; ret
    code = struct.pack("<5I", 0x9282468A, 0xF2B0024A, 0xF2D0000A, 0xD63F0140, 0xD65F03C0)
    address = 0xFFFF80008012EDCB
    assert address in set(native_targets.aarch64(code, 0))
    found = list(native.disassemble(code, 0, "aarch64", name={address: "bpf_map_x"}.get))
    assert [insn.target for insn in found] == [None, None, address, address, None]
    assert found[3].text == "blr    x10 <bpf_map_x>"
    if shutil.which("llvm-mc") is None:
        return
    assert [row.mnemonic for row in llvm_mc(code, "aarch64")] == [
        insn.text.split()[0] for insn in found
    ]


def test_without_capstone_it_is_said_what_to_install() -> None:
    script = (
        "import sys; sys.modules['capstone'] = None\n"
        "from decoders.formats import native\n"
        "try: list(native.disassemble(b'\\x90', 0, 'x86_64'))\n"
        "except native.NoDisassemblerError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pip install 'bpfstrace[jit]'" in done.stdout, done.stderr


# ---------------------------------------------------------------------------
# Symbols


def test_every_symbol_is_found_at_its_address() -> None:
    found: dict[int, str] = {}
    with open("/proc/kallsyms") as file:
        for line in file:
            address, _, rest = line.split(" ", 2)
            found.setdefault(int(address, 16), rest.split()[0])
    if set(found) == {0}:
        pytest.skip("this kernel hides its addresses")
    ours = Kallsyms()
    assert ours.call_base in found
    text = {a for a in found if abs(a - ours.call_base) < 1 << 26}
    sample = sorted(text)[:: max(1, len(text) // 5000)]
    # Programs come and go while this runs.
    assert {a: ours.name(a) for a in sample if not (found[a] or "").startswith("bpf_")} == {
        a: found[a] for a in sample if not found[a].startswith("bpf_")
    }
    assert ours.name(ours.call_base + 1) is None


def test_hidden_addresses_have_no_names(tmp_path: object) -> None:
    path = f"{tmp_path}/kallsyms"
    with open(path, "w") as file:
        file.write("0000000000000000 T _text\n0000000000000000 T __bpf_call_base\n")
    ours = Kallsyms(path)
    assert ours.hidden
    assert ours.name(0) is None
    assert Kallsyms(f"{tmp_path}/none").hidden


def test_own_names_are_the_kernels() -> None:
    program = next(program for program in PROGRAMS if program.name == "subprogs")
    with loaded(program) as outcome:
        info = prog_info.fetch(outcome.fd)
        with open("/proc/kallsyms") as file:
            theirs = {int(line.split()[0], 16): line.split()[2] for line in file if "bpf_" in line}
        names = prog_symbols.own(info, known(info.btf_id).btf)
        assert len(names) == len(info.ksyms) > 1
        assert names == [theirs[address] for address in info.ksyms]


# ---------------------------------------------------------------------------
# What is missing, and why


def altered(view: KernelView, *hide: str, **counts: int) -> KernelView:
    """A view of which the kernel kept back some arrays."""
    head = bytearray(view.info.head)
    for row in ARRAYS:
        if row.name in counts:
            struct.pack_into("<I", head, row.count_at, counts[row.name])
    arrays = {name: data for name, data in view.info.arrays.items() if name not in hide}
    return KernelView(0, ProgInfo(bytes(head), arrays), MACHINE)


def test_hidden_helpers_are_never_named() -> None:
    code = asm.call(5) + asm.mov(R0, 0) + asm.exit_()
    with asm.prog_load(code, "socket_filter") as program:
        view = view_at(program.fd)
    zeroed = bytearray(view.info.xlated)
    assert zeroed[0] == 0x85
    zeroed[4:8] = bytes(4)
    hidden = altered(view, "jited_prog_insns", "jited_ksyms")
    hidden.info.arrays["xlated_prog_insns"] = bytes(zeroed)
    assert kernel_view.translated(hidden, Known()).lines[0].text == "(85) call hidden#0"
    said = list(kernel_view.reasons(hidden))
    assert any("native code is hidden" in line for line in said)
    assert any("names of what it calls are hidden" in line for line in said)
    assert kernel_view.native(hidden, Known()) == []


def test_what_is_not_compiled_is_said_to_be_interpreted() -> None:
    with asm.prog_load(RETURN, "socket_filter") as program:
        view = view_at(program.fd)
    interpreted = altered(view, "jited_prog_insns", jited_prog_insns=0)
    assert any("not compiled" in line for line in kernel_view.reasons(interpreted))
    assert list(kernel_view.reasons(view)) == []


def test_blinded_constants_are_shown_as_such() -> None:
    path = "/proc/sys/net/core/bpf_jit_harden"
    try:
        with open(path) as file:
            before = file.read()
        with open(path, "w") as file:
            file.write("2")
    except OSError as error:
        pytest.skip(f"{path}: {error.strerror}")
    try:
        with asm.prog_load(asm.mov(R0, 0x12345) + asm.exit_(), "socket_filter") as program:
            view = view_at(program.fd)
    finally:
        with open(path, "w") as file:
            file.write(before)
    assert kernel_view.blinded(view)
    assert any("blinded" in line for line in kernel_view.reasons(view))
    text = [row.text for row in kernel_view.translated(view, Known()).lines]
    assert any("r11" in line or "w11" in line for line in text)


# ---------------------------------------------------------------------------
# In a trace


def test_a_line_gives_the_view_again() -> None:
    written, read = Pieces(), Pieces()
    for number, (_, view, _) in enumerate(accepted()):
        view.seq, view.asked = number, ("xlated", "map")
        view.mapping = Mapping("", {0: 0, 2: 1}, {0: (0, 17)}, 12345)
        line = json.loads(json.dumps(view_line(view, lambda data: pack(data, written))))
        assert view_of(line, lambda value: unpack(value, read)) == view


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["raw", "info", "arrays", "symbols", "mapping", "images", "native",
                         "call_base", "asked", "machine", "problem", "seq", "xlated_prog_insns"]),
        inner, max_size=6,
    ),
    max_leaves=20,
))  # fmt: skip
def test_a_damaged_line_raises_nothing_else(value: object) -> None:
    line = value if isinstance(value, dict) else {"raw": value}
    with contextlib.suppress(ValueError, TypeError, AttributeError, OverflowError):
        view_of(line, lambda value: unpack(value, Pieces()))

