"""The command line of tracing and replaying: one table, parsed as strace does.

Options stand before PROG; everything from PROG on belongs to it.
"""

from __future__ import annotations

import getopt
from dataclasses import dataclass, field
from typing import Final, NamedTuple

TRACED: Final = ("bpf", "perf_event_open", "ioctl", "openat")


class UsageError(Exception):
    """Arguments that cannot be understood; the text says which and what would do."""


class Option(NamedTuple):
    """A row of the table."""

    short: str
    long: str
    metavar: str
    help: str
    only: str = ""
    """``live`` or ``replay`` where it makes sense for one of them only."""


OPTIONS: Final = (
    Option("f", "follow-forks", "", "follow forks, vforks, clones and threads", "live"),
    Option("o", "output", "FILE", "text to FILE instead of stderr"),
    Option("", "json", "FILE", "the trace as JSON lines to FILE (- is stdout), for replay"),
    Option("e", "expr", "EXPR", "trace=bpf,perf_event_open,ioctl,openat: any of these", "live"),
    Option("v", "verbose", "", "fold nothing: all fields, all log lines, where lines come from"),
    Option("", "no-insns", "", "instruction listings as one word"),
    Option("s", "string-limit", "N", "show at most N bytes of a string (64)"),
    Option("q", "quiet", "", "no exits of processes, no summary at the end"),
    Option("", "no-seccomp", "", "stop on every system call rather than filter", "live"),
    Option("h", "help", "", "this text"),
    Option("V", "version", "", "the version"),
)
"""In the order of the help."""

EXAMPLES: Final = """\
examples:
  bpfstrace -f python3 hello.py           what hello.py asks of the kernel's BPF
  bpfstrace -f -o out.txt ./loader        the loader's own output stays apart
  bpfstrace -f --json trace.jsonl ./loader
  bpfstrace replay -v trace.jsonl         the same text again, unfolded
  bpfstrace -e trace=bpf bpftool prog list
"""


@dataclass(slots=True)
class Settings:
    """What the command line said."""

    follow: bool = False
    output: str | None = None
    json: str | None = None
    traced: tuple[str, ...] = TRACED
    explicit: frozenset[str] = frozenset()
    """Calls that -e named: all of them are shown, BPF's story or not."""
    verbose: bool = False
    insns: bool = True
    string_limit: int = 64
    quiet: bool = False
    seccomp: bool = True
    help: bool = False
    version: bool = False
    args: list[str] = field(default_factory=list)


def number(text: str, option: str) -> int:
    """A count from the command line."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise UsageError(f"{option} takes a number, not {text!r}")
    return value


def expression(settings: Settings, text: str) -> None:
    """``-e trace=...``; the word ``trace=`` may be left out, as in strace."""
    key, equals, values = text.partition("=")
    if not equals:
        key, values = "trace", text
    if key not in ("trace", "t"):
        raise UsageError(f"-e {text}: only -e trace=... is understood")
    chosen = [word for word in values.split(",") if word]
    for word in chosen:
        if word not in TRACED:
            raise UsageError(f"-e {text}: {word!r} is none of {', '.join(TRACED)}")
    if not chosen:
        raise UsageError(f"-e {text}: names no system call; take any of {', '.join(TRACED)}")
    settings.traced = tuple(call for call in TRACED if call in chosen)
    settings.explicit = frozenset(chosen)


def parse(words: list[str], command: str) -> Settings:
    """Parses what follows ``bpfstrace`` (command ``live``) or ``bpfstrace replay``."""
    rows = [row for row in OPTIONS if row.only in ("", command)]
    short = "".join(row.short + (":" if row.metavar else "") for row in rows if row.short)
    long = [row.long + ("=" if row.metavar else "") for row in rows]
    take = getopt.getopt if command == "live" else getopt.gnu_getopt
    try:
        pairs, rest = take(words, short, long)
    except getopt.GetoptError as error:
        raise UsageError(error.msg) from None
    by_flag = {f"-{row.short}": row for row in rows if row.short}
    by_flag |= {f"--{row.long}": row for row in rows}
    settings = Settings(args=rest)
    for flag, value in pairs:
        match by_flag[flag].long:
            case "follow-forks":
                settings.follow = True
            case "output":
                settings.output = value
            case "json":
                settings.json = value
            case "expr":
                expression(settings, value)
            case "verbose":
                settings.verbose = True
            case "no-insns":
                settings.insns = False
            case "string-limit":
                settings.string_limit = number(value, flag)
            case "quiet":
                settings.quiet = True
            case "no-seccomp":
                settings.seccomp = False
            case "help":
                settings.help = True
            case "version":
                settings.version = True
    return settings


def usage() -> str:
    """The help text."""
    lines = [
        "usage: bpfstrace [OPTIONS] PROG [ARGS]     trace a program's use of eBPF",
        "       bpfstrace replay [OPTIONS] FILE     print a saved trace again",
        "",
        "options (before PROG):",
    ]
    for row in OPTIONS:
        flags = f"-{row.short}, " if row.short else "    "
        flags += f"--{row.long}" + (f" {row.metavar}" if row.metavar else "")
        lines.append(f"  {flags:<26} {row.help}")
    return "\n".join([*lines, "", EXAMPLES])
