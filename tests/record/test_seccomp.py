"""The stop filter: the compiled program does what the predicate says, for the kernel too."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import random
import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpftrace_sys.record.ptrace import stop_filter
from bpftrace_sys.record.ptrace.stop_filter import ArgRule, FilterTooLongError, Rule, StopFilter
from decoders import arch as arches
from decoders.raw import AUDIT_ARCH_AARCH64, AUDIT_ARCH_I386, AUDIT_ARCH_X86_64
from tests.support.examples import examples

ALL = (AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64)
TRACE = stop_filter.SECCOMP_RET_TRACE | stop_filter.RET_DATA
ALLOW = stop_filter.SECCOMP_RET_ALLOW


def emulate(program: bytes, nr: int, arch: int, args: tuple[int, ...]) -> int:
    """Classic BPF on a struct seccomp_data, as net/core/filter.c and
    Documentation/networking/filter.rst define it; any other opcode is an error."""
    data = struct.pack("<iIQ6Q", nr - (1 << 32) if nr >> 31 else nr, arch, 0, *args)
    insns = list(struct.iter_unpack("=HBBI", program))
    accumulator = 0
    at = 0
    while True:
        code, jt, jf, k = insns[at]  # an IndexError is a jump out of the program
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            assert k % 4 == 0
            assert k <= 60
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            accumulator &= k
        elif code == 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
            at += jt if accumulator == k else jf
        elif code == 0x05:  # BPF_JMP | BPF_JA
            at += k
        elif code == 0x06:  # BPF_RET | BPF_K
            return k
        else:
            raise AssertionError(f"opcode {code:#x}")


def check(stops: StopFilter, nr: int, arch: int, args: tuple[int, ...]) -> bool:
    verdict = emulate(stops.compile(ALL), nr, arch, args)
    assert verdict in (TRACE, ALLOW)
    assert (verdict == TRACE) == stops.wants(arch, nr, args)
    return verdict == TRACE


def test_by_number() -> None:
    stops = StopFilter({"bpf": None, "openat": None})
    zeros = (0,) * 6
    for arch, bpf, openat in ((ALL[0], 321, 257), (ALL[1], 357, 295), (ALL[2], 280, 56)):
        wanted = {bpf, openat}
        if arch == AUDIT_ARCH_X86_64:
            wanted |= {0x40000000 | bpf, 0x40000000 | openat}
        for base in (0, 0x40000000):
            for nr in range(base, base + 600):
                assert check(stops, nr, arch, zeros) == (nr in wanted)
        assert not check(stops, 0xFFFFFFFF, arch, zeros)
    assert not check(stops, 321, 0x40000028, zeros)  # AUDIT_ARCH_ARM


def test_missing_in_an_architecture() -> None:
    stops = StopFilter({"open": None})
    assert check(stops, 2, AUDIT_ARCH_X86_64, (0,) * 6)
    assert check(stops, 5, AUDIT_ARCH_I386, (0,) * 6)
    assert not any(check(stops, nr, AUDIT_ARCH_AARCH64, (0,) * 6) for nr in range(600))
    assert stops.numbers(AUDIT_ARCH_AARCH64) == frozenset()


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="nonesuch"):
        StopFilter({"nonesuch": None})


def test_bpf_command_ignores_the_common_attrs_bit() -> None:
    stops = StopFilter({"bpf": ArgRule(0, frozenset({5, 28}), mask=0xFFFEFFFF)})
    for arch, nr in ((ALL[0], 321), (ALL[1], 357), (ALL[2], 280)):
        for command in range(64):
            for high in (0, 1 << 16, 1 << 32, 0xFFFFFFFF << 32):
                assert check(stops, nr, arch, (command | high, 0, 0, 0, 0, 0)) == (
                    command in (5, 28)
                )
            assert not check(stops, nr, arch, (command | 1 << 17, 0, 0, 0, 0, 0))


@pytest.mark.parametrize("count", [0, 1, 2, 249, 250, 251, 500, 1000])
@pytest.mark.parametrize("negate", [False, True])
def test_many_values(count: int, negate: bool) -> None:
    """Past 255 values a conditional jump no longer reaches."""
    numbers = random.Random(count).sample(range(1 << 32), count)
    stops = StopFilter({"ioctl": ArgRule(1, frozenset(numbers), negate=negate), "bpf": None})
    program = stops.compile([AUDIT_ARCH_X86_64])
    for value in [*numbers, *(n ^ 1 for n in numbers), 0, 0xFFFFFFFF]:
        args = (3, value | 7 << 32, 0, 0, 0, 0)
        wanted = (value in numbers) is not negate
        assert (emulate(program, 16, AUDIT_ARCH_X86_64, args) == TRACE) == wanted
        assert stops.wants(AUDIT_ARCH_X86_64, 16, args) == wanted
    assert emulate(program, 321, AUDIT_ARCH_X86_64, (0,) * 6) == TRACE
    assert emulate(program, 17, AUDIT_ARCH_X86_64, (0,) * 6) == ALLOW


def test_all_calls_at_once() -> None:
    """Every known call with rules: the dispatch jumps over hundreds of instructions."""
    rule = ArgRule(2, frozenset(range(40)), mask=0xFF)
    stops = StopFilter(dict.fromkeys(sorted(arches.known_names())[:20], rule))
    for arch in ALL:
        program = stops.compile(ALL)
        for nr in range(600):
            for value in (0, 39, 40, 0x127, 0x128):
                args = (0, 0, value, 0, 0, 0)
                assert (emulate(program, nr, arch, args) == TRACE) == stops.wants(arch, nr, args)


def test_too_long() -> None:
    stops = StopFilter({"ioctl": ArgRule(1, frozenset(range(5000)))})
    with pytest.raises(FilterTooLongError):
        stops.compile([AUDIT_ARCH_X86_64])
    assert stops.wants(AUDIT_ARCH_X86_64, 16, (0, 4999, 0))


RULES = st.none() | st.builds(
    ArgRule,
    arg=st.integers(0, 5),
    values=st.frozensets(st.integers(0, 0xFFFFFFFF) | st.integers(0, 8), max_size=12),
    mask=st.sampled_from([0xFFFFFFFF, 0xFFFEFFFF, 0xF, 0]),
    negate=st.booleans(),
)
FILTERS = st.dictionaries(st.sampled_from(sorted(arches.known_names())), RULES, max_size=12)
ARGS = st.tuples(*[st.integers(0, 2**64 - 1) | st.integers(0, 8)] * 6)


@examples(300)
@given(FILTERS, st.sampled_from(ALL), st.data())
def test_program_equals_predicate(rules: dict[str, Rule], arch: int, data: st.DataObject) -> None:
    stops = StopFilter(rules)
    numbers = sorted(stops.numbers(arch)) or [1]
    nr = data.draw(st.sampled_from(numbers) | st.integers(0, 2**31 - 1))
    check(stops, nr, arch, data.draw(ARGS))


@examples(200)
@given(FILTERS, FILTERS, st.sampled_from(ALL), st.data())
def test_merged_stops_where_either_does(
    one: dict[str, Rule], two: dict[str, Rule], arch: int, data: st.DataObject
) -> None:
    merged = StopFilter(one).merged(StopFilter(two))
    nr = data.draw(st.sampled_from(sorted(merged.numbers(arch)) or [1]))
    args = data.draw(ARGS)
    if StopFilter(one).wants(arch, nr, args) or StopFilter(two).wants(arch, nr, args):
        assert merged.wants(arch, nr, args)


def test_merged_keeps_what_it_can() -> None:
    one = StopFilter({"bpf": ArgRule(0, frozenset({1})), "ioctl": ArgRule(1, frozenset({1}))})
    two = StopFilter({"bpf": ArgRule(0, frozenset({2})), "ioctl": ArgRule(0, frozenset({1}))})
    assert one.merged(two).rules == {"bpf": ArgRule(0, frozenset({1, 2})), "ioctl": None}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="installs an x86-64 filter")
def test_kernel_accepts_and_obeys() -> None:
    """The real thing: SECCOMP_RET_TRACE without a tracer is ENOSYS."""
    values = frozenset(range(1000, 1600))
    stops = StopFilter({"getpid": None, "prctl": ArgRule(0, values), "dup": ArgRule(
        0, frozenset({0, 1, 2}), negate=True)})  # fmt: skip
    from bpftrace_sys.record.ptrace.spawn import _install

    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            _install(stops.compile())

            def error(*call: int) -> int:
                ctypes.set_errno(0)
                libc.syscall(*(ctypes.c_long(word) for word in call))
                return ctypes.get_errno()

            answers = [error(39), error(32, 0), error(32, 1000), error(32, 1 << 32)]
            answers += [error(157, value, 0, 0, 0, 0) for value in range(995, 1605)]
            os.write(write, struct.pack(f"={len(answers)}i", *answers))
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    answers = [answer for (answer,) in struct.iter_unpack("=i", data)]
    assert answers[:4] == [errno.ENOSYS, 0, errno.ENOSYS, 0]
    assert answers[4:] == [
        errno.ENOSYS if value in values else errno.EINVAL for value in range(995, 1605)
    ]


# -- numbers ----------------------------------------------------------------------

HEADERS = {
    AUDIT_ARCH_X86_64: ("asm/unistd_64.h", r"#define __NR_(\w+) (\d+)"),
    AUDIT_ARCH_I386: ("asm/unistd_32.h", r"#define __NR_(\w+) (\d+)"),
    AUDIT_ARCH_AARCH64: ("asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+) (\d+)"),
}


def header(name: str) -> str:
    for folder in ("/usr/include", "/usr/include/x86_64-linux-gnu"):
        path = Path(folder, name)
        if path.exists():
            return path.read_text()
    pytest.skip(f"no {name} (linux-libc-dev)")


@pytest.mark.parametrize("arch", ALL)
def test_numbers_are_the_headers(arch: int) -> None:
    name, pattern = HEADERS[arch]
    found = {call: int(number) for call, number in re.findall(pattern, header(name))}
    numbers = arches.NUMBERS[arch]
    renamed = {"umount": "umount2"} if arch == AUDIT_ARCH_AARCH64 else {}
    found.update({ours: found[theirs] for theirs, ours in renamed.items() if theirs in found})
    for call in arches.known_names():
        if call in found:
            assert numbers.get(call) == found[call], call
        elif call in numbers:
            # Newer than the header, which then ends before it.
            assert numbers[call] > max(found.values()), call


def test_x32_numbers_are_the_headers() -> None:
    found = dict(
        re.findall(r"#define __NR_(\w+) \(__X32_SYSCALL_BIT \+ (\d+)\)", header("asm/unistd_x32.h"))
    )
    assert len(found) > 300
    for call, number in arches.X32_NUMBERS.items():
        assert number == arches.X32_BIT | int(found[call]), call


def test_names() -> None:
    for arch, numbers in arches.NUMBERS.items():
        assert len(set(numbers.values())) == len(numbers)
        for name, number in numbers.items():
            assert arches.name(arch, number) == name
            assert arches.number(arch, name) == number
        assert arches.name(arch, 99999) is None
    assert arches.number(1, "bpf") is None
    assert arches.is_x32(AUDIT_ARCH_X86_64, 0x40000141)
    assert not arches.is_x32(AUDIT_ARCH_X86_64, 321)
    assert not arches.is_x32(AUDIT_ARCH_I386, 0x40000141)
    assert arches.name(AUDIT_ARCH_X86_64, 0x40000141) is None
