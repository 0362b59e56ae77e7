"""Numbers that have names: as strace's -X says, and with the names that a release has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bpftrace_sys.render.strace.quoting import hexa
from decoders.uapi import names

Table = Mapping[int, str]
STYLES: Final = ("abbrev", "raw", "verbose")
"""What -X knows: the name, the number, both."""
LACKING: Final[dict[str, str]] = {
    "map_flags": "BPF_F_VTYPE_BTF_OBJ_FD BPF_F_TOKEN_FD BPF_F_SEGV_ON_FAULT BPF_F_NO_USER_CONV"
    " BPF_F_RB_OVERWRITE",
    "prog_flags": "BPF_F_TOKEN_FD",
    "open_flags": "BPF_F_TOKEN_FD",
    "test_run_flags": "BPF_F_TEST_SKB_CHECKSUM_COMPLETE",
    "bpf_cmd": "BPF_COMMON_ATTRS",
}
"""Names that strace 7.2 has not where it prints what a table of ours has: its src/xlat/bpf_*.in.
What tables have besides is the same."""


class Constants:
    """How numbers with names are printed."""

    def __init__(self, style: str = "abbrev", exact: bool = False) -> None:
        """``exact``: with strace 7.2's names and no others."""
        self.style = style
        self.exact = exact
        self._known: dict[int, Table] = {}
        """By the table's identity: what is known of it. Tables live as long as we do."""
        if exact:
            for table, lacking in LACKING.items():
                whole: Table = vars(names)[table]
                self._known[id(whole)] = {
                    number: name for number, name in whole.items() if name not in lacking.split()
                }

    def known(self, table: Table) -> Table:
        """The names that count."""
        return self._known.get(id(table), table)

    def named(self, number: str, name: str) -> str:
        """A number that has a name."""
        if self.style == "abbrev":
            return name
        return number if self.style == "raw" else f"{number} /* {name} */"

    def xval(self, value: int, table: Table, default: str | None, name: str | None = None) -> str:
        """An enum's value; ``name``: what is known besides the table, where it lacks it."""
        found = self.known(table).get(value) or (None if self.exact else name)
        if found is not None:
            return self.named(hexa(value), found)
        if default and self.style != "raw":
            return f"{hexa(value)} /* {default} */"
        return hexa(value)

    def flags(
        self, value: int, table: Table, default: str, newer: tuple[str, ...] = (), rest: int = 0
    ) -> str:
        """A set of bits; ``newer``: the names of them all but for ``rest``, where more are known
        than the table has."""
        table = self.known(table)
        if self.style == "raw":
            return hexa(value)
        if not value:
            return self.named("0", table[0]) if 0 in table else "0"
        found: list[str] = []
        if newer and not self.exact:
            found.extend(newer)
        else:
            rest = value
            for bits, name in table.items():
                if bits and rest & bits == bits:
                    found.append(name)
                    rest &= ~bits
        if not found:
            return f"{hexa(value)} /* {default} */"
        if rest:
            found.append(hexa(rest))
        return self.named(hexa(value), "|".join(found))
