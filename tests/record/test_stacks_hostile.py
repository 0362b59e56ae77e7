"""Stacks of programs that lie: damaged files, cyclic stacks, numbers that make no sense."""

from __future__ import annotations

import os
import platform
import random
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bpftrace_sys.record.files.in_file import InFile
from bpftrace_sys.record.files.tracee_files import TraceeFiles
from bpftrace_sys.record.stacks import walk
from bpftrace_sys.record.stacks.cfi import AT_CFA, CallFrames, Row
from bpftrace_sys.record.stacks.elf_image import ElfError, Image, InMemory
from bpftrace_sys.record.stacks.epilogue import epilogue
from bpftrace_sys.record.stacks.expression import evaluate
from bpftrace_sys.record.stacks.files import Files, MappedFile
from bpftrace_sys.record.stacks.machine import AARCH64, I386, X86_64, Machine
from bpftrace_sys.record.stacks.perf_map import PerfMap
from bpftrace_sys.record.stacks.reading import CfiError
from bpftrace_sys.record.stacks.regions import MemoryMap
from bpftrace_sys.record.stacks.snapshot import Process, Snapshot
from bpftrace_sys.record.stacks.symbol_table import SymbolTable
from bpftrace_sys.record.stacks.walk import Walk
from decoders.stack import Stack
from tests.support.needs import c_compiler
from tests.support.running import TRACEES

NATIVE = AARCH64 if platform.machine() == "aarch64" else X86_64
CODE = 0x40_0000
STACK = 0x7000_0000
BIASED = MemoryMap(b"400000-500000 r-xp 00000000 00:00 0                    [vdso]\n")
OWN = MemoryMap(b"400000-500000 r-xp 00000000 00:00 0 \n")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small program with all kinds of call frame information."""
    compiler = c_compiler()
    out = tmp_path_factory.mktemp("hostile") / "program"
    subprocess.run(
        [compiler, "-O2", "-g1", "-w", "-static-pie", "-fuse-ld=bfd", "-nostdlib",
         "-nostartfiles", "-ffreestanding", "-fno-stack-protector",
         "-fasynchronous-unwind-tables", "-Wl,--eh-frame-hdr",
         "-Wl,-z,separate-code", "-x", "c", "-o", str(out), "-"],
        input=b"""
        __attribute__((noinline)) long leaf(long *p) { return *p + 1; }
        __attribute__((noinline)) long inner(int n) { volatile long room[n]; room[0] = n;
            return leaf((long *)room) + room[n - 1]; }
        __attribute__((noinline)) long outer(long a) { volatile long room[9]
            __attribute__((aligned(64))); room[a & 7] = a; return inner(a & 63) + room[3]; }
        void _start(void) { outer(3); outer(5); for (;;); }
        """,
        check=True,
    )  # fmt: skip
    return out.read_bytes()


def code_of(image: Image) -> list[int]:
    """Addresses in the file's code."""
    return [
        vaddr
        for kind, flags, _, begin, size in image.segments
        if kind == 1 and flags & 1
        for vaddr in range(begin, begin + min(size, 4096), 5)
    ]


def damaged(data: bytes, seed: int) -> bytes:
    """The file with bytes, words or its end changed."""
    chance = random.Random(seed)
    copy = bytearray(data)
    for _ in range(chance.choice((1, 4, 40))):
        at = chance.randrange(len(copy))
        if chance.random() < 0.5:
            copy[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        else:
            copy[at : at + 4] = struct.pack("<I", chance.choice((0, 1, 1 << 31, (1 << 32) - 1)))
    if chance.random() < 0.2:
        del copy[chance.randrange(len(copy)) :]
    return bytes(copy)


def hot_places(data: bytes) -> list[int]:
    """Offsets of what describes frames and symbols, where damage matters."""
    image = Image(InMemory(data))
    return [
        at
        for section in image.sections
        if section.name in (b".eh_frame", b".eh_frame_hdr", b".symtab", b".strtab")
        for at in range(section.offset, section.offset + section.size)
    ]


def test_what_a_damaged_file_says_is_an_error_or_an_answer(program: bytes) -> None:
    places = hot_places(program)
    assert places
    answers = errors = 0
    for seed in range(400):
        data = damaged(program, seed)
        if seed % 2:
            # Only in the tables, so that the file stays readable.
            chance = random.Random(seed)
            copy = bytearray(program)
            for _ in range(12):
                copy[chance.choice(places)] = chance.randrange(256)
            data = bytes(copy)
        try:
            image = Image(InMemory(data))
        except ElfError:
            errors += 1
            continue
        frames, symbols = CallFrames(image), SymbolTable(image)
        for vaddr in code_of(image)[:100]:
            symbols.at(vaddr)
            try:
                answers += frames.row(vaddr) is not None
            except (CfiError, ElfError):
                errors += 1
    assert answers > 1000
    assert errors > 50


def test_walks_over_damaged_files_end(program: bytes) -> None:
    """With stacks that hold addresses of the file, of themselves, and anything."""
    code = code_of(Image(InMemory(program)))
    longest = 0
    for seed in range(200):
        chance = random.Random(seed)
        data = program if seed % 3 == 0 else damaged(program, seed)
        words = [
            chance.choice((CODE + chance.choice(code), STACK + 8 * chance.randrange(512), seed))
            for _ in range(512)
        ]
        registers = {number: chance.choice(words) for number in NATIVE.order if number is not None}
        registers[NATIVE.ip] = CODE + chance.choice(code)
        registers[NATIVE.sp] = STACK + 8 * chance.randrange(64)
        found = walked(NATIVE, registers, words, BIASED, MappedFile(InMemory(data)))
        longest = max(longest, len(found.frames))
        assert len(found.frames) <= walk.DEPTH
    assert longest > 3


def walked(
    machine: Machine,
    registers: dict[int, int],
    words: list[int],
    memory: MemoryMap = OWN,
    vdso: MappedFile | None = None,
    code: bytes = b"",
) -> Stack:
    """The walk over a stack that holds these words."""
    layout = struct.Struct("<" + "_IQ"[machine.word // 4])
    copy = b"".join(layout.pack(word) for word in words)
    packed = machine.layout.pack(
        *(0 if number is None else registers.get(number, 0) for number in machine.order)
    )
    process = Process(1, memory, b"", None, ((CODE, code),) if code else ())
    snapshot = Snapshot(machine, packed, ((STACK, copy),), process)
    return Walk(snapshot, Files(TraceeFiles()), vdso).stack()


def test_frame_pointers_that_lead_round() -> None:
    itself = walked(
        X86_64,
        {X86_64.ip: CODE + 9, X86_64.sp: STACK, X86_64.fp: STACK + 16},
        [0, 0, STACK + 16, CODE + 20, 0, 0],
    )
    assert [frame.addr for frame in itself.frames] == [CODE + 9, CODE + 20]
    assert itself.ended == walk.NO_UNWIND_INFO
    away = walked(X86_64, {X86_64.ip: CODE + 9, X86_64.sp: STACK, X86_64.fp: 0}, [0] * 8)
    assert [frame.addr for frame in away.frames] == [CODE + 9]
    assert away.ended == walk.NO_UNWIND_INFO


def test_a_frame_that_is_no_larger_than_the_one_before(program: bytes) -> None:
    """CFI that says that the caller's frame begins where this one does."""
    image = Image(InMemory(program))
    vaddr = next(at for at in code_of(image) if CallFrames(image).row(at) is not None)
    row = CallFrames(image).row(vaddr)
    assert row is not None
    file = MappedFile(InMemory(program))
    for offset in (-8, 0):
        file.row = lambda *_, by=offset: row._replace(  # type: ignore[method-assign,misc]
            cfa=(NATIVE.sp, by), rules={row.ra: (AT_CFA, 8 - by)}, signal=False
        )
        found = walked(
            NATIVE, {NATIVE.ip: CODE + vaddr, NATIVE.sp: STACK + 64}, [CODE + vaddr] * 64,
            BIASED, file,
        )  # fmt: skip
        # Who has been interrupted may have no frame, where the way back is in a register.
        assert len(found.frames) == (2 if offset == 0 and NATIVE.link is not None else 1)
        assert found.ended == walk.GOES_ROUND


def test_nothing_is_at_the_stack_pointer() -> None:
    packed = X86_64.layout.pack(*([STACK] * 20))
    process = Process(1, OWN, b"", None)
    snapshot = Snapshot(X86_64, packed, ((STACK, b""),), process)
    found = Walk(snapshot, Files(TraceeFiles()), None).stack()
    assert found == Stack(found.frames, walk.NOT_MAPPED)


def test_aarch64_by_its_frame_records() -> None:
    """Return addresses are signed, in bits that are no address."""
    signature = 0x5A << 48
    words = [0] * 32
    words[4:6] = [STACK + 80, CODE + 0x100 | signature]
    words[10:12] = [0, 0]
    found = walked(
        AARCH64,
        {AARCH64.ip: CODE, AARCH64.sp: STACK, AARCH64.fp: STACK + 32, 30: CODE + 0x80},
        words,
    )
    assert [frame.addr for frame in found.frames] == [CODE, CODE + 0x100]
    assert found.ended == ""


def test_an_aarch64_signal_frame() -> None:
    """No CFI says how to go on from the vdso's sigreturn; the signal's frame has all registers."""
    words = [0] * 128
    words[0:2] = [0, CODE + 8]  # the handler's frame; behind it is the signal's
    saved = 2 + (128 + 168 + 8 + 8) // 8  # siginfo; flags, link, stack, masks; padding; address
    words[saved : saved + 31] = range(31)
    words[saved + 29 : saved + 33] = [STACK + 800, CODE + 0x400, STACK + 784, CODE + 0x300]
    words[100:102] = [0, 0]
    file = MappedFile(InMemory(bytes.fromhex("1f2003d5 1f2003d5 681180d2 010000d4")))
    # Who was interrupted has no frame of its own: the return address is in its register.
    leaf = Row((AARCH64.sp, 0), {}, 30, False)
    file.row = lambda offset, before: leaf if offset == 0x300 else None  # type: ignore[method-assign]
    found = walked(
        AARCH64,
        {AARCH64.ip: CODE + 0x100, AARCH64.sp: STACK, AARCH64.fp: STACK},
        words,
        BIASED,
        file,
    )
    assert [frame.addr - CODE for frame in found.frames] == [0x100, 8, 0x300, 0x400]
    assert found.ended == ""


def test_aarch64_recursion() -> None:
    """The caller's return address is the callee's, too, and yet the stack goes on."""
    words = [*[0, CODE + 0x300] * 5, STACK + 96, CODE + 0x400, 0, 0]
    file = MappedFile(InMemory(b""))
    row = Row((AARCH64.sp, 16), {29: (AT_CFA, -16), 30: (AT_CFA, -8)}, 30, False)
    file.row = lambda offset, before: row if offset == 0x300 else None  # type: ignore[method-assign]
    registers = {AARCH64.ip: CODE + 0x300, AARCH64.sp: STACK}
    found = walked(AARCH64, registers, words, BIASED, file)
    assert [frame.addr - CODE for frame in found.frames] == [*[0x300] * 6, 0x400]
    assert found.ended == ""


@pytest.mark.parametrize(
    ("machine", "code", "expected"),
    [
        (X86_64, "4883c408 c3", ([], 8)),
        (X86_64, "4881c400010000 5b 415c 5d c3", ([(3, 256), (12, 264), (6, 272)], 280)),
        (I386, "83c40c 5b c3", ([(3, 12)], 16)),
        (X86_64, "c3", ([], 0)),
        (X86_64, "5c c3", None),
        (X86_64, "4883c4f8 c3", None),
        (X86_64, "90 c3", None),
        (X86_64, "4883c4", None),
        (X86_64, "41", None),
        (X86_64, "58" * 20, None),
        (AARCH64, "c3", None),
    ],
)
def test_what_code_does_before_it_returns(machine: Machine, code: str, expected: Any) -> None:
    assert epilogue(bytes.fromhex(code), machine) == expected


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("77 08 80 00 3f 1a 3b 2a 33 24 22", 0x1008),  # rsp+8, rip at its function's start
        ("77 08 80 0b 3f 1a 3b 2a 33 24 22", 0x1010),  # the same, 11 bytes on: the PLT's own CFI
        ("0a ffff 09 ff 22", 0xFFFE),
        ("31 2f fdff", None),  # round and round
        ("2f ff7f", None),
        ("22", None),
        ("", None),
        ("e0", None),
        ("12", None),
        ("08", None),
        ("31" * 100, None),
        ("10" + "80" * 20 + "01", None),
    ],
)
def test_expressions(code: str, value: int | None) -> None:
    registers = {7: 0x1000, 16: 0x2000}

    def read(addr: int, size: int) -> int:
        raise LookupError

    try:
        found: int | None = evaluate(bytes.fromhex(code), registers, read, 8)
    except CfiError:
        found = None
    assert found == value


def test_a_map_of_memory_and_what_is_in_it() -> None:
    text = (
        b"7f00-8000 r-xp 00000000 00:00 0 \n"
        b"400000-401000 r--p 00000000 fe:00 5      /bin/x\n"
        b"401000-402000 r-xp 00001000 fe:00 5      /bin/x y\\012z (deleted)\n"
        b"nonsense r-xp\n"
        b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0    [vsyscall]\n"
    )
    memory = MemoryMap(text)
    assert memory.at(0x400800) is None
    found = memory.at(0x401FFF)
    assert found is not None
    assert found.path == b"/bin/x y\\012z (deleted)"
    assert (found.offset, found.inode, found.is_file) == (0x1000, 5, True)
    assert memory.at(0x402000) is None
    assert memory.has_own_code
    assert not MemoryMap(b"").regions


@pytest.fixture
def perf_map() -> Iterator[Path]:
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    yield path
    path.unlink(missing_ok=True)


def test_a_perf_map(perf_map: Path) -> None:
    assert PerfMap(os.getpid()).at(0x1000) is None
    perf_map.write_bytes(b"1000 10 one\n2000 8 two \033[1m words\nzz 1 bad\n3000 4 cut")
    names = PerfMap(os.getpid())
    assert names.at(0x100F) == ("one", 15)
    assert names.at(0x1010) is None
    assert names.at(0x2001) == ("two \033[1m words", 1)
    assert names.at(0x3000) is None  # its line is not whole yet
    with perf_map.open("ab") as file:
        file.write(b" short\n1000 20 again\n")
    assert names.at(0x3000) == ("cut short", 0)
    assert names.at(0x101F) == ("again", 31)


def test_a_perf_map_of_somebody_else(perf_map: Path, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    perf_map.write_bytes(b"1000 10 one\n")
    os.chown(perf_map, 65534, 65534)
    assert PerfMap(os.getpid()).at(0x1000) is None
    perf_map.unlink()
    (tmp_path / "map").write_bytes(b"1000 10 one\n")
    perf_map.symlink_to(tmp_path / "map")
    assert PerfMap(os.getpid()).at(0x1000) is None
    perf_map.unlink()
    os.mkfifo(perf_map)
    assert PerfMap(os.getpid()).at(0x1000) is None


def test_a_file_that_shrinks_while_it_is_read(program: bytes, tmp_path: Path) -> None:
    path = tmp_path / "shrinking"
    path.write_bytes(program)
    image = Image(InFile(os.open(path, os.O_RDONLY)))
    frames = CallFrames(image)
    vaddr = next(at for at in code_of(image) if frames.row(at) is not None)
    os.truncate(path, 100)
    with pytest.raises(CfiError):
        frames.row(vaddr)
    assert CallFrames(image).row(vaddr) is None
    assert SymbolTable(image).at(vaddr) is None


@pytest.mark.usefixtures("needs_bpf")
def test_a_program_with_damaged_unwind_info_runs_and_says_so(tmp_path: Path, traced: Any) -> None:
    compiler = c_compiler()
    whole = tmp_path / "whole"
    subprocess.run(
        [compiler, "-O2", "-w", "-fomit-frame-pointer", "-fno-optimize-sibling-calls",
         "-o", str(whole), str(TRACEES / "stacks" / "tracee.c")], check=True,
    )  # fmt: skip
    data = bytearray(whole.read_bytes())
    section = Image(InMemory(bytes(data))).section(b".eh_frame")
    assert section is not None
    chance = random.Random(1)
    for at in range(section.offset, section.offset + section.size):
        data[at] = chance.randrange(256)
    broken = tmp_path / "broken"
    broken.write_bytes(data)
    broken.chmod(0o755)
    before, after = (traced(["-k"], str(path), "deep") for path in (whole, broken))
    assert after.code == before.code == 0
    assert after.stderr == ""
    [stack] = [line["stack"] for line in before.calls("bpf")]
    [line] = after.calls("bpf")
    assert len(stack) > 30
    assert line["stack_ended"]
    assert [frame["symbol"] for frame in line["stack"][:2]] == ["syscall", "ask"]
