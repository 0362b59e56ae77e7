"""Names of the kernel's functions by address, from /proc/kallsyms.

The file is read once (some 30 ms: the kernel prints 200,000 lines for it) and searched as it is:
its first part, the kernel's own symbols, is in the order of their addresses.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

PATH: Final = "/proc/kallsyms"
_IMAGE: Final = 1 << 30
"""Bytes that a kernel image may have (KERNEL_IMAGE_SIZE of arch/x86)."""
REMEMBERED: Final = 1 << 16
"""Addresses whose names are remembered; then all are forgotten."""
_BASE: Final = b" __bpf_call_base\n"


class Kallsyms:
    """The symbols as they were when the first was asked for."""

    def __init__(self, path: str = PATH) -> None:
        self._path = path
        self._text: bytes | None = None
        self._own = 0
        """Where the part in order ends."""
        self._more: dict[int, str] = {}
        """Of modules, and of what comes behind them."""
        self._base: int | None = None
        self._known: dict[int, str | None] = {}

    def _read(self) -> bytes:
        if self._text is None:
            try:
                with open(self._path, "rb") as file:
                    self._text = file.read()
            except OSError:
                self._text = b""
            # A module's name stands behind its symbols.
            module = self._text.find(b"\t[")
            self._own = len(self._text) if module < 0 else self._text.rfind(b"\n", 0, module) + 1
            for line in self._text[self._own :].splitlines():
                words = line.split(maxsplit=3)
                if len(words) >= 3 and words[0].strip(b"0"):
                    self._more.setdefault(_hex(words[0]), words[2].decode("utf-8", "replace"))
        return self._text

    @property
    def hidden(self) -> bool:
        """Whether the kernel shows us no addresses (kptr_restrict, no CAP_SYSLOG), or no file."""
        return not self.call_base

    @property
    def call_base(self) -> int:
        """The address of __bpf_call_base, from which translated calls count; 0: hidden."""
        if self._base is None:
            text = self._read()
            at = text.find(_BASE)
            line = text[text.rfind(b"\n", 0, at) + 1 : at] if at >= 0 else b""
            self._base = _hex(line.split(b" ")[0])
        return self._base

    def name(self, address: int) -> str | None:
        """The symbol at exactly that address, or None.  Of several the first in the file."""
        if address not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[address] = self._find(address) if self.call_base else None
        return self._known[address]

    def names(self, addresses: Iterable[int]) -> dict[int, str]:
        """Those of them that have names."""
        found = {}
        for address in addresses:
            name = self.name(address)
            if name is not None:
                found[address] = name
        return found

    def _find(self, address: int) -> str | None:
        text = self._read()
        if abs(address - self.call_base) > _IMAGE:
            return self._more.get(address)
        low, high = 0, self._own
        while low < high:
            start = text.rfind(b"\n", low, (low + high) // 2) + 1 or low
            if _hex(text[start : start + 16]) < address:
                low = text.find(b"\n", start) + 1 or high
            else:
                high = start
        if _hex(text[low : low + 16]) == address and low < self._own:
            return text[low : text.find(b"\n", low)].split(b" ")[2].decode("utf-8", "replace")
        return self._more.get(address)


def _hex(word: bytes) -> int:
    try:
        return int(word, 16)
    except ValueError:
        return 0
