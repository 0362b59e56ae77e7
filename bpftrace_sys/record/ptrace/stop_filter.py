"""Which system calls stop a tracee: as a classic BPF program, and as a predicate.

The program runs in the tracee at every system call and answers SECCOMP_RET_TRACE
for the calls that the tracer wants to see; all others run at full speed. Calls
that are decided by number alone also stay in the kernel's per-number cache
(Linux 5.11), because nothing else is loaded before their verdict.
"""

from __future__ import annotations

import struct

from decoders import arch as arches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Final

# include/uapi/linux/seccomp.h
SECCOMP_RET_TRACE: Final = 0x7FF00000
SECCOMP_RET_ALLOW: Final = 0x7FFF0000
RET_DATA: Final = 0xBF57
"""SECCOMP_RET_DATA of our own filter: tells our stops from those of a filter
that the tracee installed for a tracer of its own."""

# include/uapi/linux/bpf_common.h, filter.h
BPF_LD_W_ABS: Final = 0x20
BPF_ALU_AND_K: Final = 0x54
BPF_JMP_JA: Final = 0x05
BPF_JMP_JEQ_K: Final = 0x15
BPF_RET_K: Final = 0x06
BPF_MAXINSNS: Final = 4096

# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]
_NR: Final = 0
_ARCH: Final = 4
_ARGS: Final = 16

_INSN: Final = struct.Struct("=HBBI")  # struct sock_filter: code, jt, jf, k
_GROUP: Final = 250  # values reached by one 8-bit jump


class ArgRule:
    """Stop only where one argument is, or is not, one of some values.

    Only the low 32 bits of the argument take part, as in the kernel, where
    ioctl's request is an ``unsigned int`` and bpf's cmd an ``int``.
    """

    __slots__ = ("arg", "mask", "negate", "values")

    def __init__(
        self, arg: int, values: frozenset[int], mask: int = 0xFFFFFFFF, negate: bool = False
    ) -> None:
        self.arg = arg
        """Index of the argument, 0 to 5."""
        self.values = values
        self.mask = mask
        """Bits of the argument that are compared."""
        self.negate = negate
        """Stop where the argument is none of the values."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ArgRule):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash((self.arg, self.values, self.mask, self.negate))

    def matches(self, args: Sequence[int]) -> bool:
        return ((args[self.arg] & self.mask & 0xFFFFFFFF) in self.values) is not self.negate


Rule = ArgRule | None
"""None: stop always."""


class FilterTooLongError(ValueError):
    """More rules than one seccomp program can hold (BPF_MAXINSNS)."""


class StopFilter:
    """The calls that stop, by name.

    ``rules`` maps a call's name (one of ``arch.known_names()``, ValueError
    otherwise) to a rule. A name that an architecture does not have is left out
    there. Calls of the x32 ABI stop as their x86-64 namesakes do, so that
    somebody can say that they are not decoded.
    """

    __slots__ = ("_table", "rules")

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        unknown = sorted(set(rules) - arches.known_names())
        if unknown:
            raise ValueError(f"no such system call in our table: {', '.join(unknown)}")
        self.rules: dict[str, Rule] = dict(rules)
        self._table: dict[int, dict[int, Rule]] = {}
        for arch, numbers in arches.NUMBERS.items():
            table = {numbers[name]: rule for name, rule in rules.items() if name in numbers}
            if arch == arches.AUDIT_ARCH_X86_64:
                table.update(
                    (arches.X32_NUMBERS[name], rule)
                    for name, rule in rules.items()
                    if name in arches.X32_NUMBERS
                )
            self._table[arch] = table

    def wants(self, arch: int, nr: int, args: Sequence[int]) -> bool:
        """Whether this call stops. Any ints may be passed."""
        table = self._table.get(arch)
        if table is None or nr not in table:
            return False
        rule = table[nr]
        return rule is None or rule.matches(args)

    def numbers(self, arch: int) -> frozenset[int]:
        """The numbers that may stop in ``arch``; x32's with X32_BIT."""
        return frozenset(self._table.get(arch, ()))

    def merged(self, other: StopFilter) -> StopFilter:
        """A filter that stops where either does.

        May stop more often: rules for the same call that cannot be joined into
        one become "always".
        """
        rules = dict(self.rules)
        for name, rule in other.rules.items():
            rules[name] = _join(rules[name], rule) if name in rules else rule
        return StopFilter(rules)

    def compile(self, archs: Iterable[int] | None = None, data: int = RET_DATA) -> bytes:
        """An array of ``struct sock_filter`` for the given AUDIT_ARCH_* values
        (default: those of this machine) in the byte order of this machine.

        Raises FilterTooLongError past BPF_MAXINSNS instructions.
        """
        archs = arches.of_machine() if archs is None else tuple(archs)
        trace = SECCOMP_RET_TRACE | data
        blocks = [(arch, _block(self._table.get(arch, {}), trace)) for arch in archs]
        program: list[tuple[int, int, int, int]] = [(BPF_LD_W_ABS, 0, 0, _ARCH)]
        # Dispatch: two instructions an architecture, then "allow".
        start = 2 * len(blocks) + 1
        for index, (arch, block) in enumerate(blocks):
            program.append((BPF_JMP_JEQ_K, 0, 1, arch))
            program.append((BPF_JMP_JA, 0, 0, start - 2 * index - 2))
            start += len(block)
        program.append((BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW))
        for _, block in blocks:
            program.extend(block)
        if len(program) > BPF_MAXINSNS:
            raise FilterTooLongError(f"the stop filter takes {len(program)} instructions")
        return b"".join(_INSN.pack(*insn) for insn in program)


def _join(one: Rule, two: Rule) -> Rule:
    if one is None or two is None or one.negate or two.negate:
        return None
    if one.arg != two.arg or one.mask != two.mask:
        return None
    return ArgRule(one.arg, one.values | two.values, one.mask)


def _block(table: Mapping[int, Rule], trace: int) -> list[tuple[int, int, int, int]]:
    """The part of the program for one architecture; position-independent."""
    bodies = [(nr & 0xFFFFFFFF, _body(rule, trace)) for nr, rule in sorted(table.items())]
    block: list[tuple[int, int, int, int]] = [(BPF_LD_W_ABS, 0, 0, _NR)]
    start = 2 * len(bodies) + 1
    for index, (nr, body) in enumerate(bodies):
        block.append((BPF_JMP_JEQ_K, 0, 1, nr))
        # An unconditional jump reaches 32 bits far, a conditional one only 255.
        block.append((BPF_JMP_JA, 0, 0, start - 2 * index - 2))
        start += len(body)
    block.append((BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW))
    for _, body in bodies:
        block.extend(body)
    return block


def _body(rule: Rule, trace: int) -> list[tuple[int, int, int, int]]:
    """What decides one call: its arguments, or nothing."""
    if rule is None:
        return [(BPF_RET_K, 0, 0, trace)]
    hit, miss = (SECCOMP_RET_ALLOW, trace) if rule.negate else (trace, SECCOMP_RET_ALLOW)
    # The low word of a __u64 comes first: all our architectures are little-endian.
    body: list[tuple[int, int, int, int]] = [(BPF_LD_W_ABS, 0, 0, _ARGS + 8 * rule.arg)]
    if rule.mask & 0xFFFFFFFF != 0xFFFFFFFF:
        body.append((BPF_ALU_AND_K, 0, 0, rule.mask & 0xFFFFFFFF))
    values = sorted(value for value in rule.values if 0 <= value <= 0xFFFFFFFF)
    for first in range(0, len(values), _GROUP):
        group = values[first : first + _GROUP]
        for index, value in enumerate(group):
            body.append((BPF_JMP_JEQ_K, len(group) - index, 0, value))
        body.append((BPF_JMP_JA, 0, 0, 1))
        body.append((BPF_RET_K, 0, 0, hit))
    body.append((BPF_RET_K, 0, 0, miss))
    return body
