"""strace's options that shape the lines of --style strace."""

from __future__ import annotations

import re

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


def abbreviated(flag: str, text: str) -> frozenset[str]:
    """-e abbrev=: the calls that are not."""
    return frozenset(TRACED) - _calls(flag, text)


def signals(settings: Settings, flag: str, text: str) -> None:
    """-e signal=: those that are shown; in bpfstrace's own style there are none."""
    import signal

    known = {f"{number}": number for number in range(1, 65)}
    known |= {name.removeprefix("SIG"): int(number) for name, number in
              signal.Signals.__members__.items()}  # fmt: skip
    known |= {f"RT_{number - 32}": number for number in range(32, 65)}  # strace's own names
    negated = text.startswith("!")
    found: set[int] = set()
    for word in text.removeprefix("!").replace(",", " ").split():
        name = word.upper().removeprefix("SIG")
        if name == "ALL":
            found |= set(range(1, 65))
        elif name in known:
            found.add(known[name])
        elif name != "NONE":
            raise UsageError(f"{flag}: {word!r} is no signal")
    settings.signals = frozenset(range(1, 65)) - found if negated else frozenset(found)
    settings.signals_asked = bool(settings.signals)


def _calls(flag: str, text: str) -> frozenset[str]:
    negated, calls = call_set(flag, text)
    if not calls:  # all, or none
        return frozenset(TRACED) if negated else frozenset()
    return frozenset(TRACED) - calls if negated else calls


ALIASES: Final = {
    "time": "time-percent", "shortest": "min-time", "longest": "max-time", "count": "calls",
    "error": "errors", "syscall": "name", "syscall-name": "name", "none": "nothing",
}  # fmt: skip
COLUMNS: Final = (
    "time-percent", "total-time", "min-time", "max-time", "avg-time", "calls", "errors", "name",
    "wall-total", "wall-min", "wall-max", "wall-avg",
)  # fmt: skip


def _column(flag: str, text: str, known: tuple[str, ...]) -> str:
    word = text.replace("_", "-")
    first, _, second = word.partition("-")
    for name in (word, ALIASES.get(word, ""), f"{second}-{first}"):
        if name in known:
            return name
    raise UsageError(f"{flag} takes {', '.join(known)}, not {text!r}")


def overhead(settings: Settings, flag: str, text: str) -> None:
    """-O: a time that each call is taken to cost under the tracer; microseconds without a unit."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise UsageError(f"{flag} takes a time, as 5us, 1.5ms or 12 (microseconds), not {text!r}")
    settings.overhead = int(float(match[1]) * _SCALES[match[2] or "us"])
    if settings.overhead > _DAY:
        raise UsageError(f"{flag} {text}: no call costs that much")


_TIME: Final = re.compile(r"(\d{1,18}(?:\.\d*)?(?:[eE][-+]?\d{1,2})?)(s|ms|us|ns)?", re.ASCII)
_SCALES: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_DAY: Final = 86_400 * 10**9


def columns(settings: Settings, flag: str, text: str) -> None:
    """-U: the columns of the table, in this order; that of the names is never missing."""
    found = tuple(_column(flag, word, COLUMNS) for word in text.split(","))
    for word in found:
        if found.count(word) > 1:
            raise UsageError(f"{flag}: {word} is asked for twice")
    settings.summary_columns = found if "name" in found else (*found, "name")


def sort_by(settings: Settings, flag: str, text: str) -> None:
    """-S: by what the table is sorted."""
    settings.summary_order = _column(flag, text, (*COLUMNS, "nothing"))
