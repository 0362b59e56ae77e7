"""--help: the tables of options and subcommands, in groups, within 80 columns."""

from __future__ import annotations

from textwrap import wrap
from typing import Final

from bpftrace_sys.cli.commands import BY_NAME, HELP, ROWS, Command
from bpftrace_sys.cli.options import GROUPS, OPTIONS, Option, UsageError
from bpftrace_sys.cli.settings import Settings

WIDTH: Final = 79
COLUMN: Final = 29
"""Where texts begin."""
USAGE: Final = (
    ("[OPTIONS] PROG [ARGS]", "trace a program's use of eBPF"),
    ("[OPTIONS] -p PID", "what runs already"),
    ("-a [OPTIONS]", "the whole machine's"),
    ("SUBCOMMAND ...", "work with what was traced, and more"),
)
EXAMPLES: Final = (
    ("bpfstrace -f python3 hello.py", "what hello.py asks of BPF"),
    ("bpfstrace -f -o out.txt ./loader", "the loader's own output stays apart"),
    ("bpfstrace -f --json trace.jsonl ./loader", "saved"),
    ("bpfstrace replay -v trace.jsonl", "the same text again, unfolded"),
    ("bpfstrace -f -e bpf=prog_load,link_create ./loader", ""),
)


def flags(short: str, long: str, metavar: str) -> str:
    """``-o, --output FILE``, with the room of a short one where there is none."""
    gap = "" if metavar.startswith("[") or not metavar else " "
    return (f"-{short}, " if short else "    ") + f"--{long}{gap}{metavar}"


def _row(left: str, text: str) -> list[str]:
    lines = [part for line in text.split("\n") for part in _wrapped(line)] or [""]
    found = []
    if len(left) > COLUMN - 4:
        found.append(f"  {left}")
        left = ""
    found.append(f"  {left:<{COLUMN - 2}}{lines[0]}".rstrip())
    return found + [" " * COLUMN + line for line in lines[1:]]


def _wrapped(line: str) -> list[str]:
    return wrap(
        line, WIDTH - COLUMN, subsequent_indent="  " if "=" in line.split(":")[0] else "",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _options(rows: tuple[Option, ...]) -> list[str]:
    lines = []
    for group in GROUPS:
        mine = [row for row in rows if row.group == group]
        if mine:
            lines += ["", f"{group}:"]
        for row in mine:
            lines += _row(flags(row.short, row.long, row.metavar), row.help)
    return lines


def of_all() -> str:
    """``bpfstrace --help``."""
    lines = []
    for at, (form, text) in enumerate(USAGE):
        lines.append(f"{'usage:' if at == 0 else '':<6} bpfstrace {form:<24} {text}")
    lines += ["", "Subcommands (bpfstrace --help SUBCOMMAND says more):"]
    for row in ROWS:
        lines += _row(row.name, row.summary)
    lines += ["", "Options stand before PROG; what follows it is its own."]
    lines += _options(OPTIONS)
    lines += ["", "examples:"]
    lines += [f"  {command:<42} {text}".rstrip() for command, text in EXAMPLES]
    return "\n".join(lines) + "\n"


def of_command(row: Command) -> str:
    """``bpfstrace --help SUBCOMMAND``."""
    lines: list[str] = []
    for at, form in enumerate(row.usage):
        head = f"{'usage:' if at == 0 else '':<6} bpfstrace {row.name} "
        lines += wrap(
            head + form, WIDTH, subsequent_indent=" " * len(head), break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
    for paragraph in row.about:
        lines += ["", *wrap(paragraph, WIDTH, break_on_hyphens=False)]
    if row.name == "replay":
        lines += _options(tuple(option for option in OPTIONS if option.only != "live"))
    else:
        lines.append("")
        for flag in (*row.flags, HELP):
            lines += _row(flags(flag.short, flag.long, flag.metavar), flag.help)
    lines += ["", *wrap(f"Exit code: {row.exit_words}", WIDTH, break_on_hyphens=False)]
    return "\n".join(lines) + "\n"


def said(settings: Settings, command: str = "") -> bool:
    """Whether --help or --version was asked for, and is said; ``command``: of which subcommand,
    where it is not the first word after ``--help``. UsageError for one that is near to a
    subcommand's name, and none."""
    if settings.help:
        name = command or (settings.args[0] if settings.args else "")
        if name and name not in BY_NAME:
            from bpftrace_sys.cli.suggest import meant

            near = meant(name, BY_NAME)
            if near:
                raise UsageError(f"there is no subcommand {name!r}{near}")
        print(of_command(BY_NAME[name]) if name in BY_NAME else of_all(), end="")
    elif settings.version:
        from bpftrace_sys import __version__

        print(f"bpfstrace {__version__}")
    else:
        return False
    return True
