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

_INSN: Final = re.compile(r"(\d{1,9}): (\([0-9a-f]{2}\) .*)")
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
_AT: Final = re.compile(r"\binsn ?(?:#|idx )?(\d{1,9})\b")


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
    state: dict[str, str] = {}
    changes: dict[str, str] = {}  # by the last instruction: its own state is the one before them
    calls = False
    for line in log.splitlines():
        line = line.rstrip()
        if not line or line.startswith("; "):
            continue
        found = _INSN.match(line)
        if found:
            if calls:
                # What a call leaves of R1 to R5 is nothing.
                for name in _ARGUMENTS:
                    state.pop(name, None)
            state.update(changes)
            text, _, after = found[2].partition(" ; R")
            insn = (int(found[1]), text.rstrip())
            changes = registers("R" + after) if after else {}
            calls = text.startswith("(85) call")
            message = None
            continue
        known = _STATE.match(line)
        if known and not _INVARIANT.match(line):
            state, changes, calls = registers(known[1]), {}, False
            continue
        if _NOISE.match(line):
            continue
        message = line
    if message is None:
        return None
    named = _AT.search(message)
    if named:
        pc = int(named[1])
        if insn is None or insn[0] != pc:
            return Verdict(message, pc)
    if insn is None:
        return Verdict(message)
    return Verdict(message, insn[0], insn[1], " ".join(state.values()) or None)


_ARGUMENTS: Final = ("R1", "R2", "R3", "R4", "R5")
_REGISTER: Final = re.compile(r"\b((?:R10|R\d|fp-\d{1,3})(?:_[a-zA-Z]+)?)=")


def registers(state: str) -> dict[str, str]:
    """A state's parts by register or stack slot: ``R1`` -> ``R1=ctx()``."""
    marks = list(_REGISTER.finditer(state))
    parts = {}
    for index, mark in enumerate(marks):
        end = marks[index + 1].start() if index + 1 < len(marks) else len(state)
        parts[mark[1].partition("_")[0]] = state[mark.start() : end].strip()
    return parts
