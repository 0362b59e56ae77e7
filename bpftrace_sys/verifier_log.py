"""The kernel verifier's log: where it gave up, in what state, and what it said.

The log is text for people and changes from kernel to kernel; what is relied on
has not changed since Linux 4.x: an instruction's line begins with its index and a
colon and ``(xx)``, the opcode in hex; states are lines of ``R0=...`` (alone, after
an index, or as a comment after an instruction); source lines begin with ``; ``.
Everything else is what the verifier says, and its last words are the reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_INSN: Final = re.compile(r"(\d+): (\([0-9a-f]{2}\) .*)")
_STATE: Final = re.compile(
    r"(?:from \d+ to \d+(?: \(speculative execution\))?: )?(?:\d+: )?"
    r"(?:frame\d+: )?(R\d+(?:_[a-z]+)?=.*)"
)
_INVARIANT: Final = re.compile(r"R\d+(?:_\w+)? (?!=)")
_NOISE: Final = re.compile(
    r"processed \d+ insns|verification time|stack depth|func#\d+|last_idx|first_idx|mark_precise"
    r"|regs=|parent |propagating|Live regs before insn|Validating |max_states|peak_states|-- BEGIN"
    r"|-- END|caller:|callee:|returning from callee|to caller at"
)
_AT: Final = re.compile(r"\binsn (?:#|idx )?(\d+)|\bat insn (\d+)|\binsn(\d+)\b")


@dataclass(slots=True)
class Verdict:
    """What a log of a refused program says."""

    message: str
    """The verifier's last words."""
    pc: int | None = None
    """The index of the instruction that they are about."""
    insn: str | None = None
    """That instruction as the log has it."""
    state: str | None = None
    """The registers before it, as the log has them."""


def verdict(log: str) -> Verdict | None:
    """Reads a log; None if it does not say why."""
    message: str | None = None
    insn: tuple[int, str] | None = None
    state: str | None = None
    before: str | None = None
    for line in log.splitlines():
        line = line.rstrip()
        if not line or line.startswith("; "):
            continue
        found = _INSN.match(line)
        if found:
            text, _, after = found[2].partition(" ; R")
            insn = (int(found[1]), text.rstrip())
            # The state after an instruction is the one before the next.
            before = state
            if found[2].startswith("(85) call") and state is not None:
                state = _clobbered(state)
            if after:
                state = merge(state, "R" + after)
            message = None
            continue
        known = _STATE.match(line)
        if known and not _INVARIANT.match(line):
            state = known[1]
            continue
        if _NOISE.match(line):
            continue
        message = line
    if message is None:
        return None
    named = _AT.search(message)
    if named:
        pc = int(next(group for group in named.groups() if group))
        if insn is None or insn[0] != pc:
            return Verdict(message, pc)
    if insn is None:
        return Verdict(message)
    # A message follows the instruction that it is about, before any state after it.
    return Verdict(message, insn[0], insn[1], before)


_REGISTER: Final = re.compile(r"((?:R\d+|fp-\d+)(?:_[a-zA-Z]+)?)=")


def registers(state: str) -> dict[str, str]:
    """A state's parts by register or stack slot: ``R1`` -> ``R1=ctx()``."""
    marks = list(_REGISTER.finditer(state))
    parts = {}
    for index, mark in enumerate(marks):
        end = marks[index + 1].start() if index + 1 < len(marks) else len(state)
        name = mark[1].partition("_")[0]
        parts[name] = f"{name}={state[mark.end() : end].strip()}"
    return parts


def merge(old: str | None, new: str) -> str:
    """A state with what an instruction changed of it."""
    parts = registers(old) if old is not None else {}
    parts |= registers(new)
    return " ".join(parts.values())


def _clobbered(state: str) -> str:
    """A state after a call: R1 to R5 hold nothing."""
    parts = registers(state)
    return " ".join(text for name, text in parts.items() if name not in _ARGUMENTS)


_ARGUMENTS: Final = frozenset({"R1", "R2", "R3", "R4", "R5"})
