"""What is certain of registers at an instruction, from what the log told before it.

A log tells what has changed, and not all of that: a null check also settles the other registers
with the same id (mark_ptr_or_null_regs()), a bounds check narrows their copies and the packet
pointers beside them, a call takes the values of R0 to R5 and of what it releases. None of these is
printed again. So whatever an instruction may have changed without a word is forgotten.
"""

from __future__ import annotations

import re
from typing import Final

from bpftrace_sys.story.verifier.lines import Entry, State

_MARK: Final = re.compile(r"(?:^| )((?:R10|R\d|fp-\d{1,3})(?:_[a-zA-Z]+)?)=")
_TAIL: Final = re.compile(r"(?: refs=[\d,]+| cb| async_cb)+$")
_ID: Final = re.compile(r"\bid=(\d+)")
_ARGUMENTS: Final = ("R0", "R1", "R2", "R3", "R4", "R5")
_KEPT: Final = re.compile(r"=(?:ctx\(|fp|map_ptr\(|map_value\(|map_key\(|-?\d|0x|scalar\(|inv)")
"""What a helper cannot take away: all else may be released, or moved (packets)."""
_PACKET: Final = re.compile(r"=(?:pkt|pkt_meta|pkt_end)\b")
_WRITTEN: Final = re.compile(r"^\([0-9a-f]{2}\) (?:lock )?([rw]\d+) (?!s?[<>!=]=? )\S*=")
_FETCHED: Final = re.compile(r"\b([rw]\d+) = (?:atomic|xchg|cmpxchg|load_acquire)")


def registers(state: str) -> dict[str, str]:
    """A state's parts by register or stack slot: ``R1`` -> ``R1=ctx()``."""
    state = _TAIL.sub("", state)
    marks = list(_MARK.finditer(state))
    parts = {}
    for index, mark in enumerate(marks):
        end = marks[index + 1].start() if index + 1 < len(marks) else len(state)
        parts[mark[1].partition("_")[0]] = state[mark.start(1) : end].strip()
    return parts


class Known:
    """The registers of the frame that the log is in."""

    def __init__(self) -> None:
        self.frame = 0
        self.parts: dict[str, str] = {}

    def state(self, state: State) -> None:
        """A state was told."""
        told = registers(state.text)
        if state.whole or state.frame != self.frame:
            self.parts = told
            self.frame = state.frame
        else:
            self.parts.update(told)

    def ran(self, entry: Entry) -> None:
        """An instruction has run: what it may have changed is forgotten, what it told is known."""
        text = entry.text
        told = registers(entry.state.text) if entry.state is not None else {}
        if text.startswith("(85)"):
            self.parts = {
                name: part
                for name, part in self.parts.items()
                if name not in _ARGUMENTS
                and not name.startswith("fp")
                and _KEPT.search(part)
                and "ref_obj_id=" not in part
            }
        elif text[1:2].isalnum() and " if " in text[:9]:
            self._compared(text, told)
        else:
            for match in (_WRITTEN.match(text), _FETCHED.search(text)):
                if match is not None:
                    self.parts.pop("R" + match[1][1:], None)
            if re.match(r"\([0-9a-f]{2}\) (?:lock )?\*\(", text) and not any(
                name.startswith("fp") for name in told
            ):
                # A store through a register may reach any slot of the stack.
                self.parts = {
                    name: part for name, part in self.parts.items() if not name.startswith("fp")
                }
        if entry.state is not None:
            self.state(entry.state)

    def _compared(self, text: str, told: dict[str, str]) -> None:
        names = {f"R{number}" for number in re.findall(r"\b[rw](\d+)\b", text)}
        ids = {
            number
            for name in names
            for number in _ID.findall(self.parts.get(name, "") + told.get(name, ""))
        }
        packets = any(_PACKET.search(self.parts.get(name, "")) for name in names)
        for name, part in list(self.parts.items()):
            same = not ids.isdisjoint(_ID.findall(part))
            if name in names or same or (packets and _PACKET.search(part)):
                del self.parts[name]
