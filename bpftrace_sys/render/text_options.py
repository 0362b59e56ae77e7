"""What the person asked of the text, and what is left out of it by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bpftrace_sys.render.times import Stamp
from decoders.values import (
    BEYOND_SIZE,
    NULL,
    Absent,
    Bytes,
    Fd,
    Flags,
    Int,
    Name,
    Text,
    Value,
)

if TYPE_CHECKING:
    pass

INDENT: Final = "        "
ITEMS_SHOWN: Final = 16
LOG_LINES: Final = 12
MEANINGFUL_ZERO: Final = frozenset({"probe_offset", "retval", "key_size"})
"""Fields whose zero says something, so it is not folded."""
NAMED_ZERO: Final = frozenset({"config", "attach_type"})
"""The same where the zero has a name: PERF_COUNT_SW_CPU_CLOCK, BPF_CGROUP_INET_INGRESS."""
NAMES: Final = frozenset({"pathname", "path", "uprobe_path", "kprobe_func", "name", "license"})
"""Fields that are shown whole whatever -s says, as strace does with paths."""
LOGS: Final = frozenset({"log_buf", "btf_log_buf"})
"""What the kernel says for people to read: whole, too, and a line of it a line."""
NAME_LIMIT: Final = 4096
LISTED: Final = frozenset(
    {
        "func_info_rec_size",
        "func_info",
        "func_info_cnt",
        "line_info_rec_size",
        "line_info",
        "line_info_cnt",
    }
)
"""Fields of a PROG_LOAD that its listing shows; in full with -v only."""


@dataclass(slots=True)
class Options:
    """What the person asked for."""

    verbose: bool = False
    insns: bool = True
    string_limit: int = 64
    width: int = 100
    quiet: bool = False
    stamp: Stamp | None = None
    """What stands before a call: the time (-t, -r)."""
    spent: str = ""
    """The time a call took stands behind it (-T), to this unit of render/times.py."""
    comms: bool = False
    """The thread's name stands with its id (-Y)."""
    stacks: bool = False
    """The stack stands below the call (-k)."""
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


def is_zero(name: str, value: Value) -> bool:
    """Whether a field may be folded: zero, and zero means nothing there."""
    kind = type(value)
    if kind is Int or kind is Name:
        zero: bool = value.value == 0  # type: ignore[union-attr]
    elif isinstance(value, Flags):
        zero = value.value == 0 and not (value.names and name == "flags")
    elif isinstance(value, Fd):
        zero = value.value == 0 and value.fact is None
    elif isinstance(value, Text):
        zero = not value.data
    elif isinstance(value, Bytes):
        zero = not value.data.strip(b"\0")
    else:
        zero = isinstance(value, Absent) and value.reason in (NULL, BEYOND_SIZE)
    if kind is Name and name in NAMED_ZERO and value.name:  # type: ignore[union-attr]
        return False
    return zero and name not in MEANINGFUL_ZERO
