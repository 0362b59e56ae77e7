"""What the person asked of the text, and what is left out of it by default."""

from __future__ import annotations

from typing import Final

from bpftrace_sys.render.times import Stamp
from decoders.records import dataclass

INDENT: Final = "        "
ITEMS_SHOWN: Final = 16
LOG_LINES: Final = 12
NAMES: Final = frozenset({"pathname", "path", "uprobe_path", "kprobe_func", "name", "license"})
"""Fields that are shown whole whatever -s says, as strace does with paths."""
LOGS: Final = frozenset({"log_buf", "btf_log_buf"})
"""What the kernel says for people to read: whole, too, and a line of it a line."""
NAME_LIMIT: Final = 4096
@dataclass(slots=True)
class Options:
    """What the person asked for."""

    verbose: bool = False
    insns: bool = True
    string_limit: int = 64
    width: int = 100
    columns: int = 0
    """Of a terminal.  Elsewhere what was attached where stays on its line, for grep."""
    quiet: bool = False
    stamp: Stamp | None = None
    """What stands before a call: the time (-t, -r)."""
    spent: str = ""
    """The time a call took stands behind it (-T), to this unit of render/times.py."""
    comms: bool = False
    """The thread's name stands with its id (-Y)."""
    stacks: bool = False
    """The stack stands below the call (-k)."""
    frames: int | None = None
    """The most lines of it."""
    kernel: tuple[str, ...] = ()
    """What of the kernel's view stands below a load (-e kernel=)."""
    syntax: str = "att"
    """Of native code."""
    once: bool = True
    """A listing that was shown is not shown again."""
    walks: bool = True
    """Runs of calls that only look are told in a line (story/walks.py)."""
    tokens: bool = False
    """Parts of instructions have colours of their own."""
    held: bool = True
    """What a process held when it was attached to stands before its calls (-p)."""


HOLE: Final = "\0"
"""Stands in a template for each column of data.  In text it does not occur: it is escaped."""
