"""The verdict of a verifier log: where the verifier gave up, in what state, and what it said."""

from __future__ import annotations

import re
from typing import Final

from bpftrace_sys.story.verifier.lines import Entry, entries
from bpftrace_sys.story.verifier.registers import Known
from decoders.records import dataclass

LINES: Final = 6
"""Lines of a verdict that are told: its last ones."""
_AT: Final = re.compile(r"\binsn ?(?:#|idx )?(\d{1,9})\b")
_REGISTER: Final = re.compile(r"\b[Rrw](10|\d)\b")
_ASSIGNED: Final = re.compile(r"\([0-9a-f]{2}\) [rw]\d+ = ")


@dataclass(slots=True)
class Verdict:
    """What a log of a refused program says."""

    lines: tuple[str, ...]
    """What the verifier said last: all lines since the last instruction."""
    pc: int | None = None
    """The index of the instruction that they are about."""
    insn: str | None = None
    """That instruction as the log has it."""
    state: str | None = None
    """What is certain of the registers that it uses, before it ran, as the log has them."""

    @property
    def message(self) -> str:
        """Its last lines."""
        return self.lines[-1]


def verdict(log: str) -> Verdict | None:
    """Reads a log; None if it does not say why."""
    known = Known()
    pending: Entry | None = None
    lines: list[str] = []
    for entry in entries(log):
        if entry.insn is None and entry.state is None:
            lines.append(entry.text)
            continue
        lines.clear()
        if entry.insn is None and entry.state is not None:
            if pending is not None:
                known.ran(pending)
                pending = None
            known.state(entry.state)
            continue
        if pending is not None:
            known.ran(pending)
        pending = entry
    if not lines:
        return None
    said = tuple(lines[-LINES:])
    named = [int(number) for line in said for number in _AT.findall(line)]
    if pending is None:
        return Verdict(said, named[-1] if named else None)
    if named and pending.insn not in named:
        return Verdict(said, named[-1])
    return Verdict(said, pending.insn, pending.text, _state(said, pending, known))


def _state(lines: tuple[str, ...], insn: Entry, known: Known) -> str | None:
    """The registers that the instruction or the lines name, as far as they are certain."""
    used = _ASSIGNED.sub("", insn.text)
    names = [f"R{number}" for number in _REGISTER.findall(used)]
    names += [f"R{number}" for line in lines for number in _REGISTER.findall(line)]
    if insn.text.startswith("(85) call"):
        names += ["R1", "R2", "R3", "R4", "R5"]
    parts = [known.parts[name] for name in dict.fromkeys(names) if name in known.parts]
    text = " ".join(parts)
    return f"frame{known.frame}: {text}" if text and known.frame else text or None
