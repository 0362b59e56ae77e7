"""strace's options that shape the lines of --style strace."""

from __future__ import annotations

from bpftrace_sys.cli.call_sets import call_set
from bpftrace_sys.cli.getopt_long import UsageError
from bpftrace_sys.cli.settings import TRACED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from bpftrace_sys.cli.settings import Settings

CONSTANTS: Final = ("raw", "abbrev", "verbose")


def const_style(settings: Settings, flag: str, text: str) -> None:
    """-X: numbers that have names as numbers, names, or both."""
    if text not in CONSTANTS:
        raise UsageError(f"{flag} takes {', '.join(CONSTANTS)}, not {text!r}")
    settings.constants = text


def raw(settings: Settings, flag: str, text: str) -> None:
    """Calls whose arguments are shown as numbers."""
    settings.raw = _calls(flag, text)


def decoded(settings: Settings, flag: str, text: str) -> None:
    """-e verbose=: calls whose structures are decoded, which are all unless it says otherwise."""
    settings.undecoded = frozenset(TRACED) - _calls(flag, text)


def _calls(flag: str, text: str) -> frozenset[str]:
    negated, calls = call_set(flag, text)
    if not calls:  # all, or none
        return frozenset(TRACED) if negated else frozenset()
    return frozenset(TRACED) - calls if negated else calls
