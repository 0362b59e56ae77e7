"""What of two traces is compared."""

from __future__ import annotations

import fnmatch
from typing import Final

from decoders.records import dataclass, field

KINDS: Final = ("progs", "maps", "attachments")
"""What --only takes."""
ALL: Final = frozenset({"progs", "maps", "btf", "attachments", "probes", "calls"})
WORDS: Final = frozenset({
    "attempts", "count", "exit", "insns", "order", "probe", "reason", "result", "source", "target",
    "via",
})
"""What --ignore takes besides names of fields."""
KERNELS: Final = frozenset({"info.info.tag", "info.info.prog_tags"})
"""Fields that follow from the program and the kernel's way of hashing it."""
ONE_BY_ONE: Final = 20_000
"""Programs, maps and BTF of a trace that are held one by one; the rest in a hash."""
DISTINCT: Final = 2_000
"""Different calls about one object that are held one by one; the rest in a hash."""
GROUPS: Final = 50_000
"""Objects and processes whose calls are held apart."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is compared."""

    only: frozenset[str] = frozenset()
    ignore: tuple[str, ...] = ()
    """Patterns of field names, whole paths or their last parts."""
    strict: bool = False
    asked: set[str] = field(default_factory=set, compare=False)
    """Names of fields of which it was asked whether they are left out."""
    used: set[str] = field(default_factory=set, compare=False)
    """Words of ``ignore`` that left something out."""

    @property
    def compared(self) -> frozenset[str]:
        """The parts that are compared."""
        return self.only or ALL

    def ignores(self, name: str) -> bool:
        """Whether a field is left out."""
        last = name.rpartition(".")[2].partition("[")[0]
        if not self.strict and name in KERNELS:
            return True
        self.asked.add(last)
        found = [
            word
            for word in self.ignore
            if fnmatch.fnmatchcase(name, pattern := word.removeprefix("attr."))
            or fnmatch.fnmatchcase(last, pattern)
        ]
        self.used.update(found)
        return bool(found)

    @property
    def idle(self) -> list[str]:
        """Words of ``ignore`` that name nothing that was compared."""
        return [word for word in self.ignore if word not in self.used and word not in WORDS]
