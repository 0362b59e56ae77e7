"""The lines of a verifier log: instructions, states, source, and the words between them.

The log is text for people and changes from kernel to kernel; what is relied on has not changed
since Linux 4.x: an instruction's line begins with its index, a colon and ``(xx)``, the opcode in
hex; states are lists of ``R0=...``; source lines begin with ``; ``.

Where a path ends, a log of level 1 is set back to where the path began (bpf_vlog_reset(), since
commit 2e5766483c8c, Linux 5.16 with 0f55f9ed21f9), which is behind the jump that led there. So what
comes next stands on that jump's own line: a state, or the verdict.
"""

from __future__ import annotations

import re
from typing import Final

from decoders.records import NamedTuple

_STATE: Final = r"(?:frame(\d+): ?)?((?:R\d+(?:_\w+)?=|fp-\d+).*)"
_INSN: Final = re.compile(r"(\d{1,9}): (\(([0-9a-f]{2})\) .*)")
_AFTER: Final = re.compile(rf"(.*?)\s*; {_STATE}$")
_HERE: Final = re.compile(rf"(.*?) ?\b(\d{{1,9}}): {_STATE}$")
_ENDED: Final = re.compile(r"(.*?(?:goto pc[+-]\d+|\bcall [^ ]+|\) exit))(?: (.+))?$")
_FROM: Final = re.compile(rf"from \d+ to \d+(?: \(speculative execution\))?: ?{_STATE}$")
_OWN: Final = re.compile(rf"(?:\d{{1,9}}: ?)?{_STATE}$")
_INVARIANT: Final = re.compile(r"R\d+(?:_\w+)? (?!=)")
_WHOLE_NEXT: Final = re.compile(r"caller:|callee:|returning from callee:|to caller at \d+:")
_STATISTICS: Final = re.compile(r"processed \d+ insns? ?\(limit|processed \d+ insns\b")
_NOISE: Final = re.compile(
    r"verification time|stack depth|func#\d+|last_idx|first_idx|mark_precise|regs=|parent "
    r"|propagating|Live regs before insn|Validating |max_states|peak_states|-- BEGIN|-- END"
    r"|cur state: |old state: |from \d+ to \d+.*: safe|\d+: safe|insn \d+ cannot be|Func#\d+ "
    r"|\d+: \(|arg#\d+ reference type\('UNKNOWN|func '\w+' arg\d+ "
)


class State(NamedTuple):
    """Registers and stack slots, as a line tells them."""

    frame: int
    text: str
    whole: bool
    """All that is known of the frame; else what has changed since."""


class Entry(NamedTuple):
    """A line, or what is left of one.

    ``insn`` is the index of an instruction; ``text`` the instruction, or what the verifier says;
    ``state`` what is known once the instruction has run.
    """

    insn: int | None
    text: str
    state: State | None = None


def entries(log: str) -> list[Entry]:
    """A log's instructions, states and words, in order; source lines and noise are left out."""
    found: list[Entry] = []
    whole = True
    """Of the next line that is a state: the first one tells all, and so do those of frames."""
    for raw in log.split("\n"):
        line = raw.rstrip()
        if not line or line.startswith("; "):
            continue
        cut = _STATISTICS.search(line)
        if cut is not None:
            line = line[: cut.start()].rstrip()
            if not line:
                continue
        insn = _INSN.match(line)
        if insn is not None:
            found += _instruction(int(insn[1]), insn[2])
            whole = False
            continue
        state = _FROM.match(line)
        if state is not None:
            found.append(Entry(None, "", State(int(state[1] or 0), state[2], True)))
            continue
        state = None if _INVARIANT.match(line) else _OWN.match(line)
        if state is not None:
            found.append(Entry(None, "", State(int(state[1] or 0), state[2], whole)))
            whole = False
        elif _WHOLE_NEXT.match(line):
            whole = True
        elif not _NOISE.match(line):
            found.append(Entry(None, line))
    return found


def _instruction(pc: int, text: str) -> list[Entry]:
    """The entries of an instruction's line."""
    after = _AFTER.match(text)
    if after is not None:
        return [Entry(pc, after[1], State(int(after[2] or 0), after[3], False))]
    here = _HERE.match(text)
    if here is not None:
        return [Entry(pc, here[1].rstrip(), State(int(here[3] or 0), here[4], True))]
    text = text.removesuffix(";").rstrip()
    ended = _ENDED.match(text)
    if ended is not None and ended[2] and not ended[2].startswith("("):
        rest = ended[2].strip()
        said = [] if _NOISE.match(rest) else [Entry(None, rest)]
        return [Entry(pc, ended[1]), *said]
    return [Entry(pc, text)]
