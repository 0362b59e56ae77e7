"""What arguments of subcommands' options mean: the value, or a UsageError that says what would do.

The command line and the configuration file ask the same ones, so that both say the same.
"""

from __future__ import annotations

from bpftrace_sys.cli.getopt_long import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SHORTEST: Final = 0.1
LONGEST: Final = 86_400.0
"""Seconds."""


def seconds_of(flag: str, text: str) -> float:
    """How long between two looks."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not SHORTEST <= seconds <= LONGEST:
        raise UsageError(f"{flag} takes a number of seconds from 0.1 to 86400, not {text!r}")
    return seconds


def kinds_of(flag: str, text: str) -> list[str]:
    """Of what is compared, what --only names."""
    from bpftrace_sys.cli.suggest import meant
    from bpftrace_sys.compare.diff.options import KINDS

    parts = text.split(",")
    for part in parts:
        if part not in KINDS:
            raise UsageError(
                f"{flag} {text}: {part!r} is none of {', '.join(KINDS)}{meant(part, KINDS)}"
            )
    return parts
